//! TCP connections by their state, by netlink (`SOCK_DIAG_BY_FAMILY`, sock_diag(7), include/uapi/linux/inet_diag.h).

use super::emit::{Emitter, Metric};
use super::netlink::{Netlink, NetlinkProtocol, read_u32};
use super::{CollectError, Collector, Setup, System};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// All states up to `TCP_CLOSING`.
const ALL_STATES: u32 = 0xfff;

/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, and whose identity is asked for.
const REQUEST_BYTES: usize = 56;

/// Where `struct inet_diag_msg` has the bytes that wait to be read, and to be sent.
const RECEIVE_QUEUE_AT: usize = 56;
const SEND_QUEUE_AT: usize = 60;

/// The states by their number (include/net/tcp_states.h), from 1 on.
const STATES: [&str; 11] = [
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
];

struct Tcpstat {
    system: Arc<dyn System>,
    socket: Option<Box<dyn Netlink>>,
    /// There if the kernel has IPv6.
    ipv6: PathBuf,
    states: Metric,
}

/// What was counted.
#[derive(Default)]
struct Counts {
    /// Connections by the number of their state.
    states: [u64; STATES.len() + 1],
    /// Connections in states that have no name here.
    unknown: u64,
    receive_bytes: u64,
    send_bytes: u64,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let states = "TCP connections by their state, and the bytes in their queues.";
    Box::new(Tcpstat {
        system: setup.system.clone(),
        socket: None,
        ipv6: setup.paths.procfs.join("net/tcp6"),
        states: Metric::gauge("node_tcp_connection_states", states, &["state"]),
    })
}

impl Collector for Tcpstat {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let counts = self.count().map_err(|source| {
            self.socket = None;
            CollectError::Read { path: PathBuf::from("netlink"), source }
        })?;
        let mut total = counts.unknown;
        for (state, count) in STATES.iter().zip(&counts.states[1..]) {
            total += count;
            if *count > 0 {
                out.emit(&self.states, &[state], *count as f64);
            }
        }
        let of_all = [
            ("unknown", counts.unknown, counts.unknown > 0),
            // As in node_exporter, these are there as soon as there is any connection.
            ("rx_queued_bytes", counts.receive_bytes, total > 0),
            ("tx_queued_bytes", counts.send_bytes, total > 0),
        ];
        for (state, value, is) in of_all {
            if is {
                out.emit(&self.states, &[state], value as f64);
            }
        }
        Ok(())
    }
}

impl Tcpstat {
    fn count(&mut self) -> io::Result<Counts> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(self.system.netlink(NetlinkProtocol::SockDiag)?),
        };
        let mut counts = Counts::default();
        let families: &[u8] = if self.ipv6.exists() { &[AF_INET, AF_INET6] } else { &[AF_INET] };
        for family in families {
            let mut request = [0; REQUEST_BYTES];
            request[..2].copy_from_slice(&[*family, IPPROTO_TCP]);
            request[4..8].copy_from_slice(&ALL_STATES.to_ne_bytes());
            let mut each = |kind: u16, message: &[u8]| {
                if kind == SOCK_DIAG_BY_FAMILY && message.first() == Some(family) {
                    counts.add(message);
                }
            };
            socket.dump(SOCK_DIAG_BY_FAMILY, &request, &mut each)?;
        }
        Ok(counts)
    }
}

impl Counts {
    fn add(&mut self, message: &[u8]) {
        let state = message.get(1).map(|state| usize::from(*state)).filter(|state| *state > 0);
        match state.and_then(|state| self.states.get_mut(state)) {
            Some(count) => *count += 1,
            None => self.unknown += 1,
        }
        self.receive_bytes += u64::from(read_u32(message, RECEIVE_QUEUE_AT).unwrap_or(0));
        self.send_bytes += u64::from(read_u32(message, SEND_QUEUE_AT).unwrap_or(0));
    }
}
