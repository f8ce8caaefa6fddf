//! Where sources hand over what they collected: bounded, never waiting, every block that does not fit counted.

use pegel_proto::metrics::Block;
use pegel_runtime::metrics::{Counter, Registry};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// The default bound of the intake, in bytes of values. At 16 bytes a sample it holds half a million samples: ten
/// scrapes of the largest exporters that are seen, while the pipeline is at most one fsync behind.
pub const DEFAULT_INTAKE_BYTES: usize = 8 << 20;

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
    });
    (Intake { queue: sender, bound: bound.clone() }, IntakeReceiver { queue: receiver, bound })
}

impl Intake {
    /// Hands blocks over. They become one batch; if the intake is full they are dropped and counted.
    pub fn offer(&self, blocks: Vec<Block>) {
        let samples: usize = blocks.iter().map(|b| b.values.len()).sum();
        if samples == 0 {
            return;
        }
        self.bound.collected.add(samples as u64);
        let bytes = 16 * samples;
        let queued = self.bound.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        // One hand-over always fits an empty intake, whatever its size.
        let fits = queued == 0 || queued + bytes <= self.bound.limit_bytes;
        if !fits || self.queue.send(Collected { blocks, bytes }).is_err() {
            self.bound.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.bound.dropped.add(samples as u64);
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
