//! Network interfaces and their counters by rtnetlink: `RTM_GETLINK` for all links (rtnetlink(7), netlink(7),
//! include/uapi/linux/if_link.h).

use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::time::Duration;

const AF_NETLINK: i32 = 16;
const NETLINK_ROUTE: i32 = 0;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST_DUMP: u16 = 0x001 | 0x300;
const IFLA_IFNAME: u16 = 3;
const IFLA_STATS: u16 = 7;
const IFLA_STATS64: u16 = 23;
const MESSAGE_HEADER_BYTES: usize = 16;
const LINK_HEADER_BYTES: usize = 16;

/// The kernel fills at most this much a message; more does not make a dump faster.
const BUFFER_BYTES: usize = 32 << 10;

/// A dump is answered at once; this only ends the wait for a kernel that never does.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The counters of `struct rtnl_link_stats64` up to `rx_nohandler`, in its order.
pub(super) const COUNTERS: usize = 24;

/// A socket for questions about links, kept from scrape to scrape.
pub(super) struct LinkSocket {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl LinkSocket {
    /// Opens the socket, in the network namespace of the process.
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_ROUTE)))?;
        socket.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
        Ok(Self { socket, buffer: vec![0; BUFFER_BYTES], sequence: 0 })
    }

    /// Asks for all links; `each` is given a link's name and counters.
    pub(super) fn links(&mut self, mut each: impl FnMut(&[u8], &[u64; COUNTERS])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&request(self.sequence))?;
        loop {
            let length = (&self.socket).read(&mut self.buffer)?;
            if messages(&self.buffer[..length], self.sequence, &mut each)? {
                return Ok(());
            }
        }
    }
}

/// The question for all links.
fn request(sequence: u32) -> [u8; MESSAGE_HEADER_BYTES + LINK_HEADER_BYTES] {
    let mut message = [0; MESSAGE_HEADER_BYTES + LINK_HEADER_BYTES];
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    message[8..12].copy_from_slice(&sequence.to_ne_bytes());
    message
}

/// Reads one datagram; says whether it ends the dump.
fn messages(
    mut datagram: &[u8],
    sequence: u32,
    each: &mut impl FnMut(&[u8], &[u64; COUNTERS]),
) -> io::Result<bool> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "a netlink message is cut short");
    while !datagram.is_empty() {
        let length = read_u32(datagram, 0).ok_or_else(broken)? as usize;
        if length < MESSAGE_HEADER_BYTES || length > datagram.len() {
            return Err(broken());
        }
        let (message, rest) = datagram.split_at(length);
        datagram = rest.get(aligned(length) - length..).unwrap_or_default();
        if read_u32(message, 8) != Some(sequence) {
            // The rest of a dump that an earlier error cut off.
            continue;
        }
        match read_u16(message, 4) {
            Some(NLMSG_DONE) => return Ok(true),
            Some(NLMSG_ERROR) => {
                let number = read_u32(message, MESSAGE_HEADER_BYTES).ok_or_else(broken)? as i32;
                return Err(io::Error::from_raw_os_error(number.wrapping_neg()));
            }
            Some(RTM_NEWLINK) => {
                let attributes =
                    message.get(MESSAGE_HEADER_BYTES + LINK_HEADER_BYTES..).ok_or_else(broken)?;
                if let Some((name, counters)) = link(attributes) {
                    each(name, &counters);
                }
            }
            _ => {}
        }
    }
    Ok(false)
}

/// A link's name and counters; none for a link without one of them.
fn link(mut attributes: &[u8]) -> Option<(&[u8], [u64; COUNTERS])> {
    let (mut name, mut counters, mut narrow) = (None, None, None);
    while let (Some(length), Some(kind)) = (read_u16(attributes, 0), read_u16(attributes, 2)) {
        let length = usize::from(length);
        let Some(value) = attributes.get(4..length) else { break };
        match kind {
            IFLA_IFNAME => name = value.split(|b| *b == 0).next(),
            IFLA_STATS64 => counters = Some(std::array::from_fn(|i| read_u64(value, 8 * i).unwrap_or(0))),
            IFLA_STATS => narrow = Some(std::array::from_fn(|i| read_u32(value, 4 * i).unwrap_or(0).into())),
            _ => {}
        }
        attributes = attributes.get(aligned(length)..).unwrap_or_default();
    }
    Some((name?, counters.or(narrow)?))
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut all = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        all.extend(kind.to_ne_bytes());
        all.extend(value);
        all.resize(aligned(all.len()), 0);
        all
    }

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut all = (body.len() as u32 + 16).to_ne_bytes().to_vec();
        all.extend(kind.to_ne_bytes());
        all.extend([0; 2]);
        all.extend(sequence.to_ne_bytes());
        all.extend([0; 4]);
        all.extend(body);
        all.resize(aligned(all.len()), 0);
        all
    }

    #[test]
    fn links_are_read_from_wide_and_narrow_counters_of_our_own_dump() {
        let wide: Vec<u8> = (0..25u64).flat_map(|n| (n << 33).to_ne_bytes()).collect();
        let narrow: Vec<u8> = (0..24u32).flat_map(u32::to_ne_bytes).collect();
        let body = |name: &[u8], stats: Vec<u8>| [vec![0; 16], attribute(IFLA_IFNAME, name), stats].concat();
        let datagram = [
            message(RTM_NEWLINK, 6, &body(b"other\0", attribute(IFLA_STATS64, &wide))),
            message(RTM_NEWLINK, 7, &body(b"eth0\0", attribute(IFLA_STATS64, &wide))),
            message(RTM_NEWLINK, 7, &body(b"old\0", attribute(IFLA_STATS, &narrow))),
            message(RTM_NEWLINK, 7, &body(b"none\0", Vec::new())),
            message(NLMSG_DONE, 7, &[0; 4]),
        ];
        let mut seen = Vec::new();
        let mut each = |name: &[u8], counters: &[u64; COUNTERS]| seen.push((name.to_vec(), counters[23]));
        assert!(messages(&datagram.concat(), 7, &mut each).unwrap());
        assert_eq!(seen, [(b"eth0".to_vec(), 23 << 33), (b"old".to_vec(), 23)]);
    }

    #[test]
    fn an_error_answer_is_an_error() {
        let refused = message(NLMSG_ERROR, 1, &(-1i32).to_ne_bytes());
        let error = messages(&refused, 1, &mut |_: &[u8], _: &[u64; COUNTERS]| {}).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = messages(&bytes, 0, &mut |_: &[u8], _: &[u64; COUNTERS]| {});
            let framed = message(RTM_NEWLINK, 0, &bytes);
            let _ = messages(&framed, 0, &mut |_: &[u8], _: &[u64; COUNTERS]| {});
        }
    }
}
