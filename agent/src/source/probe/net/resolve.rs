//! From names to addresses: `/etc/hosts`, then the name servers of `/etc/resolv.conf`, without a thread.
//!
//! The system's resolver can only be asked by a call that blocks, for half a minute and more when a name server is
//! silent; every such call takes a thread, and a bound on the threads would have checks wait for others' name
//! servers. So the two files are read here and servers asked over a socket that goes away with the run that waits
//! for it. This is what Go's resolver does, and so blackbox_exporter; what neither sees are the other sources of
//! `nsswitch.conf` (mDNS, LDAP), unless a local stub such as systemd-resolved answers for them.
//!
//! Nothing is kept from lookup to lookup: a check is to notice what its users would.

use super::dns::{self, Message, Question};
use crate::source::probe::outcome::{Failure, Phase, Reason};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

/// How often the files are looked at; looking is one `stat` each.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The most name servers that are asked, as in the system's resolver.
const MAX_SERVERS: usize = 3;
/// Larger files are no resolver configuration, in bytes. Block lists in `/etc/hosts` have a few MiB.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// The largest answer over UDP without EDNS is 512 bytes; servers that send more are heard all the same.
const UDP_BUFFER_BYTES: usize = 4_096;

/// Which addresses are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// Whether IPv6 is preferred to IPv4.
    pub prefer_v6: bool,
    /// Whether the other one does where there is none of the preferred.
    pub fallback: bool,
}

impl Default for Families {
    /// As blackbox_exporter: IPv6 where there is any.
    fn default() -> Self {
        Self { prefer_v6: true, fallback: true }
    }
}

impl Families {
    fn choose(self, addresses: &[IpAddr]) -> Option<IpAddr> {
        let preferred = addresses.iter().find(|a| a.is_ipv6() == self.prefer_v6);
        preferred.or_else(|| addresses.first().filter(|_| self.fallback)).copied()
    }

    fn types(self) -> &'static [u16] {
        match (self.fallback, self.prefer_v6) {
            (true, _) => &[dns::A, dns::AAAA],
            (false, true) => &[dns::AAAA],
            (false, false) => &[dns::A],
        }
    }
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupError {
    /// The name does not exist.
    NotFound,
    /// It exists without an address of the wanted protocol.
    NoAddress(Families),
    /// It is no name that can be asked for.
    BadName,
    /// No name server gave a usable answer; the last one's trouble.
    Server {
        /// Which.
        server: SocketAddr,
        /// What went wrong.
        trouble: String,
    },
}

impl LookupError {
    /// As a check's failure.
    pub fn failure(&self, host: &str) -> Failure {
        let reason = match self {
            Self::NotFound | Self::BadName => Reason::NameNotFound,
            Self::NoAddress(_) => Reason::NoAddress,
            Self::Server { .. } => Reason::NameServer,
        };
        Failure::new(Phase::Resolve, reason, format!("cannot look up {host}: {self}"))
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("the name does not exist"),
            Self::NoAddress(families) if families.fallback => f.write_str("the name has no address"),
            Self::NoAddress(families) => {
                write!(f, "the name has no IPv{} address", if families.prefer_v6 { 6 } else { 4 })
            }
            Self::BadName => f.write_str("it is no host name"),
            Self::Server { server, trouble } => write!(f, "name server {server} {trouble}"),
        }
    }
}

/// What `resolv.conf` says (resolv.conf(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Conf {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    attempts: u32,
    timeout: Duration,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            attempts: 2,
            timeout: Duration::from_secs(5),
        }
    }
}

impl Conf {
    fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // An IPv6 address may carry a zone, which nothing is known of here.
                    let address = words.next().and_then(|w| w.split('%').next()?.parse::<IpAddr>().ok());
                    if let Some(address) = address.filter(|_| conf.servers.len() < MAX_SERVERS) {
                        conf.servers.push(SocketAddr::new(address, 53));
                    }
                }
                Some("domain") => conf.search = words.next().map(str::to_owned).into_iter().collect(),
                Some("search") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
        }
        conf
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(u64::from(value.clamp(1, 30))),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    /// The names to ask for, one after another.
    fn names(&self, host: &str) -> Vec<String> {
        if let Some(rooted) = host.strip_suffix('.') {
            return vec![rooted.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{host}.{}", domain.trim_end_matches('.')));
        let bare = std::iter::once(host.to_owned());
        if host.matches('.').count() >= self.ndots {
            bare.chain(searched).collect()
        } else {
            searched.chain(bare).collect()
        }
    }
}

/// The addresses of a name in a hosts file (hosts(5)).
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let address = words.next().and_then(|word| word.split('%').next()?.parse().ok());
        if let Some(address) = address
            && words.any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host))
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// A file that is read again when it changes.
#[derive(Debug)]
struct Followed<T> {
    path: PathBuf,
    look_every: Duration,
    read: fn(&str) -> T,
    state: Mutex<FollowedState<T>>,
}

#[derive(Debug)]
struct FollowedState<T> {
    looked: Option<Instant>,
    stamp: Option<(SystemTime, u64)>,
    value: Arc<T>,
}

impl<T> Followed<T> {
    fn new(path: &Path, read: fn(&str) -> T) -> Self {
        let state = FollowedState { looked: None, stamp: None, value: Arc::new(read("")) };
        Self { path: path.to_owned(), look_every: LOOK_EVERY, read, state: Mutex::new(state) }
    }

    /// What the file says. One that cannot be read says what an empty one would.
    fn value(&self) -> Arc<T> {
        let mut state = self.state.lock();
        if state.looked.is_none_or(|looked| looked.elapsed() >= self.look_every) {
            state.looked = Some(Instant::now());
            let stamp = std::fs::metadata(&self.path)
                .ok()
                .and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
            if stamp != state.stamp {
                let small = stamp.is_some_and(|(_, length)| length <= MAX_FILE_BYTES);
                let text = if small { std::fs::read(&self.path).unwrap_or_default() } else { Vec::new() };
                state.value = Arc::new((self.read)(&String::from_utf8_lossy(&text)));
                state.stamp = stamp;
            }
        }
        state.value.clone()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Resolver {
    conf: Followed<Conf>,
    hosts: Followed<String>,
    /// Asked in place of those of the file; none if it is to be as the file says.
    servers: ArcSwap<Vec<SocketAddr>>,
}

impl Resolver {
    /// With the machine's files.
    pub fn of_this_machine() -> Self {
        Self::with_files(Path::new("/etc/resolv.conf"), Path::new("/etc/hosts"))
    }

    /// With these files.
    pub fn with_files(conf: &Path, hosts: &Path) -> Self {
        Self {
            conf: Followed::new(conf, Conf::parse),
            hosts: Followed::new(hosts, str::to_owned),
            servers: ArcSwap::default(),
        }
    }

    /// Asks these name servers in place of those of the file; with none, those of the file again.
    pub fn ask(&self, servers: &[SocketAddr]) {
        self.servers.store(Arc::new(servers.to_vec()));
    }

    #[cfg(test)]
    fn with_servers(self, servers: &[SocketAddr]) -> Self {
        let mut conf = (*self.conf.value()).clone();
        conf.timeout = Duration::from_millis(200);
        self.conf.state.lock().value = Arc::new(conf);
        self.ask(servers);
        self
    }

    /// The address of a host.
    pub async fn address(&self, host: &str, families: Families) -> Result<IpAddr, LookupError> {
        let choose = |found: &[IpAddr]| families.choose(found).ok_or(LookupError::NoAddress(families));
        if let Ok(address) = host.parse::<IpAddr>() {
            return choose(&[address]);
        }
        let mut known = in_hosts(&self.hosts.value(), host);
        if known.is_empty() && host.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
            known = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        if !known.is_empty() {
            return choose(&known);
        }
        let conf = self.conf.value();
        let own = self.servers.load_full();
        let servers = if own.is_empty() { &conf.servers } else { &*own };
        let mut worst = LookupError::NotFound;
        for name in conf.names(host) {
            match ask_all(&conf, servers, &name, families).await {
                Ok(found) => match choose(&found) {
                    Ok(address) => return Ok(address),
                    Err(error) => worst = error,
                },
                Err(LookupError::NotFound) => {}
                Err(error @ (LookupError::BadName | LookupError::NoAddress(_))) => worst = error,
                // Another name of the search list would be a guess about what the server does not say.
                Err(error @ LookupError::Server { .. }) => return Err(error),
            }
        }
        Err(worst)
    }
}

/// Asks the servers in turn until one knows.
async fn ask_all(
    conf: &Conf,
    servers: &[SocketAddr],
    name: &str,
    families: Families,
) -> Result<Vec<IpAddr>, LookupError> {
    let mut last = LookupError::NotFound;
    for _ in 0..conf.attempts {
        for server in servers {
            match ask(*server, conf.timeout, name, families.types()).await {
                Err(error @ LookupError::Server { .. }) => last = error,
                settled => return settled,
            }
        }
    }
    Err(last)
}

/// Asks one server for all types at once, over one socket.
async fn ask(
    server: SocketAddr,
    limit: Duration,
    name: &str,
    types: &[u16],
) -> Result<Vec<IpAddr>, LookupError> {
    let trouble = |trouble: String| LookupError::Server { server, trouble };
    let mut pending: Vec<(u16, Question)> = types
        .iter()
        .map(|qtype| (rand::random(), Question { name: name.to_owned(), qtype: *qtype, class: dns::IN }))
        .collect();
    let exchange = async {
        let any: SocketAddr = if server.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let io = |e: std::io::Error| trouble(format!("cannot be asked: {e}"));
        let socket = UdpSocket::bind(any).await.map_err(io)?;
        socket.connect(server).await.map_err(io)?;
        for (id, question) in &pending {
            let query = dns::query(*id, question, true).map_err(|_| LookupError::BadName)?;
            socket.send(&query).await.map_err(io)?;
        }
        let mut found: Vec<(u16, Vec<IpAddr>)> = Vec::new();
        let mut buffer = vec![0; UDP_BUFFER_BYTES];
        while !pending.is_empty() {
            let length = socket.recv(&mut buffer).await.map_err(io)?;
            // What is no answer to what was asked may come from anybody: it is passed over.
            let Ok(message) = Message::parse(buffer[..length].to_vec()) else { continue };
            let Some(at) = pending.iter().position(|(id, question)| message.answers_to(*id, question)) else {
                continue;
            };
            let (id, question) = pending.swap_remove(at);
            let message =
                if message.truncated() { ask_tcp(server, id, &question).await.map_err(io)? } else { message };
            match message.rcode() {
                0 => {}
                3 => return Err(LookupError::NotFound),
                code => {
                    let name = dns::name_of(dns::RCODES, code).unwrap_or("a code that is not known");
                    return Err(trouble(format!("answers {name}")));
                }
            }
            let addresses = message.answers.iter().filter_map(|record| message.address(record)).collect();
            found.push((question.qtype, addresses));
        }
        // Answers come in any order; which address is taken is not to depend on it.
        found.sort_by_key(|(qtype, _)| *qtype);
        Ok(found.into_iter().flat_map(|(_, addresses)| addresses).collect())
    };
    timeout(limit, exchange)
        .await
        .unwrap_or_else(|_| Err(trouble(format!("does not answer within {limit:?}"))))
}

/// Asks over TCP, where answers have no limit but 64 KiB.
async fn ask_tcp(server: SocketAddr, id: u16, question: &Question) -> std::io::Result<Message> {
    let invalid = |e: dns::BadMessage| std::io::Error::new(std::io::ErrorKind::InvalidData, e);
    let mut stream = TcpStream::connect(server).await?;
    let query = dns::query(id, question, true).map_err(invalid)?;
    let message = exchange_framed(&mut stream, &query).await?;
    let message = Message::parse(message).map_err(invalid)?;
    if message.answers_to(id, question) {
        Ok(message)
    } else {
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "it answers another question"))
    }
}

/// One query and its answer on a stream, each with its length before it (RFC 1035, section 4.2.2).
pub async fn exchange_framed<S>(stream: &mut S, query: &[u8]) -> std::io::Result<Vec<u8>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(query);
    stream.write_all(&framed).await?;
    stream.flush().await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests;
