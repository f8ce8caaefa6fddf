//! What the firmware says of the machine, `/sys/class/dmi/id` (Documentation/ABI/testing/sysfs-firmware-dmi).
//! It is read once: it stays as it is until the machine is booted again.

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Short};
use super::text::label;
use super::{CollectError, Collector, Setup};
use pegel_proto::metrics::Series;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

/// The attributes, which are labels too, sorted; one has another name as a label.
const ATTRIBUTES: [&str; 20] = [
    "bios_date",
    "bios_release",
    "bios_vendor",
    "bios_version",
    "board_asset_tag",
    "board_name",
    "board_serial",
    "board_vendor",
    "board_version",
    "chassis_asset_tag",
    "chassis_serial",
    "chassis_vendor",
    "chassis_version",
    "product_family",
    "product_name",
    "product_serial",
    "product_sku",
    "product_uuid",
    "product_version",
    SYSTEM_VENDOR,
];

/// The label whose attribute is called `sys_vendor`.
const SYSTEM_VENDOR: &str = "system_vendor";

struct Dmi {
    dir: PathBuf,
    known: Known,
}

/// What is known of the firmware's words.
enum Known {
    NotRead,
    /// It says nothing.
    Nothing,
    Info(Arc<Series>),
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Dmi { dir: setup.paths.sysfs.join("class/dmi/id"), known: Known::NotRead })
}

impl Collector for Dmi {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        if matches!(self.known, Known::NotRead) {
            self.known = self.read()?;
        }
        let Known::Info(info) = &self.known else {
            return Err(CollectError::NoData("desktop management information"));
        };
        out.emit_series(info, 1.0);
        Ok(())
    }
}

impl Dmi {
    fn read(&self) -> Result<Known, CollectError> {
        let mut labels = Vec::new();
        for name in ATTRIBUTES {
            let mut attribute = Attribute::new(self.dir.join(match name {
                SYSTEM_VENDOR => "sys_vendor",
                _ => name,
            }));
            let mut buffer: Short = [0; 128];
            // Serial numbers are for root.
            let harmless = |error: &std::io::Error| {
                matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
            };
            if let Some(value) = attribute.read_unless(&mut buffer, harmless)? {
                labels.push((name, label(value)));
            }
        }
        if labels.is_empty() {
            return Ok(Known::Nothing);
        }
        let info = Metric::gauge("node_dmi_info", "1, with what the firmware says of the machine.", &[]);
        Ok(Known::Info(info.series_with(labels).expect("attributes have different names")))
    }
}
