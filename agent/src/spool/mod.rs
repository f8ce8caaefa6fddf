//! The spool: batches that nobody else holds yet, on disk, first in first out.
//!
//! # Constraints
//!
//! - A batch that [`Spool::commit`] reported as stored survives a kill and a power cut.
//! - Damage is local: a segment that can't be read is set aside, never wiped, its loss is counted batch by batch,
//!   and the spool goes on.
//! - Memory does not grow with the backlog: in memory a segment is some hundred bytes, and at most three
//!   segments are open (the one being written and two being read).
//! - What the disk holds is bounded by a quota on the bytes that the spool itself wrote; once everything is
//!   trimmed nothing is left and nothing is open.
//!
//! # The life of a record
//!
//! [`Spool::append`] has the caller's encoder write a record into the stage, in memory. [`Spool::commit`] cuts the
//! stage into chunks, each with a CRC, writes them into the newest segment's sled database, flushes and fsyncs it,
//! and notes the records in the segment's *ledger*. A [`Cursor`] reads the records of one segment after another;
//! because encoders have state that starts at a segment's head, it always reads a segment from its head and marks
//! what lies before its position as replay. [`Spool::trim`] removes segments whose every record is acknowledged.
//!
//! A commit that failed (no space, I/O error, read-only) stored nothing: the caller keeps those batches. The
//! segment is never appended to again, the next append starts a new one, and the committed part of the old one
//! stays readable. Whatever the failed commit left behind is recognised on the next start because a later segment
//! begins at or below its sequence number.
//!
//! # Files
//!
//! `docs/spool-format.md` has the bytes. [`queue`] is the state machine and touches no file: it drives a
//! [`store::SegmentStore`]. [`directory`] is the store on a real file system; [`sled_segment`] is the only file of
//! the project that knows sled. [`memory`] is the spool's twin without a disk; [`thread`] runs a spool on a thread
//! of its own for the pipeline; [`inspect`] reads a stopped agent's spool.

use pegel_proto::batch::BatchSeq;
use std::path::PathBuf;
use std::time::Duration;

pub mod codec;
mod directory;
pub mod inspect;
mod ledger;
pub mod memory;
pub mod queue;
mod record;
mod sled_segment;
mod store;
mod telemetry;
pub mod thread;

#[cfg(test)]
mod tests;

pub use queue::{Cursor, SegmentedSpool};
pub use store::StoreError;

/// A segment's size in bytes of records. One open segment costs about its own size in memory (sled keeps pages),
/// and three may be open: 3 × 4 MiB leaves half of the 40 MB that an agent may take in an outage.
pub const DEFAULT_SEGMENT_BYTES: u64 = 4 << 20;

/// The spool's quota. A host of 1,000 series at 15 s writes about 65 bytes of spool a second at 1 byte a sample:
/// 1 GiB is half a year of one such host, or a day of 12,000 samples a second.
pub const DEFAULT_QUOTA_BYTES: u64 = 1 << 30;

/// What the spool leaves free on its file system. sled writes up to one of its own segments (512 KiB) to open a
/// database that was not closed, so a disk filled to the last byte could not even be drained; the rest is for
/// positions and for the host's other programs.
pub const DEFAULT_KEEP_FREE_BYTES: u64 = 32 << 20;

/// How long one flush may take before the segment is given up. A healthy disk takes milliseconds for 4 MiB, a
/// saturated one seconds; sled itself would wait for ever for a thread that has died.
pub const DEFAULT_FLUSH_DEADLINE: Duration = Duration::from_secs(30);

/// What to do when the quota is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Refuse with [`SpoolError::Full`]: the source waits.
    Wait,
    /// Drop whole segments, the oldest first, and report them as [`Loss`]es.
    #[default]
    DropOldest,
}

/// Settings of one spool.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The spool's directory, of its own.
    pub dir: PathBuf,
    /// The most bytes on disk, by the spool's own accounting.
    pub quota_bytes: u64,
    /// What happens when they are reached.
    pub when_full: WhenFull,
    /// Bytes of records after which a new segment begins; held at or below an eighth of the quota.
    pub segment_bytes: u64,
    /// Bytes to leave free on the file system.
    pub keep_free_bytes: u64,
    /// How long a flush may take.
    pub flush_deadline: Duration,
}

impl Settings {
    /// The defaults, in a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            quota_bytes: DEFAULT_QUOTA_BYTES,
            when_full: WhenFull::default(),
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            keep_free_bytes: DEFAULT_KEEP_FREE_BYTES,
            flush_deadline: DEFAULT_FLUSH_DEADLINE,
        }
    }

    /// The segment size that the quota allows: dropping the oldest segment must not drop half of what is held.
    pub(crate) fn effective_segment_bytes(&self) -> u64 {
        self.segment_bytes.min(self.quota_bytes / 8).max(1)
    }
}

/// What the spool keeps beside a record's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// The batch.
    pub seq: BatchSeq,
    /// How many records (samples) the batch holds.
    pub records: u64,
    /// The oldest sample's instant, in milliseconds since the Unix epoch.
    pub oldest_ms: i64,
    /// The caller's; the spool does not read them.
    pub flags: u32,
}

/// What an encoder must know of the place where its bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first record of a segment: the encoder starts afresh.
    Fresh,
    /// A later record of the segment that the encoder wrote to last.
    Continued,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// What the spool keeps beside the bytes.
    pub header: RecordHeader,
    /// The bytes that the encoder wrote.
    pub bytes: Vec<u8>,
    /// Whether this is its segment's first record: the decoder starts afresh.
    pub start: Start,
    /// Whether the record lies before the cursor: to be decoded for the decoder's state, not to be sent.
    pub replay: bool,
    /// The segment's number.
    pub segment: u64,
}

/// What a commit stored.
#[derive(Debug)]
pub struct Committed {
    /// Everything appended up to this batch is stored; none if the stage was empty.
    pub up_to: Option<BatchSeq>,
    /// Why the rest of the stage was not stored; nothing of that rest counts as stored.
    pub failed: Option<SpoolError>,
}

/// A number of batches and of records (samples) in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Batches.
    pub batches: u64,
    /// Records.
    pub records: u64,
}

impl Tally {
    pub(crate) fn and(self, batches: u64, records: u64) -> Self {
        Self { batches: self.batches + batches, records: self.records + records }
    }

    pub(crate) fn of<'a>(batches: impl IntoIterator<Item = &'a (BatchSeq, u64)>) -> Self {
        batches.into_iter().fold(Self::default(), |sum, (_, records)| sum.and(1, *records))
    }
}

/// Why stored batches are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LossReason {
    /// The quota was reached and the oldest had to go.
    QuotaFull,
    /// A segment was damaged.
    Damaged,
}

impl LossReason {
    /// The reason's name as a label value.
    pub fn name(self) -> &'static str {
        match self {
            Self::QuotaFull => "quota_full",
            Self::Damaged => "damaged",
        }
    }
}

/// Stored batches that are gone before they were trimmed. Each is reported once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Why.
    pub reason: LossReason,
    /// The first batch that may be lost.
    pub first: BatchSeq,
    /// The last batch that may be lost.
    pub last: BatchSeq,
    /// The lost batches and their records. Empty if they aren't known one by one.
    pub batches: Vec<(BatchSeq, u64)>,
    /// How much was lost in all; none if that is not known either.
    pub total: Option<Tally>,
    /// Whether `batches` is complete for certain. If not, the ledger may lack its end (a power cut) or is unreadable
    /// too (two damages in one segment), and the range is a bound.
    pub exact: bool,
    /// What happened, for a person.
    pub words: String,
}

impl Loss {
    /// What a cursor loses that has everything up to and with `acknowledged`.
    pub fn above(&self, acknowledged: BatchSeq) -> Tally {
        if let (false, Some(total)) = (self.exact, self.total)
            && acknowledged < self.first
        {
            return total;
        }
        Tally::of(self.batches.iter().filter(|(seq, _)| *seq > acknowledged))
    }
}

/// One segment, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its number; numbers rise.
    pub number: u64,
    /// Its first batch.
    pub first: BatchSeq,
    /// Its last batch.
    pub last: BatchSeq,
    /// Batches and records.
    pub tally: Tally,
    /// Bytes on disk, by the spool's accounting.
    pub bytes: u64,
    /// The oldest sample's instant, in milliseconds since the Unix epoch.
    pub oldest_ms: i64,
    /// Whether it ends early because the rest is damaged.
    pub damaged: bool,
}

/// What a spool holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// The segments, the oldest first.
    pub segments: Vec<SegmentSummary>,
    /// Bytes on disk, by the spool's accounting.
    pub bytes: u64,
    /// Segments that were set aside since the spool was made and still lie in `quarantine/`.
    pub quarantined: usize,
}

impl Inventory {
    /// The newest batch held.
    pub fn last(&self) -> Option<BatchSeq> {
        self.segments.last().map(|s| s.last)
    }

    /// Everything held.
    pub fn total(&self) -> Tally {
        self.segments.iter().fold(Tally::default(), |sum, s| sum.and(s.tally.batches, s.tally.records))
    }
}

/// Why the spool could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The quota is reached and the policy is to wait. Nothing was appended.
    #[error(
        "the spool holds {used_bytes} of its {quota_bytes} bytes: it takes more when outputs acknowledge"
    )]
    Full {
        /// Bytes held.
        used_bytes: u64,
        /// The quota.
        quota_bytes: u64,
    },
    /// A batch was appended that lies before one that is staged already.
    #[error("batch {seq} was appended after batch {last}")]
    OutOfOrder {
        /// The batch.
        seq: BatchSeq,
        /// The newest staged.
        last: BatchSeq,
    },
    /// Another process holds the directory.
    #[error(
        "the spool in {dir} belongs to another running agent: give this one a state directory of its own"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file system or sled refused. What was staged is not stored; the caller keeps it and tries again.
    #[error(transparent)]
    Storage(#[from] StoreError),
    /// The spool's thread did not answer in time: a disk that hangs. What was asked may still happen later.
    #[error("the disk has not answered for {} s while {doing}: is it failing, or a mount gone?", after.as_secs())]
    Stalled {
        /// What was being done.
        doing: &'static str,
        /// For how long.
        after: Duration,
    },
    /// The spool could not be opened and will be tried again.
    #[error("the spool is not open: {why}")]
    Unavailable {
        /// Why opening failed.
        why: String,
    },
    /// The spool's thread has ended.
    #[error("the spool is closed")]
    Closed,
}

/// A queue of records that survives the process. Calls block on the disk: the pipeline goes through [`thread`].
pub trait Spool: Send {
    /// Has `encode` write a record into the stage. A batch at or below the newest stored one is taken as stored
    /// already (a repeat after a time-out) and not encoded again.
    ///
    /// # Errors
    /// [`SpoolError::Full`] and [`SpoolError::OutOfOrder`]; nothing was staged then.
    fn append(
        &mut self,
        header: RecordHeader,
        encode: &mut dyn FnMut(Start, &mut Vec<u8>),
    ) -> Result<(), SpoolError>;

    /// Stores what is staged, durably. The stage is empty afterwards, whatever happened.
    ///
    /// # Errors
    /// [`SpoolError::Storage`] if nothing of the stage was stored.
    fn commit(&mut self) -> Result<Committed, SpoolError>;

    /// The next record of a cursor; none if it has read everything that is committed.
    ///
    /// # Errors
    /// [`SpoolError::Storage`] if the disk refuses; the cursor stays where it was. Damage is no error: the
    /// cursor goes on behind it and the loss is reported by [`Spool::take_losses`].
    fn next(&mut self, cursor: &mut Cursor) -> Result<Option<ReadRecord>, SpoolError>;

    /// Gives up the rest of the cursor's segment, because its record `seq` (of intact bytes) can't be decoded.
    fn condemn(&mut self, cursor: &Cursor, seq: BatchSeq, words: &str);

    /// Removes the segments that lie wholly at or below a batch.
    ///
    /// # Errors
    /// [`SpoolError::Storage`] if a segment could not be removed; the next trim tries again.
    fn trim(&mut self, up_to: BatchSeq) -> Result<(), SpoolError>;

    /// What is held.
    fn inventory(&self) -> Inventory;

    /// How much is held above a batch.
    ///
    /// # Errors
    /// [`SpoolError::Storage`] if a ledger can't be read.
    fn held_above(&mut self, acknowledged: BatchSeq) -> Result<Tally, SpoolError>;

    /// What was lost since this was last asked, damage found on opening included.
    fn take_losses(&mut self) -> Vec<Loss>;
}
