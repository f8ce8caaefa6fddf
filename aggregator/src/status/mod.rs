//! The state of the fleet for people and programs: a JSON API, server-sent events, `/federate` and the page.
//!
//! Everything is read from two places: the receiver's books ([`FleetView`]) and the last values of
//! [`Recent`](crate::output::recent::Recent). Nothing is stored here, and nothing here can change anything: there is
//! no method but GET. Readers share one look at the fleet a second ([`board`]); what they may ask for is bounded.
//!
//! The routes have no authentication and belong on a loopback address or behind a proxy that has one. On a loopback
//! address requests for foreign host names are refused, so that no web page can read them by DNS rebinding. Tenants
//! have a listener of their own ([`tenants`]), where a certificate says whose state is shown.

mod api;
mod board;
pub mod checks;
mod events;
mod federate;
pub mod findings;
pub mod fleet;
pub mod overview;
mod page;
mod receiver_fleet;
mod tail;
pub mod tenants;
#[cfg(test)]
mod tests;
pub mod words;

pub use api::{
    AgentSummary, BooksRow, FleetAnswer, NodeAnswer, OutputsAnswer, RejectRow, RejectsAnswer, SeriesAnswer,
    SeriesRow,
};
pub use board::FleetRow;
pub use fleet::{AgentStatus, Books, FileBehind, FilesBehind, FleetView, NoRoom, OutputStatus, Reject};
pub use overview::Caller;
pub use receiver_fleet::{ReceiverFleet, RejectLog};

use crate::output::recent::Recent;
use crate::output::recent_logs::RecentLogs;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use board::Board;
use pegel_runtime::metrics::{Counter, Registry};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

/// How often pages are told of changes by default. Heartbeats come every few seconds, samples every 15.
pub const DEFAULT_TICK: Duration = Duration::from_secs(1);
/// How many event streams may be open by default. Each costs a task and a few KB; a page has one.
pub const DEFAULT_MAX_EVENT_STREAMS: usize = 128;
/// The most series in one answer by default. At some 200 bytes a line 100,000 make 20 MB, the largest answer there is.
pub const DEFAULT_MAX_ANSWER_SERIES: usize = 100_000;
/// How old a value may be for `/federate` by default: PromQL's look-back.
pub const DEFAULT_LOOK_BACK: Duration = Duration::from_mins(5);

/// Which `Host` headers are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// Any: the address is not loopback, and people reach it by names that nobody here knows.
    Any,
    /// `localhost` and IP addresses: for a loopback address.
    Loopback,
}

/// The settings of the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// This aggregator's name, as the page shows it.
    pub name: String,
    /// Where agents reach this aggregator, as far as it knows; for the words of an empty fleet.
    pub agent_address: String,
    /// Which hosts are answered.
    pub hosts: Hosts,
    /// How often pages are told of changes.
    pub tick: Duration,
    /// How many event streams may be open.
    pub max_event_streams: usize,
    /// The most series in one answer.
    pub max_answer_series: usize,
    /// How old a value may be for `/federate`.
    pub look_back: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: String::new(),
            agent_address: String::new(),
            hosts: Hosts::Loopback,
            tick: DEFAULT_TICK,
            max_event_streams: DEFAULT_MAX_EVENT_STREAMS,
            max_answer_series: DEFAULT_MAX_ANSWER_SERIES,
            look_back: DEFAULT_LOOK_BACK,
        }
    }
}

/// The status: give its routes to a server, and let [`Status::run`] run.
pub struct Status {
    settings: Settings,
    board: Board,
    logs: Option<Arc<RecentLogs>>,
    ticks: broadcast::Sender<Arc<events::Tick>>,
    streams: Arc<Semaphore>,
    requests: Counter,
}

impl Status {
    /// Puts it together. Without `logs` nobody can follow log entries.
    pub fn new(
        settings: Settings,
        fleet: Arc<dyn FleetView>,
        recent: Arc<Recent>,
        logs: Option<Arc<RecentLogs>>,
        registry: &Registry,
    ) -> Arc<Self> {
        let streams = Arc::new(Semaphore::new(settings.max_event_streams));
        let open = registry.gauge("pegel_status_event_streams", "Pages that listen for changes.", &[]);
        let (weak, most) = (Arc::downgrade(&streams), settings.max_event_streams);
        registry.on_render(move || {
            if let Some(streams) = weak.upgrade() {
                open.set((most - streams.available_permits()) as f64);
            }
        });
        Arc::new(Self {
            settings,
            board: Board::new(fleet, recent, logs.clone()),
            logs,
            // A listener that is four ticks behind gets the whole fleet again instead of what it missed.
            ticks: broadcast::channel(4).0,
            streams,
            requests: registry.counter(
                "pegel_status_requests_total",
                "Requests to page, API and /federate.",
                &[],
            ),
        })
    }

    /// The routes: `/`, `/nodes/…`, `/assets/…`, `/api/v1/…`, `/federate`.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/", get(page::shell))
            .route("/nodes/{tenant}/{node}", get(page::shell))
            .route("/refused", get(page::shell))
            .route("/checks", get(page::shell))
            .route("/tail", get(page::shell))
            .route("/assets/{name}", get(page::asset))
            .route("/api/v1/status", get(overview::overview))
            .route("/api/v1/fleet", get(api::fleet))
            .route("/api/v1/nodes/{tenant}/{node}", get(api::node))
            .route("/api/v1/nodes/{tenant}/{node}/series", get(api::series))
            .route("/api/v1/rejects", get(api::rejects))
            .route("/api/v1/outputs", get(api::outputs))
            .route("/api/v1/events", get(events::events))
            .route("/api/v1/tail", get(tail::tail))
            .route("/federate", get(federate::federate))
            .layer(axum::middleware::from_fn_with_state(self.clone(), guard))
            .with_state(self.clone())
    }

    /// What to say if this aggregator has outputs and none of them takes a signal.
    fn no_output_for(&self, signal: &str) -> Option<String> {
        let outputs = self.board.fleet().outputs();
        let none = !outputs.is_empty() && outputs.iter().all(|output| output.signal != signal);
        none.then(|| {
            format!("No output of this aggregator takes {signal}: agents keep theirs until one does.")
        })
    }

    /// Tells pages of changes, and lets go of what is too old to show. Returns when `shutdown` is cancelled.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        events::run(&self, shutdown).await;
    }
}

/// What an error answer holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// What was asked for, why it can't be given, what to do.
    pub error: String,
}

/// An error answer.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorAnswer { error: self.1 })).into_response()
    }
}

/// Headers of every answer. Scripts and styles come from here only and are never inline, so that a label value that
/// found its way into the page as markup would still do nothing.
const HEADERS: [(header::HeaderName, HeaderValue); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

async fn guard(State(status): State<Arc<Status>>, request: Request, next: Next) -> Response {
    status.requests.inc();
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let mut response = if status.settings.hosts == Hosts::Loopback && host.is_some_and(|h| !is_local_host(h))
    {
        let told = "this status answers on a loopback address, to the names localhost and 127.0.0.1 only; \
                    to reach it by another name, let it listen on another address";
        Refusal(StatusCode::MISDIRECTED_REQUEST, told.into()).into_response()
    } else {
        next.run(request).await
    };
    response.headers_mut().extend(HEADERS);
    response
}

/// Whether a `Host` header is an IP address or localhost, with or without a port. A name that an attacker resolves to
/// 127.0.0.1 is neither.
fn is_local_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}
