//! The JSON API: `/api/v1/…`. All instants are milliseconds since the Unix epoch; counts are records.

use super::board::{FleetRow, Known, Snapshot};
use super::findings::Finding;
use super::fleet::{Books, FilesBehind, OutputStatus};
use super::{Refusal, Status};
use crate::output::recent::{HistoryView, Machine, Selector, SymbolText};
use crate::session::ResolvedSeries;
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The answer of `GET /api/v1/fleet`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FleetAnswer {
    /// The aggregator's clock.
    pub now_ms: i64,
    /// The aggregator's name.
    pub aggregator: String,
    /// The aggregator's version.
    pub version: String,
    /// One summary an agent, by tenant and node.
    pub agents: Vec<AgentSummary>,
    /// The outputs.
    pub outputs: Vec<OutputStatus>,
}

/// An agent with its books.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentSummary {
    /// The line of the fleet table.
    #[serde(flatten)]
    pub row: FleetRow,
    /// Host name, as the agent says.
    pub hostname: String,
    /// The address that its last session came from.
    pub peer: String,
    /// The epoch of its state directory.
    pub epoch: String,
    /// When its session began or the last one ended.
    pub since_ms: i64,
    /// How far its clock is ahead of the aggregator's.
    pub clock_ahead_ms: Option<i64>,
    /// Bytes in its memory front.
    pub front_bytes: u64,
    /// Damaged segments set aside.
    pub quarantined_segments: u64,
    /// What there is to say, the worst first.
    pub findings: Vec<Finding>,
    /// The books, one for each signal and output.
    pub books: Vec<BooksRow>,
    /// Its log files that are behind; none if it speaks of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_behind: Option<FilesBehind>,
}

/// The books with their balance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BooksRow {
    /// The books.
    #[serde(flatten)]
    pub books: Books,
    /// Collected less accounted for; 0 if they balance.
    pub difference: i64,
}

/// The answer of `GET /api/v1/nodes/{tenant}/{node}`.
#[derive(Debug, Clone, Serialize)]
pub struct NodeAnswer {
    /// The aggregator's clock.
    pub now_ms: i64,
    /// The agent, with its books.
    pub agent: AgentSummary,
    /// When its newest main value was sampled, by its own clock; 0 if there is none.
    pub live_at_ms: i64,
    /// When its last samples arrived here; none if none have.
    pub heard_ms: Option<i64>,
    /// How many of its series are kept here.
    pub series: usize,
    /// What its values say of the machine.
    pub machine: Option<Machine>,
    /// The last hour of its main series.
    pub history: Option<HistoryView>,
}

/// The answer of `GET /api/v1/nodes/{tenant}/{node}/series`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeriesAnswer {
    /// How many series match; those beyond the bound of an answer are counted, not listed.
    pub matching: usize,
    /// The series, by their labels.
    pub series: Vec<SeriesRow>,
}

/// A series and its last value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeriesRow {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its last value, as Prometheus writes it: JSON has no NaN.
    pub value: String,
    /// The value's instant.
    pub at_ms: i64,
}

/// The answer of `GET /api/v1/rejects`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RejectsAnswer {
    /// The latest refusals, newest first.
    pub rejects: Vec<RejectRow>,
}

/// Records of one batch that were refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RejectRow {
    /// When.
    pub at_ms: i64,
    /// Whose.
    pub tenant: String,
    /// Whose.
    pub node: String,
    /// By which output.
    pub output: String,
    /// In which batch.
    pub seq: u64,
    /// Why, as the label value `reason`.
    pub reason: String,
    /// What the backend said.
    pub message: String,
    /// How many records.
    pub count: u64,
}

/// The answer of `GET /api/v1/outputs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutputsAnswer {
    /// The outputs in the order of the configuration.
    pub outputs: Vec<OutputStatus>,
}

pub(super) async fn fleet(State(status): State<Arc<Status>>) -> Json<FleetAnswer> {
    let snapshot = status.board.snapshot();
    Json(FleetAnswer {
        now_ms: snapshot.at_ms,
        aggregator: status.settings.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agents: snapshot.agents.iter().map(summary).collect(),
        outputs: snapshot.outputs.clone(),
    })
}

pub(super) async fn node(
    State(status): State<Arc<Status>>,
    Path((tenant, node)): Path<(String, String)>,
) -> Result<Json<NodeAnswer>, Refusal> {
    let identity = identity(&tenant, &node)?;
    let snapshot = status.board.snapshot();
    node_answer(&status, &snapshot, &identity, true).map(Json).ok_or_else(|| unknown(&identity))
}

/// All that is known of a node; its history is left out of events, which come every second.
pub(super) fn node_answer(
    status: &Status,
    snapshot: &Snapshot,
    identity: &AgentIdentity,
    with_history: bool,
) -> Option<NodeAnswer> {
    let known = snapshot.agent(identity)?;
    let recent = status.board.recent();
    let live = recent.live(identity);
    let now_ms = recent.now_ms();
    let mut agent = summary(known);
    agent.row.live = status.board.live(identity, now_ms);
    Some(NodeAnswer {
        now_ms,
        agent,
        live_at_ms: live.map_or(0, |live| live.at_ms),
        heard_ms: live.map(|live| live.heard_ms),
        series: recent.series_count(identity),
        machine: recent.machine(identity),
        history: if with_history { recent.history(identity) } else { None },
    })
}

pub(super) async fn series(
    State(status): State<Arc<Status>>,
    Path((tenant, node)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<SeriesAnswer>, Refusal> {
    let identity = identity(&tenant, &node)?;
    let selectors = selectors(query.as_deref(), &["match", "match[]"])?;
    let recent = status.board.recent();
    if recent.live(&identity).is_none() {
        return Err(unknown(&identity));
    }
    let mut answer = SeriesAnswer { matching: 0, series: Vec::new() };
    recent.visit(Some(&identity), &selectors, &mut |series, value, at_ms| {
        answer.matching += 1;
        if answer.matching <= status.settings.max_answer_series {
            let labels = labels(recent.symbols(), series).into_iter().collect();
            answer.series.push(SeriesRow { labels, value: prometheus_number(value), at_ms });
        }
    });
    answer.series.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(Json(answer))
}

pub(super) async fn rejects(State(status): State<Arc<Status>>) -> Json<RejectsAnswer> {
    let rejects = status.board.fleet().rejects().into_iter().map(|reject| RejectRow {
        at_ms: reject.at_ms,
        tenant: reject.identity.tenant.to_string(),
        node: reject.identity.node.to_string(),
        output: reject.output,
        seq: reject.seq,
        reason: reject.reason.name().to_owned(),
        message: reject.message,
        count: reject.count,
    });
    Json(RejectsAnswer { rejects: rejects.collect() })
}

pub(super) async fn outputs(State(status): State<Arc<Status>>) -> Json<OutputsAnswer> {
    Json(OutputsAnswer { outputs: status.board.fleet().outputs() })
}

fn summary(known: &Known) -> AgentSummary {
    let agent = &known.status;
    let books = agent.books.iter().map(|b| BooksRow { books: b.clone(), difference: b.difference() });
    AgentSummary {
        row: known.row(),
        hostname: agent.hostname.clone(),
        peer: agent.peer.to_string(),
        epoch: agent.epoch.to_string(),
        since_ms: agent.since_ms,
        clock_ahead_ms: agent.clock_ahead_ms,
        front_bytes: agent.front_bytes,
        quarantined_segments: agent.quarantined_segments,
        findings: known.findings.clone(),
        books: books.collect(),
        files_behind: agent.files_behind.clone(),
    }
}

pub(super) fn identity(tenant: &str, node: &str) -> Result<AgentIdentity, Refusal> {
    let bad = |e: pegel_proto::identity::BadName| Refusal(StatusCode::BAD_REQUEST, e.to_string());
    Ok(AgentIdentity {
        tenant: TenantId::parse(tenant).map_err(bad)?,
        node: NodeId::parse(node).map_err(bad)?,
    })
}

pub(super) fn unknown(identity: &AgentIdentity) -> Refusal {
    let AgentIdentity { tenant, node } = identity;
    let told = format!(
        "this aggregator has not heard of node {node} of tenant {tenant} since it started; another one may have"
    );
    Refusal(StatusCode::NOT_FOUND, told)
}

/// The selectors of a query.
pub(super) fn selectors(query: Option<&str>, names: &[&str]) -> Result<Vec<Selector>, Refusal> {
    /// More than a federation job ever names, fewer than cost anything.
    const MOST: usize = 64;
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let selectors: Vec<_> = pairs
        .filter(|(name, value)| names.contains(&name.as_ref()) && !value.is_empty())
        .take(MOST + 1)
        .map(|(_, value)| {
            Selector::parse(&value).map_err(|e| Refusal(StatusCode::BAD_REQUEST, e.to_string()))
        })
        .collect::<Result<_, _>>()?;
    if selectors.len() > MOST {
        return Err(Refusal(StatusCode::BAD_REQUEST, format!("more than {MOST} selectors in one request")));
    }
    Ok(selectors)
}

/// A series' labels as text, by name.
pub(super) fn labels(text: &dyn SymbolText, series: &ResolvedSeries) -> Vec<(String, String)> {
    let owned = |symbol| {
        let mut out = String::new();
        text.with_text(symbol, &mut |text| out.push_str(text));
        out
    };
    series.labels.iter().map(|(name, value)| (owned(*name), owned(*value))).collect()
}

/// A number as the Prometheus text format writes it.
pub(super) fn prometheus_number(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN".to_owned(),
        v if v.is_infinite() => if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        v => v.to_string(),
    }
}
