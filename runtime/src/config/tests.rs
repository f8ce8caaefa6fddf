//! The loader with a small raw form that has one key of every kind.

use super::form::{ByteSize, Listen, Period};
use super::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Zoo {
    /// Where to listen.
    listen: Option<Listen>,
    name: String,
    version: String,
    count: u32,
    share: f64,
    on: bool,
    mood: Mood,
    labels: BTreeMap<String, String>,
    cages: Vec<Cage>,
    animals: Vec<Animal>,
    care: Care,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mood {
    /// All is well.
    #[default]
    Calm,
    /// Better keep away.
    Wild,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["size"]))]
struct Cage {
    size: Option<ByteSize>,
    locked: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Animal {
    Lion(Lion),
    SeaCow(SeaCow),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Lion {
    /// How long its mane is.
    mane: u32,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct SeaCow {
    depth: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"feed_every": "feed_interval"}, "x-refused" = {"password": "use password_file"}))]
struct Care {
    feed_interval: Period,
    #[schemars(range(min = 1, max = 9))]
    keepers: u32,
    password_file: Option<form::FilePath>,
}

impl Default for Care {
    fn default() -> Self {
        Self { feed_interval: Period::seconds(15), keepers: 1, password_file: None }
    }
}

fn environment(name: &str) -> Option<String> {
    (name == "SECRET").then(|| "hunter2".to_owned())
}

fn read(text: &str, flags: Vec<Flag>) -> Result<Loaded<Zoo>, BadConfig> {
    let input = Input { file: None, flags, check_files: false, environment };
    load_text("zoo.yaml".to_owned(), text, &input, |raw: &Zoo, mistakes| {
        if raw.care.keepers == 5 {
            mistakes.at(&Path::parse("care.keepers"), "five is unlucky", "take four");
        }
        if raw.count > 100 {
            mistakes.warn(&Path::parse("count"), "is a lot", "");
        }
        raw.clone()
    })
}

fn errors(text: &str) -> Vec<String> {
    match read(text, Vec::new()) {
        Ok(zoo) => panic!("accepted as {zoo:?}"),
        Err(bad) => bad.mistakes.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_good_file_gives_values_and_defaults() {
    let text = "listen: 127.0.0.1:0\nname: '${SECRET}'\nversion: 1.0\ncount: 1_000\nshare: 1\non: true\nmood: wild\n\
        labels: {a: 1, b: yes}\ncages: [{size: 1KiB}]\nanimals:\n- type: sea_cow\n  depth: 7\n- {type: lion}\ncare:\n";
    let loaded = read(text, Vec::new()).unwrap();
    let zoo = loaded.settings;
    assert_eq!((zoo.name.as_str(), zoo.version.as_str(), zoo.count), ("hunter2", "1.0", 1000));
    assert_eq!((zoo.share, zoo.on, zoo.mood), (1.0, true, Mood::Wild));
    assert_eq!(
        zoo.labels.into_iter().collect::<Vec<_>>(),
        [("a".into(), "1".into()), ("b".into(), "yes".into())]
    );
    assert!(matches!(&zoo.animals[..], [Animal::SeaCow(SeaCow { depth: 7 }), Animal::Lion(_)]));
    assert_eq!(zoo.care.feed_interval, Period::seconds(15));
    assert_eq!(loaded.warnings[0].to_string(), "zoo.yaml:4:8: count: is a lot");
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    let text = "listen: nowhere\ncount: many\non: maybe\nmood: clam\nlabels: [a]\ncages:\n  - locked: true\n  - size: 12\n\
                animals:\n  - type: lyon\n  - depth: 3\n  - type: lion\n    mane: -1\n\
                care:\n  keepers: 10\n  feed_every: 3s\n  pasword_file: x\n  password: hunter2\non: true\nzebra: 1\n";
    assert_eq!(
        errors(text),
        [
            "zoo.yaml:1:9: listen: `nowhere` is not an IP address and a port; write an IP address and a port such as `127.0.0.1:9464` or `[::]:4433`",
            "zoo.yaml:2:8: count: `many` is not a whole number; write a whole number of at least 0",
            "zoo.yaml:3:5: on: `maybe` is neither `true` nor `false`; write `true` or `false`",
            "zoo.yaml:4:7: mood: `clam` is not known here; did you mean `calm`?",
            "zoo.yaml:5:9: labels: is a list, but a section is wanted; take the dashes away",
            "zoo.yaml:7:5: cages[0].size: is missing; give it a size such as `64KiB`, `8MiB` or `2GiB`",
            "zoo.yaml:8:11: cages[1].size: `12` has no unit; write a size such as `64KiB`, `8MiB` or `2GiB`",
            "zoo.yaml:10:11: animals[0].type: `lyon` is not known here; did you mean `lion`?",
            "zoo.yaml:11:5: animals[1].type: is missing; give it one of `lion`, `sea_cow`",
            "zoo.yaml:13:11: animals[2].mane: `-1` is too small; write a whole number of at least 0",
            "zoo.yaml:15:12: care.keepers: `10` is too large; write a whole number between 1 and 9",
            "zoo.yaml:16:3: care.feed_every: `feed_every` is called `feed_interval` here; write `feed_interval`",
            "zoo.yaml:17:3: care.pasword_file: `pasword_file` is not a key of this section; did you mean `password_file`?",
            "zoo.yaml:18:3: care.password: `password` is not a key of this section; use password_file",
            "zoo.yaml:19:1: on: `on` is given twice in this section; keep one of them",
            "zoo.yaml:20:1: zebra: `zebra` is not a key of this section; it has `listen`, `name`, `version`, `count`, \
         `share`, `on`, `mood`, `labels`, `cages`, `animals`, `care`",
        ]
    );
}

#[test]
fn elements_keep_their_numbers_when_others_are_wrong() {
    let input = Input { file: None, flags: Vec::new(), check_files: false, environment };
    let text = "animals:\n- type: lyon\n- {type: lion, mane: 9}\ncages: [x, y]\n";
    let bad = load_text("zoo.yaml".to_owned(), text, &input, |raw: &Zoo, mistakes| {
        assert!(matches!(raw.animals[0], Animal::Lion(Lion { mane: 9 })));
        mistakes.at(&Path::parse("animals").index(0).key("mane"), "is too long", "cut it");
        mistakes.at(&Path::parse("cages"), "there are none", "build one");
    });
    let found: Vec<String> = bad.unwrap_err().mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(found[1], "zoo.yaml:3:22: animals[1].mane: is too long; cut it");
    assert!(found[2].starts_with("zoo.yaml:4:9: cages[0]: is a single value"));
}

#[test]
fn mistakes_of_meaning_come_with_those_of_form() {
    assert_eq!(
        errors("care:\n  keepers: 5\nsize: 1\n"),
        [
            "zoo.yaml:2:12: care.keepers: five is unlucky; take four",
            "zoo.yaml:3:1: size: `size` is not a key of this section; it has `listen`, `name`, `version`, `count`, \
         `share`, `on`, `mood`, `labels`, `cages`, `animals`, `care`",
        ]
    );
}

#[test]
fn what_came_from_the_environment_is_not_shown() {
    let all = errors("count: ${SECRET}\nmood: '${SECRET}'\nlisten: ${SECRET}\nname: ${NOTHING}\n").join("\n");
    assert!(!all.contains("hunter2"), "{all}");
    assert!(all.contains("zoo.yaml:1:8: count: `${SECRET}` is not a whole number"), "{all}");
    assert!(all.contains("zoo.yaml:4:7: name: the environment variable NOTHING is not set; set it"), "{all}");
}

#[test]
fn a_flag_is_judged_like_a_key_and_named_in_the_mistake() {
    let flags = vec![Flag::one("--keepers", "care.keepers", "3"), Flag::one("--on", "on", "perhaps")];
    let bad = read("on: true\n", flags).unwrap_err().to_string();
    assert_eq!(bad, "--on: `perhaps` is neither `true` nor `false`; write `true` or `false`");
    let zoo = read("care: {keepers: 2}", vec![Flag::one("--keepers", "care.keepers", "3")]).unwrap();
    assert_eq!(zoo.settings.care.keepers, 3);
}

#[test]
fn an_empty_file_is_all_defaults_and_syntax_errors_have_a_place() {
    for empty in ["", "# nothing\n", "---\n", "\n\n", "care:\n"] {
        assert!(read(empty, Vec::new()).is_ok(), "{empty:?}");
    }
    for (text, start) in [
        ("a: [1\n", "zoo.yaml:"),
        ("on: true\n\tb: 1\n", "zoo.yaml:1:5: the YAML cannot be parsed"),
        ("on: true\n---\non: false\n", "zoo.yaml:"),
        ("- a\n", "zoo.yaml:1:1: is a list, but a section is wanted"),
        ("just words", "zoo.yaml:1:1: is a single value"),
    ] {
        let found = errors(text);
        assert!(found.len() == 1 && found[0].starts_with(start), "{text:?}: {found:?}");
    }
}

#[test]
fn a_bomb_is_refused_quickly() {
    let mut laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (before, name) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        let _ = writeln!(laughs, "{name}: &{name} [{}]", vec![format!("*{before}"); 10].join(", "));
    }
    let deep = format!("a: {}{}", "[".repeat(5_000), "]".repeat(5_000));
    let wide = format!("a: [{}]", "1,".repeat(MAX_FILE_BYTES / 4));
    for bomb in [laughs, deep, wide] {
        let found = errors(&bomb);
        assert!(found.len() == 1 && found[0].contains("the YAML cannot be parsed"), "{found:?}");
    }
}

#[test]
fn aliases_and_merges_work() {
    let zoo = read("cages:\n- &one {size: 1KiB}\n- *one\n- {<<: *one, locked: true}\n", Vec::new())
        .unwrap()
        .settings;
    assert_eq!(zoo.cages.len(), 3);
    assert!(zoo.cages[2].locked && zoo.cages[2].size == Some(ByteSize(1024)));
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake() {
    let input = Input::new(Some("/nonexistent/zoo.yaml".into()), Vec::new());
    let bad = load(&input, |_: &Zoo, _| ()).unwrap_err().to_string();
    assert!(bad.starts_with("/nonexistent/zoo.yaml: the file cannot be opened"), "{bad}");
}

#[test]
fn any_text_gives_values_or_mistakes() {
    use proptest::prelude::*;
    let piece = prop::sample::select(vec![
        "a", "on", ":", ": ", "- ", "\n", "  ", "[", "]", "{", "}", "&x", "*x", "<<", "${", "}", "SECRET",
        "'", "\"", "|", ">", "!!str ", "true", "1", "care", "animals", "type", "lion", "#", ",", "é", "\t",
        "---", "? ",
    ]);
    proptest!(|(pieces in prop::collection::vec(piece, 0..40))| {
        fuzz(pieces.concat().as_bytes(), |_: &Zoo, _| ());
    });
}

#[test]
fn the_reference_names_every_key() {
    let page = reference::markdown::<Zoo>("zoo");
    for words in [
        "| `listen` | listen-address |",
        "Where to listen.",
        "## `care`",
        "| `feed_interval` | duration | `15s` |",
        "with `type: sea_cow`",
        "`calm`, `wild`",
        "| `size` | size | *required* |",
    ] {
        assert!(page.contains(words), "{words} is not in\n{page}");
    }
}
