//! The fleet as the page sees it: sessions, refusals and outputs, read from those who know them.

use crate::fanout::Output;
use crate::node_up::NodeUp;
use crate::receiver::{FleetEntry, Outputs, SessionTable};
use crate::session::AgentInfo;
use crate::status::{AgentStatus, Books, FleetView, OutputStatus, Reject};
use parking_lot::Mutex;
use pegel_proto::batch::Rejection;
use pegel_proto::identity::AgentIdentity;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How many refusals are listed: some hundred bytes each. The records themselves are with their agents.
const MAX_REJECTS: usize = 1_000;
/// How often sessions are compared with what `pegel_node_up` says.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// The latest refusals, for the page.
#[derive(Debug, Default)]
pub struct RejectLog(Mutex<VecDeque<Reject>>);

impl RejectLog {
    /// Notes what an output refused of an agent's batch.
    pub fn note(&self, now_ms: i64, agent: &AgentInfo, output: &str, rejections: &[Rejection]) {
        if rejections.is_empty() {
            return;
        }
        let mut log = self.0.lock();
        for rejection in rejections {
            log.push_front(Reject {
                at_ms: now_ms,
                identity: agent.identity.clone(),
                output: output.to_owned(),
                seq: rejection.seq.0,
                reason: rejection.reason,
                message: rejection.message.clone(),
                count: rejection.count(),
            });
        }
        log.truncate(MAX_REJECTS);
    }
}

/// What the status reads.
pub struct Fleet {
    /// The sessions.
    pub sessions: Arc<SessionTable>,
    /// The refusals.
    pub rejects: Arc<RejectLog>,
    /// The outputs.
    pub outputs: watch::Receiver<Outputs>,
}

impl FleetView for Fleet {
    fn agents(&self) -> Vec<AgentStatus> {
        self.sessions.fleet().iter().map(agent_status).collect()
    }

    fn rejects(&self) -> Vec<Reject> {
        self.rejects.0.lock().iter().cloned().collect()
    }

    fn outputs(&self) -> Vec<OutputStatus> {
        let outputs = self.outputs.borrow().clone();
        outputs.iter().map(|output: &Arc<dyn Output>| OutputStatus::of(output.as_ref())).collect()
    }
}

fn agent_status(entry: &FleetEntry) -> AgentStatus {
    AgentStatus {
        identity: entry.info.identity.clone(),
        version: entry.info.version.clone(),
        hostname: entry.info.hostname.clone(),
        peer: entry.info.peer,
        epoch: entry.info.epoch,
        connected: entry.connected,
        since_ms: if entry.connected { entry.connected_since_ms } else { entry.last_contact_ms },
        last_contact_ms: entry.last_contact_ms,
        ended: None,
        clock_ahead_ms: entry.skew_ms,
        spool_bytes: entry.spool_bytes,
        front_bytes: entry.front_bytes,
        quarantined_segments: entry.quarantined_segments,
        conflicts: entry.conflicts,
        certificate_expires_ms: Some(entry.certificate_not_after_seconds.saturating_mul(1000))
            .filter(|at_ms| *at_ms > 0),
        books: entry.books.values().map(Books::from).collect(),
    }
}

/// Tells `pegel_node_up` which agents have a session, and forgets agents that are silent for too long.
pub async fn follow_sessions(
    sessions: Arc<SessionTable>,
    node_up: Option<Arc<NodeUp>>,
    forget_after: Duration,
    wall_clock_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    shutdown: CancellationToken,
) {
    let mut known: HashSet<AgentIdentity> = HashSet::new();
    let mut ticks = tokio::time::interval(FOLLOW_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        sessions.forget_silent(wall_clock_ms() - forget_after.as_millis() as i64);
        let Some(node_up) = &node_up else { continue };
        let live: HashSet<AgentIdentity> =
            sessions.fleet().into_iter().filter(|e| e.connected).map(|e| e.info.identity.clone()).collect();
        for identity in live.difference(&known) {
            node_up.connected(identity);
        }
        for identity in known.difference(&live) {
            node_up.disconnected(identity, Instant::now());
        }
        known = live;
    }
}
