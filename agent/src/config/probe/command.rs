//! Programs: those of checks of kind `command`, and those of hooks.

use super::patterns;
use crate::source::probe::kinds::command::{Output, Settings};
use crate::source::probe::program::{Program, SEARCHED};
use pegel_runtime::config::form::FilePath;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path as FsPath, PathBuf};

/// Variables that an agent sets itself.
const OWN_PREFIX: &str = "PEGEL_";

/// What a program's standard output is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawOutput {
    /// Text.
    #[default]
    Plain,
    /// A line of text, `|` and performance data, as Nagios' plugins print them: the data become
    /// `probe_command_perfdata`.
    Nagios,
}

/// A check by a program of this machine. There is no shell: nothing in `args` has a meaning to anybody but the program.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "required" = ["args"],
    "x-renamed" = {"command": "args", "argv": "args", "cmd": "args", "cwd": "working_directory"},
    "x-refused" = {"shell": "programs are run without a shell: write the program and each argument into args"}
))]
pub struct RawCommandProbe {
    /// The program and its arguments, each one element: `[check_disk, -w, "10%"]`. `{target}` and `{check}` stand for
    /// the target and the check's name; the program has them as `PEGEL_TARGET` and `PEGEL_CHECK` too. A program without
    /// a slash is looked for in `search_path` when the configuration is read.
    pub args: Vec<String>,
    /// The directories in which the program is looked for.
    pub search_path: Vec<FilePath>,
    /// Variables of its environment, beside `PATH` and `LC_ALL=C`. It has no others.
    pub env: BTreeMap<String, String>,
    /// Variables of the agent's environment that it has as well.
    pub pass_env: Vec<String>,
    /// The directory in which it runs.
    pub working_directory: FilePath,
    /// Exit codes that are good. With `[0, 1]` a warning of a Nagios plugin is no failure.
    pub exit_codes: Vec<i32>,
    /// What standard output is taken for.
    pub output: RawOutput,
    /// The check fails if one of these regular expressions matches standard output (its first 64 KiB).
    pub fail_if_output_matches_regexp: Vec<String>,
    /// The check fails if one of these regular expressions does not match standard output.
    pub fail_if_output_not_matches_regexp: Vec<String>,
}

impl Default for RawCommandProbe {
    fn default() -> Self {
        Self {
            args: Vec::new(),
            search_path: searched(),
            env: BTreeMap::new(),
            pass_env: Vec::new(),
            working_directory: "/".into(),
            exit_codes: vec![0],
            output: RawOutput::default(),
            fail_if_output_matches_regexp: Vec::new(),
            fail_if_output_not_matches_regexp: Vec::new(),
        }
    }
}

/// Where programs are looked for.
pub(super) fn searched() -> Vec<FilePath> {
    SEARCHED.iter().map(|dir| (*dir).into()).collect()
}

impl RawCommandProbe {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Settings {
        let raw = RawProgramParts {
            args: &self.args,
            search_path: &self.search_path,
            env: &self.env,
            pass_env: &self.pass_env,
            working_directory: &self.working_directory,
        };
        if self.exit_codes.is_empty() {
            mistakes.at(&path.key("exit_codes"), "is empty: no run could succeed", "write [0]");
        }
        for (i, code) in self.exit_codes.iter().enumerate() {
            if !(0..=255).contains(code) {
                let path = path.key("exit_codes").index(i);
                mistakes.at(&path, format!("`{code}` is no exit code"), "use numbers from 0 to 255");
            }
        }
        let matches = path.key("fail_if_output_matches_regexp");
        let not_matches = path.key("fail_if_output_not_matches_regexp");
        Settings {
            program: raw.resolve(path, mistakes),
            exit_codes: self.exit_codes.clone(),
            fail_if_matches: patterns(&self.fail_if_output_matches_regexp, &matches, mistakes),
            fail_if_not_matches: patterns(&self.fail_if_output_not_matches_regexp, &not_matches, mistakes),
            output: match self.output {
                RawOutput::Plain => Output::Plain,
                RawOutput::Nagios => Output::Nagios,
            },
        }
    }
}

/// What a program is made of, wherever it is written down.
pub(super) struct RawProgramParts<'a> {
    pub(super) args: &'a [String],
    pub(super) search_path: &'a [FilePath],
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) pass_env: &'a [String],
    pub(super) working_directory: &'a FilePath,
}

impl RawProgramParts<'_> {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Program {
        for (i, arg) in self.args.iter().enumerate() {
            if arg.contains('\0') {
                mistakes.at(&path.key("args").index(i), "holds a zero byte", "take it out");
            }
        }
        let names = self.env.keys().map(|name| (path.key("env").key(name), name));
        let passed = self.pass_env.iter().enumerate();
        let passed = passed.map(|(i, name)| (path.key("pass_env").index(i), name));
        for (path, name) in names.chain(passed) {
            if name.is_empty() || name.contains(['=', '\0']) {
                mistakes.at(&path, "is no name of a variable", "use letters, digits and underscores");
            } else if name.starts_with(OWN_PREFIX) {
                mistakes.at(&path, "is a variable that the agent sets itself", "use another name");
            }
        }
        for (name, value) in self.env {
            if value.contains('\0') {
                mistakes.at(&path.key("env").key(name), "holds a zero byte", "take it out");
            }
        }
        let directory = path.key("working_directory");
        if !self.working_directory.0.is_absolute() {
            let reason = format!("`{}` is not an absolute path", self.working_directory);
            mistakes.at(&directory, reason, "write it from the root, such as /var/lib/pegel-agent");
        }
        Program {
            path: self.resolve_path(path, mistakes),
            args: self.args.iter().skip(1).cloned().collect(),
            env: self.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            pass_env: self.pass_env.to_vec(),
            working_directory: self.working_directory.0.clone(),
        }
    }

    fn resolve_path(&self, path: &Path, mistakes: &mut Mistakes) -> PathBuf {
        let args = path.key("args");
        let Some(program) = self.args.first().filter(|program| !program.is_empty()) else {
            mistakes.at(&args, "names no program", "write the program and its arguments as a list");
            return PathBuf::new();
        };
        let path = args.index(0);
        let named = FsPath::new(program);
        if named.is_absolute() {
            return mistakes.program(&path, &[named.to_owned()]);
        }
        if program.contains('/') {
            let reason = format!("`{}` is neither an absolute path nor a bare name", program.escape_debug());
            mistakes.at(&path, reason, "write the path from the root");
            return PathBuf::new();
        }
        if program.contains(char::is_whitespace) {
            // What somebody writes who expects a shell.
            let reason = format!("`{}` is no program: there is no shell", program.escape_debug());
            mistakes.at(&path, reason, "make each argument an element of the list");
            return PathBuf::new();
        }
        let candidates: Vec<_> = self.search_path.iter().map(|dir| dir.0.join(program)).collect();
        mistakes.program(&path, &candidates)
    }
}
