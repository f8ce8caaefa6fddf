//! Multipath devices of the device mapper, `/sys/block/dm-*` (Documentation/ABI/testing/sysfs-block-dm).

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Devices, Entry, Short, is_out_of_reach, no_data_if};
use super::text::label;
use super::{CollectError, Collector, Setup};
use std::path::{Path, PathBuf};

/// The kernel counts in sectors of 512 bytes.
const SECTOR_BYTES: u64 = 512;

/// What the UUID of a multipath device begins with.
const MULTIPATH: &[u8] = b"mpath-";

struct DmMultipath {
    block: PathBuf,
    devices: Devices<Mapped>,
    metrics: Metrics,
}

struct Metrics {
    info: Metric,
    active: Metric,
    size: Metric,
    paths: Metric,
    paths_active: Metric,
    paths_failed: Metric,
    path_state: Metric,
}

/// A device of the mapper.
enum Mapped {
    Multipath(Box<Multipath>),
    Other,
}

struct Multipath {
    uuid: Box<str>,
    name: Attribute,
    suspended: Attribute,
    size: Attribute,
    slaves: PathBuf,
    paths: Devices<Attribute>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let of_device = |name: &str, help: &str| {
        Metric::gauge(&format!("node_dmmultipath_device_{name}"), help, &["device", "sysfs_name"])
    };
    let block = setup.paths.sysfs.join("block");
    Box::new(DmMultipath {
        devices: Devices::new(&block),
        block,
        metrics: Metrics {
            info: Metric::gauge(
                "node_dmmultipath_device_info",
                "1, with the UUID of a multipath device.",
                &["device", "sysfs_name", "uuid"],
            ),
            active: of_device("active", "1 if the device is active, 0 if it is suspended."),
            size: of_device("size_bytes", "The device's size."),
            paths: of_device("paths", "How many paths lead to the device."),
            paths_active: of_device("paths_active", "How many of them work."),
            paths_failed: of_device("paths_failed", "How many of them do not."),
            path_state: Metric::gauge(
                "node_dmmultipath_path_state",
                "1, with the state of the device that a path leads over.",
                &["device", "path", "state"],
            ),
        },
    })
}

impl Collector for DmMultipath {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        out.whole(|out| {
            for device in self.devices.list(Mapped::new)? {
                if let Mapped::Multipath(multipath) = &mut device.is {
                    multipath.emit(&device.name, &self.block, &self.metrics, out)?;
                }
            }
            Ok(())
        })
        .map_err(no_data_if(is_out_of_reach, "block devices in sysfs, or not all of them for us"))
    }
}

impl Mapped {
    /// A device of the mapper, as soon as it has its UUID.
    fn new(entry: &Entry<'_>) -> Option<Self> {
        entry.name.strip_prefix("dm-")?;
        let dir = entry.path();
        let attribute = |name: &str| Attribute::new(dir.join(name));
        let mut buffer: Short = [0; 128];
        let uuid = attribute("dm/uuid").read(&mut buffer).ok().filter(|uuid| !uuid.is_empty())?;
        if !uuid.starts_with(MULTIPATH) {
            return Some(Self::Other);
        }
        Some(Self::Multipath(Box::new(Multipath {
            uuid: label(uuid),
            name: attribute("dm/name"),
            suspended: attribute("dm/suspended"),
            size: attribute("size"),
            slaves: dir.join("slaves"),
            paths: Devices::new(dir.join("slaves")),
        })))
    }
}

impl Multipath {
    fn emit(
        &mut self,
        sysfs_name: &str,
        block: &Path,
        metrics: &Metrics,
        out: &mut Emitter<'_>,
    ) -> Result<(), CollectError> {
        let mut buffer: Short = [0; 128];
        let suspended = self.suspended.number(&mut buffer)? == 1;
        let bytes = self.size.number(&mut buffer)?.wrapping_mul(SECTOR_BYTES);
        let name = String::from_utf8_lossy(self.name.required(&mut buffer)?);
        out.emit(&metrics.info, &[&name, sysfs_name, &self.uuid], 1.0);
        let labels = [&*name, sysfs_name];
        out.emit(&metrics.active, &labels, f64::from(u8::from(!suspended)));
        out.emit(&metrics.size, &labels, bytes as f64);
        let make = |entry: &Entry<'_>| Some(Attribute::new(block.join(entry.name).join("device/state")));
        let (mut paths, mut active) = (0u32, 0u32);
        if self.slaves.exists() {
            let mut state: Short = [0; 128];
            for path in self.paths.list(make)? {
                let state = path.is.required(&mut state)?;
                paths += 1;
                // SCSI says `running`, NVMe `live`.
                active += u32::from(matches!(state, b"running" | b"live"));
                let labels = [&*name, &path.name, &String::from_utf8_lossy(state)];
                out.emit(&metrics.path_state, &labels, 1.0);
            }
        }
        out.emit(&metrics.paths, &labels, f64::from(paths));
        out.emit(&metrics.paths_active, &labels, f64::from(active));
        out.emit(&metrics.paths_failed, &labels, f64::from(paths - active));
        Ok(())
    }
}
