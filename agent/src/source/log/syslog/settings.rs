//! What a syslog input is told.

use jiff::tz::TimeZone;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The longest message by default: a line that Loki takes, and some.
pub const DEFAULT_MESSAGE_BYTES: usize = 64 << 10;
/// Connections of one listener by default; each costs a task and up to a message of memory.
pub const DEFAULT_CONNECTIONS: usize = 1_024;
/// Messages that wait for being shaped: a burst of some ten thousand lines.
pub const QUEUE_BYTES: usize = 4 << 20;

/// Where messages come in, and what is made of them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The sockets.
    pub listeners: Vec<Listener>,
    /// The longest message; what is longer is cut.
    pub message_bytes: usize,
    /// The most connections of one listener.
    pub connections: usize,
    /// Which parts of a message become labels; the others are structured metadata.
    pub labels: Vec<Part>,
    /// Whether a message's own time is used, where it has one that can be right.
    pub use_time: bool,
    /// The zone of times that name none.
    pub zone: TimeZone,
}

/// A part of a message that may become a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The facility's name.
    Facility,
    /// The severity.
    Level,
    /// The program.
    App,
    /// The host that the message names, or the address that it comes from.
    Host,
}

impl Part {
    /// The label's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Facility => "facility",
            Self::Level => "level",
            Self::App => "app",
            Self::Host => "host",
        }
    }
}

/// A socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listener {
    /// Datagrams, each a message.
    Udp(SocketAddr),
    /// Streams.
    Tcp(SocketAddr),
    /// Streams over TLS.
    Tls(SocketAddr, Tls),
    /// Datagrams to a unix socket, as programs send to /dev/log.
    UnixDatagram(PathBuf),
    /// Streams to a unix socket.
    UnixStream(PathBuf),
}

/// The files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// What clients' certificates must come from; without it, clients need none.
    pub client_ca: Option<PathBuf>,
}
