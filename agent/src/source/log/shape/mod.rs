//! From bytes to entries: lines are cut, joined, parsed, labelled, filtered and masked.
//!
//! A [`Shaper`] is made for each input and is a pure function of its arguments: it keeps nothing from one call to the
//! next that changes what entries are made. What is not complete at the end of the bytes (half a line, an event whose
//! next line may still belong to it, a container's partial line) is not consumed: the caller comes again with more, or
//! says that this is the end ([`End::Flush`]).

use pegel_proto::logs::BlockBuilder;
use pegel_proto::metrics::{Block, Labels};
use pegel_runtime::metrics::Registry;
use std::sync::Arc;
use std::time::Duration;

/// What is made of an input's bytes.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How a container's runtime wrote the lines; none for plain ones.
    pub container: Option<Container>,
}

/// How a container's runtime writes lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// Docker's json-file: an object a line.
    Docker,
    /// Kubernetes' CRI: `TIME STREAM TAGS TEXT`.
    Cri,
}

impl Settings {
    /// How long a source may be silent with unconsumed bytes until its caller says [`End::Flush`].
    pub fn flush_after(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// The metrics that are derived from the input's lines, the same for all shapers made of these settings (and of
    /// their clones). Ask for their samples at every interval and hand them to the intake of metrics.
    pub fn derived(&self) -> Derived {
        Derived {}
    }
}

/// Metrics derived from lines.
#[derive(Debug, Clone)]
pub struct Derived {}

impl Derived {
    /// Their samples at an instant; none if none were derived.
    pub fn blocks(&self, _target: &Arc<Labels>, _at_ms: i64) -> Vec<Block> {
        Vec::new()
    }
}

/// One message of a source that brings them one by one.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The text; line ends within it stay.
    pub text: &'a [u8],
    /// Its own time, nanoseconds since the Unix epoch, if it brought one.
    pub at_ns: Option<i64>,
    /// The time of entries that bring none.
    pub base_ns: i64,
    /// The timestamp of the source's entry before.
    pub floor_ns: i64,
    /// Its structured metadata, which steps see as fields.
    pub metadata: &'a [(&'a str, &'a str)],
    /// The message was shaped before the last restart.
    pub again: bool,
}

/// Bytes of one source, from an entry's border on.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// The first byte's offset in its source.
    pub offset: u64,
    /// The time of entries that bring none, nanoseconds since the Unix epoch.
    pub base_ns: i64,
    /// The timestamp of the source's entry before; all of this chunk's become later.
    pub floor_ns: i64,
    /// What to make of the end.
    pub end: End,
    /// The chunk was shaped before the last restart: what depends on the moment (rate limits) lets everything pass.
    pub again: bool,
}

/// What the end of a chunk's bytes means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// More may come that belongs to what is there.
    More,
    /// Nothing more comes, or has not for as long as the settings wait: what is there is complete.
    Flush,
}

/// What was made of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shaped {
    /// How many bytes became entries or were left out; the rest is to come again. Always at an entry's border.
    pub consumed: usize,
    /// The timestamp of the last entry, or the chunk's floor.
    pub last_ns: i64,
    /// How many entries were written.
    pub entries: u32,
    /// The block is full: finish it and come again with the rest.
    pub full: bool,
}

/// The labels that a source gives to all its entries, sorted by name, without empty values.
pub type SourceLabels = [(String, String)];

/// Makes entries.
pub struct Shaper {
    labels: Vec<(String, String)>,
}

impl Shaper {
    /// A shaper for an input. `block_bytes` is the text after which a block counts as full.
    pub fn new(_settings: &Settings) -> Self {
        Self { labels: Vec::new() }
    }

    /// A shaper whose counters (`pegel_log_lines_total{input}`, `pegel_log_entries_total{input}`,
    /// `pegel_log_lines_dropped_total{input,reason,step}` and so on) are registered. Those of several shapers of one
    /// input add up.
    pub fn counted(settings: &Settings, _input: &str, _registry: &Registry) -> Self {
        Self::new(settings)
    }

    /// Shapes one message into the block: [`Shaped::consumed`] is the text's length, or 0 where the block is full.
    /// A step may leave it out: then it is consumed and there is no entry.
    pub fn message(
        &mut self,
        source: &SourceLabels,
        message: Message<'_>,
        block_bytes: usize,
        block: &mut BlockBuilder,
    ) -> Shaped {
        let full = Shaped { last_ns: message.floor_ns, full: true, ..Shaped::default() };
        let line = String::from_utf8_lossy(message.text);
        if block.text_bytes() >= block_bytes || !block.fits(line.len()) {
            return full;
        }
        let Some(stream) = block.stream(source.iter().map(|(n, v)| (n.as_str(), v.as_str()))) else {
            return full;
        };
        let mut pairs = Vec::with_capacity(message.metadata.len());
        for (name, value) in message.metadata {
            let Some(key) = block.key(name) else { return full };
            pairs.push((key, *value));
        }
        let last_ns = message.at_ns.unwrap_or(message.base_ns).max(message.floor_ns + 1);
        block.push(stream, last_ns, &line, &pairs);
        Shaped { consumed: message.text.len(), last_ns, entries: 1, full: false }
    }

    /// Shapes a chunk of a source into the block.
    pub fn shape(
        &mut self,
        source: &SourceLabels,
        chunk: Chunk<'_>,
        block_bytes: usize,
        block: &mut BlockBuilder,
    ) -> Shaped {
        self.labels.clear();
        self.labels.extend_from_slice(source);
        let mut shaped = Shaped { last_ns: chunk.floor_ns, ..Shaped::default() };
        let labels = self.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let Some(stream) = block.stream(labels) else { return Shaped { full: true, ..shaped } };
        while shaped.consumed < chunk.bytes.len() {
            let rest = &chunk.bytes[shaped.consumed..];
            let (line, taken) = match memchr::memchr(b'\n', rest) {
                Some(at) => (&rest[..at], at + 1),
                None if chunk.end == End::Flush => (rest, rest.len()),
                None => break,
            };
            if block.text_bytes() >= block_bytes || !block.fits(line.len()) {
                shaped.full = true;
                break;
            }
            shaped.last_ns = chunk.base_ns.max(shaped.last_ns + 1);
            block.push(stream, shaped.last_ns, &String::from_utf8_lossy(line), &[]);
            shaped.consumed += taken;
            shaped.entries += 1;
        }
        shaped
    }
}
