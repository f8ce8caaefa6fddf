//! NVMe controllers and their namespaces, `/sys/class/nvme` (drivers/nvme/host/sysfs.c).

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Devices, Entry, Short, is_missing, no_data_if};
use super::text::uint;
use super::{CollectError, Collector, Setup};

/// What every controller has, in the order of the labels.
const ATTRIBUTES: [&str; 5] = ["cntlid", "firmware_rev", "model", "serial", "state"];

struct Nvme {
    controllers: Devices<Controller>,
    metrics: Metrics,
}

struct Metrics {
    info: Metric,
    namespace: Metric,
    capacity: Metric,
    size: Metric,
    used: Metric,
    block: Metric,
}

struct Controller {
    attributes: [Attribute; ATTRIBUTES.len()],
    namespaces: Devices<Namespace>,
}

struct Namespace {
    number: Box<str>,
    used: Attribute,
    size: Attribute,
    block: Attribute,
    ana_state: Attribute,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let of_namespace = |name: &str, help: &str| {
        Metric::gauge(&format!("node_nvme_namespace_{name}"), help, &["device", "nsid"])
    };
    Box::new(Nvme {
        controllers: Devices::new(setup.paths.sysfs.join("class/nvme")),
        metrics: Metrics {
            info: Metric::gauge(
                "node_nvme_info",
                "1, with what sysfs says of an NVMe controller.",
                &["cntlid", "device", "firmware_revision", "model", "serial", "state"],
            ),
            namespace: Metric::gauge(
                "node_nvme_namespace_info",
                "1, with how a namespace is reached.",
                &["ana_state", "device", "nsid"],
            ),
            // sysfs counts the size in sectors of 512 bytes whatever the block is; node_exporter takes blocks, and
            // dashboards have its numbers.
            capacity: of_namespace("capacity_bytes", "The size times the logical block size."),
            size: of_namespace("size_bytes", "The size times the logical block size."),
            used: of_namespace("used_bytes", "What is allocated, times the logical block size."),
            block: of_namespace("logical_block_size_bytes", "The logical block size."),
        },
    })
}

impl Collector for Nvme {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        out.whole(|out| {
            let make = |entry: &Entry<'_>| Some(Controller::new(entry));
            for device in self.controllers.list(make)? {
                device.is.emit(&device.name, &self.metrics, out)?;
            }
            Ok(())
        })
        .map_err(no_data_if(is_missing, "NVMe controllers, or not all that node_exporter asks of them"))
    }
}

impl Controller {
    fn new(entry: &Entry<'_>) -> Self {
        let dir = entry.path();
        Self {
            attributes: ATTRIBUTES.map(|name| Attribute::new(dir.join(name))),
            namespaces: Devices::new(dir),
        }
    }

    fn emit(&mut self, name: &str, metrics: &Metrics, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let mut buffers: [Short; ATTRIBUTES.len()] = [[0; 128]; ATTRIBUTES.len()];
        let mut texts = [const { std::borrow::Cow::Borrowed("") }; ATTRIBUTES.len()];
        for ((text, attribute), buffer) in texts.iter_mut().zip(&mut self.attributes).zip(&mut buffers) {
            *text = String::from_utf8_lossy(attribute.required(buffer)?);
        }
        let [cntlid, firmware, model, serial, state] = &texts;
        out.emit(&metrics.info, &[cntlid, name, firmware, model, serial, state], 1.0);
        for namespace in self.namespaces.list(Namespace::new)? {
            namespace.is.emit(name, metrics, out)?;
        }
        Ok(())
    }
}

impl Namespace {
    fn new(entry: &Entry<'_>) -> Option<Self> {
        let attribute = |name: &str| Attribute::new(entry.path().join(name));
        Some(Self {
            number: namespace_number(entry.name)?.into(),
            used: attribute("nuse"),
            size: attribute("size"),
            block: attribute("queue/logical_block_size"),
            ana_state: attribute("ana_state"),
        })
    }

    fn emit(&mut self, device: &str, metrics: &Metrics, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let mut buffer: Short = [0; 128];
        let mut number = |attribute: &mut Attribute| {
            attribute.required(&mut buffer).map(|text| uint(text).unwrap_or_default())
        };
        let used = number(&mut self.used)?;
        let size = number(&mut self.size)?;
        let block = number(&mut self.block)?;
        let state = self.ana_state.read(&mut buffer).unwrap_or(b"unknown");
        let of = [device, &self.number];
        out.emit(&metrics.namespace, &[&String::from_utf8_lossy(state), device, &self.number], 1.0);
        out.emit(&metrics.capacity, &of, size.wrapping_mul(block) as f64);
        out.emit(&metrics.size, &of, size.wrapping_mul(block) as f64);
        out.emit(&metrics.used, &of, used.wrapping_mul(block) as f64);
        out.emit(&metrics.block, &of, block as f64);
        Ok(())
    }
}

/// The namespace's number in a name such as `nvme0n1`; none for other entries, such as the hidden path `nvme0c1n1`.
fn namespace_number(name: &str) -> Option<&str> {
    let rest =
        name.strip_prefix("nvme")?.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('n')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}
