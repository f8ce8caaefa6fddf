//! Unicast routes, by netlink (`RTM_GETROUTE`, rtnetlink(7), include/uapi/linux/rtnetlink.h).

use super::emit::{Emitter, Metric};
use super::links::{Link, SharedLinks};
use super::netlink::{Netlink, NetlinkProtocol, attributes, read_u16, read_u32};
use super::text::label;
use super::{CollectError, Collector, Setup, System};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// `struct rtmsg`: family, lengths of destination and source, tos, table, protocol, scope, type, flags.
const HEADER_BYTES: usize = 12;
const DESTINATION_BITS_AT: usize = 1;
const PROTOCOL_AT: usize = 5;
const TYPE_AT: usize = 7;
const RTN_UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
/// `struct rtnexthop`: length, flags, hops, index of the interface.
const HOP_HEADER_BYTES: usize = 8;

struct Routing {
    system: Arc<dyn System>,
    socket: Option<Box<dyn Netlink>>,
    links: Arc<SharedLinks>,
    info: Metric,
    routes: Metric,
}

/// A way that packets to a destination go.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    index: u32,
    destination: String,
    gateway: String,
    priority: u32,
    protocol: &'static str,
    source: String,
    /// Empty for a route with one way.
    weight: String,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Routing {
        system: setup.system.clone(),
        socket: None,
        links: setup.links.clone(),
        info: Metric::gauge(
            "node_network_route_info",
            "1, with a route.",
            &["dest", "device", "gw", "priority", "proto", "src", "weight"],
        ),
        routes: Metric::gauge("node_network_routes", "Routes of the interface.", &["device"]),
    })
}

impl Collector for Routing {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let failed = |source| CollectError::Read { path: PathBuf::from("netlink"), source };
        let Self { system, socket, links, info, routes } = self;
        if socket.is_none() {
            *socket = Some(system.netlink(NetlinkProtocol::Route).map_err(failed)?);
        }
        let mut ways = Vec::new();
        if let Some(socket) = socket {
            let dump = socket.dump(RTM_GETROUTE, &[0; HEADER_BYTES], &mut |kind, body| {
                if kind == RTM_NEWROUTE {
                    read(body, &mut ways);
                }
            });
            dump.map_err(failed)?;
        }
        let links = links.read(out.scrape())?;
        let name = |index: u32| {
            let link: Option<&Link> = links.iter().find(|link| link.index == index);
            link.map(|link| label(&link.name)).unwrap_or_default()
        };
        let mut counts: BTreeMap<Box<str>, u32> = BTreeMap::new();
        for way in &ways {
            let device = name(way.index);
            let priority = way.priority.to_string();
            let Way { destination, gateway, protocol, source, weight, .. } = way;
            out.emit(info, &[destination, &device, gateway, &priority, protocol, source, weight], 1.0);
            *counts.entry(device).or_default() += 1;
        }
        for (device, count) in counts {
            out.emit(routes, &[&device], f64::from(count));
        }
        Ok(())
    }
}

/// Reads a route's message; nothing for one that is not unicast.
fn read(body: &[u8], ways: &mut Vec<Way>) {
    let (Some(rest), Some(&RTN_UNICAST)) = (body.get(HEADER_BYTES..), body.get(TYPE_AT)) else { return };
    let bits = body[DESTINATION_BITS_AT];
    let (mut index, mut priority) = (0, 0);
    let [mut destination, mut gateway, mut source] = [const { String::new() }; 3];
    let mut hops: &[u8] = &[];
    for (kind, value) in attributes(rest) {
        match kind {
            RTA_DST => destination = address(value),
            RTA_OIF => index = read_u32(value, 0).unwrap_or(0),
            RTA_GATEWAY => gateway = address(value),
            RTA_PRIORITY => priority = read_u32(value, 0).unwrap_or(0),
            RTA_PREFSRC => source = address(value),
            RTA_MULTIPATH => hops = value,
            _ => {}
        }
    }
    let destination = if bits == 0 { "default".into() } else { format!("{destination}/{bits}") };
    let protocol = protocol(body[PROTOCOL_AT]);
    if hops.is_empty() {
        ways.push(Way { index, destination, gateway, priority, protocol, source, weight: String::new() });
        return;
    }
    while let (Some(length), Some(index)) = (read_u16(hops, 0), read_u32(hops, 4)) {
        let Some(hop) = hops.get(HOP_HEADER_BYTES..usize::from(length)) else { break };
        let gateway = attributes(hop).find(|(kind, _)| *kind == RTA_GATEWAY);
        ways.push(Way {
            index,
            destination: destination.clone(),
            gateway: gateway.map(|(_, value)| address(value)).unwrap_or_default(),
            priority,
            protocol,
            source: source.clone(),
            weight: (u32::from(hops[3]) + 1).to_string(),
        });
        hops = hops.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
}

/// An address of four or sixteen bytes as text.
fn address(bytes: &[u8]) -> String {
    let address = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(four), _) => IpAddr::V4(Ipv4Addr::from(four)),
        (_, Ok(six)) => IpAddr::V6(Ipv6Addr::from(six)),
        _ => return String::new(),
    };
    // As Go writes it.
    address.to_canonical().to_string()
}

/// Who made a route (`RTPROT_…`).
fn protocol(number: u8) -> &'static str {
    match number {
        0 => "unspec",
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        9 => "ra",
        10 => "mrt",
        11 => "zebra",
        12 => "bird",
        13 => "dnrouted",
        14 => "xorp",
        15 => "ntk",
        16 => "dhcp",
        17 => "mrouted",
        42 => "babel",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::super::netlink::written::attribute;
    use super::*;

    fn message(bits: u8, kind: u8, protocol: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let header = [2, bits, 0, 0, 254, protocol, 0, kind, 0, 0, 0, 0];
        [header.to_vec(), attributes.concat()].concat()
    }

    fn ways(body: &[u8]) -> Vec<Way> {
        let mut ways = Vec::new();
        read(body, &mut ways);
        ways
    }

    #[test]
    fn routes_with_one_way_and_with_many_are_read() {
        let index = |index: u32| index.to_ne_bytes().to_vec();
        let single = message(
            24,
            RTN_UNICAST,
            2,
            &[
                attribute(RTA_DST, &[10, 0, 0, 0]),
                attribute(RTA_PREFSRC, &[10, 0, 0, 9]),
                attribute(RTA_OIF, &index(3)),
            ],
        );
        let found = ways(&single);
        assert_eq!(
            (found[0].index, &*found[0].destination, &*found[0].source),
            (3, "10.0.0.0/24", "10.0.0.9")
        );
        assert_eq!((found[0].protocol, &*found[0].weight, found.len()), ("kernel", "", 1));
        let hop = |hops: u8, on: u32, gateway: [u8; 4]| {
            [vec![16, 0, 0, hops], index(on), attribute(RTA_GATEWAY, &gateway)].concat()
        };
        let hops = [hop(0, 4, [10, 0, 0, 1]), hop(9, 5, [10, 0, 0, 2])].concat();
        let many = message(
            0,
            RTN_UNICAST,
            42,
            &[attribute(RTA_PRIORITY, &index(100)), attribute(RTA_MULTIPATH, &hops)],
        );
        let found: Vec<_> =
            ways(&many).into_iter().map(|w| (w.index, w.destination, w.gateway, w.weight)).collect();
        let way = |on, gateway: &str, weight: &str| {
            (on, "default".to_owned(), gateway.to_owned(), weight.to_owned())
        };
        assert_eq!(found, [way(4, "10.0.0.1", "1"), way(5, "10.0.0.2", "10")]);
        assert_eq!(ways(&message(32, 2, 2, &[])), [], "a local address");
        assert_eq!(ways(&[0; 5]), []);
    }
}
