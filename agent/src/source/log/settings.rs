//! What the log source is told.

use super::{file, journal, pipe, shape, syslog};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The log source's settings.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The inputs, in the order of the configuration.
    pub inputs: Vec<Input>,
    /// The directory of checkpoints.
    pub state_dir: PathBuf,
}

/// One input.
#[derive(Debug, Clone)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Labels of all its streams.
    pub labels: BTreeMap<String, String>,
    /// What is made of its bytes.
    pub shape: shape::Settings,
    /// Where they come from.
    pub kind: InputKind,
}

/// Where an input's bytes come from. Each kind's settings stand beside its code.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum InputKind {
    /// From files.
    Files(file::Settings),
    /// From systemd's journal.
    Journal(journal::Settings),
    /// From others, by syslog.
    Syslog(syslog::Settings),
    /// From a pipe.
    Pipe(pipe::Settings),
}
