//! Writing: segments begin, take commits, end, and are removed.

use super::{Group, OPEN_READERS, SEGMENT_FIXED_BYTES, Segment, SegmentedSpool, accounted_bytes};
use crate::spool::store::{SegmentName, SegmentStore, StoreError};
use crate::spool::{SpoolError, ledger, record};
use pegel_proto::batch::BatchSeq;

impl SegmentedSpool {
    pub(super) fn close(&mut self, name: SegmentName) {
        if self.segments.back().is_some_and(|s| s.name == name) {
            self.writer = None;
        }
        self.readers.retain(|(open, _)| *open != name);
    }

    /// Removes a closed segment; a damaged one is set aside instead.
    pub(super) fn discard(&mut self, segment: &Segment) -> Result<(), StoreError> {
        if segment.damaged {
            self.store.quarantine(segment.name, "its end is damaged; what was intact has been read")?;
            self.quarantined += 1;
            return Ok(());
        }
        self.store.remove(segment.name)
    }

    /// Ends appending to the newest segment.
    pub(super) fn retire_writer(&mut self, seal: bool) {
        if self.writer.take().is_none() {
            return;
        }
        let Some(segment) = self.segments.back_mut().filter(|_| seal) else { return };
        let frame = ledger::seal(segment.name, segment.ledger_bytes);
        if let Err(error) = append_ledger(self.store.as_mut(), segment, &frame, true) {
            // Not sealed means that the next start asks the database: slower, not wrong.
            tracing::debug!(segment = %segment.name, %error, "segment could not be sealed");
        }
    }

    pub(super) fn store_group(&mut self, group: &Group) -> Result<(), SpoolError> {
        let wanted =
            accounted_bytes(group.run.len() as u64) + if group.begins { SEGMENT_FIXED_BYTES } else { 0 };
        self.store.check_space(wanted)?;
        if group.begins {
            self.begin_segment(group.entries[0].seq)?;
        }
        let stored = self.write_group(group);
        if let Err(error) = &stored {
            tracing::debug!(%error, "a commit failed; the segment is not written to again");
            if let (Some(open), Some(segment)) = (self.writer.take(), self.segments.back()) {
                // Its committed part can still be read; opening it again may not work on a full disk.
                self.readers.truncate(OPEN_READERS - 1);
                self.readers.push((segment.name, open));
            }
            self.remove_empty_tail();
        }
        stored
    }

    fn begin_segment(&mut self, first: BatchSeq) -> Result<(), SpoolError> {
        self.retire_writer(true);
        let name = SegmentName { number: self.next_number, first_seq: first.0 };
        self.next_number += 1;
        match self.store.create(name, &ledger::header(name)) {
            Ok(open) => {
                self.writer = Some(open);
                self.segments.push_back(Segment::new(name));
                Ok(())
            }
            Err(error) => {
                self.leftovers.push(Segment::new(name));
                self.remove_leftovers();
                Err(error.into())
            }
        }
    }

    fn write_group(&mut self, group: &Group) -> Result<(), SpoolError> {
        let (Some(writer), Some(segment)) = (&mut self.writer, self.segments.back_mut()) else {
            let (path, what) = (self.settings.dir.clone(), "the segment being written was given up".into());
            return Err(StoreError::Damaged { path, what }.into());
        };
        let chunks = record::cut(segment.name.number, segment.chunks, &group.run);
        let total = segment.chunks + chunks.len() as u32;
        let written = chunks.iter().map(|c| c.len() as u64).sum();
        writer.write(segment.chunks, chunks)?;
        segment.add(&group.entries, total, written);
        let name = segment.name;
        self.newest = segment.last;
        let frame = ledger::commit(name, segment.ledger_bytes, &group.entries, total);
        if let Err(error) = append_ledger(self.store.as_mut(), segment, &frame, false) {
            // The batches are stored, but a ledger with a hole is worth nothing behind it.
            tracing::debug!(segment = %name, %error, "the ledger could not be written; a new segment begins");
            segment.unnoted.clone_from(&group.entries);
            self.retire_writer(false);
        }
        Ok(())
    }

    /// A segment whose first commit failed holds nothing.
    fn remove_empty_tail(&mut self) {
        if self.segments.back().is_some_and(|s| s.tally.batches == 0)
            && let Some(segment) = self.segments.pop_back()
        {
            self.readers.retain(|(open, _)| *open != segment.name);
            self.leftovers.push(segment);
            self.remove_leftovers();
        }
    }

    pub(super) fn remove_leftovers(&mut self) {
        // Should one survive until the next start, it is found superseded or empty.
        for segment in std::mem::take(&mut self.leftovers) {
            if let Err(error) = self.discard(&segment) {
                tracing::debug!(segment = %segment.name, %error, "a segment could not be removed");
                self.leftovers.push(segment);
            }
        }
    }
}

pub(super) fn append_ledger(
    store: &mut dyn SegmentStore,
    segment: &mut Segment,
    frame: &[u8],
    sync: bool,
) -> Result<(), StoreError> {
    store.append_ledger(segment.name, frame, sync)?;
    segment.ledger_bytes += frame.len() as u64;
    Ok(())
}
