//! The machine as cAdvisor's `machine_…` describe it, and what is read of it at every pass.

use crate::source::host::System;
use crate::source::reading::emit::{Emitter, Metric};
use crate::source::reading::file::PolledFile;
use crate::source::reading::text::{fields, lines, uint};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Bytes of a kilobyte in `/proc/meminfo`.
const KIB: u64 = 1 << 10;

/// Bytes of a megabyte in EDAC's files.
const MIB: f64 = 1_048_576.0;

/// Counters of `/proc/diskstats` that are looked at.
const DISK_COUNTERS: usize = 11;

/// Memory and swap of the machine, in bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct MemInfo {
    /// All memory.
    pub(super) total: u64,
    /// All swap.
    pub(super) swap_total: u64,
    /// Swap that is free.
    pub(super) swap_free: u64,
}

impl MemInfo {
    /// Reads `/proc/meminfo`.
    fn read(file: &mut PolledFile) -> Self {
        let mut found = Self::default();
        let Ok(text) = file.read() else { return found };
        for line in lines(text.bytes) {
            let mut parts = fields(line);
            let place = match parts.next() {
                Some(b"MemTotal:") => &mut found.total,
                Some(b"SwapTotal:") => &mut found.swap_total,
                Some(b"SwapFree:") => &mut found.swap_free,
                _ => continue,
            };
            *place = parts.next().and_then(uint).unwrap_or(0).saturating_mul(KIB);
        }
        found
    }
}

/// What block devices did, from `/proc/diskstats` (Documentation/admin-guide/iostats.rst).
#[derive(Debug)]
pub(super) struct DiskStats {
    file: PolledFile,
    disks: BTreeMap<Box<[u8]>, [u64; DISK_COUNTERS]>,
}

impl DiskStats {
    /// Nothing is read yet.
    pub(super) fn new(procfs: &Path) -> Self {
        Self { file: PolledFile::new(procfs.join("diskstats")), disks: BTreeMap::new() }
    }

    /// Reads the file.
    pub(super) fn read(&mut self) {
        self.disks.clear();
        let Ok(text) = self.file.read() else { return };
        for line in lines(text.bytes) {
            let mut parts = fields(line);
            let (Some(major), Some(minor), Some(_name)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let mut counters = [0; DISK_COUNTERS];
            for (counter, value) in counters.iter_mut().zip(parts.map_while(uint)) {
                *counter = value;
            }
            self.disks.insert([major, b":", minor].concat().into(), counters);
        }
    }

    /// The counters of the device `MAJOR:MINOR`, in the file's order.
    pub(super) fn of(&self, number: &[u8]) -> Option<&[u64; DISK_COUNTERS]> {
        self.disks.get(number)
    }
}

/// The machine.
#[derive(Debug)]
pub(super) struct Machine {
    meminfo: PolledFile,
    /// Memory as of this pass.
    pub(super) memory: MemInfo,
    /// When it was booted, in seconds since the Unix epoch, to the minute: a clock that is corrected after the boot
    /// must not make it jump.
    pub(super) boot_seconds: i64,
    ids: [Box<str>; 3],
    counts: Vec<(Metric, f64)>,
    dimms: Vec<(Box<str>, f64, f64)>,
    memory_bytes: Metric,
    swap_bytes: Metric,
    dimm_count: Metric,
    dimm_bytes: Metric,
    version: Metric,
    version_labels: [Box<str>; 5],
}

const IDS: &[&str] = &["boot_id", "machine_id", "system_uuid"];
const IDS_AND_TYPE: &[&str] = &["boot_id", "machine_id", "system_uuid", "type"];

impl Machine {
    /// Reads what stays as it is.
    pub(super) fn read(procfs: &Path, sysfs: &Path, rootfs: &Path, system: &Arc<dyn System>) -> Self {
        let text = |path: std::path::PathBuf| {
            let text = std::fs::read_to_string(path).ok()?;
            let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
            (!text.is_empty()).then(|| Box::<str>::from(text))
        };
        let machine_id =
            text(rootfs.join("etc/machine-id")).or_else(|| text(rootfs.join("var/lib/dbus/machine-id")));
        let uuid = text(sysfs.join("class/dmi/id/product_uuid"))
            .or_else(|| text(procfs.join("device-tree/system-id")))
            .or_else(|| text(procfs.join("device-tree/vm,uuid")))
            // As cAdvisor, whose last resort is what s390 has in its place.
            .or_else(|| text(rootfs.join("etc/machine-id")));
        let ids =
            [text(procfs.join("sys/kernel/random/boot_id")), machine_id, uuid].map(Option::unwrap_or_default);
        let kernel = system.uname().release.into_boxed_str();
        let mut machine = Self {
            meminfo: PolledFile::new(procfs.join("meminfo")),
            memory: MemInfo::default(),
            boot_seconds: boot_seconds(procfs),
            ids,
            counts: counts(&sysfs.join("devices/system/cpu")),
            dimms: dimms(&sysfs.join("devices/system/edac/mc")),
            memory_bytes: Metric::gauge("machine_memory_bytes", "Memory of the machine.", IDS),
            swap_bytes: Metric::gauge("machine_swap_bytes", "Swap of the machine.", IDS),
            dimm_count: Metric::gauge("machine_dimm_count", "Memory modules, by type.", IDS_AND_TYPE),
            dimm_bytes: Metric::gauge(
                "machine_dimm_capacity_bytes",
                "Memory of modules, by type.",
                IDS_AND_TYPE,
            ),
            version: Metric::gauge(
                "cadvisor_version_info",
                "1, with the versions of kernel and operating system, and of pegel for cAdvisor's.",
                &["cadvisorRevision", "cadvisorVersion", "dockerVersion", "kernelVersion", "osVersion"],
            ),
            version_labels: [
                Box::default(),
                concat!("pegel-", env!("CARGO_PKG_VERSION")).into(),
                Box::default(),
                kernel,
                os_version(rootfs),
            ],
        };
        machine.refresh();
        machine
    }

    /// Reads what changes.
    pub(super) fn refresh(&mut self) {
        self.memory = MemInfo::read(&mut self.meminfo);
    }

    /// Emits all of it.
    pub(super) fn emit(&self, out: &mut Emitter<'_>) {
        let ids = self.ids.each_ref().map(|id| &**id);
        for (metric, count) in &self.counts {
            out.emit(metric, &ids, *count);
        }
        out.emit(&self.memory_bytes, &ids, self.memory.total as f64);
        out.emit(&self.swap_bytes, &ids, self.memory.swap_total as f64);
        for (kind, count, bytes) in &self.dimms {
            let labels = [ids[0], ids[1], ids[2], kind];
            out.emit(&self.dimm_count, &labels, *count);
            out.emit(&self.dimm_bytes, &labels, *bytes);
        }
        out.emit(&self.version, &self.version_labels.each_ref().map(|label| &**label), 1.0);
    }
}

/// `btime` of `/proc/stat`, to the minute.
fn boot_seconds(procfs: &Path) -> i64 {
    let stat = std::fs::read(procfs.join("stat")).unwrap_or_default();
    let seconds = lines(&stat).find_map(|line| uint(line.strip_prefix(b"btime ")?));
    seconds.and_then(|seconds| i64::try_from(seconds).ok()).map_or(0, |seconds| seconds - seconds % 60)
}

/// Processors, cores and so on (Documentation/admin-guide/cputopology.rst).
fn counts(root: &Path) -> Vec<(Metric, f64)> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let is_cpu =
        |name: &str| name.strip_prefix("cpu").is_some_and(|number| uint(number.as_bytes()).is_some());
    let cpus = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_cpu));
    let (mut online, mut cores, mut sockets) = (0_u32, BTreeSet::new(), BTreeSet::new());
    let (mut books, mut drawers) = (BTreeSet::new(), BTreeSet::new());
    for cpu in cpus {
        let file = |name: &str| std::fs::read_to_string(cpu.path().join(name)).ok();
        if file("online").is_some_and(|online| online.trim() == "0") {
            continue;
        }
        online += 1;
        let package = file("topology/physical_package_id");
        cores.extend(file("topology/core_id").map(|core| (package.clone(), core)));
        sockets.extend(package);
        books.extend(file("topology/book_id"));
        drawers.extend(file("topology/drawer_id"));
    }
    let count = |name: &str, help: &str, count: usize| (Metric::gauge(name, help, IDS), count as f64);
    vec![
        count("machine_cpu_physical_cores", "Cores of the machine.", cores.len()),
        count("machine_cpu_cores", "Processors of the machine: threads of its cores.", online as usize),
        count("machine_cpu_sockets", "Processor packages of the machine.", sockets.len()),
        count("machine_cpu_books", "Processor books of the machine (s390).", books.len()),
        count("machine_cpu_drawers", "Processor drawers of the machine (s390).", drawers.len()),
    ]
}

/// Memory modules by type: how many, and their bytes (Documentation/admin-guide/ras.rst).
fn dimms(root: &Path) -> Vec<(Box<str>, f64, f64)> {
    let within = |dir: &Path, prefix: &'static str| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path())
    };
    let mut found: BTreeMap<Box<str>, (f64, f64)> = BTreeMap::new();
    for dimm in within(root, "mc").flat_map(|controller| within(&controller, "dimm").collect::<Vec<_>>()) {
        let text = |name: &str| std::fs::read_to_string(dimm.join(name)).ok();
        let (Some(kind), Some(size)) = (text("dimm_mem_type"), text("size")) else { continue };
        let entry = found.entry(kind.trim().into()).or_default();
        entry.0 += 1.0;
        entry.1 += uint(size.trim().as_bytes()).unwrap_or(0) as f64 * MIB;
    }
    found.into_iter().map(|(kind, (count, bytes))| (kind, count, bytes)).collect()
}

/// `PRETTY_NAME` of os-release(5).
fn os_version(rootfs: &Path) -> Box<str> {
    let read = |name: &str| std::fs::read_to_string(rootfs.join(name)).ok();
    let text = read("etc/os-release").or_else(|| read("usr/lib/os-release")).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.map_or("Linux", |value| value.trim().trim_matches(['"', '\''])).into()
}
