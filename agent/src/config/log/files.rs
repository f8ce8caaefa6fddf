//! `logs.inputs[].files`: which files are read.

use crate::source::log::file;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which files are read. Rotated files are followed under their new names, whether a pattern matches those or not, and
/// what was compressed before it was read is decompressed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "required" = ["include"],
    "x-renamed" = {"path": "include", "paths": "include", "__path__": "include", "ignore": "exclude", "read_from": "start"}
))]
pub struct RawFiles {
    /// Patterns of absolute paths. `*` and `?` stand for anything within a name, `[…]` for one of some characters,
    /// `{a,b}` for alternatives, and `**` for any number of directories. Files whose names end as compressed ones do
    /// (`.gz`, `.zst`, `.bz2`, `.xz`, `.lz4`, `.zip`) are left out.
    pub include: Vec<String>,
    /// Patterns of paths that are left out.
    pub exclude: Vec<String>,
    /// Where reading begins in files that are there at the first start of the input. Files that come later are read
    /// from their beginning.
    pub start: RawFileStart,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawFileStart {
    /// With what the files hold.
    #[default]
    Beginning,
    /// With what is appended.
    End,
}

impl RawFiles {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> file::Settings {
        if self.include.is_empty() {
            mistakes.at(
                path,
                "no file is included",
                "write patterns such as `/var/log/*.log` into `include`",
            );
        }
        let mut patterns = |texts: &[String], path: Path| {
            let mut patterns = Vec::new();
            for (nth, text) in texts.iter().enumerate() {
                match file::Pattern::parse(text) {
                    Ok(pattern) => patterns.push(pattern),
                    Err(error) => mistakes.at(
                        &path.index(nth),
                        error.to_string(),
                        "write an absolute path such as `/var/log/app/*.log`",
                    ),
                }
            }
            patterns
        };
        file::Settings {
            include: patterns(&self.include, path.key("include")),
            exclude: patterns(&self.exclude, path.key("exclude")),
            start: match self.start {
                RawFileStart::Beginning => file::Start::Beginning,
                RawFileStart::End => file::Start::End,
            },
        }
    }
}
