//! `buffer`: what is kept while it cannot be sent.

use pegel_proto::identity::OutputName;
use pegel_runtime::config::form::{ByteSize, Period};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the memory front holds before batches go to disk early. A scrape of 1,000 series is some 16 KB before it is
/// encoded; 4 MiB are a linger's worth of an agent with 250 such targets.
pub const DEFAULT_FRONT_BYTES: u64 = 4 << 20;
/// How long a batch waits in memory for its acknowledgement before it goes to disk. An acknowledgement takes some
/// tens of milliseconds; a slow backend some hundred.
pub const DEFAULT_LINGER: Duration = Duration::from_secs(1);
/// The spool's quota. 1,000 series at 15 s are about 5 MB a day on the wire, so 1 GiB outlasts any outage.
pub const DEFAULT_QUOTA_BYTES: u64 = 1 << 30;
/// The size of one spool segment. Small enough that little is lost with a damaged one and that the disk follows the
/// backlog down; large enough that opening databases costs nothing beside filling them.
pub const DEFAULT_SEGMENT_BYTES: u64 = 8 << 20;
/// What refused records may take up, with the reason of each: 100,000 of them.
pub const DEFAULT_REJECTS_QUOTA_BYTES: u64 = 16 << 20;

/// What gives way when the quota is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawWhenFull {
    /// The oldest batches, each sample counted.
    #[default]
    DropOldest,
    /// The sources: they stop until there is room.
    Wait,
}

/// The raw form of `buffer`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"max_size": "quota", "size": "quota", "memory": "front"}))]
pub struct RawBuffer {
    /// Memory for batches that are not acknowledged yet; what exceeds it is written to disk at once.
    pub front: ByteSize,
    /// How long a batch waits in memory for its acknowledgement before it is written to disk and synced. This is also
    /// the most that a power cut can take.
    pub linger: Period,
    /// The most that the spool takes on disk.
    pub quota: ByteSize,
    /// What gives way when the quota is full.
    pub when_full: RawWhenFull,
    /// The same for single outputs of the aggregator, by name.
    pub when_full_by_output: BTreeMap<String, RawWhenFull>,
    /// The size of one segment of the spool.
    pub segment: ByteSize,
    /// The most that refused records take on disk, with the reason of each; the oldest give way.
    pub rejects_quota: ByteSize,
}

impl Default for RawBuffer {
    fn default() -> Self {
        Self {
            front: ByteSize(DEFAULT_FRONT_BYTES),
            linger: Period(DEFAULT_LINGER),
            quota: ByteSize(DEFAULT_QUOTA_BYTES),
            when_full: RawWhenFull::default(),
            when_full_by_output: BTreeMap::new(),
            segment: ByteSize(DEFAULT_SEGMENT_BYTES),
            rejects_quota: ByteSize(DEFAULT_REJECTS_QUOTA_BYTES),
        }
    }
}

/// What gives way when the quota is full.
pub type WhenFull = RawWhenFull;

/// Settings of front, spool and rejects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferSettings {
    /// The front's budget.
    pub front_bytes: usize,
    /// How long a batch waits in the front.
    pub linger: Duration,
    /// The spool's quota.
    pub quota_bytes: u64,
    /// What gives way, for outputs that are not listed.
    pub when_full: WhenFull,
    /// What gives way, by output.
    pub when_full_by_output: Vec<(OutputName, WhenFull)>,
    /// The size of a segment.
    pub segment_bytes: u64,
    /// The quota of refused records.
    pub rejects_quota_bytes: u64,
}

/// The bounds of a segment: below, databases are opened all the time; above, the quota is followed too coarsely.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=64 << 20;

impl RawBuffer {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> BufferSettings {
        let mut bounded = |key: &str, size: &ByteSize, min: u64, max: u64| {
            if size.0 < min || size.0 > max {
                let remedy = format!("use something between {} and {}", ByteSize(min), ByteSize(max));
                let what = if size.0 < min { "small" } else { "large" };
                mistakes.at(&path.key(key), format!("`{size}` is too {what}"), remedy);
            }
        };
        bounded("front", &self.front, 64 << 10, 1 << 30);
        bounded("segment", &self.segment, *SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
        bounded("rejects_quota", &self.rejects_quota, 64 << 10, 1 << 40);
        // One segment is being written and one being read; a quota below both could never be kept.
        let smallest = 4 * self.segment.0;
        if self.quota.0 < smallest && !mistakes.is_spoken_of(&path.key("segment")) {
            let reason = format!("`{}` is less than four segments of {}", self.quota, self.segment);
            mistakes.at(&path.key("quota"), reason, format!("use {} or more", ByteSize(smallest)));
        }
        if self.linger.0 > Duration::from_secs(60) {
            let reason = format!("`{}` of data would be lost in a power cut", self.linger);
            mistakes.at(&path.key("linger"), reason, "use 1m or less");
        }
        let mut by_output = Vec::new();
        for (name, when_full) in &self.when_full_by_output {
            match OutputName::parse(name) {
                Ok(name) => by_output.push((name, *when_full)),
                Err(bad) => {
                    let path = path.key("when_full_by_output").key(name);
                    mistakes.at(&path, bad.to_string(), "write the output's name as the aggregator has it");
                }
            }
        }
        BufferSettings {
            front_bytes: self.front.0 as usize,
            linger: self.linger.0,
            quota_bytes: self.quota.0,
            when_full: self.when_full,
            when_full_by_output: by_output,
            segment_bytes: self.segment.0,
            rejects_quota_bytes: self.rejects_quota.0,
        }
    }
}
