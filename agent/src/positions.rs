//! What delivery must know after a restart: the agent's epoch, the reservation of batch numbers, and for each output
//! its cursor and books.
//!
//! One small append-only file. Each record is a line, `CRC32 JSON`, that holds the whole state, so the last intact
//! line is the state and a torn tail costs nothing but itself. When the file has grown to [`COMPACT_BYTES`] a new one
//! with one line takes its place by rename. Records reach the kernel as they are written, so a killed agent forgets
//! nothing; they are fsynced with a compaction, at the end and after [`SYNC_EVERY`], so a power cut goes back by some
//! seconds.

use crate::pipeline::books::{Books, DropReason};
use crate::pipeline::effect::Memory;
use pegel_proto::batch::{AgentEpoch, BatchSeq, RejectReason};
use pegel_proto::identity::OutputName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file's name in the state directory.
pub const FILE_NAME: &str = "positions";
/// At some 400 bytes a record, one a batch and one a second: compacted every twenty minutes where the host is read
/// each second.
const COMPACT_BYTES: u64 = 1 << 20;
/// A power cut goes back by at most half a minute.
const SYNC_EVERY: Duration = Duration::from_secs(30);
/// Given back to a full disk for the record that says what the full disk has cost. Several of the largest blocks that
/// file systems use.
const RESERVE_BYTES: usize = 64 << 10;
const FORMAT: u32 = 1;

/// Why positions can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PositionsError {
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
    /// A newer agent wrote the file.
    #[error("{} is of format {found}, and this agent knows up to {FORMAT}: run the newer version again, or move the state directory away", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    epoch: u64,
    next_seq: u64,
    cursors: BTreeMap<String, CursorRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unassigned: Option<BooksRecord>,
}

#[derive(Serialize, Deserialize)]
struct CursorRecord {
    acked: u64,
    sent: u64,
    books: BooksRecord,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct BooksRecord {
    collected: u64,
    delivered: u64,
    held_already: u64,
    in_front: u64,
    spooled: u64,
    dropped: BTreeMap<String, u64>,
    rejected: BTreeMap<String, u64>,
    lost_in_crash: u64,
}

impl From<&Books> for BooksRecord {
    fn from(books: &Books) -> Self {
        Self {
            collected: books.collected,
            delivered: books.delivered,
            held_already: books.held_already,
            in_front: books.in_front,
            spooled: books.spooled,
            dropped: books.dropped.iter().map(|(r, n)| (r.name().to_owned(), *n)).collect(),
            rejected: books.rejected.iter().map(|(r, n)| (r.name().to_owned(), *n)).collect(),
            lost_in_crash: books.lost_in_crash,
        }
    }
}

impl From<&BooksRecord> for Books {
    fn from(record: &BooksRecord) -> Self {
        let mut books = Self {
            collected: record.collected,
            delivered: record.delivered,
            held_already: record.held_already,
            in_front: record.in_front,
            spooled: record.spooled,
            lost_in_crash: record.lost_in_crash,
            ..Self::default()
        };
        for (name, n) in &record.dropped {
            // A reason of another version keeps the balance under the nearest of ours.
            *books.dropped.entry(DropReason::from_name(name).unwrap_or(DropReason::Damaged)).or_default() +=
                n;
        }
        for (name, n) in &record.rejected {
            let reason = RejectReason::ALL.into_iter().find(|r| r.name() == name);
            *books.rejected.entry(reason.unwrap_or(RejectReason::Other)).or_default() += n;
        }
        books
    }
}

/// The positions file.
#[derive(Debug)]
pub struct Positions {
    path: PathBuf,
    epoch: AgentEpoch,
    file: Option<File>,
    bytes: u64,
    synced_at: Instant,
    /// The directory could not be made: what an earlier life left is not known.
    unseen: bool,
}

/// What was found on opening.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub positions: Positions,
    /// The state; that of a new agent if there was none.
    pub memory: Memory,
    /// What a person should know: a damaged file that was set aside.
    pub warning: Option<String>,
    /// Why nothing can be written for now (a full or read-only disk); writing is tried again with each record.
    pub unwritable: Option<PositionsError>,
}

impl Positions {
    /// Opens or makes the positions of a state directory. `new_epoch` names a new life.
    pub fn open(state_dir: &Path, new_epoch: AgentEpoch) -> Result<Opened, PositionsError> {
        let path = state_dir.join(FILE_NAME);
        let made = fs::create_dir_all(state_dir).map_err(io_error("make the state directory", state_dir));
        let found = match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                None
            }
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let mut warning = None;
        let mut record = None;
        if let Some(bytes) = &found {
            record = last_record(bytes);
            match &record {
                Some(record) if record.format > FORMAT => {
                    return Err(PositionsError::Newer { path, found: record.format });
                }
                None if !bytes.is_empty() => {
                    let aside = path.with_extension("damaged");
                    fs::rename(&path, &aside).map_err(io_error("set aside the damaged", &path))?;
                    warning = Some(format!(
                        "no record of {} is intact; it was set aside as {}, and the agent starts a new epoch",
                        path.display(),
                        aside.display()
                    ));
                }
                _ => {}
            }
        }
        let epoch = record.as_ref().map_or(new_epoch, |r| AgentEpoch(r.epoch));
        let memory = record.as_ref().map(memory_of).unwrap_or_default();
        let unseen = made.is_err();
        let mut positions = Self { path, epoch, file: None, bytes: 0, synced_at: Instant::now(), unseen };
        // What is known is worth more than a place to write it to.
        let unwritable = made.and_then(|()| positions.compact(&memory)).err();
        Ok(Opened { positions, memory, warning, unwritable })
    }

    /// The agent's epoch.
    pub fn epoch(&self) -> AgentEpoch {
        self.epoch
    }

    /// Appends the state. After a failure the next call writes a new file.
    pub fn remember(&mut self, memory: &Memory) -> Result<(), PositionsError> {
        self.append(memory, false)?;
        if self.synced_at.elapsed() >= SYNC_EVERY {
            self.synced_at = Instant::now();
            // Elsewhere: a disk that hangs in a sync holds up nobody who waits for this call.
            if let Some(Ok(file)) = self.file.as_ref().map(File::try_clone) {
                std::thread::spawn(move || file.sync_data());
            }
        }
        Ok(())
    }

    fn append(&mut self, memory: &Memory, sync: bool) -> Result<(), PositionsError> {
        let Some(file) = self.file.as_mut().filter(|_| self.bytes < COMPACT_BYTES) else {
            return self.compact(memory);
        };
        let line = line_of(self.epoch, memory);
        let result = file.write_all(&line).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
        if let Err(error) = result {
            self.file = None;
            return Err(io_error("append to", &self.path)(error));
        }
        self.bytes += line.len() as u64;
        if sync {
            self.synced_at = Instant::now();
        }
        Ok(())
    }

    /// Appends the state and sees it onto the disk.
    pub fn remember_durably(&mut self, memory: &Memory) -> Result<(), PositionsError> {
        self.append(memory, true)
    }

    /// Writes a new file with one record and puts it in the old one's place; on a full disk with the reserve's help.
    fn compact(&mut self, memory: &Memory) -> Result<(), PositionsError> {
        let reserve = self.path.with_extension("reserve");
        let mut result = self.write_anew(memory);
        if matches!(&result, Err(PositionsError::Io { reason, .. }) if reason.kind() == io::ErrorKind::StorageFull)
            && fs::remove_file(&reserve).is_ok()
        {
            result = self.write_anew(memory);
        }
        if result.is_ok() && !reserve.exists() && fs::write(&reserve, vec![1; RESERVE_BYTES]).is_err() {
            // A part of it would only take what is left. Until there is room the file must not grow either: each
            // record takes the place of the one before.
            let _ = fs::remove_file(&reserve);
            self.bytes = COMPACT_BYTES;
        }
        result
    }

    fn write_anew(&mut self, memory: &Memory) -> Result<(), PositionsError> {
        self.file = None;
        if self.unseen {
            self.make_directory()?;
        }
        let fresh = self.path.with_extension("new");
        let line = line_of(self.epoch, memory);
        let mut file = File::create(&fresh).map_err(io_error("make", &fresh))?;
        file.write_all(&line).and_then(|()| file.sync_all()).map_err(io_error("write", &fresh))?;
        fs::rename(&fresh, &self.path).map_err(io_error("put in place", &self.path))?;
        if let Some(dir) = self.path.parent() {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))?;
        }
        self.file =
            Some(OpenOptions::new().append(true).open(&self.path).map_err(io_error("open", &self.path))?);
        self.bytes = line.len() as u64;
        self.synced_at = Instant::now();
        Ok(())
    }

    /// Makes the directory that could not be made at the start. What turns up in it is not overwritten.
    fn make_directory(&mut self) -> Result<(), PositionsError> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir).map_err(io_error("make the state directory", dir))?;
        }
        if self.path.exists() {
            let reason =
                "an earlier agent's are there, which could not be seen at the start; restart the agent";
            return Err(io_error("replace", &self.path)(io::Error::other(reason)));
        }
        self.unseen = false;
        Ok(())
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PositionsError + use<> {
    let path = path.to_owned();
    move |reason| PositionsError::Io { doing, path, reason }
}

fn line_of(epoch: AgentEpoch, memory: &Memory) -> Vec<u8> {
    let cursors = memory.cursors.iter().map(|(output, (acked, sent, books))| {
        (output.to_string(), CursorRecord { acked: acked.0, sent: sent.0, books: books.into() })
    });
    let record = Record {
        format: FORMAT,
        epoch: epoch.0,
        next_seq: memory.next_seq,
        cursors: cursors.collect(),
        unassigned: memory.unassigned.as_ref().map(BooksRecord::from),
    };
    let json = serde_json::to_string(&record).expect("plain maps and numbers");
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
}

/// The last line whose checksum is right.
fn last_record(bytes: &[u8]) -> Option<Record> {
    bytes.split_inclusive(|b| *b == b'\n').rev().find_map(|line| {
        let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
        let (crc, json) = line.split_once(' ')?;
        (u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(json.as_bytes())).then_some(())?;
        serde_json::from_str(json).ok()
    })
}

fn memory_of(record: &Record) -> Memory {
    let cursors = record.cursors.iter().filter_map(|(name, cursor)| {
        let output = OutputName::parse(name).ok()?;
        Some((output, (BatchSeq(cursor.acked), BatchSeq(cursor.sent), Books::from(&cursor.books))))
    });
    Memory {
        next_seq: record.next_seq,
        cursors: cursors.collect(),
        unassigned: record.unassigned.as_ref().map(Books::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(n: u64) -> Memory {
        let books = Books {
            collected: n,
            dropped: [(DropReason::QuotaOldest, 3)].into(),
            rejected: [(RejectReason::TooOld, n)].into(),
            ..Books::default()
        };
        let output = OutputName::parse("prom").unwrap();
        Memory {
            next_seq: n,
            cursors: [(output, (BatchSeq(n), BatchSeq(n + 1), books))].into(),
            unassigned: None,
        }
    }

    #[test]
    fn the_last_intact_record_is_the_state_wherever_the_file_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let opened = Positions::open(dir.path(), AgentEpoch(7)).unwrap();
        let mut positions = opened.positions;
        for n in 1..=3 {
            positions.remember(&memory(n)).unwrap();
        }
        let path = dir.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        let ends: Vec<usize> = (0..whole.len()).filter(|i| whole[*i] == b'\n').map(|i| i + 1).collect();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let opened = Positions::open(dir.path(), AgentEpoch(9)).unwrap();
            let intact = ends.iter().filter(|end| **end <= cut).count();
            let expected = if intact <= 1 { Memory::default() } else { memory(intact as u64 - 1) };
            assert_eq!(opened.memory, expected, "cut at {cut}");
            let epoch = if intact == 0 { AgentEpoch(9) } else { AgentEpoch(7) };
            assert_eq!(opened.positions.epoch(), epoch, "cut at {cut}");
            assert_eq!(opened.warning.is_some(), intact == 0 && cut > 0, "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_byte_costs_its_record_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut positions = Positions::open(dir.path(), AgentEpoch(7)).unwrap().positions;
        positions.remember(&memory(1)).unwrap();
        positions.remember(&memory(2)).unwrap();
        let path = dir.path().join(FILE_NAME);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 10;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(Positions::open(dir.path(), AgentEpoch(9)).unwrap().memory, memory(1));
    }

    #[test]
    fn the_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let mut positions = Positions::open(dir.path(), AgentEpoch(7)).unwrap().positions;
        for n in 1..=6_000 {
            positions.remember(&memory(n)).unwrap();
        }
        assert!(fs::metadata(dir.path().join(FILE_NAME)).unwrap().len() < COMPACT_BYTES + 1_000);
        assert_eq!(Positions::open(dir.path(), AgentEpoch(9)).unwrap().memory, memory(6_000));
    }

    #[test]
    fn what_is_known_outlives_a_place_that_takes_no_writes() {
        let dir = tempfile::tempdir().unwrap();
        Positions::open(dir.path(), AgentEpoch(7)).unwrap().positions.remember(&memory(3)).unwrap();
        // Root writes where it may not: a directory in the way of the new file fails for everybody.
        let in_the_way = dir.path().join(FILE_NAME).with_extension("new");
        fs::create_dir(&in_the_way).unwrap();
        let mut opened = Positions::open(dir.path(), AgentEpoch(9)).unwrap();
        assert_eq!((opened.positions.epoch(), &opened.memory), (AgentEpoch(7), &memory(3)));
        assert!(opened.unwritable.is_some() && opened.positions.remember(&memory(4)).is_err());
        fs::remove_dir(&in_the_way).unwrap();
        opened.positions.remember(&memory(5)).unwrap();
        assert_eq!(Positions::open(dir.path(), AgentEpoch(9)).unwrap().memory, memory(5));
    }

    #[test]
    fn a_directory_that_can_be_made_later_is_used_unless_an_earlier_life_is_in_it() {
        for earlier in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let in_the_way = dir.path().join("mount");
            fs::write(&in_the_way, "").unwrap();
            let state = in_the_way.join("state");
            let mut opened = Positions::open(&state, AgentEpoch(9)).unwrap();
            assert!(opened.unwritable.is_some() && opened.positions.remember(&memory(1)).is_err());
            fs::remove_file(&in_the_way).unwrap();
            if earlier {
                Positions::open(&state, AgentEpoch(7)).unwrap().positions.remember(&memory(3)).unwrap();
            }
            let written = opened.positions.remember(&memory(2));
            assert_eq!(written.is_err(), earlier, "{written:?}");
            let found = Positions::open(&state, AgentEpoch(5)).unwrap();
            let expected = if earlier { (AgentEpoch(7), memory(3)) } else { (AgentEpoch(9), memory(2)) };
            assert_eq!((found.positions.epoch(), found.memory), expected);
        }
    }

    #[test]
    fn a_newer_format_is_refused_with_words() {
        let dir = tempfile::tempdir().unwrap();
        let json = r#"{"format":2,"epoch":1,"next_seq":1,"cursors":{}}"#;
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        fs::write(dir.path().join(FILE_NAME), line).unwrap();
        let error = Positions::open(dir.path(), AgentEpoch(9)).unwrap_err().to_string();
        assert!(error.contains("format 2") && error.contains("newer version"), "{error}");
    }
}
