//! `recent`, `node_up` and `status`: what the aggregator itself tells of nodes.

use crate::node_up;
use crate::output::{recent, recent_logs};
use crate::status;
use pegel_runtime::admin::refuse_remote;
use pegel_runtime::config::form::{ByteSize, FilePath, Listen, Period};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The most that anybody may give to the newest log entries: what does not fit 32 bits is a slip.
const MAX_LOG_BYTES: u64 = 4 << 30;

/// The recent past in memory.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"forget_after": "history", "retention": "history"}))]
pub struct RawRecent {
    /// How long a silent node's values and the history of its main series are kept.
    pub history: Period,
    /// The most series of one node; more are not kept.
    #[schemars(range(min = 1))]
    pub series_per_node: u32,
    /// The most series of all nodes together, at about 8 bytes each.
    #[schemars(range(min = 1))]
    pub series: u32,
    /// The most nodes, at about 10 KB each.
    #[schemars(range(min = 1))]
    pub nodes: u32,
    /// The newest log entries, behind `pegel tail` and the page.
    pub logs: RawRecentLogs,
}

/// The newest log entries of each node in memory, and who may follow them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawRecentLogs {
    /// The most of one node.
    pub per_node: ByteSize,
    /// The most entries of one node.
    #[schemars(range(min = 1))]
    pub entries_per_node: u32,
    /// The most of all nodes together; where it is not enough for `per_node`, all have an equal share of it.
    pub total: ByteSize,
    /// How many may follow at a time. Those whom a tenant's certificate lets in may take a quarter of the places for
    /// each tenant.
    #[schemars(range(min = 1))]
    pub followers: u32,
    /// The most that waits for a follower that is slow; what exceeds it is not shown, and told.
    pub queue: ByteSize,
}

impl Default for RawRecentLogs {
    fn default() -> Self {
        let settings = recent_logs::Settings::default();
        Self {
            per_node: ByteSize(settings.max_bytes_per_node as u64),
            entries_per_node: settings.max_entries_per_node as u32,
            total: ByteSize(settings.max_bytes as u64),
            followers: settings.max_followers as u32,
            queue: ByteSize(settings.max_queue_bytes as u64),
        }
    }
}

impl Default for RawRecent {
    fn default() -> Self {
        let settings = recent::Settings::default();
        Self {
            history: Period(settings.forget_after),
            series_per_node: settings.max_series_per_node as u32,
            series: settings.max_series as u32,
            nodes: settings.max_nodes as u32,
            logs: RawRecentLogs::default(),
        }
    }
}

impl RawRecent {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> recent::Settings {
        if self.history.0 < Duration::from_mins(1) || self.history.0 > Duration::from_hours(24) {
            let reason = format!("`{}` is not a history that fits memory and a page", self.history);
            mistakes.at(&path.key("history"), reason, "use something between 1m and 1d");
        }
        recent::Settings {
            max_series_per_node: self.series_per_node as usize,
            max_series: self.series as usize,
            max_nodes: self.nodes as usize,
            forget_after: self.history.0,
            ..recent::Settings::default()
        }
    }
}

impl RawRecent {
    pub(super) fn resolve_logs(
        &self,
        recent: &recent::Settings,
        path: &Path,
        mistakes: &mut Mistakes,
    ) -> recent_logs::Settings {
        let path = path.key("logs");
        let logs = &self.logs;
        if logs.per_node.0 > logs.total.0 {
            let reason = format!("{} for one node is more than {} for all", logs.per_node, logs.total);
            mistakes.at(&path.key("per_node"), reason, "make it smaller than `total`");
        }
        for (key, size) in [("total", &logs.total), ("queue", &logs.queue)] {
            if size.0 > MAX_LOG_BYTES {
                let reason = format!("{size} is more than a page's past is worth");
                mistakes.at(&path.key(key), reason, "use 4GiB at most");
            }
        }
        recent_logs::Settings {
            name: recent.name.clone(),
            max_bytes_per_node: logs.per_node.0 as usize,
            max_entries_per_node: logs.entries_per_node as usize,
            max_bytes: logs.total.0.min(MAX_LOG_BYTES) as usize,
            max_nodes: recent.max_nodes,
            max_followers: logs.followers as usize,
            max_queue_bytes: logs.queue.0.min(MAX_LOG_BYTES) as usize,
            forget_after: recent.forget_after,
        }
    }
}

/// `pegel_node_up`: 1 for a node whose agent is connected, 0 for one that was.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawNodeUp {
    /// Whether it is written.
    pub enabled: bool,
    /// How often it is written.
    pub interval: Period,
    /// How long it is 0 for a node that is silent before the node is forgotten: longer than the longest silence that
    /// somebody has to hear of.
    pub forget_after: Period,
    /// The label `aggregator` of the series: needed where several aggregators write to one backend, so that their
    /// series differ.
    pub aggregator_label: Option<String>,
}

impl Default for RawNodeUp {
    fn default() -> Self {
        let settings = node_up::Settings::default();
        Self {
            enabled: true,
            interval: Period(settings.refresh),
            forget_after: Period(settings.forget_after),
            aggregator_label: settings.aggregator,
        }
    }
}

impl RawNodeUp {
    /// The settings; none if it is turned off.
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Option<node_up::Settings> {
        if self.interval.0 < Duration::from_secs(1) || self.interval.0 > Duration::from_mins(2) {
            let reason = format!("`{}` does not suit alerts", self.interval);
            mistakes.at(&path.key("interval"), reason, "use something between 1s and 2m");
        }
        if self.forget_after.0 < 4 * self.interval.0 {
            let reason = format!("`{}` forgets a node before an alert can fire", self.forget_after);
            mistakes.at(&path.key("forget_after"), reason, "use some days");
        }
        self.enabled.then(|| node_up::Settings {
            refresh: self.interval.0,
            forget_after: self.forget_after.0,
            aggregator: self.aggregator_label.clone(),
        })
    }
}

/// The page and its API.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawStatus {
    /// Whether the page is served.
    pub enabled: bool,
    /// The address to listen on. Port 0 takes a free one; see `address_file`.
    pub listen: Listen,
    /// Allows an address that other machines reach. There is no authentication: whoever reaches it sees all nodes.
    pub allow_remote: bool,
    /// A file to which the bound address is written, for scripts that choose port 0.
    pub address_file: Option<FilePath>,
    /// An address on which tenants are answered at `/api/v1/status` and `/api/v1/tail` over HTTPS, as `[::]:4435`:
    /// each caller shows a certificate like an agent's and sees the nodes, checks and log entries of its tenant. Without it they are not.
    pub tenants_listen: Option<Listen>,
    /// How old a value may be for `/federate`, and how long ago a check may have run before its state is unknown.
    pub look_back: Period,
    /// How often pages are told of changes.
    pub tick: Period,
    /// How many pages may listen for changes at a time.
    #[schemars(range(min = 1))]
    pub event_streams: u32,
    /// The most series in one answer.
    #[schemars(range(min = 1))]
    pub series_per_answer: u32,
}

impl Default for RawStatus {
    fn default() -> Self {
        let settings = status::Settings::default();
        Self {
            enabled: true,
            listen: Listen(SocketAddr::from((Ipv4Addr::LOCALHOST, super::DEFAULT_STATUS_PORT))),
            allow_remote: false,
            address_file: None,
            tenants_listen: None,
            tick: Period(settings.tick),
            event_streams: settings.max_event_streams as u32,
            series_per_answer: settings.max_answer_series as u32,
            look_back: Period(settings.look_back),
        }
    }
}

/// The page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSettings {
    /// Whether it is served.
    pub enabled: bool,
    /// Where.
    pub listen: SocketAddr,
    /// Where the bound address is written.
    pub address_file: Option<PathBuf>,
    /// Where tenants are answered.
    pub tenants_listen: Option<SocketAddr>,
    /// What it shows, and to whom.
    pub status: status::Settings,
}

impl RawStatus {
    pub(super) fn resolve(&self, name: &str, path: &Path, mistakes: &mut Mistakes) -> StatusSettings {
        if self.enabled {
            refuse_remote(&self.listen, self.allow_remote, path, mistakes);
        }
        if self.tick.0 < Duration::from_millis(100) || self.tick.0 > Duration::from_mins(1) {
            mistakes.at(&path.key("tick"), format!("`{}` does not suit a page", self.tick), "use 1s");
        }
        StatusSettings {
            enabled: self.enabled,
            listen: self.listen.0,
            address_file: self
                .address_file
                .as_ref()
                .map(|file| mistakes.path_of(&path.key("address_file"), file)),
            tenants_listen: self.tenants_listen.as_ref().map(|listen| listen.0),
            status: status::Settings {
                name: name.to_owned(),
                hosts: if self.listen.0.ip().is_loopback() {
                    status::Hosts::Loopback
                } else {
                    status::Hosts::Any
                },
                tick: self.tick.0,
                max_event_streams: self.event_streams as usize,
                max_answer_series: self.series_per_answer as usize,
                look_back: self.look_back.0,
                ..status::Settings::default()
            },
        }
    }
}
