//! The agents that this aggregator knows: those with a session, and those that had one.

use crate::session::AgentInfo;
use parking_lot::Mutex;
use pegel_proto::identity::AgentIdentity;
use pegel_proto::{caps, wire};
use rustls_pki_types::CertificateDer;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, watch};

/// How many balances of one agent are kept: three signals and a score of outputs. More would be a peer's fault.
const MAX_BOOKS: usize = 64;
/// How many reasons of one balance are kept.
const MAX_REASONS: usize = 32;
/// How many agents without a session are remembered, some KiB each.
const MAX_REMEMBERED: usize = 50_000;
/// A session that takes another epoch's place is a conflict of identities when the one before was heard from this
/// recently, in milliseconds: a replaced machine is gone for longer, and a wiped state directory takes a restart.
const CONFLICT_WITHIN_MS: i64 = 15_000;

/// What is known of one agent.
#[derive(Debug, Clone)]
pub struct FleetEntry {
    /// Who it is, as of its last session.
    pub info: Arc<AgentInfo>,
    /// Whether it has a session now.
    pub connected: bool,
    /// When its last session began, in milliseconds since the Unix epoch.
    pub connected_since_ms: i64,
    /// When it was last heard from (a heartbeat or a batch).
    pub last_contact_ms: i64,
    /// Its balances, by signal and output, as it last told.
    pub books: BTreeMap<(i32, String), wire::Books>,
    /// Bytes in its spool.
    pub spool_bytes: u64,
    /// Bytes in its memory front.
    pub front_bytes: u64,
    /// Segments that it has set aside.
    pub quarantined_segments: u64,
    /// Its log files that are behind, as it last told.
    pub files_behind: Option<wire::FilesBehind>,
    /// How far its clock is ahead of this one, in milliseconds; none before the first heartbeat.
    pub skew_ms: Option<i64>,
    /// Batches received in its last session.
    pub batches: u64,
    /// Samples received in its last session.
    pub samples: u64,
    /// How often another live agent showed the same identity: two machines share a certificate.
    pub conflicts: u64,
    /// When its certificate expires, in seconds since the Unix epoch.
    pub certificate_not_after_seconds: i64,
}

/// A live session.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) info: Arc<AgentInfo>,
    connection: quinn::Connection,
    chain: Arc<Vec<CertificateDer<'static>>>,
    not_after_seconds: i64,
    ended: watch::Sender<bool>,
}

impl Live {
    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub(super) fn close_for_certificate(&self, reason: &str) {
        tracing::warn!(
            tenant = %self.info.identity.tenant, node = %self.info.identity.node, reason,
            "session closed for its certificate"
        );
        self.connection.close(wire::close::CERTIFICATE.into(), reason.as_bytes());
    }

    /// Makes room for a newer session of the same agent: closes this one and waits until its streams have ended,
    /// so that nothing of it is submitted after the newer one's batches.
    pub(super) async fn supersede(&self, reason: &str) {
        self.connection.close(wire::close::SUPERSEDED.into(), reason.as_bytes());
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

/// The fleet, as this aggregator sees it.
#[derive(Debug, Default)]
pub struct SessionTable {
    next_session: AtomicU64,
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    live: HashMap<u64, Live>,
    fleet: HashMap<AgentIdentity, FleetEntry>,
}

/// What a new session takes the place of.
pub(super) struct Registered {
    pub(super) before: Vec<Live>,
    pub(super) conflict: bool,
}

impl SessionTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// All agents that are known, in no order.
    pub fn fleet(&self) -> Vec<FleetEntry> {
        self.state.lock().fleet.values().cloned().collect()
    }

    /// One agent.
    pub fn agent(&self, identity: &AgentIdentity) -> Option<FleetEntry> {
        self.state.lock().fleet.get(identity).cloned()
    }

    /// Forgets agents without a session that were last heard from before `before_ms`; gives who they were.
    pub fn forget_silent(&self, before_ms: i64) -> Vec<AgentIdentity> {
        let mut state = self.state.lock();
        let gone: Vec<_> = state
            .fleet
            .iter()
            .filter(|(_, e)| !e.connected && e.last_contact_ms < before_ms)
            .map(|(identity, _)| identity.clone())
            .collect();
        for identity in &gone {
            state.fleet.remove(identity);
        }
        gone
    }

    /// How many sessions are open.
    pub fn live_count(&self) -> usize {
        self.state.lock().live.len()
    }

    /// Returns when no session is open.
    pub async fn all_ended(&self) {
        loop {
            let notified = self.ended.notified();
            if self.live_count() == 0 {
                return;
            }
            notified.await;
        }
    }

    pub(super) fn draw_session(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn live(&self) -> Vec<Live> {
        self.state.lock().live.values().cloned().collect()
    }

    pub(super) fn expired(&self, now_seconds: i64) -> Vec<Live> {
        let state = self.state.lock();
        state.live.values().filter(|l| l.not_after_seconds <= now_seconds).cloned().collect()
    }

    pub(super) fn register(
        &self,
        info: &Arc<AgentInfo>,
        connection: quinn::Connection,
        chain: Vec<CertificateDer<'static>>,
        not_after_seconds: i64,
        now_ms: i64,
    ) -> Registered {
        let mut state = self.state.lock();
        // More than one when sessions follow each other faster than they end.
        let before: Vec<Live> =
            state.live.values().filter(|l| l.info.identity == info.identity).cloned().collect();
        let live = Live {
            info: info.clone(),
            connection,
            chain: Arc::new(chain),
            not_after_seconds,
            ended: watch::Sender::new(false),
        };
        state.live.insert(info.session, live);
        let old = state.fleet.remove(&info.identity);
        let conflict = before.iter().any(|b| b.info.epoch != info.epoch)
            && old.as_ref().is_some_and(|o| now_ms - o.last_contact_ms < CONFLICT_WITHIN_MS);
        let conflicts = old.as_ref().map_or(0, |o| o.conflicts) + u64::from(conflict);
        // The books go on within an epoch: the agent tells only those that changed.
        let books = old.filter(|o| o.info.epoch == info.epoch).map(|o| o.books).unwrap_or_default();
        if state.fleet.len() >= MAX_REMEMBERED {
            let oldest = state.fleet.values().filter(|e| !e.connected).min_by_key(|e| e.last_contact_ms);
            if let Some(identity) = oldest.map(|e| e.info.identity.clone()) {
                state.fleet.remove(&identity);
            }
        }
        let entry = FleetEntry {
            connected: true,
            connected_since_ms: now_ms,
            last_contact_ms: now_ms,
            books,
            spool_bytes: 0,
            front_bytes: 0,
            quarantined_segments: 0,
            files_behind: None,
            skew_ms: None,
            batches: 0,
            samples: 0,
            conflicts,
            certificate_not_after_seconds: not_after_seconds,
            info: info.clone(),
        };
        state.fleet.insert(info.identity.clone(), entry);
        Registered { before, conflict }
    }

    pub(super) fn end(&self, info: &AgentInfo) {
        let mut state = self.state.lock();
        if let Some(live) = state.live.remove(&info.session) {
            live.ended.send_replace(true);
        }
        if let Some(entry) = state.fleet.get_mut(&info.identity)
            && entry.info.session == info.session
        {
            entry.connected = false;
        }
        drop(state);
        self.ended.notify_waiters();
    }

    pub(super) fn heartbeat(&self, info: &AgentInfo, heartbeat: wire::Heartbeat, skew_ms: i64, now_ms: i64) {
        self.update(info, |entry| {
            entry.last_contact_ms = now_ms;
            entry.skew_ms = Some(skew_ms);
            entry.spool_bytes = heartbeat.spool_bytes;
            entry.front_bytes = heartbeat.front_bytes;
            entry.quarantined_segments = heartbeat.quarantined_segments;
            entry.files_behind = heartbeat.files_behind.map(|mut behind| {
                behind.worst.truncate(caps::MAX_FILES_BEHIND);
                for file in &mut behind.worst {
                    file.path = wire::cut(&file.path, caps::MAX_TOLD_PATH_BYTES);
                }
                behind
            });
            for mut books in heartbeat.books {
                books.dropped.truncate(MAX_REASONS);
                books.rejected.truncate(MAX_REASONS);
                let key = (books.signal, books.output.clone());
                if !books.output.is_empty() {
                    // What was kept for whatever output comes has got one.
                    entry.books.remove(&(books.signal, String::new()));
                }
                if entry.books.len() < MAX_BOOKS || entry.books.contains_key(&key) {
                    entry.books.insert(key, books);
                }
            }
        });
    }

    pub(super) fn batch(&self, info: &AgentInfo, samples: u64, now_ms: i64) {
        self.update(info, |entry| {
            entry.last_contact_ms = now_ms;
            entry.batches += 1;
            entry.samples += samples;
        });
    }

    fn update(&self, info: &AgentInfo, change: impl FnOnce(&mut FleetEntry)) {
        if let Some(entry) = self.state.lock().fleet.get_mut(&info.identity)
            && entry.info.session == info.session
        {
            change(entry);
        }
    }
}
