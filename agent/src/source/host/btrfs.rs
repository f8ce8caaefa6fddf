//! Btrfs filesystems, `/sys/fs/btrfs/UUID` (Documentation/filesystems/btrfs.rst, `man 5 btrfs`).
//!
//! node_exporter asks mounted filesystems for more by ioctl, as root: errors and unused space by device. Such calls
//! need `unsafe`, which this program does without.

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Devices, Entry, Page, Short, is_missing};
use super::text::{fields, label, lines, uint};
use super::{CollectError, Collector, Setup};
use std::io::ErrorKind;
use std::path::Path;

/// Devices are sized in sectors of 512 bytes.
const SECTOR_BYTES: u64 = 512;
/// The kernel says milliseconds.
const MILLI: f64 = 1000.0;

/// What space is used for.
const TYPES: [&str; 3] = ["data", "metadata", "system"];

/// Lines of `commit_stats`, the metric's name, its help. The first and the last count.
const COMMITS: [(&str, &str, &str); 4] = [
    ("commits", "commits_total", "How many transactions were committed."),
    ("last_commit_ms", "last_commit_seconds", "How long the last commit took."),
    ("max_commit_ms", "max_commit_seconds", "How long the longest commit took."),
    ("total_commit_ms", "commit_seconds_total", "How long all commits took."),
];

struct Btrfs {
    filesystems: Devices<Filesystem>,
    metrics: Metrics,
}

struct Metrics {
    info: Metric,
    reserve: Metric,
    commits: Vec<Metric>,
    reserved: Metric,
    used: Metric,
    size: Metric,
    ratio: Metric,
    device: Metric,
}

struct Filesystem {
    uuid: Box<str>,
    label: Attribute,
    reserve: Attribute,
    commits: Attribute,
    spaces: [Space; TYPES.len()],
    devices: Devices<Attribute>,
}

/// Space of a type, by how it is laid out.
struct Space {
    reserved: Attribute,
    layouts: Devices<Layout>,
}

struct Layout {
    used: Attribute,
    size: Attribute,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let commit = |(_, name, help): &(&str, &str, &str)| {
        let name = format!("node_btrfs_{name}");
        if name.ends_with("_total") {
            Metric::counter(&name, help, &["uuid"])
        } else {
            Metric::gauge(&name, help, &["uuid"])
        }
    };
    let of_layout = |name: &str, help: &str| {
        Metric::gauge(&format!("node_btrfs_{name}"), help, &["block_group_type", "mode", "uuid"])
    };
    Box::new(Btrfs {
        filesystems: Devices::new(setup.paths.sysfs.join("fs/btrfs")),
        metrics: Metrics {
            info: Metric::gauge("node_btrfs_info", "1, with a filesystem's label.", &["label", "uuid"]),
            reserve: Metric::gauge(
                "node_btrfs_global_rsv_size_bytes",
                "Space that is kept for the filesystem itself.",
                &["uuid"],
            ),
            commits: COMMITS.iter().map(commit).collect(),
            reserved: Metric::gauge(
                "node_btrfs_reserved_bytes",
                "Space that is reserved for a type.",
                &["block_group_type", "uuid"],
            ),
            used: of_layout("used_bytes", "Space in use, by type and layout."),
            size: of_layout("size_bytes", "Space there is, by type and layout."),
            ratio: of_layout("allocation_ratio", "How much space a byte takes in a layout."),
            device: Metric::gauge(
                "node_btrfs_device_size_bytes",
                "The size of a filesystem's device.",
                &["device", "uuid"],
            ),
        },
    })
}

impl Collector for Btrfs {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let make =
            |entry: &Entry<'_>| entry.name.contains('-').then(|| Filesystem::new(&entry.path(), entry.name));
        let filesystems = match self.filesystems.list(make) {
            Err(error) if is_missing(&error) => return Ok(()),
            filesystems => filesystems?,
        };
        out.whole(|out| {
            filesystems.iter_mut().try_for_each(|filesystem| filesystem.is.emit(&self.metrics, out))
        })
    }
}

impl Filesystem {
    fn new(dir: &Path, name: &str) -> Self {
        let attribute = |name: &str| Attribute::new(dir.join(name));
        let mut buffer: Short = [0; 128];
        let uuid = attribute("metadata_uuid").read(&mut buffer).map(label).unwrap_or_default();
        Self {
            uuid: if uuid.is_empty() { name.into() } else { uuid },
            label: attribute("label"),
            reserve: attribute("allocation/global_rsv_size"),
            commits: attribute("commit_stats"),
            spaces: TYPES.map(|of| {
                let dir = dir.join("allocation").join(of);
                Space { reserved: Attribute::new(dir.join("bytes_reserved")), layouts: Devices::new(dir) }
            }),
            devices: Devices::new(dir.join("devices")),
        }
    }

    fn emit(&mut self, metrics: &Metrics, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let uuid: &str = &self.uuid;
        let missing = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
        let mut page: Page = [0; 4096];
        let text = self.label.read_unless(&mut page, missing)?.unwrap_or_default();
        out.emit(&metrics.info, &[&String::from_utf8_lossy(text), uuid], 1.0);
        out.emit(&metrics.reserve, &[uuid], number(&mut self.reserve)? as f64);
        // Linux before 6.0 has none: its commits count as none.
        let text = self.commits.read_unless(&mut page, missing)?.unwrap_or_default();
        let values = commits(text).map_err(|line| self.commits.bad("`name number` is expected", line))?;
        for (place, (metric, value)) in metrics.commits.iter().zip(values).enumerate() {
            let unit = if place == 0 { 1.0 } else { MILLI };
            out.emit(metric, &[uuid], value as f64 / unit);
        }
        let devices = self.devices.list(|entry| Some(Attribute::new(entry.path().join("size"))))?;
        for (of, space) in TYPES.into_iter().zip(&mut self.spaces) {
            out.emit(&metrics.reserved, &[of, uuid], number(&mut space.reserved)? as f64);
            let layouts = space.layouts.list(|entry| entry.is_dir().then(|| Layout::new(&entry.path())))?;
            for layout in layouts {
                let labels = [of, &layout.name, uuid];
                out.emit(&metrics.used, &labels, number(&mut layout.is.used)? as f64);
                out.emit(&metrics.size, &labels, number(&mut layout.is.size)? as f64);
                out.emit(&metrics.ratio, &labels, ratio(&layout.name, devices.len()));
            }
        }
        for device in devices {
            let bytes = number(&mut device.is)?.wrapping_mul(SECTOR_BYTES);
            out.emit(&metrics.device, &[&device.name, uuid], bytes as f64);
        }
        Ok(())
    }
}

impl Layout {
    fn new(dir: &Path) -> Self {
        Self { used: Attribute::new(dir.join("used_bytes")), size: Attribute::new(dir.join("total_bytes")) }
    }
}

/// A number; zero where there is none.
fn number(attribute: &mut Attribute) -> Result<u64, CollectError> {
    let mut buffer: Short = [0; 128];
    let text = attribute.read_unless(&mut buffer, |error| error.kind() == ErrorKind::NotFound)?;
    Ok(text.and_then(uint).unwrap_or_default())
}

/// The numbers of `commit_stats`. `Err` is a line that is not as the kernel writes it.
fn commits(text: &[u8]) -> Result<[u64; COMMITS.len()], &[u8]> {
    let mut values = [0; COMMITS.len()];
    for line in lines(text) {
        let mut columns = fields(line);
        let (Some(name), Some(value), None) = (columns.next(), columns.next(), columns.next()) else {
            return Err(line);
        };
        let value = uint(value).ok_or(line)?;
        if let Some(at) = COMMITS.iter().position(|(known, ..)| known.as_bytes() == name) {
            values[at] = value;
        }
    }
    Ok(values)
}

/// How many bytes of its devices a byte takes in a layout.
fn ratio(layout: &str, devices: usize) -> f64 {
    let devices = devices as f64;
    match layout {
        "single" | "raid0" => 1.0,
        "dup" | "raid1" | "raid10" => 2.0,
        "raid1c3" => 3.0,
        "raid1c4" => 4.0,
        "raid5" => devices / (devices - 1.0),
        "raid6" => devices / (devices - 2.0),
        _ => 0.0,
    }
}
