//! Questions to the kernel by netlink: a request for a dump, and the messages of its answer (netlink(7),
//! rtnetlink(7), include/uapi/linux/netlink.h).

use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::time::Duration;

const AF_NETLINK: i32 = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x001 | 0x300;
const MESSAGE_HEADER_BYTES: usize = 16;

/// The bits of an attribute's type that are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const ATTRIBUTE_FLAGS: u16 = 0xc000;

/// The kernel fills at most this much a message; more does not make a dump faster.
const BUFFER_BYTES: usize = 32 << 10;

/// A dump is answered at once; this only ends the wait for a kernel that never does.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The protocol of netlink that a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetlinkProtocol {
    /// Links, addresses, neighbours, routes, queueing disciplines (`NETLINK_ROUTE`).
    Route = 0,
    /// Sockets (`NETLINK_SOCK_DIAG`, sock_diag(7)).
    SockDiag = 4,
}

/// What answers requests for dumps: a netlink socket, or a test's recording.
pub trait Netlink: Send {
    /// Asks for all objects of a kind. `body` follows the message's header; `each` is given the kind and the
    /// body of every message of the answer.
    fn dump(&mut self, kind: u16, body: &[u8], each: &mut dyn FnMut(u16, &[u8])) -> io::Result<()>;
}

/// A netlink socket, kept from scrape to scrape.
#[derive(Debug)]
pub(super) struct NetlinkSocket {
    socket: Socket,
    buffer: Vec<u8>,
    request: Vec<u8>,
    sequence: u32,
}

impl NetlinkSocket {
    /// Opens the socket, in the network namespace of the process.
    pub(super) fn open(protocol: NetlinkProtocol) -> io::Result<Self> {
        let protocol = Protocol::from(protocol as i32);
        let socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(protocol))?;
        socket.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
        Ok(Self { socket, buffer: vec![0; BUFFER_BYTES], request: Vec::new(), sequence: 0 })
    }
}

impl Netlink for NetlinkSocket {
    fn dump(&mut self, kind: u16, body: &[u8], each: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        write_request(&mut self.request, kind, self.sequence, body);
        self.socket.send(&self.request)?;
        loop {
            let length = (&self.socket).read(&mut self.buffer)?;
            if messages(&self.buffer[..length], self.sequence, each)? {
                return Ok(());
            }
        }
    }
}

/// Writes the request for a dump.
fn write_request(request: &mut Vec<u8>, kind: u16, sequence: u32, body: &[u8]) {
    request.clear();
    request.extend(((MESSAGE_HEADER_BYTES + body.len()) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend(sequence.to_ne_bytes());
    // The port is the kernel's to fill in.
    request.extend([0; 4]);
    request.extend(body);
}

/// Reads one datagram; says whether it ends the dump.
fn messages(mut datagram: &[u8], sequence: u32, each: &mut dyn FnMut(u16, &[u8])) -> io::Result<bool> {
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
            Some(kind) => each(kind, &message[MESSAGE_HEADER_BYTES..]),
            None => return Err(broken()),
        }
    }
    Ok(false)
}

/// The attributes of a message or of a nested attribute: type, without its flags, and value. What is cut short
/// ends them.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        let kind = read_u16(bytes, 2)? & !ATTRIBUTE_FLAGS;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Two bytes of a message, in the machine's order.
pub(super) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// Four bytes of a message, in the machine's order.
pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Eight bytes of a message, in the machine's order.
pub(super) fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

/// Writes what the kernel would.
#[cfg(test)]
pub(super) mod written {
    use super::aligned;

    /// An attribute.
    pub(in super::super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut all = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        all.extend(kind.to_ne_bytes());
        all.extend(value);
        all.resize(aligned(all.len()), 0);
        all
    }

    /// A message.
    pub(in super::super) fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut all = (body.len() as u32 + 16).to_ne_bytes().to_vec();
        all.extend(kind.to_ne_bytes());
        all.extend([0; 2]);
        all.extend(sequence.to_ne_bytes());
        all.extend([0; 4]);
        all.extend(body);
        all.resize(aligned(all.len()), 0);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::written::{attribute, message};
    use super::*;
    use proptest::prelude::*;

    const KIND: u16 = 16;

    #[test]
    fn the_messages_of_our_own_dump_are_read_to_its_end() {
        let datagram = [
            message(KIND, 6, b"other"),
            message(KIND, 7, b"first"),
            message(KIND + 1, 7, b"second!!"),
            message(NLMSG_DONE, 7, &[0; 4]),
            message(KIND, 7, b"after"),
        ];
        let mut seen = Vec::new();
        let mut each = |kind: u16, body: &[u8]| seen.push((kind, body.to_vec()));
        assert!(messages(&datagram.concat(), 7, &mut each).unwrap());
        assert_eq!(seen, [(KIND, b"first".to_vec()), (KIND + 1, b"second!!".to_vec())]);
    }

    #[test]
    fn an_error_answer_is_an_error() {
        let refused = message(NLMSG_ERROR, 1, &(-1i32).to_ne_bytes());
        let error = messages(&refused, 1, &mut |_, _| {}).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(1));
    }

    #[test]
    fn attributes_lose_their_flags_and_end_where_they_are_cut() {
        let whole = [attribute(1, b"abc"), attribute(0x8002, b""), attribute(3, b"cut off")].concat();
        let found: Vec<_> = attributes(&whole[..whole.len() - 4]).collect();
        assert_eq!(found, [(1, b"abc".as_slice()), (2, b"")]);
    }

    #[test]
    fn a_request_is_a_message_with_its_length() {
        let mut request = Vec::new();
        write_request(&mut request, 18, 7, &[2; 12]);
        assert_eq!(request.len(), 28);
        assert_eq!(read_u32(&request, 0), Some(28));
        assert_eq!((read_u16(&request, 4), read_u16(&request, 6)), (Some(18), Some(0x301)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut each = |_: u16, body: &[u8]| attributes(body).for_each(drop);
            let _ = messages(&bytes, 0, &mut each);
            let framed = message(KIND, 0, &bytes);
            let _ = messages(&framed, 0, &mut each);
        }
    }
}
