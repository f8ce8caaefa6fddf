//! Loki's push API: protobuf and snappy, with structured metadata.
//!
//! An output has shards for each tenant, since a header admits one tenant a request and one tenant's trouble is to
//! delay no other. An agent's batches all go to the shard that its identity hashes to, so that each stream has one
//! writer; a shard has one request in flight and fills it with what waits, of many agents (`shard`, a state machine
//! without sockets and clocks). `encode` writes requests straight from decoded blocks, `client` sends them, `answer`
//! alone decides what an answer means, `complaint` and `blame` find the entries that it names.
//!
//! Constraints that shape it, all of Loki 3.7 (`docs/loki.md`):
//! - A refusal of an ingester shows only if it is about the last stream of a request; `streams` says which streams
//!   travel alone for that.
//! - A repeated entry is dropped only while its copy is in the open head block, so an entry that may be stored is asked
//!   about where there is a query address, and only the rest is sent again.
//! - Above 4 MiB the distributor can't hand a request on.

mod answer;
mod batch;
mod blame;
mod client;
mod complaint;
mod crowd;
mod encode;
mod labels;
mod limits;
mod piece;
mod shard;
mod streams;
pub(super) mod tally;
#[cfg(test)]
mod tests;

pub use super::backend::{Authorization, SetupError};
pub use limits::Limits;

use crate::fanout::{Announcement, Delivery, Output, OutputHealth};
use answer::{Exchange, Meaning};
use client::Endpoint;
use encode::RequestEncoder;
use http::{HeaderName, HeaderValue, Uri};
use parking_lot::{Mutex, RwLock};
use pegel_proto::batch::Signal;
use pegel_proto::identity::{AgentIdentity, OutputName, TenantId};
use pegel_runtime::http_client::ClientTls;
use pegel_runtime::metrics::Registry;
use shard::{Shard, ShardSettings, Step};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use streams::StreamLimits;
use tally::Tally;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use xxhash_rust::xxh3::xxh3_64;

/// Where the push API is, below Loki's address.
pub const PUSH_PATH: &str = "/loki/api/v1/push";
/// What a request is filled to before compression, in bytes. Half of the 4 MiB that a distributor hands on, and well
/// below a tenant's burst of 6 MB.
pub const DEFAULT_MAX_REQUEST_BYTES: usize = 2 << 20;
/// How long the first batch waits for company.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(5);
/// Writers for each tenant. One writes 2 MiB a round trip: at 20 ms, 100 MB/s.
pub const DEFAULT_SHARDS: usize = 2;
/// Loki's `per_stream_rate_limit`, in bytes a second.
pub const DEFAULT_STREAM_RATE: u64 = 3 << 20;
/// Loki's `per_stream_rate_limit_burst`, in bytes.
pub const DEFAULT_STREAM_BURST: u64 = 15 << 20;
/// What the batches of agents that wait for a stream too many may take of a shard, in decoded bytes, before their patience
/// ends. Two shards' are half of a tenant's budget of 32 MiB, where a batch counts twice; the rest is for the others.
const MAX_WAITING_BYTES: u64 = 4 << 20;
/// Tenants with metrics of their own; further ones share the tenant label `other tenants`.
const MAX_TENANT_METRICS: usize = 100;

/// One output.
#[derive(Clone)]
pub struct Settings {
    /// Its name.
    pub name: OutputName,
    /// Where requests go, such as `http://loki:3100/loki/api/v1/push`.
    pub url: Uri,
    /// Where Loki can be asked what it holds, such as `http://loki:3100`.
    pub query_url: Option<Uri>,
    /// How long ago entries may be for a query to find those that are not flushed: Loki's `query_ingesters_within`, or
    /// `query_store_max_look_back_period` where it is one process. Zero is any time.
    pub query_ingesters_within: Duration,
    /// Headers of every request. They may hold secrets and are never shown.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The header that carries the tenant.
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
    /// What a request is filled to before compression, in bytes.
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
    /// Loki's `per_stream_rate_limit`, in bytes a second.
    pub stream_rate: u64,
    /// Loki's `per_stream_rate_limit_burst`, in bytes.
    pub stream_burst: u64,
    /// Loki's limits, by which entries are refused before they are sent.
    pub limits: Limits,
    /// How long a stream beyond the tenant's most is tried before its entries are refused.
    pub stream_patience: Duration,
}

impl Settings {
    /// The defaults for a backend.
    pub fn new(name: OutputName, url: Uri) -> Self {
        Self {
            name,
            url,
            query_url: None,
            // Loki's defaults are 3 h, and 2 h 41 min where it is one process.
            query_ingesters_within: Duration::from_mins(150),
            headers: Vec::new(),
            tenant_header: Some(HeaderName::from_static("x-scope-orgid")),
            authorization: Authorization::None,
            tls: ClientTls::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            shards: DEFAULT_SHARDS,
            max_request_bytes: DEFAULT_MAX_REQUEST_BYTES,
            linger: DEFAULT_LINGER,
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(15),
            max_retry_after: Duration::from_mins(5),
            park_probe: Duration::from_secs(15),
            stream_rate: DEFAULT_STREAM_RATE,
            stream_burst: DEFAULT_STREAM_BURST,
            limits: Limits::default(),
            stream_patience: Duration::from_mins(5),
        }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("name", &self.name)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

/// A Loki output.
pub struct Loki {
    shared: Arc<Shared>,
    tenants: RwLock<HashMap<TenantId, Arc<[Arc<Cell>]>>>,
    tasks: Mutex<Vec<AbortHandle>>,
    runtime: tokio::runtime::Handle,
    registry: Registry,
}

struct Shared {
    settings: Settings,
    endpoint: Endpoint,
    encoders: Mutex<Vec<RequestEncoder>>,
}

/// One shard and what wakes its driver.
struct Cell {
    tenant: TenantId,
    shard: Mutex<Shard>,
    wake: Notify,
    tally: Tally,
}

impl Loki {
    /// Sets an output up. Nothing is sent, and a backend that is away is no error. Its tasks run on the runtime that
    /// this is called on, until it is dropped.
    pub fn new(settings: Settings, registry: &Registry) -> Result<Self, SetupError> {
        let endpoint = Endpoint::new(&settings)?;
        Ok(Self {
            shared: Arc::new(Shared { settings, endpoint, encoders: Mutex::default() }),
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
            max_request_bytes: settings.max_request_bytes.max(1),
            linger: settings.linger,
            min_backoff: settings.min_backoff,
            max_backoff: settings.max_backoff,
            max_retry_after: settings.max_retry_after,
            park_probe: settings.park_probe,
            stream_limits: StreamLimits { rate: settings.stream_rate, burst: settings.stream_burst },
            limits: settings.limits,
            stream_patience: settings.stream_patience,
            max_waiting_bytes: MAX_WAITING_BYTES,
            can_ask: settings.query_url.is_some(),
        };
        let shard = Shard::new(shard_settings, tally.clone(), rand::random());
        let cell =
            Arc::new(Cell { tenant: tenant.clone(), shard: Mutex::new(shard), wake: Notify::new(), tally });
        let task = self.runtime.spawn(drive(self.shared.clone(), cell.clone()));
        self.tasks.lock().push(task.abort_handle());
        cell
    }
}

impl Drop for Loki {
    fn drop(&mut self) {
        self.tasks.get_mut().iter().for_each(AbortHandle::abort);
    }
}

impl Output for Loki {
    fn announcement(&self) -> Announcement {
        Announcement {
            name: self.shared.settings.name.clone(),
            signal: Signal::Logs,
            accepts_out_of_order: false,
            out_of_order_window_seconds: 0,
        }
    }

    fn submit(&self, delivery: Delivery) {
        let cell = self.cell(&delivery.agent.identity);
        cell.shard.lock().submit(delivery, Instant::now(), wall_ns());
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
                let detail = format!("tenant {}: {}", cell.tenant, trouble.reason);
                return OutputHealth { ok: false, detail };
            }
        }
        OutputHealth { ok: true, detail: "the last requests succeeded".into() }
    }

    fn troubles(&self) -> BTreeMap<TenantId, String> {
        let now = Instant::now();
        let of_tenant = |cells: &Arc<[Arc<Cell>]>| {
            let troubles = cells.iter().filter_map(|cell| cell.shard.lock().trouble().cloned());
            troubles.min_by_key(|trouble| trouble.since).map(|trouble| trouble.told(now))
        };
        let tenants = self.tenants.read();
        tenants.iter().filter_map(|(tenant, cells)| Some((tenant.clone(), of_tenant(cells)?))).collect()
    }
}

/// The wall clock, in nanoseconds since the Unix epoch.
fn wall_ns() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
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
            Step::Ask(piece) => {
                let holdings = shared.endpoint.ask(&cell.tenant, &piece).await;
                drop(piece);
                cell.shard.lock().told(holdings, Instant::now());
            }
            Step::Send(piece) => {
                let mut encoder = shared.encoders.lock().pop().unwrap_or_else(RequestEncoder::new);
                let encoded = encoder.encode(&piece);
                shared.encoders.lock().push(encoder);
                drop(piece);
                cell.tally.sent(encoded.message_bytes, encoded.body.len());
                let exchange = shared.endpoint.push(&cell.tenant, encoded.body).await;
                match &exchange {
                    Exchange::Answered(response) => cell.tally.request(&response.status.to_string()),
                    Exchange::Failed { .. } => cell.tally.request("failed"),
                }
                cell.shard.lock().answered(Meaning::of(exchange), Instant::now());
            }
        }
    }
}
