//! `logs.inputs`: one input.

use crate::source::log::settings::Input;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where lines come from, and what is made of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct RawLogInput {
    /// The input's name, by which metrics and `pegel-agent test` speak of it.
    pub name: String,
    /// Labels of all its streams.
    pub labels: BTreeMap<String, String>,
}

impl RawLogInput {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Option<Input> {
        mistakes.at(path, "the input says nowhere where lines come from", "give it `files`");
        None
    }
}
