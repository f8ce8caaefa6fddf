//! `GET /api/v1/status`: each node and each check of a tenant with its state, since when, and its last error.

use super::board::Snapshot;
use super::checks::{CheckRow, CheckState, checks};
use super::findings::Level;
use super::{Refusal, Status};
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use pegel_proto::identity::TenantId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whose state a caller may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// All tenants': a caller on the loopback.
    Operator,
    /// One tenant's, that of the caller's certificate.
    Tenant(TenantId),
}

/// The answer of `GET /api/v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The aggregator's clock, in milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// The aggregator's name.
    pub aggregator: String,
    /// Counts, by tenant.
    pub tenants: BTreeMap<String, TenantCounts>,
    /// The nodes, by tenant and name.
    pub nodes: Vec<NodeRow>,
    /// How many checks match; those beyond the bound of an answer are counted, not listed.
    pub matching: usize,
    /// The checks, the worst first.
    pub checks: Vec<CheckRow>,
}

/// How a tenant stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantCounts {
    /// Nodes that this aggregator knows.
    pub nodes: usize,
    /// Those with a session.
    pub connected: usize,
    /// Checks by state.
    pub checks: BTreeMap<String, usize>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Whose.
    pub tenant: String,
    /// The node.
    pub node: String,
    /// Whether it has a session.
    pub connected: bool,
    /// When that session began, or the last one ended.
    pub since_ms: i64,
    /// When anything last came from it.
    pub last_contact_ms: i64,
    /// How bad it is.
    pub level: Level,
    /// What there is to say first.
    pub headline: String,
}

/// Which checks are asked for.
#[derive(Debug, Default)]
struct Wanted {
    tenant: Option<String>,
    node: Option<String>,
    check: Option<String>,
    job: Option<String>,
    states: Vec<CheckState>,
}

impl Wanted {
    fn parse(query: &str) -> Result<Self, Refusal> {
        let mut wanted = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match &*name {
                "tenant" => wanted.tenant = Some(value),
                "node" => wanted.node = Some(value),
                "check" => wanted.check = Some(value),
                "job" => wanted.job = Some(value),
                "state" => {
                    let known = CheckState::ALL.into_iter().find(|state| state.name() == value);
                    let names = CheckState::ALL.map(CheckState::name).join(", ");
                    let told = format!("`{}` is no state of a check; use {names}", value.escape_debug());
                    wanted.states.push(known.ok_or(Refusal(StatusCode::BAD_REQUEST, told))?);
                }
                other => {
                    let told = format!(
                        "`{}` is not known; use tenant, node, check, job, state",
                        other.chars().take(64).collect::<String>().escape_debug()
                    );
                    return Err(Refusal(StatusCode::BAD_REQUEST, told));
                }
            }
        }
        Ok(wanted)
    }

    fn takes(&self, row: &CheckRow) -> bool {
        self.check.as_ref().is_none_or(|check| *check == row.check)
            && self.job.as_ref().is_none_or(|job| *job == row.job)
            && (self.states.is_empty() || self.states.contains(&row.state))
    }
}

pub(super) async fn overview(
    State(status): State<Arc<Status>>,
    caller: Option<Extension<Caller>>,
    RawQuery(query): RawQuery,
) -> Result<Json<StatusAnswer>, Refusal> {
    let wanted = Wanted::parse(query.as_deref().unwrap_or_default())?;
    let caller = caller.map_or(Caller::Operator, |Extension(caller)| caller);
    if let (Caller::Tenant(own), Some(asked)) = (&caller, &wanted.tenant)
        && own.as_str() != asked
    {
        let told = format!("the certificate is one of tenant {own}, which sees nothing of another tenant");
        return Err(Refusal(StatusCode::FORBIDDEN, told));
    }
    Ok(Json(answer(&status, &status.board.snapshot(), &caller, &wanted)))
}

fn answer(status: &Status, snapshot: &Snapshot, caller: &Caller, wanted: &Wanted) -> StatusAnswer {
    let fresh_since_ms = snapshot.at_ms - status.settings.look_back.as_millis() as i64;
    let mut answer = StatusAnswer {
        now_ms: snapshot.at_ms,
        aggregator: status.settings.name.clone(),
        tenants: BTreeMap::new(),
        nodes: Vec::new(),
        matching: 0,
        checks: Vec::new(),
    };
    for known in &snapshot.agents {
        let agent = &known.status;
        let tenant = &agent.identity.tenant;
        let visible = match caller {
            Caller::Operator => wanted.tenant.as_ref().is_none_or(|asked| asked == tenant.as_str()),
            Caller::Tenant(own) => own == tenant,
        };
        if !visible || wanted.node.as_ref().is_some_and(|asked| asked != agent.identity.node.as_str()) {
            continue;
        }
        let counts = answer.tenants.entry(tenant.to_string()).or_default();
        counts.nodes += 1;
        counts.connected += usize::from(agent.connected);
        for row in checks(status.board.recent(), &agent.identity, fresh_since_ms) {
            *counts.checks.entry(row.state.name().to_owned()).or_default() += 1;
            if wanted.takes(&row) {
                answer.checks.push(row);
            }
        }
        answer.nodes.push(NodeRow {
            tenant: tenant.to_string(),
            node: agent.identity.node.to_string(),
            connected: agent.connected,
            since_ms: agent.since_ms,
            last_contact_ms: agent.last_contact_ms,
            level: known.findings[0].level,
            headline: known.findings[0].what.clone(),
        });
    }
    answer.matching = answer.checks.len();
    answer.checks.sort_by(|a, b| {
        let key = |row: &CheckRow| (row.state, !row.failing);
        key(a).cmp(&key(b)).then_with(|| {
            (&a.tenant, &a.check, &a.instance, &a.node).cmp(&(&b.tenant, &b.check, &b.instance, &b.node))
        })
    });
    answer.checks.truncate(status.settings.max_answer_series);
    answer
}
