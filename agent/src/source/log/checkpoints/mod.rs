//! Where each source stands, and which blocks may have been sent without anybody holding them.
//!
//! One append-only file in the log source's state directory ([`record`] has its bytes), compacted by rename when it has
//! grown to twice what it needs. Records reach the kernel as they are written, so a killed agent forgets nothing; they
//! are fsynced with a compaction, every [`SYNC_EVERY`] and at the end, on a thread of their own. Where the disk takes
//! nothing the state is right in memory, [`Checkpoints::trouble`] says what is wrong, writing is tried again every
//! [`RETRY_EVERY`], and sources that can wait do ([`Checkpoints::take_records`]): a block whose intent is not written
//! would be sent once more after a restart, and nobody would know. Blocks of the disk are kept for the records of some
//! more minutes, so that a disk that is full for a while stops nothing.
//!
//! # What holds
//!
//! - A source's place is the end of what is safe *without a gap*: a range that is settled before an earlier one waits
//!   for it.
//! - An intent is outstanding until it is settled or withdrawn. [`Checkpoints::resume`] is the place after all
//!   outstanding intents that follow the place without a gap; those that don't are withdrawn when the file is opened,
//!   because their bytes will be read anyway.
//! - Ids of sources and intents rise and are never used twice, as long as the file is there.

mod record;
mod state;
#[cfg(test)]
pub(super) mod tests;

use super::origin::{Origin, Range};
use parking_lot::Mutex;
use pegel_proto::batch::{BatchSeq, Logs};
use record::What;
use rustix::fs::{FallocateFlags, fallocate};
use state::State;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The file's name in the state directory of logs.
pub const FILE_NAME: &str = "checkpoints";
/// A power cut repeats at most half a minute.
const SYNC_EVERY: Duration = Duration::from_secs(30);
/// A full disk is asked again this often.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// A file of less is not worth a compaction: some five minutes of fifty blocks a second.
const COMPACT_BYTES: u64 = 1 << 20;
/// What the disk keeps for records to come, so that they can be written while it is full.
const RESERVE_BYTES: u64 = 2 << 20;

/// Numbers sources. 0 is none.
pub type SourceId = u64;

/// What kind of source it is: what its offsets mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum SourceKind {
    /// A file; offsets are its bytes.
    File = 1,
    /// A file that was compressed with gzip; offsets are those of what was compressed.
    Gzip = 2,
    /// A file that was compressed with zstd; offsets are those of what was compressed.
    Zstd = 3,
    /// The journal; it has a cursor and no offset.
    Journal = 4,
}

impl SourceKind {
    fn from_number(number: u32) -> Option<Self> {
        [Self::File, Self::Gzip, Self::Zstd, Self::Journal].into_iter().find(|kind| *kind as u32 == number)
    }
}

/// The beginning of a file: how much of it was seen, and its hash. A file that grows keeps it until it is looked at
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Print {
    /// How many bytes.
    pub bytes: u32,
    /// Their xxh3.
    pub hash: u64,
}

/// What tells a source from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The input's name.
    pub input: Arc<str>,
    /// What it is.
    pub kind: SourceKind,
    /// Where it was seen last.
    pub path: Arc<Path>,
    /// The file's device; 0 for what is no file.
    pub device: u64,
    /// The file's inode.
    pub inode: u64,
    /// When the inode was made, nanoseconds since the Unix epoch; 0 where the file system does not say.
    pub born_ns: i64,
    /// How its content begins.
    pub print: Print,
}

/// Where a source stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The next byte, for files.
    pub offset: u64,
    /// The cursor of the last entry, for the journal; empty at its head.
    pub cursor: Box<str>,
    /// The timestamp of the last entry: the floor of the next one.
    pub last_ns: i64,
}

/// Why checkpoints can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointsError {
    /// The file system refuses.
    #[error("cannot {doing} {}: {reason}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// The file is of another format: a newer agent wrote it.
    #[error("{} is of a format that this agent does not know: run the newer version again, or move the file away (then logs are read from the configured start)", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
    },
}

/// What was found on opening.
#[derive(Debug)]
pub struct Opened {
    /// The checkpoints.
    pub checkpoints: Arc<Checkpoints>,
    /// What a person should know: damage.
    pub warning: Option<String>,
    /// Why nothing can be written for now; it is tried again.
    pub unwritable: Option<CheckpointsError>,
}

/// The checkpoints. Shared by the inputs and by delivery.
#[derive(Debug)]
pub struct Checkpoints {
    path: PathBuf,
    written_before: Option<SystemTime>,
    kept: Mutex<Kept>,
    /// Held while a new file is written. Taken before `kept`.
    compacting: Mutex<()>,
}

#[derive(Debug)]
struct Kept {
    state: State,
    file: Option<File>,
    bytes: u64,
    /// What the file had after its last compaction.
    needed_bytes: u64,
    synced_at: Instant,
    unsynced: bool,
    tried_at: Instant,
    trouble: Option<String>,
    /// Records that came while a new file is written.
    meanwhile: Option<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Checkpoints {
    /// Opens or makes the checkpoints of a directory.
    pub fn open(dir: &Path) -> Result<Opened, CheckpointsError> {
        let path = dir.join(FILE_NAME);
        let found = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Vec::new()
            }
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let written_before = fs::metadata(&path).and_then(|meta| meta.modified()).ok();
        let mut state = State::default();
        let mut warning = None;
        if let Some(records) = found.strip_prefix(record::MAGIC) {
            let back = record::read(records);
            back.records.into_iter().for_each(|what| state.apply(what));
            if back.damaged_bytes > 0 {
                warning = Some(format!(
                    "{} bytes within {} are damaged; what they said is forgotten, some lines may be read again",
                    back.damaged_bytes,
                    path.display()
                ));
            }
        } else if !record::MAGIC.starts_with(&found) {
            if found.starts_with(&record::MAGIC[..record::MAGIC.len() - 2]) {
                return Err(CheckpointsError::Newer { path });
            }
            let aside = path.with_extension("damaged");
            fs::rename(&path, &aside).map_err(io_error("set aside the damaged", &path))?;
            warning = Some(format!(
                "{} does not begin as checkpoints do; it was set aside as {}, and logs are read from the configured start",
                path.display(),
                aside.display()
            ));
        }
        state.withdraw_unreachable();
        let now = Instant::now();
        let checkpoints = Self {
            path,
            written_before,
            kept: Mutex::new(Kept {
                state,
                file: None,
                bytes: 0,
                needed_bytes: 0,
                synced_at: now,
                unsynced: false,
                tried_at: now,
                trouble: None,
                meanwhile: None,
                buffer: Vec::new(),
            }),
            compacting: Mutex::new(()),
        };
        let mut unwritable = checkpoints.compact_now().err();
        // A full disk has no room for a new file. The old one has some left, and it can be trusted if all of it was read.
        let whole = warning.is_none() && found.starts_with(record::MAGIC);
        unwritable = unwritable.filter(|_| !(whole && checkpoints.goes_on_with_the_old(found.len() as u64)));
        Ok(Opened { checkpoints: Arc::new(checkpoints), warning, unwritable })
    }

    /// A new source, at its beginning.
    pub fn source(self: &Arc<Self>, described: Described) -> SourceId {
        let mut kept = self.kept.lock();
        let id = kept.state.next_source();
        self.append(&mut kept, What::Source(state::source_record(id, &described)));
        id
    }

    /// A source has another path, or is known better.
    pub fn describe(self: &Arc<Self>, id: SourceId, described: Described) {
        let mut kept = self.kept.lock();
        if kept.state.described(id).is_some_and(|known| known != described) {
            self.append(&mut kept, What::Source(state::source_record(id, &described)));
        }
    }

    /// A source's description.
    pub fn described(&self, id: SourceId) -> Option<Described> {
        self.kept.lock().state.described(id)
    }

    /// Keeps something beside a source's place, in place of what was kept.
    pub fn put_note(self: &Arc<Self>, id: SourceId, note: &[u8]) {
        let mut kept = self.kept.lock();
        if kept.state.note(id) != note {
            self.append(&mut kept, What::Note(record::NoteRecord { id, note: note.to_vec() }));
        }
    }

    /// What is kept beside a source's place.
    pub fn note(&self, id: SourceId) -> Vec<u8> {
        self.kept.lock().state.note(id).to_vec()
    }

    /// The sources of an input, in the order in which they were first seen.
    pub fn sources(&self, input: &str) -> Vec<(SourceId, Described)> {
        self.kept.lock().state.sources(input)
    }

    /// The place up to which all of a source is safe.
    pub fn place(&self, id: SourceId) -> Place {
        self.kept.lock().state.place(id)
    }

    /// The place up to which all of a source is safe or in an outstanding intent: where reading goes on after a start.
    pub fn resume(&self, id: SourceId) -> Place {
        self.kept.lock().state.resume(id)
    }

    /// Puts a source somewhere: to its end at first, say.
    pub fn put(self: &Arc<Self>, id: SourceId, place: Place) {
        let what = What::Place(state::place_record(id, &place));
        self.append(&mut self.kept.lock(), what);
    }

    /// Numbers an origin and remembers that its block may be sent from now on.
    pub fn intend(self: &Arc<Self>, origin: &mut Origin) {
        let mut kept = self.kept.lock();
        origin.intent = kept.state.next_intent();
        self.append(&mut kept, What::Intent(origin.clone()));
    }

    /// A block is safe: the places of its sources move.
    pub fn settle(self: &Arc<Self>, seq: BatchSeq, origin: &Origin) {
        let mut kept = self.kept.lock();
        let known = kept.state.is_outstanding(origin.intent);
        let ranges = if known { Vec::new() } else { origin.ranges.clone() };
        let settled = record::SettledRecord { seq: seq.0, intent: origin.intent, ranges };
        self.append(&mut kept, What::Settled(settled));
    }

    /// A batch is safe, as delivery tells it ([`Safe`](crate::pipeline::driver::Safe)).
    pub fn safe(self: &Arc<Self>, seq: BatchSeq, logs: &Logs) {
        if let Some(origin) = Origin::from_bytes(&logs.origin) {
            self.settle(seq, &origin);
        }
    }

    /// Ranges that made no entries need no block: the places move over them.
    pub fn pass(self: &Arc<Self>, ranges: Vec<Range>) {
        let settled = record::SettledRecord { seq: 0, intent: 0, ranges };
        self.append(&mut self.kept.lock(), What::Settled(settled));
    }

    /// The newest batch that was told safe.
    pub fn settled_up_to(&self) -> BatchSeq {
        BatchSeq(self.kept.lock().state.settled_up_to())
    }

    /// The intents that are not settled, in their order.
    pub fn outstanding(&self) -> Vec<Origin> {
        self.kept.lock().state.outstanding()
    }

    /// An intent will not be followed: its block can't be built again.
    pub fn withdraw(self: &Arc<Self>, intent: u64) {
        self.append(&mut self.kept.lock(), What::Withdrawn(intent));
    }

    /// A source is gone for good. It is remembered until the last intent that speaks of it is settled.
    pub fn forget(self: &Arc<Self>, id: SourceId) {
        self.append(&mut self.kept.lock(), What::Forgotten(id));
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// When the last record before this life was written: what is younger, nobody has seen.
    pub fn written_before(&self) -> Option<SystemTime> {
        self.written_before
    }

    /// Whether records are written at present. Where not, it is tried again every [`RETRY_EVERY`], as long as somebody
    /// asks.
    pub fn take_records(self: &Arc<Self>) -> bool {
        let mut kept = self.kept.lock();
        if kept.file.is_none() {
            self.upkeep(&mut kept);
        }
        kept.file.is_some()
    }

    /// Why nothing can be written, if so.
    pub fn trouble(&self) -> Option<String> {
        self.kept.lock().trouble.clone()
    }

    /// Sees everything onto the disk; waits for it.
    pub fn sync(&self) -> Result<(), CheckpointsError> {
        let mut kept = self.kept.lock();
        if let Some(file) = &kept.file {
            if kept.unsynced {
                file.sync_data().map_err(io_error("sync", &self.path))?;
                kept.unsynced = false;
            }
            return Ok(());
        }
        drop(kept);
        self.compact_now()
    }

    fn append(self: &Arc<Self>, kept: &mut Kept, what: What) {
        let mut buffer = std::mem::take(&mut kept.buffer);
        buffer.clear();
        record::write(what.clone(), &mut buffer);
        kept.state.apply(what);
        if let Some(meanwhile) = &mut kept.meanwhile {
            meanwhile.extend_from_slice(&buffer);
        }
        if let Some(file) = kept.file.as_mut() {
            match file.write_all(&buffer) {
                Ok(()) => {
                    kept.bytes += buffer.len() as u64;
                    kept.unsynced = true;
                }
                Err(reason) => {
                    // What stands behind half a record is found again by its mark, but this record is missing.
                    kept.file = None;
                    kept.tried_at = Instant::now();
                    Self::in_trouble(kept, &io_error("append to", &self.path)(reason));
                }
            }
        }
        buffer.shrink_to(64 << 10);
        kept.buffer = buffer;
        self.upkeep(kept);
    }

    /// Syncs and compacts when it is time, elsewhere: a disk that hangs holds up nobody.
    fn upkeep(self: &Arc<Self>, kept: &mut Kept) {
        if kept.meanwhile.is_some() {
            return;
        }
        let grown = kept.bytes > COMPACT_BYTES.max(2 * kept.needed_bytes);
        let again = kept.file.is_none() && kept.tried_at.elapsed() >= RETRY_EVERY;
        if again || (kept.file.is_some() && grown) {
            kept.tried_at = Instant::now();
            let snapshot = kept.state.snapshot();
            kept.meanwhile = Some(Vec::new());
            let this = self.clone();
            let work = move || {
                let _compacting = this.compacting.lock();
                // What went wrong is kept as trouble, and it is tried again.
                let _ = this.compact(&snapshot);
            };
            if std::thread::Builder::new().name("checkpoints".into()).spawn(work).is_err() {
                kept.meanwhile = None;
            }
        } else if kept.unsynced && kept.synced_at.elapsed() >= SYNC_EVERY {
            kept.synced_at = Instant::now();
            if let Some(Ok(file)) = kept.file.as_ref().map(File::try_clone) {
                let work = move || file.sync_data();
                kept.unsynced = std::thread::Builder::new().name("checkpoints".into()).spawn(work).is_err();
            }
        }
    }

    fn compact_now(&self) -> Result<(), CheckpointsError> {
        let _compacting = self.compacting.lock();
        let snapshot = {
            let mut kept = self.kept.lock();
            kept.meanwhile = Some(Vec::new());
            kept.state.snapshot()
        };
        self.compact(&snapshot)
    }

    /// Appends to the file that is there: what is in it is the state. Whether that can be done.
    fn goes_on_with_the_old(&self, bytes: u64) -> bool {
        let Ok(file) = OpenOptions::new().append(true).open(&self.path) else { return false };
        let mut kept = self.kept.lock();
        kept.file = Some(file);
        (kept.bytes, kept.needed_bytes) = (bytes, bytes);
        kept.trouble = None;
        true
    }

    /// Writes a new file with the snapshot and what came meanwhile, and puts it in the old one's place.
    fn compact(&self, snapshot: &[u8]) -> Result<(), CheckpointsError> {
        let fresh = self.path.with_extension("new");
        // A state directory that could not be made at the start may be possible by now.
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        let made = fs::create_dir_all(dir).map_err(io_error("make the directory", dir));
        let made = made.and_then(|()| File::create(&fresh).map_err(io_error("make", &fresh)));
        let written = made.and_then(|mut file| {
            file.write_all(snapshot).map_err(io_error("write", &fresh))?;
            // Beyond the end of the file: nobody sees it, and a file system that can't do it does without.
            let _ = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, snapshot.len() as u64 + RESERVE_BYTES);
            file.sync_all().map_err(io_error("write", &fresh))?;
            Ok(file)
        });
        let mut kept = self.kept.lock();
        let meanwhile = kept.meanwhile.take().unwrap_or_default();
        let placed = written.and_then(|mut file| {
            file.write_all(&meanwhile).map_err(io_error("write", &fresh))?;
            fs::rename(&fresh, &self.path).map_err(io_error("put in place", &self.path))?;
            OpenOptions::new().append(true).open(&self.path).map_err(io_error("open", &self.path))
        });
        match placed {
            Ok(file) => {
                kept.file = Some(file);
                kept.needed_bytes = snapshot.len() as u64;
                kept.bytes = (snapshot.len() + meanwhile.len()) as u64;
                kept.unsynced = !meanwhile.is_empty();
                if kept.trouble.take().is_some() {
                    tracing::info!(path = %self.path.display(), "checkpoints are written again");
                }
                drop(kept);
                // The rename itself. If a power cut undoes it, the old file says where things stood.
                if let Some(dir) = self.path.parent() {
                    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))?;
                }
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_file(&fresh);
                // An old file that still takes records goes on.
                Self::in_trouble(&mut kept, &error);
                kept.tried_at = Instant::now();
                kept.needed_bytes = kept.bytes;
                Err(error)
            }
        }
    }

    fn in_trouble(kept: &mut Kept, error: &CheckpointsError) {
        if kept.file.is_some() {
            tracing::warn!(%error, "no new file of checkpoints can be written: the old one is kept, and grows");
            return;
        }
        if kept.trouble.is_none() {
            tracing::error!(
                %error,
                "checkpoints can't be written: logs that can be read later wait until they can; make room or make \
                 the state directory writable"
            );
        }
        kept.trouble = Some(error.to_string());
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointsError + use<> {
    let path = path.to_owned();
    move |reason| CheckpointsError::Io { doing, path, reason }
}
