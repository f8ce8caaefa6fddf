//! Caps on everything that a peer may send. A length is checked against its cap before it is used.

/// The largest frame on a stream, encoded, in bytes. A batch of 100,000 samples described for the first time fits.
pub const MAX_FRAME_BYTES: usize = 4 << 20;
/// The largest control frame, in bytes.
pub const MAX_CONTROL_FRAME_BYTES: usize = 64 << 10;
/// The most samples in one batch.
pub const MAX_BATCH_SAMPLES: usize = 200_000;
/// The most blocks in one batch.
pub const MAX_BATCH_BLOCKS: usize = 4_096;
/// The most series that one stream may have described and not forgotten.
pub const MAX_STREAM_SERIES: usize = 1_000_000;
/// The most labels of one series (Prometheus has no limit of its own; Mimir's default is 30).
pub const MAX_LABELS: usize = 128;
/// The longest label name, in bytes.
pub const MAX_LABEL_NAME_BYTES: usize = 1_024;
/// The longest label value, in bytes.
pub const MAX_LABEL_VALUE_BYTES: usize = 16 << 10;
/// The longest help text kept, in bytes; longer ones are cut by the source.
pub const MAX_HELP_BYTES: usize = 1_024;
/// The most log files that a heartbeat names as being behind.
pub const MAX_FILES_BEHIND: usize = 10;
/// The longest path of a log file in a heartbeat, in bytes; longer ones are cut.
pub const MAX_TOLD_PATH_BYTES: usize = 512;
/// The longest message that goes with a rejection, in bytes.
pub const MAX_REJECT_MESSAGE_BYTES: usize = 512;
