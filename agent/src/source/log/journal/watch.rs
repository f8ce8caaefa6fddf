//! Waiting for journald: inotify on its directories, and a look at the clock where that can't be had.
//!
//! journald writes through a mapping, of which inotify tells nothing, and shortens the file to its own length every
//! quarter of a second to be heard. Readers that are to see a line at once look at the headers more often than that.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often directories are listed anew where inotify does not tell.
const LIST_EVERY: Duration = Duration::from_secs(1);

/// What tells of changes.
pub struct Watch {
    directories: Vec<PathBuf>,
    inotify: Option<OwnedFd>,
    /// Directories that are watched.
    watched: usize,
    changed: bool,
    listed: Instant,
}

impl Watch {
    /// Watches directories; those that are not there yet are looked for every second.
    pub fn new(directories: &[PathBuf]) -> Self {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let mut this = Self {
            directories: directories.to_vec(),
            inotify: inotify::init(flags).ok(),
            watched: 0,
            changed: true,
            listed: Instant::now(),
        };
        this.add();
        this
    }

    /// Whether files may have come, gone or been renamed since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        self.drain();
        if self.watched < self.directories.len() && self.listed.elapsed() >= LIST_EVERY {
            self.listed = Instant::now();
            self.add();
            self.changed = true;
        }
        std::mem::take(&mut self.changed)
    }

    /// Has [`Watch::take_changed`] say yes once more.
    pub fn look_again(&mut self) {
        self.changed = true;
    }

    /// Waits until something happened, or until a time.
    pub fn wait(&mut self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let Some(fd) = &self.inotify else {
            std::thread::sleep(left);
            return;
        };
        let timeout =
            rustix::time::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        // An error would be an interruption, which is as good as an event.
        let _ = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout));
    }

    fn add(&mut self) {
        use inotify::WatchFlags as F;
        let Some(fd) = &self.inotify else { return };
        let flags =
            F::CREATE | F::MOVED_TO | F::MOVED_FROM | F::DELETE | F::MODIFY | F::DELETE_SELF | F::ONLYDIR;
        // Adding one again is the same watch.
        self.watched = self
            .directories
            .iter()
            .filter(|dir| inotify::add_watch(fd, dir.as_path(), flags).is_ok())
            .count();
    }

    fn drain(&mut self) {
        let Some(fd) = &self.inotify else { return };
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(fd, &mut buffer);
        let mut gone = false;
        while let Ok(event) = reader.next() {
            let flags = event.events();
            // All but a file's new length changes which files there are; an overflow may hide anything.
            self.changed |= flags != inotify::ReadFlags::MODIFY;
            gone |= flags.intersects(inotify::ReadFlags::DELETE_SELF | inotify::ReadFlags::IGNORED);
        }
        if gone {
            self.watched = 0;
        }
    }
}
