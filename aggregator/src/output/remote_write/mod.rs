//! Prometheus remote write, protocol 1.0 and 2.0.
//!
//! An output has shards for each tenant, since a header admits one tenant a request and one tenant's trouble is to
//! delay no other. An agent's batches all go to the shard that its identity hashes to, so that each series has one
//! writer; a shard has one request in flight and fills it with what waits, of many agents (`shard`, a state machine
//! without sockets and clocks). `encode` writes requests straight from symbols, `client` sends them, and `answer`
//! alone decides what an answer means.

mod answer;
mod batch;
mod blame;
mod client;
mod encode;
mod piece;
mod shard;
mod tally;
#[cfg(test)]
mod tests;

pub use super::backend::{Authorization, SetupError};
pub use batch::NameRule;

use crate::fanout::{Announcement, Delivery, Output, OutputHealth};
use crate::symbols::Symbols;
use answer::{Meaning, Sent};
use client::Endpoint;
use encode::RequestEncoder;
use http::{HeaderName, HeaderValue, Uri};
use parking_lot::{Mutex, RwLock};
use pegel_proto::batch::Signal;
use pegel_proto::identity::{AgentIdentity, OutputName, TenantId};
use pegel_runtime::http_client::ClientTls;
use pegel_runtime::metrics::Registry;
use shard::{Shard, ShardSettings, Step};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tally::Tally;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use xxhash_rust::xxh3::xxh3_64;

/// The most samples in a request. At 18 (2.0) to 250 (1.0) bytes a sample before compression it stays below 3 MB,
/// and a request's fixed cost, some 100 µs, below 10 ns a sample.
pub const DEFAULT_MAX_REQUEST_SAMPLES: usize = 10_000;
/// The largest request before compression, in bytes. VictoriaMetrics takes 32 MiB, Mimir 100 MB.
pub const DEFAULT_MAX_REQUEST_BYTES: usize = 8 << 20;
/// How long the first batch waits for company: a tenth of the 50 ms from collection to queryable.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(5);
/// Writers for each tenant. One writes 10,000 samples a round trip: at 50 ms, 200,000 samples a second.
pub const DEFAULT_SHARDS: usize = 2;
/// Tenants with metrics of their own; further ones share the tenant label `other tenants`.
const MAX_TENANT_METRICS: usize = 100;

/// Which protocol to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// 2.0, and 1.0 if the backend does not know it.
    #[default]
    Auto,
    /// 1.0 only.
    V1,
    /// 2.0 only.
    V2,
}

/// The protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// One output.
#[derive(Clone)]
pub struct Settings {
    /// Its name.
    pub name: OutputName,
    /// Where requests go, such as `http://prometheus:9090/api/v1/write`.
    pub url: Uri,
    /// Which protocol to speak.
    pub protocol: Protocol,
    /// Headers of every request. They may hold secrets and are never shown.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The header that carries the tenant: `X-Scope-OrgID` (Mimir, Cortex), `THANOS-TENANT`.
    pub tenant_header: Option<HeaderName>,
    /// How requests are signed.
    pub authorization: Authorization,
    /// How the server and this client prove themselves.
    pub tls: ClientTls,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long an answer may take. After it the request may have been stored all the same.
    pub request_timeout: Duration,
    /// Writers for each tenant.
    pub shards: usize,
    /// The most samples in a request.
    pub max_request_samples: usize,
    /// The largest request before compression, in bytes.
    pub max_request_bytes: usize,
    /// How long the first batch of a request waits for others.
    pub linger: Duration,
    /// The wait after a first failure; it doubles with each.
    pub min_backoff: Duration,
    /// The longest wait after failures.
    pub max_backoff: Duration,
    /// The longest wait that a backend may ask for.
    pub max_retry_after: Duration,
    /// How often an output that takes nothing is tried.
    pub park_probe: Duration,
    /// The rule for names.
    pub names: NameRule,
    /// How far behind a series' newest sample the backend takes one
    /// (Prometheus: `out_of_order_time_window`); zero is none.
    pub out_of_order_window: Duration,
}

impl Settings {
    /// The defaults for a backend.
    pub fn new(name: OutputName, url: Uri) -> Self {
        Self {
            name,
            url,
            protocol: Protocol::Auto,
            headers: Vec::new(),
            tenant_header: None,
            authorization: Authorization::None,
            tls: ClientTls::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            shards: DEFAULT_SHARDS,
            max_request_samples: DEFAULT_MAX_REQUEST_SAMPLES,
            max_request_bytes: DEFAULT_MAX_REQUEST_BYTES,
            linger: DEFAULT_LINGER,
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(15),
            max_retry_after: Duration::from_mins(5),
            park_probe: Duration::from_secs(15),
            names: NameRule::Utf8,
            out_of_order_window: Duration::ZERO,
        }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("name", &self.name)
            .field("protocol", &self.protocol)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

/// A remote-write output.
pub struct RemoteWrite {
    shared: Arc<Shared>,
    tenants: RwLock<HashMap<TenantId, Arc<[Arc<Cell>]>>>,
    tasks: Mutex<Vec<AbortHandle>>,
    runtime: tokio::runtime::Handle,
    registry: Registry,
}

struct Shared {
    settings: Settings,
    endpoint: Endpoint,
    symbols: Arc<Symbols>,
    negotiation: Negotiation,
    encoders: Mutex<Vec<RequestEncoder>>,
}

/// One shard and what wakes its driver.
struct Cell {
    tenant: TenantId,
    shard: Mutex<Shard>,
    wake: Notify,
    tally: Tally,
}

/// Which protocol the backend was found to speak. Remembered until the process ends.
struct Negotiation {
    protocol: Protocol,
    found: AtomicU8,
}

const FOUND_NOTHING: u8 = 0;
const FOUND_V2: u8 = 1;
const FOUND_V1: u8 = 2;

impl Negotiation {
    fn new(protocol: Protocol) -> Self {
        Self { protocol, found: AtomicU8::new(FOUND_NOTHING) }
    }

    fn sending(&self, samples: u64) -> Sent {
        let found = self.found.load(Ordering::Relaxed);
        let version = match self.protocol {
            Protocol::V1 => Version::V1,
            Protocol::Auto if found == FOUND_V1 => Version::V1,
            Protocol::Auto | Protocol::V2 => Version::V2,
        };
        let may_downgrade = self.protocol == Protocol::Auto && version == Version::V2;
        Sent { version, may_downgrade, confirmed_v2: found == FOUND_V2, samples }
    }

    fn learn(&self, output: &OutputName, sent: Sent, counted: bool, meaning: &Meaning) {
        if let Meaning::Downgrade { .. } = meaning {
            if self.found.swap(FOUND_V1, Ordering::Relaxed) != FOUND_V1 {
                tracing::info!(%output, "the backend does not take remote write 2.0, going on with 1.0");
            }
        } else if sent.version == Version::V2 && counted {
            // Not over a 1.0 that another shard found in the meantime.
            let _ =
                self.found.compare_exchange(FOUND_NOTHING, FOUND_V2, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl RemoteWrite {
    /// Sets an output up. Nothing is sent, and a backend that is away is no error. Its tasks run on the runtime that
    /// this is called on, until it is dropped.
    pub fn new(settings: Settings, symbols: Arc<Symbols>, registry: &Registry) -> Result<Self, SetupError> {
        let endpoint = Endpoint::new(&settings)?;
        let negotiation = Negotiation::new(settings.protocol);
        let shared = Shared { settings, endpoint, symbols, negotiation, encoders: Mutex::default() };
        Ok(Self {
            shared: Arc::new(shared),
            tenants: RwLock::default(),
            tasks: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
            registry: registry.clone(),
        })
    }

    fn cell(&self, identity: &AgentIdentity) -> Arc<Cell> {
        let hash = xxh3_64(identity.node.as_str().as_bytes());
        let pick = |cells: &[Arc<Cell>]| cells[(hash % cells.len() as u64) as usize].clone();
        if let Some(cells) = self.tenants.read().get(&identity.tenant) {
            return pick(cells);
        }
        let mut tenants = self.tenants.write();
        let crowded = tenants.len() >= MAX_TENANT_METRICS;
        let cells = tenants.entry(identity.tenant.clone()).or_insert_with(|| {
            let tenant = if crowded { "other tenants" } else { identity.tenant.as_str() };
            let tally = Tally::new(&self.registry, self.shared.settings.name.as_str(), tenant);
            (0..self.shared.settings.shards.max(1))
                .map(|_| self.start_shard(&identity.tenant, tally.clone()))
                .collect()
        });
        pick(cells)
    }

    fn start_shard(&self, tenant: &TenantId, tally: Tally) -> Arc<Cell> {
        let settings = &self.shared.settings;
        let shard_settings = ShardSettings {
            max_request_samples: settings.max_request_samples.max(1),
            linger: settings.linger,
            min_backoff: settings.min_backoff,
            max_backoff: settings.max_backoff,
            max_retry_after: settings.max_retry_after,
            park_probe: settings.park_probe,
            names: settings.names,
            out_of_order_window: settings.out_of_order_window,
        };
        let shard = Shard::new(shard_settings, self.shared.symbols.clone(), tally.clone(), rand::random());
        let cell =
            Arc::new(Cell { tenant: tenant.clone(), shard: Mutex::new(shard), wake: Notify::new(), tally });
        let task = self.runtime.spawn(drive(self.shared.clone(), cell.clone()));
        self.tasks.lock().push(task.abort_handle());
        cell
    }
}

impl Drop for RemoteWrite {
    fn drop(&mut self) {
        self.tasks.get_mut().iter().for_each(AbortHandle::abort);
    }
}

impl Output for RemoteWrite {
    fn announcement(&self) -> Announcement {
        let settings = &self.shared.settings;
        Announcement {
            name: settings.name.clone(),
            signal: Signal::Metrics,
            accepts_out_of_order: !settings.out_of_order_window.is_zero(),
            out_of_order_window_seconds: settings.out_of_order_window.as_secs(),
        }
    }

    fn submit(&self, delivery: Delivery) {
        let cell = self.cell(&delivery.agent.identity);
        cell.shard.lock().submit(delivery, Instant::now());
        cell.wake.notify_one();
    }

    fn forget_session(&self, session: u64) {
        for cell in self.tenants.read().values().flat_map(|cells| cells.iter()) {
            cell.shard.lock().forget_session(session);
        }
    }

    fn health(&self) -> OutputHealth {
        for cell in self.tenants.read().values().flat_map(|cells| cells.iter()) {
            if let Some(trouble) = cell.shard.lock().trouble() {
                return OutputHealth { ok: false, detail: format!("tenant {}: {trouble}", cell.tenant) };
            }
        }
        OutputHealth { ok: true, detail: "the last requests succeeded".into() }
    }
}

/// Drives one shard for good.
async fn drive(shared: Arc<Shared>, cell: Arc<Cell>) {
    loop {
        let step = cell.shard.lock().poll(Instant::now());
        match step {
            Step::Wait(None) => cell.wake.notified().await,
            Step::Wait(Some(instant)) => {
                // Only an instant or a submission changes what there is to do; the latter may fill a request.
                tokio::select! {
                    () = tokio::time::sleep_until(instant.into()) => {}
                    () = cell.wake.notified() => {}
                }
            }
            Step::Send(piece) => {
                let sent = shared.negotiation.sending(piece.samples() as u64);
                let mut encoder = shared.encoders.lock().pop().unwrap_or_default();
                let encoded = encoder.encode(sent.version, &piece, &shared.symbols);
                shared.encoders.lock().push(encoder);
                drop(piece);
                if encoded.message_bytes > shared.settings.max_request_bytes {
                    cell.shard.lock().too_large_to_send(encoded.message_bytes);
                    continue;
                }
                let failures = cell.shard.lock().failures();
                let exchange = shared.endpoint.send(&cell.tenant, sent.version, failures, encoded.body).await;
                let counted = count(&cell.tally, &exchange);
                let meaning = Meaning::of(exchange, sent);
                shared.negotiation.learn(&shared.settings.name, sent, counted, &meaning);
                cell.shard.lock().answered(meaning, Instant::now());
            }
        }
    }
}

/// Counts an exchange, and says whether the backend said what it wrote.
fn count(tally: &Tally, exchange: &answer::Exchange) -> bool {
    match exchange {
        answer::Exchange::Answered(response) => {
            tally.request(&response.status.to_string());
            response.written.is_some()
        }
        answer::Exchange::Failed { .. } => {
            tally.request("failed");
            false
        }
    }
}
