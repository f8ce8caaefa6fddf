//! Tests of the output against a model of the backends that it knows.

mod answers;
mod encoding;
mod forgetting;
mod http;
mod model;
mod simulation;

use crate::fanout::{Delivery, Payload, Reply, Verdict};
use crate::session::{AgentInfo, ResolvedBlock, ResolvedSeries, ResolvedSet};
use crate::symbols::Symbols;
use pegel_proto::batch::{AgentEpoch, BatchSeq};
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use pegel_proto::metrics::{Family, MetricType};
use std::sync::Arc;
use tokio::sync::mpsc;

/// The seeds of a random test: the same `rounds` each time, so that a change is judged by what it changes.
/// `PEGEL_ROUNDS` asks for more of them, `PEGEL_SEED` for one other, both for so many from another on.
fn seeds(rounds: u64) -> std::ops::Range<u64> {
    let number = |name| {
        let text: Option<String> = std::env::var(name).ok();
        text.map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    };
    let (first, asked) = (number("PEGEL_SEED"), number("PEGEL_ROUNDS"));
    let rounds = asked.unwrap_or(if first.is_some() { 1 } else { rounds });
    let first = first.unwrap_or(0);
    first..first.saturating_add(rounds)
}

/// The instant of the first samples.
const START_MS: i64 = 1_700_000_000_000;

fn agent_info(node: &str, session: u64) -> Arc<AgentInfo> {
    let identity =
        AgentIdentity { tenant: TenantId::parse("acme").unwrap(), node: NodeId::parse(node).unwrap() };
    Arc::new(AgentInfo {
        identity,
        epoch: AgentEpoch(1),
        session,
        version: String::new(),
        hostname: String::new(),
        peer: ([127, 0, 0, 1], 1).into(),
    })
}

fn series(symbols: &Arc<Symbols>, labels: &[(&str, &str)]) -> Arc<ResolvedSeries> {
    let family = Family { name: "f".into(), kind: MetricType::Gauge, help: "Help.".into(), unit: "".into() };
    Arc::new(ResolvedSeries::new(symbols, labels, Arc::new(family)))
}

/// Series `NAME{i=…, node=NODE}`.
fn named(symbols: &Arc<Symbols>, name: &str, node: &str, count: usize) -> Vec<Arc<ResolvedSeries>> {
    (0..count)
        .map(|i| series(symbols, &[("__name__", name), ("i", &i.to_string()), ("node", node)]))
        .collect()
}

fn block(set: &Arc<ResolvedSet>, at_ms: i64) -> ResolvedBlock {
    let values = (0..set.series.len()).map(|i| (at_ms % 100_000) as f64 + i as f64 / 8.0).collect();
    ResolvedBlock { at_ms, set: set.clone(), values, stamps_ms: None }
}

fn delivery(
    agent: &Arc<AgentInfo>,
    seq: u64,
    sent_before: bool,
    blocks: Vec<ResolvedBlock>,
    reply: &mpsc::UnboundedSender<Verdict>,
) -> Delivery {
    let payload = Payload::Metrics(blocks);
    Delivery { agent: agent.clone(), seq: BatchSeq(seq), sent_before, payload, reply: Reply(reply.clone()) }
}
