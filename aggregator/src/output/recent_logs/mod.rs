//! `recent_logs`: the newest log entries of each node in memory, and those who follow them live (`pegel tail`, the
//! page).
//!
//! It is shown every block of entries that streams past, whatever output it is for; where no output is configured it
//! is an output itself and acknowledges, as [`recent`](super::recent) does for metrics.
//!
//! *Order and repeats.* A batch is looked at once, however many outputs it goes to and however often it is sent. A
//! node's entries are shown as they arrive: its past has no holes, and what a follower is shown live begins behind the
//! past that it was shown.
//!
//! *Bounds.* Of each node the newest entries, [`Settings::max_bytes_per_node`] at most and of all nodes
//! [`Settings::max_bytes`], shared evenly when that is not enough. A follower's queue holds
//! [`Settings::max_queue_bytes`], or one block if that is larger; there are [`Settings::max_followers`] of them. A
//! follower that is slow misses entries and is told how many: delivery never waits for anybody here. What delivery
//! pays is the copy of the last entries of a block that is larger than its node's share, and a push a follower.

mod follow;
mod node;
mod query;
#[cfg(test)]
pub(crate) mod tests;

pub use follow::{Following, Scope, Shown};
pub use query::{BadQuery, Query};

use super::recent::{WallClock, system_clock};
use crate::fanout::{Announcement, Delivery, Output, OutputHealth, Payload, Tap, Verdict};
use crate::session::{AgentInfo, ResolvedBlock};
use follow::Follower;
use node::NodeLog;
use parking_lot::{Mutex, RwLock};
use pegel_proto::batch::{BatchSeq, Outcome, Signal};
use pegel_proto::identity::{AgentIdentity, OutputName, TenantId};
use pegel_proto::logs::DecodedBlock;
use pegel_runtime::metrics::{Counter, Registry};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The most of one node by default: a screen's past, some thousand lines.
pub const DEFAULT_MAX_BYTES_PER_NODE: usize = 256 << 10;
/// The most entries of one node by default.
pub const DEFAULT_MAX_ENTRIES_PER_NODE: usize = 5_000;
/// The most of all nodes by default: 256 nodes with their full share.
pub const DEFAULT_MAX_BYTES: usize = 64 << 20;
/// The most nodes by default, as of `recent`.
pub const DEFAULT_MAX_NODES: usize = super::recent::DEFAULT_MAX_NODES;
/// How many may follow at a time by default. With full queues they hold 32 × 2 MiB.
pub const DEFAULT_MAX_FOLLOWERS: usize = 32;
/// A follower's queue by default: half a second of 5 MB/s.
pub const DEFAULT_MAX_QUEUE_BYTES: usize = 2 << 20;
/// How long a silent node's entries are kept by default.
pub const DEFAULT_FORGET_AFTER: Duration = Duration::from_hours(1);

/// The settings of `recent_logs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name towards agents, where it acknowledges.
    pub name: OutputName,
    /// The most of one node, in bytes.
    pub max_bytes_per_node: usize,
    /// The most of one node, in entries.
    pub max_entries_per_node: usize,
    /// The most of all nodes together, in bytes.
    pub max_bytes: usize,
    /// The most nodes.
    pub max_nodes: usize,
    /// How many may follow at a time; guests of one tenant may take a quarter of the places.
    pub max_followers: usize,
    /// The most that waits for one follower, in bytes.
    pub max_queue_bytes: usize,
    /// How long a silent node's entries are kept.
    pub forget_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: OutputName::parse(OutputName::RECENT).expect("the name is valid"),
            max_bytes_per_node: DEFAULT_MAX_BYTES_PER_NODE,
            max_entries_per_node: DEFAULT_MAX_ENTRIES_PER_NODE,
            max_bytes: DEFAULT_MAX_BYTES,
            max_nodes: DEFAULT_MAX_NODES,
            max_followers: DEFAULT_MAX_FOLLOWERS,
            max_queue_bytes: DEFAULT_MAX_QUEUE_BYTES,
            forget_after: DEFAULT_FORGET_AFTER,
        }
    }
}

/// All places of followers are taken; the number is how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} follow already, which is as many as may: end one, or raise recent.logs.followers")]
pub struct TooMany(pub usize);

/// The nodes in scope, each with the number of its newest block and what is kept of it.
type KeptNodes = Vec<(Arc<AgentIdentity>, u64, Vec<Arc<DecodedBlock>>)>;

/// See the module.
pub struct RecentLogs {
    settings: Settings,
    clock: WallClock,
    nodes: RwLock<HashMap<Arc<AgentIdentity>, Arc<Mutex<NodeLog>>>>,
    bytes: AtomicUsize,
    followers: RwLock<Vec<Arc<Follower>>>,
    unkept_batches: Counter,
    left_out: Counter,
    refused: Counter,
}

impl RecentLogs {
    /// An empty one, on this machine's clock.
    pub fn new(settings: Settings, registry: &Registry) -> Arc<Self> {
        Self::with_clock(settings, registry, system_clock())
    }

    /// An empty one on a clock of the caller's.
    pub fn with_clock(settings: Settings, registry: &Registry, clock: WallClock) -> Arc<Self> {
        let recent = Arc::new(Self {
            settings,
            clock,
            nodes: RwLock::default(),
            bytes: AtomicUsize::new(0),
            followers: RwLock::default(),
            unkept_batches: registry.counter(
                "pegel_tail_unkept_batches_total",
                "Batches of log entries that nobody could follow because the bound on nodes was reached.",
                &[],
            ),
            left_out: registry.counter(
                "pegel_tail_left_out_entries_total",
                "Log entries that a follower was not shown because it was slow. They were delivered all the same.",
                &[],
            ),
            refused: registry.counter(
                "pegel_tail_refused_followers_total",
                "Followers refused because all places were taken.",
                &[],
            ),
        });
        let kept = registry.gauge("pegel_tail_kept_bytes", "Memory of the newest log entries.", &[]);
        let nodes =
            registry.gauge("pegel_tail_nodes", "Nodes whose newest log entries are kept in memory.", &[]);
        let followers =
            registry.gauge("pegel_tail_followers", "Those who follow log entries live at present.", &[]);
        let weak = Arc::downgrade(&recent);
        registry.on_render(move || {
            if let Some(recent) = weak.upgrade() {
                kept.set(recent.bytes.load(Ordering::Relaxed) as f64);
                nodes.set(recent.nodes.read().len() as f64);
                followers.set(recent.followers.read().len() as f64);
            }
        });
        recent
    }

    /// Now, by the clock that it was given.
    pub fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// Lets somebody follow. `guest` is the tenant whose certificate let it in, if one did.
    pub fn follow(self: &Arc<Self>, scope: Scope, guest: Option<TenantId>) -> Result<Following, TooMany> {
        let follower = Arc::new(Follower::new(scope, guest));
        let mut followers = self.followers.write();
        let most = self.settings.max_followers;
        let of_tenant = followers.iter().filter(|f| f.guest.is_some() && f.guest == follower.guest).count();
        let share = most.div_ceil(4);
        if followers.len() >= most || of_tenant >= share {
            self.refused.inc();
            return Err(TooMany(if followers.len() >= most { most } else { share }));
        }
        followers.push(follower.clone());
        Ok(Following::new(self.clone(), follower))
    }

    fn leave(&self, follower: &Arc<Follower>) {
        self.followers.write().retain(|other| !Arc::ptr_eq(other, follower));
    }

    fn kept(&self, scope: &Scope) -> KeptNodes {
        let mut nodes: Vec<_> = self
            .nodes
            .read()
            .iter()
            .filter(|(identity, _)| scope.takes(identity))
            .map(|(identity, node)| (identity.clone(), node.clone()))
            .collect();
        nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
        let kept = |(identity, node): (Arc<AgentIdentity>, Arc<Mutex<NodeLog>>)| {
            let node = node.lock();
            (identity, node.serial, node.kept.iter().cloned().collect())
        };
        nodes.into_iter().map(kept).collect()
    }

    /// Entries a second that a node sent of late.
    pub fn rate(&self, identity: &AgentIdentity) -> f64 {
        let node = self.nodes.read().get(identity).cloned();
        node.map_or(0.0, |node| node.lock().rate(self.now_ms()))
    }

    /// When a node's entries last arrived.
    pub fn heard_ms(&self, identity: &AgentIdentity) -> Option<i64> {
        let node = self.nodes.read().get(identity).cloned()?;
        Some(node.lock().heard_ms)
    }

    /// Forgets nodes that were silent for too long. To be called now and then.
    pub fn sweep(&self) {
        let before_ms = self.now_ms() - self.settings.forget_after.as_millis() as i64;
        self.nodes.write().retain(|_, node| {
            let node = node.lock();
            let stays = node.heard_ms >= before_ms;
            if !stays {
                self.bytes.fetch_sub(node.bytes, Ordering::Relaxed);
            }
            stays
        });
    }

    fn node_or_new(&self, identity: &AgentIdentity) -> Option<(Arc<AgentIdentity>, Arc<Mutex<NodeLog>>)> {
        let found =
            |(identity, node): (&Arc<AgentIdentity>, &Arc<Mutex<NodeLog>>)| (identity.clone(), node.clone());
        if let Some(node) = self.nodes.read().get_key_value(identity).map(found) {
            return Some(node);
        }
        let mut nodes = self.nodes.write();
        if let Some(node) = nodes.get_key_value(identity).map(found) {
            return Some(node);
        }
        if nodes.len() >= self.settings.max_nodes {
            return None;
        }
        let (identity, node) = (Arc::new(identity.clone()), Arc::new(Mutex::default()));
        nodes.insert(identity.clone(), node.clone());
        Some((identity, node))
    }

    /// A node's share of the memory.
    fn share(&self) -> usize {
        let nodes = self.nodes.read().len().max(1);
        self.settings.max_bytes_per_node.min(self.settings.max_bytes / nodes)
    }

    /// Makes all nodes keep to their shares, which are smaller than they were.
    fn shrink(&self) {
        let share = self.share();
        let nodes: Vec<_> = self.nodes.read().values().cloned().collect();
        for node in nodes {
            let mut node = node.lock();
            let had = node.bytes;
            node.forget(share, self.settings.max_entries_per_node);
            self.bytes.fetch_sub(had - node.bytes, Ordering::Relaxed);
        }
    }
}

impl Tap for RecentLogs {
    fn observe(&self, _: &AgentInfo, _: BatchSeq, _: &[ResolvedBlock]) {
        // Entries only.
    }

    fn observe_logs(&self, agent: &AgentInfo, seq: BatchSeq, block: &Arc<DecodedBlock>) {
        let Some((identity, node)) = self.node_or_new(&agent.identity) else {
            self.unkept_batches.inc();
            return;
        };
        let (now_ms, share) = (self.now_ms(), self.share());
        let mut node = node.lock();
        if !node.is_new(agent.epoch, seq) {
            return;
        }
        node.heard(now_ms, block.entries().len());
        let had = node.bytes;
        node.keep(block, share, self.settings.max_entries_per_node);
        // Wrapping addition of a difference, which may be negative.
        let before = self.bytes.fetch_add(node.bytes.wrapping_sub(had), Ordering::Relaxed);
        let all = before.wrapping_add(node.bytes.wrapping_sub(had));
        // While the node is locked: who asks for its past sees this block there or in the queue, and knows which.
        for follower in self.followers.read().iter().filter(|follower| follower.scope.takes(&identity)) {
            let left_out = follower.offer(&identity, node.serial, block, self.settings.max_queue_bytes);
            self.left_out.add(left_out);
        }
        drop(node);
        if all > self.settings.max_bytes {
            self.shrink();
        }
    }
}

impl Output for RecentLogs {
    fn announcement(&self) -> Announcement {
        Announcement {
            name: self.settings.name.clone(),
            signal: Signal::Logs,
            accepts_out_of_order: false,
            out_of_order_window_seconds: 0,
        }
    }

    fn submit(&self, delivery: Delivery) {
        let delivered = delivery.payload.records();
        if let Payload::Logs(block) = &delivery.payload {
            self.observe_logs(&delivery.agent, delivery.seq, block);
        }
        let outcome = Outcome { delivered, ..Outcome::default() };
        // Nobody listens any more if the session ended: the agent sends again.
        let _ = delivery.reply.0.send(Verdict::Settled(delivery.seq, outcome));
    }

    fn forget_session(&self, _session: u64) {
        // Nothing is queued.
    }

    fn health(&self) -> OutputHealth {
        let nodes = self.nodes.read().len();
        let detail = format!("in memory, of {nodes} node{}", if nodes == 1 { "" } else { "s" });
        OutputHealth { ok: true, detail }
    }
}
