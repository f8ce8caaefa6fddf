//! What can be set about the host source.

use super::filter::{Filter, Pattern};
use super::systemd::SystemdSettings;
use super::{BackendLabel, CollectorKind, Sysctl};
use crate::source::labels::{Preset, TargetLabels};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How often the host is read. 15 s is what most Prometheus servers scrape at, and what rules with 1 or 2 minute
/// windows are written for.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);

/// How long one collector may take before the scrape goes out without it. A healthy one takes under a
/// millisecond; a machine that swaps hard delays a thread by some hundred. The scrape has at most half the
/// interval in all.
const DEFAULT_COLLECTOR_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one mount may take to answer `statfs` before it counts as hung: far over the round trip of a network
/// filesystem, and two hung mounts still fit a collector's default timeout.
const DEFAULT_MOUNT_TIMEOUT: Duration = Duration::from_millis(750);

/// Where the kernel's filesystems are found, for containers and tests. Mount points are reported as the host
/// sees them: without the prefix `rootfs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// procfs, by default `/proc`.
    pub procfs: PathBuf,
    /// sysfs, by default `/sys`.
    pub sysfs: PathBuf,
    /// The root of the host's filesystem, by default `/`.
    pub rootfs: PathBuf,
    /// udev's database, by default `/run/udev/data`.
    pub udev_data: PathBuf,
    /// The system's message bus, by default `/run/dbus/system_bus_socket`.
    pub system_bus: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            procfs: "/proc".into(),
            sysfs: "/sys".into(),
            rootfs: "/".into(),
            udev_data: "/run/udev/data".into(),
            system_bus: "/run/dbus/system_bus_socket".into(),
        }
    }
}

/// The host source's settings. The defaults are node_exporter's.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to read.
    pub paths: Paths,
    /// The collectors that run, each once.
    pub collectors: Vec<CollectorKind>,
    /// Time from scrape to scrape.
    pub interval: Duration,
    /// The longest that one collector holds up a scrape; at most half the interval is used.
    pub collector_timeout: Duration,
    /// Collectors with an interval of their own.
    pub intervals: BTreeMap<CollectorKind, Duration>,
    /// Collectors with a time limit of their own, in place of `collector_timeout`.
    pub timeouts: BTreeMap<CollectorKind, Duration>,
    /// Directories of the textfile collector, with patterns (`collector.textfile.directory`).
    pub textfile_directories: Vec<String>,
    /// The longest that one mount holds up the filesystem collector; at most half the collector's time is used.
    pub mount_timeout: Duration,
    /// The target's labels; `instance` is the host's name unless they say otherwise.
    pub labels: TargetLabels,
    /// `node_cpu_guest_seconds_total`.
    pub cpu_guest: bool,
    /// `node_cpu_info` (`collector.cpu.info`).
    pub cpu_info: bool,
    /// Flags of the processors that `node_cpu_flag_info` shows (`collector.cpu.info.flags-include`).
    pub cpu_flags: Option<Pattern>,
    /// Bugs of the processors that `node_cpu_bug_info` shows (`collector.cpu.info.bugs-include`).
    pub cpu_bugs: Option<Pattern>,
    /// `node_network_address_info` (`collector.netdev.address-info`).
    pub netdev_addresses: bool,
    /// The interface's alias as a label (`collector.netdev.label-ifalias`).
    pub netdev_ifalias: bool,
    /// The kernel's own counters in place of the columns of `/proc/net/dev`
    /// (`collector.netdev.enable-detailed-metrics`).
    pub netdev_detailed: bool,
    /// Interfaces whose queueing disciplines are told (`collector.qdisc.device-include`, `-exclude`).
    pub qdisc_devices: Filter,
    /// Kernel parameters (`collector.sysctl.include`, `-info`).
    pub sysctls: Vec<Sysctl>,
    /// `node_softirqs_total` (`collector.stat.softirq`).
    pub stat_softirq: bool,
    /// Network counters by netlink, which knows `receive_nohandler`, rather than from `/proc/net/dev`.
    pub netdev_netlink: bool,
    /// The labels of IPVS's backends, sorted, each once (`collector.ipvs.backend-labels`).
    pub ipvs_backend_labels: Vec<BackendLabel>,
    /// Interrupts, as `NAME;INFO;DEVICES` (`collector.interrupts.name-include`, `-exclude`).
    pub interrupts: Filter,
    /// Whether interrupts that never came are told (`collector.interrupts.include-zeros`).
    pub interrupts_zeros: bool,
    /// ARP entries by netlink rather than from `/proc/net/arp` (`collector.arp.netlink`).
    pub arp_netlink: bool,
    /// Interfaces whose ARP entries are counted (`collector.arp.device-include`, `-exclude`).
    pub arp_devices: Filter,
    /// Network interfaces (`collector.netdev.device-include`, `-exclude`).
    pub netdev_devices: Filter,
    /// Block devices (`collector.diskstats.device-include`, `-exclude`).
    pub disk_devices: Filter,
    /// Network interfaces of netclass (`collector.netclass.ignored-devices`).
    pub netclass_devices: Filter,
    /// No `node_network_speed_bytes` for interfaces that do not know their speed
    /// (`collector.netclass.ignore-invalid-speed`).
    pub netclass_ignore_invalid_speed: bool,
    /// Chips of hwmon (`collector.hwmon.chip-include`, `-exclude`).
    pub hwmon_chips: Filter,
    /// Sensors of hwmon, as `platform_coretemp_0;temp3` (`collector.hwmon.sensor-include`, `-exclude`).
    pub hwmon_sensors: Filter,
    /// Power supplies (`collector.powersupply.ignored-supplies`).
    pub power_supplies: Filter,
    /// Object caches (`collector.slabinfo.slabs-include`, `-exclude`).
    pub slabs: Filter,
    /// Tape drives (`collector.tapestats.ignored-devices`).
    pub tapes: Filter,
    /// InfiniBand devices (`collector.infiniband.device-include`, `-exclude`).
    pub infiniband_devices: Filter,
    /// One metric `node_rapl_joules_total` with the zone as a label (`collector.rapl.enable-zone-label`).
    pub rapl_zone_label: bool,
    /// `node_bcache_priority_stats_*`, which are dear (`collector.bcache.priorityStats`).
    pub bcache_priority_stats: bool,
    /// Mount points (`collector.filesystem.mount-points-include`, `-exclude`).
    pub mount_points: Filter,
    /// Filesystem types (`collector.filesystem.fs-types-include`, `-exclude`).
    pub fs_types: Filter,
    /// Protocol counters, as `Tcp_InSegs` (`collector.netstat.fields`).
    pub netstat_fields: Pattern,
    /// Fields of `/proc/vmstat` (`collector.vmstat.fields`).
    pub vmstat_fields: Pattern,
    /// Units of systemd.
    pub systemd: SystemdSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            paths: Paths::default(),
            collectors: CollectorKind::ALL.iter().copied().filter(|kind| kind.on_by_default()).collect(),
            interval: DEFAULT_INTERVAL,
            collector_timeout: DEFAULT_COLLECTOR_TIMEOUT,
            intervals: BTreeMap::new(),
            timeouts: BTreeMap::new(),
            textfile_directories: Vec::new(),
            mount_timeout: DEFAULT_MOUNT_TIMEOUT,
            labels: TargetLabels::new(Preset::NODE_MIXIN, BTreeMap::new()),
            cpu_guest: true,
            cpu_info: false,
            cpu_flags: None,
            cpu_bugs: None,
            netdev_addresses: false,
            netdev_ifalias: false,
            netdev_detailed: false,
            qdisc_devices: Filter::default(),
            sysctls: Vec::new(),
            stat_softirq: false,
            netdev_netlink: true,
            ipvs_backend_labels: BackendLabel::ALL.to_vec(),
            interrupts: Filter::default(),
            interrupts_zeros: true,
            arp_netlink: true,
            arp_devices: Filter::default(),
            netdev_devices: Filter::default(),
            disk_devices: Filter::excluding(Pattern::default_disks()),
            netclass_devices: Filter::default(),
            netclass_ignore_invalid_speed: false,
            hwmon_chips: Filter::default(),
            hwmon_sensors: Filter::default(),
            power_supplies: Filter::default(),
            slabs: Filter::default(),
            tapes: Filter::default(),
            infiniband_devices: Filter::default(),
            rapl_zone_label: false,
            bcache_priority_stats: false,
            mount_points: Filter::excluding(Pattern::default_mount_points()),
            fs_types: Filter::excluding(Pattern::default_fs_types()),
            netstat_fields: Pattern::default_netstat(),
            vmstat_fields: Pattern::default_vmstat(),
            systemd: SystemdSettings::default(),
        }
    }
}

impl Settings {
    /// The time from one run of a collector to its next.
    pub(super) fn interval_of(&self, kind: CollectorKind) -> Duration {
        self.intervals.get(&kind).copied().unwrap_or(self.interval)
    }

    /// The time that a collector has: at most half its interval, so that the next scrape begins on time.
    pub(super) fn limit_of(&self, kind: CollectorKind) -> Duration {
        let own = self.timeouts.get(&kind).copied().unwrap_or(self.collector_timeout);
        own.min(scrape_limit(self.interval_of(kind)))
    }

    /// The time that one mount has.
    pub(super) fn mount_limit(&self) -> Duration {
        self.mount_timeout.min(self.limit_of(CollectorKind::Filesystem) / 2)
    }
}

/// The time that a whole scrape has: half the interval, so that the next one begins on time.
pub(super) fn scrape_limit(interval: Duration) -> Duration {
    interval / 2
}
