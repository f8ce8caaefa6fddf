//! `logs.inputs[].journal`: systemd's journal.

use super::patterns::names;
use crate::source::log::journal::{Begin, DEFAULT_METADATA, Reader, Settings};
use pegel_runtime::config::form::FilePath;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// systemd's journal: each unit, identifier and level a stream (labels `unit`, `identifier`, `level`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "x-renamed" = {
        "path": "directory", "unit": "units", "matches": "units", "include_units": "units", "read_from": "start",
        "fields": "metadata"
    },
    "x-refused" = {"max_age": "say where the first start begins with start: boot, beginning or end"}
))]
pub struct RawJournal {
    /// A directory with journal files; without it, those of this machine below `/var/log/journal` and
    /// `/run/log/journal`.
    pub directory: Option<FilePath>,
    /// Where the first start begins; later ones go on where the last one ended.
    pub start: RawJournalStart,
    /// Units whose entries are taken, `*` and `?` for anything; all, if there are none.
    pub units: Vec<String>,
    /// Units whose entries are left out.
    pub exclude_units: Vec<String>,
    /// Identifiers (syslog's tags) whose entries are taken, `*` and `?` for anything; all, if there are none.
    pub identifiers: Vec<String>,
    /// The least important priority that is taken.
    pub priority: RawPriority,
    /// Fields that become structured metadata, in journald's spelling; `_HOSTNAME` becomes `hostname`.
    pub metadata: Vec<String>,
    /// Who reads the files.
    pub reader: RawReader,
    /// systemd's `journalctl`, for `reader`.
    pub journalctl: FilePath,
}

impl Default for RawJournal {
    fn default() -> Self {
        Self {
            directory: None,
            start: RawJournalStart::default(),
            units: Vec::new(),
            exclude_units: Vec::new(),
            identifiers: Vec::new(),
            priority: RawPriority::default(),
            metadata: DEFAULT_METADATA.map(str::to_owned).to_vec(),
            reader: RawReader::default(),
            journalctl: FilePath("journalctl".into()),
        }
    }
}

/// Where the journal is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawJournalStart {
    /// With the boot that runs.
    #[default]
    Boot,
    /// With the oldest entry.
    Beginning,
    /// With what is written from then on.
    End,
}

/// syslog's severities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawPriority {
    /// 0.
    Emergency,
    /// 1.
    Alert,
    /// 2.
    Critical,
    /// 3.
    Error,
    /// 4.
    Warning,
    /// 5.
    Notice,
    /// 6.
    Info,
    /// 7: all.
    #[default]
    Debug,
}

/// Who reads journal files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawReader {
    /// The agent; `journalctl` where a file is in a format that the agent does not know.
    #[default]
    Auto,
    /// The agent.
    Files,
    /// `journalctl`.
    Journalctl,
}

impl RawJournal {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Settings {
        let unit = "nginx.service` or `app-*.service";
        for (nth, field) in self.metadata.iter().enumerate() {
            let known = (1..=64).contains(&field.len())
                && field.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
            if !known {
                let reason = format!("`{}` is no field of the journal", field.escape_debug());
                let remedy = "write it as `journalctl -o json` shows it, such as `_PID`";
                mistakes.at(&path.key("metadata").index(nth), reason, remedy);
            }
        }
        Settings {
            directory: self.directory.as_ref().map(|dir| mistakes.path_of(&path.key("directory"), dir)),
            begin: match self.start {
                RawJournalStart::Boot => Begin::Boot,
                RawJournalStart::Beginning => Begin::Beginning,
                RawJournalStart::End => Begin::End,
            },
            units: names(&self.units, &path.key("units"), unit, mistakes),
            exclude_units: names(&self.exclude_units, &path.key("exclude_units"), unit, mistakes),
            identifiers: names(&self.identifiers, &path.key("identifiers"), "sshd` or `app-*", mistakes),
            priority: self.priority as u8,
            metadata: self.metadata.clone(),
            reader: match self.reader {
                RawReader::Auto => Reader::Auto,
                RawReader::Files => Reader::Files,
                RawReader::Journalctl => Reader::Journalctl,
            },
            journalctl: self.journalctl.0.clone(),
        }
    }
}
