//! The host: processors, memory, disks, network, filesystems, under node_exporter's names.
//!
//! Names, labels, types, units and default filters are those of node_exporter 1.12, so that existing dashboards
//! and alerts work. Each collector is one file; [`CollectorKind`] is the table of them. The collectors of one interval
//! are a `group`: they run one after another on one thread (a `Lane`); one that hangs is left behind with its thread,
//! reported as failed, and resumes when its call returns.

mod addresses;
mod adjtimex;
mod arp;
mod bcache;
mod bonding;
mod btrfs;
mod buddyinfo;
mod build_info;
mod cgroups;
mod conntrack;
mod cpu;
mod cpu_vulnerabilities;
mod cpufreq;
mod cpuinfo;
mod dbus;
mod diskstats;
mod dmi;
mod dmmultipath;
mod drm;
mod edac;
mod entropy;
mod fibrechannel;
mod filefd;
mod filesystem;
mod filter;
mod group;
mod hwmon;
mod infiniband;
mod interrupts;
mod ipvs;
mod kernel_hung;
mod ksmd;
mod links;
mod lnstat;
mod loadavg;
mod logind;
mod mdadm;
mod meminfo;
mod meminfo_numa;
mod mounts;
mod netclass;
mod netdev;
mod netlink;
mod netstat;
mod network_route;
mod nfs;
mod nfsd;
mod nvme;
mod nvmesubsystem;
mod os;
mod own_process;
mod pcidevice;
mod powersupplyclass;
mod pressure;
mod processes;
mod qdisc;
mod rapl;
mod rpc;
mod schedstat;
mod scrape;
mod selinux;
mod settings;
mod shape;
mod slabinfo;
mod sockstat;
mod softirqs;
mod softnet;
mod stat;
mod status;
mod summary;
mod swap;
mod sysctl;
mod sysfs;
mod system;
mod systemd;
mod tapestats;
mod task;
mod tcpstat;
mod textfile;
mod thermal_zone;
mod time;
mod timex;
mod topology;
mod udev;
mod udp_queues;
mod uname;
mod vmstat;
mod watchdog;
mod xfrm;
mod xfs;
mod zfs;
mod zoneinfo;

#[cfg(test)]
mod tests;

use super::reading::{emit, file, lane, text};
use emit::Emitter;
use file::SharedFile;
use links::SharedLinks;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub use super::reading::CollectError;
pub use adjtimex::ClockState;
pub use filter::{BadPattern, Filter, Pattern};
pub use ipvs::BackendLabel;
pub use netlink::{Netlink, NetlinkProtocol};
pub use scrape::HostSource;
pub use settings::{Paths, Settings};
pub use status::HostStatus;
pub use summary::{MachineSummary, machine_summary};
pub use sysctl::Sysctl;
pub use system::{FsUsage, KernelSystem, System, UnameInfo, Zone};
pub use systemd::SystemdSettings;

/// What reads one part of the host.
trait Collector: Send {
    /// Emits the part's samples, always in the same order.
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError>;
}

/// What collectors are made from.
struct Setup<'a> {
    paths: &'a Paths,
    settings: &'a Settings,
    system: &'a Arc<dyn System>,
    /// `/proc/stat`, which two collectors need and which is dear to read.
    stat: Arc<SharedFile>,
    /// The network interfaces, whose dump is dear too.
    links: Arc<SharedLinks>,
}

impl<'a> Setup<'a> {
    fn new(settings: &'a Settings, system: &'a Arc<dyn System>) -> Self {
        Self {
            paths: &settings.paths,
            settings,
            system,
            stat: Arc::new(SharedFile::new(settings.paths.procfs.join("stat"))),
            links: Arc::new(SharedLinks::new(system.clone())),
        }
    }
}

macro_rules! collectors {
    ($($(#[$doc:meta])* $kind:ident $module:ident $default:ident;)*) => {
        /// The collectors.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum CollectorKind {
            $($(#[$doc])* $kind,)*
        }

        impl CollectorKind {
            /// All of them, in the order in which they run.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The name, as in node_exporter's flags and in the label `collector`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($module),)*
                }
            }

            /// Whether it runs where the configuration names no collectors: as in node_exporter.
            pub fn on_by_default(self) -> bool {
                match self {
                    $(Self::$kind => collectors!(@ $default),)*
                }
            }

            fn build(self, setup: &Setup<'_>) -> Box<dyn Collector> {
                match self {
                    $(Self::$kind => $module::new(setup),)*
                }
            }
        }
    };
    (@ on) => { true };
    (@ off) => { false };
}

// One row a collector, by name: its kind, its module (which is its name), and whether it is on by default.
collectors! {
    /// Entries of the ARP table.
    Arp arp on;
    /// Block caches.
    Bcache bcache on;
    /// Bonded interfaces.
    Bonding bonding on;
    /// Btrfs filesystems.
    Btrfs btrfs on;
    /// Free blocks of memory by their size.
    Buddyinfo buddyinfo off;
    /// How many control groups there are.
    Cgroups cgroups off;
    /// Connection tracking.
    Conntrack conntrack on;
    /// Processor time, throttling, isolation.
    Cpu cpu on;
    /// What processors are vulnerable to.
    CpuVulnerabilities cpu_vulnerabilities off;
    /// Clock rates of processors.
    Cpufreq cpufreq on;
    /// Block devices.
    Diskstats diskstats on;
    /// What the firmware says of the machine.
    Dmi dmi on;
    /// Multipath devices.
    Dmmultipath dmmultipath on;
    /// AMD graphics cards.
    Drm drm off;
    /// Errors of memory modules.
    Edac edac on;
    /// The kernel's entropy pool.
    Entropy entropy on;
    /// Fibre Channel adapters.
    Fibrechannel fibrechannel on;
    /// Open files of the whole system.
    Filefd filefd on;
    /// Space and inodes of mounted filesystems.
    Filesystem filesystem on;
    /// Sensors: temperatures, fans, voltages.
    Hwmon hwmon on;
    /// InfiniBand and RDMA devices.
    Infiniband infiniband on;
    /// Interrupts by processor and source.
    Interrupts interrupts off;
    /// The IP virtual server.
    Ipvs ipvs on;
    /// Tasks that the kernel found hanging.
    KernelHung kernel_hung on;
    /// Merging of equal pages.
    Ksmd ksmd off;
    /// Caches of the network.
    Lnstat lnstat off;
    /// Load averages.
    Loadavg loadavg on;
    /// Sessions of logind.
    Logind logind off;
    /// Software RAID.
    Mdadm mdadm on;
    /// Memory.
    Meminfo meminfo on;
    /// Memory by NUMA node.
    MeminfoNuma meminfo_numa off;
    /// State of network interfaces.
    Netclass netclass on;
    /// Network interfaces.
    Netdev netdev on;
    /// Protocol counters.
    Netstat netstat on;
    /// Unicast routes.
    NetworkRoute network_route off;
    /// The client of NFS.
    Nfs nfs on;
    /// The server of NFS.
    Nfsd nfsd on;
    /// NVMe controllers and namespaces.
    Nvme nvme on;
    /// NVMe subsystems and the paths to them.
    Nvmesubsystem nvmesubsystem off;
    /// The operating system's name and version.
    Os os on;
    /// PCI devices.
    Pcidevice pcidevice off;
    /// Batteries and mains.
    Powersupplyclass powersupplyclass on;
    /// Pressure stall information.
    Pressure pressure on;
    /// Processes and threads, by their state.
    Processes processes off;
    /// Root queueing disciplines.
    Qdisc qdisc off;
    /// Energy that parts of the machine took.
    Rapl rapl on;
    /// How long processors ran tasks, and tasks waited for them.
    Schedstat schedstat on;
    /// SELinux's mode.
    Selinux selinux on;
    /// The kernel's object caches.
    Slabinfo slabinfo off;
    /// Sockets in use.
    Sockstat sockstat on;
    /// Soft interrupts by processor.
    Softirqs softirqs off;
    /// What processors did with received packets.
    Softnet softnet on;
    /// Interrupts, context switches, forks, boot time.
    Stat stat on;
    /// Swap areas.
    Swap swap off;
    /// Kernel parameters that the configuration names.
    Sysctl sysctl off;
    /// Units of systemd.
    Systemd systemd off;
    /// Tape drives.
    Tapestats tapestats on;
    /// TCP connections by their state.
    Tcpstat tcpstat off;
    /// What other programs write into files.
    Textfile textfile on;
    /// Thermal zones and what cools them.
    ThermalZone thermal_zone on;
    /// The clock, its zone and sources.
    Time time on;
    /// How the kernel disciplines its clock.
    Timex timex on;
    /// Bytes in the queues of UDP sockets.
    UdpQueues udp_queues on;
    /// Kernel and host name.
    Uname uname on;
    /// Paging and out-of-memory kills.
    Vmstat vmstat on;
    /// Hardware watchdogs.
    Watchdog watchdog on;
    /// IPsec's errors.
    Xfrm xfrm off;
    /// XFS filesystems.
    Xfs xfs on;
    /// ZFS caches, pools and datasets.
    Zfs zfs on;
    /// Zones of memory.
    Zoneinfo zoneinfo off;
}
