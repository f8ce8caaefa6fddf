//! Log files: found by patterns, followed across rotation, each generation read once to its end.
//!
//! One thread ("logs") reads all files. It is told of changes by inotify, or looks every second where nobody tells
//! (network file systems, no watches left), and looks at everything every minute in any case.
//!
//! # Generations
//!
//! A *generation* is what one inode holds between two truncations. It is known by device, inode, the time at which the
//! inode was made, the hash of its first KiB (or of as much as there was when it was looked at: a file that grows
//! keeps its identity) and the 64 bytes before the place of reading. A generation keeps its source in the checkpoints
//! and its label `filename`, the path at which it was first seen, whatever it is called later:
//!
//! - *renamed*: it is followed under its new name in the same directory, and read on there while it is written;
//! - *removed*: it is read to its end on its descriptor. A file with unread bytes keeps one, up to 1,024;
//! - *truncated* (shorter than the place of reading, or of another beginning or other bytes before that place): a new
//!   generation begins, and what was unread of the old one is looked for in its copies;
//! - *out of sight*: its inode is looked for in the directory, then a copy, plain or compressed by gzip or zstd, whose
//!   name begins alike and whose content has the same first KiB and the same bytes before the place of reading. It is
//!   read on from there. What can't be found within ten minutes is counted, in bytes where it is known how many;
//! - *unseen*: it came and was renamed away between two looks (the agent was stopped, or did not run). When the generation
//!   at a path has moved, files beside it whose names go on as those of rotated files do (`.1`, `-20260101`, `.gz`, or
//!   `app-20260101.log`), which
//!   were written since the last look and are of another content than anything known, are read first, oldest first.
//!
//! The generation that takes a path waits until the one that had it before was read, so that lines keep their order.
//! A new file that begins as its neighbour `app.log` does and is called `app.log.1` or the like is a copy that a
//! truncation may follow: it is not read for itself ([`copies`]). One that can't be opened or read holds up those after
//! it for some seconds only ([`trouble`]).
//!
//! # What the kernel leaves
//!
//! What is open at the end of a rotated file, half of a container's line or an event of several lines, goes on in the
//! file that took its path.
//!
//! Half a line is an entry of its own where a look after the wait for more still finds nothing more; time in which the
//! thread did not get to look is no silence. What is rotated out of the directory's history before anybody looked is
//! lost. It is counted where numbers tell: the generation that was the newest when the agent ended is `.3`, and there is
//! no `.2`. Otherwise nobody knows that it was there.
//!
//! With copytruncate, what is written between the copy's last read and the truncation is lost before anybody can read
//! it, unless the agent has: it reads within some 20 ms of a write. If it has, and is killed before it has seen the
//! truncation, a copy of less than a KiB is taken for a generation that nobody saw. A file that is truncated and grows
//! beyond the place of reading with the same first KiB and the same 64 bytes before that place, all between two looks,
//! is taken for grown. A file on a file system that does not tell when inodes were made, removed and replaced by one
//! with the same number and the same beginning while the agent does not run, is taken for the old one.

mod behind;
mod carry;
mod copies;
mod departed;
mod discover;
mod events;
mod followed;
mod identity;
mod known;
mod missing;
mod packed;
mod pattern;
mod read;
mod restart;
mod settings;
mod telemetry;
mod thread;
mod trouble;
mod unseen;
mod watch;

#[cfg(test)]
mod tests;

pub use behind::Behind;
pub use pattern::{Pattern, PatternError};
pub use settings::{Settings, Start};

use super::checkpoints::Checkpoints;
use super::settings::Input;
use super::shape;
use crate::intake::LogIntake;
use parking_lot::{Condvar, Mutex};
use pegel_runtime::metrics::Registry;
use rustix::event::{EventfdFlags, eventfd};
use serde::Serialize;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long somebody who asks for the status waits for the thread; it answers between two reads.
const STATUS_WAIT: Duration = Duration::from_millis(250);

/// How files fare.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// How many generations are known.
    pub known: usize,
    /// How many are open.
    pub open: usize,
    /// How many went out of sight and are looked for.
    pub missing: usize,
    /// Delivery has no room: files wait.
    pub waiting: bool,
    /// Files that the agent may not read; at most 32 of them.
    pub unreadable: Vec<String>,
    /// What waits in files that are behind.
    pub behind: Behind,
    /// All of them, those with most that is unread first; at most a thousand.
    pub files: Vec<FileStatus>,
}

/// How one generation of a file fares.
#[derive(Debug, Clone, Serialize)]
pub struct FileStatus {
    /// The input's name.
    pub input: String,
    /// Where it was first seen.
    pub path: String,
    /// Where it is now, if that is elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now_at: Option<String>,
    /// How many bytes it has.
    pub bytes: u64,
    /// How many of them were read.
    pub offset: u64,
    /// How many wait.
    pub lag_bytes: u64,
    /// For how long the oldest of them has, since it was seen.
    pub lag_seconds: f64,
    /// `idle`, `reading`, `renamed`, `removed`, `compressed`, `copy`, `missing` or `unreadable`.
    pub state: &'static str,
}

/// A file that somebody else found: a container's.
#[derive(Debug, Clone)]
pub struct Followed {
    /// By which it is let go again.
    pub key: String,
    /// The file, by an absolute path.
    pub path: PathBuf,
    /// Labels of its streams, beside `filename` and those of the input; they win.
    pub labels: Vec<(String, String)>,
    /// What is made of its bytes, where that is not what the input says.
    pub shape: Option<shape::Settings>,
    /// All this in bytes, for the next start.
    pub note: Vec<u8>,
}

/// Makes what was told of a file out of its note and the input's shape; none if the note is of another format.
pub type Remade = fn(&[u8], &shape::Settings) -> Option<Followed>;

/// Tells the thread which files to read for an input that has no patterns of its own.
#[derive(Clone)]
pub struct Feed {
    input: usize,
    shared: Arc<Shared>,
}

impl Feed {
    /// A file is to be read, from its checkpoint or its beginning.
    pub fn follow(&self, followed: Followed) {
        self.tell(Told::Follow(self.input, Box::new(followed)));
    }

    /// A file gets no more: what is there of it is read to its end.
    pub fn gone(&self, key: &str) {
        self.tell(Told::Gone(self.input, key.to_owned()));
    }

    /// All files that there were at the start have been told of: what the checkpoints know beside them is gone.
    pub fn complete(&self) {
        self.tell(Told::Complete(self.input));
    }

    fn tell(&self, told: Told) {
        self.shared.told.lock().push(told);
        self.shared.wake();
    }
}

#[derive(Debug)]
enum Told {
    Follow(usize, Box<Followed>),
    Gone(usize, String),
    Complete(usize),
}

/// What the thread and others share.
struct Shared {
    wake: Option<OwnedFd>,
    told: Mutex<Vec<Told>>,
    /// Somebody waits for the status.
    asked: Mutex<(bool, Status)>,
    answered: Condvar,
    /// What was measured last.
    behind: Mutex<Behind>,
}

impl Shared {
    fn new() -> Arc<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Arc::new(Self {
            wake: wake.ok(),
            told: Mutex::default(),
            asked: Mutex::default(),
            answered: Condvar::new(),
            behind: Mutex::default(),
        })
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            // It only fails where it is as awake as it can be.
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
    }
}

/// What the thread works with.
pub(super) struct Parts {
    pub(super) inputs: Vec<(Input, Settings)>,
    pub(super) checkpoints: Arc<Checkpoints>,
    pub(super) intake: LogIntake,
    pub(super) configuration: u64,
    pub(super) registry: Registry,
    pub(super) shutdown: CancellationToken,
    pub(super) remade: Remade,
}

/// The thread of files.
pub(super) struct Files {
    shared: Arc<Shared>,
    ended: CancellationToken,
}

impl Files {
    pub(super) fn start(parts: Parts) -> Self {
        let shared = Shared::new();
        let ended = CancellationToken::new();
        let (of_thread, guard) = (shared.clone(), ended.clone().drop_guard());
        let (to_wake, shutdown) = (shared.clone(), parts.shutdown.clone());
        tokio::spawn(async move {
            shutdown.cancelled().await;
            to_wake.wake();
        });
        let thread = std::thread::Builder::new().name("logs".to_owned()).spawn(move || {
            let _ended = guard;
            thread::Thread::new(parts, of_thread).run();
        });
        if let Err(error) = thread {
            tracing::error!(%error, "cannot start the thread of log files: no file is read; restart the agent");
        }
        Self { shared, ended }
    }

    /// Feeds the input of that place in [`Parts::inputs`].
    pub(super) fn feed(&self, input: usize) -> Feed {
        Feed { input, shared: self.shared.clone() }
    }

    pub(super) fn status(&self) -> Status {
        let mut asked = self.shared.asked.lock();
        asked.0 = true;
        self.shared.wake();
        self.shared.answered.wait_for(&mut asked, STATUS_WAIT);
        asked.1.clone()
    }

    /// What waits in files, as it was measured last. Doesn't wait.
    pub(super) fn behind(&self) -> Behind {
        self.shared.behind.lock().clone()
    }

    pub(super) async fn stopped(&self) {
        self.ended.cancelled().await;
    }
}
