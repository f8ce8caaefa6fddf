//! A segment's chunks in a small sled database of their own. The only file that knows sled (=0.34.7).
//!
//! What was read in sled's source and measured, and what is done about it:
//!
//! - An insert appends a *link* to its page; the tenth link rewrites the page whole, and the seventeenth key splits
//!   it. One tree of 16 KiB values therefore writes 2.5 to 4 times the bytes it is given and takes 2 times their
//!   space. So chunks go into many small trees, each abandoned before its tenth link: 1.1 times written, 1.05 times
//!   on disk. A tree's name is the number of its first chunk.
//! - An item beyond a quarter of sled's segment size becomes a file in `blobs/` that leaks. [`SLED_SEGMENT_BYTES`]
//!   is chosen so that nothing here can.
//! - `conf` and `snap.*` are derived: a damaged one only keeps the database from opening, so both are removed
//!   before every opening and sled makes them anew from its log.
//! - Recovery ends the log at the first damage without a word. The queue compares with the ledger.
//! - `flush` waits without end for a thread that may have died, and is no fsync (`sync_file_range`). It is waited
//!   for with a deadline, and the file is fsynced through a descriptor of our own.
//! - sled panics on damage, on opening and reading: every call is guarded. A database that panicked or stalled is
//!   closed on a thread of its own, because closing flushes and may wait without end too.

use super::record;
use super::store::{OpenSegment, StoreError};
use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// sled's own segment size: the unit in which its log grows, is buffered (each buffer is allocated whole) and is
/// read on opening. A quarter of it, 64 KiB, bounds what lies in the log: a page of a tree holds at most
/// [`TREE_ROLL_BYTES`] and a chunk, 48 KiB, when it is rewritten; the page that names the trees some 4 KiB.
const SLED_SEGMENT_BYTES: usize = 256 << 10;

/// sled rewrites a page at its tenth link; nine cost nothing beside their own bytes.
const LINKS_BEFORE_REWRITE: usize = 9;

/// Small chunks (a commit of a few hundred bytes) go on in their tree beyond nine links, because every new tree
/// rewrites the page that names them all. A tree of 32 KiB keeps those names below 128 a segment of 4 MiB.
const TREE_ROLL_BYTES: usize = 32 << 10;

/// sled's page cache. Chunks are read once, in order: nothing is gained by keeping pages.
const CACHE_BYTES: u64 = 256 << 10;

/// How long an abandoned database may take to close before it is left to itself.
const ABANDONED_CLOSE: Duration = Duration::from_secs(2);

/// The directory of the database within a segment's.
const DATABASE: &str = "sled";

/// An open database.
pub(crate) struct SledSegment {
    path: PathBuf,
    flush_deadline: Duration,
    file: File,
    /// Database and trees; gone once abandoned.
    open: Option<Open>,
    /// Bytes and chunks in the newest tree, if this process made it.
    tree_bytes: usize,
    tree_chunks: usize,
}

struct Open {
    /// Trees by the number of their first chunk, ascending. Dropped before the database.
    trees: Vec<(u32, sled::Tree)>,
    database: sled::Db,
}

impl SledSegment {
    /// Makes the database of a new segment, durably present.
    pub(crate) fn create(segment: &Path, flush_deadline: Duration) -> Result<Self, StoreError> {
        let path = segment.join(DATABASE);
        fs::create_dir_all(&path).map_err(StoreError::io("making", &path))?;
        let made = Self::start(path, flush_deadline)?;
        sync_directory(&made.path)?;
        Ok(made)
    }

    /// Opens the database of a segment.
    pub(crate) fn open(segment: &Path, flush_deadline: Duration) -> Result<Self, StoreError> {
        let path = segment.join(DATABASE);
        let db = path.join("db");
        fs::metadata(&db).map_err(StoreError::io("opening", db))?;
        for entry in fs::read_dir(&path).map_err(StoreError::io("listing", &path))?.flatten() {
            let name = entry.file_name();
            if name == "conf" || name.as_encoded_bytes().starts_with(b"snap.") {
                fs::remove_file(entry.path()).map_err(StoreError::io("removing", entry.path()))?;
            }
        }
        match Self::start(path.clone(), flush_deadline) {
            Err(error) if error.is_locked() => {
                replace_locked(&path)?;
                Self::start(path, flush_deadline)
            }
            opened => opened,
        }
    }

    fn start(path: PathBuf, flush_deadline: Duration) -> Result<Self, StoreError> {
        let open = guard(&path, || {
            let database = sled::Config::new()
                .path(&path)
                .segment_size(SLED_SEGMENT_BYTES)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
                .mode(sled::Mode::HighThroughput)
                .open()?;
            let mut trees = Vec::new();
            for name in database.tree_names() {
                if let Ok(first) = <[u8; 4]>::try_from(&*name) {
                    trees.push((u32::from_be_bytes(first), database.open_tree(name)?));
                }
            }
            trees.sort_unstable_by_key(|(first, _)| *first);
            Ok(Open { trees, database })
        })?;
        let db = path.join("db");
        let file = File::open(&db).map_err(StoreError::io("opening", db))?;
        Ok(Self { path, flush_deadline, file, open: Some(open), tree_bytes: 0, tree_chunks: 0 })
    }

    fn open_mut(&mut self) -> Result<&mut Open, StoreError> {
        self.open.as_mut().ok_or_else(|| StoreError::Damaged {
            path: self.path.clone(),
            what: "its database failed before and is being closed".into(),
        })
    }

    /// Chunks go to the newest tree until it is full.
    fn insert(&mut self, first: u32, chunks: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let path = self.path.clone();
        let mut batch = sled::Batch::default();
        for (number, value) in (first..).zip(chunks) {
            let full = self.tree_chunks >= LINKS_BEFORE_REWRITE && self.tree_bytes >= TREE_ROLL_BYTES;
            if self.tree_chunks == 0 || full {
                let open = self.open_mut()?;
                guard(&path, || {
                    if let Some((_, tree)) = open.trees.last() {
                        tree.apply_batch(std::mem::take(&mut batch))?;
                    }
                    open.trees.push((number, open.database.open_tree(number.to_be_bytes())?));
                    Ok(())
                })?;
                self.tree_bytes = 0;
                self.tree_chunks = 0;
            }
            self.tree_bytes += value.len();
            self.tree_chunks += 1;
            batch.insert(&number.to_be_bytes(), value);
        }
        let open = self.open_mut()?;
        guard(&path, || open.trees.last().map_or(Ok(()), |(_, tree)| tree.apply_batch(batch)))
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let (path, deadline) = (self.path.clone(), self.flush_deadline);
        let open = self.open_mut()?;
        let flushed = guard(&path, || wait(open.database.flush_async(), deadline).transpose())?;
        if flushed.is_none() {
            return Err(StoreError::Stalled { path, after: deadline });
        }
        self.file.sync_data().map_err(StoreError::io("fsyncing", &self.path))
    }

    /// Closes a database that can't be trusted to close.
    fn abandon(&mut self) {
        let Some(open) = self.open.take() else { return };
        let (closed, ended) = std::sync::mpsc::channel();
        let closer = thread::Builder::new().name("spool-closer".into()).spawn(move || {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(open)));
            let _ = closed.send(());
        });
        if closer.is_ok() {
            // Opening it again needs its lock; more than this moment is not worth waiting.
            let _ = ended.recv_timeout(ABANDONED_CLOSE);
        }
    }
}

impl OpenSegment for SledSegment {
    fn write(&mut self, first: u32, chunks: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let written = self.insert(first, chunks).and_then(|()| self.flush());
        if written.as_ref().is_err_and(|error| !matches!(error, StoreError::Io { .. })) {
            self.abandon();
        }
        // After an I/O error sled refuses to write and still reads what it wrote before.
        written
    }

    fn read(&mut self, chunk: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path.clone();
        let open = self.open_mut()?;
        let Some(at) = open.trees.partition_point(|(first, _)| *first <= chunk).checked_sub(1) else {
            return Ok(None);
        };
        let tree = &open.trees[at].1;
        let read = guard(&path, || Ok(tree.get(chunk.to_be_bytes())?.map(|value| value.to_vec())));
        if read.is_err() {
            self.abandon();
        }
        read
    }
}

impl Drop for SledSegment {
    fn drop(&mut self) {
        let open = self.open.take();
        if catch_unwind(AssertUnwindSafe(|| drop(open))).is_err() {
            tracing::debug!(path = %self.path.display(), "sled panicked on closing a segment");
        }
    }
}

/// Calls sled: its panics and errors become ours.
fn guard<T>(path: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    let damaged = |what| StoreError::Damaged { path: path.to_path_buf(), what };
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        // sled gives the lock's refusal no kind of its own.
        Ok(Err(sled::Error::Io(source))) if source.to_string().contains("acquire lock") => {
            Err(StoreError::io("locking", path)(io::ErrorKind::WouldBlock.into()))
        }
        Ok(Err(sled::Error::Io(source))) => Err(StoreError::io("using", path)(source)),
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(panic) => {
            let said = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            let said: String = said.chars().take(200).collect();
            Err(damaged(format!("sled panicked: {said}")))
        }
    }
}

/// Gives a database a file of its own again. The lock on the old one can only be this process's, because the
/// spool's directory is locked: sled leaks the file of a database that met an I/O error or panicked.
fn replace_locked(path: &Path) -> Result<(), StoreError> {
    let (db, fresh) = (path.join("db"), path.join("db.copy"));
    fs::copy(&db, &fresh).map_err(StoreError::io("copying", &db))?;
    File::open(&fresh).and_then(|file| file.sync_all()).map_err(StoreError::io("fsyncing", &fresh))?;
    fs::rename(&fresh, &db).map_err(StoreError::io("renaming", fresh))?;
    sync_directory(path)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks until a future is ready or the deadline has passed.
fn wait<T>(future: impl Future<Output = sled::Result<T>>, deadline: Duration) -> Option<sled::Result<T>> {
    let until = Instant::now() + deadline;
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(ready) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(ready);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}

/// Makes a directory's entries durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(StoreError::io("fsyncing", path))
}

const _: () = {
    // Whatever a tree's page comes to, it stays in sled's log.
    assert!(TREE_ROLL_BYTES + record::CHUNK_BYTES + 4096 < SLED_SEGMENT_BYTES / 4);
};
