//! `logs.inputs`: one input.

use super::files::RawFiles;
use super::journal::RawJournal;
use super::pipe::RawFifo;
use super::syslog::RawSyslog;
use crate::source::log::settings::{Input, InputKind};
use crate::source::log::{pipe, shape};
use pegel_runtime::config::section::check_labels;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where lines come from, and what is made of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct RawLogInput {
    /// The input's name, by which metrics and `pegel-agent test` speak of it, and the label `job` of its streams.
    pub name: String,
    /// Labels of all its streams.
    pub labels: BTreeMap<String, String>,
    /// Files, each a stream with the label `filename`.
    pub files: Option<RawFiles>,
    /// systemd's journal.
    pub journal: Option<RawJournal>,
    /// Messages of syslog that others send.
    pub syslog: Option<RawSyslog>,
    /// The agent's standard input.
    pub stdin: bool,
    /// A named pipe.
    pub fifo: Option<RawFifo>,
}

impl RawLogInput {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Option<Input> {
        if self.name.is_empty() {
            mistakes.at(&path.key("name"), "is empty", "give the input a name");
        }
        check_labels(&self.labels, |_| false, &path.key("labels"), mistakes);
        let mut kinds = Vec::new();
        if let Some(files) = &self.files {
            kinds.push(("files", InputKind::Files(files.resolve(&path.key("files"), mistakes))));
        }
        if let Some(journal) = &self.journal {
            kinds.push(("journal", InputKind::Journal(journal.resolve(&path.key("journal"), mistakes))));
        }
        if let Some(syslog) = &self.syslog {
            kinds.push(("syslog", InputKind::Syslog(syslog.resolve(&path.key("syslog"), mistakes))));
        }
        if self.stdin {
            kinds.push(("stdin", InputKind::Pipe(pipe::Settings::Stdin)));
        }
        if let Some(fifo) = &self.fifo {
            kinds.push(("fifo", InputKind::Pipe(fifo.resolve(&path.key("fifo"), mistakes))));
        }
        if let [(one, _), (other, _), ..] = kinds.as_slice() {
            let reason = format!("the input has both `{one}` and `{other}`");
            mistakes.at(path, reason, "make two inputs of it");
        }
        let Some((_, kind)) = kinds.pop() else {
            mistakes.at(
                path,
                "the input says nowhere where lines come from",
                "give it `files`, `journal`, `syslog`, `fifo` or `stdin`",
            );
            return None;
        };
        Some(Input {
            name: self.name.clone(),
            labels: self.labels.clone(),
            shape: shape::Settings::default(),
            kind,
        })
    }
}
