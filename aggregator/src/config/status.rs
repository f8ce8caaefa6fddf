//! `recent`, `node_up` and `status`: what the aggregator itself tells of nodes.

use pegel_proto::identity::OutputName;
use pegel_runtime::admin::refuse_remote;
use pegel_runtime::config::form::{FilePath, Listen, Period};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The history of a node's main series: an hour shows what happened before somebody looked.
pub const DEFAULT_HISTORY: Duration = Duration::from_secs(3600);

/// The raw form of `recent`.
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
}

impl Default for RawRecent {
    fn default() -> Self {
        Self { history: Period(DEFAULT_HISTORY), series_per_node: 200_000, series: 4_000_000, nodes: 10_000 }
    }
}

/// The recent past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentSettings {
    /// Its name as an output, where there is no other.
    pub name: OutputName,
    /// How long values of silent nodes are kept.
    pub history: Duration,
    /// The most series of one node.
    pub series_per_node: usize,
    /// The most series.
    pub series: usize,
    /// The most nodes.
    pub nodes: usize,
}

impl RawRecent {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> RecentSettings {
        if self.history.0 < Duration::from_secs(60) || self.history.0 > Duration::from_secs(86_400) {
            let reason = format!("`{}` is not a history that fits memory and a page", self.history);
            mistakes.at(&path.key("history"), reason, "use something between 1m and 1d");
        }
        RecentSettings {
            name: OutputName::parse("recent").expect("the name is valid"),
            history: self.history.0,
            series_per_node: self.series_per_node as usize,
            series: self.series as usize,
            nodes: self.nodes as usize,
        }
    }
}

/// The raw form of `node_up`.
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
}

impl Default for RawNodeUp {
    fn default() -> Self {
        Self { enabled: true, interval: Period::seconds(15), forget_after: Period::seconds(7 * 86_400) }
    }
}

/// `pegel_node_up`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeUpSettings {
    /// Whether it is written.
    pub enabled: bool,
    /// How often.
    pub interval: Duration,
    /// When a silent node is forgotten.
    pub forget_after: Duration,
}

impl RawNodeUp {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> NodeUpSettings {
        if self.interval.0 < Duration::from_secs(1) || self.interval.0 > Duration::from_secs(120) {
            let reason = format!("`{}` does not suit alerts", self.interval);
            mistakes.at(&path.key("interval"), reason, "use something between 1s and 2m");
        }
        if self.forget_after.0 < 4 * self.interval.0 {
            let reason = format!("`{}` forgets a node before an alert can fire", self.forget_after);
            mistakes.at(&path.key("forget_after"), reason, "use some days");
        }
        NodeUpSettings { enabled: self.enabled, interval: self.interval.0, forget_after: self.forget_after.0 }
    }
}

/// The raw form of `status`: the page and its API.
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
    /// This aggregator's name on the page; without it the host's.
    pub name: Option<String>,
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
        Self {
            enabled: true,
            listen: Listen(SocketAddr::from((Ipv4Addr::LOCALHOST, super::DEFAULT_STATUS_PORT))),
            allow_remote: false,
            address_file: None,
            name: None,
            tick: Period::seconds(1),
            event_streams: 128,
            series_per_answer: 100_000,
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
    /// Whether it is meant for other machines, which reach it by names that nobody here knows.
    pub allow_remote: bool,
    /// Where the bound address is written.
    pub address_file: Option<PathBuf>,
    /// The aggregator's name.
    pub name: Option<String>,
    /// How often pages are told of changes.
    pub tick: Duration,
    /// The most event streams.
    pub event_streams: usize,
    /// The most series in one answer.
    pub series_per_answer: usize,
}

impl RawStatus {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> StatusSettings {
        if self.enabled {
            refuse_remote(&self.listen, self.allow_remote, path, mistakes);
        }
        if self.tick.0 < Duration::from_millis(100) || self.tick.0 > Duration::from_secs(60) {
            mistakes.at(&path.key("tick"), format!("`{}` does not suit a page", self.tick), "use 1s");
        }
        StatusSettings {
            enabled: self.enabled,
            listen: self.listen.0,
            allow_remote: self.allow_remote,
            address_file: self
                .address_file
                .as_ref()
                .map(|file| mistakes.path_of(&path.key("address_file"), file)),
            name: self.name.clone(),
            tick: self.tick.0,
            event_streams: self.event_streams as usize,
            series_per_answer: self.series_per_answer as usize,
        }
    }
}
