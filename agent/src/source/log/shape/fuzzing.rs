//! Bodies of fuzz targets: plain functions that panic on what must not happen, for `scripts/test` on stable and for
//! cargo-fuzz alike.

use super::mask::Kind;
use super::*;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// 2026-11-21T19:00:00Z.
const BASE_NS: i64 = 1_795_287_600_000_000_000;

static PRESETS: LazyLock<[Capture; 3]> =
    LazyLock::new(|| [Preset::NginxCombined, Preset::NginxError, Preset::ApacheError].map(Preset::capture));

/// Each parser of a line: the first byte picks it, the rest is the text. None panics, and what they find lies within
/// what was read.
pub fn parsers(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let mut event = event::Event::default();
    match first % 8 {
        0 => {
            let _ = json::parse(&text, "", &mut event);
        }
        1 => {
            logfmt::parse(&text, "p_", &mut event);
        }
        2 => {
            for container in [Container::Docker, Container::Cri] {
                let _ = container::read(container, &text, &mut event);
            }
        }
        3 => {
            let (format, text) = text.split_once('\n').unwrap_or((&text, ""));
            if let Ok(format) = Format::parse(format) {
                let _ = format.read(text, &Zone::default(), BASE_NS);
            }
        }
        4 => {
            for name in Format::names() {
                let format = Format::parse(name).expect("a format with a name");
                let _ = format.read(&text, &Zone::default(), BASE_NS);
            }
        }
        5 => {
            let _ = grok::compile(&text, &BTreeMap::from([("OWN".to_owned(), "%{OWN2}x".to_owned())]));
        }
        6 => {
            let mask = Mask::new(Kind::ALL.to_vec(), Vec::new());
            let mut pieces = Vec::new();
            let masked = mask.text(&text, &mut pieces).into_owned();
            assert!(pieces.iter().all(|piece| text.contains(piece.as_str()) || masked != text));
            let cut = text::prefix(&text, text.len() / 2).len();
            assert!(mask.before_cut(&text, cut) <= cut);
        }
        _ => {
            let _ = (Level::of_line(&text), Level::of_value(&text));
            for capture in &*PRESETS {
                capture.parse(&text, "", &mut capture.locations(), &mut event);
            }
        }
    }
    for pair in event.fields.iter().chain(&event.labels).chain(&event.metadata) {
        let _ = (event.text(pair.name), event.text(pair.value));
    }
}

/// The whole shaper: the first byte picks a configuration, the second how the bytes are split. Entries are the same in
/// whatever portions the bytes come, later one after another, and everything is consumed in the end.
pub fn shaper(input: &[u8]) {
    let [choice, split, bytes @ ..] = input else { return };
    let settings = configuration(*choice);
    let whole = entries(&settings, bytes, |left| left);
    let mut seed = u64::from(*split);
    let in_portions = entries(&settings, bytes, |left| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        left.min(1 + (seed >> 33) as usize % (1 + usize::from(*split)))
    });
    assert_eq!(whole, in_portions, "choice {choice}, split {split}");
    let rising = |pair: &[Shown]| pair[0].at_ns < pair[1].at_ns;
    assert!(whole.windows(2).all(rising), "timestamps rise");
}

/// An entry as a block has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub at_ns: i64,
    pub labels: Vec<(String, String)>,
    pub metadata: Vec<(String, String)>,
    pub line: String,
}

/// The entries of a source whose bytes come as `portion` says, of so many that are left. Each portion is handed over
/// together with what was not consumed before; the last one says that it is the end.
pub(super) fn entries(
    settings: &Settings,
    bytes: &[u8],
    mut portion: impl FnMut(usize) -> usize,
) -> Vec<Shown> {
    let source = [("job".to_owned(), "fuzz".to_owned())];
    let mut shaper = Shaper::new(settings);
    let mut block = BlockBuilder::new();
    let (mut shown, mut from, mut to, mut floor_ns) = (Vec::new(), 0, 0, 0);
    loop {
        if to < bytes.len() {
            to += portion(bytes.len() - to);
        }
        let end = if to == bytes.len() { End::Flush } else { End::More };
        let chunk = Chunk {
            bytes: &bytes[from..to],
            offset: from as u64,
            base_ns: BASE_NS,
            floor_ns,
            end,
            again: true,
        };
        let shaped = shaper.shape(&source, chunk, 2_000, &mut block);
        assert!(shaped.consumed <= to - from);
        assert!(to - from < DECIDING_BYTES || shaped.consumed > 0 || shaped.full);
        assert!(shaped.last_ns >= floor_ns);
        (from, floor_ns) = (from + shaped.consumed, shaped.last_ns);
        if shaped.full {
            assert!(block.entries() > 0, "an empty block is not full");
            show(&mut block, &mut shown);
        } else if end == End::Flush {
            assert_eq!(from, bytes.len(), "all is consumed at the end");
            show(&mut block, &mut shown);
            return shown;
        }
    }
}

fn show(block: &mut BlockBuilder, shown: &mut Vec<Shown>) {
    let Some(block) = block.finish() else { return };
    let decoded = block.decode().expect("our own block");
    let own = |pairs: &mut dyn Iterator<Item = (&str, &str)>| {
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    shown.extend(decoded.entries().map(|entry| Shown {
        at_ns: entry.at_ns(),
        labels: own(&mut decoded.labels(entry.stream())),
        metadata: own(&mut entry.metadata()),
        line: entry.line().to_owned(),
    }));
}

/// A configuration that a byte picks.
fn configuration(choice: u8) -> Settings {
    let parse = Parse::default;
    let steps: Vec<Step> = match choice >> 5 {
        0 => Vec::new(),
        1 => vec![
            Step::Json(parse()),
            Step::Level(None),
            Step::Labels(vec![("level".into(), "level".into()), ("a".into(), "a".into())]),
            Step::Metadata(Metadata::default()),
        ],
        2 => vec![
            Step::Logfmt(parse()),
            Step::Timestamp(Timestamp {
                field: "t".into(),
                formats: vec![
                    Format::parse("unix_any").expect("a format"),
                    Format::parse("rfc3339").expect("a format"),
                ],
                zone: Zone::default(),
                bounds: Bounds::default(),
            }),
            Step::Metadata(Metadata::default()),
            Step::Output("msg".into()),
        ],
        3 => vec![Step::Drop(Condition { contains: Some("a".into()), ..Condition::default() })],
        4 => vec![Step::Sample(Sample { threshold: u64::MAX / 2, field: None, when: None })],
        5 => vec![Step::RateLimit(RateLimit { per_second: 1.0, burst: 1.0 })],
        _ => vec![Step::Capture(
            "regex",
            parse(),
            Capture::new(r"(?<a>\w+)=(?<b>\S*)").expect("an expression"),
        )],
    };
    let multiline = Multiline {
        traces: vec![Trace::Java, Trace::Python, Trace::Go, Trace::Node, Trace::Dotnet],
        max_lines: 5,
        timeout: Duration::from_secs(1),
        ..Multiline::default()
    };
    Settings {
        encoding: match choice & 3 {
            1 if choice >> 5 == 6 => Encoding::Utf16Le,
            2 if choice >> 5 == 6 => Encoding::Latin1,
            _ => Encoding::Utf8,
        },
        container: match choice >> 2 & 3 {
            1 => Some(Container::Docker),
            2 => Some(Container::Cri),
            _ => None,
        },
        max_line: 100,
        multiline: (choice & 1 == 1).then_some(multiline),
        mask: (choice & 16 == 16).then(|| Arc::new(Mask::new(Kind::ALL.to_vec(), Vec::new()))),
        repeats: choice & 2 == 2,
        steps: steps.into(),
        ..Settings::default()
    }
}
