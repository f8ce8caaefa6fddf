//! Reading: one segment after another, each from its head, up to what is committed or to the first damage.

use super::writing::append_ledger;
use super::{Cursor, OPEN_READERS, Place, Segment, SegmentedSpool};
use crate::spool::record::{self, Assembler};
use crate::spool::store::{SegmentName, StoreError};
use crate::spool::{Loss, LossReason, ReadRecord, SpoolError, Start};
use crate::spool::{Tally, ledger};
use pegel_proto::batch::BatchSeq;

/// How often in a row the disk may refuse to read one segment before the segment is given up. A full disk or a
/// missing permission never counts; an I/O error that persists is a bad sector, and the queue must not stop at it.
const MAX_READ_FAILURES: u32 = 5;

/// What came of trying to read on within a segment.
enum Step {
    Record(Box<ReadRecord>),
    /// Everything committed in the segment has been read.
    End,
    /// The segment can't be read beyond the cursor's place.
    Damaged(String),
}

impl SegmentedSpool {
    pub(super) fn read_next(&mut self, cursor: &mut Cursor) -> Result<Option<ReadRecord>, SpoolError> {
        loop {
            let at = self.segments.partition_point(|s| s.last < cursor.from);
            let Some(segment) = self.segments.get(at) else { return Ok(None) };
            let name = segment.name;
            if cursor.place.as_ref().is_none_or(|p| p.segment != name) {
                cursor.place =
                    Some(Place { segment: name, next_chunk: 0, assembler: Assembler::default(), read: None });
            }
            let place = cursor.place.as_mut().expect("set above");
            match self.step(at, place)? {
                Step::Record(mut record) => {
                    record.replay = record.header.seq < cursor.from;
                    if !record.replay {
                        cursor.from = record.header.seq.next();
                    }
                    return Ok(Some(*record));
                }
                // The summary says that there is more, so the end came too early.
                Step::End => {
                    let intact = place.read;
                    self.give_up_rest(name, intact, "records that were committed are missing");
                }
                Step::Damaged(what) => {
                    let intact = place.read;
                    self.give_up_rest(name, intact, &what);
                }
            }
        }
    }

    fn step(&mut self, at: usize, place: &mut Place) -> Result<Step, SpoolError> {
        let segment = self.segments[at].clone();
        loop {
            match place.assembler.pop() {
                Ok(Some((header, _))) if header.seq > segment.last => return Ok(Step::End),
                Ok(Some((header, bytes))) => {
                    if place.read.is_some_and(|read| header.seq <= read) {
                        return Ok(Step::Damaged(format!("batch {} is out of order", header.seq)));
                    }
                    let start = if place.read.is_none() { Start::Fresh } else { Start::Continued };
                    place.read = Some(header.seq);
                    let segment = place.segment.number;
                    let record = ReadRecord { header, bytes, start, replay: false, segment };
                    return Ok(Step::Record(Box::new(record)));
                }
                Ok(None) => {}
                Err(record::ImpossibleRecord) => {
                    return Ok(Step::Damaged("a record's length is impossible".to_owned()));
                }
            }
            if place.next_chunk >= segment.chunks {
                return Ok(Step::End);
            }
            let value = match self.read_chunk(&segment, place.next_chunk) {
                Ok(value) => value,
                Err(error) if self.is_fatal(at, &error) => return Ok(Step::Damaged(error.to_string())),
                Err(error) => return Err(error.into()),
            };
            self.segments[at].failures = 0;
            let number = segment.name.number;
            match value.as_deref().map(|v| record::verify(number, place.next_chunk, v)) {
                Some(Some(bytes)) => place.assembler.push(bytes),
                Some(None) => {
                    return Ok(Step::Damaged(format!("chunk {} fails its CRC", place.next_chunk)));
                }
                None => return Ok(Step::Damaged(format!("chunk {} is missing", place.next_chunk))),
            }
            place.next_chunk += 1;
        }
    }

    /// Whether an error means that the segment itself is lost.
    fn is_fatal(&mut self, at: usize, error: &StoreError) -> bool {
        if error.is_damage() {
            return true;
        }
        let counts = match error {
            StoreError::Io { source, .. } => !matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull
                    | std::io::ErrorKind::PermissionDenied
                    | std::io::ErrorKind::ReadOnlyFilesystem
                    | std::io::ErrorKind::QuotaExceeded
                    | std::io::ErrorKind::OutOfMemory
                    | std::io::ErrorKind::WouldBlock
            ),
            _ => false,
        };
        self.segments[at].failures += u32::from(counts);
        self.segments[at].failures > MAX_READ_FAILURES
    }

    fn read_chunk(&mut self, segment: &Segment, chunk: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let name = segment.name;
        if let Some(writer) = &mut self.writer
            && self.segments.back().is_some_and(|s| s.name == name)
        {
            return writer.read(chunk);
        }
        let found = self.readers.iter().position(|(open, _)| *open == name);
        let reader = if let Some(at) = found {
            self.readers.remove(at)
        } else {
            if self.readers.len() >= OPEN_READERS {
                self.readers.remove(0);
            }
            (name, self.store.open(name)?)
        };
        self.readers.push(reader);
        let (_, open) = self.readers.last_mut().expect("pushed above");
        let read = open.read(chunk);
        if read.is_err() {
            // Opened afresh at the next try: a database that met an error stays in it.
            self.readers.pop();
        }
        read
    }

    /// Ends a segment behind its last intact batch, reports what lay behind, and sets the segment aside: at once if
    /// nothing of it is intact, else once the intact part is trimmed (another cursor may still need it).
    pub(super) fn give_up_rest(&mut self, name: SegmentName, intact: Option<BatchSeq>, words: &str) {
        let Some(at) = self.segments.iter().position(|s| s.name == name) else { return };
        if at + 1 == self.segments.len() {
            self.retire_writer(true);
        }
        let before = self.segments[at].clone();
        let (kept, lost): (Vec<_>, Vec<_>) = self
            .entries_of(&before)
            .unwrap_or_default()
            .into_iter()
            .partition(|e| intact.is_some_and(|intact| e.seq <= intact));
        let batches: Vec<(BatchSeq, u64)> = lost.iter().map(|e| (e.seq, e.records)).collect();
        let known = Tally::of(&batches);
        let first = batches
            .first()
            .map_or_else(|| intact.map_or(before.first, BatchSeq::next).max(before.first), |(seq, _)| *seq);
        tracing::warn!(segment = %name, lost_batches = known.batches, lost_records = known.records,
            "spool segment damaged: {words}; it will be kept in quarantine/");
        self.losses.push(Loss {
            reason: LossReason::Damaged,
            first,
            last: before.last,
            exact: known.batches + kept.len() as u64 == before.tally.batches,
            batches,
            total: Some(Tally {
                batches: before.tally.batches - kept.len() as u64,
                records: before.tally.records.saturating_sub(kept.iter().map(|e| e.records).sum()),
            }),
            words: format!("segment {name}: {words}"),
        });
        self.readers.retain(|(open, _)| *open != name);
        let segment = &mut self.segments[at];
        segment.cut_to(&kept);
        segment.damaged = true;
        if kept.is_empty() {
            self.segments.remove(at);
            match self.store.quarantine(name, words) {
                Ok(()) => self.quarantined += 1,
                Err(error) => tracing::warn!(segment = %name, %error, "could not be set aside"),
            }
            return;
        }
        let frame = ledger::damage(name, segment.ledger_bytes, kept.last().map(|e| e.seq));
        if let Err(error) = append_ledger(self.store.as_mut(), segment, &frame, true) {
            tracing::warn!(segment = %name, %error,
                "the loss could not be noted and may be counted again after a restart");
        }
    }
}
