//! Network interfaces and their counters by rtnetlink: `RTM_GETLINK` for all links (rtnetlink(7),
//! include/uapi/linux/if_link.h), asked once a scrape for all collectors that need them.

use super::netlink::{Netlink, NetlinkProtocol, attributes, read_u32, read_u64};
use super::{CollectError, System};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
const IFLA_STATS: u16 = 7;
const IFLA_STATS64: u16 = 23;
/// `struct ifinfomsg`: family, type, index, flags, change.
const LINK_HEADER_BYTES: usize = 16;
const INDEX_AT: usize = 4;

/// The counters of `struct rtnl_link_stats64` up to `rx_nohandler`, in its order.
pub(super) const COUNTERS: usize = 24;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: Box<[u8]>,
    /// Its counters; none where the kernel tells none.
    pub(super) counters: Option<[u64; COUNTERS]>,
}

/// The interfaces, as netlink told them at one scrape.
pub(super) struct SharedLinks {
    system: Arc<dyn System>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    socket: Option<Box<dyn Netlink>>,
    links: Vec<Link>,
    scrape: Option<u64>,
}

impl SharedLinks {
    /// Links that nobody has asked for yet.
    pub(super) fn new(system: Arc<dyn System>) -> Self {
        Self { system, state: Mutex::default() }
    }

    /// Opens the socket, unless it is open.
    pub(super) fn open(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.socket.is_none() {
            state.socket = Some(self.system.netlink(NetlinkProtocol::Route)?);
        }
        Ok(())
    }

    /// The links at this scrape, in the kernel's order.
    pub(super) fn read(&self, scrape: u64) -> Result<MappedMutexGuard<'_, [Link]>, CollectError> {
        let failed = |source| CollectError::Read { path: PathBuf::from("netlink"), source };
        self.open().map_err(failed)?;
        let mut state = self.state.lock();
        if state.scrape != Some(scrape) {
            state.scrape = None;
            state.dump().map_err(failed)?;
            state.scrape = Some(scrape);
        }
        Ok(MutexGuard::map(state, |state| state.links.as_mut_slice()))
    }
}

impl State {
    fn dump(&mut self) -> io::Result<()> {
        let Self { socket: Some(socket), links, .. } = self else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut place = 0;
        socket.dump(RTM_GETLINK, &[0; LINK_HEADER_BYTES], &mut |kind, body| {
            if kind != RTM_NEWLINK {
                return;
            }
            let Some((index, name, counters)) = link(body) else { return };
            // From scrape to scrape the same link stands at the same place: its name is not copied again.
            match links.get_mut(place) {
                Some(known) if *known.name == *name => {
                    known.index = index;
                    known.counters = counters;
                }
                Some(known) => *known = Link { index, name: name.into(), counters },
                None => links.push(Link { index, name: name.into(), counters }),
            }
            place += 1;
        })?;
        links.truncate(place);
        Ok(())
    }
}

/// A link's index, name and counters.
type Told<'a> = (u32, &'a [u8], Option<[u64; COUNTERS]>);

/// Reads a link's message; none for one without a name.
fn link(body: &[u8]) -> Option<Told<'_>> {
    let index = read_u32(body, INDEX_AT)?;
    let (mut name, mut counters, mut narrow) = (None, None, None);
    for (kind, value) in attributes(body.get(LINK_HEADER_BYTES..)?) {
        match kind {
            IFLA_IFNAME => name = value.split(|b| *b == 0).next(),
            IFLA_STATS64 => counters = Some(std::array::from_fn(|i| read_u64(value, 8 * i).unwrap_or(0))),
            IFLA_STATS => narrow = Some(std::array::from_fn(|i| read_u32(value, 4 * i).unwrap_or(0).into())),
            _ => {}
        }
    }
    Some((index, name?, counters.or(narrow)))
}

/// Writes what the kernel would.
#[cfg(test)]
pub(super) mod written {
    use super::super::netlink::written::attribute;
    use super::{IFLA_IFNAME, IFLA_STATS64, RTM_NEWLINK};

    /// A link's message with counters 0, 1, 2 and so on.
    pub(in super::super) fn link(index: u32, name: &str) -> (u16, Vec<u8>) {
        let counters: Vec<u8> = (0..25u64).flat_map(u64::to_ne_bytes).collect();
        let header = [&[0; 4], index.to_ne_bytes().as_slice(), &[0; 8]].concat();
        let name = attribute(IFLA_IFNAME, format!("{name}\0").as_bytes());
        (RTM_NEWLINK, [header, name, attribute(IFLA_STATS64, &counters)].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::super::netlink::written::attribute;
    use super::*;

    #[test]
    fn links_are_read_from_wide_and_narrow_counters() {
        let wide: Vec<u8> = (0..25u64).flat_map(|n| (n << 33).to_ne_bytes()).collect();
        let narrow: Vec<u8> = (0..24u32).flat_map(u32::to_ne_bytes).collect();
        let body = |name: &[u8], stats: Vec<u8>| {
            [vec![0; 4], 5u32.to_ne_bytes().to_vec(), vec![0; 8], attribute(IFLA_IFNAME, name), stats]
                .concat()
        };
        let last = |body: &[u8]| {
            let (index, name, counters) = link(body).unwrap();
            (index, name.to_vec(), counters.map(|counters| counters[23]))
        };
        let both = [attribute(IFLA_STATS, &narrow), attribute(IFLA_STATS64, &wide)].concat();
        assert_eq!(last(&body(b"eth0\0", both)), (5, b"eth0".to_vec(), Some(23 << 33)));
        assert_eq!(last(&body(b"old\0", attribute(IFLA_STATS, &narrow))), (5, b"old".to_vec(), Some(23)));
        assert_eq!(last(&body(b"none\0", Vec::new())), (5, b"none".to_vec(), None));
        assert_eq!(link(&[0; 16]), None);
    }
}
