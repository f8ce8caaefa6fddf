//! `GET /api/v1/events`: server-sent events.
//!
//! `fleet` carries table rows: all of them at the beginning (and whenever a listener fell behind), later those that
//! changed. `node`, for a listener that asked with `?tenant=…&node=…`, carries that node's state. One ticker serves
//! all listeners: it stands still while nobody listens, but for a look every [`IDLE_LOOK`] that notes losses.

use super::api::{identity, node_answer};
use super::board::{FleetRow, Known, Snapshot};
use super::fleet::OutputStatus;
use super::{Refusal, Status};
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use pegel_proto::identity::AgentIdentity;
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// How often the fleet is looked at while no page is open.
const IDLE_LOOK: Duration = Duration::from_secs(10);
/// How often values that are too old are let go.
const SWEEP: Duration = Duration::from_mins(1);
/// The most rows of one tick: 250 × 450 B = 110 KB a second and listener. Rows that do not fit wait for the next tick,
/// those whose level changed go first: with 10,000 agents a row's numbers are then up to 40 s old, never its state.
const MAX_TICK_ROWS: usize = 250;

/// What one tick tells everybody.
pub(super) struct Tick {
    snapshot: Arc<Snapshot>,
    /// The `fleet` event, if anything changed.
    fleet: Option<Arc<str>>,
}

#[derive(Serialize)]
struct FleetEvent<'a> {
    now_ms: i64,
    /// The rows are all there are.
    whole: bool,
    aggregator: &'a str,
    agent_address: &'a str,
    version: &'a str,
    rows: Vec<&'a FleetRow>,
    gone: Vec<(String, String)>,
    outputs: &'a [OutputStatus],
}

pub(super) async fn run(status: &Arc<Status>, shutdown: CancellationToken) {
    let mut told: HashMap<AgentIdentity, FleetRow> = HashMap::new();
    let mut told_outputs = Vec::new();
    let mut swept = tokio::time::Instant::now();
    loop {
        let listening = status.ticks.receiver_count() > 0;
        let pause = if listening { status.settings.tick } else { IDLE_LOOK.min(status.settings.tick * 10) };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if swept.elapsed() >= SWEEP {
            status.board.recent().sweep();
            if let Some(logs) = &status.logs {
                logs.sweep();
            }
            swept = tokio::time::Instant::now();
        }
        let snapshot = status.board.snapshot();
        if listening {
            let fleet = changes(status, &snapshot, &mut told, &mut told_outputs);
            // Nobody listens any more: the next one is told the whole.
            let _ = status.ticks.send(Arc::new(Tick { snapshot, fleet }));
        }
    }
}

/// The event of what changed since the ticks before, and notes it as told.
fn changes(
    status: &Status,
    snapshot: &Snapshot,
    told: &mut HashMap<AgentIdentity, FleetRow>,
    told_outputs: &mut Vec<OutputStatus>,
) -> Option<Arc<str>> {
    let mut changed: Vec<(&AgentIdentity, FleetRow, bool)> = Vec::new();
    for known in &snapshot.agents {
        let row = known.row();
        let before = told.get(&known.status.identity);
        if before != Some(&row) {
            let level_changed = before.is_none_or(|before| before.level != row.level);
            changed.push((&known.status.identity, row, level_changed));
        }
    }
    if changed.len() > MAX_TICK_ROWS {
        // Longest untold first: a row that was passed over shows the oldest last contact of what was told.
        changed.sort_by_key(|(identity, _, urgent)| {
            (!urgent, told.get(identity).map_or(0, |before| before.last_contact_ms))
        });
        changed.truncate(MAX_TICK_ROWS);
    }
    let mut gone = Vec::new();
    if told.len() + changed.iter().filter(|(i, ..)| !told.contains_key(i)).count() > snapshot.agents.len() {
        told.retain(|identity, _| {
            let there = snapshot.agent(identity).is_some();
            if !there {
                gone.push((identity.tenant.to_string(), identity.node.to_string()));
            }
            there
        });
    }
    if changed.is_empty() && gone.is_empty() && *told_outputs == snapshot.outputs {
        return None;
    }
    let event = fleet_event(status, snapshot, changed.iter().map(|(_, row, _)| row).collect(), gone, false);
    told.extend(changed.into_iter().map(|(identity, row, _)| (identity.clone(), row)));
    told_outputs.clone_from(&snapshot.outputs);
    Some(event)
}

fn fleet_event(
    status: &Status,
    snapshot: &Snapshot,
    rows: Vec<&FleetRow>,
    gone: Vec<(String, String)>,
    whole: bool,
) -> Arc<str> {
    let event = FleetEvent {
        now_ms: snapshot.at_ms,
        whole,
        aggregator: &status.settings.name,
        agent_address: &status.settings.agent_address,
        version: env!("CARGO_PKG_VERSION"),
        rows,
        gone,
        outputs: &snapshot.outputs,
    };
    serde_json::to_string(&event).expect("plain structs become JSON").into()
}

fn whole_fleet(status: &Status, snapshot: &Snapshot) -> Arc<str> {
    let rows: Vec<FleetRow> = snapshot.agents.iter().map(Known::row).collect();
    fleet_event(status, snapshot, rows.iter().collect(), Vec::new(), true)
}

/// One listener.
struct Listener {
    status: Arc<Status>,
    ticks: broadcast::Receiver<Arc<Tick>>,
    node: Option<AgentIdentity>,
    /// What was last said of the node, the aggregator's clock aside.
    told_node: String,
    queue: VecDeque<Event>,
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn events(
    State(status): State<Arc<Status>>,
    RawQuery(query): RawQuery,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let permit = status.streams.clone().try_acquire_owned().map_err(|_| {
        let most = status.settings.max_event_streams;
        Refusal(StatusCode::SERVICE_UNAVAILABLE, format!("{most} pages are listening already: close some"))
    })?;
    let query: HashMap<_, _> =
        form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
    let node = match (query.get("tenant"), query.get("node")) {
        (Some(tenant), Some(node)) => Some(identity(tenant, node)?),
        _ => None,
    };
    let ticks = status.ticks.subscribe();
    let mut listener =
        Listener { status, ticks, node, told_node: String::new(), queue: VecDeque::new(), _permit: permit };
    listener.begin();
    let stream = futures_util::stream::unfold(listener, |mut listener| async {
        let event = listener.next().await?;
        Some((Ok(event), listener))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

impl Listener {
    /// Queues the whole state.
    fn begin(&mut self) {
        let snapshot = self.status.board.snapshot();
        let whole = whole_fleet(&self.status, &snapshot);
        self.queue.push_back(Event::default().event("fleet").data(&*whole));
        self.told_node.clear();
        self.tell_node(&snapshot);
    }

    fn tell_node(&mut self, snapshot: &Snapshot) {
        let Some(identity) = &self.node else { return };
        let Some(mut answer) = node_answer(&self.status, snapshot, identity, false) else { return };
        let now_ms = std::mem::take(&mut answer.now_ms);
        let text = serde_json::to_string(&answer).expect("plain structs become JSON");
        if text != self.told_node {
            answer.now_ms = now_ms;
            let with_time = serde_json::to_string(&answer).expect("plain structs become JSON");
            self.queue.push_back(Event::default().event("node").data(with_time));
            self.told_node = text;
        }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            match self.ticks.recv().await {
                Ok(tick) => {
                    if let Some(fleet) = &tick.fleet {
                        self.queue.push_back(Event::default().event("fleet").data(&**fleet));
                    }
                    self.tell_node(&tick.snapshot);
                }
                Err(RecvError::Lagged(_)) => self.begin(),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
