//! Elasticsearch's bulk API (and OpenSearch's, which is the same).
//!
//! Each entry becomes a document of a data stream with an `_id` that its content gives, created with op `create`: what
//! is sent twice is there once, and the answer says so (409), entry by entry. So no answer is ambiguous: whatever is not
//! accounted for is sent again. `shard` decides (no socket, no clock), `document` writes, `answer` says what answers
//! mean, `client` sends.

mod answer;
mod client;
mod document;
mod shard;
#[cfg(test)]
mod tests;

pub use super::backend::{Authorization, SetupError};

use super::loki::tally::Tally;
use crate::fanout::{Announcement, Delivery, Output, OutputHealth};
use client::Endpoint;
use http::{HeaderName, HeaderValue, Uri};
use parking_lot::{Mutex, RwLock};
use pegel_proto::batch::Signal;
use pegel_proto::identity::{AgentIdentity, OutputName, TenantId};
use pegel_runtime::http_client::ClientTls;
use pegel_runtime::metrics::Registry;
use shard::{Shard, Step};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use xxhash_rust::xxh3::xxh3_64;

/// What a request is filled to, in bytes: Elastic advises some MB; its limit is 100 MB (`http.max_content_length`).
pub const DEFAULT_MAX_REQUEST_BYTES: usize = 4 << 20;
/// The data stream that entries go to.
pub const DEFAULT_INDEX: &str = "logs-pegel-default";
/// Tenants with metrics of their own; further ones share the tenant label `other tenants`.
const MAX_TENANT_METRICS: usize = 100;

/// One output.
#[derive(Clone)]
pub struct Settings {
    /// Its name.
    pub name: OutputName,
    /// The cluster's address, such as `https://elastic:9200`.
    pub url: Uri,
    /// The data stream or index; `{tenant}` stands for the tenant.
    pub index: String,
    /// Whether the index template is put in place before the first request.
    pub template: bool,
    /// Headers of every request. They may hold secrets and are never shown.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How requests are signed.
    pub authorization: Authorization,
    /// How the server and this client prove themselves.
    pub tls: ClientTls,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub request_timeout: Duration,
    /// Writers for each tenant.
    pub shards: usize,
    /// What a request is filled to, in bytes.
    pub max_request_bytes: usize,
    /// How long the first batch of a request waits for others.
    pub linger: Duration,
    /// The wait after a first failure; it doubles with each.
    pub min_backoff: Duration,
    /// The longest wait after failures.
    pub max_backoff: Duration,
    /// The longest wait that a cluster may ask for.
    pub max_retry_after: Duration,
    /// How often an output that takes nothing is tried.
    pub park_probe: Duration,
}

impl Settings {
    /// The defaults for a cluster.
    pub fn new(name: OutputName, url: Uri) -> Self {
        Self {
            name,
            url,
            index: DEFAULT_INDEX.to_owned(),
            template: true,
            headers: Vec::new(),
            authorization: Authorization::None,
            tls: ClientTls::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(60),
            shards: 2,
            max_request_bytes: DEFAULT_MAX_REQUEST_BYTES,
            linger: Duration::from_millis(50),
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(15),
            max_retry_after: Duration::from_mins(5),
            park_probe: Duration::from_secs(15),
        }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("name", &self.name)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// An Elasticsearch output.
pub struct Elasticsearch {
    shared: Arc<Shared>,
    tenants: RwLock<HashMap<TenantId, Arc<[Arc<Cell>]>>>,
    tasks: Mutex<Vec<AbortHandle>>,
    runtime: tokio::runtime::Handle,
    registry: Registry,
}

struct Shared {
    settings: Settings,
    endpoint: Endpoint,
    /// Whether the index template is in place.
    template_put: AtomicBool,
}

/// One shard and what wakes its driver.
struct Cell {
    tenant: TenantId,
    shard: Mutex<Shard>,
    wake: Notify,
    tally: Tally,
}

impl Elasticsearch {
    /// Sets an output up. Nothing is sent, and a cluster that is away is no error. Its tasks run on the runtime that
    /// this is called on, until it is dropped.
    pub fn new(settings: Settings, registry: &Registry) -> Result<Self, SetupError> {
        let endpoint = Endpoint::new(&settings)?;
        let template_put = AtomicBool::new(!settings.template);
        Ok(Self {
            shared: Arc::new(Shared { settings, endpoint, template_put }),
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
        let shard = Shard::new(self.shared.settings.clone(), tally.clone(), rand::random());
        let cell =
            Arc::new(Cell { tenant: tenant.clone(), shard: Mutex::new(shard), wake: Notify::new(), tally });
        let task = self.runtime.spawn(drive(self.shared.clone(), cell.clone()));
        self.tasks.lock().push(task.abort_handle());
        cell
    }
}

impl Drop for Elasticsearch {
    fn drop(&mut self) {
        self.tasks.get_mut().iter().for_each(AbortHandle::abort);
    }
}

impl Output for Elasticsearch {
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

/// Drives one shard for good.
async fn drive(shared: Arc<Shared>, cell: Arc<Cell>) {
    let index = shared.settings.index.replace("{tenant}", cell.tenant.as_str());
    loop {
        let step = cell.shard.lock().poll(Instant::now());
        match step {
            Step::Wait(None) => cell.wake.notified().await,
            Step::Wait(Some(instant)) => {
                tokio::select! {
                    () = tokio::time::sleep_until(instant.into()) => {}
                    () = cell.wake.notified() => {}
                }
            }
            Step::Send(request) => {
                let body = document::bulk(&request, &cell.tenant);
                let items = request.len();
                drop(request);
                // Without its template the first request would make an index with guessed types.
                let meaning = match shared.endpoint.template(&shared.template_put).await {
                    Err(meaning) => meaning,
                    Ok(()) => shared.endpoint.bulk(&index, body, items, &cell.tally).await,
                };
                if let answer::Meaning::Park { .. } = meaning {
                    shared.template_put.store(!shared.settings.template, Ordering::Relaxed);
                }
                cell.shard.lock().answered(meaning, Instant::now());
            }
        }
    }
}
