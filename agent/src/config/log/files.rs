//! `logs.inputs[].files`: which files are read.

use super::shape::REGEX_REMEDY;
use crate::source::log::file;
use crate::source::log::shape::{BadCapture, Capture};
use pegel_runtime::config::section::is_label_name;
use pegel_runtime::config::{Mistakes, Path, or_a_list};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which files are read. Rotated files are followed under their new names, whether a pattern matches those or not, and
/// what was compressed before it was read is decompressed. A list alone is one of patterns to include.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "required" = ["include"],
    "x-list-as" = "include",
    "x-renamed" = {"path": "include", "paths": "include", "__path__": "include", "ignore": "exclude", "read_from": "start"}
), transform = or_a_list)]
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
    /// Regular expressions that take labels out of a file's path, wherever in it they match: each named group is a
    /// label. `^/srv/(?<service>[^/]+)/` makes `service="shop"` of `/srv/shop/log/a.log`. They win over the input's
    /// `labels`; a file that none matches has only those.
    pub labels_from_path: Vec<String>,
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
        let labels = path.key("labels_from_path");
        file::Settings {
            include: patterns(&self.include, path.key("include")),
            exclude: patterns(&self.exclude, path.key("exclude")),
            start: match self.start {
                RawFileStart::Beginning => file::Start::Beginning,
                RawFileStart::End => file::Start::End,
            },
            labels_from_path: self.captures(&labels, mistakes),
        }
    }

    fn captures(&self, path: &Path, mistakes: &mut Mistakes) -> Vec<Capture> {
        let mut captures = Vec::new();
        for (nth, text) in self.labels_from_path.iter().enumerate() {
            let path = path.index(nth);
            let capture = match Capture::new(text) {
                Ok(capture) => capture,
                Err(bad @ BadCapture::NoNames) => {
                    mistakes.at(
                        &path,
                        bad.to_string(),
                        "name what becomes a label: ^/srv/(?<service>[^/]+)/",
                    );
                    continue;
                }
                Err(bad @ BadCapture::Syntax(_)) => {
                    mistakes.at(&path, bad.to_string(), REGEX_REMEDY);
                    continue;
                }
            };
            for name in capture.names() {
                if name == "filename" {
                    let reason = "names a group `filename`, which is the label of the whole path";
                    mistakes.at(&path, reason, "give the group another name");
                } else if !is_label_name(name) {
                    let reason =
                        format!("names a group `{}`, which is not a label name", name.escape_debug());
                    mistakes.at(&path, reason, "use letters, digits and underscores");
                }
            }
            captures.push(capture);
        }
        captures
    }
}
