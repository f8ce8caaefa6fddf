//! The agent's configuration: a raw form that mirrors the YAML, resolved into typed settings.
//!
//! An agent needs no file: an aggregator's address and a certificate on the command line are enough, and every other
//! key has a default that does the useful thing. [`pegel_runtime::config`] says how a file is read.

mod buffer;
mod container;
mod host;
mod labels;
mod log;
mod probe;
mod runtimes;
mod scrape;
mod uplink;

pub use buffer::{BufferSettings, RawBuffer, RawWhenFull};
pub use container::RawContainers;
pub use host::{RawFilter, RawHost};
pub use labels::{RawContainerPreset, RawHostPreset, RawProbePreset};
pub use log::{LogSettings as LogSourceSettings, RawFileStart, RawFiles, RawLogBuffer, RawLogInput, RawLogs};
pub use probe::{RawCheck, RawProbes};
pub use runtimes::{RawRuntimeKind, RawRuntimes, RawSocket};
pub use scrape::{RawFormat, RawJob, RawScheme, RawScrape, RawTargetGroup};
pub use uplink::{RawUplink, UplinkSettings};

use crate::source;
use pegel_proto::metrics::Labels;
use pegel_runtime::admin::{AdminSettings, RawAdmin};
use pegel_runtime::config::form::{FilePath, Period};
use pegel_runtime::config::section::{check_labels, labels};
use pegel_runtime::config::{BadConfig, Input, Loaded, Mistakes, Path, load};
use pegel_runtime::telemetry::LogSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The port of the agent's admin HTTP.
pub const DEFAULT_ADMIN_PORT: u16 = 9464;
/// How long a drain may take after SIGTERM: well under the 90 s after which systemd kills.
pub const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Configuration of pegel-agent.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"aggregators": "aggregator", "state_directory": "state_dir", "labels": "external_labels"}))]
pub struct RawAgent {
    /// The aggregators and how the agent proves itself to them.
    pub aggregator: RawUplink,
    /// The directory for what must survive a restart: positions, the books, and the spool while an aggregator or a
    /// backend is away.
    pub state_dir: FilePath,
    /// Labels that every series of this agent carries. A series' own label of that name wins.
    pub external_labels: BTreeMap<String, String>,
    /// The machine's own metrics, with node_exporter's names.
    pub host: RawHost,
    /// Containers and other cgroups, with cAdvisor's names.
    pub containers: RawContainers,
    /// Exporters that are scraped.
    pub scrape: RawScrape,
    /// Synthetic checks, with blackbox_exporter's names.
    pub probes: RawProbes,
    /// Logs, to Loki.
    pub logs: RawLogs,
    /// What is kept while it cannot be sent.
    pub buffer: RawBuffer,
    /// How long the agent may take to end: to send what is in memory, or to write it to the spool.
    pub shutdown_timeout: Period,
    /// Metrics and health of the agent itself.
    pub admin: RawAdmin,
    /// Logging, to stderr.
    pub log: LogSettings,
}

impl Default for RawAgent {
    fn default() -> Self {
        Self {
            aggregator: RawUplink::default(),
            state_dir: "/var/lib/pegel-agent".into(),
            external_labels: BTreeMap::new(),
            host: RawHost::default(),
            containers: RawContainers::default(),
            scrape: RawScrape::default(),
            probes: RawProbes::default(),
            logs: RawLogs::default(),
            buffer: RawBuffer::default(),
            shutdown_timeout: Period(DEFAULT_SHUTDOWN_TIMEOUT),
            admin: RawAdmin::on_port(DEFAULT_ADMIN_PORT),
            log: LogSettings::default(),
        }
    }
}

/// What the configuration is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To run, or to see whether it could: there has to be an aggregator.
    Run,
    /// To collect once and print: where data would go does not matter.
    Collect,
}

/// The agent's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The uplink.
    pub uplink: UplinkSettings,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Labels of every series.
    pub external_labels: Arc<Labels>,
    /// The host source; none if it is turned off.
    pub host: Option<source::host::Settings>,
    /// Container accounting; none if it is turned off.
    pub containers: Option<source::container::Settings>,
    /// The scrape source.
    pub scrape: source::scrape::settings::Settings,
    /// The probe source.
    pub probes: source::probe::settings::Settings,
    /// Logs.
    pub logs: LogSourceSettings,
    /// Intake, front, spool and rejects.
    pub buffer: BufferSettings,
    /// The bound of the drain.
    pub shutdown_timeout: Duration,
    /// Admin HTTP.
    pub admin: AdminSettings,
    /// Logging.
    pub log: LogSettings,
}

/// Reads, checks and resolves the agent's configuration.
pub fn load_settings(input: &Input, purpose: Purpose) -> Result<Loaded<Settings>, BadConfig> {
    load(input, |raw: &RawAgent, mistakes| raw.resolve(purpose, mistakes))
}

/// The body of the configuration's fuzz target.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    pegel_runtime::config::fuzz(bytes, |raw: &RawAgent, mistakes| raw.resolve(Purpose::Run, mistakes));
}

impl RawAgent {
    /// Resolves the whole form, saying all that is wrong.
    pub fn resolve(&self, purpose: Purpose, mistakes: &mut Mistakes) -> Settings {
        let root = Path::root();
        check_labels(&self.external_labels, |_| false, &root.key("external_labels"), mistakes);
        let host = self.host.resolve(&root.key("host"), mistakes);
        let containers = self.containers.resolve(&root.key("containers"), mistakes);
        let scrape = self.scrape.resolve(&root.key("scrape"), mistakes);
        let mut probes = self.probes.resolve(&root.key("probes"), mistakes);
        let collects = host.is_some()
            || containers.is_some()
            || !scrape.jobs.is_empty()
            || !probes.checks.is_empty()
            || !self.logs.inputs.is_empty();
        if purpose == Purpose::Run && !collects {
            let reason =
                "nothing would be collected: hosts and containers are off and no job scrapes anything";
            mistakes.warn(&root.key("host"), reason, "turn host on, or add a job to scrape.jobs");
        }
        let state_dir = mistakes.path_of(&root.key("state_dir"), &self.state_dir);
        probes.state_dir = (purpose == Purpose::Run).then(|| state_dir.clone());
        let logs = self.logs.resolve(&self.buffer, &state_dir, &root.key("logs"), mistakes);
        Settings {
            logs,
            buffer: self.buffer.resolve(&state_dir, &root.key("buffer"), mistakes),
            state_dir,
            uplink: self.aggregator.resolve(purpose, &root.key("aggregator"), mistakes),
            external_labels: Arc::new(labels(&self.external_labels)),
            host,
            containers,
            scrape,
            probes,
            shutdown_timeout: self.shutdown_timeout.0,
            admin: self.admin.resolve(&root.key("admin"), mistakes),
            log: self.log.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
