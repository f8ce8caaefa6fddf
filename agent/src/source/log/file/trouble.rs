//! Generations that can't be opened or read: whose rights forbid it, whose disk fails, whose compressed form is broken.
//!
//! They are tried again, ever more rarely, and hold up nobody for longer than [`HOLD_BACK`]. One whose path the input
//! asks for waits for as long as it is there: nothing of it is lost, and it is read when that is possible. One that was
//! rotated away to where it would not be found again is given up after [`LOOK_FOR`] and counted as lost.

use super::followed::MAX_NAMED;
use super::identity::Stat;
use super::known::FileId;
use super::missing::{LOOK_EVERY, LOOK_FOR};
use super::packed::is_packed;
use super::thread::Thread;
use crate::source::log::checkpoints::SourceKind;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// The next generation waits so long for one that has unread bytes.
pub(super) const HOLD_BACK: Duration = Duration::from_secs(5);

/// A generation can't be opened or read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trouble {
    pub(super) since: Instant,
    /// When it is tried again.
    next: Instant,
}

impl Trouble {
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    #[cfg(test)]
    pub(super) fn grow_older(&mut self, by: Duration) {
        self.since -= by;
        self.next = Instant::now();
    }

    /// Whether those that come after have waited long enough.
    pub(super) fn is_old(&self) -> bool {
        self.since.elapsed() >= HOLD_BACK
    }
}

impl Thread {
    /// Opens a file to read it.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "tests name files that may not be read"))]
    pub(super) fn open_file(&self, path: &Path) -> io::Result<File> {
        let file = File::open(path)?;
        #[cfg(test)]
        if self.refused.contains(&std::os::unix::fs::MetadataExt::ino(&file.metadata()?)) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(file)
    }

    /// A generation could not be opened or read: it is tried again later, or given up.
    pub(super) fn in_trouble(&mut self, id: FileId, error: &io::Error) {
        let Some(generation) = self.known.generation_mut(id) else { return };
        if generation.kind != SourceKind::File {
            // What was decompressed before an error does not go on after it.
            self.open.remove(&id);
            generation.reading = None;
        }
        let code = error.raw_os_error();
        if [Errno::MFILE, Errno::NFILE].iter().any(|errno| code == Some(errno.raw_os_error())) {
            // No descriptor is left: that is not the file's trouble, and those that come after it have no other chance.
            tracing::debug!(path = %generation.label.display(), %error, "no descriptor for a log file; it is tried again");
            return;
        }
        let now = Instant::now();
        // How much of it waits is known all the same.
        let stat = generation.path.as_ref().and_then(|path| Stat::of(path).ok());
        if let Some(stat) = stat.filter(|stat| generation.kind == SourceKind::File && generation.is(stat)) {
            generation.saw(stat.bytes, now);
        }
        let path = generation.path.as_ref().unwrap_or(&generation.label);
        if generation.trouble.is_none() {
            tracing::warn!(
                path = %path.display(),
                %error,
                "cannot read a log file: it is tried again, and the next one of its name does not wait for it. Give \
                 the agent's user the file's group, or the agent the capability CAP_DAC_READ_SEARCH \
                 (systemd/README.md), or exclude the file"
            );
            if may_not(error) && self.unreadable.len() < MAX_NAMED {
                self.unreadable.insert(generation.label.clone());
            }
        }
        let trouble = generation.trouble.get_or_insert(Trouble { since: now, next: now });
        let age = now.saturating_duration_since(trouble.since);
        trouble.next = now + age.min(LOOK_EVERY);
        let input = &self.inputs[usize::from(generation.input)];
        let found_again = generation.path.as_ref().is_some_and(|path| input.takes(path) && !is_packed(path));
        if age < LOOK_FOR || found_again {
            return;
        }
        tracing::warn!(
            path = %path.display(),
            %error,
            unread_bytes = generation.known_unread(),
            "a rotated log file could not be read for ten minutes: what is unread of it is lost"
        );
        self.inputs[usize::from(generation.input)].telemetry.lost_files.inc();
        self.finish(id);
    }

    /// A generation was read.
    pub(super) fn out_of_trouble(&mut self, id: FileId) {
        let Some(generation) = self.known.generation_mut(id) else { return };
        if generation.trouble.take().is_some() {
            self.unreadable.remove(&generation.label);
            tracing::info!(path = %generation.label.display(), "a log file can be read again");
        }
    }
}

/// Whether an error says that a path leads nowhere.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether an error says that something is there and may not be read.
pub(super) fn may_not(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
