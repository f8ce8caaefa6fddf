//! The checkpoints without their file: what records say, applied in order.

use super::super::origin::{Origin, Range};
use super::record::{
    CountersRecord, MAGIC, NoteRecord, PlaceRecord, SettledRecord, SourceRecord, What, write,
};
use super::{Described, Place, Print, SourceId, SourceKind};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct State {
    sources: BTreeMap<SourceId, Source>,
    /// Spelled once for all sources of an input.
    inputs: HashSet<Arc<str>>,
    /// Not settled yet.
    intents: BTreeMap<u64, Origin>,
    /// Settled, but something before them is not.
    ahead: Vec<Range>,
    /// To be dropped when no intent speaks of them any more.
    forgotten: BTreeSet<SourceId>,
    last_source: u64,
    last_intent: u64,
    settled_up_to: u64,
}

#[derive(Debug)]
struct Source {
    described: Described,
    place: Place,
    note: Box<[u8]>,
}

impl State {
    pub(super) fn next_source(&self) -> SourceId {
        self.last_source + 1
    }

    pub(super) fn next_intent(&self) -> u64 {
        self.last_intent + 1
    }

    pub(super) fn described(&self, id: SourceId) -> Option<Described> {
        self.sources.get(&id).map(|source| source.described.clone())
    }

    pub(super) fn sources(&self, input: &str) -> Vec<(SourceId, Described)> {
        let of_input = self
            .sources
            .iter()
            .filter(|(id, source)| &*source.described.input == input && !self.forgotten.contains(id));
        of_input.map(|(id, source)| (*id, source.described.clone())).collect()
    }

    pub(super) fn place(&self, id: SourceId) -> Place {
        self.sources.get(&id).map(|source| source.place.clone()).unwrap_or_default()
    }

    pub(super) fn resume(&self, id: SourceId) -> Place {
        let mut place = self.place(id);
        let ranges: Vec<_> = self.ranges_of(id).collect();
        // Bounded, in case damaged cursors lead in a circle.
        for _ in 0..ranges.len() {
            let Some(range) = ranges.iter().find(|range| advances(&place, range)) else { break };
            follow(&mut place, range);
        }
        place
    }

    pub(super) fn note(&self, id: SourceId) -> &[u8] {
        self.sources.get(&id).map(|source| &*source.note).unwrap_or_default()
    }

    fn ranges_of(&self, id: SourceId) -> impl Iterator<Item = &Range> {
        let of_intents = self.intents.values().flat_map(|origin| &origin.ranges);
        of_intents.chain(&self.ahead).filter(move |range| range.source == id)
    }

    pub(super) fn settled_up_to(&self) -> u64 {
        self.settled_up_to
    }

    pub(super) fn is_outstanding(&self, intent: u64) -> bool {
        self.intents.contains_key(&intent)
    }

    pub(super) fn outstanding(&self) -> Vec<Origin> {
        self.intents.values().cloned().collect()
    }

    /// Drops intents and settled ranges that can't be reached from their sources' places: a record before them is
    /// missing, and what it spoke of will be read again with all that follows.
    pub(super) fn withdraw_unreachable(&mut self) {
        let mut ids: Vec<_> = self.intents.values().flat_map(|o| &o.ranges).map(|r| r.source).collect();
        ids.extend(self.ahead.iter().map(|r| r.source));
        ids.sort_unstable();
        ids.dedup();
        let resumed: HashMap<_, _> = ids.into_iter().map(|id| (id, self.resume(id))).collect();
        let reached = |range: &Range| {
            range.source == 0
                // A chain of cursors has no order but its own; what does not lead on is found again.
                || resumed
                    .get(&range.source)
                    .is_some_and(|place| !range.to_cursor.is_empty() || range.to <= place.offset)
        };
        self.intents.retain(|_, origin| origin.ranges.iter().all(&reached));
        self.ahead.retain(&reached);
    }

    pub(super) fn apply(&mut self, what: What) {
        match what {
            What::Source(record) => self.learn(record),
            What::Place(record) => {
                self.ahead.retain(|range| range.source != record.id);
                if let Some(source) = self.sources.get_mut(&record.id) {
                    source.place = Place {
                        offset: record.offset,
                        cursor: record.cursor.into(),
                        last_ns: record.last_ns,
                    };
                }
            }
            What::Intent(origin) => {
                self.last_intent = self.last_intent.max(origin.intent);
                self.intents.insert(origin.intent, origin);
            }
            What::Settled(record) => self.settle(record),
            What::Forgotten(id) => {
                self.forgotten.insert(id);
                self.drop_forgotten();
            }
            What::Withdrawn(intent) => {
                self.intents.remove(&intent);
                self.drop_forgotten();
            }
            What::Note(record) => {
                if let Some(source) = self.sources.get_mut(&record.id) {
                    source.note = record.note.into();
                }
            }
            What::Counters(record) => {
                self.last_source = self.last_source.max(record.next_source);
                self.last_intent = self.last_intent.max(record.next_intent);
                self.settled_up_to = self.settled_up_to.max(record.settled_up_to);
            }
        }
    }

    fn learn(&mut self, record: SourceRecord) {
        self.last_source = self.last_source.max(record.id);
        let Some(kind) = SourceKind::from_number(record.kind) else { return };
        let input = self.inputs.get(record.input.as_str()).cloned().unwrap_or_else(|| {
            let input: Arc<str> = record.input.as_str().into();
            self.inputs.insert(input.clone());
            input
        });
        let described = Described {
            input,
            kind,
            path: Path::new(OsStr::from_bytes(&record.path)).into(),
            device: record.device,
            inode: record.inode,
            born_ns: record.born_ns,
            print: Print { bytes: record.print_bytes, hash: record.print },
        };
        match self.sources.get_mut(&record.id) {
            Some(source) => source.described = described,
            None => {
                let source = Source { described, place: Place::default(), note: Box::default() };
                self.sources.insert(record.id, source);
            }
        }
    }

    fn settle(&mut self, record: SettledRecord) {
        self.settled_up_to = self.settled_up_to.max(record.seq);
        let ranges = match self.intents.remove(&record.intent) {
            Some(origin) => origin.ranges,
            None => record.ranges,
        };
        for range in ranges.into_iter().filter(|range| range.source != 0) {
            let Some(source) = self.sources.get_mut(&range.source) else { continue };
            if advances(&source.place, &range) {
                follow(&mut source.place, &range);
                self.close_gaps(range.source);
            } else if !is_behind(&source.place, &range) {
                self.ahead.push(range);
            }
        }
        self.drop_forgotten();
    }

    fn close_gaps(&mut self, id: SourceId) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        while let Some(at) =
            self.ahead.iter().position(|range| range.source == id && advances(&source.place, range))
        {
            follow(&mut source.place, &self.ahead.swap_remove(at));
        }
        let place = source.place.clone();
        self.ahead.retain(|range| range.source != id || !is_behind(&place, range));
    }

    fn drop_forgotten(&mut self) {
        if self.forgotten.is_empty() {
            return;
        }
        let named: HashSet<_> = self.intents.values().flat_map(|o| &o.ranges).map(|r| r.source).collect();
        let (kept, dropped) = self.forgotten.iter().partition::<BTreeSet<_>, _>(|id| named.contains(id));
        self.forgotten = kept;
        for id in dropped {
            self.sources.remove(&id);
            self.ahead.retain(|range| range.source != id);
        }
    }

    /// The bytes of a file that says all this.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 192 * self.sources.len());
        out.extend_from_slice(MAGIC);
        let counters = CountersRecord {
            next_source: self.last_source,
            next_intent: self.last_intent,
            settled_up_to: self.settled_up_to,
        };
        write(What::Counters(counters), &mut out);
        for (id, source) in &self.sources {
            write(What::Source(source_record(*id, &source.described)), &mut out);
            if source.place != Place::default() {
                write(What::Place(place_record(*id, &source.place)), &mut out);
            }
            if !source.note.is_empty() {
                write(What::Note(NoteRecord { id: *id, note: source.note.to_vec() }), &mut out);
            }
        }
        if !self.ahead.is_empty() {
            let settled = SettledRecord { seq: 0, intent: 0, ranges: self.ahead.clone() };
            write(What::Settled(settled), &mut out);
        }
        for origin in self.intents.values() {
            write(What::Intent(origin.clone()), &mut out);
        }
        for id in &self.forgotten {
            write(What::Forgotten(*id), &mut out);
        }
        out
    }
}

/// Whether a range begins at the place or before, and ends after it.
fn advances(place: &Place, range: &Range) -> bool {
    if range.to_cursor.is_empty() {
        range.from <= place.offset && range.to > place.offset
    } else {
        *range.from_cursor == *place.cursor && *range.to_cursor != *place.cursor
    }
}

/// Whether a range holds nothing that the place is not beyond. Cursors don't say.
fn is_behind(place: &Place, range: &Range) -> bool {
    range.to_cursor.is_empty() && range.to <= place.offset
}

fn follow(place: &mut Place, range: &Range) {
    place.offset = place.offset.max(range.to);
    if !range.to_cursor.is_empty() {
        place.cursor = range.to_cursor.as_str().into();
    }
    place.last_ns = place.last_ns.max(range.last_ns);
}

pub(super) fn source_record(id: SourceId, described: &Described) -> SourceRecord {
    SourceRecord {
        id,
        input: described.input.to_string(),
        kind: described.kind as u32,
        path: described.path.as_os_str().as_bytes().to_vec(),
        device: described.device,
        inode: described.inode,
        born_ns: described.born_ns,
        print_bytes: described.print.bytes,
        print: described.print.hash,
    }
}

pub(super) fn place_record(id: SourceId, place: &Place) -> PlaceRecord {
    PlaceRecord { id, offset: place.offset, cursor: place.cursor.to_string(), last_ns: place.last_ns }
}
