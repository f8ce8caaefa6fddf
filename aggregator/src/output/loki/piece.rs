//! What one request holds: streams with their entries in order, and how a piece is split when Loki refuses it.

use super::batch::BatchKey;
use pegel_proto::logs::{DecodedBlock, EntryView};
use std::collections::HashMap;
use std::sync::Arc;

/// A block whose entries are in a request, and whose batch it is.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub batch: BatchKey,
    pub block: Arc<DecodedBlock>,
}

/// One entry: the number of its source in the piece, and its index in the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Record {
    pub source: u32,
    pub index: u32,
}

/// Entries of one stream.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// The stream's labels as text.
    pub stream: Arc<str>,
    /// The session that sends it.
    pub session: u64,
    /// In the order in which they were collected.
    pub records: Vec<Record>,
}

/// Whether a piece may be stored already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Doubt {
    /// It is not.
    #[default]
    None,
    /// It may be, and Loki can be asked.
    Ask,
    /// It may be, and nobody knows.
    Open,
}

/// What one request holds.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub sources: Arc<[Source]>,
    pub groups: Vec<Group>,
    pub doubt: Doubt,
    /// It was refused without a known reason, and asked about again after something else was accepted.
    pub asked_again: bool,
    /// How often it was put aside for its stream's limit.
    pub tries: u32,
}

/// What is known of a group's entries without their text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The furthest that an entry lies behind an earlier one, or behind `newest_ns` from before, in nanoseconds.
    pub furthest_behind_ns: i64,
    pub newest_ns: i64,
    pub bytes: u64,
}

impl Piece {
    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.records.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(|group| group.records.is_empty())
    }

    /// An entry.
    pub fn entry(&self, record: Record) -> EntryView<'_> {
        self.sources[record.source as usize]
            .block
            .entry(record.index as usize)
            .expect("a record is an entry of its source")
    }

    /// The batch of an entry.
    pub fn batch(&self, record: Record) -> BatchKey {
        self.sources[record.source as usize].batch
    }

    /// Its only entry, if it has only one.
    pub fn only_record(&self) -> Option<Record> {
        match &*self.groups {
            [group] if group.records.len() == 1 => Some(group.records[0]),
            _ => None,
        }
    }

    /// A piece of other groups of the same sources.
    pub fn with(&self, groups: Vec<Group>) -> Self {
        Self { sources: self.sources.clone(), groups, ..*self }
    }

    /// Takes out what belongs to batches that `keep` does not want. Says whether that was anything.
    pub fn retain(&mut self, keep: impl Fn(BatchKey) -> bool) -> bool {
        let kept: Vec<bool> = self.sources.iter().map(|source| keep(source.batch)).collect();
        if kept.iter().all(|kept| *kept) {
            return false;
        }
        let before = self.len();
        for group in &mut self.groups {
            group.records.retain(|record| kept[record.source as usize]);
        }
        self.groups.retain(|group| !group.records.is_empty());
        self.len() != before
    }

    /// Takes the group at a place out.
    pub fn take_group(&mut self, at: usize) -> Self {
        let group = self.groups.remove(at);
        self.with(vec![group])
    }

    /// Splits a piece of more than one entry in two: between streams, else between entries. The first half is to be
    /// sent first.
    pub fn split(mut self) -> (Self, Self) {
        if self.groups.len() > 1 {
            let half = self.len() / 2;
            let mut before = 0;
            let at = self.groups.iter().position(|group| {
                before += group.records.len();
                before > half
            });
            let at = at.unwrap_or(1).clamp(1, self.groups.len() - 1);
            let second = self.groups.split_off(at);
            let second = self.with(second);
            return (self, second);
        }
        let group = &mut self.groups[0];
        let records = group.records.split_off(group.records.len() / 2);
        let second = Group { stream: group.stream.clone(), session: group.session, records };
        let second = self.with(vec![second]);
        (self, second)
    }

    /// Measures a group, `newest_ns` being the stream's newest entry so far.
    pub fn extent(&self, group: &Group, newest_ns: i64) -> Extent {
        let mut extent = Extent { furthest_behind_ns: 0, newest_ns, bytes: 0 };
        for record in &group.records {
            let entry = self.entry(*record);
            let at = entry.at_ns();
            extent.furthest_behind_ns = extent.furthest_behind_ns.max(extent.newest_ns.saturating_sub(at));
            extent.newest_ns = extent.newest_ns.max(at);
            extent.bytes += entry_bytes(entry);
        }
        extent
    }
}

/// An entry's size as Loki counts it for its limits: the line and its structured metadata (`EntryTotalSize` in
/// pkg/util/entry_size.go).
pub(super) fn entry_bytes(entry: EntryView<'_>) -> u64 {
    let metadata: usize = entry.metadata().map(|(name, value)| name.len() + value.len()).sum();
    (entry.line_bytes().len() + metadata) as u64
}

/// Puts entries together into a piece, in order.
#[derive(Debug, Default)]
pub(super) struct PieceBuilder {
    sources: Vec<Source>,
    groups: Vec<Group>,
    by_stream: HashMap<Arc<str>, u32>,
    /// The group of each of the last source's streams.
    places: Vec<u32>,
    bytes: usize,
}

const NO_GROUP: u32 = u32::MAX;

impl PieceBuilder {
    /// The bytes that the entries take in a request.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Turns to a block, all of whose entries are of one session.
    pub fn source(&mut self, source: Source) {
        self.places.clear();
        self.places.resize(source.block.stream_count(), NO_GROUP);
        self.sources.push(source);
    }

    /// Adds an entry of the last source.
    pub fn add(&mut self, index: u32, entry: EntryView<'_>, stream: &Arc<str>, session: u64) {
        let mut place = self.places[entry.stream()];
        if place == NO_GROUP {
            let groups = &mut self.groups;
            place = *self.by_stream.entry(stream.clone()).or_insert_with(|| {
                groups.push(Group { stream: stream.clone(), session, records: Vec::new() });
                groups.len() as u32 - 1
            });
            self.places[entry.stream()] = place;
        }
        let source = self.sources.len() as u32 - 1;
        self.groups[place as usize].records.push(Record { source, index });
        self.bytes += super::encode::entry_size(entry);
    }

    /// The piece.
    pub fn finish(self, doubt: Doubt) -> Piece {
        Piece { sources: self.sources.into(), groups: self.groups, doubt, asked_again: false, tries: 0 }
    }
}
