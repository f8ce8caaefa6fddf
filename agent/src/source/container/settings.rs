//! What can be set about containers.

use super::runtime;
use crate::source::labels::{Preset, TargetLabels};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How often cgroups are read: as the host, whose graphs stand beside the containers'.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);

/// How long one pass over all cgroups may take before the source counts as hung. A pass over a thousand takes
/// some 100 ms; at most half the interval is used.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The most series of one container. One on cgroup v1 with 128 processors, ten disks and ten interfaces has 450.
const DEFAULT_MAX_SERIES_PER_CONTAINER: usize = 1_000;

/// The most series of all cgroups together: a thousand containers of the usual 60, and the machine's services.
const DEFAULT_MAX_SERIES: usize = 100_000;

/// Labels that orchestrators set to group containers; each has few values. Others may hold anything, a build's
/// hash or a whole configuration among them.
const DEFAULT_CONTAINER_LABELS: [&str; 8] = [
    "com.docker.compose.project",
    "com.docker.compose.service",
    "com.docker.stack.namespace",
    "com.docker.swarm.service.name",
    "io.kubernetes.container.name",
    "io.kubernetes.pod.name",
    "io.kubernetes.pod.namespace",
    "org.label-schema.group",
];

macro_rules! groups {
    ($($(#[$doc:meta])* $kind:ident $name:literal;)*) => {
        /// Metrics that are collected together. The names are those of cAdvisor's flag `--enable_metrics`.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum Group {
            $($(#[$doc])* $kind,)*
        }

        impl Group {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The name in the configuration.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

groups! {
    /// Processor time, throttling, bursts.
    Cpu "cpu";
    /// Runnable and waiting tasks. Dear: every thread of every container is looked at.
    CpuLoad "cpu_load";
    /// Space and inodes of the machine's filesystems, and writable layers where asked for.
    Disk "disk";
    /// Reads and writes by device.
    DiskIo "disk_io";
    /// Huge pages.
    Hugetlb "hugetlb";
    /// Memory.
    Memory "memory";
    /// Network interfaces of the container's own namespace.
    Network "network";
    /// Kills for want of memory.
    OomEvent "oom_event";
    /// Processor time by processor, where the kernel has it (cgroup v1).
    PerCpu "per_cpu";
    /// Pressure stall information (cgroup v2).
    Pressure "pressure";
    /// Processes, threads, file descriptors, sockets, limits. Dear: every descriptor is looked at.
    Process "process";
}

/// Which groups are collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Groups(u32);

impl Groups {
    /// What a cAdvisor that stands alone collects where no flag says otherwise.
    pub fn standalone() -> Self {
        use Group::{Cpu, Disk, DiskIo, Memory, Network, OomEvent, PerCpu, Pressure};
        [Cpu, PerCpu, Memory, Disk, DiskIo, Network, OomEvent, Pressure].into_iter().collect()
    }

    /// What the kubelet has its cAdvisor collect.
    pub fn kubelet() -> Self {
        use Group::{Cpu, Disk, DiskIo, Memory, Network, OomEvent, Pressure, Process};
        [Cpu, Memory, Disk, DiskIo, Network, OomEvent, Pressure, Process].into_iter().collect()
    }

    /// Whether a group is collected.
    pub fn has(self, group: Group) -> bool {
        self.0 & (1 << group as u32) != 0
    }

    /// Takes a group out.
    pub fn remove(&mut self, group: Group) {
        self.0 &= !(1 << group as u32);
    }

    /// Whether nothing is collected.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Group> for Groups {
    fn from_iter<T: IntoIterator<Item = Group>>(groups: T) -> Self {
        Self(groups.into_iter().fold(0, |all, group| all | 1 << group as u32))
    }
}

/// How series say which container they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// As a cAdvisor that stands alone: `id`, `name`, `image`, `container_label_…`, `container_env_…`.
    #[default]
    Standalone,
    /// As the kubelet's: `id`, `name`, `image`, `container`, `pod`, `namespace`, blank where unknown.
    Kubelet,
}

/// Which cgroups have series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhichCgroups {
    /// All: the machine (`id="/"`), slices, services, containers.
    #[default]
    All,
    /// The machine and containers.
    Containers,
}

/// Names that are let through: exact ones, and beginnings (`com.example.*`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowList(Box<[Box<str>]>);

impl AllowList {
    /// The names and beginnings, as they are written.
    pub fn new<T: Into<Box<str>>>(names: impl IntoIterator<Item = T>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    /// Whether a name is let through.
    pub fn passes(&self, name: &str) -> bool {
        self.0.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == &**allowed,
        })
    }

    /// What is let through, as it is written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }
}

/// The settings of container accounting. The defaults are cAdvisor's, but for the labels that are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Time from pass to pass.
    pub interval: Duration,
    /// The longest that a pass may take; at most half the interval is used.
    pub timeout: Duration,
    /// Whether nothing is sent as long as no container was seen.
    pub only_with_containers: bool,
    /// `job`, `metrics_path` and so on.
    pub labels: TargetLabels,
    /// The labels that name a container.
    pub scheme: Scheme,
    /// Which cgroups have series.
    pub cgroups: WhichCgroups,
    /// What is collected of each.
    pub groups: Groups,
    /// Labels of containers that become `container_label_…`.
    pub container_labels: AllowList,
    /// Environment variables of containers that become `container_env_…`.
    pub container_env: AllowList,
    /// Whether the size of writable layers is asked for.
    pub writable_layer_size: bool,
    /// The most series of one cgroup.
    pub max_series_per_container: usize,
    /// The most series of all cgroups.
    pub max_series: usize,
    /// procfs, by default `/proc`.
    pub procfs: PathBuf,
    /// sysfs, by default `/sys`. Mounts of cgroup file systems under it are taken before others.
    pub sysfs: PathBuf,
    /// The root of the host's filesystem, by default `/`.
    pub rootfs: PathBuf,
    /// Discovery of containers' names; none if runtimes are not asked.
    pub runtimes: Option<runtime::Settings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: DEFAULT_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            only_with_containers: true,
            labels: TargetLabels::new(Preset::CADVISOR, BTreeMap::new()),
            scheme: Scheme::Standalone,
            cgroups: WhichCgroups::All,
            groups: Groups::standalone(),
            container_labels: AllowList::new(DEFAULT_CONTAINER_LABELS),
            container_env: AllowList::default(),
            writable_layer_size: false,
            max_series_per_container: DEFAULT_MAX_SERIES_PER_CONTAINER,
            max_series: DEFAULT_MAX_SERIES,
            procfs: "/proc".into(),
            sysfs: "/sys".into(),
            rootfs: "/".into(),
            runtimes: Some(runtime::Settings::default()),
        }
    }
}

impl Settings {
    /// The time that a pass has.
    pub(super) fn pass_limit(&self) -> Duration {
        self.timeout.min(self.interval / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allow_list_lets_exact_names_and_beginnings_through() {
        let list = AllowList::new(["app", "com.example.*"]);
        assert!(list.passes("app") && list.passes("com.example.team"));
        assert!(!list.passes("apple") && !list.passes("com.example"));
        assert!(!AllowList::default().passes("app") && AllowList::new(["*"]).passes("app"));
    }

    #[test]
    fn the_presets_groups_are_those_of_cadvisor() {
        assert!(Groups::standalone().has(Group::PerCpu) && !Groups::standalone().has(Group::Process));
        assert!(Groups::kubelet().has(Group::Process) && !Groups::kubelet().has(Group::PerCpu));
        let mut groups: Groups = Group::ALL.iter().copied().collect();
        assert!(Group::ALL.iter().all(|group| groups.has(*group)));
        for group in Group::ALL {
            groups.remove(*group);
        }
        assert!(groups.is_empty());
    }
}
