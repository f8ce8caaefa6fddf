//! `buffer`: what is kept while it cannot be sent.

use crate::pipeline::effect;
use crate::rejects::DEFAULT_REJECTS_BYTES;
use crate::spool;
use pegel_runtime::config::form::{ByteSize, Period};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

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

/// What is kept while it cannot be sent.
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
    /// What the spool leaves free on its file system.
    pub keep_free: ByteSize,
    /// How long data is kept for an output that the aggregator no longer has.
    pub retire_output_after: Period,
    /// The size of one segment of the spool.
    pub segment: ByteSize,
    /// The most that refused records take on disk, with the reason of each; the oldest give way.
    pub rejects_quota: ByteSize,
}

impl Default for RawBuffer {
    fn default() -> Self {
        let delivery = effect::Settings::default();
        Self {
            front: ByteSize(delivery.front_bytes as u64),
            linger: Period(delivery.linger),
            quota: ByteSize(spool::DEFAULT_QUOTA_BYTES),
            when_full: RawWhenFull::default(),
            keep_free: ByteSize(spool::DEFAULT_KEEP_FREE_BYTES),
            retire_output_after: Period(delivery.retire_output_after),
            segment: ByteSize(spool::DEFAULT_SEGMENT_BYTES),
            rejects_quota: ByteSize(DEFAULT_REJECTS_BYTES),
        }
    }
}

/// Settings of delivery, spool and rejects.
#[derive(Debug, Clone)]
pub struct BufferSettings {
    /// What is kept in memory, and for how long.
    pub delivery: effect::Settings,
    /// What is kept on disk.
    pub spool: spool::Settings,
    /// The most that rejects take on disk, in bytes.
    pub rejects_bytes: u64,
}

/// The bounds of a segment: below, databases are opened all the time; above, the quota is followed too coarsely.
pub(super) const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=64 << 20;

impl RawBuffer {
    pub(super) fn resolve(
        &self,
        state_dir: &std::path::Path,
        path: &Path,
        mistakes: &mut Mistakes,
    ) -> BufferSettings {
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
        if self.linger.0 > Duration::from_mins(1) {
            let reason = format!("`{}` of data would be lost in a power cut", self.linger);
            mistakes.at(&path.key("linger"), reason, "use 1m or less");
        }
        let wait = self.when_full == RawWhenFull::Wait;
        BufferSettings {
            delivery: effect::Settings {
                linger: self.linger.0,
                front_bytes: self.front.0 as usize,
                keep_oldest: wait,
                retire_output_after: self.retire_output_after.0,
                ..effect::Settings::default()
            },
            spool: spool::Settings {
                quota_bytes: self.quota.0,
                when_full: if wait { spool::WhenFull::Wait } else { spool::WhenFull::DropOldest },
                segment_bytes: self.segment.0,
                keep_free_bytes: self.keep_free.0,
                ..spool::Settings::new(state_dir.join("spool"))
            },
            rejects_bytes: self.rejects_quota.0,
        }
    }
}
