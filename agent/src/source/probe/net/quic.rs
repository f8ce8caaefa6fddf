//! QUIC connections of checks, each from a socket of its own: nothing of one run is left for the next.
//!
//! A machine that refuses a port says so by ICMP, which QUIC does not look at: it looks like one that does not answer.

use super::tls;
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::run::Run;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint, VarInt};
use rustls::ProtocolVersion;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// RFC 9114, section 8.1: the connection ends without an error.
const H3_NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// Transport errors from here are alerts of TLS (RFC 9000, section 20.1).
const CRYPTO_ERRORS: u64 = 0x100;

/// A connection. The other side is told when it is dropped.
pub struct Connection(quinn::Connection);

impl Connection {
    /// A handle on it.
    pub fn handle(&self) -> quinn::Connection {
        self.0.clone()
    }

    /// Why it ended, if it did and was not ended here.
    pub fn end(&self) -> Option<Reason> {
        match self.0.close_reason()? {
            ConnectionError::TimedOut => Some(Reason::Timeout),
            ConnectionError::Reset => Some(Reason::Reset),
            ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_) => {
                Some(Reason::Closed)
            }
            _ => None,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.close(H3_NO_ERROR, b"");
    }
}

/// A QUIC connection with what a check's TLS settings say. The certificate is reported also where it is refused.
pub async fn connect(
    run: &mut Run,
    tls: &tls::Client,
    to: SocketAddr,
    host: &str,
) -> Result<Connection, Failure> {
    run.enter(Phase::Connect);
    let handshake = tls.handshake(run, host)?;
    let any =
        if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let endpoint = Endpoint::client(SocketAddr::new(any, 0));
    let endpoint = endpoint.map_err(|e| run.io_failure("cannot make a socket", &e))?;
    let crypto = QuicClientConfig::try_from(handshake.config.clone())
        .map_err(|e| Failure::new(Phase::Setup, Reason::Other, format!("cannot use TLS for QUIC: {e}")))?;
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connecting = endpoint
        .connect_with(config, to, &handshake.host)
        .map_err(|e| Failure::new(Phase::Connect, Reason::Other, format!("cannot connect to {to}: {e}")))?;
    let connected = connecting.await;
    handshake.report(&mut run.record, connected.is_ok().then_some((ProtocolVersion::TLSv1_3, None)));
    let connection = connected.map_err(|error| match handshake.refusal() {
        Some(failure) => failure,
        None => failure_of(&error, to),
    })?;
    run.enter(Phase::Tls);
    Ok(Connection(connection))
}

fn failure_of(error: &ConnectionError, to: SocketAddr) -> Failure {
    let (phase, reason) = match error {
        ConnectionError::TimedOut => (Phase::Connect, Reason::Timeout),
        ConnectionError::Reset => (Phase::Connect, Reason::Reset),
        ConnectionError::VersionMismatch => (Phase::Connect, Reason::Version),
        ConnectionError::TransportError(e) if u64::from(e.code) >= CRYPTO_ERRORS => {
            (Phase::Tls, Reason::Handshake)
        }
        ConnectionError::ConnectionClosed(e) if u64::from(e.error_code) >= CRYPTO_ERRORS => {
            (Phase::Tls, Reason::Handshake)
        }
        ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_) => {
            (Phase::Connect, Reason::Closed)
        }
        _ => (Phase::Connect, Reason::Protocol),
    };
    Failure::new(phase, reason, format!("no QUIC connection to {to}: {error}"))
}
