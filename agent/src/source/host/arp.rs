//! Entries of the ARP table by interface, by netlink (`RTM_GETNEIGH`, rtnetlink(7)) or from `/proc/net/arp`.

use super::emit::{Emitter, Metric};
use super::file::{Content, PolledFile};
use super::filter::Filter;
use super::links::{Link, SharedLinks};
use super::netlink::{Netlink, NetlinkProtocol, read_u16, read_u32};
use super::text::{fields, label, lines};
use super::{CollectError, Collector, Setup, System};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const AF_INET: u8 = 2;
/// `struct ndmsg`: family, index of the interface, state, flags, type.
const NEIGHBOUR_HEADER_BYTES: usize = 12;
const INDEX_AT: usize = 4;
const STATE_AT: usize = 8;
/// `NUD_NOARP`: an entry that needs no ARP, which `/proc/net/arp` does not show either.
const NO_ARP: u16 = 0x40;

/// The columns of `/proc/net/arp`, and the words of its heading.
const COLUMNS: usize = 6;
const HEADING_COLUMNS: usize = 9;

struct Arp {
    netlink: Option<Neighbours>,
    file: PolledFile,
    entries: Metric,
    filter: Filter,
    devices: Vec<Device>,
}

struct Neighbours {
    socket: Box<dyn Netlink>,
    links: Arc<SharedLinks>,
    /// Entries by the number of their interface, of the last scrape.
    counts: Vec<(u32, u32)>,
}

/// An interface, by its place.
struct Device {
    name: Box<[u8]>,
    /// The name as a label; none for one that is filtered out.
    wanted: Option<Box<str>>,
    entries: u32,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let netlink = || match Neighbours::open(setup.system, &setup.links) {
        Ok(neighbours) => Some(neighbours),
        Err(error) => {
            tracing::warn!(%error, "cannot open a netlink socket: ARP entries are counted in /proc/net/arp");
            None
        }
    };
    Box::new(Arp {
        netlink: if setup.settings.arp_netlink { netlink() } else { None },
        file: PolledFile::new(setup.paths.procfs.join("net/arp")),
        entries: Metric::gauge("node_arp_entries", "Entries of the ARP table.", &["device"]),
        filter: setup.settings.arp_devices.clone(),
        devices: Vec::new(),
    })
}

impl Collector for Arp {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let Self { netlink, file, entries, filter, devices } = self;
        for device in &mut *devices {
            device.entries = 0;
        }
        match netlink {
            Some(neighbours) => neighbours.count(out.scrape(), devices, filter)?,
            None => count_lines(file.read()?, devices, filter)?,
        }
        devices.retain(|device| device.entries > 0);
        for Device { wanted, entries: count, .. } in devices {
            if let Some(name) = wanted {
                out.emit(entries, &[name], f64::from(*count));
            }
        }
        Ok(())
    }
}

impl Neighbours {
    fn open(system: &Arc<dyn System>, links: &Arc<SharedLinks>) -> io::Result<Self> {
        links.open()?;
        Ok(Self { socket: system.netlink(NetlinkProtocol::Route)?, links: links.clone(), counts: Vec::new() })
    }

    fn count(&mut self, scrape: u64, devices: &mut Vec<Device>, filter: &Filter) -> Result<(), CollectError> {
        let Self { socket, links, counts } = self;
        counts.clear();
        let mut request = [0; NEIGHBOUR_HEADER_BYTES];
        request[0] = AF_INET;
        let dump = socket.dump(RTM_GETNEIGH, &request, &mut |kind, body| {
            if kind != RTM_NEWNEIGH || body.first() != Some(&AF_INET) {
                return;
            }
            let (Some(index), Some(state)) = (read_u32(body, INDEX_AT), read_u16(body, STATE_AT)) else {
                return;
            };
            if state & NO_ARP != 0 {
                return;
            }
            match counts.iter_mut().find(|(known, _)| *known == index) {
                Some((_, count)) => *count += 1,
                None => counts.push((index, 1)),
            }
        });
        dump.map_err(|source| CollectError::Read { path: PathBuf::from("netlink"), source })?;
        if counts.is_empty() {
            return Ok(());
        }
        let links = links.read(scrape)?;
        for (index, count) in counts {
            // An interface may be gone since.
            let link: Option<&Link> = links.iter().find(|link| link.index == *index);
            if let Some(link) = link {
                add(devices, filter, &link.name, *count);
            }
        }
        Ok(())
    }
}

fn count_lines(text: Content<'_>, devices: &mut Vec<Device>, filter: &Filter) -> Result<(), CollectError> {
    for line in lines(text.bytes) {
        let mut columns = 0;
        let mut last: &[u8] = &[];
        for column in fields(line) {
            columns += 1;
            last = column;
        }
        match columns {
            0 | HEADING_COLUMNS => {}
            COLUMNS => add(devices, filter, last, 1),
            _ => return Err(text.bad("six columns are expected", line)),
        }
    }
    Ok(())
}

/// Adds entries to the interface's, which takes its place by its name when it is new.
fn add(devices: &mut Vec<Device>, filter: &Filter, name: &[u8], entries: u32) {
    match devices.binary_search_by(|device| (*device.name).cmp(name)) {
        Ok(at) => devices[at].entries += entries,
        Err(at) => {
            let text = label(name);
            let wanted = filter.passes(&text).then_some(text);
            devices.insert(at, Device { name: name.into(), wanted, entries });
        }
    }
}
