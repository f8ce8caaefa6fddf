//! `logs.inputs`: one input.

use super::containers::RawContainerLogs;
use super::files::RawFiles;
use super::journal::RawJournal;
use super::pipe::RawFifo;
use super::shape::{RawEncoding, RawFormat, RawLogLimits, RawMask, RawMultiline, RawStep};
use super::syslog::RawSyslog;
use crate::source::log::pipe;
use crate::source::log::settings::{Input, InputKind};
use pegel_runtime::config::form::ByteSize;
use pegel_runtime::config::section::check_labels;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where lines come from, and what is made of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"], "x-renamed" = {"pipeline_stages": "steps", "stages": "steps", "max_line_size": "max_line"}))]
pub struct RawLogInput {
    /// The input's name, by which metrics and `pegel-agent test` speak of it, and the label `job` of its streams.
    pub name: String,
    /// Labels of all its streams.
    pub labels: BTreeMap<String, String>,
    /// Files, each a stream with the label `filename`.
    pub files: Option<RawFiles>,
    /// What the containers of this node write to their standard output and error.
    pub containers: Option<RawContainerLogs>,
    /// systemd's journal.
    pub journal: Option<RawJournal>,
    /// Messages of syslog that others send.
    pub syslog: Option<RawSyslog>,
    /// The agent's standard input.
    pub stdin: bool,
    /// A named pipe.
    pub fifo: Option<RawFifo>,
    /// How bytes become characters.
    pub encoding: RawEncoding,
    /// How lines are written: as they are, or by a container's runtime.
    pub format: RawFormat,
    /// The longest line or joined entry; what is longer is cut into several entries, the first ones marked with `cut`.
    /// 252 KiB by default, which is Loki's limit less what masking may add.
    pub max_line: Option<ByteSize>,
    /// Which lines belong together.
    pub multiline: Option<RawMultiline>,
    /// What is done with each entry, in this order.
    pub steps: Vec<RawStep>,
    /// What is taken out of lines, labels and structured metadata after the last step.
    pub mask: Option<RawMask>,
    /// Whether entries of files that repeat the one before are counted in its structured metadata `repeated`.
    pub count_repeats: bool,
    /// What the backend takes.
    pub limits: Option<RawLogLimits>,
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
        if let Some(containers) = &self.containers {
            let containers = containers.resolve(&path.key("containers"), mistakes);
            kinds.push(("containers", InputKind::Containers(containers)));
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
            let keys = ["files", "containers", "journal", "syslog", "fifo", "stdin"];
            if !keys.iter().any(|key| mistakes.is_spoken_of(&path.key(key))) {
                mistakes.at(
                    path,
                    "the input says nowhere where lines come from",
                    "give it `files`, `containers`, `journal`, `syslog`, `fifo` or `stdin`",
                );
            }
            return None;
        };
        Some(Input {
            name: self.name.clone(),
            labels: self.labels.clone(),
            shape: self.resolve_shape(path, mistakes),
            kind,
        })
    }
}
