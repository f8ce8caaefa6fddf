//! Entries as JSON.

use super::query::Asked;
use crate::output::recent_logs::Query;
use axum::body::Bytes;
use pegel_proto::identity::AgentIdentity;
use pegel_proto::logs::{DecodedBlock, EntryView};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// The most entries in one event: a page parses an event as a whole.
const EVENT_ENTRIES: usize = 1_000;

/// How answers are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON object a line.
    Lines,
    /// Server-sent events; `entries` carries an array.
    Events,
}

impl Format {
    /// Ends the past.
    pub(super) fn live(self) -> Bytes {
        self.event("live", &serde_json::json!({}))
    }

    /// So many entries were left out.
    pub(super) fn left_out(self, entries: u64) -> Bytes {
        self.event("left_out", &serde_json::json!({ "entries": entries }))
    }

    /// Words for a person.
    pub(super) fn note(self, text: &str) -> Bytes {
        self.event("note", &serde_json::json!({ "text": text }))
    }

    /// Nothing to say.
    pub(super) fn alive(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Lines => b"\n",
            Self::Events => b":\n\n",
        })
    }

    fn event(self, name: &str, body: &serde_json::Value) -> Bytes {
        match self {
            Self::Events => format!("event: {name}\ndata: {body}\n\n").into(),
            Self::Lines => {
                let mut body = body.clone();
                body["event"] = name.into();
                format!("{body}\n").into()
            }
        }
    }
}

/// Puts entries together.
struct Page {
    format: Format,
    out: Vec<u8>,
    entries: usize,
}

impl Page {
    fn new(format: Format) -> Self {
        Self { format, out: Vec::new(), entries: 0 }
    }

    fn push(&mut self, entry: &EntryJson<'_>) {
        match self.format {
            Format::Lines => {}
            Format::Events if self.entries == 0 => self.out.extend_from_slice(b"event: entries\ndata: ["),
            Format::Events => self.out.push(b','),
        }
        serde_json::to_writer(&mut self.out, entry).expect("strings become JSON, and memory takes it");
        if self.format == Format::Lines {
            self.out.push(b'\n');
        }
        self.entries += 1;
    }

    fn finish(mut self) -> Bytes {
        if self.format == Format::Events && self.entries > 0 {
            self.out.extend_from_slice(b"]\n\n");
        }
        self.out.into()
    }
}

/// A stream's labels as Loki has them: tenant and node are the certificate's, those of the source are kept beside.
pub(super) fn full_labels<'a>(
    identity: &'a AgentIdentity,
    own: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<(&'a str, &'a str)> {
    let renamed = |(name, value)| match name {
        "node" => ("exported_node", value),
        "tenant" => ("exported_tenant", value),
        name => (name, value),
    };
    let mut labels: Vec<_> = own.map(renamed).collect();
    labels.extend([("node", identity.node.as_str()), ("tenant", identity.tenant.as_str())]);
    labels.sort_unstable();
    labels
}

struct Pairs<'a>(&'a [(&'a str, &'a str)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

struct EntryJson<'a> {
    identity: &'a AgentIdentity,
    labels: &'a [(&'a str, &'a str)],
    entry: EntryView<'a>,
}

impl Serialize for EntryJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let own: Vec<_> =
            self.labels.iter().copied().filter(|(name, _)| !matches!(*name, "node" | "tenant")).collect();
        let metadata: Vec<_> = self.entry.metadata().collect();
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("at_ns", &self.entry.at_ns().to_string())?;
        map.serialize_entry("tenant", self.identity.tenant.as_str())?;
        map.serialize_entry("node", self.identity.node.as_str())?;
        map.serialize_entry("labels", &Pairs(&own))?;
        map.serialize_entry("metadata", &Pairs(&metadata))?;
        map.serialize_entry("line", self.entry.line())?;
        map.end()
    }
}

/// A block that is being looked at, piece by piece.
pub(super) struct Reading {
    identity: Arc<AgentIdentity>,
    block: Arc<DecodedBlock>,
    /// Which streams the query takes.
    taken: Vec<bool>,
    next: usize,
}

impl Reading {
    pub(super) fn new(identity: &Arc<AgentIdentity>, block: Arc<DecodedBlock>, query: &Query) -> Self {
        let taken = taken(identity, &block, query);
        let next = if taken.contains(&true) { 0 } else { block.entries().len() };
        Self { identity: identity.clone(), block, taken, next }
    }

    /// Looks at so many bytes of lines, or writes so many, and gives what was written.
    pub(super) fn render(&mut self, query: &Query, format: Format, turn_bytes: usize) -> Bytes {
        let mut page = Page::new(format);
        let mut looked_at = 0;
        let mut labels_of = None;
        while let Some(entry) = self.block.entry(self.next) {
            if looked_at + page.out.len() > turn_bytes || page.entries >= EVENT_ENTRIES {
                break;
            }
            self.next += 1;
            looked_at += entry.line_bytes().len();
            let stream = entry.stream();
            if !self.taken[stream] {
                continue;
            }
            if labels_of.as_ref().is_none_or(|(of, _)| *of != stream) {
                labels_of = Some((stream, full_labels(&self.identity, self.block.labels(stream))));
            }
            let Some((_, labels)) = &labels_of else { continue };
            if query.takes(labels, entry.line(), entry.metadata().collect::<Vec<_>>().into_iter()) {
                page.push(&EntryJson { identity: &self.identity, labels, entry });
            }
        }
        page.finish()
    }

    pub(super) fn is_done(&self) -> bool {
        self.next >= self.block.entries().len()
    }
}

fn taken(identity: &AgentIdentity, block: &DecodedBlock, query: &Query) -> Vec<bool> {
    let takes = |stream| query.takes_stream(&full_labels(identity, block.labels(stream)));
    (0..block.stream_count()).map(takes).collect()
}

/// The newest entries of the past that are asked for, by time.
pub(super) fn past(
    nodes: &[(Arc<AgentIdentity>, Vec<Arc<DecodedBlock>>)],
    asked: &Asked,
    format: Format,
) -> Vec<Bytes> {
    // The newest on top of what goes first: (time, node, block, entry).
    let mut newest: BinaryHeap<Reverse<(i64, usize, usize, usize)>> = BinaryHeap::new();
    for (node, (identity, blocks)) in nodes.iter().enumerate() {
        for (nth, block) in blocks.iter().enumerate() {
            let taken = taken(identity, block, &asked.query);
            for (index, entry) in block.entries().enumerate() {
                let place = (entry.at_ns(), node, nth, index);
                let full = newest.len() >= asked.limit;
                if entry.at_ns() <= asked.after_ns
                    || !taken[entry.stream()]
                    || (full && newest.peek().is_some_and(|Reverse(oldest)| *oldest > place))
                {
                    continue;
                }
                let labels = full_labels(identity, block.labels(entry.stream()));
                let metadata: Vec<_> = entry.metadata().collect();
                if asked.query.takes(&labels, entry.line(), metadata.into_iter()) {
                    newest.push(Reverse(place));
                    if full {
                        newest.pop();
                    }
                }
            }
        }
    }
    let mut places: Vec<_> = newest.into_iter().map(|Reverse(place)| place).collect();
    places.sort_unstable();
    let mut pages = Vec::new();
    for places in places.chunks(EVENT_ENTRIES) {
        let mut page = Page::new(format);
        for (_, node, nth, index) in places {
            let (identity, blocks) = &nodes[*node];
            let Some(entry) = blocks[*nth].entry(*index) else { continue };
            let labels = full_labels(identity, blocks[*nth].labels(entry.stream()));
            page.push(&EntryJson { identity, labels: &labels, entry });
        }
        pages.push(page.finish());
    }
    pages
}
