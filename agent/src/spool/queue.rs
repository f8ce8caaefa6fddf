//! The spool as a queue of segments: what is written where, what is read next, what is dropped and what is lost.
//! No file is touched here; every step goes through a [`SegmentStore`].

use super::ledger::{self, Entry, Ledger};
use super::record::{self, Assembler};
use super::store::{OpenSegment, SegmentName, SegmentStore, StoreError};
use super::{
    Committed, Inventory, Loss, LossReason, ReadRecord, RecordHeader, SegmentSummary, Settings, Spool,
    SpoolError, Start, Tally, WhenFull, directory,
};
use pegel_proto::batch::BatchSeq;
use std::collections::VecDeque;

mod reading;
mod recovery;
mod writing;

/// Segments open for reading beside the one being written: two cursors far apart don't close each other's segment
/// at every step, and memory stays within three segments.
const OPEN_READERS: usize = 2;

/// What a segment takes on disk beside its chunks: ledger, directories, sled's configuration and snapshot, and the
/// unused rest of sled's last log segment (256 KiB, once the database was opened again).
const SEGMENT_FIXED_BYTES: u64 = 288 << 10;

/// What chunks take on disk, by the bytes written: sled's message headers, the pages that name trees, block
/// rounding. `bench spool` measures 1.07 to 1.08 of the live bytes in all, and 1.20 by this accounting.
pub(crate) fn accounted_bytes(written: u64) -> u64 {
    written + written / 8
}

/// A place in the spool.
#[derive(Debug)]
pub struct Cursor {
    /// The first batch to be delivered.
    from: BatchSeq,
    place: Option<Place>,
}

/// Where in a segment a cursor is.
#[derive(Debug)]
struct Place {
    segment: SegmentName,
    next_chunk: u32,
    assembler: Assembler,
    /// The last record that came out of this segment.
    read: Option<BatchSeq>,
}

impl Cursor {
    /// A cursor at the first batch that is `from` or later.
    pub fn new(from: BatchSeq) -> Self {
        Self { from, place: None }
    }

    /// The first batch that is not delivered yet.
    pub fn from(&self) -> BatchSeq {
        self.from
    }

    /// The last batch that was read of a segment, if that is where the cursor is.
    pub(super) fn read_in(&self, number: u64) -> Option<BatchSeq> {
        self.place.as_ref().filter(|p| p.segment.number == number)?.read
    }

    /// Moves behind a batch, for spools without chunks.
    pub(super) fn advance(&mut self, number: u64, read: BatchSeq) {
        self.from = self.from.max(read.next());
        let segment = SegmentName { number, first_seq: 0 };
        self.place =
            Some(Place { segment, next_chunk: 0, assembler: Assembler::default(), read: Some(read) });
    }
}

/// A segment as the queue knows it.
#[derive(Debug, Clone)]
struct Segment {
    name: SegmentName,
    first: BatchSeq,
    last: BatchSeq,
    tally: Tally,
    oldest_ms: i64,
    /// Chunks that hold committed records.
    chunks: u32,
    /// Bytes on disk, by our accounting.
    bytes: u64,
    damaged: bool,
    /// Bytes in the ledger: the place of its next frame.
    ledger_bytes: u64,
    /// Batches that are stored but could not be noted in the ledger.
    unnoted: Vec<Entry>,
    /// How often in a row reading it failed for a reason that seemed to be the disk's.
    failures: u32,
}

impl Segment {
    fn new(name: SegmentName) -> Self {
        Self {
            name,
            first: BatchSeq(name.first_seq),
            last: BatchSeq(0),
            tally: Tally::default(),
            oldest_ms: i64::MAX,
            chunks: 0,
            bytes: SEGMENT_FIXED_BYTES,
            damaged: false,
            ledger_bytes: ledger::HEADER_BYTES as u64,
            unnoted: Vec::new(),
            failures: 0,
        }
    }

    fn of(name: SegmentName, ledger: &Ledger) -> Self {
        let mut segment = Self::new(name);
        segment.add(&ledger.entries, ledger.chunks, 0);
        segment.damaged = ledger.damaged;
        segment.ledger_bytes = ledger.length;
        if ledger.ahead_of_file {
            segment.unnoted.clone_from(&ledger.entries);
        }
        let written = ledger.entries.iter().map(|e| e.bytes + record::RECORD_HEADER_BYTES as u64).sum();
        segment.bytes += accounted_bytes(written);
        segment
    }

    fn add(&mut self, entries: &[Entry], chunks: u32, written: u64) {
        for entry in entries {
            if self.tally.batches == 0 {
                self.first = entry.seq;
            }
            self.last = entry.seq;
            self.tally.batches += 1;
            self.tally.records += entry.records;
            self.oldest_ms = self.oldest_ms.min(entry.oldest_ms);
        }
        self.chunks = chunks;
        self.bytes += accounted_bytes(written);
    }

    /// Keeps what these entries say and nothing else.
    fn cut_to(&mut self, entries: &[Entry]) {
        let whole = self.clone();
        *self = Self::new(self.name);
        self.add(entries, whole.chunks, 0);
        self.bytes = whole.bytes;
        self.damaged = whole.damaged;
        self.ledger_bytes = whole.ledger_bytes;
    }
}

/// Records that go into one segment with the next commit.
#[derive(Debug, Default)]
struct Group {
    /// Whether it begins a segment.
    begins: bool,
    run: Vec<u8>,
    entries: Vec<Entry>,
}

/// The spool on disk.
pub struct SegmentedSpool {
    store: Box<dyn SegmentStore>,
    settings: Settings,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    next_number: u64,
    /// The newest segment while it may be appended to.
    writer: Option<Box<dyn OpenSegment>>,
    /// Segments open for reading, the least recently used first.
    readers: Vec<(SegmentName, Box<dyn OpenSegment>)>,
    stage: Vec<Group>,
    /// The stage's last batch was encoded and then not taken: the encoder is ahead of the segment.
    encoder_ahead: bool,
    /// The newest batch that is or was stored.
    newest: BatchSeq,
    losses: Vec<Loss>,
    quarantined: usize,
    /// Segments that nothing is read of any more and that could not be removed yet.
    leftovers: Vec<Segment>,
}

impl SegmentedSpool {
    /// Opens or makes the spool in `settings.dir`. What is damaged is set aside and reported by
    /// [`Spool::take_losses`]; damage is no error.
    ///
    /// # Errors
    /// [`SpoolError::InUse`] if another process has it; [`SpoolError::Storage`] if the directory can't be made,
    /// listed or locked: the agent then runs from memory and tries again.
    pub fn open(settings: Settings) -> Result<Self, SpoolError> {
        let store = directory::Directory::open(&settings)?;
        Self::over(Box::new(store), settings)
    }

    /// Opens the spool over a store.
    pub(crate) fn over(store: Box<dyn SegmentStore>, settings: Settings) -> Result<Self, SpoolError> {
        let segment_bytes = settings.effective_segment_bytes();
        let mut spool = Self {
            store,
            settings,
            segment_bytes,
            segments: VecDeque::new(),
            next_number: 1,
            writer: None,
            readers: Vec::new(),
            stage: Vec::new(),
            encoder_ahead: false,
            newest: BatchSeq(0),
            losses: Vec::new(),
            quarantined: 0,
            leftovers: Vec::new(),
        };
        spool.recover()?;
        Ok(spool)
    }

    fn used_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    fn staged_bytes(&self) -> u64 {
        self.stage
            .iter()
            .map(|g| accounted_bytes(g.run.len() as u64) + if g.begins { SEGMENT_FIXED_BYTES } else { 0 })
            .sum()
    }

    /// Bytes of records in the segment that the next record goes to.
    fn written_bytes_of_open_segment(&self) -> Option<u64> {
        match self.stage.last() {
            Some(group) if group.begins => Some(group.run.len() as u64),
            staged => {
                self.writer.as_ref()?;
                let segment = self.segments.back()?;
                let chunk = (record::CHUNK_BYTES + record::CHUNK_HEADER_BYTES) as u64;
                // Chunks may be partly filled; what counts for rolling is what the disk holds.
                let stored = (segment.bytes - SEGMENT_FIXED_BYTES).min(u64::from(segment.chunks) * chunk);
                Some(stored + staged.map_or(0, |g| g.run.len() as u64))
            }
        }
    }

    /// Makes room for `wanted` bytes by the policy.
    fn make_room(&mut self, wanted: u64) -> Result<(), SpoolError> {
        while self.used_bytes() + self.staged_bytes() + wanted > self.settings.quota_bytes {
            let only_the_one_being_written = self.segments.len() == 1 && self.writer.is_some();
            if self.settings.when_full == WhenFull::Wait
                || self.segments.is_empty()
                || only_the_one_being_written
            {
                return Err(SpoolError::Full {
                    used_bytes: self.used_bytes(),
                    quota_bytes: self.settings.quota_bytes,
                });
            }
            self.drop_oldest();
        }
        Ok(())
    }

    fn drop_oldest(&mut self) {
        let Some(segment) = self.segments.front().cloned() else { return };
        let entries = self.entries_of(&segment).unwrap_or_default();
        let batches: Vec<_> = entries.iter().map(|e| (e.seq, e.records)).collect();
        self.close(segment.name);
        self.segments.pop_front();
        self.losses.push(Loss {
            reason: LossReason::QuotaFull,
            first: segment.first,
            last: segment.last,
            exact: Tally::of(&batches) == segment.tally,
            batches,
            total: Some(segment.tally),
            words: format!(
                "the spool reached its quota of {} bytes and dropped its oldest segment",
                self.settings.quota_bytes
            ),
        });
        // Counted before it is removed: better counted and delivered after a crash than gone without a word.
        self.leftovers.push(segment);
        self.remove_leftovers();
    }

    /// What a segment holds, from its ledger.
    fn entries_of(&mut self, segment: &Segment) -> Result<Vec<Entry>, StoreError> {
        let bytes = self.store.read_ledger(segment.name)?;
        let mut entries = ledger::parse(segment.name, &bytes).map(|l| l.entries).unwrap_or_default();
        entries.extend_from_slice(&segment.unnoted);
        entries.sort_by_key(|e| e.seq);
        entries.dedup_by_key(|e| e.seq);
        entries.retain(|e| (segment.first..=segment.last).contains(&e.seq));
        Ok(entries)
    }
}

impl Drop for SegmentedSpool {
    fn drop(&mut self) {
        // A sealed ledger spares the next start from reading the segment through.
        self.retire_writer(true);
    }
}

impl Spool for SegmentedSpool {
    fn append(
        &mut self,
        header: RecordHeader,
        encode: &mut dyn FnMut(Start, &mut Vec<u8>),
    ) -> Result<(), SpoolError> {
        if header.seq <= self.newest {
            return Ok(());
        }
        if let Some(last) = self.stage.last().and_then(|g| g.entries.last())
            && header.seq <= last.seq
        {
            return Err(SpoolError::OutOfOrder { seq: header.seq, last: last.seq });
        }
        self.make_room(record::RECORD_HEADER_BYTES as u64)?;
        let full = self.written_bytes_of_open_segment().is_none_or(|bytes| bytes >= self.segment_bytes);
        let begins = full || self.encoder_ahead;
        if begins || self.stage.is_empty() {
            self.stage.push(Group { begins, ..Group::default() });
        }
        self.encoder_ahead = false;
        let group = self.stage.last_mut().expect("a group was pushed if there was none");
        let at = group.run.len();
        // Whoever writes the first record of the stage may come after a segment that another encoder wrote.
        let start = if begins { Start::Fresh } else { Start::Continued };
        record::put_record(&mut group.run, header, |out| encode(start, out));
        let bytes = (group.run.len() - at - record::RECORD_HEADER_BYTES) as u64;
        group.entries.push(Entry {
            seq: header.seq,
            records: header.records,
            oldest_ms: header.oldest_ms,
            bytes,
        });
        if let Err(full) = self.make_room(0) {
            let group = self.stage.last_mut().expect("the group that was just written");
            group.run.truncate(at);
            group.entries.pop();
            if group.entries.is_empty() {
                self.stage.pop();
            }
            self.encoder_ahead = true;
            return Err(full);
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<Committed, SpoolError> {
        let mut up_to = None;
        for group in std::mem::take(&mut self.stage) {
            match self.store_group(&group) {
                Ok(()) => up_to = group.entries.last().map(|e| e.seq),
                Err(error) => {
                    // What was staged for later segments was encoded behind what failed.
                    self.retire_writer(true);
                    return match up_to {
                        Some(_) => Ok(Committed { up_to, failed: Some(error) }),
                        None => Err(error),
                    };
                }
            }
        }
        Ok(Committed { up_to, failed: None })
    }

    fn next(&mut self, cursor: &mut Cursor) -> Result<Option<ReadRecord>, SpoolError> {
        self.read_next(cursor)
    }

    fn condemn(&mut self, cursor: &Cursor, seq: BatchSeq, words: &str) {
        if let Some(place) = &cursor.place {
            let intact = BatchSeq(seq.0.saturating_sub(1));
            self.give_up_rest(place.segment, Some(intact), words);
        }
    }

    fn trim(&mut self, up_to: BatchSeq) -> Result<(), SpoolError> {
        while let Some(segment) = self.segments.front().filter(|s| s.last <= up_to).cloned() {
            if self.segments.len() == 1 && self.stage.first().is_some_and(|g| !g.begins) {
                // What is staged goes on in this segment.
                break;
            }
            self.close(segment.name);
            self.discard(&segment)?;
            self.segments.pop_front();
        }
        if self.segments.is_empty() {
            self.readers.clear();
        }
        self.remove_leftovers();
        Ok(())
    }

    fn inventory(&self) -> Inventory {
        let segments = self
            .segments
            .iter()
            .map(|s| SegmentSummary {
                number: s.name.number,
                first: s.first,
                last: s.last,
                tally: s.tally,
                bytes: s.bytes,
                oldest_ms: s.oldest_ms,
                damaged: s.damaged,
            })
            .collect();
        Inventory { segments, bytes: self.used_bytes(), quarantined: self.quarantined }
    }

    fn held_above(&mut self, acknowledged: BatchSeq) -> Result<Tally, SpoolError> {
        let mut sum = Tally::default();
        for segment in self.segments.clone() {
            let part = if segment.first > acknowledged {
                segment.tally
            } else if segment.last > acknowledged {
                let entries = self.entries_of(&segment)?;
                let above = entries.iter().filter(|e| e.seq > acknowledged);
                above.fold(Tally::default(), |sum, e| sum.and(1, e.records))
            } else {
                Tally::default()
            };
            sum = sum.and(part.batches, part.records);
        }
        Ok(sum)
    }

    fn take_losses(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.losses)
    }
}
