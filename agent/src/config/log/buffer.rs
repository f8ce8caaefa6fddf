//! `logs.buffer`: what is kept of logs while it cannot be sent.

use crate::config::buffer::{BufferSettings, RawBuffer, RawWhenFull, SEGMENT_BYTES};
use crate::pipeline::effect;
use pegel_runtime::config::form::{ByteSize, Period};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is kept of logs while it cannot be sent. Segment size, free space and retirement are those of `buffer`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"max_size": "quota", "size": "quota", "memory": "front"}))]
pub struct RawLogBuffer {
    /// Memory for compressed blocks that are not acknowledged yet; what exceeds it is written to disk at once.
    pub front: ByteSize,
    /// How long a block waits in memory for its acknowledgement before it is written to disk and synced. What is in
    /// memory at a kill is read again from its file.
    pub linger: Period,
    /// The most that compressed blocks take on disk.
    pub quota: ByteSize,
    /// What gives way when the quota is full. With `wait`, files are left unread until there is room.
    pub when_full: RawWhenFull,
}

/// 2 GiB of compressed lines are some 12 GiB of logs: a day of 150 KB/s.
const DEFAULT_QUOTA_BYTES: u64 = 2 << 30;
/// Compressed, some 24 MB of lines.
const DEFAULT_FRONT_BYTES: u64 = 4 << 20;

impl Default for RawLogBuffer {
    fn default() -> Self {
        Self {
            front: ByteSize(DEFAULT_FRONT_BYTES),
            linger: Period(effect::Settings::default().linger),
            quota: ByteSize(DEFAULT_QUOTA_BYTES),
            when_full: RawWhenFull::Wait,
        }
    }
}

impl RawLogBuffer {
    pub(super) fn resolve(
        &self,
        shared: &RawBuffer,
        dir: &std::path::Path,
        path: &Path,
        mistakes: &mut Mistakes,
    ) -> BufferSettings {
        let whole = RawBuffer {
            front: self.front.clone(),
            linger: self.linger.clone(),
            quota: self.quota.clone(),
            when_full: self.when_full,
            // What is wrong with these was said of `buffer`.
            segment: ByteSize(shared.segment.0.clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end())),
            rejects_quota: RawBuffer::default().rejects_quota,
            ..shared.clone()
        };
        let mut settings = whole.resolve(dir, path, mistakes);
        settings.rejects_bytes = shared.rejects_quota.0;
        settings.delivery.sources_wait = self.when_full == RawWhenFull::Wait;
        settings.delivery.rereads = true;
        settings
    }
}
