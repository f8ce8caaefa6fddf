//! Reads and writes by device (Documentation/admin-guide/cgroup-v1/blkio-controller.rst, block/bfq-iosched.rst,
//! cgroup-v2.rst).

use super::{MICROS, NANOS, Subject};
use crate::source::container::cgroup::{Controller, File, Version};
use crate::source::reading::emit::{Emitter, Metric};
use crate::source::reading::text::{fields, lines, uint};
use std::path::{Path, PathBuf};

/// The names of block devices by their numbers, from sysfs.
#[derive(Debug)]
pub(in super::super) struct Devices {
    root: PathBuf,
    known: Vec<((u64, u64), Box<str>)>,
    /// Whether sysfs was looked at in this pass.
    fresh: bool,
}

impl Devices {
    /// Nothing is read yet.
    pub(in super::super) fn new(sysfs: &Path) -> Self {
        Self { root: sysfs.join("class/block"), known: Vec::new(), fresh: false }
    }

    /// Begins a pass: a device that is not known is looked for once in each.
    pub(in super::super) fn begin(&mut self) {
        self.fresh = false;
    }

    /// The device's file, as `/dev/sda`; empty if it is not known.
    fn name(&mut self, number: (u64, u64)) -> &str {
        let mut place = self.known.binary_search_by_key(&number, |(number, _)| *number);
        if place.is_err() && !std::mem::replace(&mut self.fresh, true) {
            self.known = list(&self.root);
            place = self.known.binary_search_by_key(&number, |(number, _)| *number);
        }
        place.map_or("", |at| &self.known[at].1)
    }
}

/// All block devices, by number (Documentation/ABI/stable/sysfs-block).
fn list(root: &Path) -> Vec<((u64, u64), Box<str>)> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let device = |entry: std::fs::DirEntry| {
        let number = device_number(std::fs::read(entry.path().join("dev")).ok()?.trim_ascii())?;
        // The kernel writes `!` for a slash in a device's name.
        let name = entry.file_name().to_string_lossy().replace('!', "/");
        Some((number, format!("/dev/{name}").into_boxed_str()))
    };
    let mut found: Vec<_> = entries.filter_map(device).collect();
    found.sort_unstable();
    found
}

/// `MAJOR:MINOR`.
fn device_number(text: &[u8]) -> Option<(u64, u64)> {
    let at = memchr::memchr(b':', text)?;
    Some((uint(&text[..at])?, uint(&text[at + 1..])?))
}

/// Emits the group.
pub(in super::super) fn emit(subject: &mut Subject<'_>, devices: &mut Devices, out: &mut Emitter<'_>) {
    match subject.version(Controller::Io) {
        Some(Version::V1) => emit_v1(subject, devices, out),
        Some(Version::V2) => emit_v2(subject, devices, out),
        None => {}
    }
}

/// Whoever schedules a device's requests counts them: BFQ, CFQ before Linux 5.0, or nobody, and then the throttle
/// layer. The files of those that do not are there and empty.
fn emit_v1(subject: &mut Subject<'_>, devices: &mut Devices, out: &mut Emitter<'_>) {
    for (bytes, serviced) in [
        (File::BfqBytes, File::BfqServiced),
        (File::CfqBytes, File::CfqServiced),
        (File::ThrottleBytes, File::ThrottleServiced),
        (File::ThrottleOwnBytes, File::ThrottleOwnServiced),
    ] {
        if bytes_v1(subject, bytes, devices, out) {
            let metrics = subject.metrics;
            let reads_and_writes = [("Read", &metrics.reads, 1.0), ("Write", &metrics.writes, 1.0)];
            table_v1(subject, serviced, &reads_and_writes, devices, out);
            if bytes == File::CfqBytes {
                only_cfq(subject, devices, out);
            }
            return;
        }
    }
}

fn only_cfq(subject: &mut Subject<'_>, devices: &mut Devices, out: &mut Emitter<'_>) {
    let metrics = subject.metrics;
    for (file, table) in [
        (
            File::CfqMerged,
            &[("Read", &metrics.reads_merged, 1.0), ("Write", &metrics.writes_merged, 1.0)][..],
        ),
        (
            File::CfqServiceTime,
            &[
                ("Read", &metrics.read_seconds, NANOS),
                ("Write", &metrics.write_seconds, NANOS),
                ("Total", &metrics.io_seconds, NANOS),
            ],
        ),
        (File::CfqQueued, &[("Total", &metrics.io_current, 1.0)]),
    ] {
        table_v1(subject, file, table, devices, out);
    }
}

/// A device by its numbers and as they are written, an operation, a value.
type Entry<'a> = ((u64, u64), &'a [u8], &'a [u8], u64);

/// A line `8:0 Read 123`; the totals of all devices are none.
fn entry_v1(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = fields(line);
    let (device, operation, value) = (parts.next()?, parts.next()?, parts.next()?);
    Some((device_number(device)?, device, operation, uint(value)?))
}

fn bytes_v1(subject: &mut Subject<'_>, file: File, devices: &mut Devices, out: &mut Emitter<'_>) -> bool {
    let metrics = subject.metrics;
    let mut any = false;
    for (number, device, operation, bytes) in
        subject.file(file).into_iter().flat_map(lines).filter_map(entry_v1)
    {
        any = true;
        let name = devices.name(number);
        blkio(metrics, name, device, operation, bytes, out);
        match operation {
            b"Read" => out.emit(&metrics.read_bytes, &[name], bytes as f64),
            b"Write" => out.emit(&metrics.write_bytes, &[name], bytes as f64),
            _ => {}
        }
    }
    any
}

fn blkio(
    metrics: &super::Metrics,
    name: &str,
    device: &[u8],
    operation: &[u8],
    bytes: u64,
    out: &mut Emitter<'_>,
) {
    let (Ok(device), Ok(operation)) = (std::str::from_utf8(device), std::str::from_utf8(operation)) else {
        return;
    };
    let (major, minor) = device.split_once(':').unwrap_or((device, ""));
    out.emit(&metrics.blkio, &[name, major, minor, operation], bytes as f64);
}

/// Emits the operations of a file that are wanted, each with its metric and how many of its units are one of the metric's.
fn table_v1(
    subject: &mut Subject<'_>,
    file: File,
    wanted: &[(&str, &Metric, f64)],
    devices: &mut Devices,
    out: &mut Emitter<'_>,
) {
    for (number, _, operation, value) in subject.file(file).into_iter().flat_map(lines).filter_map(entry_v1) {
        let found = wanted.iter().find(|(name, ..)| name.as_bytes() == operation);
        if let Some((_, metric, unit)) = found {
            out.emit(metric, &[devices.name(number)], value as f64 / unit);
        }
    }
}

fn emit_v2(subject: &mut Subject<'_>, devices: &mut Devices, out: &mut Emitter<'_>) {
    let metrics = subject.metrics;
    let Some(stat) = subject.file(File::IoStat) else { return };
    for line in lines(stat) {
        // A line may name devices without counters before the one that the counters are of.
        let mut device: &[u8] = b"";
        let mut name = "";
        for field in fields(line) {
            let Some(at) = memchr::memchr(b'=', field) else {
                if let Some(number) = device_number(field) {
                    device = field;
                    name = devices.name(number);
                }
                continue;
            };
            let (key, Some(value)) = (&field[..at], uint(&field[at + 1..])) else { continue };
            let seconds = || value as f64 / MICROS;
            match key {
                _ if device.is_empty() => {}
                b"rbytes" => {
                    out.emit(&metrics.read_bytes, &[name], value as f64);
                    blkio(metrics, name, device, b"Read", value, out);
                }
                b"wbytes" => {
                    out.emit(&metrics.write_bytes, &[name], value as f64);
                    blkio(metrics, name, device, b"Write", value, out);
                }
                b"rios" => out.emit(&metrics.reads, &[name], value as f64),
                b"wios" => out.emit(&metrics.writes, &[name], value as f64),
                b"cost.usage" => out.emit(&metrics.cost_usage, &[name], seconds()),
                b"cost.wait" => out.emit(&metrics.cost_wait, &[name], seconds()),
                b"cost.indebt" => out.emit(&metrics.cost_indebt, &[name], seconds()),
                b"cost.indelay" => out.emit(&metrics.cost_indelay, &[name], seconds()),
                _ => {}
            }
        }
    }
}
