//! What the spool needs of a disk: few enough calls that each can be made to fail in a test.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Names a segment: its number, which orders segments, and its first batch, which bounds what is lost if nothing
/// else of it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentName {
    pub number: u64,
    pub first_seq: u64,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}-{:020}", self.number, self.first_seq)
    }
}

impl SegmentName {
    /// Reads a directory's name back.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (number, first_seq) = name.split_once('-')?;
        Some(Self { number: number.parse().ok()?, first_seq: first_seq.parse().ok()? })
    }
}

/// Why a store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused: no space, read-only, no permission, an I/O error.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What is on the disk is not what was written.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A flush did not end within its deadline.
    #[error("flushing {path} did not end within {} s", after.as_secs())]
    Stalled {
        /// The segment.
        path: PathBuf,
        /// The deadline.
        after: Duration,
    },
    /// The file system has less space than the spool is to leave free.
    #[error("{path} has {free_bytes} bytes free, of which {keep_bytes} are to stay free")]
    NoSpace {
        /// The spool's directory.
        path: PathBuf,
        /// Bytes free.
        free_bytes: u64,
        /// Bytes to leave free.
        keep_bytes: u64,
    },
}

impl StoreError {
    /// Wraps an I/O error with what was being done, as an argument of `map_err`.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    /// Whether what was to be opened is not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the segment is still held by a handle that was given up.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the segment itself is at fault, rather than the disk or the machine at this moment.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Io { source, .. } => {
                let kind = source.kind();
                self.is_missing() || matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
            }
            Self::Stalled { .. } | Self::NoSpace { .. } => false,
        }
    }
}

/// Where segments live.
pub(crate) trait SegmentStore: Send {
    /// All segments, the oldest first.
    fn list(&mut self) -> Result<Vec<SegmentName>, StoreError>;
    /// Makes a segment, durably present and open, with the first bytes of its ledger.
    fn create(&mut self, name: SegmentName, ledger: &[u8]) -> Result<Box<dyn OpenSegment>, StoreError>;
    /// Opens a segment. No segment is ever opened twice at a time.
    fn open(&mut self, name: SegmentName) -> Result<Box<dyn OpenSegment>, StoreError>;
    /// The ledger's bytes.
    fn read_ledger(&mut self, name: SegmentName) -> Result<Vec<u8>, StoreError>;
    /// Appends to the ledger; durable only if `sync`.
    fn append_ledger(&mut self, name: SegmentName, bytes: &[u8], sync: bool) -> Result<(), StoreError>;
    /// Replaces the ledger in one step, durably.
    fn replace_ledger(&mut self, name: SegmentName, bytes: &[u8]) -> Result<(), StoreError>;
    /// Removes a segment in one step: afterwards `list` does not show it, even after a crash halfway.
    fn remove(&mut self, name: SegmentName) -> Result<(), StoreError>;
    /// Sets a segment aside, with the reason beside it.
    fn quarantine(&mut self, name: SegmentName, reason: &str) -> Result<(), StoreError>;
    /// How many segments lie aside.
    fn quarantined(&mut self) -> usize;
    /// The highest number that a segment here ever had, those set aside included.
    fn highest_number(&mut self) -> u64;
    /// Whether a new segment may be made without taking the space that is to stay free.
    fn check_space(&mut self, wanted_bytes: u64) -> Result<(), StoreError>;
}

/// An open segment: numbered chunks. Dropping it closes it.
pub(crate) trait OpenSegment: Send {
    /// Stores chunks, durably. They are numbered on from those before. On an error any part of them may be stored.
    fn write(&mut self, first: u32, chunks: Vec<Vec<u8>>) -> Result<(), StoreError>;
    /// A chunk; none if there is none of that number.
    fn read(&mut self, chunk: u32) -> Result<Option<Vec<u8>>, StoreError>;
}
