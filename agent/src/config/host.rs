//! `host`: the machine's own metrics.

mod options;

pub use options::RawOptions;

use super::labels::{self, RawHostPreset};
use crate::source::host::{CollectorKind, Filter, Paths, Pattern, Settings};
use pegel_runtime::config::form::{FilePath, Period};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The shortest interval of any source. At 100 ms the default collectors take about one percent of a core.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// The machine's own metrics. The defaults are node_exporter's.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "x-renamed" = {
        "scrape_interval": "interval", "include": "collectors", "exclude": "without_collectors",
        "network_devices": "options.netdev.devices", "disk_devices": "options.diskstats.devices",
        "mount_points": "options.filesystem.mount_points", "filesystem_types": "options.filesystem.types",
        "mount_timeout": "options.filesystem.mount_timeout", "netstat_fields": "options.netstat.fields",
        "vmstat_fields": "options.vmstat.fields", "cpu_guest": "options.cpu.guest",
        "softirqs": "options.stat.softirqs"
    },
    "x-refused" = {
        "job": "write it under `labels`: `labels: {job: …}`",
        "instance": "write it under `labels`: `labels: {instance: …}`"
    }
))]
pub struct RawHost {
    /// Whether the host is read.
    pub enabled: bool,
    /// Time from one reading to the next.
    pub interval: Period,
    /// The collectors that run; without it those that node_exporter has on by default.
    pub collectors: Vec<CollectorKind>,
    /// Collectors that run beside those. Of node_exporter's, these are not there: bcachefs, ethtool, mountstats, ntp,
    /// perf, runit, supervisord, wifi.
    pub with_collectors: Vec<CollectorKind>,
    /// Collectors to leave out of those.
    pub without_collectors: Vec<CollectorKind>,
    /// The longest that one collector holds up the others; at most half the interval is used.
    pub collector_timeout: Period,
    /// For whose dashboards and rules the series are labelled.
    pub preset: RawHostPreset,
    /// Labels of the series, `job`, `instance` and any other: in place of the preset's and of `external_labels`. One
    /// that is empty is taken away. `instance` is the host's name without it.
    pub labels: BTreeMap<String, String>,
    /// Where procfs is mounted.
    pub procfs: FilePath,
    /// Where sysfs is mounted.
    pub sysfs: FilePath,
    /// Where the host's root filesystem is mounted; mount points are reported without this prefix.
    pub rootfs: FilePath,
    /// udev's database.
    pub udev_data: FilePath,
    /// The socket of the system's message bus (D-Bus), which the collectors systemd and logind ask.
    pub system_bus: FilePath,
    /// What can be set about each collector, by its name.
    pub options: RawOptions,
}

/// Names to take or to leave, as regular expressions that match anywhere in a name unless they say `^` or `$`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawFilter {
    /// Only names that match; node_exporter's default `exclude` is then left out.
    pub include: Option<String>,
    /// No names that match; in place of node_exporter's default.
    pub exclude: Option<String>,
}

impl Default for RawHost {
    fn default() -> Self {
        let settings = Settings::default();
        let path = |path: PathBuf| FilePath(path);
        Self {
            enabled: true,
            interval: Period(settings.interval),
            collectors: settings.collectors,
            with_collectors: Vec::new(),
            without_collectors: Vec::new(),
            collector_timeout: Period(settings.collector_timeout),
            preset: RawHostPreset::default(),
            labels: BTreeMap::new(),
            procfs: path(settings.paths.procfs),
            sysfs: path(settings.paths.sysfs),
            rootfs: path(settings.paths.rootfs),
            udev_data: path(settings.paths.udev_data),
            system_bus: path(settings.paths.system_bus),
            options: RawOptions::default(),
        }
    }
}

impl RawHost {
    /// The host source's settings; none if it is turned off.
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Option<Settings> {
        check_interval(&self.interval, &path.key("interval"), mistakes);
        if self.collector_timeout.0.is_zero() {
            mistakes.at(&path.key("collector_timeout"), "leaves no time at all", "use 1s");
        }
        let mut settings = Settings {
            paths: Paths {
                procfs: self.procfs.0.clone(),
                sysfs: self.sysfs.0.clone(),
                rootfs: self.rootfs.0.clone(),
                udev_data: self.udev_data.0.clone(),
                system_bus: self.system_bus.0.clone(),
            },
            collectors: self.resolve_collectors(path, mistakes),
            interval: self.interval.0,
            collector_timeout: self.collector_timeout.0,
            labels: labels::resolve(self.preset, &self.labels, path, mistakes),
            ..Settings::default()
        };
        self.options.resolve(&path.key("options"), mistakes, &mut settings);
        self.enabled.then_some(settings)
    }

    fn resolve_collectors(&self, path: &Path, mistakes: &mut Mistakes) -> Vec<CollectorKind> {
        for (i, name) in self.without_collectors.iter().enumerate() {
            if self.with_collectors.contains(name) {
                let path = path.key("without_collectors").index(i);
                let reason = format!("`{}` stands in with_collectors as well", name.name());
                mistakes.at(&path, reason, "keep it in one of the two");
            }
        }
        let mut names: Vec<_> = self.collectors.iter().chain(&self.with_collectors).copied().collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !self.without_collectors.contains(name));
        if self.enabled && names.is_empty() {
            mistakes.at(
                &path.key("collectors"),
                "no collector is left",
                "name one, or set host.enabled: false",
            );
        }
        names
    }
}

impl RawFilter {
    /// Replaces what it says something about in a filter, which is node_exporter's default so far.
    fn resolve(&self, filter: &mut Filter, path: &Path, mistakes: &mut Mistakes) {
        let include = pattern(self.include.as_deref(), &path.key("include"), mistakes);
        let exclude = pattern(self.exclude.as_deref(), &path.key("exclude"), mistakes);
        match (include, exclude) {
            (None, None) => {}
            (None, exclude) => filter.exclude = exclude,
            // As in node_exporter, an include pattern takes the place of the default exclude pattern.
            (include, exclude) => *filter = Filter { include, exclude },
        }
    }
}

/// Reads a regular expression. An empty one would match everything, which nobody writes on purpose; `^$` matches
/// nothing, which is how a default is turned off.
fn pattern(text: Option<&str>, path: &Path, mistakes: &mut Mistakes) -> Option<Pattern> {
    match text? {
        "" => {
            mistakes.at(
                path,
                "is empty, which matches every name",
                "write `^$` to match none, or `.` to match all",
            );
            None
        }
        text => match Pattern::parse(text) {
            Ok(pattern) => Some(pattern),
            Err(bad) => {
                let reason = bad.reason.lines().last().unwrap_or_default().to_owned();
                mistakes.at(
                    path,
                    format!("is not a regular expression: {reason}"),
                    "correct it, or quote it in '…'",
                );
                None
            }
        },
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
    if interval.0 > Duration::from_mins(5) {
        let reason =
            format!("`{interval}` is longer than PromQL's look-back of 5m, so graphs will have gaps");
        mistakes.warn(path, reason, "use 2m or less");
    }
}
