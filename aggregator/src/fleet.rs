//! Follows the sessions for those who want to know who is there.

use crate::node_up::NodeUp;
use crate::receiver::SessionTable;
use pegel_proto::identity::AgentIdentity;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often sessions are compared with what `pegel_node_up` says.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

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
