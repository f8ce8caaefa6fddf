//! One check: its kind, targets and times.

use super::objective::RawObjective;
use super::{
    RawAmqpProbe, RawCommandProbe, RawDnsProbe, RawGrpcProbe, RawHeartbeatProbe, RawHttpProbe, RawIcmpProbe,
    RawPostgresProbe, RawRedisProbe, RawTcpProbe, RawTlsProbe,
};
use crate::config::host::check_interval;
use crate::config::scrape::resolve_files;
use crate::source::probe::kinds::Kind;
use crate::source::probe::maintenance::Window;
use crate::source::probe::settings::{
    Check, DEFAULT_DOWN_AFTER, DEFAULT_INTERVAL, DEFAULT_TIMEOUT, DEFAULT_UP_AFTER,
};
use crate::source::probe::state::Thresholds;
use crate::source::probe::target::without_credentials;
use crate::source::scrape::settings::TargetGroup;
use pegel_runtime::config::form::{FilePath, Period};
use pegel_runtime::config::section::check_labels;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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
    /// A program of this machine.
    Command,
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
            Self::Command => "command",
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
    /// `icmp`, a name for `heartbeat`. For `command`, what it finds in `{target}`; without it, the check's name.
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
    /// For `kind: command`.
    pub command: Option<RawCommandProbe>,
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
            command: None,
            dns: None,
            http: None,
            icmp: None,
            tcp: None,
            tls: None,
        }
    }
}

impl RawCheck {
    pub(super) fn resolve(
        &self,
        maintenance: Vec<Arc<Window>>,
        path: &Path,
        mistakes: &mut Mistakes,
    ) -> Check {
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
            from_container: false,
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
            ("command", self.command.is_some()),
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
            RawKind::Command => {
                if self.command.is_none() {
                    mistakes.at(&section, "is missing: it says what is run", "add it with args");
                }
                Kind::Command(Box::new(self.command.clone().unwrap_or_default().resolve(&section, mistakes)))
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
        let own_name = [self.name.clone()];
        let named = !self.targets.is_empty() || !self.groups.is_empty() || !self.file_sd.is_empty();
        // A command may look at nothing but the machine.
        let itself = matches!(kind, Kind::Command(_)) && !named && !self.name.is_empty();
        let listed = if itself { &own_name[..] } else { &self.targets[..] };
        add(listed, &self.labels, path);
        for (i, group) in self.groups.iter().enumerate() {
            add(&group.targets, &group.labels, &path.key("groups").index(i));
        }
        if listed.is_empty() && !self.labels.is_empty() {
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
        Kind::Command(_) => "write what the program is to look at; it stands for {target} in args",
        Kind::Icmp(_) => "write a host such as router.example",
        Kind::Dns(_) => "write a name server such as 192.0.2.53 or ns.example:53",
        Kind::Tcp(_) | Kind::Tls(_) => "write a host and a port such as mail.example:25",
    }
}
