//! What sysfs says of network interfaces, `/sys/class/net` (Documentation/ABI/testing/sysfs-class-net).
//!
//! An interface costs 21 readings. None but the descriptor is kept between scrapes: nearly all of them can change
//! at any time, and those that cannot cost least.

use super::emit::{Emitter, Metric};
use super::filter::Filter;
use super::sysfs::{
    Attribute, Devices, Entry, Short, int_any_base, is_gone, is_out_of_reach, is_without_answer, no_data_if,
};
use super::{CollectError, Collector, Setup};
use pegel_proto::metrics::MetricType::{self, Counter, Gauge};
use std::path::Path;

/// Numbers: the attribute, the metric's name, its type, its help.
const NUMBERS: [(&str, &str, MetricType, &str); 16] = [
    ("addr_assign_type", "address_assign_type", Gauge, "How the hardware address came to be."),
    ("carrier", "carrier", Gauge, "1 if there is a link."),
    ("carrier_changes", "carrier_changes_total", Counter, "How often the link came or went."),
    ("carrier_up_count", "carrier_up_changes_total", Counter, "How often the link came."),
    ("carrier_down_count", "carrier_down_changes_total", Counter, "How often the link went."),
    ("dev_id", "device_id", Gauge, "Tells interfaces of one hardware address apart."),
    ("dormant", "dormant", Gauge, "1 if the link waits for something, such as authentication."),
    ("flags", "flags", Gauge, "The interface's flags (IFF_*)."),
    ("ifindex", "iface_id", Gauge, "The interface's number."),
    ("iflink", "iface_link", Gauge, "The number of the interface that this one sits on."),
    ("link_mode", "iface_link_mode", Gauge, "1 if the operational state waits for user space."),
    ("mtu", "mtu_bytes", Gauge, "The longest packet."),
    ("name_assign_type", "name_assign_type", Gauge, "Who gave the name."),
    ("netdev_group", "net_dev_group", Gauge, "The group of interfaces."),
    ("tx_queue_len", "transmit_queue_length", Gauge, "How many packets may wait to be sent."),
    ("type", "protocol_type", Gauge, "The protocol of the link (ARPHRD_*)."),
];

/// `IFF_UP`.
const UP: i64 = 1;

struct Netclass {
    interfaces: Devices<Interface>,
    filter: Filter,
    ignore_invalid_speed: bool,
    metrics: Metrics,
}

struct Metrics {
    up: Metric,
    info: Metric,
    speed: Metric,
    numbers: Vec<Metric>,
}

struct Interface {
    address: Attribute,
    broadcast: Attribute,
    duplex: Attribute,
    ifalias: Attribute,
    operstate: Attribute,
    speed: Attribute,
    numbers: [Attribute; NUMBERS.len()],
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let metric =
        |name: &str, kind, help: &str| Metric::new(&format!("node_network_{name}"), help, kind, &["device"]);
    Box::new(Netclass {
        interfaces: Devices::new(setup.paths.sysfs.join("class/net")),
        filter: setup.settings.netclass_devices.clone(),
        ignore_invalid_speed: setup.settings.netclass_ignore_invalid_speed,
        metrics: Metrics {
            up: metric("up", Gauge, "1 if the interface is operational."),
            info: Metric::gauge(
                "node_network_info",
                "1, with what sysfs says of the interface in words.",
                &["address", "adminstate", "broadcast", "device", "duplex", "ifalias", "operstate"],
            ),
            speed: metric("speed_bytes", Gauge, "The link's speed, in bytes a second; negative if unknown."),
            numbers: NUMBERS.iter().map(|(_, name, kind, help)| metric(name, *kind, help)).collect(),
        },
    })
}

impl Collector for Netclass {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let filter = &self.filter;
        // `bonding_masters` is a file beside the interfaces.
        let make = |entry: &Entry<'_>| {
            (!entry.is_file() && filter.passes(entry.name)).then(|| Interface::new(&entry.path()))
        };
        let interfaces =
            self.interfaces.list(make).map_err(no_data_if(is_out_of_reach, "network interfaces in sysfs"))?;
        // One attribute that is no number does not take the others along.
        let mut odd = None;
        out.whole(|out| {
            for device in interfaces {
                let ignore = self.ignore_invalid_speed;
                device.is.emit(&device.name, &self.metrics, ignore, &mut odd, out)?;
            }
            Ok(())
        })?;
        odd.map_or(Ok(()), Err)
    }
}

impl Interface {
    fn new(dir: &Path) -> Self {
        let attribute = |name: &str| Attribute::new(dir.join(name));
        Self {
            address: attribute("address"),
            broadcast: attribute("broadcast"),
            duplex: attribute("duplex"),
            ifalias: attribute("ifalias"),
            operstate: attribute("operstate"),
            speed: attribute("speed"),
            numbers: NUMBERS.map(|(name, ..)| attribute(name)),
        }
    }

    fn emit(
        &mut self,
        name: &str,
        metrics: &Metrics,
        ignore_invalid_speed: bool,
        odd: &mut Option<CollectError>,
        out: &mut Emitter<'_>,
    ) -> Result<(), CollectError> {
        let mut numbers = [None; NUMBERS.len()];
        for (value, attribute) in numbers.iter_mut().zip(&mut self.numbers) {
            *value = number(attribute, odd)?;
        }
        let mut buffers = [[0; 128]; 5];
        let [address, broadcast, duplex, ifalias, operstate] = &mut buffers;
        let address = text(&mut self.address, address)?;
        let broadcast = text(&mut self.broadcast, broadcast)?;
        let duplex = text(&mut self.duplex, duplex)?;
        let ifalias = text(&mut self.ifalias, ifalias)?;
        let operstate = text(&mut self.operstate, operstate)?;
        let flags = NUMBERS.iter().position(|(name, ..)| *name == "flags").and_then(|at| numbers[at]);
        let adminstate = match flags {
            None => "unknown",
            Some(flags) if flags & UP != 0 => "up",
            Some(_) => "down",
        };
        out.emit(&metrics.up, &[name], f64::from(u8::from(operstate == "up")));
        let info = [&address, adminstate, &broadcast, name, &duplex, &ifalias, &operstate];
        out.emit(&metrics.info, &info, 1.0);
        for (metric, value) in metrics.numbers.iter().zip(numbers) {
            if let Some(value) = value {
                out.emit(metric, &[name], value as f64);
            }
        }
        // Some devices say -1 for a speed that they do not know.
        if let Some(megabits) = number(&mut self.speed, odd)?
            && (megabits >= 0 || !ignore_invalid_speed)
        {
            let bytes = megabits.wrapping_mul(1000).wrapping_mul(1000) / 8;
            out.emit(&metrics.speed, &[name], bytes as f64);
        }
        Ok(())
    }
}

/// A number; none if this interface has none, or is just going away, or it is `odd`.
fn number(attribute: &mut Attribute, odd: &mut Option<CollectError>) -> Result<Option<i64>, CollectError> {
    let mut buffer: Short = [0; 128];
    let Some(text) =
        attribute.read_unless(&mut buffer, |error| is_without_answer(error) || is_gone(error))?
    else {
        return Ok(None);
    };
    let value = int_any_base(text);
    if value.is_none() {
        odd.get_or_insert_with(|| attribute.odd("a number", text));
    }
    Ok(value)
}

/// A text; empty if this interface has none.
fn text<'a>(
    attribute: &mut Attribute,
    buffer: &'a mut Short,
) -> Result<std::borrow::Cow<'a, str>, CollectError> {
    let found = attribute.read_unless(buffer, |error| is_without_answer(error) || is_gone(error))?;
    Ok(String::from_utf8_lossy(found.unwrap_or_default()))
}
