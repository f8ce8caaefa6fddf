//! `host`: the machine's own metrics.

use pegel_runtime::config::form::{FilePath, Period};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// How often the host is read: what most dashboards' rate windows (`[1m]`) are made for, four samples in each.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);
/// The shortest interval of any source. At 100 ms the default collectors take about one percent of a core.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// How long one collector may hold up a scrape. A healthy one takes under a millisecond; a machine that swaps hard
/// delays a thread by some hundred.
pub const DEFAULT_COLLECTOR_TIMEOUT: Duration = Duration::from_secs(2);

macro_rules! collector_names {
    ($($(#[$doc:meta])* $kind:ident $name:literal;)*) => {
        /// The collectors.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum CollectorName {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)*
        }

        impl CollectorName {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The name, as in node_exporter's flags.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

collector_names! {
    /// Processor time, throttling, isolation.
    Cpu "cpu";
    /// Block devices.
    Diskstats "diskstats";
    /// Open files of the whole system.
    Filefd "filefd";
    /// Space and inodes of mounted filesystems.
    Filesystem "filesystem";
    /// Load averages.
    Loadavg "loadavg";
    /// Memory.
    Meminfo "meminfo";
    /// Network interfaces.
    Netdev "netdev";
    /// Counters of network protocols.
    Netstat "netstat";
    /// Pressure stall information.
    Pressure "pressure";
    /// Boots, forks, context switches, interrupts.
    Stat "stat";
    /// The clock.
    Time "time";
    /// Kernel and machine.
    Uname "uname";
    /// Virtual memory.
    Vmstat "vmstat";
}

/// The raw form of `host`. Its defaults are node_exporter's.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"scrape_interval": "interval", "include": "collectors", "exclude": "without_collectors"}))]
pub struct RawHost {
    /// Whether the host is read.
    pub enabled: bool,
    /// Time from one reading to the next.
    pub interval: Period,
    /// The collectors that run.
    pub collectors: Vec<CollectorName>,
    /// Collectors to leave out of those.
    pub without_collectors: Vec<CollectorName>,
    /// The longest that one collector holds up a reading; at most half the interval is used.
    pub collector_timeout: Period,
    /// The label `job`.
    pub job: String,
    /// The label `instance`; without it the host's name.
    pub instance: Option<String>,
    /// Where procfs is mounted.
    pub procfs: FilePath,
    /// Where sysfs is mounted.
    pub sysfs: FilePath,
    /// Where the host's root filesystem is mounted; mount points are reported without this prefix.
    pub rootfs: FilePath,
    /// Network interfaces.
    pub network_devices: RawFilter,
    /// Block devices.
    pub disk_devices: RawFilter,
    /// Mount points of the filesystem collector.
    pub mount_points: RawFilter,
    /// Filesystem types of the filesystem collector.
    pub filesystem_types: RawFilter,
}

/// Names to take or to leave. Patterns are whole names in which `*` stands for anything. What is neither said here
/// nor taken by `include` follows node_exporter's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawFilter {
    /// Only names that match one of these.
    pub include: Vec<String>,
    /// No names that match one of these, in place of node_exporter's default exclusion.
    pub exclude: Option<Vec<String>>,
}

impl Default for RawHost {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Period(DEFAULT_INTERVAL),
            collectors: CollectorName::ALL.to_vec(),
            without_collectors: Vec::new(),
            collector_timeout: Period(DEFAULT_COLLECTOR_TIMEOUT),
            job: "node".to_owned(),
            instance: None,
            procfs: "/proc".into(),
            sysfs: "/sys".into(),
            rootfs: "/".into(),
            network_devices: RawFilter::default(),
            disk_devices: RawFilter::default(),
            mount_points: RawFilter::default(),
            filesystem_types: RawFilter::default(),
        }
    }
}

/// Settings of the host source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// Time from one reading to the next.
    pub interval: Duration,
    /// The collectors that run, each once, sorted.
    pub collectors: Vec<CollectorName>,
    /// The bound of one collector.
    pub collector_timeout: Duration,
    /// The label `job`.
    pub job: String,
    /// The label `instance`; none for the host's name.
    pub instance: Option<String>,
    /// Where procfs is.
    pub procfs: PathBuf,
    /// Where sysfs is.
    pub sysfs: PathBuf,
    /// Where the host's root is.
    pub rootfs: PathBuf,
    /// Network interfaces.
    pub network_devices: FilterSettings,
    /// Block devices.
    pub disk_devices: FilterSettings,
    /// Mount points.
    pub mount_points: FilterSettings,
    /// Filesystem types.
    pub filesystem_types: FilterSettings,
}

/// Names to take or to leave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterSettings {
    /// If there are any, a name has to match one.
    pub include: Vec<String>,
    /// A name must match none; without a list the collector's default is used.
    pub exclude: Option<Vec<String>>,
}

impl RawHost {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Option<HostSettings> {
        check_interval(&self.interval, &path.key("interval"), mistakes);
        if self.collector_timeout.0.is_zero() {
            mistakes.at(&path.key("collector_timeout"), "gives collectors no time at all", "use 2s");
        }
        let mut collectors = self.collectors.clone();
        collectors.sort_unstable();
        collectors.dedup();
        collectors.retain(|name| !self.without_collectors.contains(name));
        if self.enabled && collectors.is_empty() {
            mistakes.at(
                &path.key("collectors"),
                "no collector is left",
                "name one, or set host.enabled: false",
            );
        }
        if self.job.is_empty() {
            mistakes.at(&path.key("job"), "is empty", "use a name such as `node`");
        }
        let mut filter = |key: &str, filter: &RawFilter| {
            let path = path.key(key);
            let exclude = filter.exclude.iter().flatten().map(|pattern| ("exclude", pattern));
            for (list, pattern) in filter.include.iter().map(|pattern| ("include", pattern)).chain(exclude) {
                if pattern.is_empty() {
                    mistakes.at(
                        &path.key(list),
                        "has an empty pattern, which matches nothing",
                        "take it out",
                    );
                }
            }
            FilterSettings { include: filter.include.clone(), exclude: filter.exclude.clone() }
        };
        let settings = HostSettings {
            interval: self.interval.0,
            collectors,
            collector_timeout: self.collector_timeout.0,
            job: self.job.clone(),
            instance: self.instance.clone(),
            procfs: self.procfs.0.clone(),
            sysfs: self.sysfs.0.clone(),
            rootfs: self.rootfs.0.clone(),
            network_devices: filter("network_devices", &self.network_devices),
            disk_devices: filter("disk_devices", &self.disk_devices),
            mount_points: filter("mount_points", &self.mount_points),
            filesystem_types: filter("filesystem_types", &self.filesystem_types),
        };
        self.enabled.then_some(settings)
    }
}

/// Checks that an interval is neither so short that collecting never ends nor so long that a series goes stale.
pub(super) fn check_interval(interval: &Period, path: &Path, mistakes: &mut Mistakes) {
    if interval.0 < MIN_INTERVAL {
        mistakes.at(
            path,
            format!("`{interval}` is too short"),
            format!("use {} or more", Period(MIN_INTERVAL)),
        );
    }
    // PromQL looks back five minutes by default; above that, gaps show between every two samples.
    if interval.0 > Duration::from_secs(300) {
        let reason =
            format!("`{interval}` is longer than PromQL's look-back of 5m, so graphs will have gaps");
        mistakes.warn(path, reason, "use 2m or less");
    }
}
