//! A batch: what is sent, spooled and acknowledged as one.

use crate::metrics::Block;
use std::fmt;

/// Names one life of an agent's state directory; a new one is drawn when the state is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentEpoch(pub u64);

impl fmt::Display for AgentEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A batch's place among those of its agent epoch and signal; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchSeq(pub u64);

impl BatchSeq {
    /// The next one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for BatchSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What kind of telemetry a batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Samples.
    Metrics,
    /// Log entries.
    Logs,
    /// Spans.
    Traces,
}

impl Signal {
    /// The signal's name in configuration, labels and paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Traces => "traces",
        }
    }
}

/// A batch of metrics. Its content never changes after it was cut.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsBatch {
    /// Its sequence number.
    pub seq: BatchSeq,
    /// Its blocks, in the order in which they were collected. Sample indices count through all of them.
    pub blocks: Vec<Block>,
}

impl MetricsBatch {
    /// How many samples the batch holds.
    pub fn samples(&self) -> u64 {
        self.blocks.iter().map(|b| b.values.len() as u64).sum()
    }

    /// Roughly what the batch takes in memory beside the sets that it shares with others, in bytes.
    pub fn resident_bytes(&self) -> usize {
        size_of::<Self>()
            + self
                .blocks
                .iter()
                .map(|b| {
                    size_of::<Block>() + 8 * b.values.len() + b.stamps_ms.as_ref().map_or(0, |s| 8 * s.len())
                })
                .sum::<usize>()
    }
}

/// Why records of a batch were refused. The names are label values of `pegel_*_rejected_total{reason}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    /// Older than the backend takes.
    TooOld,
    /// Behind the series' newest sample.
    OutOfOrder,
    /// A different value for an instant that the backend has already.
    DuplicateTimestamp,
    /// Ahead of the backend's clock by more than it takes.
    TooFarInFuture,
    /// Labels that the backend would skip or refuse.
    InvalidLabels,
    /// A limit of the tenant.
    TenantLimit,
    /// Larger than the backend takes, even alone.
    TooLarge,
    /// Refused for a reason that has no name here; the message has it.
    Other,
}

impl RejectReason {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::TooOld,
        Self::OutOfOrder,
        Self::DuplicateTimestamp,
        Self::TooFarInFuture,
        Self::InvalidLabels,
        Self::TenantLimit,
        Self::TooLarge,
        Self::Other,
    ];

    /// The reason's name as a label value.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooOld => "too_old",
            Self::OutOfOrder => "out_of_order",
            Self::DuplicateTimestamp => "duplicate_timestamp",
            Self::TooFarInFuture => "too_far_in_future",
            Self::InvalidLabels => "invalid_labels",
            Self::TenantLimit => "tenant_limit",
            Self::TooLarge => "too_large",
            Self::Other => "other",
        }
    }
}

/// Records of one batch that one output refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The batch.
    pub seq: BatchSeq,
    /// Why.
    pub reason: RejectReason,
    /// What the backend said, cut to [`crate::caps::MAX_REJECT_MESSAGE_BYTES`].
    pub message: String,
    /// Which records: ascending ranges of sample indices, `(first, count)`.
    pub records: Vec<(u32, u32)>,
}

impl Rejection {
    /// How many records were refused.
    pub fn count(&self) -> u64 {
        self.records.iter().map(|(_, n)| u64::from(*n)).sum()
    }
}

/// What an output made of one batch. Sums to the batch's samples.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Records that the backend accepted.
    pub delivered: u64,
    /// Records that a re-send found there already.
    pub held_already: u64,
    /// Records that were refused, by reason.
    pub rejections: Vec<Rejection>,
}
