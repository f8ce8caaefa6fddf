//! From sessions to outputs. The receiver submits each batch to the one output that its stream is for and tells the
//! agent the outcome; `recent` is shown what streams past.

use crate::session::{AgentInfo, ResolvedBlock};
use pegel_proto::batch::{BatchSeq, Outcome, Signal};
use pegel_proto::identity::{OutputName, TenantId};
use pegel_proto::logs::DecodedBlock;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// One batch on its way to one output.
#[derive(Debug)]
pub struct Delivery {
    /// Whose it is.
    pub agent: Arc<AgentInfo>,
    /// The batch.
    pub seq: BatchSeq,
    /// An earlier send may have arrived, so "have that already" answers may be about ourselves.
    pub sent_before: bool,
    /// Its content.
    pub payload: Payload,
    /// Where the outcome goes.
    pub reply: Reply,
}

/// What a batch holds.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Samples. Record indices count through all blocks.
    Metrics(Vec<ResolvedBlock>),
    /// Log entries. Record indices count its entries. Tenant and node are the agent's: its labels are the source's
    /// alone.
    Logs(Arc<DecodedBlock>),
}

impl Payload {
    /// How many records: samples or entries.
    pub fn records(&self) -> u64 {
        match self {
            Self::Metrics(blocks) => blocks.iter().map(|block| block.values.len() as u64).sum(),
            Self::Logs(block) => block.entries().len() as u64,
        }
    }

    /// Its samples; none if it holds something else.
    pub fn into_blocks(self) -> Vec<ResolvedBlock> {
        match self {
            Self::Metrics(blocks) => blocks,
            Self::Logs(_) => Vec::new(),
        }
    }
}

/// Tells a session what became of its batches. If the session is gone, nobody listens: the agent will send again.
#[derive(Debug, Clone)]
pub struct Reply(pub mpsc::UnboundedSender<Verdict>);

/// What an output says of a session's batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The batch is done: accepted by the backend, or its refused records are listed. Batches of one session are
    /// settled in the order of their numbers.
    Settled(BatchSeq, Outcome),
    /// The output takes nothing at all at present (wrong URL, credentials, tenant); the reason is for the operator.
    Parked(String),
    /// It takes batches again.
    Resumed,
}

/// What an output announces to agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Its name.
    pub name: OutputName,
    /// What it takes.
    pub signal: Signal,
    /// Whether fresh samples may overtake a backlog.
    pub accepts_out_of_order: bool,
    /// How far behind a series' newest sample the backend takes one, in seconds; 0 is unknown.
    pub out_of_order_window_seconds: u64,
}

/// The health of an output, for `/health/ready` and the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputHealth {
    /// Whether the last requests succeeded.
    pub ok: bool,
    /// What is wrong, or a word on what is well.
    pub detail: String,
}

/// An output. A batch that was submitted is settled exactly once, or its session ends before.
pub trait Output: Send + Sync + 'static {
    /// What agents are told.
    fn announcement(&self) -> Announcement;
    /// Takes a batch. Never waits: bytes in flight are bounded by the acknowledgement window of each session.
    fn submit(&self, delivery: Delivery);
    /// Drops what is queued for a session that ended; requests under way go on, their outcome unheard.
    fn forget_session(&self, session: u64);
    /// How it is doing.
    fn health(&self) -> OutputHealth;
    /// What is wrong for whom, each with how long it has been so; nothing is known of an output that does not tell.
    fn troubles(&self) -> BTreeMap<TenantId, String> {
        BTreeMap::new()
    }
}

/// Is shown what streams past, whatever becomes of it: the recent values behind the page.
pub trait Tap: Send + Sync + 'static {
    /// A batch was decoded. Batches of several streams of one agent may repeat; their numbers tell.
    fn observe(&self, agent: &AgentInfo, seq: BatchSeq, blocks: &[ResolvedBlock]);
    /// A batch of log entries was decoded.
    fn observe_logs(&self, agent: &AgentInfo, seq: BatchSeq, block: &Arc<DecodedBlock>);
}

/// Several that are shown the same, in order.
pub struct Taps(pub Vec<Arc<dyn Tap>>);

impl Tap for Taps {
    fn observe(&self, agent: &AgentInfo, seq: BatchSeq, blocks: &[ResolvedBlock]) {
        self.0.iter().for_each(|tap| tap.observe(agent, seq, blocks));
    }

    fn observe_logs(&self, agent: &AgentInfo, seq: BatchSeq, block: &Arc<DecodedBlock>) {
        self.0.iter().for_each(|tap| tap.observe_logs(agent, seq, block));
    }
}
