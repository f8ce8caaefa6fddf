//! The spool's twin in memory: the same behaviour without a disk.
//!
//! Model tests run it beside the real one. It also serves as the spool of an agent whose state directory can't be
//! written: bounded by the same quota, gone with the process.

use super::queue::accounted_bytes;
use super::record::RECORD_HEADER_BYTES;
use super::{
    Committed, Cursor, Inventory, Loss, LossReason, ReadRecord, RecordHeader, SegmentSummary, Spool,
    SpoolError, Start, Tally, WhenFull,
};
use pegel_proto::batch::BatchSeq;
use std::collections::VecDeque;

#[derive(Debug, Clone, Default)]
struct Segment {
    number: u64,
    records: VecDeque<(RecordHeader, Vec<u8>)>,
    bytes: u64,
    damaged: bool,
}

impl Segment {
    fn first(&self) -> BatchSeq {
        self.records.front().map_or(BatchSeq(0), |(h, _)| h.seq)
    }

    fn last(&self) -> BatchSeq {
        self.records.back().map_or(BatchSeq(0), |(h, _)| h.seq)
    }

    fn batches(&self) -> Vec<(BatchSeq, u64)> {
        self.records.iter().map(|(h, _)| (h.seq, h.records)).collect()
    }
}

/// A spool in memory.
#[derive(Debug)]
pub struct MemorySpool {
    quota_bytes: u64,
    when_full: WhenFull,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    next_number: u64,
    /// Segments as they will be after the commit: the last committed one continued, or new ones.
    stage: Vec<(bool, Segment)>,
    /// Whether the next record begins a segment.
    begin: bool,
    /// The last record was encoded and then not taken: its encoder is ahead of the segment.
    encoder_ahead: bool,
    newest: BatchSeq,
    losses: Vec<Loss>,
}

impl MemorySpool {
    /// An empty spool.
    pub fn new(quota_bytes: u64, when_full: WhenFull) -> Self {
        Self {
            quota_bytes,
            when_full,
            segment_bytes: quota_bytes / 8,
            segments: VecDeque::new(),
            next_number: 1,
            stage: Vec::new(),
            begin: true,
            encoder_ahead: false,
            newest: BatchSeq(0),
            losses: Vec::new(),
        }
    }

    fn used_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum::<u64>()
            + self.stage.iter().map(|(_, s)| s.bytes).sum::<u64>()
    }

    fn make_room(&mut self, wanted: u64) -> Result<(), SpoolError> {
        while self.used_bytes() + wanted > self.quota_bytes {
            let only_the_one_being_written = self.segments.len() == 1 && !self.begin;
            if self.when_full == WhenFull::Wait || self.segments.is_empty() || only_the_one_being_written {
                return Err(SpoolError::Full {
                    used_bytes: self.used_bytes(),
                    quota_bytes: self.quota_bytes,
                });
            }
            if let Some(dropped) = self.segments.pop_front() {
                self.losses.push(Loss {
                    reason: LossReason::QuotaFull,
                    first: dropped.first(),
                    last: dropped.last(),
                    total: Some(Tally::of(&dropped.batches())),
                    batches: dropped.batches(),
                    exact: true,
                    words: "the spool in memory reached its quota and dropped its oldest segment".into(),
                });
            }
        }
        Ok(())
    }

    fn open_segment_bytes(&self) -> Option<u64> {
        match self.stage.last() {
            Some((true, segment)) => Some(segment.bytes),
            staged if !self.begin => {
                Some(self.segments.back()?.bytes + staged.map_or(0, |(_, segment)| segment.bytes))
            }
            _ => None,
        }
    }
}

impl Spool for MemorySpool {
    fn append(
        &mut self,
        header: RecordHeader,
        encode: &mut dyn FnMut(Start, &mut Vec<u8>),
    ) -> Result<(), SpoolError> {
        if header.seq <= self.newest {
            return Ok(());
        }
        if let Some((_, segment)) = self.stage.last()
            && header.seq <= segment.last()
        {
            return Err(SpoolError::OutOfOrder { seq: header.seq, last: segment.last() });
        }
        self.make_room(RECORD_HEADER_BYTES as u64)?;
        let full = self.open_segment_bytes().is_none_or(|bytes| bytes >= self.segment_bytes);
        let begins = full || self.encoder_ahead;
        let mut bytes = Vec::new();
        encode(if begins { Start::Fresh } else { Start::Continued }, &mut bytes);
        let taken = accounted_bytes((bytes.len() + RECORD_HEADER_BYTES) as u64);
        if let Err(full) = self.make_room(taken) {
            self.encoder_ahead = true;
            return Err(full);
        }
        self.encoder_ahead = false;
        if begins || self.stage.is_empty() {
            self.stage.push((begins, Segment::default()));
        }
        if let Some((_, segment)) = self.stage.last_mut() {
            segment.records.push_back((header, bytes));
            segment.bytes += taken;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<Committed, SpoolError> {
        let mut up_to = None;
        for (begins, mut staged) in std::mem::take(&mut self.stage) {
            up_to = Some(staged.last());
            self.newest = staged.last();
            if let Some(open) = self.segments.back_mut().filter(|_| !begins && !self.begin) {
                open.bytes += staged.bytes;
                open.records.append(&mut staged.records);
            } else {
                staged.number = self.next_number;
                self.next_number += 1;
                self.segments.push_back(staged);
            }
            self.begin = false;
        }
        Ok(Committed { up_to, failed: None })
    }

    fn next(&mut self, cursor: &mut Cursor) -> Result<Option<ReadRecord>, SpoolError> {
        let at = self.segments.partition_point(|s| s.last() < cursor.from());
        let Some(segment) = self.segments.get(at) else { return Ok(None) };
        let behind = cursor.read_in(segment.number);
        let next = segment.records.partition_point(|(h, _)| behind.is_some_and(|read| h.seq <= read));
        let Some((header, bytes)) = segment.records.get(next) else { return Ok(None) };
        let record = ReadRecord {
            header: *header,
            bytes: bytes.clone(),
            start: if next == 0 { Start::Fresh } else { Start::Continued },
            replay: header.seq < cursor.from(),
            segment: segment.number,
        };
        cursor.advance(segment.number, header.seq);
        Ok(Some(record))
    }

    fn condemn(&mut self, cursor: &Cursor, seq: BatchSeq, words: &str) {
        let Some(at) = self.segments.iter().position(|s| cursor.read_in(s.number).is_some()) else { return };
        let segment = &mut self.segments[at];
        let keep = segment.records.partition_point(|(h, _)| h.seq < seq);
        let lost = segment.records.split_off(keep);
        segment.damaged = true;
        let batches: Vec<_> = lost.iter().map(|(h, _)| (h.seq, h.records)).collect();
        if let (Some((first, _)), Some((last, _))) = (batches.first().copied(), batches.last().copied()) {
            let words = words.to_owned();
            let total = Some(Tally::of(&batches));
            let reason = LossReason::Damaged;
            self.losses.push(Loss { reason, first, last, batches, total, exact: true, words });
        }
        if at + 1 == self.segments.len() {
            self.begin = true;
        }
        self.segments.retain(|s| !s.records.is_empty());
    }

    fn trim(&mut self, up_to: BatchSeq) -> Result<(), SpoolError> {
        while self.segments.front().is_some_and(|s| s.last() <= up_to) {
            if self.segments.len() == 1 && self.stage.first().is_some_and(|(begins, _)| !begins) {
                break;
            }
            self.segments.pop_front();
        }
        if self.segments.is_empty() {
            self.begin = true;
        }
        Ok(())
    }

    fn inventory(&self) -> Inventory {
        let segments = self
            .segments
            .iter()
            .map(|s| SegmentSummary {
                number: s.number,
                first: s.first(),
                last: s.last(),
                tally: Tally::of(&s.batches()),
                bytes: s.bytes,
                oldest_ms: s.records.iter().map(|(h, _)| h.oldest_ms).min().unwrap_or(i64::MAX),
                damaged: s.damaged,
            })
            .collect();
        Inventory { segments, bytes: self.segments.iter().map(|s| s.bytes).sum(), quarantined: 0 }
    }

    fn held_above(&mut self, acknowledged: BatchSeq) -> Result<Tally, SpoolError> {
        let records = self.segments.iter().flat_map(|s| &s.records);
        let above = records.filter(|(h, _)| h.seq > acknowledged);
        Ok(above.fold(Tally::default(), |sum, (h, _)| sum.and(1, h.records)))
    }

    fn take_losses(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.losses)
    }
}
