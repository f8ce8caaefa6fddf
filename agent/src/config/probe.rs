//! `probes`: synthetic checks.

mod http;
mod maintenance;
mod objective;
mod service;
mod tls;
mod wire;

pub use http::RawHttpProbe;
pub use maintenance::RawMaintenance;
pub use objective::RawObjective;
pub use service::{RawAmqpProbe, RawGrpcProbe, RawHeartbeatProbe, RawPostgresProbe, RawRedisProbe};
pub use tls::RawProbeTls;
pub use wire::{RawDnsProbe, RawIcmpProbe, RawTcpProbe, RawTlsProbe};

use super::host::check_interval;
use super::labels::{self, RawProbePreset};
use super::scrape::resolve_files;
use crate::source::probe::kinds::Kind;
use crate::source::probe::kinds::assertion::Pattern;
use crate::source::probe::maintenance::Window;
use crate::source::probe::net::resolve::Families;
use crate::source::probe::settings::{
    Check, DEFAULT_DOWN_AFTER, DEFAULT_FILE_SD_REFRESH, DEFAULT_INTERVAL, DEFAULT_MAX_RUNNING,
    DEFAULT_TIMEOUT, DEFAULT_UP_AFTER, Settings,
};
use crate::source::probe::state::Thresholds;
use crate::source::probe::target::without_credentials;
use crate::source::scrape::settings::TargetGroup;
use pegel_runtime::config::form::{FilePath, Listen, Period};
use pegel_runtime::config::section::check_labels;
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
            max_running: DEFAULT_MAX_RUNNING as u32,
            name_servers: Vec::new(),
            file_sd_refresh: Period(DEFAULT_FILE_SD_REFRESH),
            container_labels: true,
        }
    }
}

/// What a check does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawKind {
    /// A question to a name server.
    Dns,
    /// A request over HTTP or HTTPS.
    #[default]
    Http,
    /// An ICMP echo.
    Icmp,
    /// A TCP connection and what is said over it.
    Tcp,
    /// A certificate.
    Tls,
    /// `PING` of Redis.
    Redis,
    /// A query of PostgreSQL.
    Postgres,
    /// A connection to an AMQP broker such as RabbitMQ.
    Amqp,
    /// The health of a gRPC server.
    Grpc,
    /// A job that has to call in.
    Heartbeat,
}

impl RawKind {
    /// The section with its settings.
    fn section(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Http => "http",
            Self::Icmp => "icmp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Amqp => "amqp",
            Self::Grpc => "grpc",
            Self::Heartbeat => "heartbeat",
        }
    }
}

/// Some targets and the labels that they share.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["targets"]))]
pub struct RawCheckGroup {
    /// Targets.
    pub targets: Vec<String>,
    /// Labels of all their series.
    pub labels: BTreeMap<String, String>,
}

/// Targets that are checked in the same way.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "required" = ["name", "kind"],
    "x-renamed" = {"prober": "kind", "static_configs": "groups", "file_sd_configs": "file_sd"},
    "x-refused" = {"module": "each check has its settings itself: write them under its kind, `http:` for example"}
))]
pub struct RawCheck {
    /// The label `check` of its series.
    pub name: String,
    /// What is done.
    pub kind: RawKind,
    /// Targets: URLs for `http`, a host and a port for `tcp`, `tls` (443) and `dns` (53, with TLS 853), a host for
    /// `icmp`.
    pub targets: Vec<String>,
    /// Labels of the series of `targets`.
    pub labels: BTreeMap<String, String>,
    /// More targets, with labels of their own.
    pub groups: Vec<RawCheckGroup>,
    /// Files with more targets, in Prometheus' format, JSON or YAML by their ending; the last part of the path may
    /// hold `*` and `?`.
    pub file_sd: Vec<FilePath>,
    /// Time from run to run.
    pub interval: Period,
    /// How long an attempt may take; without it 10s, or what the interval leaves to each attempt if that is shorter.
    pub timeout: Option<Period>,
    /// How many attempts more a run makes when one fails. It fails when the last one does.
    #[schemars(range(max = 10))]
    pub retries: u32,
    /// Failed runs in a row until a target counts as down.
    #[schemars(range(min = 1, max = 1000))]
    pub down_after: u32,
    /// Good runs in a row until a target that was down counts as up.
    #[schemars(range(min = 1, max = 1000))]
    pub up_after: u32,
    /// What its users may expect, for `pegel-agent rules`.
    pub objective: Option<RawObjective>,
    /// For `kind: redis`.
    pub redis: Option<RawRedisProbe>,
    /// For `kind: postgres`.
    pub postgres: Option<RawPostgresProbe>,
    /// For `kind: amqp`.
    pub amqp: Option<RawAmqpProbe>,
    /// For `kind: grpc`.
    pub grpc: Option<RawGrpcProbe>,
    /// For `kind: heartbeat`.
    pub heartbeat: Option<RawHeartbeatProbe>,
    /// For `kind: dns`.
    pub dns: Option<RawDnsProbe>,
    /// For `kind: http`.
    pub http: Option<RawHttpProbe>,
    /// For `kind: icmp`.
    pub icmp: Option<RawIcmpProbe>,
    /// For `kind: tcp`.
    pub tcp: Option<RawTcpProbe>,
    /// For `kind: tls`.
    pub tls: Option<RawTlsProbe>,
}

impl Default for RawCheck {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: RawKind::default(),
            targets: Vec::new(),
            labels: BTreeMap::new(),
            groups: Vec::new(),
            file_sd: Vec::new(),
            interval: Period(DEFAULT_INTERVAL),
            timeout: None,
            retries: 0,
            down_after: DEFAULT_DOWN_AFTER,
            up_after: DEFAULT_UP_AFTER,
            objective: None,
            redis: None,
            postgres: None,
            amqp: None,
            grpc: None,
            heartbeat: None,
            dns: None,
            http: None,
            icmp: None,
            tcp: None,
            tls: None,
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
    fn families(self, fallback: bool) -> Families {
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
            max_running: self.max_running as usize,
            file_sd_refresh: self.file_sd_refresh.0,
            from_containers: self.container_labels,
            state_dir: None,
            name_servers: self.name_servers.iter().map(|server| server.0).collect(),
            labels: labels::resolve(self.preset, &self.labels, path, mistakes),
        }
    }
}

impl RawCheck {
    fn resolve(&self, maintenance: Vec<Arc<Window>>, path: &Path, mistakes: &mut Mistakes) -> Check {
        if self.name.is_empty() {
            mistakes.at(&path.key("name"), "is empty", "give the check a name");
        }
        check_interval(&self.interval, &path.key("interval"), mistakes);
        let timeout = self.resolve_timeout(path, mistakes);
        let kind = self.resolve_kind(path, mistakes);
        let targets = self.resolve_targets(&kind, path, mistakes);
        Check {
            name: self.name.clone(),
            kind,
            targets,
            file_sd: resolve_files(&self.file_sd, path, mistakes),
            interval: self.interval.0,
            timeout,
            retries: self.retries,
            thresholds: Thresholds { down_after: self.down_after.max(1), up_after: self.up_after.max(1) },
            maintenance,
        }
    }

    fn resolve_kind(&self, path: &Path, mistakes: &mut Mistakes) -> Kind {
        let wanted = self.kind.section();
        for (section, said) in [
            ("dns", self.dns.is_some()),
            ("http", self.http.is_some()),
            ("icmp", self.icmp.is_some()),
            ("tcp", self.tcp.is_some()),
            ("tls", self.tls.is_some()),
            ("redis", self.redis.is_some()),
            ("postgres", self.postgres.is_some()),
            ("amqp", self.amqp.is_some()),
            ("grpc", self.grpc.is_some()),
            ("heartbeat", self.heartbeat.is_some()),
        ] {
            if said && section != wanted {
                let reason = format!("is not used by a check of kind {wanted}");
                mistakes.at(&path.key(section), reason, format!("set kind: {section}, or take it out"));
            }
        }
        let section = path.key(wanted);
        match self.kind {
            RawKind::Dns => {
                if self.dns.is_none() {
                    mistakes.at(&section, "is missing: it says what is asked for", "add it with query_name");
                }
                let mut raw = self.dns.clone().unwrap_or_default();
                if self.dns.is_none() {
                    ".".clone_into(&mut raw.query_name);
                }
                Kind::Dns(Box::new(raw.resolve(&section, mistakes)))
            }
            RawKind::Http => {
                Kind::Http(Box::new(self.http.clone().unwrap_or_default().resolve(&section, mistakes)))
            }
            RawKind::Icmp => Kind::Icmp(self.icmp.clone().unwrap_or_default().resolve(&section, mistakes)),
            RawKind::Tcp => {
                Kind::Tcp(Box::new(self.tcp.clone().unwrap_or_default().resolve(&section, mistakes)))
            }
            RawKind::Tls => {
                Kind::Tls(Box::new(self.tls.clone().unwrap_or_default().resolve(&section, mistakes)))
            }
            RawKind::Redis => {
                Kind::Redis(Box::new(self.redis.clone().unwrap_or_default().resolve(&section, mistakes)))
            }
            RawKind::Postgres => Kind::Postgres(Box::new(
                self.postgres.clone().unwrap_or_default().resolve(&section, mistakes),
            )),
            RawKind::Amqp => {
                Kind::Amqp(Box::new(self.amqp.clone().unwrap_or_default().resolve(&section, mistakes)))
            }
            RawKind::Grpc => {
                Kind::Grpc(Box::new(self.grpc.clone().unwrap_or_default().resolve(&section, mistakes)))
            }
            RawKind::Heartbeat => {
                Kind::Heartbeat(self.heartbeat.clone().unwrap_or_default().resolve(&section, mistakes))
            }
        }
    }

    /// All attempts of a run have to fit the interval.
    fn resolve_timeout(&self, path: &Path, mistakes: &mut Mistakes) -> Duration {
        let attempts = self.retries + 1;
        let share = self.interval.0 / attempts;
        let path = path.key("timeout");
        match &self.timeout {
            Some(timeout) if timeout.0.is_zero() => {
                mistakes.at(&path, "gives a check no time at all", "use 10s");
                DEFAULT_TIMEOUT
            }
            Some(timeout) if timeout.0 > share => {
                let reason = match self.retries {
                    0 => format!("`{timeout}` is longer than the interval of {}", self.interval),
                    _ => format!(
                        "{attempts} attempts of `{timeout}` are longer than the interval of {}",
                        self.interval
                    ),
                };
                mistakes.at(&path, reason, "shorten it: a run must end before the next begins");
                share
            }
            Some(timeout) => timeout.0,
            None => DEFAULT_TIMEOUT.min(share),
        }
    }

    fn resolve_targets(&self, kind: &Kind, path: &Path, mistakes: &mut Mistakes) -> Vec<TargetGroup> {
        let mut groups = Vec::new();
        let mut add = |targets: &[String], labels: &BTreeMap<String, String>, path: &Path| {
            check_labels(labels, |_| false, &path.key("labels"), mistakes);
            let mut seen = Vec::new();
            for (i, target) in targets.iter().enumerate() {
                let path = path.key("targets").index(i);
                let shown = without_credentials(target);
                if let Err(reason) = kind.check_address(target) {
                    let remedy = target_remedy(kind);
                    mistakes.at(
                        &path,
                        format!("`{}` cannot be checked: {reason}", shown.escape_debug()),
                        remedy,
                    );
                } else if seen.contains(&target) {
                    mistakes.at(&path, format!("`{}` is listed twice", shown.escape_debug()), "take one out");
                }
                seen.push(target);
            }
            if !targets.is_empty() {
                groups.push(TargetGroup {
                    targets: targets.to_vec(),
                    labels: labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
                });
            }
        };
        add(&self.targets, &self.labels, path);
        for (i, group) in self.groups.iter().enumerate() {
            add(&group.targets, &group.labels, &path.key("groups").index(i));
        }
        if self.targets.is_empty() && !self.labels.is_empty() {
            let reason = "apply to `targets`, and there are none";
            mistakes.at(&path.key("labels"), reason, "write them into groups, or into the files of file_sd");
        }
        let elsewhere = ["groups", "file_sd"].iter().any(|key| mistakes.is_spoken_of(&path.key(key)));
        if groups.is_empty() && self.file_sd.is_empty() && !elsewhere {
            mistakes.at(&path.key("targets"), "the check has no target", "list some, or use file_sd");
        }
        groups
    }
}

/// What to write for a target.
fn target_remedy(kind: &Kind) -> &'static str {
    match kind {
        Kind::Http(_) => "write a URL such as https://shop.example/health",
        Kind::Redis(_) | Kind::Postgres(_) | Kind::Amqp(_) | Kind::Grpc(_) => {
            "write HOST or HOST:PORT, an IPv6 address in brackets"
        }
        Kind::Heartbeat(_) => "write the name by which the job calls in, such as nightly-backup",
        Kind::Icmp(_) => "write a host such as router.example",
        Kind::Dns(_) => "write a name server such as 192.0.2.53 or ns.example:53",
        Kind::Tcp(_) | Kind::Tls(_) => "write a host and a port such as mail.example:25",
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
