//! The aggregator's configuration: a raw form that mirrors the YAML, resolved into typed settings.
//!
//! An aggregator needs certificates; without an output it keeps the recent past in memory, behind its page.
//! [`pegel_runtime::config`] says how a file is read.

mod limits;
mod output;
mod receiver;
mod status;

pub use limits::RawLimits;
pub use output::{OutputSettings, RawLoki, RawNames, RawOutput, RawProtocol, RawRemoteWrite};
pub use receiver::{RawReceiverTls, ReceiverTlsSettings};
pub use status::{RawNodeUp, RawRecent, RawRecentLogs, RawStatus, StatusSettings};

use crate::output::{recent, recent_logs};
use pegel_runtime::admin::{AdminSettings, RawAdmin};
use pegel_runtime::config::form::{FilePath, Listen, Period};
use pegel_runtime::config::{BadConfig, Input, Loaded, Mistakes, Path, load};
use pegel_runtime::telemetry::LogSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The port of the aggregator's admin HTTP; the agent's is the one before.
pub const DEFAULT_ADMIN_PORT: u16 = 9465;
/// The port of the page.
pub const DEFAULT_STATUS_PORT: u16 = 4434;
/// How long a drain may take after SIGTERM: two requests to a slow backend, and well under the 30 s after which
/// Kubernetes kills.
pub const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// Configuration of pegel-aggregator.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"output": "outputs", "page": "status", "remote_write": "outputs"}))]
pub struct RawAggregator {
    /// This aggregator's name, as agents and the page show it; without it the host's.
    pub name: Option<String>,
    /// The addresses that agents connect to, QUIC over UDP. Port 0 takes a free one; see `listen_address_file`.
    pub listen: Vec<Listen>,
    /// A file to which the bound addresses are written, one a line, for scripts that choose port 0.
    pub listen_address_file: Option<FilePath>,
    /// The aggregator's certificate, and which agents it accepts.
    pub tls: RawReceiverTls,
    /// Where data goes. Without one, `recent` acknowledges and the data is only kept in memory.
    pub outputs: Vec<RawOutput>,
    /// The recent past in memory, behind the page.
    pub recent: RawRecent,
    /// `pegel_node_up`, written for each known agent.
    pub node_up: RawNodeUp,
    /// What agents and tenants may take.
    pub limits: RawLimits,
    /// The page and its API.
    pub status: RawStatus,
    /// How long the aggregator may take to end: agents are handed over, requests under way end.
    pub shutdown_timeout: Period,
    /// Metrics and health of the aggregator itself.
    pub admin: RawAdmin,
    /// Logging, to stderr.
    pub log: LogSettings,
}

impl Default for RawAggregator {
    fn default() -> Self {
        let receiver = crate::receiver::Settings::default();
        Self {
            name: None,
            listen: receiver.listen.iter().copied().map(Listen).collect(),
            listen_address_file: None,
            tls: RawReceiverTls::default(),
            outputs: Vec::new(),
            recent: RawRecent::default(),
            node_up: RawNodeUp::default(),
            limits: RawLimits::default(),
            status: RawStatus::default(),
            shutdown_timeout: Period(DEFAULT_SHUTDOWN_TIMEOUT),
            admin: RawAdmin::on_port(DEFAULT_ADMIN_PORT),
            log: LogSettings::default(),
        }
    }
}

/// The aggregator's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The aggregator's name.
    pub name: String,
    /// Where agents connect, and what they may take.
    pub receiver: crate::receiver::Settings,
    /// Where the bound addresses are written.
    pub listen_address_file: Option<PathBuf>,
    /// TLS towards agents.
    pub tls: ReceiverTlsSettings,
    /// The outputs, each with a name of its own.
    pub outputs: Vec<OutputSettings>,
    /// The recent past.
    pub recent: recent::Settings,
    /// The newest log entries.
    pub recent_logs: recent_logs::Settings,
    /// `pegel_node_up`; none if it is turned off.
    pub node_up: Option<crate::node_up::Settings>,
    /// The page.
    pub status: StatusSettings,
    /// The bound of the drain.
    pub shutdown_timeout: Duration,
    /// Admin HTTP.
    pub admin: AdminSettings,
    /// Logging.
    pub log: LogSettings,
}

/// Reads, checks and resolves the aggregator's configuration.
pub fn load_settings(input: &Input) -> Result<Loaded<Settings>, BadConfig> {
    load(input, RawAggregator::resolve)
}

/// The body of the configuration's fuzz target.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    pegel_runtime::config::fuzz(bytes, RawAggregator::resolve);
}

/// The host's name, as the kernel has it.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

impl RawAggregator {
    /// Resolves the whole form, saying all that is wrong.
    pub fn resolve(&self, mistakes: &mut Mistakes) -> Settings {
        let root = Path::root();
        let recent = self.recent.resolve(&root.key("recent"), mistakes);
        if self.listen.is_empty() {
            mistakes.at(&root.key("listen"), "is an empty list", "name an address such as `[::]:4433`");
        }
        let name = self.name.clone().or_else(host_name).unwrap_or_else(|| "aggregator".to_owned());
        Settings {
            receiver: crate::receiver::Settings {
                listen: self.listen.iter().map(|listen| listen.0).collect(),
                name: name.clone(),
                drain: self.shutdown_timeout.0,
                ..self.limits.resolve(&root.key("limits"), mistakes)
            },
            listen_address_file: self
                .listen_address_file
                .as_ref()
                .map(|file| mistakes.path_of(&root.key("listen_address_file"), file)),
            tls: self.tls.resolve(&root.key("tls"), mistakes),
            outputs: output::resolve(&self.outputs, &recent.name, &root.key("outputs"), mistakes),
            recent_logs: self.recent.resolve_logs(&recent, &root.key("recent"), mistakes),
            recent,
            node_up: self.node_up.resolve(&root.key("node_up"), mistakes),
            status: self.status.resolve(&name, &root.key("status"), mistakes),
            name,
            shutdown_timeout: self.shutdown_timeout.0,
            admin: self.admin.resolve(&root.key("admin"), mistakes),
            log: self.log.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
