//! Where sources hand over what they collected: bounded, never waiting, every block that does not fit counted.

use parking_lot::Mutex;
use pegel_proto::batch::{Content, Logs};
use pegel_proto::codec::check_caps;
use pegel_proto::metrics::Block;
use pegel_runtime::metrics::{Counter, Registry};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// The default bound of the intake, in bytes of values. At 16 bytes a sample it holds half a million samples: ten
/// scrapes of the largest exporters that are seen, while the pipeline is at most one fsync behind.
pub const DEFAULT_INTAKE_BYTES: usize = 8 << 20;

/// How many sets are remembered as checked: two for each of two thousand targets, 8 bytes each.
const MAX_CHECKED_SETS: usize = 4_096;

/// One hand-over of a source: blocks that belong into one batch.
#[derive(Debug)]
pub struct Collected {
    /// The blocks.
    pub blocks: Vec<Block>,
    bytes: usize,
}

/// The sources' end.
#[derive(Debug, Clone)]
pub struct Intake {
    queue: mpsc::UnboundedSender<Collected>,
    bound: Arc<Bound>,
}

#[derive(Debug)]
struct Bound {
    queued_bytes: AtomicUsize,
    limit_bytes: usize,
    collected: Counter,
    dropped: Counter,
    over_caps: Counter,
    /// Fingerprints of sets that are known to be within the caps of the wire.
    checked: Mutex<HashSet<u64>>,
}

/// The pipeline's end.
#[derive(Debug)]
pub struct IntakeReceiver {
    queue: mpsc::UnboundedReceiver<Collected>,
    bound: Arc<Bound>,
}

/// Makes an intake with a bound in bytes.
pub fn intake(limit_bytes: usize, registry: &Registry) -> (Intake, IntakeReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let bound = Arc::new(Bound {
        queued_bytes: AtomicUsize::new(0),
        limit_bytes,
        collected: registry.counter("pegel_intake_samples_total", "Samples that sources handed over.", &[]),
        dropped: registry.counter(
            "pegel_intake_dropped_samples_total",
            "Samples dropped because the intake was full: the disk or the machine did not keep up.",
            &[],
        ),
        over_caps: registry.counter(
            "pegel_intake_over_caps_samples_total",
            "Samples left out because their labels are over the caps of the wire.",
            &[],
        ),
        checked: Mutex::default(),
    });
    (Intake { queue: sender, bound: bound.clone() }, IntakeReceiver { queue: receiver, bound })
}

impl Intake {
    /// Hands blocks over. They become one batch; if the intake is full they are dropped and counted. Whether they
    /// were taken.
    pub fn offer(&self, mut blocks: Vec<Block>) -> bool {
        blocks.retain(|block| self.within_caps(block));
        let samples: usize = blocks.iter().map(|b| b.values.len()).sum();
        if samples == 0 {
            return true;
        }
        self.bound.collected.add(samples as u64);
        let bytes = 16 * samples;
        let queued = self.bound.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        // One hand-over always fits an empty intake, whatever its size.
        let fits = queued == 0 || queued + bytes <= self.bound.limit_bytes;
        if !fits || self.queue.send(Collected { blocks, bytes }).is_err() {
            self.bound.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.bound.dropped.add(samples as u64);
            return false;
        }
        true
    }

    /// Whether a block's set can be sent at all. A set is looked at once: it stays what it is.
    fn within_caps(&self, block: &Block) -> bool {
        let fingerprint = block.set.fingerprint();
        if self.bound.checked.lock().contains(&fingerprint) {
            return true;
        }
        match check_caps(&block.set) {
            Ok(()) => {
                let mut checked = self.bound.checked.lock();
                if checked.len() >= MAX_CHECKED_SETS {
                    checked.clear();
                }
                checked.insert(fingerprint);
                true
            }
            Err(over) => {
                self.bound.over_caps.add(block.values.len() as u64);
                tracing::warn!(target_labels = ?block.set.target(), %over, "a scrape is left out: it cannot be sent");
                false
            }
        }
    }

    /// Samples handed over and dropped so far, for the books.
    pub fn totals(&self) -> (u64, u64) {
        (self.bound.collected.value(), self.bound.dropped.value())
    }
}

impl IntakeReceiver {
    /// The next hand-over; none when every source has ended.
    pub async fn next(&mut self) -> Option<Collected> {
        let collected = self.queue.recv().await?;
        self.bound.queued_bytes.fetch_sub(collected.bytes, Ordering::AcqRel);
        Some(collected)
    }

    /// A hand-over that waits already; none if there is none.
    pub fn take_now(&mut self) -> Option<Collected> {
        let collected = self.queue.try_recv().ok()?;
        self.bound.queued_bytes.fetch_sub(collected.bytes, Ordering::AcqRel);
        Some(collected)
    }

    /// Samples handed over and dropped so far, for the books.
    pub fn totals(&self) -> (u64, u64) {
        (self.bound.collected.value(), self.bound.dropped.value())
    }
}

/// The pipeline's end of either intake.
#[derive(Debug)]
pub enum Inbox {
    /// Of samples: what does not fit is dropped.
    Metrics(IntakeReceiver),
    /// Of log entries: sources wait.
    Logs(LogIntakeReceiver),
}

impl Inbox {
    /// The next hand-over; none when every source has ended.
    pub async fn next(&mut self) -> Option<Content> {
        match self {
            Self::Metrics(intake) => Some(Content::Metrics(intake.next().await?.blocks)),
            Self::Logs(intake) => Some(Content::Logs(intake.queue.recv().await?)),
        }
    }

    /// A hand-over that waits already; none if there is none.
    pub fn take_now(&mut self) -> Option<Content> {
        match self {
            Self::Metrics(intake) => Some(Content::Metrics(intake.take_now()?.blocks)),
            Self::Logs(intake) => Some(Content::Logs(intake.queue.try_recv().ok()?)),
        }
    }

    /// Records dropped so far because the intake was full.
    pub fn dropped(&self) -> u64 {
        match self {
            Self::Metrics(intake) => intake.totals().1,
            Self::Logs(_) => 0,
        }
    }

    /// Records told lost since this was last asked ([`LogIntake::lost_in_crash`]).
    pub fn take_lost(&self) -> u64 {
        match self {
            Self::Metrics(_) => 0,
            Self::Logs(intake) => intake.lost.swap(0, Ordering::AcqRel),
        }
    }
}

/// Blocks that log sources may have handed over before the pipeline takes one. Each is up to a MiB before compression,
/// so that what waits here stays below a MiB in all.
const LOG_BLOCKS_QUEUED: usize = 4;

/// The log sources' end: bounded, and sources wait.
#[derive(Debug, Clone)]
pub struct LogIntake {
    queue: mpsc::Sender<Logs>,
    lost: Arc<AtomicU64>,
}

/// The pipeline's end of [`LogIntake`].
#[derive(Debug)]
pub struct LogIntakeReceiver {
    queue: mpsc::Receiver<Logs>,
    lost: Arc<AtomicU64>,
}

/// The pipeline has ended: nothing is taken any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("delivery has ended")]
pub struct Ended;

/// Makes an intake for log entries.
pub fn log_intake() -> (LogIntake, LogIntakeReceiver) {
    let (sender, receiver) = mpsc::channel(LOG_BLOCKS_QUEUED);
    let lost = Arc::new(AtomicU64::new(0));
    (LogIntake { queue: sender, lost: lost.clone() }, LogIntakeReceiver { queue: receiver, lost })
}

impl LogIntake {
    /// Hands a block over; waits while delivery has no room.
    pub async fn offer(&self, logs: Logs) -> Result<(), Ended> {
        self.queue.send(logs).await.map_err(|_| Ended)
    }

    /// Hands a block over if there is room now; gives it back if not.
    pub fn try_offer(&self, logs: Logs) -> Result<(), Logs> {
        self.queue.try_send(logs).map_err(mpsc::error::TrySendError::into_inner)
    }

    /// Whether delivery has room for so many blocks now.
    pub fn has_room_for(&self, blocks: usize) -> bool {
        self.queue.capacity() >= blocks
    }

    /// Tells that entries were handed over before a kill, were in memory only, and can't be read again.
    pub fn lost_in_crash(&self, entries: u64) {
        self.lost.fetch_add(entries, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegel_proto::caps::MAX_LABEL_VALUE_BYTES;
    use pegel_proto::metrics::{Labels, NAME_LABEL, Series, SeriesSet};

    fn block(label: &str, samples: usize) -> Block {
        let series: Vec<_> = (0..samples)
            .map(|i| {
                let labels = Labels::new([(NAME_LABEL, "x"), ("i", &i.to_string()), ("l", label)]).unwrap();
                Arc::new(Series::new(labels, Arc::default()))
            })
            .collect();
        Block::new(1, Arc::new(SeriesSet::new(Arc::default(), series)), vec![1.0; samples])
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_counted_and_one_hand_over_always_fits() {
        let (intake, mut receiver) = intake(16 * 10, &Registry::new());
        intake.offer(vec![block("a", 12)]);
        intake.offer(vec![block("b", 1)]);
        assert_eq!(intake.totals(), (13, 1));
        assert_eq!(receiver.next().await.unwrap().blocks[0].values.len(), 12);
        intake.offer(vec![block("b", 1)]);
        assert!(receiver.take_now().is_some());
    }

    #[test]
    fn a_set_over_the_caps_of_the_wire_is_left_out_alone() {
        let registry = Registry::new();
        let (intake, mut receiver) = intake(1 << 20, &registry);
        intake.offer(vec![block(&"x".repeat(MAX_LABEL_VALUE_BYTES + 1), 2), block("fine", 3)]);
        assert_eq!(receiver.take_now().unwrap().blocks.len(), 1);
        assert!(registry.render().contains("pegel_intake_over_caps_samples_total 2"));
    }
}
