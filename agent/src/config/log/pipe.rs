//! `logs.inputs[].stdin` and `.fifo`: pipes.

use crate::source::log::pipe::Settings;
use pegel_runtime::config::form::FilePath;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A named pipe. Writers may come and go; they wait while there is no room. What was read and not stored yet is lost if
/// the agent is killed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path"]))]
pub struct RawFifo {
    /// Where it is. If there is none, it is made.
    pub path: Option<FilePath>,
    /// Who may use it, if it is made: permissions in octal, `0600` if nothing is said.
    pub mode: Option<String>,
}

impl RawFifo {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Settings {
        let mode = match self.mode.as_deref().map(|text| u32::from_str_radix(text, 8)) {
            None => 0o600,
            Some(Ok(mode)) if mode <= 0o777 => mode,
            Some(_) => {
                let text = self.mode.as_deref().unwrap_or_default();
                let reason = format!("`{}` is not a file's permissions", text.escape_debug());
                mistakes.at(
                    &path.key("mode"),
                    reason,
                    "write three or four octal digits in quotes, such as \"0620\"",
                );
                0o600
            }
        };
        let fifo = self.path.as_ref().map(|file| mistakes.path_of(&path.key("path"), file));
        Settings::Fifo { path: fifo.unwrap_or_default(), mode }
    }
}
