//! The IP virtual server, from `/proc/net/ip_vs_stats` and `/proc/net/ip_vs` (net/netfilter/ipvs/ip_vs_ctl.c).

use super::emit::{Emitter, Metric};
use super::file::{Content, PolledFile};
use super::text::{fields, hex, label, lines, uint};
use super::{CollectError, Collector, Setup};
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

const TOTALS: [(&str, &str); 5] = [
    ("connections", "Connections made."),
    ("incoming_packets", "Packets received."),
    ("outgoing_packets", "Packets sent."),
    ("incoming_bytes", "Bytes received."),
    ("outgoing_bytes", "Bytes sent."),
];

/// The labels of a backend.
const LABELS: [&str; 6] =
    ["local_address", "local_mark", "local_port", "proto", "remote_address", "remote_port"];

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
    states: Vec<Metric>,
    backends: Vec<Backend>,
    sums: Vec<[u64; STATES.len()]>,
}

/// A backend, by its place.
struct Backend {
    /// The first columns of the lines of its service and its own.
    service: Box<[u8]>,
    address: Box<[u8]>,
    labels: [Box<str>; LABELS.len()],
    /// Where its numbers are added up: a service may be listed twice.
    slot: usize,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let total = |(name, help): &(&str, &str)| Metric::counter(&format!("node_ipvs_{name}_total"), help, &[]);
    let state =
        |(name, help): &(&str, &str)| Metric::gauge(&format!("node_ipvs_backend_{name}"), help, &LABELS);
    let file = |name: &str| PolledFile::new(setup.paths.procfs.join("net").join(name));
    Box::new(Ipvs {
        totals_file: file("ip_vs_stats"),
        totals: TOTALS.iter().map(total).collect(),
        file: file("ip_vs"),
        states: STATES.iter().map(state).collect(),
        backends: Vec::new(),
        sums: Vec::new(),
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
        let text = self.file.read()?;
        read_backends(text, &mut self.backends, &mut self.sums)?;
        let mut shown = 0;
        for Backend { labels, slot, .. } in &self.backends {
            if *slot == shown {
                let labels: [&str; LABELS.len()] = std::array::from_fn(|at| &*labels[at]);
                for (metric, sum) in self.states.iter().zip(self.sums[shown]) {
                    out.emit(metric, &labels, sum as f64);
                }
                shown += 1;
            }
        }
        Ok(())
    }
}

/// Takes the backends over, and adds their numbers up.
fn read_backends(
    text: Content<'_>,
    backends: &mut Vec<Backend>,
    sums: &mut Vec<[u64; STATES.len()]>,
) -> Result<(), CollectError> {
    sums.clear();
    let mut service: Option<&[u8]> = None;
    let mut place = 0;
    for line in lines(text.bytes) {
        let mut columns = fields(line);
        let (kind, address) = (columns.next().unwrap_or_default(), columns.next().unwrap_or_default());
        match kind {
            b"->" if address == b"RemoteAddress:Port" => {}
            b"->" => {
                let service = service.ok_or_else(|| text.bad("a backend belongs to no service", line))?;
                let mut numbers = fields(line).skip(WEIGHT).map(uint);
                let mut values = [0; STATES.len()];
                for value in &mut values {
                    let number = numbers.next().flatten();
                    *value = number.ok_or_else(|| text.bad("weight and connections are expected", line))?;
                }
                let is_it = |known: &Backend| *known.service == *service && *known.address == *address;
                if !backends.get(place).is_some_and(is_it) {
                    backends.truncate(place);
                    let backend = Backend::new(service, address);
                    backends
                        .push(backend.ok_or_else(|| text.bad("an address and a port are expected", line))?);
                    number_slots(backends);
                }
                let slot = backends[place].slot;
                if slot == sums.len() {
                    sums.push([0; STATES.len()]);
                }
                for (sum, value) in sums[slot].iter_mut().zip(values) {
                    *sum = sum.wrapping_add(value);
                }
                place += 1;
            }
            b"TCP" | b"UDP" | b"SCTP" | b"FWM" => service = Some(first_columns(line, kind, address)),
            // The headings.
            _ => {}
        }
    }
    backends.truncate(place);
    Ok(())
}

/// The part of a line that its first two columns are.
fn first_columns<'a>(line: &'a [u8], first: &[u8], second: &[u8]) -> &'a [u8] {
    let start = line.len() - line.trim_ascii_start().len() + first.len();
    let gap = line[start..].iter().take_while(|b| **b == b' ').count();
    &line[..start + gap + second.len()]
}

/// Gives backends with the same labels the same slot.
fn number_slots(backends: &mut [Backend]) {
    let mut slots = HashMap::with_capacity(backends.len());
    for backend in backends {
        let next = slots.len();
        backend.slot = *slots.entry(backend.labels.clone()).or_insert(next);
    }
}

impl Backend {
    fn new(service: &[u8], address: &[u8]) -> Option<Self> {
        let mut columns = fields(service);
        let (proto, local) = (columns.next()?, columns.next()?);
        let (remote_address, remote_port) = address_and_port(address)?;
        let (local_address, local_port, mark) = match proto {
            b"FWM" => (Box::default(), "0".into(), label(local)),
            _ => {
                let (address, port) = address_and_port(local)?;
                (address, port, Box::default())
            }
        };
        let labels = [local_address, mark, local_port, label(proto), remote_address, remote_port];
        Some(Self { service: service.into(), address: address.into(), labels, slot: 0 })
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
