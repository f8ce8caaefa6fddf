//! What a person wants to know of a machine at a glance: for the agent's hello and the page.

use super::{Paths, System};
use std::fs;
use sysinfo::{MemoryRefreshKind, RefreshKind};

/// A machine in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSummary {
    /// The host's name.
    pub hostname: String,
    /// The operating system, as `Debian GNU/Linux 13 (trixie)`.
    pub os: String,
    /// The kernel's release.
    pub kernel: String,
    /// The architecture, as `x86_64`.
    pub architecture: String,
    /// Processors that the kernel schedules on.
    pub cores: usize,
    /// Memory, in bytes; 0 if it cannot be read.
    pub memory_bytes: u64,
}

/// Reads the machine's summary.
pub fn machine_summary(paths: &Paths, system: &dyn System) -> MachineSummary {
    let uname = system.uname();
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    MachineSummary {
        hostname: uname.nodename,
        os: pretty_name(paths)
            .or_else(|| sysinfo::System::long_os_version().ok())
            .unwrap_or_else(|| "Linux".into()),
        kernel: uname.release,
        architecture: uname.machine,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: sysinfo::System::new_with_specifics(memory).map_or(0, |system| system.total_memory()),
    }
}

/// `PRETTY_NAME` of the host's os-release(5), which in a container is not the container's.
fn pretty_name(paths: &Paths) -> Option<String> {
    let read = |name: &str| fs::read_to_string(paths.rootfs.join(name)).ok();
    let text = read("etc/os-release").or_else(|| read("usr/lib/os-release"))?;
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let bare = value.trim().trim_matches(['"', '\'']);
    (!bare.is_empty()).then(|| bare.to_owned())
}
