//! Positions: what the agent must know after a restart, in one small append-only file.
//!
//! The file is a header and records, each with a length and a CRC that covers its place. [`Positions::put`] changes
//! the state and buffers the record; [`Positions::flush`] appends what is buffered, with or without an fsync. Once
//! most of the file is history it is written anew and renamed into place. After a failed write the file is not
//! trusted: the next flush writes it anew from the state.
//!
//! On opening, a torn end is cut off and counted. A record that is damaged while intact ones follow is no torn end:
//! what lies before it is kept, the file is set aside as `positions.damaged-N`, and the report says so. Reservations
//! of sequence numbers are honoured wherever they are found, because a number that is used twice would look like a
//! batch that was delivered already.

use pegel_proto::batch::{AgentEpoch, BatchSeq, Signal};
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

mod record;
#[cfg(test)]
mod tests;

pub use record::{OutputKey, Record, Totals};

/// How many sequence numbers are reserved at a time. At a batch a second that is one fsync in 68 minutes, and a
/// start skips at most as many numbers, of 2^64.
pub const SEQ_RESERVATION: u64 = 4096;

/// The file is not written anew below this size: 256 KiB are an hour of books every second.
const COMPACT_ABOVE_BYTES: u64 = 256 << 10;

/// It is written anew once it is so many times as large as its content.
const COMPACT_RATIO: u64 = 4;

const FILE: &str = "positions";
const LOCK: &str = "positions.lock";
const HEADER: &[u8; 8] = b"pegelps\x01";
const FRAME_HEADER_BYTES: usize = 8;
/// No record is larger: a checkpoint is some hundred bytes.
const MAX_RECORD_BYTES: usize = 1 << 20;
/// The frame of a reservation: length, CRC, tag, signal, number.
const RESERVATION_BYTES: u64 = 18;

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The agent's epoch.
    pub epoch: Option<AgentEpoch>,
    /// Sequence numbers below this one may have been used.
    pub reserved: BTreeMap<Signal, BatchSeq>,
    /// Cursors: everything up to and with the batch is acknowledged.
    pub cursors: BTreeMap<OutputKey, BatchSeq>,
    /// The books.
    pub books: BTreeMap<OutputKey, Totals>,
    /// Sources' checkpoints.
    pub checkpoints: BTreeMap<String, Vec<u8>>,
    /// Whether the last record says that the agent ended in order.
    pub ended: bool,
}

impl State {
    fn apply(&mut self, record: Record) {
        self.ended = false;
        match record {
            Record::Epoch(epoch) => self.epoch = Some(epoch),
            Record::Reserved(signal, below) => self.reserve(signal, below),
            Record::Cursor(output, acknowledged) => drop(self.cursors.insert(output, acknowledged)),
            Record::Books(output, totals) => drop(self.books.insert(output, totals)),
            Record::OutputGone(output) => {
                self.cursors.remove(&output);
                self.books.remove(&output);
            }
            Record::Checkpoint(key, value) => drop(self.checkpoints.insert(key, value)),
            Record::CheckpointGone(key) => drop(self.checkpoints.remove(&key)),
            Record::Ended => self.ended = true,
        }
    }

    fn reserve(&mut self, signal: Signal, below: BatchSeq) {
        let reserved = self.reserved.entry(signal).or_insert(BatchSeq(1));
        *reserved = below.max(*reserved);
    }

    /// The records that make this state.
    fn records(&self) -> impl Iterator<Item = Record> {
        let epoch = self.epoch.map(Record::Epoch);
        let reserved = self.reserved.iter().map(|(s, below)| Record::Reserved(*s, *below));
        let cursors = self.cursors.iter().map(|(o, seq)| Record::Cursor(o.clone(), *seq));
        let books = self.books.iter().map(|(o, totals)| Record::Books(o.clone(), totals.clone()));
        let checkpoints = self.checkpoints.iter().map(|(k, v)| Record::Checkpoint(k.clone(), v.clone()));
        let ended = self.ended.then_some(Record::Ended);
        epoch.into_iter().chain(reserved).chain(cursors).chain(books).chain(checkpoints).chain(ended)
    }
}

/// What was found on opening.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// There was no file, or nothing of it could be read: the epoch is a new one.
    pub new: bool,
    /// The agent did not end in order: totals resume from the last persisted set, and what was in memory only is
    /// lost.
    pub crashed: bool,
    /// Bytes of a torn end that were cut off.
    pub torn_bytes: u64,
    /// Where the file was set aside, if a record in its middle was damaged.
    pub set_aside: Option<PathBuf>,
}

/// Why the positions can't be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum PositionsError {
    /// Another process has them.
    #[error(
        "the state directory {dir} belongs to another running agent: give this one a directory of its own"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn failed(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> PositionsError {
    let path = path.into();
    move |source| PositionsError::Io { doing, path, source }
}

/// The positions of one agent.
#[derive(Debug)]
pub struct Positions {
    state: State,
    found: Found,
    file: Option<OnDisk>,
    /// Frames that are not appended yet.
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct OnDisk {
    dir: PathBuf,
    file: File,
    /// Bytes of intact frames, header included.
    length: u64,
    /// The file can't be trusted: it is written anew at the next flush.
    rewrite: bool,
    _lock: File,
}

impl Positions {
    /// Opens or makes the positions in a directory. `draw_epoch` draws an epoch if there is none.
    ///
    /// # Errors
    /// [`PositionsError::InUse`], or the operating system's refusal: the agent then runs with
    /// [`Positions::in_memory`] and tries again.
    pub fn open(dir: &Path, draw_epoch: impl FnOnce() -> AgentEpoch) -> Result<Self, PositionsError> {
        fs::create_dir_all(dir).map_err(failed("making", dir))?;
        let lock = lock(dir)?;
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("reading", path)(error)),
        };
        let read = read(&bytes);
        let mut found = Found { torn_bytes: read.torn_bytes, ..Found::default() };
        if read.damaged {
            found.set_aside = Some(set_aside(dir, &path)?);
        }
        let mut state = read.state;
        found.new = state.epoch.is_none();
        found.crashed = !found.new && !state.ended;
        state.epoch.get_or_insert_with(draw_epoch);
        state.ended = false;
        // Written anew at every start: it costs one small file and leaves no torn end behind.
        let frames = frames_of(&state);
        let file = replace(dir, &frames).map_err(failed("writing", &path))?;
        let disk =
            OnDisk { dir: dir.to_path_buf(), file, length: frames.len() as u64, rewrite: false, _lock: lock };
        Ok(Self { state, found, file: Some(disk), buffer: Vec::new() })
    }

    /// Positions that die with the process, for a state directory that can't be written.
    pub fn in_memory(epoch: AgentEpoch) -> Self {
        let state = State { epoch: Some(epoch), ..State::default() };
        let found = Found { new: true, ..Found::default() };
        Self { state, found, file: None, buffer: Vec::new() }
    }

    /// What is known.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What was found on opening.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The agent's epoch.
    pub fn epoch(&self) -> AgentEpoch {
        self.state.epoch.expect("drawn on opening")
    }

    /// The first sequence number that was certainly never used, as of the last start.
    pub fn next_seq(&self, signal: Signal) -> BatchSeq {
        self.state.reserved.get(&signal).copied().unwrap_or(BatchSeq(1))
    }

    /// Makes sure, durably, that a number may be used. Cheap but for every [`SEQ_RESERVATION`]th number.
    ///
    /// # Errors
    /// If the reservation could not be written; the number must not be used then.
    pub fn reserve(&mut self, signal: Signal, seq: BatchSeq) -> Result<(), PositionsError> {
        if self.state.reserved.get(&signal).is_some_and(|below| seq < *below) {
            return Ok(());
        }
        let before = self.state.reserved.clone();
        self.put(Record::Reserved(signal, BatchSeq(seq.0 + SEQ_RESERVATION)));
        let flushed = self.flush(true);
        if flushed.is_err() {
            self.state.reserved = before;
        }
        flushed
    }

    /// Changes the state and buffers the record until the next flush.
    pub fn put(&mut self, record: Record) {
        if let Some(disk) = &self.file {
            put_frame(&mut self.buffer, disk.length, &record);
        }
        self.state.apply(record);
    }

    /// Appends what is buffered; with `sync` it is durable afterwards.
    ///
    /// # Errors
    /// The operating system's refusal. Nothing is forgotten: the next flush writes the whole state anew.
    pub fn flush(&mut self, sync: bool) -> Result<(), PositionsError> {
        let Some(disk) = &mut self.file else { return Ok(()) };
        let due = disk.length + self.buffer.len() as u64;
        let large = due > COMPACT_ABOVE_BYTES && due > COMPACT_RATIO * frames_of(&self.state).len() as u64;
        let path = disk.dir.join(FILE);
        if disk.rewrite || large {
            let frames = frames_of(&self.state);
            disk.rewrite = true;
            disk.file = replace(&disk.dir, &frames).map_err(failed("writing", path))?;
            disk.length = frames.len() as u64;
            disk.rewrite = false;
            self.buffer.clear();
            return Ok(());
        }
        let appended = disk.file.write_all(&self.buffer);
        let appended = appended.and_then(|()| if sync { disk.file.sync_data() } else { Ok(()) });
        disk.length = due;
        disk.rewrite = appended.is_err();
        self.buffer.clear();
        appended.map_err(failed("appending to", path))
    }

    /// Says that the agent ended in order.
    ///
    /// # Errors
    /// As of [`Positions::flush`]; the next start then takes it for a crash.
    pub fn end(mut self) -> Result<(), PositionsError> {
        self.put(Record::Ended);
        self.flush(true)
    }
}

fn lock(dir: &Path) -> Result<File, PositionsError> {
    let path = dir.join(LOCK);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed("opening", &path))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        rustix::io::Errno::WOULDBLOCK => PositionsError::InUse { dir: dir.to_path_buf() },
        error => failed("locking", path)(error.into()),
    })?;
    Ok(lock)
}

fn set_aside(dir: &Path, path: &Path) -> Result<PathBuf, PositionsError> {
    let aside = (1..=u32::MAX)
        .map(|n| dir.join(format!("{FILE}.damaged-{n}")))
        .find(|aside| !aside.exists())
        .expect("fewer than 2^32 damaged files");
    fs::rename(path, &aside).map_err(failed("setting aside", path))?;
    Ok(aside)
}

/// Writes the file anew, durably, and gives it open for appending.
fn replace(dir: &Path, bytes: &[u8]) -> io::Result<File> {
    let fresh = dir.join(format!("{FILE}.new"));
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new().create(true).append(true).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, dir.join(FILE))?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

fn frames_of(state: &State) -> Vec<u8> {
    let mut out = HEADER.to_vec();
    for record in state.records() {
        put_frame(&mut out, 0, &record);
    }
    out
}

/// Appends a record's frame; `base` is the place in the file at which `out` begins.
fn put_frame(out: &mut Vec<u8>, base: u64, record: &Record) {
    let at = out.len();
    out.extend([0; FRAME_HEADER_BYTES]);
    record.encode(out);
    let (head, body) = out[at..].split_at_mut(FRAME_HEADER_BYTES);
    head[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&checksum(base + at as u64, body).to_le_bytes());
}

fn checksum(at: u64, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&at.to_le_bytes());
    crc.update(body);
    crc.finalize()
}

#[derive(Default)]
struct Read {
    state: State,
    torn_bytes: u64,
    damaged: bool,
}

/// Reads a file's bytes: what is intact from its start, and what is to be said of the rest.
fn read(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    let mut at = 0;
    if bytes.starts_with(HEADER) {
        at = HEADER.len();
        while let Some(body) = intact_frame(bytes, at) {
            at += FRAME_HEADER_BYTES + body.len();
            if let Some(record) = Record::decode(body) {
                read.state.apply(record);
            }
        }
    }
    if at == bytes.len() {
        return read;
    }
    // Does anything intact follow what is not?
    let bad_from = at;
    let mut bad_bytes = 0;
    while at < bytes.len() {
        let Some(body) = intact_frame(bytes, at) else {
            at += 1;
            bad_bytes += 1;
            continue;
        };
        at += FRAME_HEADER_BYTES + body.len();
        read.damaged = true;
        if let Some(Record::Reserved(signal, below)) = Record::decode(body) {
            read.state.reserve(signal, below);
        }
    }
    // A file whose very beginning is wrong is not one that a crash has torn.
    read.damaged |= bad_from == 0 && bytes.len() >= HEADER.len();
    if read.damaged {
        // The damaged bytes may have held reservations.
        for below in read.state.reserved.values_mut() {
            below.0 += (bad_bytes / RESERVATION_BYTES + 1) * SEQ_RESERVATION;
        }
        read.state.ended = false;
    } else {
        read.torn_bytes = (bytes.len() - bad_from) as u64;
        read.state.ended = false;
    }
    read
}

fn intact_frame(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let (head, rest) = bytes.get(at..)?.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let length = u32::from_le_bytes(head[..4].try_into().expect("4 bytes")) as usize;
    let body = rest.get(..length).filter(|_| (1..=MAX_RECORD_BYTES).contains(&length))?;
    (checksum(at as u64, body).to_le_bytes() == head[4..]).then_some(body)
}
