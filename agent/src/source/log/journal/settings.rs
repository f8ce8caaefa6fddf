//! What a journal input is told.

use globset::GlobSet;
use std::path::PathBuf;

/// The fields that become structured metadata unless the configuration says others.
pub const DEFAULT_METADATA: [&str; 6] =
    ["_HOSTNAME", "_PID", "_COMM", "_TRANSPORT", "_SYSTEMD_USER_UNIT", "MESSAGE_ID"];

/// Where a journal input begins when the agent sees it for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begin {
    /// With the oldest entry that is kept.
    Beginning,
    /// With the first entry of the boot that runs.
    #[default]
    Boot,
    /// With what is written from then on.
    End,
}

/// Who reads the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reader {
    /// The agent, and `journalctl` where a file is in a format that the agent does not know.
    #[default]
    Auto,
    /// The agent only.
    Files,
    /// `journalctl` only.
    Journalctl,
}

/// Which entries, and what is made of their fields.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A directory with journal files; without it, this machine's.
    pub directory: Option<PathBuf>,
    /// Where the first start begins.
    pub begin: Begin,
    /// Units whose entries are taken; all, without any.
    pub units: Option<GlobSet>,
    /// Units whose entries are left out.
    pub exclude_units: Option<GlobSet>,
    /// Identifiers whose entries are taken; all, without any.
    pub identifiers: Option<GlobSet>,
    /// The least important priority that is taken, 0 to 7.
    pub priority: u8,
    /// Fields that become structured metadata, in journald's spelling.
    pub metadata: Vec<String>,
    /// Who reads.
    pub reader: Reader,
    /// The program of systemd.
    pub journalctl: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: None,
            begin: Begin::default(),
            units: None,
            exclude_units: None,
            identifiers: None,
            priority: 7,
            metadata: DEFAULT_METADATA.map(str::to_owned).to_vec(),
            reader: Reader::default(),
            journalctl: "journalctl".into(),
        }
    }
}
