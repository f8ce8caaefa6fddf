//! Tests by intent: `basic` (what the spool is for), `model` (random sequences beside the twin in memory, with
//! faults at every call), `damage` (a real segment, truncated and flipped at every region), `disk` (a real file
//! system that is full), `through_the_thread`.

use super::*;
use std::path::Path;

mod basic;
mod model;
mod sim;

/// A record whose bytes tell its content and whether the encoder was told right: the encoder numbers the records
/// since its last reset.
#[derive(Default)]
pub(super) struct CountingEncoder {
    since_reset: u32,
}

impl CountingEncoder {
    fn append(
        &mut self,
        spool: &mut dyn Spool,
        seq: u64,
        records: u64,
        bytes: usize,
    ) -> Result<(), SpoolError> {
        let header = RecordHeader { seq: BatchSeq(seq), records, oldest_ms: seq as i64 * 10, flags: 7 };
        spool.append(header, &mut |start, out| {
            if start == Start::Fresh {
                self.since_reset = 0;
            }
            out.extend_from_slice(&self.since_reset.to_le_bytes());
            out.resize(out.len() + bytes, seq as u8);
            self.since_reset += 1;
        })
    }
}

/// Reads on and checks that every record is what was written and that its decoder would be in step.
#[derive(Debug)]
pub(super) struct CheckingReader {
    cursor: Cursor,
    since_reset: u32,
}

impl CheckingReader {
    fn new(from: u64) -> Self {
        Self { cursor: Cursor::new(BatchSeq(from)), since_reset: 0 }
    }

    /// The next batch that is not replay: its sequence and its records.
    fn next(&mut self, spool: &mut dyn Spool) -> Result<Option<(u64, u64)>, SpoolError> {
        while let Some(record) = spool.next(&mut self.cursor)? {
            if record.start == Start::Fresh {
                self.since_reset = 0;
            }
            let seq = record.header.seq.0;
            let (counter, body) = record.bytes.split_first_chunk::<4>().expect("a counter");
            assert_eq!(u32::from_le_bytes(*counter), self.since_reset, "batch {seq} is out of step");
            assert_eq!(record.header.oldest_ms, seq as i64 * 10);
            assert_eq!(record.header.flags, 7);
            assert!(body == vec![seq as u8; body.len()], "batch {seq} has other bytes than were written");
            self.since_reset += 1;
            if !record.replay {
                return Ok(Some((seq, record.header.records)));
            }
        }
        Ok(None)
    }

    fn all(&mut self, spool: &mut dyn Spool) -> Vec<u64> {
        let mut all = Vec::new();
        while let Some((seq, _)) = self.next(spool).expect("readable") {
            all.push(seq);
        }
        all
    }
}

fn settings(dir: &Path) -> Settings {
    Settings { segment_bytes: 64 << 10, quota_bytes: 64 << 20, keep_free_bytes: 0, ..Settings::new(dir) }
}

fn open(dir: &Path) -> SegmentedSpool {
    SegmentedSpool::open(settings(dir)).expect("the spool opens")
}
