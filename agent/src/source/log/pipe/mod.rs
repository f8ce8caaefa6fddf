//! Lines from a pipe: the agent's standard input, or a named pipe.
//!
//! A thread reads, shapes and cuts. While delivery has no room it does not read, and the writer waits once the pipe is
//! full. What was read is in memory until delivery has stored it: a killed agent loses it, and the next start counts it,
//! with what was read and was in no block yet ([`Tally`]).

use super::cutter::{BLOCK_LINGER, BLOCK_TEXT_BYTES, Cutter};
use super::origin::Range;
use super::pushed::{Ended, hand_over};
use super::shape::{Chunk, End, Shaper};
use super::tally::Tally;
use parking_lot::Mutex;
use pegel_runtime::metrics::{Counter, Registry};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod tests;

/// How much is read at a time: what a pipe holds.
const READ_BYTES: usize = 64 << 10;
/// The most bytes without the end of an entry that are kept: what a shaper is handed at once.
const MAX_BUFFER_BYTES: usize = 1 << 20;
/// How often a thread that waits for bytes looks whether the agent ends.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A pipe that can't be had is asked for again this often.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Which pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settings {
    /// The agent's standard input; it ends once.
    Stdin,
    /// A named pipe, which is made if it is not there. Writers may come and go.
    Fifo {
        /// Where it is.
        path: PathBuf,
        /// Who may write to it, if it is made.
        mode: u32,
    },
}

/// How a pipe fares.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// The input's name.
    pub input: String,
    /// Bytes that were read.
    pub bytes: u64,
    /// Whether it has ended.
    pub ended: bool,
    /// Why it is not read, if so.
    pub trouble: Option<String>,
}

/// What the thread works with.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) settings: Settings,
    pub(super) labels: Vec<(String, String)>,
    /// How long half a line waits for its rest.
    pub(super) flush_after: Duration,
    pub(super) shaper: Shaper,
    pub(super) cutter: Cutter,
    pub(super) registry: Registry,
    pub(super) shutdown: CancellationToken,
    pub(super) status: Arc<Mutex<Status>>,
}

struct Pipe {
    parts: Parts,
    bytes: Counter,
    buffer: Vec<u8>,
    /// The offset of the buffer's first byte since the start.
    offset: u64,
    floor_ns: i64,
    entries: u32,
    tally: Tally,
    /// Lines of which something was made since the last block.
    lines: u64,
    cut_at: Option<Instant>,
    /// When the last byte came.
    heard: Instant,
}

pub(super) fn run(parts: Parts) {
    parts.status.lock().input.clone_from(&parts.name);
    let help = "Bytes that were read from pipes.";
    let bytes = parts.registry.counter("pegel_log_pipe_bytes_total", help, &[("input", &parts.name)]);
    let (tally, lost) = Tally::open(parts.cutter.checkpoints().dir(), &parts.name);
    if lost > 0 {
        tracing::warn!(
            input = parts.name,
            lines = lost,
            "lines of a pipe were read before a kill and not stored: lost"
        );
        parts.cutter.intake().lost_in_crash(lost);
    }
    let mut pipe = Pipe {
        bytes,
        buffer: Vec::new(),
        offset: 0,
        floor_ns: 0,
        entries: 0,
        tally,
        lines: 0,
        cut_at: None,
        heard: Instant::now(),
        parts,
    };
    while !pipe.parts.shutdown.is_cancelled() {
        let opened = match &pipe.parts.settings {
            Settings::Stdin => io::stdin().as_fd().try_clone_to_owned().map(File::from),
            Settings::Fifo { path, mode } => open(path, *mode),
        };
        let ended = opened.and_then(|file| {
            pipe.parts.status.lock().trouble = None;
            pipe.read(&file)
        });
        match ended {
            Ok(()) => break,
            Err(error) => pipe.trouble(&error),
        }
        let again = Instant::now() + AGAIN_AFTER;
        while Instant::now() < again && !pipe.parts.shutdown.is_cancelled() {
            std::thread::sleep(LOOK_EVERY);
        }
    }
    let _ = pipe.shape(End::Flush).and_then(|()| pipe.cut());
    pipe.parts.status.lock().ended = true;
}

/// Opens a named pipe, for writing as well: so it does not end when its last writer goes.
fn open(path: &Path, mode: u32) -> io::Result<File> {
    match rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(mode), 0)
    {
        // What the umask took away was asked for.
        Ok(()) => rustix::fs::chmod(path, Mode::from_raw_mode(mode))?,
        Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let file =
        File::from(rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?);
    if !file.metadata()?.file_type().is_fifo() {
        let reason = format!("{} is there and is no pipe: move it away or name another path", path.display());
        return Err(io::Error::other(reason));
    }
    Ok(file)
}

impl Pipe {
    /// Reads to the end of the pipe or of the agent.
    fn read(&mut self, mut file: &File) -> io::Result<()> {
        let mut read = vec![0; READ_BYTES];
        loop {
            if self.parts.shutdown.is_cancelled() {
                return Ok(());
            }
            let now = Instant::now();
            if self.cut_at.is_some_and(|at| now >= at) && self.cut().is_err() {
                return Ok(());
            }
            let silent = self.heard.elapsed() >= self.parts.flush_after;
            if silent && !self.buffer.is_empty() && self.shape(End::Flush).is_err() {
                return Ok(());
            }
            let until =
                self.cut_at.map_or(LOOK_EVERY, |at| at.saturating_duration_since(now).min(LOOK_EVERY));
            let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: i64::from(until.subsec_nanos()) };
            match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            let length = match file.read(&mut read) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.heard = Instant::now();
            self.bytes.add(length as u64);
            self.parts.status.lock().bytes += length as u64;
            self.tally.take(lines_in(&read[..length]));
            self.buffer.extend_from_slice(&read[..length]);
            let end = if self.buffer.len() >= MAX_BUFFER_BYTES { End::Flush } else { End::More };
            if self.shape(end).is_err() {
                return Ok(());
            }
        }
    }

    /// Makes entries of what is there.
    fn shape(&mut self, end: End) -> Result<(), Ended> {
        let mut consumed = 0;
        while consumed < self.buffer.len() {
            let base_ns = self.parts.cutter.begin();
            let chunk = Chunk {
                bytes: &self.buffer[consumed..],
                offset: self.offset,
                base_ns,
                floor_ns: self.floor_ns,
                end,
                again: false,
            };
            let builder = self.parts.cutter.builder();
            let shaped = self.parts.shaper.shape(&self.parts.labels, chunk, BLOCK_TEXT_BYTES, builder);
            self.lines += lines_in(&self.buffer[consumed..consumed + shaped.consumed]);
            consumed += shaped.consumed;
            self.offset += shaped.consumed as u64;
            self.floor_ns = shaped.last_ns;
            self.entries += shaped.entries;
            if self.entries == 0 {
                // Left out.
                self.tally.made(std::mem::take(&mut self.lines));
            } else {
                self.cut_at.get_or_insert_with(|| Instant::now() + BLOCK_LINGER);
            }
            if shaped.full {
                self.cut()?;
            } else {
                break;
            }
        }
        self.buffer.drain(..consumed);
        Ok(())
    }

    fn cut(&mut self) -> Result<(), Ended> {
        self.cut_at = None;
        let entries = std::mem::take(&mut self.entries);
        if entries > 0 {
            self.parts.cutter.cover(Range { entries, last_ns: self.floor_ns, ..Range::default() });
        }
        let logs = self.parts.cutter.finish();
        self.tally.made(std::mem::take(&mut self.lines));
        match logs {
            Some(logs) => hand_over(self.parts.cutter.intake(), logs, None, &self.parts.shutdown),
            None => Ok(()),
        }
    }

    fn trouble(&mut self, error: &io::Error) {
        let mut status = self.parts.status.lock();
        if status.trouble.as_deref() != Some(&error.to_string()) {
            tracing::warn!(input = self.parts.name, %error, "the pipe is not read; it is tried again every 5 s");
            status.trouble = Some(error.to_string());
        }
    }
}

fn lines_in(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
