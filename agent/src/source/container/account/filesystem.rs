//! The machine's filesystems, which are reported for `id="/"`.

use super::Metrics;
use crate::source::container::machine::DiskStats;
use crate::source::host::System;
use crate::source::reading::emit::Emitter;
use crate::source::reading::text::lines;
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Types of filesystems with space of their own on a device, or in memory. Those of the network are left out: asking
/// a server that is away hangs.
const TYPES: [&str; 13] = [
    "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "reiserfs", "squashfs", "tmpfs", "vfat", "xfs",
    "zfs",
];

/// Filesystems, found in the mount table.
#[derive(Debug)]
pub(in super::super) struct Filesystems {
    mountinfo: PathBuf,
    rootfs: PathBuf,
    table: Vec<u8>,
    known: Vec<Mount>,
}

#[derive(Debug)]
struct Mount {
    device: Box<str>,
    /// `MAJOR:MINOR`.
    number: Box<[u8]>,
    path: PathBuf,
}

impl Filesystems {
    /// Nothing is read yet.
    pub(in super::super) fn new(procfs: &Path, rootfs: &Path) -> Self {
        // The first process sees what the host sees, where that may be read.
        let of_first = procfs.join("1/mountinfo");
        let mountinfo =
            if std::fs::read(&of_first).is_ok() { of_first } else { procfs.join("self/mountinfo") };
        Self { mountinfo, rootfs: rootfs.to_owned(), table: Vec::new(), known: Vec::new() }
    }

    /// Emits the filesystems, and what their devices did.
    pub(in super::super) fn emit(
        &mut self,
        system: &Arc<dyn System>,
        disks: &mut DiskStats,
        metrics: &Metrics,
        out: &mut Emitter<'_>,
    ) {
        if let Ok(table) = std::fs::read(&self.mountinfo)
            && table != self.table
        {
            self.known = mounts(&table, &self.rootfs);
            self.table = table;
        }
        disks.read();
        for Mount { device, number, path } in &self.known {
            let labels = &[&**device];
            if let Ok(usage) = system.statfs(path) {
                out.emit(&metrics.fs_inodes_free, labels, usage.files_free);
                out.emit(&metrics.fs_inodes, labels, usage.files);
                out.emit(&metrics.fs_limit, labels, usage.size_bytes);
                out.emit(&metrics.fs_usage, labels, usage.size_bytes - usage.free_bytes);
            }
            let Some(disk) = disks.of(number) else { continue };
            let seconds = |millis: u64| millis as f64 / 1_000.0;
            for (metric, value) in [
                (&metrics.reads, disk[0] as f64),
                (&metrics.reads_merged, disk[1] as f64),
                (&metrics.sector_reads, disk[2] as f64),
                (&metrics.read_seconds, seconds(disk[3])),
                (&metrics.writes, disk[4] as f64),
                (&metrics.writes_merged, disk[5] as f64),
                (&metrics.sector_writes, disk[6] as f64),
                (&metrics.write_seconds, seconds(disk[7])),
                (&metrics.io_current, disk[8] as f64),
                (&metrics.io_seconds, seconds(disk[9])),
                (&metrics.io_weighted_seconds, seconds(disk[10])),
            ] {
                out.emit(metric, labels, value);
            }
        }
    }
}

/// The filesystems of a mount table, each device once, where it is first mounted.
fn mounts(table: &[u8], rootfs: &Path) -> Vec<Mount> {
    let mut devices = HashSet::new();
    let mount = |line| {
        let fields: Vec<&[u8]> = <[u8]>::split(line, |b| *b == b' ').collect();
        let [_, _, number, _, at, _, .., fs_type, source, _] = fields[..] else { return None };
        let fs_type = std::str::from_utf8(fs_type).ok()?;
        if !TYPES.contains(&fs_type) {
            return None;
        }
        let at = PathBuf::from(OsString::from_vec(at.to_vec()));
        // All tmpfs have the same source: what tells them apart is where they are.
        let source = if fs_type == "tmpfs" { at.as_os_str().as_encoded_bytes() } else { source };
        let device: Box<str> = String::from_utf8_lossy(source).into();
        let path = rootfs.join(at.strip_prefix("/").unwrap_or(&at));
        Some(Mount { device, number: number.into(), path })
    };
    let all = lines(table).filter_map(mount);
    all.filter(|mount: &Mount| devices.insert(mount.device.clone())).collect()
}
