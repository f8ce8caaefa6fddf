//! PCI devices, `/sys/bus/pci/devices` (Documentation/ABI/testing/sysfs-bus-pci).

use super::emit::{Emitter, Metric};
use super::sysfs::{
    Attribute, Devices, Entry, Short, int_any_base, is_missing, is_without_answer, no_data_if,
};
use super::text::float;
use super::{CollectError, Collector, Setup};
use std::fs;
use std::path::{Path, PathBuf};

/// Links are told in units of a thousand million transfers a second.
const GIGA: f64 = 1e9;

/// What stands for a link of which nothing is known.
const NO_LINK: f64 = -1.0;

/// The states of power.
const POWER_STATES: [&str; 7] = ["D0", "D1", "D2", "D3cold", "D3hot", "error", "unknown"];

/// Numbers that identify a device, and how many digits they have; they are labels of `node_pcidevice_info`.
const IDS: [(&str, usize); 6] = [
    ("class", 6),
    ("device", 4),
    ("revision", 2),
    ("subsystem_device", 4),
    ("subsystem_vendor", 4),
    ("vendor", 4),
];

/// What is told of every device: the attribute, the metric's name, how it is written, its help.
const NUMBERS: [(&str, &str, Form, &str); 9] = [
    ("max_link_speed", "max_link_transfers_per_second", Form::Speed, "The fastest that the link can be."),
    ("max_link_width", "max_link_width", Form::Width, "The most lanes that the link can have."),
    ("current_link_speed", "current_link_transfers_per_second", Form::Speed, "How fast the link is."),
    ("current_link_width", "current_link_width", Form::Width, "How many lanes the link has."),
    ("d3cold_allowed", "d3cold_allowed", Form::Switch, "1 if the device may be cut off from power."),
    (
        "sriov_drivers_autoprobe",
        "sriov_drivers_autoprobe",
        Form::Switch,
        "1 if drivers take virtual functions.",
    ),
    ("sriov_numvfs", "sriov_numvfs", Form::Count, "How many virtual functions there are."),
    ("sriov_totalvfs", "sriov_totalvfs", Form::Count, "How many virtual functions there can be."),
    ("sriov_vf_total_msix", "sriov_vf_total_msix", Form::Count, "Interrupts that virtual functions share."),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `8.0 GT/s PCIe`, or `Unknown`.
    Speed,
    /// A number of lanes.
    Width,
    /// Anything but 0 is on.
    Switch,
    Count,
}

/// Segment, bus, device and function, as they are told in labels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Location {
    segment: String,
    bus: String,
    device: String,
    function: String,
}

struct PciDevices {
    devices: Devices<Pci>,
    metrics: Metrics,
}

struct Metrics {
    info: Metric,
    numbers: Vec<Metric>,
    power: Metric,
    numa_node: Metric,
}

/// A device. What identifies it stays as it is.
struct Pci {
    dir: PathBuf,
    /// None as long as it was not read.
    identity: Option<Identity>,
    numbers: [Attribute; NUMBERS.len()],
    power: Attribute,
    numa_node: Attribute,
}

struct Identity {
    at: Location,
    /// None for a device that is at the root.
    parent: Option<Location>,
    /// In the order of [`IDS`].
    ids: [String; IDS.len()],
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    const LABELS: &[&str] = &["bus", "device", "function", "segment"];
    let number = |(_, name, _, help): &(&str, &str, Form, &str)| {
        Metric::gauge(&format!("node_pcidevice_{name}"), help, LABELS)
    };
    Box::new(PciDevices {
        devices: Devices::new(setup.paths.sysfs.join("bus/pci/devices")),
        metrics: Metrics {
            info: Metric::gauge(
                "node_pcidevice_info",
                "1, with what identifies a device.",
                &[
                    "bus",
                    "class_id",
                    "device",
                    "device_id",
                    "function",
                    "parent_bus",
                    "parent_device",
                    "parent_function",
                    "parent_segment",
                    "revision",
                    "segment",
                    "subsystem_device_id",
                    "subsystem_vendor_id",
                    "vendor_id",
                ],
            ),
            numbers: NUMBERS.iter().map(number).collect(),
            power: Metric::gauge(
                "node_pcidevice_power_state",
                "1 for the state of power that a device is in.",
                &["bus", "device", "function", "segment", "state"],
            ),
            numa_node: Metric::gauge("node_pcidevice_numa_node", "The NUMA node of a device.", LABELS),
        },
    })
}

impl Collector for PciDevices {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        out.whole(|out| {
            for device in self.devices.list(|entry| Some(Pci::new(entry)))? {
                device.is.emit(&self.metrics, out)?;
            }
            Ok(())
        })
        .map_err(no_data_if(is_missing, "PCI devices, or not all that is asked of them"))
    }
}

impl Pci {
    fn new(entry: &Entry<'_>) -> Self {
        let dir = entry.path();
        Self {
            identity: None,
            numbers: NUMBERS.map(|(name, ..)| Attribute::new(dir.join(name))),
            power: Attribute::new(dir.join("power_state")),
            numa_node: Attribute::new(dir.join("numa_node")),
            dir,
        }
    }

    fn emit(&mut self, metrics: &Metrics, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let Identity { at, parent, ids } = match &mut self.identity {
            Some(identity) => identity,
            none => none.insert(Identity::read(&self.dir)?),
        };
        let labels: [&str; 4] = [&at.bus, &at.device, &at.function, &at.segment];
        let [bus, device, function, segment] = labels;
        let above = parent.as_ref();
        let of_parent = |part: fn(&Location) -> &String| above.map_or("*", |parent| part(parent));
        let [class, device_id, revision, subsystem_device, subsystem_vendor, vendor] = ids;
        let info: [&str; 14] = [
            bus,
            class,
            device,
            device_id,
            function,
            of_parent(|parent| &parent.bus),
            of_parent(|parent| &parent.device),
            of_parent(|parent| &parent.function),
            of_parent(|parent| &parent.segment),
            revision,
            segment,
            subsystem_device,
            subsystem_vendor,
            vendor,
        ];
        out.emit(&metrics.info, &info, 1.0);
        let mut buffer: Short = [0; 128];
        for ((attribute, metric), (_, _, form, _)) in
            self.numbers.iter_mut().zip(&metrics.numbers).zip(NUMBERS)
        {
            let text = attribute.read_unless(&mut buffer, is_without_answer)?.unwrap_or_default();
            let value = form.read(text).ok_or_else(|| attribute.bad(form.expected(), text))?;
            out.emit(metric, &labels, value);
        }
        if let Some(now) =
            self.power.read_unless(&mut buffer, is_without_answer)?.filter(|now| !now.is_empty())
        {
            for state in POWER_STATES {
                let is_it = f64::from(u8::from(state.as_bytes() == now));
                out.emit(&metrics.power, &[bus, device, function, segment, state], is_it);
            }
        }
        let node = self.numa_node.read_unless(&mut buffer, is_without_answer)?.unwrap_or(b"-1");
        let node = int_any_base(node).ok_or_else(|| self.numa_node.bad("a number is expected", node))?;
        // A machine without nodes says -1.
        if node != -1 {
            out.emit(&metrics.numa_node, &labels, node as f64);
        }
        Ok(())
    }
}

impl Form {
    /// The value; that of nothing known where there is no text. None if it is not written so.
    fn read(self, text: &[u8]) -> Option<f64> {
        let is_known = !text.is_empty() && !text.starts_with(b"Unknown");
        match self {
            Self::Speed | Self::Width if !is_known => Some(NO_LINK),
            Self::Switch | Self::Count if text.is_empty() => Some(0.0),
            Self::Speed => float(text.strip_suffix(b" GT/s PCIe")?).map(|speed| speed * GIGA),
            Self::Width | Self::Count => int_any_base(text).map(|value| value as f64),
            Self::Switch => int_any_base(text).map(|value| f64::from(u8::from(value != 0))),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Speed => "`number GT/s PCIe` is expected",
            Self::Width | Self::Switch | Self::Count => "a number is expected",
        }
    }
}

impl Identity {
    fn read(dir: &Path) -> Result<Self, CollectError> {
        let unreadable = |source| CollectError::Read { path: dir.to_path_buf(), source };
        let target = fs::read_link(dir).map_err(unreadable)?;
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let odd = |name: &str| CollectError::Parse {
            path: dir.to_path_buf(),
            what: "a link to `…/segment:bus:device.function` is expected",
            line: name.to_owned(),
        };
        let own = name(&target).unwrap_or_default();
        let at = Location::parse(&own).ok_or_else(|| odd(&own))?;
        let above = target.parent().and_then(name).unwrap_or_default();
        // `pci0000:00` is the root itself, no device.
        let parent = if above.starts_with("pci") {
            None
        } else {
            Some(Location::parse(&above).ok_or_else(|| odd(&above))?)
        };
        let mut ids = IDS.map(|_| String::new());
        for (id, (name, digits)) in ids.iter_mut().zip(IDS) {
            let mut buffer: Short = [0; 128];
            let mut attribute = Attribute::new(dir.join(name));
            let text = attribute.required(&mut buffer)?;
            let value = int_any_base(text).and_then(|value| u32::try_from(value).ok());
            let value = value.ok_or_else(|| attribute.bad("a number is expected", text))?;
            *id = format!("0x{value:0digits$x}");
        }
        Ok(Self { at, parent, ids })
    }
}

impl Location {
    /// Reads `0000:3b:00.0`.
    fn parse(text: &str) -> Option<Self> {
        let (rest, function) = text.rsplit_once('.')?;
        let mut parts = rest.splitn(3, ':').map(|part| u32::from_str_radix(part, 16).ok());
        let (segment, bus, device) = (parts.next()??, parts.next()??, parts.next()??);
        let function = u32::from_str_radix(function, 16).ok()?;
        Some(Self {
            segment: format!("{segment:04x}"),
            bus: format!("{bus:02x}"),
            device: format!("{device:02x}"),
            function: format!("{function:x}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_speeds_are_read_as_the_kernel_writes_them() {
        let at = Location::parse("0000:3b:1f.7").unwrap();
        assert_eq!([&*at.segment, &at.bus, &at.device, &at.function], ["0000", "3b", "1f", "7"]);
        assert_eq!(Location::parse("10000:e0:06.0").map(|at| at.segment).as_deref(), Some("10000"));
        for bad in ["", "pci0000:00", "0000:00", "0000:00:00.x", "0:0:0:0.0"] {
            assert_eq!(Location::parse(bad), None, "{bad}");
        }
        assert_eq!(Form::Speed.read(b"8.0 GT/s PCIe"), Some(8e9));
        assert_eq!(Form::Speed.read(b"Unknown"), Some(-1.0));
        assert_eq!(Form::Speed.read(b"8.0 GB/s"), None);
        assert_eq!(Form::Switch.read(b""), Some(0.0));
    }
}
