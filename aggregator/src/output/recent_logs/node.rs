//! What is kept of one node: its newest entries, without holes.

use crate::output::recent::seen::{Arrival, Seen};
use pegel_proto::batch::{AgentEpoch, BatchSeq};
use pegel_proto::logs::DecodedBlock;
use std::collections::VecDeque;
use std::sync::Arc;

/// The window over which a node's rate is told, in milliseconds: long enough for a number that one can read.
const RATE_WINDOW_MS: i64 = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct NodeLog {
    seen: Seen,
    /// Counts the blocks that were shown, so that nobody is shown one twice.
    pub(super) serial: u64,
    /// Blocks, or the last entries of one, oldest first.
    pub(super) kept: VecDeque<Arc<DecodedBlock>>,
    pub(super) bytes: usize,
    entries: usize,
    pub(super) heard_ms: i64,
    rate: Rate,
}

impl NodeLog {
    /// Whether a batch was not looked at before. One that is far behind the newest counts as looked at: nobody who
    /// follows wants the past after the present.
    pub(super) fn is_new(&mut self, epoch: AgentEpoch, seq: BatchSeq) -> bool {
        matches!(self.seen.note(epoch, seq), Arrival::Unseen | Arrival::NewEpoch)
    }

    /// Notes that a block arrived.
    pub(super) fn heard(&mut self, now_ms: i64, entries: usize) {
        self.heard_ms = now_ms;
        self.serial += 1;
        self.rate.note(now_ms, entries as u64);
    }

    /// Keeps as much of the newest block as the bounds allow, and lets go of what came before it.
    pub(super) fn keep(&mut self, block: &Arc<DecodedBlock>, most_bytes: usize, most_entries: usize) {
        let whole = block.resident_bytes() <= most_bytes && block.entries().len() <= most_entries;
        let block = if whole {
            block.clone()
        } else {
            // What was before it would be separated from it by a hole.
            self.forget(0, 0);
            let fixed = size_of::<DecodedBlock>();
            let mut last = block.last(most_entries, most_bytes.saturating_sub(fixed));
            // Labels and keys are not in the reckoning of `last`; as a rule they are a few hundred bytes.
            let over = last.resident_bytes().saturating_sub(most_bytes);
            if over > 0 {
                last = block.last(most_entries, most_bytes.saturating_sub(fixed + over));
            }
            if last.entries().len() == 0 || last.resident_bytes() > most_bytes {
                return;
            }
            Arc::new(last)
        };
        let (bytes, entries) = (block.resident_bytes(), block.entries().len());
        self.forget(most_bytes.saturating_sub(bytes), most_entries.saturating_sub(entries));
        self.bytes += bytes;
        self.entries += entries;
        self.kept.push_back(block);
    }

    /// Lets go of the oldest until the bounds hold.
    pub(super) fn forget(&mut self, most_bytes: usize, most_entries: usize) {
        while self.bytes > most_bytes || self.entries > most_entries {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= oldest.resident_bytes();
            self.entries -= oldest.entries().len();
        }
    }

    /// Entries a second, of late.
    pub(super) fn rate(&self, now_ms: i64) -> f64 {
        self.rate.of(now_ms)
    }
}

/// Counts in two windows, the one that runs and the one before.
#[derive(Debug, Default)]
struct Rate {
    began_ms: i64,
    count: u64,
    before: u64,
}

impl Rate {
    fn at(&self, now_ms: i64) -> (i64, u64, u64) {
        match now_ms - self.began_ms {
            passed @ 0..RATE_WINDOW_MS => (passed, self.count, self.before),
            passed @ RATE_WINDOW_MS..20_000 => (passed - RATE_WINDOW_MS, 0, self.count),
            _ => (0, 0, 0),
        }
    }

    fn note(&mut self, now_ms: i64, n: u64) {
        let (passed, count, before) = self.at(now_ms);
        *self = Self { began_ms: now_ms - passed, count: count + n, before };
    }

    fn of(&self, now_ms: i64) -> f64 {
        let (passed, count, before) = self.at(now_ms);
        let left = (RATE_WINDOW_MS - passed) as f64 / RATE_WINDOW_MS as f64;
        (count as f64 + before as f64 * left) * 1_000.0 / RATE_WINDOW_MS as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_what_comes_and_ends_with_it() {
        let mut rate = Rate::default();
        for second in 0..40 {
            rate.note(1_000_000 + second * 1_000, 50);
        }
        let near = |at, wanted: f64| (rate.of(at) - wanted).abs() < 6.0;
        assert!(near(1_039_001, 50.0), "{}", rate.of(1_039_001));
        assert!(near(1_044_000, 25.0), "{}", rate.of(1_044_000));
        assert!(near(1_070_000, 0.0));
    }
}
