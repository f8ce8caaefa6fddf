//! Looking at the spool of a stopped agent, without changing a byte: `pegel-agent buffer inspect`.
//!
//! Only ledgers are read. The databases stay closed, because sled writes to a database by opening it.

use super::directory::{LEDGER, QUARANTINE, REASON, SEGMENTS, segment_names};
use super::store::{SegmentName, StoreError};
use super::{Tally, ledger};
use pegel_proto::batch::BatchSeq;
use std::fs;
use std::path::Path;

/// What is in a spool's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The segments, the oldest first.
    pub segments: Vec<ListedSegment>,
    /// The segments in quarantine.
    pub quarantine: Vec<ListedSegment>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSegment {
    /// The directory's name.
    pub name: String,
    /// Its records, by the ledger.
    pub records: Vec<ListedRecord>,
    /// Whether the ledger is complete; if not, the agent stopped while it wrote this segment.
    pub sealed: bool,
    /// What is wrong with it, or why it was set aside.
    pub words: Option<String>,
    /// Bytes on disk.
    pub disk_bytes: u64,
}

/// One record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedRecord {
    /// The batch.
    pub seq: BatchSeq,
    /// Its samples.
    pub records: u64,
    /// The oldest sample's instant, in milliseconds since the Unix epoch.
    pub oldest_ms: i64,
    /// Encoded bytes.
    pub bytes: u64,
}

impl ListedSegment {
    /// Batches and samples.
    pub fn tally(&self) -> Tally {
        self.records.iter().fold(Tally::default(), |sum, r| Tally {
            batches: sum.batches + 1,
            records: sum.records + r.records,
        })
    }
}

/// Lists a spool.
///
/// # Errors
/// If the directory is not a spool or can't be listed.
pub fn list(dir: &Path) -> Result<Listing, StoreError> {
    Ok(Listing {
        segments: list_segments(&dir.join(SEGMENTS))?,
        quarantine: list_segments(&dir.join(QUARANTINE))?,
    })
}

fn list_segments(dir: &Path) -> Result<Vec<ListedSegment>, StoreError> {
    let mut names = segment_names(dir)?;
    names.sort_unstable();
    Ok(names.into_iter().map(|name| list_segment(&dir.join(name.to_string()), name)).collect())
}

fn list_segment(path: &Path, name: SegmentName) -> ListedSegment {
    let read = fs::read(path.join(LEDGER)).map_err(|error| format!("the ledger can't be read: {error}"));
    let parsed = read.and_then(|bytes| ledger::parse(name, &bytes).map_err(|error| error.to_string()));
    let reason = fs::read_to_string(path.join(REASON)).ok().map(|words| words.trim().to_owned());
    let disk_bytes = disk_bytes(path);
    let name = name.to_string();
    match parsed {
        Ok(ledger) => ListedSegment {
            name,
            records: ledger
                .entries
                .iter()
                .map(|e| ListedRecord {
                    seq: e.seq,
                    records: e.records,
                    oldest_ms: e.oldest_ms,
                    bytes: e.bytes,
                })
                .collect(),
            sealed: ledger.sealed,
            words: reason.or_else(|| ledger.damaged.then(|| "its end is damaged".to_owned())),
            disk_bytes,
        },
        Err(words) => ListedSegment {
            name,
            records: Vec::new(),
            sealed: false,
            words: Some(reason.unwrap_or(words)),
            disk_bytes,
        },
    }
}

/// What a tree of files takes on disk, in bytes.
pub fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let below: u64 = if meta.is_dir() {
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| disk_bytes(&entry.path())).sum()
    } else {
        0
    };
    meta.blocks() * 512 + below
}
