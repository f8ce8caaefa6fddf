//! The fall-back: `journalctl --output=export --follow` (systemd's JOURNAL_EXPORT_FORMATS) does the reading.
//!
//! A field is a line `NAME=value`, or where the value is no text a line `NAME`, its length in eight bytes, its bytes and
//! a line feed; an empty line ends the entry. The parser keeps one field at a time, cut at a limit.

use super::entry::Entry;
use super::{Cursor, Journal, JournalError, Start, Trouble};
use rustix::event::{PollFd, PollFlags, poll};
use std::cmp::Ordering;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest value that is kept; what is longer is cut.
const MAX_VALUE_BYTES: usize = 1 << 20;
/// The longest name of a field.
const MAX_NAME_BYTES: usize = 64;
/// The most fields of an entry that are kept.
const MAX_FIELDS: u32 = 4_096;
/// How much is read at a time: what a pipe holds.
const READ_BYTES: usize = 64 << 10;
/// How long after its end `journalctl` is begun anew.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Where in an entry the parser is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    /// At the beginning of a line.
    #[default]
    Line,
    /// In a text that is longer than is kept.
    LongText,
    /// Before a value's length.
    Length,
    /// In a value with so many bytes to come.
    Bytes(u64),
    /// Behind a value, before its line feed.
    LineFeed,
}

/// Reads the export format from pieces of any size.
#[derive(Debug, Default)]
pub struct Parser {
    buffer: Vec<u8>,
    from: usize,
    at: At,
    name: Vec<u8>,
    value: Vec<u8>,
    fields: u32,
    begun: bool,
    cut: bool,
}

impl Parser {
    /// Takes more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.from > 0 {
            self.buffer.drain(..self.from);
            self.from = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Fills the entry as far as the bytes go; true when it is complete. The same entry is to be given until then.
    pub fn next(&mut self, entry: &mut Entry) -> bool {
        if !std::mem::replace(&mut self.begun, true) {
            entry.clear();
            self.fields = 0;
        }
        loop {
            let rest = &self.buffer[self.from..];
            match self.at {
                At::Line => {
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        if rest.len() > MAX_NAME_BYTES + 1 + MAX_VALUE_BYTES {
                            let kept = rest[..MAX_NAME_BYTES + 1 + MAX_VALUE_BYTES].to_vec();
                            self.from = self.buffer.len();
                            entry.oversized += 1;
                            self.text(&kept, entry);
                            self.at = At::LongText;
                        }
                        return false;
                    };
                    let line = rest[..end].to_vec();
                    self.from += end + 1;
                    if line.is_empty() {
                        if self.fields == 0 {
                            continue;
                        }
                        self.begun = false;
                        return true;
                    }
                    self.text(&line, entry);
                }
                At::LongText => match memchr::memchr(b'\n', rest) {
                    Some(end) => {
                        self.from += end + 1;
                        self.at = At::Line;
                    }
                    None => {
                        self.from = self.buffer.len();
                        return false;
                    }
                },
                At::Length => {
                    let Some(length) = rest.first_chunk::<8>() else { return false };
                    self.at = At::Bytes(u64::from_le_bytes(*length));
                    self.from += 8;
                    self.value.clear();
                    self.cut = false;
                }
                At::Bytes(left) => {
                    let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let kept = taken.min(MAX_VALUE_BYTES - self.value.len());
                    self.value.extend_from_slice(&rest[..kept]);
                    self.cut |= kept < taken;
                    self.from += taken;
                    let left = left - taken as u64;
                    self.at = if left == 0 { At::LineFeed } else { At::Bytes(left) };
                    if left > 0 {
                        return false;
                    }
                }
                At::LineFeed => {
                    let Some(byte) = rest.first() else { return false };
                    // Anything else would be the next field's: the stream is out of step, and says so below.
                    self.from += usize::from(*byte == b'\n');
                    entry.oversized += u32::from(self.cut);
                    let (name, value) = (std::mem::take(&mut self.name), std::mem::take(&mut self.value));
                    self.field(&name, &value, entry);
                    (self.name, self.value) = (name, value);
                    self.at = At::Line;
                }
            }
        }
    }

    /// A line: a field, or the name of one whose value follows.
    fn text(&mut self, line: &[u8], entry: &mut Entry) {
        match memchr::memchr(b'=', line) {
            Some(name) => self.field(&line[..name], &line[name + 1..], entry),
            None if is_name(line) => {
                self.name = line.to_vec();
                self.at = At::Length;
            }
            None => entry.damaged += 1,
        }
    }

    fn field(&mut self, name: &[u8], value: &[u8], entry: &mut Entry) {
        if !is_name(name) {
            entry.damaged += 1;
            return;
        }
        self.fields += 1;
        let text = || std::str::from_utf8(value).ok();
        match name {
            b"__CURSOR" => match text().and_then(|text| text.parse().ok()) {
                Some(cursor) => entry.cursor = cursor,
                None => entry.damaged += 1,
            },
            // What is not a field but the entry's address.
            _ if name.starts_with(b"__") => {}
            _ if self.fields > MAX_FIELDS => entry.oversized += 1,
            _ => entry.push(name, value),
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_')
}

/// `journalctl` as a reader.
pub struct Journalctl {
    program: PathBuf,
    directory: Option<PathBuf>,
    start: Start,
    running: Option<Child>,
    parser: Parser,
    entry: Entry,
    ended: Option<Instant>,
    /// The entry that it was begun at and that was given before.
    given: Option<Cursor>,
    trouble: Trouble,
}

impl Journalctl {
    /// With a program, and a directory unless it is to read the machine's own journal.
    pub fn new(program: PathBuf, directory: Option<PathBuf>, start: Start) -> Result<Self, JournalError> {
        let start = match start {
            // A later restart begins behind the same entry.
            Start::End => newest(&program, directory.as_deref())?.map_or(Start::End, Start::After),
            start => start,
        };
        Ok(Self {
            program,
            directory,
            start,
            running: None,
            parser: Parser::default(),
            entry: Entry::default(),
            ended: None,
            given: None,
            trouble: Trouble::default(),
        })
    }

    fn run(&mut self) -> Result<(), JournalError> {
        if self.running.is_some() || self.ended.is_some_and(|ended| ended.elapsed() < AGAIN_AFTER) {
            return Ok(());
        }
        let mut command = command(&self.program, self.directory.as_deref(), &self.start);
        let failed = |error: std::io::Error| JournalError::Journalctl(error.to_string());
        let mut child = command.spawn().map_err(failed)?;
        if let Some(out) = &child.stdout {
            let flags = rustix::fs::fcntl_getfl(out)
                .and_then(|flags| rustix::fs::fcntl_setfl(out, flags | rustix::fs::OFlags::NONBLOCK));
            if let Err(error) = flags {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(error.into()));
            }
        }
        self.parser = Parser::default();
        self.given = match self.start {
            Start::After(cursor) => Some(cursor),
            _ => None,
        };
        self.running = Some(child);
        Ok(())
    }

    fn end(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.ended = Some(Instant::now());
    }
}

impl Journal for Journalctl {
    fn next(&mut self, entry: &mut Entry) -> Result<bool, JournalError> {
        self.run()?;
        let mut read = vec![0; READ_BYTES];
        loop {
            if self.parser.next(&mut self.entry) {
                if self.given.take().is_some_and(|given| given.order(&self.entry.cursor) == Ordering::Equal) {
                    continue;
                }
                std::mem::swap(entry, &mut self.entry);
                self.trouble.oversized_fields += u64::from(entry.oversized);
                self.trouble.damaged_fields += u64::from(entry.damaged);
                self.start = Start::After(entry.cursor);
                return Ok(true);
            }
            let Some(out) = self.running.as_mut().and_then(|child| child.stdout.as_mut()) else {
                return Ok(false);
            };
            match out.read(&mut read) {
                Ok(0) => {
                    tracing::warn!("journalctl ended; it is begun anew behind the last entry");
                    self.end();
                    return Ok(false);
                }
                Ok(length) => self.parser.push(&read[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.end();
                    return Err(JournalError::Journalctl(error.to_string()));
                }
            }
        }
    }

    fn place(&self) -> Option<Cursor> {
        match self.start {
            Start::After(cursor) => Some(cursor),
            _ => None,
        }
    }

    fn wait(&mut self, at_most: Duration) {
        let Some(out) = self.running.as_ref().and_then(|child| child.stdout.as_ref()) else {
            std::thread::sleep(at_most);
            return;
        };
        let timeout = rustix::time::Timespec {
            tv_sec: at_most.as_secs() as i64,
            tv_nsec: i64::from(at_most.subsec_nanos()),
        };
        let _ = poll(&mut [PollFd::from_borrowed_fd(out.as_fd(), PollFlags::IN)], Some(&timeout));
    }

    fn trouble(&mut self) -> Trouble {
        std::mem::take(&mut self.trouble)
    }
}

impl Drop for Journalctl {
    fn drop(&mut self) {
        self.end();
    }
}

/// The newest entry.
fn newest(program: &Path, directory: Option<&Path>) -> Result<Option<Cursor>, JournalError> {
    let mut command = Command::new(program);
    command.args(["--output=export", "--lines=1", "--quiet", "--no-pager"]);
    if let Some(directory) = directory {
        command.arg("--directory").arg(directory);
    }
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| JournalError::Journalctl(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(JournalError::Journalctl(format!("{}: {}", output.status, said.trim())));
    }
    let mut parser = Parser::default();
    parser.push(&output.stdout);
    let mut entry = Entry::default();
    Ok(parser.next(&mut entry).then_some(entry.cursor))
}

fn command(program: &Path, directory: Option<&Path>, start: &Start) -> Command {
    let mut command = Command::new(program);
    command.args(["--output=export", "--follow", "--no-tail", "--quiet", "--no-pager", "--all"]);
    if let Some(directory) = directory {
        command.arg("--directory").arg(directory);
    }
    match start {
        Start::Beginning => {}
        Start::Boot(boot) => {
            command.arg(format!("--boot={boot}"));
        }
        Start::End => {
            command.args(["--since", "now"]);
        }
        Start::After(cursor) => {
            // With --after-cursor it would pass over the next one where that entry was deleted.
            command.arg(format!("--cursor={cursor}"));
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}
