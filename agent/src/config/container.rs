//! `containers`: the containers of this machine, and all other cgroups.

use super::host::check_interval;
use super::labels::{self, RawContainerPreset};
use super::runtimes::RawRuntimes;
use crate::source::container::{AllowList, Group, Groups, Scheme, Settings, WhichCgroups};
use pegel_runtime::config::form::{FilePath, Period};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Containers and other cgroups, with cAdvisor's names.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"scrape_interval": "interval", "whitelisted_container_labels": "container_labels", "env_metadata_whitelist": "container_env", "disable_metrics": "without_groups", "enable_metrics": "groups"}, "x-refused" = {"docker_only": "write `cgroups: containers`", "job": "write it under `labels`: `labels: {job: …}`", "instance": "write it under `labels`: `labels: {instance: …}`"}))]
pub struct RawContainers {
    /// Whether containers and cgroups are read.
    pub enabled: bool,
    /// Whether nothing is sent as long as there is no container on this machine. Turned off, slices and services
    /// have series on any machine.
    pub only_with_containers: bool,
    /// Time from one reading to the next. A container that starts or stops in between is read at once.
    pub interval: Period,
    /// The longest that reading all cgroups may take; at most half the interval is used.
    pub timeout: Period,
    /// For whose dashboards and rules the series are labelled, and so which labels name a container: `cadvisor` for
    /// `id`, `name`, `image`, `container_label_…`; `kubelet` for `id`, `name`, `image`, `container`, `pod`,
    /// `namespace`.
    pub preset: RawContainerPreset,
    /// Labels of the series, `job`, `instance` and any other: in place of the preset's and of `external_labels`. One
    /// that is empty is taken away. `instance` is the host's name without it.
    pub labels: BTreeMap<String, String>,
    /// Which cgroups have series.
    pub cgroups: WhichCgroups,
    /// The groups of metrics that are collected; without it those of the preset: `cpu`, `per_cpu`, `memory`, `disk`,
    /// `disk_io`, `network`, `oom_event`, `pressure` for `cadvisor`, and `process` in place of `per_cpu` for
    /// `kubelet`.
    pub groups: Option<Vec<Group>>,
    /// Groups to leave out of those.
    pub without_groups: Vec<Group>,
    /// Labels of containers that become `container_label_…` (preset `cadvisor`); `com.example.*` takes all that begin
    /// so. Each value is a series of its own: no label that changes with each build or start.
    pub container_labels: Vec<String>,
    /// Environment variables of containers that become `container_env_…` (preset `cadvisor`), by their exact names.
    pub container_env: Vec<String>,
    /// Whether the size of containers' writable layers is asked for (`container_fs_usage_bytes`). The runtime looks
    /// at every file of every container to answer.
    pub writable_layer_size: bool,
    /// The most series of one container or other cgroup. Those beyond it, the newest, are left out and counted.
    pub max_series_per_container: usize,
    /// The most series of all cgroups together. The newest cgroups beyond it are left out and counted.
    pub max_series: usize,
    /// Where procfs is mounted.
    pub procfs: FilePath,
    /// Where sysfs is mounted. In a container that has the host's `/sys` elsewhere, that place.
    pub sysfs: FilePath,
    /// Where the host's root filesystem is mounted. Sockets of container runtimes are looked for below it.
    pub rootfs: FilePath,
    /// Who is asked for names, images, labels, pods and health of containers.
    pub runtimes: RawRuntimes,
}

impl Default for RawContainers {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            enabled: true,
            only_with_containers: settings.only_with_containers,
            interval: Period(settings.interval),
            timeout: Period(settings.timeout),
            preset: RawContainerPreset::default(),
            labels: BTreeMap::new(),
            cgroups: settings.cgroups,
            groups: None,
            without_groups: Vec::new(),
            container_labels: settings.container_labels.names().map(str::to_owned).collect(),
            container_env: Vec::new(),
            writable_layer_size: settings.writable_layer_size,
            max_series_per_container: settings.max_series_per_container,
            max_series: settings.max_series,
            procfs: FilePath(settings.procfs),
            sysfs: FilePath(settings.sysfs),
            rootfs: FilePath(settings.rootfs),
            runtimes: RawRuntimes::default(),
        }
    }
}

impl RawContainers {
    /// The settings of container accounting; none if it is turned off.
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Option<Settings> {
        check_interval(&self.interval, &path.key("interval"), mistakes);
        if self.timeout.0.is_zero() {
            mistakes.at(&path.key("timeout"), "leaves no time at all", "use 5s");
        }
        let scheme = match self.preset {
            RawContainerPreset::Cadvisor => Scheme::Standalone,
            RawContainerPreset::Kubelet => Scheme::Kubelet,
        };
        for (key, most) in
            [("max_series_per_container", self.max_series_per_container), ("max_series", self.max_series)]
        {
            if most == 0 {
                mistakes.at(
                    &path.key(key),
                    "leaves no series",
                    "set containers.enabled: false to collect none",
                );
            }
        }
        let settings = Settings {
            interval: self.interval.0,
            timeout: self.timeout.0,
            only_with_containers: self.only_with_containers,
            labels: labels::resolve(self.preset, &self.labels, path, mistakes),
            scheme,
            cgroups: self.cgroups,
            groups: self.groups(scheme, path, mistakes),
            container_labels: allow_list(&self.container_labels, &path.key("container_labels"), mistakes),
            container_env: self.env(&path.key("container_env"), mistakes),
            writable_layer_size: self.writable_layer_size,
            max_series_per_container: self.max_series_per_container,
            max_series: self.max_series,
            procfs: self.procfs.0.clone(),
            sysfs: self.sysfs.0.clone(),
            rootfs: self.rootfs.0.clone(),
            runtimes: None,
        };
        let runtimes = self.runtimes.resolve(&settings, &path.key("runtimes"), mistakes);
        let settings = Settings { runtimes, ..settings };
        self.enabled.then_some(settings)
    }

    fn groups(&self, scheme: Scheme, path: &Path, mistakes: &mut Mistakes) -> Groups {
        let mut groups = match (&self.groups, scheme) {
            (Some(groups), _) => groups.iter().copied().collect(),
            (None, Scheme::Standalone) => Groups::standalone(),
            (None, Scheme::Kubelet) => Groups::kubelet(),
        };
        self.without_groups.iter().for_each(|group| groups.remove(*group));
        if self.enabled && groups.is_empty() {
            mistakes.at(
                &path.key("groups"),
                "no group is left",
                "name one, or set containers.enabled: false",
            );
        }
        if groups.has(Group::PerCpu) && !groups.has(Group::Cpu) {
            let reason = "has per_cpu without cpu, which it is a part of";
            mistakes.at(&path.key("groups"), reason, "add cpu, or leave per_cpu out");
        }
        groups
    }

    fn env(&self, path: &Path, mistakes: &mut Mistakes) -> AllowList {
        if self.container_env.iter().any(|name| name.contains('*')) {
            let reason = "has a `*`: environment variables hold passwords, so each is named";
            mistakes.at(path, reason, "write the names in full");
        }
        allow_list(&self.container_env, path, mistakes)
    }
}

fn allow_list(names: &[String], path: &Path, mistakes: &mut Mistakes) -> AllowList {
    if names.iter().any(String::is_empty) {
        mistakes.at(path, "has an empty name", "take it out");
    }
    if names.iter().any(|name| name.trim_end_matches('*').contains('*') || name.ends_with("**")) {
        mistakes.at(path, "has a `*` that is not the last character", "write `com.example.*`");
    }
    AllowList::new(names.iter().map(String::as_str))
}
