//! systemd's journal, entry by entry, from a cursor on.
//!
//! [`directory::Directory`] reads the files themselves; where they are in a format that is not known here,
//! [`export::Journalctl`] has systemd's own reader read them. Both give the same entries in the same order with
//! journald's own cursors, so that one can go on where the other ended.
//!
//! # What holds
//!
//! - An entry's cursor is its place: after a restart the journal is read from the checkpoint's cursor on, and the
//!   ranges of intents from cursor to cursor.
//! - Rotation and a killed journald change which files there are, never the order of entries. journald's vacuum
//!   empties what it deletes, so that an open descriptor saves nothing: entries that were not read by then are counted.
//! - A damaged file is set aside with a count of the entries behind the damage, and the rest goes on.

mod cursor;
mod data;
mod directory;
mod entry;
mod export;
mod fields;
mod file;
pub mod fuzzing;
mod header;
mod id;
pub(super) mod input;
mod pages;
mod settings;
mod watch;

#[cfg(test)]
mod tests;

pub use cursor::{Cursor, NoCursor};
pub use directory::Directory;
pub use entry::Entry;
pub use export::{Journalctl, Parser};
pub use fields::Fields;
pub use file::Wanted;
pub use id::Id;
pub use input::Status;
pub use settings::{Begin, DEFAULT_METADATA, Reader, Settings};

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the oldest entry.
    Beginning,
    /// With the first entry of a boot.
    Boot(Id),
    /// With what is written from now on.
    End,
    /// Behind an entry.
    After(Cursor),
}

/// A journal that can be read.
pub trait Journal: Send {
    /// Reads the next entry; false if there is none yet.
    fn next(&mut self, entry: &mut Entry) -> Result<bool, JournalError>;

    /// The entry behind which reading goes on; none if nothing was read and the beginning is none.
    fn place(&self) -> Option<Cursor>;

    /// Waits until there may be more, or for so long.
    fn wait(&mut self, at_most: Duration);

    /// What could not be read since this was last asked.
    fn trouble(&mut self) -> Trouble;
}

/// Why the journal can't be read at all.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file is in a format that is not known here.
    #[error("{path} is not read here: {reason}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is not known of it.
        reason: String,
    },
    /// The agent may not read it.
    #[error(
        "{path} can't be opened: permission denied; run the agent as a member of the group systemd-journal",
        path = path.display()
    )]
    Denied {
        /// The file.
        path: PathBuf,
    },
    /// `journalctl` can't be run or ended with an error.
    #[error(
        "journalctl does not read the journal: {0}; is it installed, and may the agent read the journal?"
    )]
    Journalctl(String),
}

/// What could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trouble {
    /// Files that were set aside.
    pub damaged_files: u64,
    /// Entries that were passed over, those in files that were set aside among them.
    pub damaged_entries: u64,
    /// Entries that journald deleted before they were read.
    pub vacuumed_entries: u64,
    /// Fields that are missing from entries.
    pub damaged_fields: u64,
    /// Fields that were cut or left out for their length.
    pub oversized_fields: u64,
    /// What was set aside last, and why.
    pub last: Option<String>,
}

impl Trouble {
    fn set_aside(&mut self, path: &Path, entries: u64, error: &dyn std::error::Error) {
        tracing::warn!(
            path = %path.display(),
            entries,
            %error,
            "a file of the journal is damaged and set aside; `journalctl --verify --file` says more"
        );
        self.last = Some(format!("{}: {error}", path.display()));
        self.damaged_files += 1;
        self.damaged_entries += entries;
    }
}
