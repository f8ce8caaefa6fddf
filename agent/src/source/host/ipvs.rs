//! The IP virtual server, from `/proc/net/ip_vs_stats` and `/proc/net/ip_vs` (net/netfilter/ipvs/ip_vs_ctl.c).

use super::emit::{Emitter, Metric};
use super::file::{Content, PolledFile};
use super::text::{fields, hex, label, lines, uint};
use super::{CollectError, Collector, Setup};
use pegel_proto::metrics::Series;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const TOTALS: [(&str, &str); 5] = [
    ("connections", "Connections made."),
    ("incoming_packets", "Packets received."),
    ("outgoing_packets", "Packets sent."),
    ("incoming_bytes", "Bytes received."),
    ("outgoing_bytes", "Bytes sent."),
];

/// A label of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackendLabel {
    /// The service's address; empty for one by a firewall mark.
    LocalAddress,
    /// The firewall mark.
    LocalMark,
    /// The service's port; 0 for one by a firewall mark.
    LocalPort,
    /// `TCP`, `UDP`, `SCTP`, or `FWM` for a firewall mark.
    Proto,
    /// The backend's address.
    RemoteAddress,
    /// The backend's port.
    RemotePort,
}

impl BackendLabel {
    /// All of them.
    pub(super) const ALL: [Self; 6] = [
        Self::LocalAddress,
        Self::LocalMark,
        Self::LocalPort,
        Self::Proto,
        Self::RemoteAddress,
        Self::RemotePort,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::LocalAddress => "local_address",
            Self::LocalMark => "local_mark",
            Self::LocalPort => "local_port",
            Self::Proto => "proto",
            Self::RemoteAddress => "remote_address",
            Self::RemotePort => "remote_port",
        }
    }
}

/// What a backend's line says, in the order of its columns.
const STATES: [(&str, &str); 3] = [
    ("weight", "Weight of the backend."),
    ("connections_active", "Active connections of the backend."),
    ("connections_inactive", "Inactive connections of the backend."),
];

/// The columns before the weight: the arrow, the address and how packets are forwarded.
const WEIGHT: usize = 3;

struct Ipvs {
    totals_file: PolledFile,
    totals: Vec<Metric>,
    file: PolledFile,
    backends: Backends,
}

struct Backends {
    labels: Vec<BackendLabel>,
    states: Vec<Metric>,
    known: Vec<Backend>,
    /// The numbers, and whose series they are: a service may be listed twice, and not all labels are wanted.
    slots: Vec<Slot>,
}

/// A backend, by its place.
struct Backend {
    /// The first columns of the lines of its service and its own.
    service: Box<[u8]>,
    address: Box<[u8]>,
    /// The values of all labels.
    values: [Box<str>; BackendLabel::ALL.len()],
    slot: usize,
}

struct Slot {
    series: Vec<Arc<Series>>,
    sums: [u64; STATES.len()],
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let total = |(name, help): &(&str, &str)| Metric::counter(&format!("node_ipvs_{name}_total"), help, &[]);
    let state = |(name, help): &(&str, &str)| Metric::gauge(&format!("node_ipvs_backend_{name}"), help, &[]);
    let file = |name: &str| PolledFile::new(setup.paths.procfs.join("net").join(name));
    Box::new(Ipvs {
        totals_file: file("ip_vs_stats"),
        totals: TOTALS.iter().map(total).collect(),
        file: file("ip_vs"),
        backends: Backends {
            labels: setup.settings.ipvs_backend_labels.clone(),
            states: STATES.iter().map(state).collect(),
            known: Vec::new(),
            slots: Vec::new(),
        },
    })
}

impl Collector for Ipvs {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.totals_file.read_if_there()?;
        let text = text.ok_or(CollectError::NoData("IP virtual server (ip_vs is not loaded)"))?;
        // Two lines of headings come first.
        let line = lines(text.bytes).nth(2).unwrap_or_default();
        let mut columns = fields(line);
        for metric in &self.totals {
            let total = columns.next().and_then(hex);
            let total = total.ok_or_else(|| text.bad("five hexadecimal numbers are expected", line))?;
            out.emit(metric, &[], total as f64);
        }
        self.backends.read(self.file.read()?)?;
        for Slot { series, sums } in &self.backends.slots {
            for (series, sum) in series.iter().zip(sums) {
                out.emit_series(series, *sum as f64);
            }
        }
        Ok(())
    }
}

impl Backends {
    /// Takes the backends over, and adds their numbers up.
    fn read(&mut self, text: Content<'_>) -> Result<(), CollectError> {
        let mut service: Option<&[u8]> = None;
        let mut numbers = Vec::with_capacity(self.known.len());
        let mut changed = false;
        for line in lines(text.bytes) {
            let mut columns = fields(line);
            let (kind, address) = (columns.next().unwrap_or_default(), columns.next().unwrap_or_default());
            match kind {
                b"->" if address == b"RemoteAddress:Port" => {}
                b"->" => {
                    let service = service.ok_or_else(|| text.bad("a backend belongs to no service", line))?;
                    let mut values = [0; STATES.len()];
                    for (value, column) in
                        values.iter_mut().zip(fields(line).skip(WEIGHT).chain([&[][..]; 3]))
                    {
                        *value = uint(column)
                            .ok_or_else(|| text.bad("weight and connections are expected", line))?;
                    }
                    let is_it = |known: &Backend| *known.service == *service && *known.address == *address;
                    if !self.known.get(numbers.len()).is_some_and(is_it) {
                        let backend = Backend::new(service, address);
                        let backend =
                            backend.ok_or_else(|| text.bad("an address and a port are expected", line))?;
                        self.known.truncate(numbers.len());
                        self.known.push(backend);
                        changed = true;
                    }
                    numbers.push(values);
                }
                b"TCP" | b"UDP" | b"SCTP" | b"FWM" => service = Some(first_columns(line, kind, address)),
                // The headings.
                _ => {}
            }
        }
        if changed || self.known.len() != numbers.len() {
            self.known.truncate(numbers.len());
            self.find_slots();
        }
        for slot in &mut self.slots {
            slot.sums = [0; STATES.len()];
        }
        for (backend, values) in self.known.iter().zip(numbers) {
            for (sum, value) in self.slots[backend.slot].sums.iter_mut().zip(values) {
                *sum = sum.wrapping_add(value);
            }
        }
        Ok(())
    }

    /// Gives backends with the same labels the same slot. A slot that was there keeps its series.
    fn find_slots(&mut self) {
        let mut before: HashMap<_, _> = self.slots.drain(..).map(|slot| (key(&slot), slot)).collect();
        let mut places = HashMap::new();
        for backend in &mut self.known {
            let labels: Vec<_> = self
                .labels
                .iter()
                .map(|label| (label.name(), backend.values[*label as usize].clone()))
                .collect();
            let next = self.slots.len();
            backend.slot = *places.entry(labels.clone()).or_insert(next);
            if backend.slot == next {
                let values: Vec<_> = labels.iter().map(|(_, value)| value.clone()).collect();
                let slot = before.remove(&values).unwrap_or_else(|| Slot {
                    series: self
                        .states
                        .iter()
                        .map(|metric| {
                            metric.series_with(labels.iter().cloned()).expect("each label is named once")
                        })
                        .collect(),
                    sums: [0; STATES.len()],
                });
                self.slots.push(slot);
            }
        }
    }
}

/// The values of a slot's labels.
fn key(slot: &Slot) -> Vec<Box<str>> {
    let labels = slot.series.first().into_iter().flat_map(|series| series.labels().iter());
    labels.skip(1).map(|(_, value)| value.into()).collect()
}

/// The part of a line that its first two columns are.
fn first_columns<'a>(line: &'a [u8], first: &[u8], second: &[u8]) -> &'a [u8] {
    let start = line.len() - line.trim_ascii_start().len() + first.len();
    let gap = line[start..].iter().take_while(|b| **b == b' ').count();
    &line[..start + gap + second.len()]
}

impl Backend {
    fn new(service: &[u8], address: &[u8]) -> Option<Self> {
        let mut columns = fields(service);
        let (proto, local) = (columns.next()?, columns.next()?);
        let (remote_address, remote_port) = address_and_port(address)?;
        let (local_address, local_port, mark) = if proto == b"FWM" {
            (Box::default(), "0".into(), label(local))
        } else {
            let (address, port) = address_and_port(local)?;
            (address, port, Box::default())
        };
        let values = [local_address, mark, local_port, label(proto), remote_address, remote_port];
        Some(Self { service: service.into(), address: address.into(), values, slot: 0 })
    }
}

/// Reads `0A000001:01BB` or `[2001:0db8:…]:01BB`.
fn address_and_port(text: &[u8]) -> Option<(Box<str>, Box<str>)> {
    let colon = memchr::memrchr(b':', text)?;
    let (address, port) = (&text[..colon], hex(&text[colon + 1..])?);
    let address = match address.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")) {
        Some(six) => {
            let six: Ipv6Addr = std::str::from_utf8(six).ok()?.parse().ok()?;
            // As Go writes it.
            six.to_ipv4_mapped().map_or_else(|| six.to_string(), |four| four.to_string())
        }
        None => Ipv4Addr::from(u32::try_from(hex(address)?).ok()?).to_string(),
    };
    Some((address.into(), u16::try_from(port).ok()?.to_string().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_people_do() {
        let read = |text: &str| address_and_port(text.as_bytes()).map(|(a, p)| format!("{a} {p}"));
        assert_eq!(read("0A0001FF:01BB").as_deref(), Some("10.0.1.255 443"));
        let six = "[2001:0db8:0000:0000:0000:0000:0000:0001]:1F90";
        assert_eq!(read(six).as_deref(), Some("2001:db8::1 8080"));
        assert_eq!(read("[0000:0000:0000:0000:0000:ffff:0a00:0107]:0000").as_deref(), Some("10.0.1.7 0"));
        for bad in ["", "0A000001", "0A000001:10000", "1FFFFFFFF:0001", "[zz]:0001"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
