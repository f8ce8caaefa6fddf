//! From a list of aggregators to one connection: all addresses are tried, each a moment after the one before, and the
//! first handshake that succeeds wins (RFC 8305, "happy eyeballs").

use super::address::{Aggregator, Candidate, prefer};
use super::transport::{Endpoints, client_config};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use pegel_proto::wire::close;
use pegel_runtime::tls::UplinkTls;
use quinn::crypto::rustls::QuicClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The head start of each address (RFC 8305 section 5 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);
/// How long a handshake may take: QUIC repeats its first packet after 1 s and 2 s more; over a path of a second two of
/// three may be lost.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// A connection whose handshake is done.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) connection: quinn::Connection,
    pub(super) candidate: Candidate,
}

/// Why no aggregator could be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConnectError {
    /// No name has an address.
    #[error("no aggregator's name can be resolved: {0}")]
    Unresolved(String),
    /// Nobody answered at all.
    #[error(
        "UDP seems blocked, or no aggregator runs there: none of {0} answered. Check that UDP to that port is let through"
    )]
    Silent(String),
    /// At least one answered; the handshakes failed.
    #[error("{0}")]
    Failed(String),
    /// The certificates can't be used.
    #[error("cannot use the TLS settings for QUIC: {0}")]
    Tls(String),
}

/// Whom to try: names resolved, in the order of preference, those of `last` at the end.
pub(super) async fn candidates(
    aggregators: &[Aggregator],
    node: &str,
    last: &[SocketAddr],
) -> Result<Vec<Candidate>, ConnectError> {
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for aggregator in aggregators {
        match aggregator.resolve(node).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => errors.push(format!("`{}`: {error}", aggregator.host)),
        }
    }
    if found.is_empty() {
        return Err(ConnectError::Unresolved(errors.join("; ")));
    }
    // Stable: the addresses of one name stay together, in their own order.
    prefer(&mut found, node, |c| format!("{}:{}", c.host, c.address.port()));
    found.sort_by_key(|c| last.iter().position(|l| *l == c.address).map_or(0, |i| i + 1));
    Ok(found)
}

/// Connects to the first of `candidates` that answers.
pub(super) async fn race(
    endpoints: &mut Endpoints,
    tls: &UplinkTls,
    candidates: Vec<Candidate>,
) -> Result<Connected, ConnectError> {
    let crypto = QuicClientConfig::try_from(tls.config()).map_err(|e| ConnectError::Tls(e.to_string()))?;
    let config = client_config(Arc::new(crypto));
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    let mut silent = Vec::new();
    let mut next = candidates.into_iter();
    loop {
        if let Some(candidate) = next.next() {
            match endpoints.for_address(candidate.address) {
                Ok(endpoint) => attempts.push(attempt(endpoint, config.clone(), candidate)),
                Err(error) => failures.push(format!("{}: {error}", candidate.address)),
            }
        } else if attempts.is_empty() {
            break;
        }
        let more = next.len() > 0;
        let failed = tokio::select! {
            Some((candidate, result)) = attempts.next() => match result {
                Ok(connection) => return Ok(Connected { connection, candidate }),
                Err(error) => Some((candidate, error)),
            },
            () = tokio::time::sleep(STAGGER), if more => None,
            else => None,
        };
        match failed {
            Some((candidate, None)) => silent.push(candidate.address.to_string()),
            Some((candidate, Some(reason))) => failures.push(format!("{}: {reason}", candidate.address)),
            None => {}
        }
    }
    if failures.is_empty() {
        return Err(ConnectError::Silent(silent.join(", ")));
    }
    Err(ConnectError::Failed(failures.join("; ")))
}

/// One handshake. The error is none when nobody answered.
async fn attempt(
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
    candidate: Candidate,
) -> (Candidate, Result<quinn::Connection, Option<String>>) {
    let result = match endpoint.connect_with(config, candidate.address, &candidate.host) {
        Err(error) => Err(Some(error.to_string())),
        Ok(connecting) => match tokio::time::timeout(HANDSHAKE_LIMIT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => Err(None),
            Ok(Err(error)) => Err(Some(describe(&error))),
        },
    };
    (candidate, result)
}

/// What a connection's end means, for people.
pub(super) fn describe(error: &quinn::ConnectionError) -> String {
    use quinn::ConnectionError as E;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(300).collect::<String>();
    match error {
        E::TimedOut => "the aggregator fell silent".into(),
        E::Reset => "the aggregator was restarted".into(),
        E::LocallyClosed => "closed by this agent".into(),
        E::ApplicationClosed(closed) => {
            let reason = text(&closed.reason);
            match u32::try_from(closed.error_code.into_inner()) {
                Ok(close::CERTIFICATE) => format!("the aggregator does not accept this agent: {reason}"),
                Ok(close::SUPERSEDED) => {
                    format!("{reason} (if this goes on, two machines use one certificate)")
                }
                _ => reason,
            }
        }
        // RFC 9001 section 4.8: TLS alerts are 0x100 and the alert's number (RFC 8446 section 6).
        E::ConnectionClosed(closed) => match u64::from(closed.error_code).checked_sub(0x100) {
            Some(42 | 46) => "the aggregator does not accept this agent's certificate".into(),
            Some(44) => "this agent's certificate was revoked".into(),
            Some(45) => "this agent's certificate has expired: issue a new one".into(),
            Some(48) => "this agent's certificate comes from a CA that the aggregator does not trust".into(),
            Some(116) => "the aggregator asks for a certificate and got none".into(),
            Some(120) => "this is no pegel aggregator, or one of another protocol version (ALPN)".into(),
            _ if closed.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED => {
                "the aggregator takes no more sessions".into()
            }
            _ => closed.to_string(),
        },
        E::TransportError(error) => match u64::from(error.code).checked_sub(0x100) {
            Some(_) => format!("the aggregator's certificate is not accepted: {}", error.reason),
            None => error.to_string(),
        },
        other => other.to_string(),
    }
}
