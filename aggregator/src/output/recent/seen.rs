//! Which batches of an agent were looked at already. Each output has a stream of its own and every stream carries
//! every batch, so that with three outputs two of three batches are repeats.

use pegel_proto::batch::{AgentEpoch, BatchSeq};

/// How many batches behind the newest one are remembered, one bit each. Streams of a healthy agent differ by the
/// few batches that one output is slower than another. Values look again at what is from farther back, which changes
/// nothing, because they are ordered by batch number and history by time; log entries do not.
const WINDOW: u64 = u128::BITS as u64;

/// Remembers the newest batch and the [`WINDOW`] before it.
#[derive(Debug, Default)]
pub(in crate::output) struct Seen {
    epoch: Option<AgentEpoch>,
    newest: u64,
    bits: u128,
}

/// What a batch is to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::output) enum Arrival {
    /// The first of another epoch: what was known of numbers is void.
    NewEpoch,
    /// Newer than all before, or not looked at though others behind it were.
    Unseen,
    /// So far behind the newest that nobody remembers whether it was looked at.
    Forgotten,
    /// Looked at before.
    Repeat,
}

impl Seen {
    /// Notes a batch.
    pub(in crate::output) fn note(&mut self, epoch: AgentEpoch, seq: BatchSeq) -> Arrival {
        if self.epoch != Some(epoch) {
            *self = Self { epoch: Some(epoch), newest: seq.0, bits: 1 };
            return Arrival::NewEpoch;
        }
        if seq.0 > self.newest {
            let ahead = seq.0 - self.newest;
            self.bits = if ahead < WINDOW { self.bits << ahead | 1 } else { 1 };
            self.newest = seq.0;
            return Arrival::Unseen;
        }
        let behind = self.newest - seq.0;
        if behind >= WINDOW {
            return Arrival::Forgotten;
        }
        let bit = 1 << behind;
        let repeat = self.bits & bit != 0;
        self.bits |= bit;
        if repeat { Arrival::Repeat } else { Arrival::Unseen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_once_whatever_the_order() {
        let mut seen = Seen::default();
        let mut note = |seq| seen.note(AgentEpoch(7), BatchSeq(seq));
        assert_eq!(note(5), Arrival::NewEpoch);
        assert_eq!(note(5), Arrival::Repeat);
        assert_eq!(note(8), Arrival::Unseen);
        assert_eq!(note(6), Arrival::Unseen);
        assert_eq!(note(6), Arrival::Repeat);
        assert_eq!(note(5), Arrival::Repeat);
        assert_eq!(note(5 + 127), Arrival::Unseen);
        assert_eq!(note(5), Arrival::Repeat, "the last place of the window");
        assert_eq!(note(5 + 500), Arrival::Unseen);
        assert_eq!(note(8), Arrival::Forgotten, "beyond the window a repeat is not known as one");
    }

    #[test]
    fn another_epoch_begins_anew() {
        let mut seen = Seen::default();
        seen.note(AgentEpoch(1), BatchSeq(90));
        assert_eq!(seen.note(AgentEpoch(2), BatchSeq(1)), Arrival::NewEpoch);
        assert_eq!(seen.note(AgentEpoch(2), BatchSeq(1)), Arrival::Repeat);
    }
}
