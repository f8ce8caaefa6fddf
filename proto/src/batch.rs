//! A batch: what is sent, spooled and acknowledged as one.

use crate::logs::LogBlock;
use crate::metrics::Block;
use bytes::Bytes;
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

/// What a batch holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Blocks of samples, in the order in which they were collected. Sample indices count through all of them.
    Metrics(Vec<Block>),
    /// Log entries.
    Logs(Logs),
}

/// Log entries, and where they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// The entries.
    pub block: LogBlock,
    /// The source's own words on the ranges that the entries cover. Kept in the spool beside the block, so that a
    /// restart finds them; never sent.
    pub origin: Bytes,
    /// The source built this again after a restart: an earlier send of the same entries may have arrived.
    pub rebuilt: bool,
}

/// A batch. Its content never changes after it was cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Its sequence number.
    pub seq: BatchSeq,
    /// What it holds.
    pub content: Content,
}

impl Batch {
    /// A batch of metrics.
    pub fn metrics(seq: BatchSeq, blocks: Vec<Block>) -> Self {
        Self { seq, content: Content::Metrics(blocks) }
    }

    /// How many records the batch holds: samples or entries.
    pub fn records(&self) -> u64 {
        self.content.records()
    }

    /// Roughly what the batch takes in memory beside what it shares with others, in bytes.
    pub fn resident_bytes(&self) -> usize {
        size_of::<Self>() + self.content.resident_bytes()
    }

    /// Its blocks of samples; none if it holds something else.
    pub fn blocks(&self) -> &[Block] {
        match &self.content {
            Content::Metrics(blocks) => blocks,
            Content::Logs(_) => &[],
        }
    }

    /// The time of its oldest record, in milliseconds since the Unix epoch.
    pub fn oldest_ms(&self) -> Option<i64> {
        match &self.content {
            Content::Metrics(blocks) => blocks
                .iter()
                .map(|b| b.stamps_ms.iter().flatten().copied().chain([b.at_ms]).min().unwrap_or(b.at_ms))
                .min(),
            Content::Logs(logs) => Some(logs.block.oldest_ns.div_euclid(1_000_000)),
        }
    }
}

impl Content {
    /// How many records: samples or entries.
    pub fn records(&self) -> u64 {
        match self {
            Self::Metrics(blocks) => blocks.iter().map(|b| b.values.len() as u64).sum(),
            Self::Logs(logs) => u64::from(logs.block.entries),
        }
    }

    fn resident_bytes(&self) -> usize {
        match self {
            Self::Metrics(blocks) => blocks
                .iter()
                .map(|b| {
                    size_of::<Block>() + 8 * b.values.len() + b.stamps_ms.as_ref().map_or(0, |s| 8 * s.len())
                })
                .sum(),
            Self::Logs(logs) => logs.block.bytes.len() + logs.origin.len(),
        }
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
