//! Followers: each has a queue of its own, bounded in bytes. What does not fit is left out and told at its place among
//! the rest; nobody upstream ever waits.

use super::RecentLogs;
use parking_lot::Mutex;
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use pegel_proto::logs::DecodedBlock;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Notify;

/// Whose entries somebody may and wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only this tenant's.
    pub tenant: Option<TenantId>,
    /// Only this node's.
    pub node: Option<NodeId>,
}

impl Scope {
    /// Whether an agent is within it.
    pub fn takes(&self, identity: &AgentIdentity) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| *tenant == identity.tenant)
            && self.node.as_ref().is_none_or(|node| *node == identity.node)
    }
}

/// What a follower is shown.
#[derive(Debug, Clone)]
pub enum Shown {
    /// A block of one agent.
    Block(Arc<AgentIdentity>, Arc<DecodedBlock>),
    /// So many entries were left out here, because the follower was slow. A filter might have left them out too.
    Gap(u64),
}

#[derive(Debug)]
enum Queued {
    Block { identity: Arc<AgentIdentity>, serial: u64, block: Arc<DecodedBlock> },
    Gap(u64),
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Queued>,
    bytes: usize,
}

/// The delivery's end of a follower.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) scope: Scope,
    /// The tenant whose certificate let it in.
    pub(super) guest: Option<TenantId>,
    queue: Mutex<Queue>,
    more: Notify,
}

impl Follower {
    pub(super) fn new(scope: Scope, guest: Option<TenantId>) -> Self {
        Self { scope, guest, queue: Mutex::default(), more: Notify::new() }
    }

    /// Queues a block if there is room; gives the entries that are left out. One block always fits an empty queue.
    pub(super) fn offer(
        &self,
        identity: &Arc<AgentIdentity>,
        serial: u64,
        block: &Arc<DecodedBlock>,
        most_bytes: usize,
    ) -> u64 {
        let bytes = block.resident_bytes();
        let mut queue = self.queue.lock();
        if queue.bytes > 0 && queue.bytes + bytes > most_bytes {
            let left_out = block.entries().len() as u64;
            match queue.items.back_mut() {
                Some(Queued::Gap(gap)) => *gap += left_out,
                _ => queue.items.push_back(Queued::Gap(left_out)),
            }
            return left_out;
        }
        queue.bytes += bytes;
        queue.items.push_back(Queued::Block { identity: identity.clone(), serial, block: block.clone() });
        drop(queue);
        self.more.notify_one();
        0
    }

    fn take(&self) -> Option<Queued> {
        let mut queue = self.queue.lock();
        let item = queue.items.pop_front()?;
        if let Queued::Block { block, .. } = &item {
            queue.bytes -= block.resident_bytes();
        }
        Some(item)
    }
}

/// The reader's end of a follower. It gives its place up when dropped.
pub struct Following {
    recent: Arc<RecentLogs>,
    follower: Arc<Follower>,
    /// The last block of each node that the past had.
    past: HashMap<AgentIdentity, u64>,
}

impl Following {
    pub(super) fn new(recent: Arc<RecentLogs>, follower: Arc<Follower>) -> Self {
        Self { recent, follower, past: HashMap::new() }
    }

    /// What is kept of the nodes in scope, each node's oldest first. What follows begins behind it.
    pub fn past(&mut self) -> Vec<(Arc<AgentIdentity>, Vec<Arc<DecodedBlock>>)> {
        let nodes = self.recent.kept(&self.follower.scope);
        self.past = nodes.iter().map(|(identity, serial, _)| ((**identity).clone(), *serial)).collect();
        nodes.into_iter().map(|(identity, _, blocks)| (identity, blocks)).collect()
    }

    /// What comes next.
    pub async fn next(&mut self) -> Shown {
        loop {
            match self.follower.take() {
                Some(Queued::Gap(entries)) => return Shown::Gap(entries),
                Some(Queued::Block { identity, serial, block }) => {
                    if self.past.get(&*identity).is_none_or(|last| serial > *last) {
                        return Shown::Block(identity, block);
                    }
                }
                None => self.follower.more.notified().await,
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.recent.leave(&self.follower);
    }
}
