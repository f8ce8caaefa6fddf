//! `host`: the machine's own metrics.

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
    "x-renamed" = {"scrape_interval": "interval", "include": "collectors", "exclude": "without_collectors"},
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
    /// The collectors that run.
    pub collectors: Vec<CollectorKind>,
    /// Collectors to leave out of those.
    pub without_collectors: Vec<CollectorKind>,
    /// The longest that one collector holds up a reading; at most half the interval is used.
    pub collector_timeout: Period,
    /// The longest that one mount holds up the filesystem collector; at most half its time is used.
    pub mount_timeout: Period,
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
    /// Network interfaces.
    pub network_devices: RawFilter,
    /// Block devices.
    pub disk_devices: RawFilter,
    /// Mount points of the filesystem collector.
    pub mount_points: RawFilter,
    /// Filesystem types of the filesystem collector.
    pub filesystem_types: RawFilter,
    /// Protocol counters of the netstat collector, as a regular expression for names such as `Tcp_InSegs`; without
    /// it those that node_exporter takes.
    pub netstat_fields: Option<String>,
    /// Fields of the vmstat collector, as a regular expression; without it those that node_exporter takes.
    pub vmstat_fields: Option<String>,
    /// Whether `node_cpu_guest_seconds_total` is collected.
    pub cpu_guest: bool,
    /// Whether `node_softirqs_total` is collected.
    pub softirqs: bool,
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
            without_collectors: Vec::new(),
            collector_timeout: Period(settings.collector_timeout),
            mount_timeout: Period(settings.mount_timeout),
            preset: RawHostPreset::default(),
            labels: BTreeMap::new(),
            procfs: path(settings.paths.procfs),
            sysfs: path(settings.paths.sysfs),
            rootfs: path(settings.paths.rootfs),
            udev_data: path(settings.paths.udev_data),
            network_devices: RawFilter::default(),
            disk_devices: RawFilter::default(),
            mount_points: RawFilter::default(),
            filesystem_types: RawFilter::default(),
            netstat_fields: None,
            vmstat_fields: None,
            cpu_guest: settings.cpu_guest,
            softirqs: settings.stat_softirq,
        }
    }
}

impl RawHost {
    /// The host source's settings; none if it is turned off.
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Option<Settings> {
        check_interval(&self.interval, &path.key("interval"), mistakes);
        for (key, timeout) in
            [("collector_timeout", &self.collector_timeout), ("mount_timeout", &self.mount_timeout)]
        {
            if timeout.0.is_zero() {
                mistakes.at(&path.key(key), "leaves no time at all", "use 1s");
            }
        }
        let mut names = self.collectors.clone();
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
        let defaults = Settings::default();
        let settings = Settings {
            paths: Paths {
                procfs: self.procfs.0.clone(),
                sysfs: self.sysfs.0.clone(),
                rootfs: self.rootfs.0.clone(),
                udev_data: self.udev_data.0.clone(),
                ..Paths::default()
            },
            collectors: names,
            interval: self.interval.0,
            collector_timeout: self.collector_timeout.0,
            mount_timeout: self.mount_timeout.0,
            labels: labels::resolve(self.preset, &self.labels, path, mistakes),
            cpu_guest: self.cpu_guest,
            stat_softirq: self.softirqs,
            netdev_devices: self.network_devices.resolve(
                defaults.netdev_devices,
                &path.key("network_devices"),
                mistakes,
            ),
            disk_devices: self.disk_devices.resolve(
                defaults.disk_devices,
                &path.key("disk_devices"),
                mistakes,
            ),
            mount_points: self.mount_points.resolve(
                defaults.mount_points,
                &path.key("mount_points"),
                mistakes,
            ),
            fs_types: self.filesystem_types.resolve(
                defaults.fs_types,
                &path.key("filesystem_types"),
                mistakes,
            ),
            netstat_fields: pattern(self.netstat_fields.as_deref(), &path.key("netstat_fields"), mistakes)
                .unwrap_or(defaults.netstat_fields),
            vmstat_fields: pattern(self.vmstat_fields.as_deref(), &path.key("vmstat_fields"), mistakes)
                .unwrap_or(defaults.vmstat_fields),
            ..Settings::default()
        };
        self.enabled.then_some(settings)
    }
}

impl RawFilter {
    fn resolve(&self, default: Filter, path: &Path, mistakes: &mut Mistakes) -> Filter {
        let include = pattern(self.include.as_deref(), &path.key("include"), mistakes);
        let exclude = pattern(self.exclude.as_deref(), &path.key("exclude"), mistakes);
        match (include, exclude) {
            (None, None) => default,
            (None, exclude) => Filter { include: default.include, exclude },
            // As in node_exporter, an include pattern takes the place of the default exclude pattern.
            (include, exclude) => Filter { include, exclude },
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
