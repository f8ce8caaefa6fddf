//! Block devices from `/proc/diskstats` (Documentation/admin-guide/iostats.rst), with what udev and sysfs know
//! of them.

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::filter::Filter;
use super::text::{fields, float, label, lines, uint};
use super::udev::UdevEntry;
use super::{CollectError, Collector, Paths, Setup};

/// The kernel counts in sectors of 512 bytes whatever the device's are.
const SECTOR_BYTES: f64 = 512.0;
/// The kernel counts time in milliseconds.
const SECONDS_PER_TICK: f64 = 1.0 / 1000.0;
const COUNT: f64 = 1.0;

/// Fewer counters than these and the line is none of a whole device (a partition of a kernel before 2.6.25).
const LEAST_COUNTERS: usize = 11;

/// The counters in the kernel's order, with their unit. Linux 4.18 added the discards, 5.5 the flushes.
const COUNTERS: [(&str, f64, &str); 17] = [
    ("reads_completed_total", COUNT, "Reads completed."),
    ("reads_merged_total", COUNT, "Reads merged with neighbours."),
    ("read_bytes_total", SECTOR_BYTES, "Bytes read."),
    ("read_time_seconds_total", SECONDS_PER_TICK, "Time that all reads took."),
    ("writes_completed_total", COUNT, "Writes completed."),
    ("writes_merged_total", COUNT, "Writes merged with neighbours."),
    ("written_bytes_total", SECTOR_BYTES, "Bytes written."),
    ("write_time_seconds_total", SECONDS_PER_TICK, "Time that all writes took."),
    ("io_now", COUNT, "Requests in progress."),
    ("io_time_seconds_total", SECONDS_PER_TICK, "Time in which the device had something to do."),
    ("io_time_weighted_seconds_total", SECONDS_PER_TICK, "Time of I/O times the requests in progress."),
    ("discards_completed_total", COUNT, "Discards completed."),
    ("discards_merged_total", COUNT, "Discards merged with neighbours."),
    ("discarded_sectors_total", COUNT, "Sectors discarded, of 512 bytes."),
    ("discard_time_seconds_total", SECONDS_PER_TICK, "Time that all discards took."),
    ("flush_requests_total", COUNT, "Flushes completed."),
    ("flush_requests_time_seconds_total", SECONDS_PER_TICK, "Time that all flushes took."),
];

/// What udev says of ATA disks.
const ATA: [(&str, &str, &str); 3] = [
    ("ID_ATA_WRITE_CACHE", "ata_write_cache", "1 if the disk has a write cache."),
    ("ID_ATA_WRITE_CACHE_ENABLED", "ata_write_cache_enabled", "1 if the disk's write cache is on."),
    ("ID_ATA_ROTATION_RATE_RPM", "ata_rotation_rate_rpm", "Rotations a minute; 0 for a disk that does not."),
];

struct Diskstats {
    file: PolledFile,
    paths: Paths,
    filter: Filter,
    metrics: Metrics,
    disks: Vec<Disk>,
}

struct Metrics {
    info: Metric,
    counters: Vec<(Metric, f64)>,
    filesystem: Metric,
    device_mapper: Metric,
    ata: Vec<(&'static str, Metric)>,
}

/// A line of the file, by its place.
struct Disk {
    name: Box<str>,
    major: Box<str>,
    minor: Box<str>,
    /// None for a device that is filtered out.
    wanted: Option<Wanted>,
}

struct Wanted {
    udev: UdevEntry,
    rotational: PolledFile,
    ata: Vec<(usize, f64)>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let counter = |(name, unit, help): &(&str, f64, &str)| {
        let full = format!("node_disk_{name}");
        let metric = match *name {
            "io_now" => Metric::gauge(&full, help, &["device"]),
            _ => Metric::counter(&full, help, &["device"]),
        };
        (metric, *unit)
    };
    let ata = |(property, name, help): &(&'static str, &str, &str)| {
        (*property, Metric::gauge(&format!("node_disk_{name}"), help, &["device"]))
    };
    Box::new(Diskstats {
        file: PolledFile::new(setup.paths.procfs.join("diskstats")),
        paths: setup.paths.clone(),
        filter: setup.settings.disk_devices.clone(),
        metrics: Metrics {
            info: Metric::gauge(
                "node_disk_info",
                "1, with what udev and sysfs know of the device.",
                &["device", "major", "minor", "model", "path", "revision", "rotational", "serial", "wwn"],
            ),
            counters: COUNTERS.iter().map(counter).collect(),
            filesystem: Metric::gauge(
                "node_disk_filesystem_info",
                "1, with what udev knows of the filesystem on the device.",
                &["device", "type", "usage", "uuid", "version"],
            ),
            device_mapper: Metric::gauge(
                "node_disk_device_mapper_info",
                "1, with what udev knows of the device mapper's device.",
                &["device", "lv_layer", "lv_name", "name", "uuid", "vg_name"],
            ),
            ata: ATA.iter().map(ata).collect(),
        },
        disks: Vec::new(),
    })
}

impl Collector for Diskstats {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        let mut place = 0;
        for line in lines(text.bytes) {
            let mut columns = fields(line);
            let mut number = || columns.next().filter(|column| uint(column).is_some());
            let (Some(major), Some(minor)) = (number(), number()) else {
                return Err(text.bad("it does not begin with two numbers", line));
            };
            let Some(name) = columns.next() else { continue };
            let mut values = [0u64; COUNTERS.len()];
            let mut count = 0;
            for (value, column) in values.iter_mut().zip(columns) {
                *value = uint(column).ok_or_else(|| text.bad("a counter is not a number", line))?;
                count += 1;
            }
            if count < LEAST_COUNTERS {
                continue;
            }
            let same = |disk: &Disk| {
                disk.name.as_bytes() == name
                    && disk.major.as_bytes() == major
                    && disk.minor.as_bytes() == minor
            };
            if !self.disks.get(place).is_some_and(same) {
                let disk = Disk::new(name, major, minor, &self.filter, &self.paths);
                self.disks.truncate(place);
                self.disks.push(disk);
            }
            self.disks[place].emit(&values[..count], &self.metrics, out);
            place += 1;
        }
        self.disks.truncate(place);
        Ok(())
    }
}

impl Disk {
    fn new(name: &[u8], major: &[u8], minor: &[u8], filter: &Filter, paths: &Paths) -> Self {
        let (name, major, minor) = (label(name), label(major), label(minor));
        let wanted = filter.passes(&name).then(|| Wanted {
            udev: UdevEntry::new(&paths.udev_data, &major, &minor),
            rotational: PolledFile::new(paths.sysfs.join("block").join(&*name).join("queue/rotational")),
            ata: Vec::new(),
        });
        Self { name, major, minor, wanted }
    }

    fn emit(&mut self, values: &[u64], metrics: &Metrics, out: &mut Emitter<'_>) {
        let Self { name, major, minor, wanted: Some(Wanted { udev, rotational, ata }) } = self else {
            return;
        };
        if udev.refresh() {
            ata.clear();
            let values = metrics.ata.iter().map(|(property, _)| float(udev.property(property).as_bytes()));
            ata.extend(values.enumerate().filter_map(|(at, value)| Some((at, value?))));
        }
        let spins = rotational.read().is_ok_and(|text| text.bytes.trim_ascii() == b"1");
        let info = [
            name.as_ref(),
            major,
            minor,
            udev.property("ID_MODEL"),
            udev.property("ID_PATH"),
            udev.property("ID_REVISION"),
            if spins { "1" } else { "0" },
            // The first is what is printed on the disk, the last is all that virtio disks have.
            udev.first_of(&["SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"]),
            udev.property("ID_WWN"),
        ];
        out.emit(&metrics.info, &info, 1.0);
        for ((metric, unit), value) in metrics.counters.iter().zip(values) {
            out.emit(metric, &[name], *value as f64 * unit);
        }
        let of = |property| udev.property(property);
        if !of("ID_FS_TYPE").is_empty() {
            let labels =
                [name.as_ref(), of("ID_FS_TYPE"), of("ID_FS_USAGE"), of("ID_FS_UUID"), of("ID_FS_VERSION")];
            out.emit(&metrics.filesystem, &labels, 1.0);
        }
        if !of("DM_NAME").is_empty() {
            let labels = [
                name.as_ref(),
                of("DM_LV_LAYER"),
                of("DM_LV_NAME"),
                of("DM_NAME"),
                of("DM_UUID"),
                of("DM_VG_NAME"),
            ];
            out.emit(&metrics.device_mapper, &labels, 1.0);
        }
        if !of("ID_ATA").is_empty() {
            for (at, value) in ata.iter() {
                out.emit(&metrics.ata[*at].1, &[name], *value);
            }
        }
    }
}
