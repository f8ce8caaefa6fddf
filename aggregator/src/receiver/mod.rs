//! The receiver: QUIC endpoints, sessions of agents, their streams.
//!
//! ```text
//! endpoint ── admission ── session (one a connection) ─┬─ control: hello/welcome, heartbeats, go-away
//!                              │                       └─ stream (one a signal and output): decode ─▶ Output
//!                          SessionTable ◀── the page             acknowledgements ◀── Verdict ──────┘
//! ```
//!
//! The receiver keeps nothing that must survive it. A batch is acknowledged when its output settled it; what was
//! not acknowledged when a session ends, the agent sends again, marked as sent before. Nothing that an agent sends
//! is believed: tenant and node come from its certificate, lengths are checked against caps, and what it may have
//! in memory here is bounded a stream ([`Settings::max_in_flight_bytes`]) and a tenant and output
//! ([`Settings::tenant_budget_bytes`]): past either, that stream is not read on, which QUIC's flow control tells
//! the agent.

use crate::fanout::{Output, Tap};
use crate::status::RejectLog;
use crate::symbols::Symbols;
use pegel_runtime::metrics::Registry;
use pegel_runtime::tls::ReceiverTls;
use quinn::crypto::rustls::QuicServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod admission;
mod budget;
mod counters;
mod session;
mod stream;
mod table;
mod transport;

pub use table::{FleetEntry, SessionTable};

use admission::{Admission, Decision};
use budget::Budgets;
use counters::Counters;

/// How many handshakes a second are let through on average. One takes some 1.5 ms of CPU (two ECDSA signatures and
/// their checks, key agreement): 200 are a third of a core, and a fleet of 10,000 is back within a minute.
pub const DEFAULT_HANDSHAKES_PER_SECOND: u32 = 200;
/// How many handshakes may be under way at once: each holds some 20 KiB of buffers, 20 MiB in all.
pub const DEFAULT_MAX_PENDING_HANDSHAKES: usize = 1_000;
/// How many sessions are held. One takes some 60 KiB without its decoders: 20,000 are 1.2 GiB, an aggregator larger
/// than any site needs.
pub const DEFAULT_MAX_SESSIONS: usize = 20_000;
/// Streams of one session beside control: three signals, each to a handful of outputs.
pub const DEFAULT_MAX_STREAMS: u32 = 32;
/// Encoded bytes of one stream that may wait for the backend. At 0.75 bytes a sample this is 1.4 million samples: an
/// acknowledgement every 100 ms drains a day of a 600-series node in a second. Of log blocks, at some 140 KB each, it is
/// seven: enough for requests to be filled while one is on its way. What all sessions of a tenant may hold is bounded by
/// its budget.
pub const DEFAULT_MAX_IN_FLIGHT_BYTES: u64 = 1 << 20;
/// Series of one session. The decoder takes some 160 bytes for each: 32 MB at worst.
pub const DEFAULT_MAX_SERIES: usize = 200_000;
/// Decoded bytes that one tenant's batches may take on their way to one output. At 8 bytes a value these are 4 million
/// samples, some seconds of what a backend takes; a dead one holds 32 MiB a tenant and no more.
pub const DEFAULT_TENANT_BUDGET_BYTES: usize = 32 << 20;
/// How long a connection may take to say hello.
pub const DEFAULT_HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long agents have to finish what is in flight when the aggregator goes away.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(10);
/// How often sessions are looked at for certificates whose time is over.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the last packets have to leave after the sessions were closed.
const CLOSE_BOUND: Duration = Duration::from_secs(1);

/// The receiver's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen (UDP).
    pub listen: Vec<SocketAddr>,
    /// The aggregator's name, as agents show it.
    pub name: String,
    /// Handshakes a second.
    pub handshakes_per_second: u32,
    /// Handshakes under way at once.
    pub max_pending_handshakes: usize,
    /// Sessions at once.
    pub max_sessions: usize,
    /// Data streams a session.
    pub max_streams: u32,
    /// Encoded bytes in flight, a stream.
    pub max_in_flight_bytes: u64,
    /// The largest frame, in bytes; at most [`pegel_proto::caps::MAX_FRAME_BYTES`].
    pub max_frame_bytes: usize,
    /// Series of one session.
    pub max_series: usize,
    /// Decoded bytes on their way, a tenant and output.
    pub tenant_budget_bytes: usize,
    /// What each agent is asked to keep to, in encoded bytes a second; 0 is no limit. Held to by the agent; what it may
    /// have in flight bounds one that does not.
    pub session_bytes_per_second: u64,
    /// How long a connection may take to say hello.
    pub hello_timeout: Duration,
    /// How long agents have to finish when the aggregator goes away.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], 4433))],
            name: "aggregator".into(),
            handshakes_per_second: DEFAULT_HANDSHAKES_PER_SECOND,
            max_pending_handshakes: DEFAULT_MAX_PENDING_HANDSHAKES,
            max_sessions: DEFAULT_MAX_SESSIONS,
            max_streams: DEFAULT_MAX_STREAMS,
            max_in_flight_bytes: DEFAULT_MAX_IN_FLIGHT_BYTES,
            max_frame_bytes: pegel_proto::caps::MAX_FRAME_BYTES,
            max_series: DEFAULT_MAX_SERIES,
            tenant_budget_bytes: DEFAULT_TENANT_BUDGET_BYTES,
            session_bytes_per_second: 0,
            hello_timeout: DEFAULT_HELLO_TIMEOUT,
            drain: DEFAULT_DRAIN,
        }
    }
}

/// The outputs in force. Sending new ones announces them to every session.
pub type Outputs = Arc<Vec<Arc<dyn Output>>>;

/// What the receiver works with.
#[derive(Clone)]
pub struct Context {
    /// Its settings.
    pub settings: Settings,
    /// Certificates.
    pub tls: Arc<ReceiverTls>,
    /// Where batches go.
    pub outputs: watch::Receiver<Outputs>,
    /// Who is shown what streams past.
    pub tap: Option<Arc<dyn Tap>>,
    /// The labels of all agents' series.
    pub symbols: Arc<Symbols>,
    /// The agents that this aggregator knows.
    pub sessions: Arc<SessionTable>,
    /// Where refusals are listed for the page.
    pub rejects: Arc<RejectLog>,
    /// pegel's own metrics.
    pub registry: Registry,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub wall_clock_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
}

/// Why the receiver can't start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address can't be listened on.
    #[error("cannot listen for agents on UDP {address}: {reason}")]
    Socket {
        /// The address.
        address: SocketAddr,
        /// Why not.
        reason: std::io::Error,
    },
    /// The certificate can't be used for QUIC.
    #[error("cannot use the TLS settings for QUIC: {0}")]
    Tls(String),
}

/// The receiver, bound and not running yet.
pub struct Receiver {
    shared: Arc<Shared>,
    endpoints: Vec<quinn::Endpoint>,
}

/// What all sessions share.
struct Shared {
    context: Context,
    counters: Counters,
    budgets: Budgets,
    drain: CancellationToken,
}

impl Receiver {
    /// Binds the sockets.
    pub fn bind(context: Context) -> Result<Self, BindError> {
        let config = server_config(&context)?;
        // Two aggregators that share a certificate must not be able to reset each other's sessions: the host's name
        // keeps their keys apart.
        let host = rustix::system::uname();
        let purpose = format!("pegel stateless reset {}", host.nodename().to_string_lossy());
        let reset_key = context.tls.derived_key(&purpose);
        let mut endpoints = Vec::with_capacity(context.settings.listen.len());
        for &address in &context.settings.listen {
            let endpoint = transport::endpoint(address, config.clone(), &reset_key)
                .map_err(|reason| BindError::Socket { address, reason })?;
            endpoints.push(endpoint);
        }
        let shared = Arc::new(Shared {
            counters: Counters::new(&context.registry, &context.sessions),
            budgets: Budgets::new(context.settings.tenant_budget_bytes),
            drain: CancellationToken::new(),
            context,
        });
        Ok(Self { shared, endpoints })
    }

    /// Where it listens, ports filled in.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.endpoints.iter().filter_map(|e| e.local_addr().ok()).collect()
    }

    /// Serves until `shutdown`, then sends agents away, waits for what is in flight within
    /// [`Settings::drain`], and closes.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut loops = tokio::task::JoinSet::new();
        for endpoint in &self.endpoints {
            loops.spawn(accept(self.shared.clone(), endpoint.clone()));
        }
        let mut changes = self.shared.context.tls.changes();
        let mut ticks = tokio::time::interval(EXPIRY_CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => self.close_expired(),
                Ok(()) = changes.changed() => self.certificates_changed(),
            }
        }
        loops.shutdown().await;
        self.drain().await;
    }

    async fn drain(&self) {
        for endpoint in &self.endpoints {
            endpoint.set_server_config(None);
        }
        let sessions = &self.shared.context.sessions;
        tracing::info!(
            sessions = sessions.live_count(),
            "going away: agents are told to use another aggregator"
        );
        self.shared.drain.cancel();
        let _ = tokio::time::timeout(self.shared.context.settings.drain, sessions.all_ended()).await;
        for endpoint in &self.endpoints {
            endpoint.close(pegel_proto::wire::close::GOING_AWAY.into(), b"the aggregator goes away");
            let _ = tokio::time::timeout(CLOSE_BOUND, endpoint.wait_idle()).await;
        }
    }

    fn close_expired(&self) {
        let now_seconds = (self.shared.context.wall_clock_ms)() / 1_000;
        for live in self.shared.context.sessions.expired(now_seconds) {
            self.shared.counters.closed_certificate("expired");
            live.close_for_certificate("the certificate has expired");
        }
    }

    /// New certificates, CAs or revocation lists: new connections use them, live ones are checked again.
    fn certificates_changed(&self) {
        match server_config(&self.shared.context) {
            Ok(config) => {
                for endpoint in &self.endpoints {
                    endpoint.set_server_config(Some(config.clone()));
                }
            }
            Err(error) => tracing::error!(%error, "new certificates are not used"),
        }
        let now_seconds = (self.shared.context.wall_clock_ms)() / 1_000;
        let now = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(
            u64::try_from(now_seconds).unwrap_or(0),
        ));
        for live in self.shared.context.sessions.live() {
            if let Err(error) = self.shared.context.tls.verify_peer(live.chain(), now) {
                self.shared.counters.closed_certificate("rejected");
                live.close_for_certificate(&error.to_string());
            }
        }
    }
}

fn server_config(context: &Context) -> Result<quinn::ServerConfig, BindError> {
    let crypto =
        QuicServerConfig::try_from(context.tls.config()).map_err(|e| BindError::Tls(e.to_string()))?;
    Ok(transport::server_config(Arc::new(crypto), &context.settings))
}

async fn accept(shared: Arc<Shared>, endpoint: quinn::Endpoint) {
    let settings = &shared.context.settings;
    let mut admission = Admission::new(
        settings.handshakes_per_second,
        settings.max_pending_handshakes,
        settings.max_sessions,
        Instant::now(),
    );
    while let Some(incoming) = endpoint.accept().await {
        let pending = shared.counters.pending();
        let sessions = shared.context.sessions.live_count();
        let validated = incoming.remote_address_validated() || !incoming.may_retry();
        let decision = admission.decide(Instant::now(), pending, sessions, validated);
        shared.counters.handshake(decision.name());
        match decision {
            Decision::Accept => {
                let pending = shared.counters.begin_handshake();
                tokio::spawn(session::run(shared.clone(), incoming, pending));
            }
            Decision::Retry => drop(incoming.retry()),
            // No answer: the agent's next try, a second later, comes in order. Saying "refused" would send
            // thousands of agents round in a circle.
            Decision::Ignore => incoming.ignore(),
            Decision::Refuse => incoming.refuse(),
        }
    }
}
