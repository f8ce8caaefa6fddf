//! Agents that submit batches of log entries to an output, and what Loki holds afterwards.

use pegel_aggregator::fanout::{Delivery, Output as _, Payload, Reply, Verdict};
use pegel_aggregator::output::loki::{Loki as LokiOutput, Settings};
use pegel_aggregator::session::AgentInfo;
use pegel_proto::batch::{AgentEpoch, BatchSeq, Outcome, RejectReason};
use pegel_proto::identity::{AgentIdentity, NodeId, OutputName, TenantId};
use pegel_proto::logs::BlockBuilder;
use pegel_runtime::metrics::Registry;
use pegel_tests::loki::{Loki, LokiSetup, Streams};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

pub const SECOND: i64 = 1_000_000_000;
pub const HOUR: i64 = 3_600 * SECOND;
/// How long a verdict may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

pub fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}

/// A Loki and an output that writes to it.
pub struct Rig {
    pub loki: Loki,
    pub output: LokiOutput,
    pub registry: Registry,
    _dir: tempfile::TempDir,
}

impl Rig {
    /// None, with the reason printed, if Loki can't be had.
    pub async fn start(setup: &LokiSetup) -> Option<Self> {
        Self::start_with(setup, |_| {}).await
    }

    pub async fn start_with(setup: &LokiSetup, change: impl FnOnce(&mut Settings)) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let loki = Loki::start_with(dir.path(), setup).await?;
        let registry = Registry::new();
        let output = output(&loki.url(), &loki, &registry, change);
        Some(Self { loki, output, registry, _dir: dir })
    }

    /// The sum of a counter over its labels that have this text.
    pub fn counted(&self, name: &str, with: &str) -> u64 {
        counted(&self.registry, name, with)
    }

    pub fn output_is_well(&self) -> bool {
        self.output.health().ok
    }

    /// What Loki holds of a node's streams in the days around now.
    pub async fn held(&self, tenant: &str, selector: &str) -> Streams {
        let now = now_ns();
        self.loki.streams(tenant, selector, now - 10 * 24 * HOUR, now + 2 * HOUR).await
    }
}

/// An output that pushes to an address and asks Loki itself.
pub fn output(url: &str, loki: &Loki, registry: &Registry, change: impl FnOnce(&mut Settings)) -> LokiOutput {
    let url = format!("{url}/loki/api/v1/push").parse().unwrap();
    let mut settings = Settings::new(OutputName::parse("loki").unwrap(), url);
    settings.query_url = Some(loki.url().parse().unwrap());
    settings.max_backoff = Duration::from_secs(1);
    change(&mut settings);
    LokiOutput::new(settings, registry).unwrap()
}

pub fn counted(registry: &Registry, name: &str, with: &str) -> u64 {
    let text = registry.render();
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(with));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// One entry of a batch.
#[derive(Debug, Clone)]
pub struct Said {
    pub labels: Vec<(String, String)>,
    pub at_ns: i64,
    pub line: String,
    pub metadata: Vec<(String, String)>,
}

/// An entry of the stream `{app=…}`.
pub fn said(app: &str, at_ns: i64, line: impl Into<String>) -> Said {
    Said { labels: vec![("app".to_owned(), app.to_owned())], at_ns, line: line.into(), metadata: Vec::new() }
}

pub struct Agent {
    pub info: Arc<AgentInfo>,
    seq: u64,
    sender: mpsc::UnboundedSender<Verdict>,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
}

impl Agent {
    pub fn new(tenant: &str, node: &str, session: u64) -> Self {
        let (sender, verdicts) = mpsc::unbounded_channel();
        let identity =
            AgentIdentity { tenant: TenantId::parse(tenant).unwrap(), node: NodeId::parse(node).unwrap() };
        let info = AgentInfo {
            identity,
            epoch: AgentEpoch(1),
            session,
            version: String::new(),
            hostname: String::new(),
            peer: ([127, 0, 0, 1], 1).into(),
        };
        Self { info: Arc::new(info), seq: 0, sender, verdicts }
    }

    pub fn submit(&mut self, output: &LokiOutput, entries: &[Said]) {
        self.submit_as(output, entries, false);
    }

    pub fn submit_as(&mut self, output: &LokiOutput, entries: &[Said], sent_before: bool) {
        self.seq += 1;
        let mut builder = BlockBuilder::new();
        for entry in entries {
            let labels = entry.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            let stream = builder.stream(labels).unwrap();
            let metadata: Vec<_> =
                entry.metadata.iter().map(|(k, v)| (builder.key(k).unwrap(), v.as_str())).collect();
            builder.push(stream, entry.at_ns, &entry.line, &metadata);
        }
        let block = Arc::new(builder.finish().unwrap().decode().unwrap());
        output.submit(Delivery {
            agent: self.info.clone(),
            seq: BatchSeq(self.seq),
            sent_before,
            payload: Payload::Logs(block),
            reply: Reply(self.sender.clone()),
        });
    }

    pub async fn verdict(&mut self) -> Verdict {
        tokio::time::timeout(DEADLINE, self.verdicts.recv()).await.expect("a verdict").unwrap()
    }

    /// Whether nothing was said yet.
    pub fn is_silent(&mut self) -> bool {
        self.verdicts.try_recv().is_err()
    }

    /// The next batch's outcome.
    pub async fn outcome(&mut self) -> Outcome {
        match self.verdict().await {
            Verdict::Settled(_, outcome) => outcome,
            other => panic!("{other:?} where a batch was to be settled"),
        }
    }
}

/// Reasons and records of what was refused.
pub fn refused(outcome: &Outcome) -> Vec<(RejectReason, Vec<(u32, u32)>)> {
    outcome.rejections.iter().map(|r| (r.reason, r.records.clone())).collect()
}

/// The lines of the stream of an app, in Loki's order.
pub fn lines<'a>(streams: &'a Streams, app: &str) -> Vec<(i64, &'a str)> {
    let mut found: Vec<_> = streams
        .iter()
        .filter(|(labels, _)| labels.get("app").is_some_and(|found| found == app))
        .flat_map(|(_, entries)| entries.iter().map(|(at, line, _)| (*at, line.as_str())))
        .collect();
    found.sort_unstable();
    found
}
