//! What one request holds: streams with their entries in order, and how a piece is split when Loki refuses it.

use super::batch::BatchKey;
use super::encode::{EntrySize, entry_size};
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
    records: Vec<Record>,
    /// Of all of them; none if there were others when it was taken.
    measure: Option<Measure>,
}

/// What is known of entries without a look at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measure {
    pub oldest_ns: i64,
    pub newest_ns: i64,
    /// The furthest that one lies behind an earlier one, in nanoseconds.
    behind_ns: i64,
    /// As Loki counts them.
    bytes: u64,
}

impl Measure {
    const NOTHING: Self = Self { oldest_ns: i64::MAX, newest_ns: i64::MIN, behind_ns: 0, bytes: 0 };

    fn add(&mut self, at_ns: i64, bytes: u64) {
        self.behind_ns = self.behind_ns.max(self.newest_ns.saturating_sub(at_ns));
        self.newest_ns = self.newest_ns.max(at_ns);
        self.oldest_ns = self.oldest_ns.min(at_ns);
        self.bytes += bytes;
    }
}

impl Group {
    fn new(stream: Arc<str>, session: u64) -> Self {
        Self { stream, session, records: Vec::new(), measure: Some(Measure::NOTHING) }
    }

    fn add(&mut self, record: Record, at_ns: i64, bytes: u64) {
        self.records.push(record);
        if let Some(measure) = &mut self.measure {
            measure.add(at_ns, bytes);
        }
    }

    /// Its entries.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Keeps the entries that `keep` wants.
    pub fn retain(&mut self, keep: impl FnMut(&Record) -> bool) {
        self.records.retain(keep);
        self.measure = None;
    }

    /// Takes off the entries from a place on.
    pub fn split_off(&mut self, at: usize) -> Self {
        self.measure = None;
        Self { records: self.records.split_off(at), stream: self.stream.clone(), ..*self }
    }

    /// The same stream with these entries.
    pub fn with(&self, records: Vec<Record>) -> Self {
        Self { stream: self.stream.clone(), session: self.session, records, measure: None }
    }
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
        self.groups.iter().all(Group::is_empty)
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
            group.retain(|record| kept[record.source as usize]);
        }
        self.groups.retain(|group| !group.is_empty());
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
        let second = group.split_off(group.records.len() / 2);
        let second = self.with(vec![second]);
        (self, second)
    }

    /// Measures a group, `newest_ns` being the stream's newest entry so far.
    pub fn extent(&self, group: &Group, newest_ns: i64) -> Extent {
        let measure = self.measure(group);
        // Behind what came before the group is its oldest entry the furthest.
        let behind_ns = measure.behind_ns.max(newest_ns.saturating_sub(measure.oldest_ns));
        Extent {
            furthest_behind_ns: behind_ns,
            newest_ns: newest_ns.max(measure.newest_ns),
            bytes: measure.bytes,
        }
    }

    /// Measures a group's entries among themselves.
    pub fn measure(&self, group: &Group) -> Measure {
        group.measure.unwrap_or_else(|| {
            let mut measure = Measure::NOTHING;
            for record in &group.records {
                let entry = self.entry(*record);
                measure.add(entry.at_ns(), entry_size(entry).counted);
            }
            measure
        })
    }
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
                groups.push(Group::new(stream.clone(), session));
                groups.len() as u32 - 1
            });
            self.places[entry.stream()] = place;
        }
        let source = self.sources.len() as u32 - 1;
        let EntrySize { written, counted } = entry_size(entry);
        self.groups[place as usize].add(Record { source, index }, entry.at_ns(), counted);
        self.bytes += written;
    }

    /// The piece.
    pub fn finish(self, doubt: Doubt) -> Piece {
        Piece { sources: self.sources.into(), groups: self.groups, doubt, asked_again: false, tries: 0 }
    }
}
