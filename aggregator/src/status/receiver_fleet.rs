//! The fleet as this aggregator's receiver knows it.

use super::fleet::{AgentStatus, Books, FilesBehind, FleetView, OutputStatus, Reject};
use crate::receiver::{FleetEntry, Outputs, SessionTable};
use parking_lot::Mutex;
use pegel_proto::batch::Rejection;
use pegel_proto::identity::AgentIdentity;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;

/// How many refusals are listed: what fits a page. With messages of at most 512 bytes, 200 take 130 KB.
const MAX_REJECTS: usize = 200;

/// The latest refusals. Agents keep the refused records themselves; this is only a view.
#[derive(Debug, Default)]
pub struct RejectLog(Mutex<VecDeque<Reject>>);

impl RejectLog {
    /// Notes what an output refused of one batch.
    pub fn note(&self, identity: &AgentIdentity, output: &str, rejections: &[Rejection], now_ms: i64) {
        let mut log = self.0.lock();
        for rejection in rejections {
            log.truncate(MAX_REJECTS - 1);
            log.push_front(Reject {
                at_ms: now_ms,
                identity: identity.clone(),
                output: output.to_owned(),
                seq: rejection.seq.0,
                reason: rejection.reason,
                message: rejection.message.clone(),
                count: rejection.count(),
            });
        }
    }

    fn latest(&self) -> Vec<Reject> {
        self.0.lock().iter().cloned().collect()
    }
}

/// Puts the receiver's session table, the outputs and the refusals together.
pub struct ReceiverFleet {
    /// The agents.
    pub sessions: Arc<SessionTable>,
    /// The outputs in force.
    pub outputs: watch::Receiver<Outputs>,
    /// The latest refusals.
    pub rejects: Arc<RejectLog>,
}

impl FleetView for ReceiverFleet {
    fn agents(&self) -> Vec<AgentStatus> {
        self.sessions.fleet().iter().map(status).collect()
    }

    fn rejects(&self) -> Vec<Reject> {
        self.rejects.latest()
    }

    fn outputs(&self) -> Vec<OutputStatus> {
        self.outputs.borrow().iter().map(|output| OutputStatus::of(&**output)).collect()
    }
}

fn status(entry: &FleetEntry) -> AgentStatus {
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
        certificate_expires_ms: (entry.certificate_not_after_seconds > 0)
            .then_some(entry.certificate_not_after_seconds.saturating_mul(1000)),
        books: entry.books.values().map(Books::from).collect(),
        files_behind: entry.files_behind.as_ref().map(FilesBehind::from),
    }
}
