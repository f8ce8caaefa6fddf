//! `logs.inputs[].syslog`: messages that others send.

use crate::source::log::syslog::{DEFAULT_CONNECTIONS, DEFAULT_MESSAGE_BYTES, Listener, Part, Settings, Tls};
use jiff::tz::TimeZone;
use pegel_runtime::config::form::{ByteSize, FilePath, Listen};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Messages of syslog, RFC 5424 and 3164, told apart each by itself. Over streams they are framed by counts or by line
/// feeds, told apart as well. What was received and not stored yet is lost if the agent is killed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "x-renamed" = {
        "listen": "tcp", "max_message_length": "message_limit", "max_length": "message_limit",
        "connection_limit": "connections", "unix": "unix_datagram", "timezone": "zone"
    },
    "x-refused" = {
        "mode": "list the address under udp, tcp or tls",
        "use_rfc5424_message": "a message of RFC 5424 is told by its version, each by itself"
    }
))]
pub struct RawSyslog {
    /// Addresses for datagrams. What finds no room is dropped and counted.
    pub udp: Vec<Listen>,
    /// Addresses for streams. Senders wait while there is no room.
    pub tcp: Vec<Listen>,
    /// Streams over TLS.
    pub tls: Option<RawSyslogTls>,
    /// A unix socket for datagrams, as programs write to `/dev/log`.
    pub unix_datagram: Option<FilePath>,
    /// A unix socket for streams.
    pub unix_stream: Option<FilePath>,
    /// The longest message; what is longer is cut and counted.
    pub message_limit: ByteSize,
    /// The most connections of an address at a time.
    pub connections: usize,
    /// Which parts of a message become labels; the others are structured metadata.
    pub labels: Vec<RawPart>,
    /// Whose time entries have.
    pub time: RawTime,
    /// The zone of times that name none, such as `Europe/Berlin`; without it, this machine's.
    pub zone: Option<String>,
}

impl Default for RawSyslog {
    fn default() -> Self {
        Self {
            udp: Vec::new(),
            tcp: Vec::new(),
            tls: None,
            unix_datagram: None,
            unix_stream: None,
            message_limit: ByteSize(DEFAULT_MESSAGE_BYTES as u64),
            connections: DEFAULT_CONNECTIONS,
            labels: vec![RawPart::Host, RawPart::App, RawPart::Level],
            time: RawTime::default(),
            zone: None,
        }
    }
}

/// Streams over TLS, 1.2 or 1.3. Files that change are read again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "required" = ["listen", "cert_file", "key_file"],
    "x-renamed" = {"ca_file": "client_ca_file", "cert": "cert_file", "key": "key_file"}
))]
pub struct RawSyslogTls {
    /// Addresses.
    pub listen: Vec<Listen>,
    /// The server's certificate chain (PEM).
    pub cert_file: Option<FilePath>,
    /// Its private key (PEM).
    pub key_file: Option<FilePath>,
    /// CA certificates (PEM) that clients' certificates must come from; without it, clients need none.
    pub client_ca_file: Option<FilePath>,
}

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawPart {
    /// The facility's name.
    Facility,
    /// The severity, from `emergency` to `debug`.
    Level,
    /// The program.
    App,
    /// The host that the message names, or the address that it comes from.
    Host,
}

/// Whose time entries have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawTime {
    /// The message's, unless it is more than ten minutes ahead or a week old.
    #[default]
    Message,
    /// That of its receipt.
    Receipt,
}

/// A message may be as long as a line that can be sent.
const MESSAGE_BYTES: std::ops::RangeInclusive<u64> = 256..=1 << 20;

impl RawSyslog {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Settings {
        let mut listeners: Vec<Listener> = self.udp.iter().map(|at| Listener::Udp(at.0)).collect();
        listeners.extend(self.tcp.iter().map(|at| Listener::Tcp(at.0)));
        if let Some(tls) = &self.tls {
            listeners.extend(tls.resolve(&path.key("tls"), mistakes));
        }
        let file = |key: &str, file: &Option<FilePath>| {
            file.as_ref().map(|file| mistakes.path_of(&path.key(key), file))
        };
        listeners.extend(file("unix_datagram", &self.unix_datagram).map(Listener::UnixDatagram));
        listeners.extend(file("unix_stream", &self.unix_stream).map(Listener::UnixStream));
        if listeners.is_empty() && self.tls.is_none() {
            mistakes.at(path, "it listens nowhere", "give it an address, such as `tcp: [\"0.0.0.0:6514\"]`");
        }
        for (key, list) in [("udp", &self.udp), ("tcp", &self.tcp)] {
            let mut seen = HashSet::new();
            for (nth, at) in list.iter().enumerate() {
                if at.0.port() != 0 && !seen.insert(at.0) {
                    mistakes.at(&path.key(key).index(nth), format!("`{at}` is listed twice"), "take one out");
                }
            }
        }
        if self.unix_datagram.is_some() && self.unix_datagram == self.unix_stream {
            let reason = "is the path of `unix_datagram` as well";
            mistakes.at(&path.key("unix_stream"), reason, "give each socket a path of its own");
        }
        if !MESSAGE_BYTES.contains(&self.message_limit.0) {
            let reason = format!("`{}` is no limit that works", self.message_limit);
            mistakes.at(&path.key("message_limit"), reason, "use something between 256B and 1MiB");
        }
        if !(1..=65_536).contains(&self.connections) {
            let reason = format!("{} is no number of connections that works", self.connections);
            mistakes.at(&path.key("connections"), reason, "use something between 1 and 65536");
        }
        let mut labels = Vec::new();
        for (nth, part) in self.labels.iter().enumerate() {
            let part = match part {
                RawPart::Facility => Part::Facility,
                RawPart::Level => Part::Level,
                RawPart::App => Part::App,
                RawPart::Host => Part::Host,
            };
            if labels.contains(&part) {
                let reason = format!("`{}` is listed twice", part.name());
                mistakes.at(&path.key("labels").index(nth), reason, "take one out");
            }
            labels.push(part);
        }
        Settings {
            listeners,
            message_bytes: self.message_limit.0.clamp(*MESSAGE_BYTES.start(), *MESSAGE_BYTES.end()) as usize,
            connections: self.connections.clamp(1, 65_536),
            labels,
            use_time: self.time == RawTime::Message,
            zone: self.zone(path, mistakes),
        }
    }

    fn zone(&self, path: &Path, mistakes: &mut Mistakes) -> TimeZone {
        let Some(name) = &self.zone else { return TimeZone::system() };
        TimeZone::get(name).unwrap_or_else(|_| {
            let reason = format!("`{}` is not a zone that this machine knows", name.escape_debug());
            let remedy = "write a name such as `Europe/Berlin` or `UTC`, and have tzdata installed";
            mistakes.at(&path.key("zone"), reason, remedy);
            TimeZone::UTC
        })
    }
}

impl RawSyslogTls {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Vec<Listener> {
        if self.listen.is_empty() {
            mistakes.at(
                &path.key("listen"),
                "it listens nowhere",
                "give it an address, such as `[\"0.0.0.0:6514\"]`",
            );
        }
        let mut file = |key: &str, file: &Option<FilePath>| {
            file.as_ref().map(|file| mistakes.readable_file(&path.key(key), file))
        };
        let client_ca = file("client_ca_file", &self.client_ca_file);
        // That one of them is missing was said of the required keys.
        let (Some(cert), Some(key)) = (file("cert_file", &self.cert_file), file("key_file", &self.key_file))
        else {
            return Vec::new();
        };
        let tls = Tls { cert, key, client_ca };
        self.listen.iter().map(|at| Listener::Tls(at.0, tls.clone())).collect()
    }
}
