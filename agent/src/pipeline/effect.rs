//! What delivery is told, what it answers with, and how it behaves.

use super::books::{Books, DropReason};
use pegel_proto::batch::{Batch, BatchSeq, Rejection};
use pegel_proto::identity::OutputName;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How delivery behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a batch may stay unacknowledged in memory before it is written to disk. Default 1 s: an answer
    /// takes some tens of milliseconds, so in steady state nothing is written; a kill loses at most this.
    pub linger: Duration,
    /// The bytes of values that may be in memory before they are written to disk early. Default 4 MiB: half a
    /// million samples, an hour of a 600-series host at 15 s is a quarter of it.
    pub front_bytes: usize,
    /// Whether a full buffer keeps its oldest data and drops what is collected (`wait`), or the reverse.
    pub keep_oldest: bool,
    /// How long an output that the aggregator no longer announces keeps its data. Default 24 h: long enough for
    /// an operator to notice a configuration lost in a roll-out.
    pub retire_output_after: Duration,
    /// Whether sources wait when memory is at its budget and the disk takes nothing, instead of something giving way.
    pub sources_wait: bool,
    /// Whether sources read again after a kill or a stop what was in memory only: it is then not lost, and collected
    /// anew.
    pub rereads: bool,
    /// After a failed write, how long until the next attempt. Default 1 s, doubling to 30 s.
    pub store_retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(1),
            front_bytes: 4 << 20,
            keep_oldest: false,
            sources_wait: false,
            rereads: false,
            retire_output_after: Duration::from_secs(24 * 3600),
            store_retry: Duration::from_secs(1),
        }
    }
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a batch on the output's stream.
    Send {
        /// The output.
        output: OutputName,
        /// The batch.
        batch: Arc<Batch>,
        /// Whether an earlier send may have arrived.
        sent_before: bool,
    },
    /// Append to the spool and commit; answer with [`Core::stored`]. At most one is under way.
    Store(Vec<Arc<Batch>>),
    /// Read on from this batch, a bounded number; answer with [`Core::loaded`]. At most one an output.
    Load {
        /// The output whose cursor reads.
        output: OutputName,
        /// The first batch wanted.
        from: BatchSeq,
        /// The last batch that the spool is known to have taken.
        up_to: BatchSeq,
    },
    /// No cursor needs batches up to here any more.
    Trim(BatchSeq),
    /// Keep the refused records of a batch.
    Reject {
        /// The output that refused.
        output: OutputName,
        /// What it refused, and why.
        rejection: Rejection,
        /// The batch that the record indices refer to.
        batch: Arc<Batch>,
    },
    /// A batch with an origin is stored, settled everywhere or given up: its source's place may move behind it.
    Safe(Arc<Batch>),
    /// Positions changed in a way that a restart should know.
    Remember,
}

/// The spool lost batches: a full quota, or damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolLoss {
    /// The lost batches and their records.
    pub batches: Vec<(BatchSeq, u64)>,
    /// Why.
    pub reason: DropReason,
}

/// Why the spool took nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFailure {
    /// The quota is full and its policy keeps the oldest.
    Full,
    /// The disk refused or does not answer.
    Disk,
}

/// What became of a [`Effect::Store`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stored {
    /// The batches up to this one are on disk; none of them if absent.
    pub up_to: Option<BatchSeq>,
    /// Why those behind it are not.
    pub failed: Option<StoreFailure>,
    /// What the spool lost, to make room or by damage.
    pub losses: Vec<SpoolLoss>,
}

/// What survives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// All numbers below may have been used.
    pub next_seq: u64,
    /// By output: settled up to, possibly sent up to, books.
    pub cursors: BTreeMap<OutputName, (BatchSeq, BatchSeq, Books)>,
    /// Books of an agent that never met an aggregator.
    pub unassigned: Option<Books>,
}

/// The books of one output with what a person asks next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputBooks {
    /// The output; none before the first aggregator was met.
    pub output: Option<OutputName>,
    /// Its balance.
    pub books: Books,
    /// Why it takes nothing, if so.
    pub parked: Option<String>,
    /// Whether the aggregator of the present link has it.
    pub announced: bool,
    /// The sample time of the oldest batch in memory that is not settled.
    pub oldest_at_ms: Option<i64>,
}
