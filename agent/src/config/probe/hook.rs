//! `hooks`: what the agent does by itself when a check's state changes.

use super::command::{RawProgramParts, searched};
use crate::source::probe::hooks::limit::{Bounds, DEFAULT_IN_ALL, DEFAULT_PER_TARGET, DEFAULT_WINDOW};
use crate::source::probe::hooks::settings::{Action, DEFAULT_TIMEOUT, Event, Hook, Url, Webhook, Wildcard};
use crate::source::scrape::settings::{Auth, Secret};
use http::header::{self, HeaderName, HeaderValue};
use pegel_runtime::config::form::{FilePath, HttpUrl, Period};
use pegel_runtime::config::section::{self, RawBasicAuth, RawClientTls, resolve_auth};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// The longest name of a hook: it is a label.
const MAX_NAME_BYTES: usize = 64;
/// The longest window in which runs are counted.
const MAX_WINDOW: Period = Period::seconds(7 * 86_400);
/// The longest time that a hook may take.
const MAX_TIMEOUT: Period = Period::seconds(600);

/// What a hook waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawEvent {
    /// A target is down that was not.
    Down,
    /// A target is up that was down.
    Up,
}

/// A program that a hook runs, without a shell. It has what happened in `PEGEL_HOOK`, `PEGEL_EVENT`, `PEGEL_CHECK`,
/// `PEGEL_KIND`, `PEGEL_TARGET`, `PEGEL_STATE`, `PEGEL_FROM`, `PEGEL_SINCE`, `PEGEL_PHASE`, `PEGEL_REASON` and
/// `PEGEL_MESSAGE`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "required" = ["args"],
    "x-renamed" = {"command": "args", "argv": "args", "cmd": "args", "cwd": "working_directory"},
    "x-refused" = {"shell": "programs are run without a shell: write the program and each argument into args"}
))]
pub struct RawHookCommand {
    /// The program, which `allowed_commands` has to name, and its arguments, each one element. `{hook}`, `{event}`,
    /// `{check}`, `{kind}`, `{target}`, `{state}`, `{from}`, `{since}`, `{phase}` and `{reason}` stand for what happened.
    pub args: Vec<String>,
    /// Variables of its environment, beside `PATH`, `LC_ALL=C` and those that begin with `PEGEL_`. It has no others.
    pub env: BTreeMap<String, String>,
    /// Variables of the agent's environment that it has as well.
    pub pass_env: Vec<String>,
    /// The directory in which it runs.
    pub working_directory: FilePath,
}

impl Default for RawHookCommand {
    fn default() -> Self {
        Self { args: Vec::new(), env: BTreeMap::new(), pass_env: Vec::new(), working_directory: "/".into() }
    }
}

/// A request that a hook sends: POST with what happened as JSON. An answer of 2xx is success; redirects are not followed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "x-renamed" = {"tls_config": "tls"},
    "x-refused" = {"bearer_token": "tokens are read from files: use bearer_token_file"}
))]
pub struct RawWebhook {
    /// Where it goes.
    pub url: Option<HttpUrl>,
    /// A file that holds the URL, for one that is a secret itself; it is read for each run.
    pub url_file: Option<FilePath>,
    /// Headers of the request.
    pub headers: BTreeMap<String, String>,
    /// User and password.
    pub basic_auth: Option<RawBasicAuth>,
    /// A file that holds a bearer token; it is read for each run.
    pub bearer_token_file: Option<FilePath>,
    /// TLS, for https.
    pub tls: RawClientTls,
}

/// How often a hook may run.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawHookLimit {
    /// For one target, in the window.
    #[schemars(range(min = 1, max = 1000))]
    pub per_target: u32,
    /// For all targets together, in the window.
    #[schemars(range(min = 1, max = 10_000))]
    pub in_all: u32,
    /// The time in which runs are counted.
    pub window: Period,
}

impl Default for RawHookLimit {
    fn default() -> Self {
        Self { per_target: DEFAULT_PER_TARGET, in_all: DEFAULT_IN_ALL, window: Period(DEFAULT_WINDOW) }
    }
}

/// What the agent does by itself when a check's state changes: a program that it runs, or a request that it sends. Each
/// run, and each that there was not, has a line in the log (target `pegel::audit`).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"], "x-renamed" = {"rate_limit": "limit", "events": "on"}))]
pub struct RawHook {
    /// Its name: the label `hook` of `pegel_hook_runs_total`.
    pub name: String,
    /// The checks, by name; `*` stands for anything. All without it.
    pub checks: Vec<String>,
    /// Their targets; `*` stands for anything. All without it.
    pub targets: Vec<String>,
    /// Whether checks that containers ask for by their labels are among them. Who may start a container then decides
    /// when the hook runs, and with which target.
    pub container_checks: bool,
    /// What it waits for.
    pub on: Vec<RawEvent>,
    /// The program that it runs.
    pub command: Option<RawHookCommand>,
    /// The request that it sends.
    pub webhook: Option<RawWebhook>,
    /// How long that may take.
    pub timeout: Period,
    /// How often it may run.
    pub limit: RawHookLimit,
    /// Whether it is only written down what would be done.
    pub dry_run: bool,
}

impl Default for RawHook {
    fn default() -> Self {
        Self {
            name: String::new(),
            checks: Vec::new(),
            targets: Vec::new(),
            container_checks: false,
            on: vec![RawEvent::Down],
            command: None,
            webhook: None,
            timeout: Period(DEFAULT_TIMEOUT),
            limit: RawHookLimit::default(),
            dry_run: false,
        }
    }
}

/// Resolves the hooks of the section at a path.
pub(super) fn resolve_hooks(
    hooks: &[RawHook],
    allowed: &[FilePath],
    path: &Path,
    mistakes: &mut Mistakes,
) -> Vec<Hook> {
    let allowed: Vec<PathBuf> = allowed
        .iter()
        .enumerate()
        .filter_map(|(i, program)| {
            let path = path.key("allowed_commands").index(i);
            if program.0.is_absolute() {
                return Some(mistakes.program(&path, std::slice::from_ref(&program.0)));
            }
            let reason = format!("`{program}` is not an absolute path");
            mistakes.at(&path, reason, "write the program's path from the root");
            None
        })
        .collect();
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut resolved = Vec::new();
    for (i, hook) in hooks.iter().enumerate() {
        let path = path.key("hooks").index(i);
        if let Some(first) = names.insert(&hook.name, i).filter(|_| !hook.name.is_empty()) {
            let reason = format!("probes.hooks[{first}] is called `{}` as well", hook.name.escape_debug());
            mistakes.at(&path.key("name"), reason, "give each hook a name of its own");
        }
        resolved.extend(hook.resolve(&allowed, &path, mistakes));
    }
    resolved
}

impl RawHook {
    fn resolve(&self, allowed: &[PathBuf], path: &Path, mistakes: &mut Mistakes) -> Option<Hook> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES || !self.name.bytes().all(good) {
            let reason = format!("is no name: up to {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`");
            mistakes.at(&path.key("name"), reason, "write one such as restart-shop");
        }
        if self.on.is_empty() {
            mistakes.at(&path.key("on"), "is empty: the hook would never run", "write [down]");
        }
        for (key, period, most) in
            [("timeout", &self.timeout, &MAX_TIMEOUT), ("limit.window", &self.limit.window, &MAX_WINDOW)]
        {
            if period.0.is_zero() || period.0 > most.0 {
                let path = key.split('.').fold(path.clone(), |path, key| path.key(key));
                let reason = format!("`{period}` is no time that works");
                mistakes.at(&path, reason, format!("use up to {most}, and more than 0"));
            }
        }
        let checks = wildcards(&self.checks, &path.key("checks"), mistakes);
        let targets = wildcards(&self.targets, &path.key("targets"), mistakes);
        let action = match (&self.command, &self.webhook) {
            (Some(command), None) => command.resolve(allowed, &path.key("command"), mistakes),
            (None, Some(webhook)) => webhook.resolve(&path.key("webhook"), mistakes),
            (Some(_), Some(_)) => {
                let reason = "is there beside command";
                mistakes.at(&path.key("webhook"), reason, "take one out, or make two hooks");
                None
            }
            (None, None) => {
                mistakes.at(path, "does nothing", "give it a command or a webhook");
                None
            }
        };
        let on = self.on.iter().map(|event| match event {
            RawEvent::Down => Event::Down,
            RawEvent::Up => Event::Up,
        });
        Some(Hook {
            name: self.name.clone(),
            checks,
            targets,
            container_checks: self.container_checks,
            on: on.collect(),
            action: action?,
            timeout: self.timeout.0,
            bounds: Bounds {
                per_target: self.limit.per_target,
                in_all: self.limit.in_all,
                window: self.limit.window.0,
            },
            dry_run: self.dry_run,
        })
    }
}

fn wildcards(texts: &[String], path: &Path, mistakes: &mut Mistakes) -> Vec<Wildcard> {
    let mut all = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        match Wildcard::new(text) {
            Ok(one) => all.push(one),
            Err(reason) => {
                let remedy = "write a name, with `*` for anything; a backslash before `[` and `{`";
                mistakes.at(&path.index(i), format!("cannot be read: {reason}"), remedy);
            }
        }
    }
    all
}

impl RawHookCommand {
    fn resolve(&self, allowed: &[PathBuf], path: &Path, mistakes: &mut Mistakes) -> Option<Action> {
        let parts = RawProgramParts {
            args: &self.args,
            search_path: &searched(),
            env: &self.env,
            pass_env: &self.pass_env,
            working_directory: &self.working_directory,
        };
        let program = parts.resolve(path, mistakes);
        if !allowed.contains(&program.path) {
            let reason = format!("`{}` is not allowed", program.path.display());
            mistakes.at(
                &path.key("args").index(0),
                reason,
                "list it in probes.allowed_commands if the agent may run it by itself",
            );
            return None;
        }
        Some(Action::Command(program))
    }
}

impl RawWebhook {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Option<Action> {
        let url = match (&self.url, &self.url_file) {
            (Some(url), None) => Some(Url::Text(url.0.clone())),
            (None, Some(file)) => Some(Url::File(mistakes.readable_file(&path.key("url_file"), file))),
            (Some(_), Some(_)) => {
                mistakes.at(&path.key("url_file"), "is there beside url", "take one of them out");
                None
            }
            (None, None) if mistakes.is_spoken_of(&path.key("url")) => None,
            (None, None) => {
                mistakes.at(path, "does not say where it goes", "give it url or url_file");
                None
            }
        };
        let plain = self.url.as_ref().is_some_and(|url| url.0.starts_with("http://"));
        if plain && self.tls != RawClientTls::default() {
            mistakes.warn(&path.key("tls"), "is not used over http", "write https://");
        }
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            let here = path.key("headers").key(name);
            match (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                // What a credential is must not stand in a file that is shown around.
                (Ok(header::AUTHORIZATION), _) => {
                    mistakes.at(&here, "would be a credential", "use basic_auth or bearer_token_file");
                }
                (Ok(name), Ok(value)) => headers.push((name, value)),
                (Ok(_), Err(_)) => {
                    mistakes.at(&here, "has a value that no header may have", "take control characters out");
                }
                (Err(_), _) => {
                    mistakes.at(&here, "is no header name", "use letters, digits and hyphens");
                }
            }
        }
        let auth = resolve_auth(self.basic_auth.as_ref(), self.bearer_token_file.as_ref(), path, mistakes);
        let auth = auth.map(|auth| match auth {
            section::Auth::Basic { username, password_file } => {
                Auth::Basic { username, password: Secret::File(password_file) }
            }
            section::Auth::Bearer(file) => Auth::Bearer(Secret::File(file)),
        });
        let tls = self.tls.resolve(&path.key("tls"), mistakes);
        Some(Action::Webhook(Box::new(Webhook { url: url?, headers, auth, tls })))
    }
}
