//! Counters of network interfaces, by netlink or from `/proc/net/dev`.
//!
//! Netlink's counters are put together into the columns of `/proc/net/dev` as the kernel does it
//! (net/core/net-procfs.c), since those are the names that dashboards know.

use super::addresses::Addresses;
use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::filter::Filter;
use super::links::{COUNTERS, SharedLinks};
use super::text::{fields, label, lines, uint};
use super::{CollectError, Collector, Setup};
use std::path::PathBuf;
use std::sync::Arc;

/// The columns of `/proc/net/dev` in its order, and netlink's one more.
const COLUMNS: [(&str, &str); 17] = [
    ("receive_bytes", "Bytes received"),
    ("receive_packets", "Packets received"),
    ("receive_errs", "Errors while receiving"),
    ("receive_drop", "Packets dropped while receiving"),
    ("receive_fifo", "Overruns of the receive buffer"),
    ("receive_frame", "Framing, length, overrun and checksum errors while receiving"),
    ("receive_compressed", "Compressed packets received"),
    ("receive_multicast", "Multicast packets received"),
    ("transmit_bytes", "Bytes sent"),
    ("transmit_packets", "Packets sent"),
    ("transmit_errs", "Errors while sending"),
    ("transmit_drop", "Packets dropped while sending"),
    ("transmit_fifo", "Overruns of the send buffer"),
    ("transmit_colls", "Collisions"),
    ("transmit_carrier", "Losses of carrier, aborts, heartbeat and window errors while sending"),
    ("transmit_compressed", "Compressed packets sent"),
    ("receive_nohandler", "Packets received that no protocol took"),
];

/// What the columns are called where names in detail are wanted.
const DETAILED_COLUMNS: [(&str, &str); 4] = [
    ("receive_errs", "receive_errors"),
    ("receive_drop", "receive_dropped"),
    ("transmit_errs", "transmit_errors"),
    ("transmit_drop", "transmit_dropped"),
];

/// Netlink's counters in its order, where names in detail are wanted.
const DETAILED: [&str; COUNTERS] = [
    "receive_packets",
    "transmit_packets",
    "receive_bytes",
    "transmit_bytes",
    "receive_errors",
    "transmit_errors",
    "receive_dropped",
    "transmit_dropped",
    "multicast",
    "collisions",
    "receive_length_errors",
    "receive_over_errors",
    "receive_crc_errors",
    "receive_frame_errors",
    "receive_fifo_errors",
    "receive_missed_errors",
    "transmit_aborted_errors",
    "transmit_carrier_errors",
    "transmit_fifo_errors",
    "transmit_heartbeat_errors",
    "transmit_window_errors",
    "receive_compressed",
    "transmit_compressed",
    "receive_nohandler",
];

struct Netdev {
    links: Option<Arc<SharedLinks>>,
    file: PolledFile,
    detailed: bool,
    addresses: Option<Addresses>,
    devices: Devices,
}

/// An interface.
struct Device {
    name: Box<[u8]>,
    /// The name as a label; none for one that is filtered out.
    wanted: Option<Box<str>>,
    /// The file with its alias, if that becomes a label.
    alias: Option<PolledFile>,
}

/// The interfaces by their place.
struct Devices {
    /// Where the interfaces' aliases are, if they become a label.
    aliases: Option<PathBuf>,
    metrics: Vec<Metric>,
    filter: Filter,
    known: Vec<Device>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    // A sandbox may forbid netlink; `/proc/net/dev` has all but one of the counters.
    let open = || match setup.links.open() {
        Ok(()) => Some(setup.links.clone()),
        Err(error) => {
            tracing::warn!(%error, "cannot open a netlink socket: network counters are read from /proc/net/dev, without receive_nohandler");
            None
        }
    };
    let settings = setup.settings;
    let links = if settings.netdev_netlink { open() } else { None };
    let labels: &[&str] = if settings.netdev_ifalias { &["device", "ifalias"] } else { &["device"] };
    let metric = |name: &str, help: &str| {
        Metric::counter(&format!("node_network_{name}_total"), &format!("{help}, by interface."), labels)
    };
    let renamed = |name| DETAILED_COLUMNS.iter().find(|(column, _)| *column == name).map(|(_, name)| *name);
    let metrics = if !settings.netdev_detailed {
        COLUMNS.iter().map(|(name, help)| metric(name, help)).collect()
    } else if links.is_some() {
        DETAILED.iter().map(|name| metric(name, &format!("`{name}` of the kernel's counters"))).collect()
    } else {
        COLUMNS.iter().map(|(name, help)| metric(renamed(*name).unwrap_or(name), help)).collect()
    };
    Box::new(Netdev {
        links,
        file: PolledFile::new(setup.paths.procfs.join("net/dev")),
        detailed: settings.netdev_detailed,
        addresses: settings
            .netdev_addresses
            .then(|| Addresses::new(setup.system.clone(), setup.links.clone())),
        devices: Devices {
            aliases: settings.netdev_ifalias.then(|| setup.paths.sysfs.join("class/net")),
            metrics,
            filter: settings.netdev_devices.clone(),
            known: Vec::new(),
        },
    })
}

impl Collector for Netdev {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        self.counters(out)?;
        match &mut self.addresses {
            Some(addresses) => addresses.emit(&self.devices.filter, out),
            None => Ok(()),
        }
    }
}

impl Netdev {
    fn counters(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let devices = &mut self.devices;
        let mut place = 0;
        if let Some(links) = &self.links {
            for link in links.read(out.scrape())?.iter() {
                let Some(counters) = &link.counters else { continue };
                if self.detailed {
                    devices.emit(place, &link.name, counters, out);
                } else {
                    devices.emit(place, &link.name, &columns(counters), out);
                }
                place += 1;
            }
            return Ok(());
        }
        let text = self.file.read()?;
        // Two lines of headings come first.
        for line in lines(text.bytes).skip(2) {
            let end = line.iter().rposition(|b| *b == b':');
            let end = end.ok_or_else(|| text.bad("`interface: numbers` is expected", line))?;
            let mut values = [0; COLUMNS.len() - 1];
            let mut numbers = fields(&line[end + 1..]).map(uint);
            for value in &mut values {
                *value = numbers.next().flatten().ok_or_else(|| text.bad("16 numbers are expected", line))?;
            }
            devices.emit(place, line[..end].trim_ascii(), &values, out);
            place += 1;
        }
        Ok(())
    }
}

impl Devices {
    fn emit(&mut self, place: usize, name: &[u8], values: &[u64], out: &mut Emitter<'_>) {
        if self.known.get(place).is_none_or(|known| *known.name != *name) {
            let text = label(name);
            let wanted = self.filter.passes(&text).then_some(text);
            let alias = self.aliases.as_ref().map(|dir| dir.join(&*label(name)).join("ifalias"));
            let alias = alias.filter(|_| wanted.is_some()).map(PolledFile::new);
            self.known.truncate(place);
            self.known.push(Device { name: name.into(), wanted, alias });
        }
        let Some(Device { wanted: Some(device), alias, .. }) = self.known.get_mut(place) else { return };
        // An empty alias is no label, as one that cannot be read.
        let alias = alias
            .as_mut()
            .map(|file| file.read().map_or(Box::default(), |text| label(text.bytes.trim_ascii())));
        for (metric, value) in self.metrics.iter().zip(values) {
            match &alias {
                Some(alias) => out.emit(metric, &[device, alias], *value as f64),
                None => out.emit(metric, &[device], *value as f64),
            }
        }
    }
}

/// Netlink's counters as the columns of `/proc/net/dev`.
fn columns(counters: &[u64; COUNTERS]) -> [u64; COLUMNS.len()] {
    let [
        rx_packets,
        tx_packets,
        rx_bytes,
        tx_bytes,
        rx_errors,
        tx_errors,
        rx_dropped,
        tx_dropped,
        multicast,
        collisions,
        rx_length_errors,
        rx_over_errors,
        rx_crc_errors,
        rx_frame_errors,
        rx_fifo_errors,
        rx_missed_errors,
        tx_aborted_errors,
        tx_carrier_errors,
        tx_fifo_errors,
        tx_heartbeat_errors,
        tx_window_errors,
        rx_compressed,
        tx_compressed,
        rx_nohandler,
    ] = *counters;
    let sum = |parts: &[u64]| parts.iter().fold(0u64, |sum, part| sum.wrapping_add(*part));
    [
        rx_bytes,
        rx_packets,
        rx_errors,
        sum(&[rx_dropped, rx_missed_errors]),
        rx_fifo_errors,
        sum(&[rx_length_errors, rx_over_errors, rx_crc_errors, rx_frame_errors]),
        rx_compressed,
        multicast,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
        tx_fifo_errors,
        collisions,
        sum(&[tx_carrier_errors, tx_aborted_errors, tx_window_errors, tx_heartbeat_errors]),
        tx_compressed,
        rx_nohandler,
    ]
}
