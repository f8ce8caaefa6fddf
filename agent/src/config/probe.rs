//! `probes`: synthetic checks.

mod check;
mod command;
mod hook;
mod http;
mod maintenance;
mod objective;
mod service;
mod tls;
mod wire;

pub use check::RawCheck;
pub use command::RawCommandProbe;
pub use hook::RawHook;
pub use http::RawHttpProbe;
pub use maintenance::RawMaintenance;
pub use service::{RawAmqpProbe, RawGrpcProbe, RawHeartbeatProbe, RawPostgresProbe, RawRedisProbe};
pub use tls::RawProbeTls;
pub use wire::{RawDnsProbe, RawIcmpProbe, RawTcpProbe, RawTlsProbe};

use self::hook::resolve_hooks;
use super::labels::{self, RawProbePreset};
use crate::source::probe::kinds::assertion::Pattern;
use crate::source::probe::maintenance::Window;
use crate::source::probe::net::resolve::Families;
use crate::source::probe::settings::{DEFAULT_FILE_SD_REFRESH, DEFAULT_MAX_RUNNING, Settings};
use pegel_runtime::config::form::{FilePath, Listen, Period};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Synthetic checks, with blackbox_exporter's names.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "x-renamed" = {"modules": "checks", "probes": "checks", "concurrency": "max_running"},
))]
pub struct RawProbes {
    /// For whose dashboards and rules the checks' series are labelled.
    pub preset: RawProbePreset,
    /// Labels of all checks' series; those of a check win. An empty value takes a label away.
    pub labels: BTreeMap<String, String>,
    /// The checks, each with a name of its own.
    pub checks: Vec<RawCheck>,
    /// Times during which what checks say is nobody's alarm. They go on running; their state is `maintenance`.
    pub maintenance: Vec<RawMaintenance>,
    /// What the agent does by itself when a check's state changes.
    pub hooks: Vec<RawHook>,
    /// The programs that hooks may run, by their absolute paths. A hook of another program is a mistake.
    pub allowed_commands: Vec<FilePath>,
    /// How many checks may run at once. What is due beyond that waits.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_running: u32,
    /// Name servers, addresses with a port, that are asked in place of those of /etc/resolv.conf.
    pub name_servers: Vec<Listen>,
    /// How often the files of `file_sd` are looked at.
    pub file_sd_refresh: Period,
    /// Whether labels of containers (`pegel.probe.http=URL` and so on) make checks.
    pub container_labels: bool,
}

impl Default for RawProbes {
    fn default() -> Self {
        Self {
            preset: RawProbePreset::default(),
            labels: BTreeMap::new(),
            checks: Vec::new(),
            maintenance: Vec::new(),
            hooks: Vec::new(),
            allowed_commands: Vec::new(),
            max_running: DEFAULT_MAX_RUNNING as u32,
            name_servers: Vec::new(),
            file_sd_refresh: Period(DEFAULT_FILE_SD_REFRESH),
            container_labels: true,
        }
    }
}

/// An IP protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawIpProtocol {
    /// IPv4.
    Ip4,
    /// IPv6.
    Ip6,
}

impl RawIpProtocol {
    pub(super) fn families(self, fallback: bool) -> Families {
        Families { prefer_v6: self == Self::Ip6, fallback }
    }
}

impl RawProbes {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Settings {
        let mut names: HashMap<&str, usize> = HashMap::new();
        for (i, check) in self.checks.iter().enumerate() {
            if let Some(first) = names.insert(&check.name, i).filter(|_| !check.name.is_empty()) {
                let path = path.key("checks").index(i).key("name");
                let reason =
                    format!("probes.checks[{first}] is called `{}` as well", check.name.escape_debug());
                mistakes.at(&path, reason, "give each check a name of its own");
            }
        }
        let mut windows: Vec<(&[String], Arc<Window>)> = Vec::new();
        for (i, window) in self.maintenance.iter().enumerate() {
            let path = path.key("maintenance").index(i);
            for (j, check) in window.checks.iter().enumerate() {
                if !names.contains_key(check.as_str()) {
                    let reason = format!("there is no check `{}`", check.escape_debug());
                    mistakes.at(
                        &path.key("checks").index(j),
                        reason,
                        "name one of probes.checks, or none for all",
                    );
                }
            }
            if let Some(resolved) = window.resolve(&path, mistakes) {
                windows.push((&window.checks, Arc::new(resolved)));
            }
        }
        let (mut checks, mut objectives) = (Vec::new(), Vec::new());
        for (i, check) in self.checks.iter().enumerate() {
            let path = path.key("checks").index(i);
            if let Some(objective) = &check.objective {
                objectives.push(objective.resolve(&check.name, &path.key("objective"), mistakes));
            }
            let of_check =
                |(names, _): &&(&[String], Arc<Window>)| names.is_empty() || names.contains(&check.name);
            let of_check = windows.iter().filter(of_check).map(|(_, window)| window.clone()).collect();
            checks.push(check.resolve(of_check, &path, mistakes));
        }
        if self.file_sd_refresh.0 < Duration::from_secs(1) {
            mistakes.at(&path.key("file_sd_refresh"), "is too short", "use 1s or more");
        }
        Settings {
            checks,
            objectives,
            hooks: resolve_hooks(&self.hooks, &self.allowed_commands, path, mistakes),
            max_running: self.max_running as usize,
            file_sd_refresh: self.file_sd_refresh.0,
            from_containers: self.container_labels,
            state_dir: None,
            name_servers: self.name_servers.iter().map(|server| server.0).collect(),
            labels: labels::resolve(self.preset, &self.labels, path, mistakes),
        }
    }
}

/// Compiles the expressions of a list.
fn patterns(texts: &[String], path: &Path, mistakes: &mut Mistakes) -> Vec<Pattern> {
    let compiled = texts.iter().enumerate().map(|(i, text)| pattern(text, &path.index(i), mistakes));
    compiled.collect::<Vec<_>>().into_iter().flatten().collect()
}

/// Compiles an expression.
fn pattern(text: &str, path: &Path, mistakes: &mut Mistakes) -> Option<Pattern> {
    Pattern::new(text)
        .map_err(|error| {
            let reason = format!("is no regular expression: {error}");
            mistakes.at(path, reason, "use RE2's syntax, without classes of Unicode such as \\p{L}");
        })
        .ok()
}
