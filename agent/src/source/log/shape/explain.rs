//! What each step makes of sample lines, for `pegel-agent test`.

use super::entry::Raw;
use super::event::Event;
use super::step::Verdict;
use super::{Chunk, End, Settings, Shaper, SourceLabels};
use pegel_proto::logs::BlockBuilder;
use serde::Serialize;
use std::collections::BTreeMap;

/// What became of one event.
#[derive(Debug, Default, Serialize)]
pub struct Explained {
    /// The line, or the lines that were joined.
    pub read: String,
    /// How many lines of the source it is made of.
    pub lines: u32,
    /// What each step did.
    pub steps: Vec<Seen>,
    /// The step that left it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped_by: Option<String>,
    /// What is sent; none if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
}

/// What a step did.
#[derive(Debug, Serialize)]
pub struct Seen {
    /// Its number and name.
    pub step: String,
    /// It could make nothing of the line.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// Fields that it found or changed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// Labels that it made.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Structured metadata that it added.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The time that it read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// What it made the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// It left the entry out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub drops: bool,
}

/// An entry as it is sent.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its time.
    pub timestamp: String,
    /// The labels of its stream.
    pub labels: BTreeMap<String, String>,
    /// Its structured metadata.
    pub metadata: BTreeMap<String, String>,
    /// Its line.
    pub line: String,
}

/// Watches steps at work.
#[derive(Debug, Default)]
pub(super) struct Trace {
    seen: Vec<Explained>,
    before: (usize, usize, usize, Option<i64>, String),
    /// Which of the events became entries, in their order.
    entries: Vec<usize>,
}

impl Trace {
    pub fn begin(&mut self, raw: &Raw<'_>) {
        self.seen.push(Explained { read: raw.text.to_owned(), lines: raw.lines, ..Explained::default() });
        self.before = (0, 0, raw.metadata.len(), raw.at_ns, raw.text.to_owned());
    }

    pub fn step(&mut self, nth: usize, name: &str, event: &Event, read: &str, verdict: Verdict) {
        let Some(seen) = self.seen.last_mut() else { return };
        let own = |pairs: &[super::event::Pair], from: usize| {
            let pairs = pairs.get(from..).unwrap_or_default();
            pairs.iter().map(|p| (event.text(p.name).to_owned(), event.text(p.value).to_owned())).collect()
        };
        let (fields, labels, metadata, at_ns, line) = &self.before;
        let mut found: BTreeMap<String, String> = own(&event.fields, *fields);
        if let Some(level) = event.value("level").filter(|_| name == "level") {
            found.insert("level".to_owned(), level.to_owned());
        }
        let step = format!("{nth}:{name}");
        if verdict != Verdict::On {
            seen.dropped_by = Some(step.clone());
        }
        seen.steps.push(Seen {
            step,
            failed: event.effects.failed >> nth & 1 == 1,
            fields: found,
            labels: own(&event.labels, *labels),
            metadata: own(&event.metadata, *metadata),
            timestamp: event.at_ns.filter(|at| Some(*at) != *at_ns).map(super::entry::written),
            line: (event.line(read) != line).then(|| event.line(read).to_owned()),
            drops: verdict != Verdict::On,
        });
        self.before = (
            event.fields.len(),
            event.labels.len(),
            event.metadata.len(),
            event.at_ns,
            event.line(read).to_owned(),
        );
    }

    /// The event that was begun last became an entry.
    pub fn entry(&mut self) {
        self.entries.push(self.seen.len().saturating_sub(1));
    }

    /// The event that was begun last comes again.
    pub fn again(&mut self) {
        self.seen.pop();
    }
}

/// The most text of one block.
const BLOCK_BYTES: usize = 1 << 20;

/// Shapes sample lines as an input's and tells what each step made of them. The bytes are a whole source.
pub fn explain(settings: &Settings, source: &SourceLabels, bytes: &[u8], now_ns: i64) -> Vec<Explained> {
    // Repeats are shown as what they are made of.
    let settings = Settings { repeats: false, ..settings.clone() };
    let mut shaper = Shaper::new(&settings);
    shaper.maker.trace = Some(Trace::default());
    let (mut at, mut floor_ns) = (0, 0);
    let mut explained = Vec::new();
    let mut block = BlockBuilder::new();
    loop {
        let chunk = Chunk {
            bytes: &bytes[at..],
            offset: at as u64,
            base_ns: now_ns,
            floor_ns,
            end: End::Flush,
            again: false,
        };
        let shaped = shaper.shape(source, chunk, BLOCK_BYTES, &mut block);
        let trace = shaper.maker.trace.replace(Trace::default()).unwrap_or_default();
        let mut seen = trace.seen;
        if let Some(Ok(decoded)) = block.finish().map(|block| block.decode()) {
            for (nth, entry) in trace.entries.into_iter().zip(decoded.entries()) {
                let pairs = |pairs: &mut dyn Iterator<Item = (&str, &str)>| {
                    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
                };
                seen[nth].entry = Some(Entry {
                    timestamp: super::entry::written(entry.at_ns()),
                    labels: pairs(&mut decoded.labels(entry.stream())),
                    metadata: pairs(&mut entry.metadata()),
                    line: entry.line().to_owned(),
                });
            }
        }
        explained.append(&mut seen);
        at += shaped.consumed;
        floor_ns = shaped.last_ns;
        if at >= bytes.len() || shaped.consumed == 0 {
            return explained;
        }
    }
}
