//! Addresses of network interfaces, by netlink (`RTM_GETADDR`, rtnetlink(7), include/uapi/linux/if_addr.h).

use super::emit::{Emitter, Metric};
use super::filter::Filter;
use super::links::SharedLinks;
use super::netlink::{Netlink, NetlinkProtocol, attributes, read_u32};
use super::text::label;
use super::{CollectError, System};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
/// `struct ifaddrmsg`: family, length of the prefix, flags, scope, index of the interface.
const HEADER_BYTES: usize = 8;
const PREFIX_AT: usize = 1;
const INDEX_AT: usize = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// `node_network_address_info`.
pub(super) struct Addresses {
    system: Arc<dyn System>,
    socket: Option<Box<dyn Netlink>>,
    links: Arc<SharedLinks>,
    info: Metric,
}

impl Addresses {
    /// Asks nothing yet.
    pub(super) fn new(system: Arc<dyn System>, links: Arc<SharedLinks>) -> Self {
        let labels = &["address", "device", "netmask", "scope"];
        let info = Metric::gauge("node_network_address_info", "1, with an address of an interface.", labels);
        Self { system, socket: None, links, info }
    }

    /// Emits the addresses of the interfaces that pass.
    pub(super) fn emit(&mut self, filter: &Filter, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let failed = |source| CollectError::Read { path: PathBuf::from("netlink"), source };
        let Self { system, socket, links, info } = self;
        if socket.is_none() {
            *socket = Some(system.netlink(NetlinkProtocol::Route).map_err(failed)?);
        }
        let mut found = Vec::new();
        if let Some(socket) = socket {
            let dump = socket.dump(RTM_GETADDR, &[0; HEADER_BYTES], &mut |kind, body| {
                if kind == RTM_NEWADDR {
                    found.extend(read(body));
                }
            });
            dump.map_err(failed)?;
        }
        let links = links.read(out.scrape())?;
        for (index, address, bits) in found {
            let Some(link) = links.iter().find(|link| link.index == index) else { continue };
            let device = label(&link.name);
            if filter.passes(&device) {
                let address = address.to_canonical();
                let labels = [&*address.to_string(), &*device, &*bits.to_string(), scope(address)];
                out.emit(info, &labels, 1.0);
            }
        }
        Ok(())
    }
}

/// The number of the interface, its address and the length of its prefix. Of a point-to-point interface the address
/// is the local one, not the peer's.
fn read(body: &[u8]) -> Option<(u32, IpAddr, u8)> {
    let (index, bits) = (read_u32(body, INDEX_AT)?, *body.get(PREFIX_AT)?);
    let of = |wanted| attributes(&body[HEADER_BYTES..]).find(|(kind, _)| *kind == wanted);
    let (_, bytes) = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?;
    let address = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(four), _) => IpAddr::V4(Ipv4Addr::from(four)),
        (_, Ok(six)) => IpAddr::V6(Ipv6Addr::from(six)),
        _ => return None,
    };
    Some((index, address, bits))
}

/// How far an address reaches, in node_exporter's words.
fn scope(address: IpAddr) -> &'static str {
    let (link_local, interface_local, everyone) = match address {
        IpAddr::V4(four) => {
            let group = matches!(four.octets(), [224, 0, 0, _]);
            (four.is_link_local() || group, false, four.is_broadcast())
        }
        IpAddr::V6(six) => {
            let group = |scope| six.is_multicast() && six.segments()[0] & 0xf == scope;
            (six.is_unicast_link_local() || group(2), group(1), false)
        }
    };
    if address.is_loopback() || link_local {
        "link-local"
    } else if interface_local {
        "interface-local"
    } else if everyone || address.is_unspecified() || address.is_multicast() {
        ""
    } else {
        "global"
    }
}

#[cfg(test)]
mod tests {
    use super::super::netlink::written::attribute;
    use super::*;

    #[test]
    fn scopes_are_told_by_the_address() {
        for (address, expected) in [
            ("127.0.0.1", "link-local"),
            ("169.254.3.4", "link-local"),
            ("10.0.0.1", "global"),
            ("224.0.0.5", "link-local"),
            ("239.1.2.3", ""),
            ("255.255.255.255", ""),
            ("0.0.0.0", ""),
            ("::1", "link-local"),
            ("fe80::1", "link-local"),
            ("ff01::1", "interface-local"),
            ("ff02::1", "link-local"),
            ("2001:db8::1", "global"),
        ] {
            assert_eq!(scope(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn of_a_point_to_point_interface_the_own_address_is_taken() {
        let header = [2, 30, 0, 0, 9, 0, 0, 0].to_vec();
        let (peer, own) = (attribute(IFA_ADDRESS, &[10, 0, 0, 2]), attribute(IFA_LOCAL, &[10, 0, 0, 1]));
        let index = u32::from_ne_bytes([9, 0, 0, 0]);
        let both = [header.clone(), peer.clone(), own].concat();
        assert_eq!(read(&both), Some((index, "10.0.0.1".parse().unwrap(), 30)));
        assert_eq!(read(&[header.clone(), peer].concat()), Some((index, "10.0.0.2".parse().unwrap(), 30)));
        assert_eq!(read(&header), None);
    }
}
