//! Root queueing disciplines, by netlink (`RTM_GETQDISC`, include/uapi/linux/rtnetlink.h, pkt_sched.h, gen_stats.h).

use super::emit::{Emitter, Metric};
use super::filter::Filter;
use super::links::SharedLinks;
use super::netlink::{Netlink, NetlinkProtocol, attributes, read_u32, read_u64};
use super::text::label;
use super::{CollectError, Collector, Setup, System};
use std::path::PathBuf;
use std::sync::Arc;

const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
/// `struct tcmsg`: family, index of the interface, handle, parent, info.
const HEADER_BYTES: usize = 20;
const INDEX_AT: usize = 4;
const PARENT_AT: usize = 12;
const TC_H_ROOT: u32 = u32::MAX;
const TCA_KIND: u16 = 1;
const TCA_STATS: u16 = 3;
const TCA_STATS2: u16 = 7;
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_QUEUE: u16 = 3;

/// The metrics, in the order of [`Qdisc::values`].
const METRICS: [(&str, &str); 7] = [
    ("bytes_total", "Bytes sent."),
    ("packets_total", "Packets sent."),
    ("drops_total", "Packets dropped."),
    ("requeues_total", "Packets taken out, not sent, and put back."),
    ("overlimits_total", "Packets over the limit."),
    ("current_queue_length", "Packets in the queue."),
    ("backlog", "Bytes in the queue."),
];
const COUNTERS: usize = 5;
const BYTES: usize = 0;
const PACKETS: usize = 1;
const DROPS: usize = 2;
const REQUEUES: usize = 3;
const OVERLIMITS: usize = 4;
const LENGTH: usize = 5;
const BACKLOG: usize = 6;

struct Qdiscs {
    system: Arc<dyn System>,
    socket: Option<Box<dyn Netlink>>,
    links: Arc<SharedLinks>,
    filter: Filter,
    metrics: Vec<Metric>,
    found: Vec<Qdisc>,
}

#[derive(Debug, PartialEq, Eq)]
struct Qdisc {
    index: u32,
    kind: Box<str>,
    values: [u64; METRICS.len()],
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let metric = |(at, (name, help)): (usize, &(&str, &str))| {
        let name = format!("node_qdisc_{name}");
        if at < COUNTERS {
            Metric::counter(&name, help, &["device", "kind"])
        } else {
            Metric::gauge(&name, help, &["device", "kind"])
        }
    };
    Box::new(Qdiscs {
        system: setup.system.clone(),
        socket: None,
        links: setup.links.clone(),
        filter: setup.settings.qdisc_devices.clone(),
        metrics: METRICS.iter().enumerate().map(metric).collect(),
        found: Vec::new(),
    })
}

impl Collector for Qdiscs {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let failed = |source| CollectError::Read { path: PathBuf::from("netlink"), source };
        let Self { system, socket, links, filter, metrics, found } = self;
        if socket.is_none() {
            *socket = Some(system.netlink(NetlinkProtocol::Route).map_err(failed)?);
        }
        found.clear();
        if let Some(socket) = socket {
            let dump = socket.dump(RTM_GETQDISC, &[0; HEADER_BYTES], &mut |kind, body| {
                if kind == RTM_NEWQDISC {
                    found.extend(root(body));
                }
            });
            dump.map_err(failed)?;
        }
        let links = links.read(out.scrape())?;
        for qdisc in found {
            let device = links.iter().find(|link| link.index == qdisc.index);
            let device = device.map(|link| label(&link.name)).unwrap_or_default();
            if filter.passes(&device) {
                for (metric, value) in metrics.iter().zip(qdisc.values) {
                    out.emit(metric, &[&device, &qdisc.kind], value as f64);
                }
            }
        }
        Ok(())
    }
}

/// What a message says, if it is of an interface's root.
fn root(body: &[u8]) -> Option<Qdisc> {
    let (index, parent) = (read_u32(body, INDEX_AT)?, read_u32(body, PARENT_AT)?);
    if parent != 0 && parent != TC_H_ROOT {
        return None;
    }
    let mut qdisc = Qdisc { index, kind: Box::default(), values: [0; METRICS.len()] };
    let values = &mut qdisc.values;
    let narrow = |bytes, at| read_u32(bytes, at).map_or(0, u64::from);
    for (kind, value) in attributes(body.get(HEADER_BYTES..)?) {
        match kind {
            TCA_KIND => qdisc.kind = label(value.split(|b| *b == 0).next().unwrap_or_default()),
            TCA_STATS2 => {
                for (kind, value) in attributes(value) {
                    match kind {
                        TCA_STATS_BASIC => {
                            values[BYTES] = read_u64(value, 0).unwrap_or(0);
                            values[PACKETS] = narrow(value, 8);
                        }
                        TCA_STATS_QUEUE => {
                            let places = [LENGTH, BACKLOG, DROPS, REQUEUES, OVERLIMITS];
                            places.iter().zip(0..).for_each(|(at, n)| values[*at] = narrow(value, 4 * n));
                        }
                        _ => {}
                    }
                }
            }
            // What kernels of old say instead, and others beside.
            TCA_STATS => {
                values[BYTES] = read_u64(value, 0).unwrap_or(0);
                for (at, offset) in [(PACKETS, 8), (DROPS, 12), (OVERLIMITS, 16), (LENGTH, 28), (BACKLOG, 32)]
                {
                    values[at] = narrow(value, offset);
                }
            }
            _ => {}
        }
    }
    Some(qdisc)
}

#[cfg(test)]
mod tests {
    use super::super::netlink::written::attribute;
    use super::*;

    fn message(parent: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let header = [[0; 4], 7u32.to_ne_bytes(), [0; 4], parent.to_ne_bytes(), [0; 4]];
        [header.concat(), attributes.concat()].concat()
    }

    #[test]
    fn roots_are_read_in_the_new_form_and_the_old() {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let basic = [5_000_000_000u64.to_ne_bytes().to_vec(), words(&[12])].concat();
        let queue = words(&[1, 2, 3, 4, 5]);
        let nested = [attribute(TCA_STATS_BASIC, &basic), attribute(TCA_STATS_QUEUE, &queue)].concat();
        let kind = attribute(TCA_KIND, b"fq\0");
        let found = root(&message(TC_H_ROOT, &[kind.clone(), attribute(TCA_STATS2, &nested)])).unwrap();
        assert_eq!((found.index, &*found.kind), (7, "fq"));
        assert_eq!(found.values, [5_000_000_000, 12, 3, 4, 5, 1, 2]);
        let old = [9u64.to_ne_bytes().to_vec(), words(&[1, 2, 3, 4, 5, 6, 7])].concat();
        let found = root(&message(0, &[kind.clone(), attribute(TCA_STATS, &old)])).unwrap();
        assert_eq!(found.values, [9, 1, 2, 0, 3, 6, 7]);
        assert_eq!(root(&message(0x1_0001, &[kind])), None);
        assert_eq!(root(&[0; 10]), None);
    }
}
