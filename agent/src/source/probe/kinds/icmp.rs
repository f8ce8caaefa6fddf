//! Checks by ICMP echo: whether a machine answers, and how fast.
//!
//! The kernel lets groups in `net.ipv4.ping_group_range` have datagram sockets for this; others need CAP_NET_RAW for
//! a raw one. The first is tried first. Only raw IPv4 sockets show the TTL of a reply without calls that are unsafe
//! in Rust, so `probe_icmp_reply_hop_limit` is there with those alone.

use crate::source::probe::net::resolve::Families;
use crate::source::probe::net::{self, host};
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::record::Gauge;
use crate::source::probe::run::{Probe, Run, Running, Stopwatch};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::net::UdpSocket;

static DURATION: Gauge =
    Gauge::new("probe_icmp_duration_seconds", "How long the phases of the echo took.", &["phase"]);
static HOP_LIMIT: Gauge =
    Gauge::new("probe_icmp_reply_hop_limit", "The hop limit of the reply (its TTL with IPv4).", &[]);

/// The hop limit of requests unless told otherwise.
pub const DEFAULT_TTL: u8 = 64;
/// The largest payload: with its headers, a packet of 65,535 bytes (RFC 791).
pub const MAX_PAYLOAD_BYTES: u16 = 65_507;

/// What is sent unless told otherwise.
const PAYLOAD: &[u8] = b"pegel-agent echo request";
/// IPv4's header without options (RFC 791, section 3.1).
const IPV4_HEADER_BYTES: usize = 20;
const REPLY_BUFFER_BYTES: usize = 65_536;

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Which addresses are used.
    pub families: Families,
    /// The address of this machine that is sent from.
    pub source_address: Option<IpAddr>,
    /// How many bytes of payload; 0 is a short text.
    pub payload_size: u16,
    /// Whether IPv4 routers may not fragment it; needs a raw socket. With IPv6 they never do.
    pub dont_fragment: bool,
    /// The hop limit.
    pub ttl: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            families: Families::default(),
            source_address: None,
            payload_size: 0,
            dont_fragment: false,
            ttl: DEFAULT_TTL,
        }
    }
}

/// Says why an address is no target.
pub fn check_address(address: &str) -> Result<(), String> {
    if address.contains(':') && address.parse::<IpAddr>().is_err() {
        return Err("it has a port; an echo has none".to_owned());
    }
    host::check(address)
}

/// The probe.
#[derive(Debug)]
pub struct IcmpProbe {
    settings: Settings,
}

/// How a socket was had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Privilege {
    /// A datagram socket: the kernel sets the identifier and passes replies to it only.
    None,
    /// A raw socket: every reply that the machine gets is seen, IPv4 with its header.
    Raw,
    /// The same, with an IPv4 header of our own.
    OwnHeader,
}

/// An echo request, and what its reply must be.
struct Echo {
    to: IpAddr,
    id: u16,
    sequence: u16,
    payload: Vec<u8>,
}

impl Echo {
    /// The message (RFC 792, RFC 4443 section 4.1), with its checksum where that is ours to set.
    fn request(&self) -> Vec<u8> {
        let kind = if self.to.is_ipv4() { 8 } else { 128 };
        let mut message = vec![kind, 0, 0, 0];
        message.extend_from_slice(&self.id.to_be_bytes());
        message.extend_from_slice(&self.sequence.to_be_bytes());
        message.extend_from_slice(&self.payload);
        if self.to.is_ipv4() {
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }

    /// What a packet is if it is the reply.
    fn reply(&self, packet: &[u8], from: IpAddr, privilege: Privilege) -> Option<Reply> {
        let mut hop_limit = None;
        let mut message = packet;
        if privilege != Privilege::None && self.to.is_ipv4() {
            let words = usize::from(*packet.first()? & 0xf);
            hop_limit = packet.get(8).copied();
            message = packet.get(words * 4..)?;
        }
        let kind = if self.to.is_ipv4() { 0 } else { 129 };
        let same = from == self.to
            && message.len() == 8 + self.payload.len()
            && message[..2] == [kind, 0]
            && (privilege == Privilege::None || message[4..6] == self.id.to_be_bytes())
            && message[6..8] == self.sequence.to_be_bytes()
            && message[8..] == self.payload;
        same.then_some(Reply { hop_limit })
    }
}

/// A reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reply {
    /// The hop limit that it came with, if that was shown.
    hop_limit: Option<u8>,
}

/// The one's complement of the one's complement sum of all words (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A header that forbids fragments; the kernel fills in identification, checksum, length and an empty source.
fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr, ttl: u8, payload: usize) -> [u8; IPV4_HEADER_BYTES] {
    let mut header = [0; IPV4_HEADER_BYTES];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&((IPV4_HEADER_BYTES + payload) as u16).to_be_bytes());
    header[6] = 0x40;
    header[8] = ttl;
    header[9] = 1;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    header
}

impl IcmpProbe {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    async fn probe(&self, run: &mut Run) -> Result<(), Failure> {
        /// Requests of this process, so that no two that are under way are the same.
        static SEQUENCE: AtomicU16 = AtomicU16::new(0);
        net::declare_address(run);
        let mut watch = Stopwatch::start(&mut run.record, &DURATION, &["resolve", "setup", "rtt"]);
        let address = run.target.address.clone();
        let to = net::resolve(run, &address, self.settings.families).await?;
        watch.lap(&mut run.record, "resolve");
        run.enter(Phase::Setup);
        let (socket, privilege) = self.socket(to).map_err(|e| not_had(&e))?;
        let payload = match usize::from(self.settings.payload_size) {
            0 => PAYLOAD.to_vec(),
            size => PAYLOAD.iter().copied().chain(std::iter::repeat(0)).take(size).collect(),
        };
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let echo = Echo { to, id: rand::random(), sequence, payload };
        let mut packet = echo.request();
        if let (Privilege::OwnHeader, IpAddr::V4(v4)) = (privilege, to) {
            let from = match self.settings.source_address {
                Some(IpAddr::V4(from)) => from,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            packet.splice(0..0, ipv4_header(from, v4, self.settings.ttl, packet.len()));
        }
        let mut buffer = vec![0; REPLY_BUFFER_BYTES];
        watch.lap(&mut run.record, "setup");
        run.enter(Phase::Connect);
        let sent = socket.send_to(&packet, SocketAddr::new(to, 0)).await;
        sent.map_err(|e| run.io_failure(format_args!("cannot send to {to}"), &e))?;
        run.enter(Phase::Processing);
        loop {
            let (length, from) =
                socket.recv_from(&mut buffer).await.map_err(|e| run.io_failure("no reply", &e))?;
            if let Some(Reply { hop_limit }) = echo.reply(&buffer[..length], from.ip(), privilege) {
                watch.lap(&mut run.record, "rtt");
                if let Some(hop_limit) = hop_limit {
                    run.record.set(&HOP_LIMIT, f64::from(hop_limit));
                }
                return Ok(());
            }
        }
    }

    fn socket(&self, to: IpAddr) -> io::Result<(UdpSocket, Privilege)> {
        let (domain, protocol, any) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        let own_header = self.settings.dont_fragment && to.is_ipv4();
        let unprivileged = if own_header {
            Err(io::ErrorKind::PermissionDenied.into())
        } else {
            Socket::new(domain, Type::DGRAM, Some(protocol))
        };
        let (socket, privilege) = if let Ok(socket) = unprivileged {
            (socket, Privilege::None)
        } else {
            let privilege = if own_header { Privilege::OwnHeader } else { Privilege::Raw };
            (Socket::new(domain, Type::RAW, Some(protocol))?, privilege)
        };
        socket.set_nonblocking(true)?;
        if to.is_ipv4() {
            socket.set_ttl_v4(u32::from(self.settings.ttl))?;
            if own_header {
                socket.set_header_included_v4(true)?;
            }
        } else {
            socket.set_unicast_hops_v6(u32::from(self.settings.ttl))?;
        }
        let from = self.settings.source_address.unwrap_or(any);
        socket.bind(&SocketAddr::new(from, 0).into())?;
        // Sending and receiving are the same calls for it as for UDP.
        Ok((UdpSocket::from_std(socket.into())?, privilege))
    }
}

fn not_had(error: &io::Error) -> Failure {
    let failure = Failure::of_io(Phase::Setup, "cannot have a socket for ICMP", error);
    if failure.reason != Reason::NotPermitted {
        return failure;
    }
    let words = format!(
        "{failure}; give the agent CAP_NET_RAW, or let its group have such sockets by sysctl net.ipv4.ping_group_range"
    );
    Failure::new(failure.phase, failure.reason, words)
}

impl Probe for IcmpProbe {
    fn attempt<'a>(&'a self, run: &'a mut Run) -> Running<'a> {
        Box::pin(self.probe(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(to: &str) -> Echo {
        Echo { to: to.parse().unwrap(), id: 0x1234, sequence: 7, payload: b"abc".to_vec() }
    }

    #[test]
    fn requests_are_those_of_the_rfcs() {
        let v4 = echo("192.0.2.1").request();
        assert_eq!(v4[..2], [8, 0]);
        assert_eq!(checksum(&v4), 0, "the sum over a message with its checksum is zero");
        assert_eq!(v4[4..], *b"\x12\x34\x00\x07abc");
        assert_eq!(echo("2001:db8::1").request()[..4], [128, 0, 0, 0], "the kernel sums ICMPv6");
    }

    #[test]
    fn only_the_reply_to_the_request_is_taken() {
        let echo = echo("192.0.2.1");
        let reply = b"\x00\x00\xff\xff\x12\x34\x00\x07abc";
        let from = echo.to;
        assert_eq!(echo.reply(reply, from, Privilege::None), Some(Reply { hop_limit: None }));
        let mut raw = ipv4_header(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::LOCALHOST, 61, reply.len()).to_vec();
        raw.extend_from_slice(reply);
        assert_eq!(echo.reply(&raw, from, Privilege::Raw), Some(Reply { hop_limit: Some(61) }));
        for (at, byte) in [(20, 8), (25, 0), (27, 8), (30, b'x')] {
            let mut other = raw.clone();
            other[at] = byte;
            assert_eq!(echo.reply(&other, from, Privilege::Raw), None, "byte {at}");
        }
        assert_eq!(echo.reply(&raw, "192.0.2.2".parse().unwrap(), Privilege::Raw), None);
        for end in 0..raw.len() {
            assert_eq!(echo.reply(&raw[..end], from, Privilege::Raw), None, "{end}");
        }
    }
}
