//! Tests of the output against a model of Loki.

mod cost;
mod crowded;
mod directed;
mod encoding;
mod http;
mod model;
mod simulation;

use super::limits::Limits;
use super::shard::ShardSettings;
use super::streams::StreamLimits;
use crate::fanout::{Delivery, Payload, Reply, Verdict};
use crate::session::AgentInfo;
use pegel_proto::batch::{AgentEpoch, BatchSeq};
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use pegel_proto::logs::{BlockBuilder, DecodedBlock};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The instant of the first entries.
const START_NS: i64 = 1_700_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3_600 * SECOND;

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

/// An entry: the stream `{app=…}`, time, line.
type Said = (&'static str, i64, String);

fn block(entries: &[Said]) -> Arc<DecodedBlock> {
    let mut builder = BlockBuilder::new();
    for (app, at_ns, line) in entries {
        let name = if *app == "bad-name" { "a.b" } else { "app" };
        let stream = builder.stream([(name, *app)].into_iter()).unwrap();
        builder.push(stream, *at_ns, line, &[]);
    }
    Arc::new(builder.finish().unwrap().decode().unwrap())
}

fn delivery(
    agent: &Arc<AgentInfo>,
    seq: u64,
    sent_before: bool,
    entries: &[Said],
    reply: &mpsc::UnboundedSender<Verdict>,
) -> Delivery {
    let payload = Payload::Logs(block(entries));
    Delivery { agent: agent.clone(), seq: BatchSeq(seq), sent_before, payload, reply: Reply(reply.clone()) }
}

fn settings() -> ShardSettings {
    ShardSettings {
        max_request_bytes: 10_000,
        linger: Duration::from_millis(5),
        min_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(10),
        max_retry_after: Duration::from_mins(1),
        park_probe: Duration::from_secs(15),
        stream_limits: StreamLimits { rate: 2_000, burst: 8_000 },
        limits: Limits::default(),
        stream_patience: Duration::from_secs(30),
        max_waiting_bytes: 1 << 20,
        can_ask: true,
    }
}
