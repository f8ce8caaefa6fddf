//! `host.options`: what can be set about each collector.
//!
//! A collector has one row in the table below. One without options of its own names [`RawNothing`]; else a struct
//! with `#[serde(default)]` (what it denies is denied around it), whose [`Options::resolve`] puts them into the host
//! source's settings. Defaults are taken from those settings, so that there is one place that has them.

mod devices;
mod kernel;

use super::{RawFilter, check_interval, pattern};
use crate::source::host::{CollectorKind, Settings};
use devices::{
    RawBcache, RawHwmon, RawInfiniband, RawNetclass, RawPowerSupplies, RawRapl, RawSlabinfo, RawTapes,
};
use kernel::{RawInterrupts, RawIpvs, RawQdisc, RawSysctl};
use pegel_runtime::config::form::{FilePath, Period};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of a collector's own.
trait Options {
    /// Puts them into the settings, and says what is wrong with them.
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings);
}

macro_rules! options {
    ($($kind:ident $key:ident $raw:ident;)*) => {
        /// What can be set about each collector, by its name.
        #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct RawOptions {
            $(
                #[doc = concat!("Of the collector `", stringify!($key), "`.")]
                pub $key: RawCollector<$raw>,
            )*
        }

        impl RawOptions {
            fn of(&self, kind: CollectorKind) -> (&RawPace, &dyn Options) {
                match kind {
                    $(CollectorKind::$kind => (&self.$key.pace, &self.$key.own),)*
                }
            }
        }
    };
}

// One row a collector: its kind, its name, and the raw form of its options.
options! {
    Arp arp RawArp;
    Bcache bcache RawBcache;
    Bonding bonding RawNothing;
    Btrfs btrfs RawNothing;
    Buddyinfo buddyinfo RawNothing;
    Cgroups cgroups RawNothing;
    Conntrack conntrack RawNothing;
    Cpu cpu RawCpu;
    CpuVulnerabilities cpu_vulnerabilities RawNothing;
    Cpufreq cpufreq RawNothing;
    Diskstats diskstats RawDiskstats;
    Dmi dmi RawNothing;
    Dmmultipath dmmultipath RawNothing;
    Drm drm RawNothing;
    Edac edac RawNothing;
    Entropy entropy RawNothing;
    Fibrechannel fibrechannel RawNothing;
    Filefd filefd RawNothing;
    Filesystem filesystem RawFilesystem;
    Hwmon hwmon RawHwmon;
    Infiniband infiniband RawInfiniband;
    Interrupts interrupts RawInterrupts;
    Ipvs ipvs RawIpvs;
    KernelHung kernel_hung RawNothing;
    Ksmd ksmd RawNothing;
    Lnstat lnstat RawNothing;
    Loadavg loadavg RawNothing;
    Logind logind RawNothing;
    Mdadm mdadm RawNothing;
    Meminfo meminfo RawNothing;
    MeminfoNuma meminfo_numa RawNothing;
    Netclass netclass RawNetclass;
    Netdev netdev RawNetdev;
    Netstat netstat RawNetstat;
    NetworkRoute network_route RawNothing;
    Nfs nfs RawNothing;
    Nfsd nfsd RawNothing;
    Nvme nvme RawNothing;
    Nvmesubsystem nvmesubsystem RawNothing;
    Os os RawNothing;
    Pcidevice pcidevice RawNothing;
    Powersupplyclass powersupplyclass RawPowerSupplies;
    Pressure pressure RawNothing;
    Processes processes RawNothing;
    Qdisc qdisc RawQdisc;
    Rapl rapl RawRapl;
    Schedstat schedstat RawNothing;
    Selinux selinux RawNothing;
    Slabinfo slabinfo RawSlabinfo;
    Sockstat sockstat RawNothing;
    Softirqs softirqs RawNothing;
    Softnet softnet RawNothing;
    Stat stat RawStat;
    Swap swap RawNothing;
    Sysctl sysctl RawSysctl;
    Systemd systemd RawSystemd;
    Tapestats tapestats RawTapes;
    Tcpstat tcpstat RawNothing;
    Textfile textfile RawTextfile;
    ThermalZone thermal_zone RawNothing;
    Time time RawNothing;
    Timex timex RawNothing;
    UdpQueues udp_queues RawNothing;
    Uname uname RawNothing;
    Vmstat vmstat RawVmstat;
    Watchdog watchdog RawNothing;
    Xfrm xfrm RawNothing;
    Xfs xfs RawNothing;
    Zfs zfs RawNothing;
    Zoneinfo zoneinfo RawNothing;
}

impl RawOptions {
    /// Puts all options into the settings, whose collectors are set already.
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        for kind in CollectorKind::ALL.iter().copied() {
            let path = path.key(kind.name());
            let (RawPace { interval, timeout }, own) = self.of(kind);
            own.resolve(&path, mistakes, settings);
            if let Some(interval) = interval {
                check_interval(interval, &path.key("interval"), mistakes);
                settings.intervals.insert(kind, interval.0);
            }
            if let Some(timeout) = timeout {
                if timeout.0.is_zero() {
                    mistakes.at(&path.key("timeout"), "leaves no time at all", "use 1s");
                }
                settings.timeouts.insert(kind, timeout.0);
            }
            if mistakes.is_said(&path) && !settings.collectors.contains(&kind) {
                mistakes.warn(
                    &path,
                    "is not used: the collector does not run",
                    "name it in host.with_collectors, or take its options out",
                );
            }
        }
    }
}

/// When a collector runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawPace {
    /// Time from one run to the next; without it that of `host`.
    pub interval: Option<Period>,
    /// The longest that the collector holds up the others; without it `host.collector_timeout`. At most half the
    /// interval is used.
    pub timeout: Option<Period>,
}

/// When a collector runs, and what else can be set about it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "{O}Section")]
pub struct RawCollector<O: Default> {
    /// When it runs.
    #[serde(flatten)]
    pub pace: RawPace,
    /// What only this collector has.
    #[serde(flatten)]
    pub own: O,
}

/// No options.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct RawNothing {}

impl Options for RawNothing {
    fn resolve(&self, _: &Path, _: &mut Mistakes, _: &mut Settings) {}
}

/// The ARP table.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawArp {
    /// Whether the kernel is asked by netlink; `/proc/net/arp` is read otherwise.
    pub netlink: bool,
    /// The interfaces.
    pub devices: RawFilter,
}

impl Default for RawArp {
    fn default() -> Self {
        Self { netlink: Settings::default().arp_netlink, devices: RawFilter::default() }
    }
}

impl Options for RawArp {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        settings.arp_netlink = self.netlink;
        self.devices.resolve(&mut settings.arp_devices, &path.key("devices"), mistakes);
    }
}

/// Processors.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawCpu {
    /// Whether `node_cpu_guest_seconds_total` is collected.
    pub guest: bool,
    /// Whether `node_cpu_info` is collected, and `node_cpu_frequency_hertz` if the collector `cpufreq` runs. On
    /// large machines `/proc/cpuinfo` is dear to read.
    pub info: bool,
    /// The flags of processors that `node_cpu_flag_info` shows, as a regular expression; needs `info`.
    pub flags: Option<String>,
    /// The bugs of processors that `node_cpu_bug_info` shows, as a regular expression; needs `info`.
    pub bugs: Option<String>,
}

impl Default for RawCpu {
    fn default() -> Self {
        let Settings { cpu_guest, cpu_info, .. } = Settings::default();
        Self { guest: cpu_guest, info: cpu_info, flags: None, bugs: None }
    }
}

impl Options for RawCpu {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        settings.cpu_guest = self.guest;
        settings.cpu_info = self.info;
        settings.cpu_flags = pattern(self.flags.as_deref(), &path.key("flags"), mistakes);
        settings.cpu_bugs = pattern(self.bugs.as_deref(), &path.key("bugs"), mistakes);
        for (key, given) in [("flags", &self.flags), ("bugs", &self.bugs)] {
            if given.is_some() && !self.info {
                mistakes.at(&path.key(key), "is not used without `info`", "set info: true");
            }
        }
    }
}

/// Block devices.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawDiskstats {
    /// The devices.
    pub devices: RawFilter,
}

impl Options for RawDiskstats {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        self.devices.resolve(&mut settings.disk_devices, &path.key("devices"), mistakes);
    }
}

/// Mounted filesystems.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawFilesystem {
    /// The longest that one mount holds up the collector; at most half its time is used.
    pub mount_timeout: Period,
    /// Mount points.
    pub mount_points: RawFilter,
    /// Filesystem types.
    pub types: RawFilter,
}

impl Default for RawFilesystem {
    fn default() -> Self {
        Self {
            mount_timeout: Period(Settings::default().mount_timeout),
            mount_points: RawFilter::default(),
            types: RawFilter::default(),
        }
    }
}

impl Options for RawFilesystem {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        if self.mount_timeout.0.is_zero() {
            mistakes.at(&path.key("mount_timeout"), "leaves no time at all", "use 1s");
        }
        settings.mount_timeout = self.mount_timeout.0;
        self.mount_points.resolve(&mut settings.mount_points, &path.key("mount_points"), mistakes);
        self.types.resolve(&mut settings.fs_types, &path.key("types"), mistakes);
    }
}

/// Network interfaces.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawNetdev {
    /// Whether the kernel is asked by netlink, which knows `receive_nohandler`, or `/proc/net/dev` is read.
    pub netlink: bool,
    /// The interfaces.
    pub devices: RawFilter,
    /// Whether `node_network_address_info` is collected.
    pub addresses: bool,
    /// Whether an interface's alias becomes the label `ifalias`.
    pub ifalias: bool,
    /// Whether the kernel's own counters are collected, under names that dashboards do not know.
    pub detailed: bool,
}

impl Default for RawNetdev {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            netlink: settings.netdev_netlink,
            devices: RawFilter::default(),
            addresses: settings.netdev_addresses,
            ifalias: settings.netdev_ifalias,
            detailed: settings.netdev_detailed,
        }
    }
}

impl Options for RawNetdev {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        settings.netdev_netlink = self.netlink;
        settings.netdev_addresses = self.addresses;
        settings.netdev_ifalias = self.ifalias;
        settings.netdev_detailed = self.detailed;
        self.devices.resolve(&mut settings.netdev_devices, &path.key("devices"), mistakes);
    }
}

/// Protocol counters.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawNetstat {
    /// The counters, as a regular expression for names such as `Tcp_InSegs`; without it those that node_exporter
    /// takes.
    pub fields: Option<String>,
}

impl Options for RawNetstat {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        if let Some(fields) = pattern(self.fields.as_deref(), &path.key("fields"), mistakes) {
            settings.netstat_fields = fields;
        }
    }
}

/// Interrupts, context switches, forks.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawStat {
    /// Whether `node_softirqs_total` is collected.
    pub softirqs: bool,
}

impl Default for RawStat {
    fn default() -> Self {
        Self { softirqs: Settings::default().stat_softirq }
    }
}

impl Options for RawStat {
    fn resolve(&self, _: &Path, _: &mut Mistakes, settings: &mut Settings) {
        settings.stat_softirq = self.softirqs;
    }
}

/// Units of systemd.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawSystemd {
    /// Only units whose whole name this regular expression matches have series of their own; without it all.
    pub unit_include: Option<String>,
    /// No units whose whole name this regular expression matches; without it, as in node_exporter,
    /// `.+\.(automount|device|mount|scope|slice)`. It applies beside `unit_include`.
    pub unit_exclude: Option<String>,
    /// Whether services have `node_systemd_unit_tasks_current` and `node_systemd_unit_tasks_max`.
    pub tasks: bool,
    /// Whether services have `node_systemd_service_restart_total`.
    pub restarts: bool,
    /// Whether units have `node_systemd_unit_start_time_seconds`.
    pub start_times: bool,
    /// Whether systemd is asked on its own socket, `/run/systemd/private`, rather than through the message bus: for
    /// machines without one. Takes an agent that runs as root.
    pub private_socket: bool,
}

impl Options for RawSystemd {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        let mut whole = |text: Option<&str>, key| {
            let pattern = pattern(text, &path.key(key), mistakes)?;
            Some(pattern.whole())
        };
        let systemd = &mut settings.systemd;
        if let Some(include) = whole(self.unit_include.as_deref(), "unit_include") {
            systemd.units.include = Some(include);
        }
        if let Some(exclude) = whole(self.unit_exclude.as_deref(), "unit_exclude") {
            systemd.units.exclude = Some(exclude);
        }
        systemd.tasks = self.tasks;
        systemd.restarts = self.restarts;
        systemd.start_times = self.start_times;
        systemd.private = self.private_socket;
    }
}

/// What other programs write into files.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-renamed" = {"directory": "directories"}))]
pub struct RawTextfile {
    /// Directories whose files `*.prom` are read; any part of a path may hold `*`, `?` and `[a-z]`. Their metrics are
    /// in Prometheus' text format, without timestamps.
    pub directories: Vec<FilePath>,
}

impl Options for RawTextfile {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        let mut resolved = Vec::new();
        for (i, directory) in self.directories.iter().enumerate() {
            let path = path.key("directories").index(i);
            match mistakes.path_of(&path, directory).into_os_string().into_string() {
                Ok(directory) => resolved.push(directory),
                Err(_) => mistakes.at(&path, "is not UTF-8", "rename the directory"),
            }
        }
        settings.textfile_directories = resolved;
    }
}

/// Paging and out-of-memory kills.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawVmstat {
    /// The fields, as a regular expression; without it those that node_exporter takes.
    pub fields: Option<String>,
}

impl Options for RawVmstat {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        if let Some(fields) = pattern(self.fields.as_deref(), &path.key("fields"), mistakes) {
            settings.vmstat_fields = fields;
        }
    }
}
