//! `logs`: inputs, what is made of their lines, and what is kept while it cannot be sent.

mod buffer;
mod files;
mod input;
mod journal;
mod patterns;
mod pipe;
mod shape;
mod syslog;

pub use buffer::RawLogBuffer;
pub use files::{RawFileStart, RawFiles};
pub use input::RawLogInput;

use super::buffer::{BufferSettings, RawBuffer};
use crate::source::log;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Logs, to Loki.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"sources": "inputs", "scrape_configs": "inputs"}))]
pub struct RawLogs {
    /// Where lines come from, each input with a name of its own.
    pub inputs: Vec<RawLogInput>,
    /// What is kept of logs while it cannot be sent.
    pub buffer: RawLogBuffer,
}

/// Settings of logs.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The source.
    pub source: log::settings::Settings,
    /// Front, spool and rejects of logs' own delivery.
    pub buffer: BufferSettings,
}

impl RawLogs {
    pub(super) fn resolve(
        &self,
        shared: &RawBuffer,
        state_dir: &std::path::Path,
        path: &Path,
        mistakes: &mut Mistakes,
    ) -> LogSettings {
        let inputs_path = path.key("inputs");
        let mut names = HashMap::new();
        let mut inputs = Vec::new();
        for (nth, raw) in self.inputs.iter().enumerate() {
            let path = inputs_path.index(nth);
            if let Some(before) = names.insert(raw.name.as_str(), nth) {
                let reason = format!("inputs {before} and {nth} are both called `{}`", raw.name);
                mistakes.at(&path.key("name"), reason, "give each input a name of its own");
            }
            inputs.extend(raw.resolve(&path, mistakes));
        }
        let mut stdin = self.inputs.iter().enumerate().filter(|(_, input)| input.stdin);
        if let (Some((first, _)), Some((second, _))) = (stdin.next(), stdin.next()) {
            let reason = format!("inputs {first} and {second} both read the standard input");
            mistakes.at(&inputs_path.index(second).key("stdin"), reason, "take one of them out");
        }
        let dir = state_dir.join("logs");
        let buffer = self.buffer.resolve(shared, &dir, &path.key("buffer"), mistakes);
        LogSettings { source: log::settings::Settings { inputs, state_dir: dir }, buffer }
    }
}
