//! The ways to other machines: names, connections, TLS. Everything here is asynchronous and ends when it is dropped.

pub mod certificate;
pub mod dns;
pub mod host;
mod ocsp;
pub mod quic;
pub mod resolve;
pub mod roots;
pub mod tls;
mod verifier;

use super::outcome::{Failure, Phase};
use super::record::Gauge;
use super::run::Run;
use resolve::{Families, Resolver};
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpSocket, TcpStream};

static IP_PROTOCOL: Gauge =
    Gauge::new("probe_ip_protocol", "Whether the check used IPv4 (4) or IPv6 (6).", &[]);
/// See [`resolve`].
pub static LOOKUP_TIME: Gauge =
    Gauge::new("probe_dns_lookup_time_seconds", "How long looking the target's name up took.", &[]);
static ADDRESS_HASH: Gauge = Gauge::new(
    "probe_ip_addr_hash",
    "FNV-1a hash of the target's address: it changes when the address does.",
    &[],
);

/// What runs share to reach other machines.
#[derive(Debug)]
pub struct Network {
    /// Names.
    pub resolver: Resolver,
    /// Trusted certificate authorities of the machine.
    pub roots: roots::SystemRoots,
}

impl Network {
    /// With the machine's `/etc/resolv.conf`, `/etc/hosts` and certificate authorities, each read when it is needed.
    pub fn of_this_machine() -> Self {
        Self { resolver: Resolver::of_this_machine(), roots: roots::SystemRoots::default() }
    }

    /// With a resolver of a test's.
    #[cfg(test)]
    pub fn with_resolver(resolver: Resolver) -> Self {
        Self { resolver, roots: roots::SystemRoots::default() }
    }
}

/// Puts the address gauges down as unknown, before anything was looked up.
pub fn declare_address(run: &mut Run) {
    for gauge in [&IP_PROTOCOL, &LOOKUP_TIME, &ADDRESS_HASH] {
        run.record.set(gauge, 0.0);
    }
}

/// Looks a target's host up and reports what was found.
pub async fn resolve(run: &mut Run, host: &str, families: Families) -> Result<IpAddr, Failure> {
    run.enter(Phase::Resolve);
    let began = tokio::time::Instant::now();
    let network = run.network.clone();
    let found = network.resolver.address(host, families).await;
    run.record.set(&LOOKUP_TIME, began.elapsed().as_secs_f64());
    let address = found.map_err(|error| error.failure(host))?;
    run.record.set(&IP_PROTOCOL, if address.is_ipv4() { 4.0 } else { 6.0 });
    run.record.set(&ADDRESS_HASH, f64::from(address_hash(address)));
    Ok(address)
}

/// A TCP connection from an address of this machine, or any.
pub async fn connect(run: &mut Run, to: SocketAddr, from: Option<IpAddr>) -> Result<TcpStream, Failure> {
    run.enter(Phase::Connect);
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|e| run.io_failure("cannot make a socket", &e))?;
    if let Some(from) = from {
        socket
            .bind(SocketAddr::new(from, 0))
            .map_err(|e| run.io_failure(format_args!("cannot send from {from}"), &e))?;
    }
    let stream =
        socket.connect(to).await.map_err(|e| run.io_failure(format_args!("cannot connect to {to}"), &e))?;
    // Small requests are not to wait for each other; that it could not be set changes nothing else.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// FNV-1a with 32 bits, of an address' 4 or 16 bytes.
fn address_hash(address: IpAddr) -> u32 {
    let hash = |bytes: &[u8]| {
        bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    };
    match address {
        IpAddr::V4(v4) => hash(&v4.octets()),
        IpAddr::V6(v6) => hash(&v6.octets()),
    }
}
