//! What a node's last values say of the machine itself: for the head of its page.

use super::SymbolText;
use super::main_series::Target;
use crate::session::ResolvedSeries;
use pegel_proto::metrics::NAME_LABEL;
use serde::Serialize;
use std::collections::BTreeMap;

/// The most file systems that are listed; a machine of many containers has hundreds of mounts.
const MAX_FILESYSTEMS: usize = 64;

/// A machine, as far as its last values tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Machine {
    /// How many CPUs.
    pub cpus: Option<u32>,
    /// Memory, in bytes.
    pub memory_total_bytes: Option<f64>,
    /// Memory that programs could still get, in bytes.
    pub memory_available_bytes: Option<f64>,
    /// When it booted, in seconds since the Unix epoch.
    pub boot_time_seconds: Option<f64>,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [Option<f64>; 3],
    /// The kernel's name and release.
    pub kernel: Option<String>,
    /// The hardware's architecture, as the kernel names it.
    pub architecture: Option<String>,
    /// File systems that hold files (no memory file systems), the fullest first.
    pub filesystems: Vec<Filesystem>,
}

/// A mounted file system.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Filesystem {
    /// Where it is mounted.
    pub mountpoint: String,
    /// On what.
    pub device: String,
    /// Its type.
    pub fstype: String,
    /// Its size, in bytes.
    pub size_bytes: f64,
    /// What users may still fill, in bytes.
    pub available_bytes: f64,
}

type Visit<'a> = dyn FnMut(&ResolvedSeries, f64, i64) + 'a;

impl Machine {
    /// Reads the last values of the main target.
    pub(super) fn read(
        text: &dyn SymbolText,
        target: Option<&Target>,
        visit: impl FnOnce(&mut Visit<'_>),
    ) -> Self {
        let mut machine = Self::default();
        let mut filesystems = BTreeMap::new();
        let mut cpus = std::collections::HashSet::new();
        visit(&mut |series, value, _| {
            if !series.family.name.starts_with("node_") {
                return;
            }
            let labels = read_labels(text, series);
            let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
            if target.is_some_and(|target| *target != ["job", "instance"].map(label)) {
                return;
            }
            match label(NAME_LABEL).as_str() {
                "node_cpu_seconds_total" => {
                    cpus.insert(label("cpu"));
                }
                "node_memory_MemTotal_bytes" => machine.memory_total_bytes = Some(value),
                "node_memory_MemAvailable_bytes" => machine.memory_available_bytes = Some(value),
                "node_boot_time_seconds" => machine.boot_time_seconds = Some(value),
                "node_load1" => machine.load[0] = Some(value),
                "node_load5" => machine.load[1] = Some(value),
                "node_load15" => machine.load[2] = Some(value),
                "node_uname_info" => {
                    machine.kernel = Some(format!("{} {}", label("sysname"), label("release")));
                    machine.architecture = Some(label("machine"));
                }
                name @ ("node_filesystem_size_bytes" | "node_filesystem_avail_bytes") => {
                    let (mountpoint, device, fstype) =
                        (label("mountpoint"), label("device"), label("fstype"));
                    if matches!(fstype.as_str(), "tmpfs" | "ramfs" | "devtmpfs" | "squashfs") {
                        return;
                    }
                    let key = (mountpoint.clone(), device.clone());
                    let found: &mut Filesystem = filesystems.entry(key).or_insert_with(|| Filesystem {
                        mountpoint,
                        device,
                        fstype,
                        ..Filesystem::default()
                    });
                    match name {
                        "node_filesystem_size_bytes" => found.size_bytes = value,
                        _ => found.available_bytes = value,
                    }
                }
                _ => {}
            }
        });
        machine.cpus = (!cpus.is_empty()).then_some(cpus.len() as u32);
        machine.filesystems = filesystems.into_values().filter(|f| f.size_bytes > 0.0).collect();
        let free = |f: &Filesystem| f.available_bytes / f.size_bytes;
        machine.filesystems.sort_by(|a, b| free(a).total_cmp(&free(b)));
        machine.filesystems.truncate(MAX_FILESYSTEMS);
        machine
    }
}

/// All labels of a series as text.
fn read_labels(text: &dyn SymbolText, series: &ResolvedSeries) -> BTreeMap<String, String> {
    series.labels.iter().map(|(name, value)| (owned(text, *name), owned(text, *value))).collect()
}

fn owned(text: &dyn SymbolText, symbol: crate::symbols::Symbol) -> String {
    let mut out = String::new();
    text.with_text(symbol, &mut |text| out.push_str(text));
    out
}
