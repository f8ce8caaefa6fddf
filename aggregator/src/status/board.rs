//! What all readers of the status share: one look at the fleet a second, however many ask.

use super::findings::{Finding, Growth, Level, findings};
use super::fleet::{AgentStatus, FleetView, OutputStatus};
use crate::output::recent::{Live, Recent, Track};
use crate::output::recent_logs::RecentLogs;
use parking_lot::Mutex;
use pegel_proto::identity::AgentIdentity;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Main values older than this are no longer what a node is doing: eight default intervals.
const LIVE_MS: i64 = 120_000;
/// Under which name the rate of log entries stands among a node's live values.
const ENTRY_RATE: &str = "log_entries_per_second";
/// A look at the fleet is used for this long.
const FRESH_MS: i64 = 900;

/// One look at the fleet.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) at_ms: i64,
    pub(super) agents: Vec<Known>,
    pub(super) outputs: Vec<OutputStatus>,
}

/// An agent and what there is to say of it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) status: AgentStatus,
    pub(super) findings: Vec<Finding>,
    pub(super) live: BTreeMap<String, f32>,
}

/// A line of the fleet table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FleetRow {
    /// Tenant and node from the certificate.
    pub tenant: String,
    /// See `tenant`.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// Whether it has a session.
    pub connected: bool,
    /// When anything last came from it; milliseconds since the Unix epoch.
    pub last_contact_ms: i64,
    /// The worst finding's level.
    pub level: Level,
    /// The worst finding, in a sentence.
    pub headline: String,
    /// The age of the oldest unacknowledged batch of any output, in milliseconds.
    pub lag_ms: u64,
    /// Bytes in its spool.
    pub spooled_bytes: u64,
    /// Records (samples, log entries) in front and spool, of the output with the most.
    pub waiting: u64,
    /// Records delivered, over all outputs.
    pub delivered: u64,
    /// Records found at the backend already, over all outputs.
    pub held: u64,
    /// Records dropped, over all outputs.
    pub dropped: u64,
    /// Records refused, over all outputs.
    pub rejected: u64,
    /// The newest main values by track name, and `log_entries_per_second`; absent where unknown.
    pub live: BTreeMap<String, f32>,
}

impl Known {
    pub(super) fn row(&self) -> FleetRow {
        let agent = &self.status;
        let sum = |of: fn(&super::fleet::Books) -> u64| agent.books.iter().map(of).sum();
        FleetRow {
            tenant: agent.identity.tenant.to_string(),
            node: agent.identity.node.to_string(),
            version: agent.version.clone(),
            connected: agent.connected,
            last_contact_ms: agent.last_contact_ms,
            level: self.findings[0].level,
            headline: self.findings[0].what.clone(),
            lag_ms: agent.books.iter().map(|b| b.lag_ms).max().unwrap_or_default(),
            spooled_bytes: agent.spool_bytes,
            waiting: agent.books.iter().map(|b| b.in_front + b.spooled).max().unwrap_or_default(),
            delivered: sum(|b| b.delivered),
            held: sum(|b| b.held_already),
            dropped: sum(super::fleet::Books::dropped_total),
            rejected: sum(super::fleet::Books::rejected_total),
            live: self.live.clone(),
        }
    }
}

/// The known values of a node's newest point, by track name; none if they are old.
fn live_values(live: Live, now_ms: i64) -> BTreeMap<String, f32> {
    if now_ms - live.heard_ms > LIVE_MS {
        return BTreeMap::new();
    }
    let named = Track::ALL.into_iter().zip(live.point);
    named.filter(|(_, v)| v.is_finite()).map(|(track, v)| (track.name().to_owned(), v)).collect()
}

/// Losses as they stood when this aggregator last saw them grow.
#[derive(Debug, Clone, Copy, Default)]
struct Losses {
    dropped: u64,
    rejected: u64,
    growth: Growth,
}

/// The board.
pub(super) struct Board {
    fleet: Arc<dyn FleetView>,
    recent: Arc<Recent>,
    logs: Option<Arc<RecentLogs>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    latest: Arc<Snapshot>,
    losses: HashMap<(AgentIdentity, String, String), Losses>,
}

impl Board {
    pub(super) fn new(fleet: Arc<dyn FleetView>, recent: Arc<Recent>, logs: Option<Arc<RecentLogs>>) -> Self {
        Self { fleet, recent, logs, state: Mutex::default() }
    }

    /// What a node is doing: its newest main values, and how many log entries it sends.
    pub(super) fn live(&self, identity: &AgentIdentity, now_ms: i64) -> BTreeMap<String, f32> {
        let mut live = self.recent.live(identity).map(|live| live_values(live, now_ms)).unwrap_or_default();
        if let Some(logs) = &self.logs
            && logs.heard_ms(identity).is_some_and(|heard_ms| now_ms - heard_ms <= LIVE_MS)
        {
            // In steps that a person can tell apart, so that a row is not told anew each second.
            let rate = logs.rate(identity);
            let shown = if rate < 10.0 { (rate * 10.0).round() / 10.0 } else { rate.round() };
            live.insert(ENTRY_RATE.to_owned(), shown as f32);
        }
        live
    }

    /// When anything that an agent collected last arrived.
    fn heard_ms(&self, identity: &AgentIdentity) -> Option<i64> {
        let samples = self.recent.live(identity).map(|live| live.heard_ms);
        samples.max(self.logs.as_ref().and_then(|logs| logs.heard_ms(identity)))
    }

    pub(super) fn recent(&self) -> &Recent {
        &self.recent
    }

    pub(super) fn fleet(&self) -> &dyn FleetView {
        &*self.fleet
    }

    /// The fleet as it is, at most a second old.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        let now_ms = self.recent.now_ms();
        let mut state = self.state.lock();
        if !(0..FRESH_MS).contains(&(now_ms - state.latest.at_ms)) {
            state.latest = Arc::new(self.look(now_ms, &mut state.losses));
        }
        state.latest.clone()
    }

    fn look(&self, now_ms: i64, losses: &mut HashMap<(AgentIdentity, String, String), Losses>) -> Snapshot {
        let outputs = self.fleet.outputs();
        let mut agents = self.fleet.agents();
        agents.sort_by(|a, b| a.identity.cmp(&b.identity));
        let mut before = std::mem::take(losses);
        let agents = agents
            .into_iter()
            .map(|status| {
                let growth: Vec<Growth> = status
                    .books
                    .iter()
                    .map(|books| {
                        let key = (status.identity.clone(), books.signal.clone(), books.output.clone());
                        let (dropped, rejected) = (books.dropped_total(), books.rejected_total());
                        let known = before.remove(&key);
                        let mut now =
                            known.unwrap_or(Losses { dropped, rejected, growth: Growth::default() });
                        if dropped > now.dropped {
                            now.growth.dropped_ms = Some(now_ms);
                        }
                        if rejected > now.rejected {
                            now.growth.rejected_ms = Some(now_ms);
                        }
                        (now.dropped, now.rejected) = (dropped, rejected);
                        losses.insert(key, now);
                        now.growth
                    })
                    .collect();
                let heard_ms = self.heard_ms(&status.identity);
                let findings = findings(&status, &growth, &outputs, heard_ms, now_ms);
                let live = self.live(&status.identity, now_ms);
                Known { status, findings, live }
            })
            .collect();
        Snapshot { at_ms: now_ms, agents, outputs }
    }
}

impl Snapshot {
    pub(super) fn agent(&self, identity: &AgentIdentity) -> Option<&Known> {
        let place = self.agents.binary_search_by(|known| known.status.identity.cmp(identity)).ok()?;
        Some(&self.agents[place])
    }
}
