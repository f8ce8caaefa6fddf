//! Reading configuration: YAML with every mistake reported at once, each with file, line and column.
//!
//! serde stops at the first error and has forgotten the line by the time that values are judged. So a file goes
//! through these steps, each of which collects what it finds and hands the rest on:
//!
//! 1. [`tree`]: the text becomes a small tree in which every node knows its place. Size, depth and aliases are
//!    bounded here.
//! 2. [`interpolate`]: `${VAR}` and `${VAR:-default}` in values.
//! 3. Command-line flags replace nodes of the tree, so that a flag's value is judged as a file's is.
//! 4. [`check`]: the tree is held against the JSON Schema of the raw form: unknown keys, wrong types, missing keys,
//!    nonsense in durations and sizes. What is wrong is left out of the value that comes out, so that the next step
//!    can still run.
//! 5. serde makes the raw form, which is a plain struct with a doc comment and a default for each key. The same
//!    struct gives the JSON Schema (by schemars) and from that the [`reference`](mod@reference): one definition for
//!    parser, schema and documentation.
//! 6. The program resolves the raw form into its settings and says of what it finds wrong where it found it, by
//!    [`Mistakes::at`].
//!
//! Nothing of a value that came out of the environment is ever printed, nor are lines of the file: either may hold a
//! secret.

pub mod check;
pub mod form;
#[doc(hidden)]
pub mod golden;
pub mod interpolate;
pub mod mistakes;
mod nearest;
mod path;
pub mod reference;
pub mod section;
pub mod tree;

#[cfg(test)]
mod tests;

pub use check::or_a_list;
pub use mistakes::{Mistake, Mistakes};
pub use path::Path;
pub use tree::{Node, Place};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::{self, Write as _};
use std::io::Read;
use std::path::PathBuf;

/// The largest configuration file, in bytes. Ten thousand scrape targets of 100 bytes fit; a core dump does not.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// The raw form of a program's configuration: a struct with a default for every key.
pub trait Raw: DeserializeOwned + Serialize + JsonSchema + Default {}
impl<T: DeserializeOwned + Serialize + JsonSchema + Default> Raw for T {}

/// Where configuration comes from.
#[derive(Clone)]
pub struct Input {
    /// The file; none if flags have to do.
    pub file: Option<PathBuf>,
    /// What the command line says, stronger than the file.
    pub flags: Vec<Flag>,
    /// Whether files that the configuration names are opened, to see that they can be read.
    pub check_files: bool,
    /// Looks a variable of the environment up.
    pub environment: fn(&str) -> Option<String>,
}

impl Input {
    /// A file (or none) and flags, with the process' environment.
    pub fn new(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        Self { file, flags, check_files: true, environment: |name| std::env::var(name).ok() }
    }
}

/// A command-line flag that stands for a key.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag as its user typed it, `--aggregator`.
    pub name: &'static str,
    /// The path of the key that it stands for, as `log.level`.
    pub path: &'static str,
    /// Its values; a key that takes a list gets them all.
    pub values: FlagValues,
}

/// What a flag gives.
#[derive(Debug, Clone)]
pub enum FlagValues {
    /// One value.
    One(String),
    /// A list.
    List(Vec<String>),
}

/// Settings and what is questionable about them.
#[derive(Debug, Clone)]
pub struct Loaded<S> {
    /// The settings.
    pub settings: S,
    /// What works, but probably not as its writer meant it.
    pub warnings: Vec<Mistake>,
}

/// What `validate` says of a configuration that can be used.
pub fn validated(warnings: &[Mistake]) -> String {
    let mut words = String::new();
    for warning in warnings {
        let _ = writeln!(words, "warning: {warning}");
    }
    words.push_str("ok\n");
    words
}

/// A configuration that cannot be used: every mistake that was found, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadConfig {
    /// The mistakes; never empty.
    pub mistakes: Vec<Mistake>,
}

impl std::error::Error for BadConfig {}

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.mistakes.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

/// Reads, checks and resolves a configuration.
pub fn load<R: Raw, S>(
    input: &Input,
    resolve: impl FnOnce(&R, &mut Mistakes) -> S,
) -> Result<Loaded<S>, BadConfig> {
    let (name, text) = match &input.file {
        None => ("the command line".to_owned(), String::new()),
        Some(path) => {
            let name = path.display().to_string();
            match read(path) {
                Ok(text) => (name, text),
                Err(reason) => {
                    let mut mistakes = Mistakes::new(name, Node::default());
                    mistakes.add(Place::Unknown, &Path::root(), reason, "check the path and its permissions");
                    return Err(mistakes.into_error());
                }
            }
        }
    };
    load_text(name, &text, input, resolve)
}

/// Like [`load`], with the file's name and text at hand.
pub fn load_text<R: Raw, S>(
    name: String,
    text: &str,
    input: &Input,
    resolve: impl FnOnce(&R, &mut Mistakes) -> S,
) -> Result<Loaded<S>, BadConfig> {
    let mut tree = match tree::parse(text) {
        Ok(tree) => tree,
        Err(bad) => {
            let mut mistakes = Mistakes::new(name, Node::default());
            mistakes.add(bad.place, &Path::root(), bad.reason, bad.remedy);
            return Err(mistakes.into_error());
        }
    };
    let unset = interpolate::interpolate(&mut tree, input.environment);
    for flag in &input.flags {
        tree.put(&Path::parse(flag.path), flag.node());
    }
    let mut mistakes = Mistakes::new(name, tree);
    mistakes.look_at_files(input);
    for (path, bad) in unset {
        mistakes.at(&path, bad.reason, bad.remedy);
    }
    let schema = reference::schema::<R>();
    let value = check::check(&schema, &mut mistakes);
    let raw: R = serde_json::from_value(value).unwrap_or_else(|error| {
        // The schema lets nothing through that the raw form refuses; should they ever differ, words are better
        // than a panic.
        mistakes.add(Place::Unknown, &Path::root(), error.to_string(), "report this as a bug of pegel");
        R::default()
    });
    let settings = resolve(&raw, &mut mistakes);
    mistakes.finish(settings)
}

impl Flag {
    /// A flag with one value.
    pub fn one(name: &'static str, path: &'static str, value: impl Into<String>) -> Self {
        Self { name, path, values: FlagValues::One(value.into()) }
    }

    /// A flag that was given several times.
    pub fn list(name: &'static str, path: &'static str, values: Vec<String>) -> Self {
        Self { name, path, values: FlagValues::List(values) }
    }

    fn node(&self) -> Node {
        let place = Place::Flag(self.name);
        match &self.values {
            FlagValues::One(value) => Node::text(place, value),
            FlagValues::List(values) => {
                Node::list(place, values.iter().map(|value| Node::text(place, value)).collect())
            }
        }
    }
}

fn read(path: &std::path::Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|e| format!("the file cannot be opened: {e}"))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("the file cannot be read: {e}"))?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20));
    }
    String::from_utf8(bytes).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = valid.split(|b| *b == b'\n').count();
        format!("line {line} is not UTF-8")
    })
}

/// The body of the configuration's fuzz target: any bytes give settings or mistakes, never a panic.
#[doc(hidden)]
pub fn fuzz<R: Raw, S>(bytes: &[u8], resolve: impl FnOnce(&R, &mut Mistakes) -> S) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let input = Input {
        file: None,
        flags: Vec::new(),
        check_files: false,
        environment: |name| (name.len() < 8).then(|| name.to_lowercase()),
    };
    if let Err(bad) = load_text("fuzz.yaml".to_owned(), text, &input, resolve) {
        assert!(!bad.to_string().is_empty());
    }
}
