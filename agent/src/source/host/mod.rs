//! The host: processors, memory, disks, network, filesystems, under node_exporter's names.
//!
//! Names, labels, types, units and default filters are those of node_exporter 1.12, so that existing dashboards
//! and alerts work. Each collector is one file; [`CollectorKind`] is the table of them. The collectors run one
//! after another on one thread (a `Lane`); one that hangs is left behind with its thread, reported as failed, and
//! resumes when its call returns.

mod build_info;
mod cpu;
mod diskstats;
mod emit;
mod file;
mod filefd;
mod filesystem;
mod filter;
mod lane;
mod loadavg;
mod meminfo;
mod mounts;
mod netdev;
mod netlink;
mod netstat;
mod pressure;
mod scrape;
mod settings;
mod stat;
mod summary;
mod system;
mod task;
mod text;
mod time;
mod topology;
mod udev;
mod uname;
mod vmstat;

#[cfg(test)]
mod tests;

use emit::Emitter;
use file::SharedFile;
use std::path::PathBuf;
use std::sync::Arc;

pub use filter::{BadPattern, Filter, Pattern};
pub use scrape::HostSource;
pub use settings::{Paths, Settings};
pub use summary::{MachineSummary, machine_summary};
pub use system::{FsUsage, KernelSystem, System, UnameInfo, Zone};

/// Why a collector has no or not all samples. What it emitted before stands, but for a file that cannot be
/// parsed: that takes all of the collector's samples away.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A file, or another answer of the kernel, cannot be had.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file's content is not what the kernel's documentation says.
    #[error("cannot understand {}: {what}, in `{line}`", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
        /// The line, printable and cut.
        line: String,
    },
    /// This kernel does not have what the collector reads; nothing is wrong.
    #[error("this kernel has no {0}")]
    NoData(&'static str),
    /// The collector has a bug.
    #[error("it panicked: {0}; please report this")]
    Panicked(String),
}

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
}

macro_rules! collectors {
    ($($(#[$doc:meta])* $kind:ident $module:ident;)*) => {
        /// The collectors.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

            /// The collector of that name.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name() == name)
            }

            fn build(self, setup: &Setup<'_>) -> Box<dyn Collector> {
                match self {
                    $(Self::$kind => $module::new(setup),)*
                }
            }
        }
    };
}

collectors! {
    /// Processor time, throttling, isolation.
    Cpu cpu;
    /// Block devices.
    Diskstats diskstats;
    /// Open files of the whole system.
    Filefd filefd;
    /// Space and inodes of mounted filesystems.
    Filesystem filesystem;
    /// Load averages.
    Loadavg loadavg;
    /// Memory.
    Meminfo meminfo;
    /// Network interfaces.
    Netdev netdev;
    /// Protocol counters.
    Netstat netstat;
    /// Pressure stall information.
    Pressure pressure;
    /// Interrupts, context switches, forks, boot time.
    Stat stat;
    /// The clock, its zone and sources.
    Time time;
    /// Kernel and host name.
    Uname uname;
    /// Paging and out-of-memory kills.
    Vmstat vmstat;
}
