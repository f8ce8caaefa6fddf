//! `pegel_node_up{tenant,node}`: 1 while an agent has a session here, 0 after it left.
//!
//! Pushed series vanish with their node, and an alert needs something to fire on. So the aggregator writes this one
//! itself, as a pseudo-agent, through each metrics output. A node that left stays at 0 until it is forgotten, which
//! a staleness marker tells. An aggregator knows only the nodes that it has seen since its own start: the rule
//! `PegelNodeVanished` in packaging/rules/pegel-alerts.yaml covers what a restart forgets. With several aggregators
//! each writes its own series, told apart by the label `aggregator`; a node is up if any of them says so.

use crate::fanout::{Delivery, Output, Payload, Reply, Verdict};
use crate::session::{AgentInfo, ResolvedBlock, ResolvedSeries, ResolvedSet};
use crate::symbols::Symbols;
use parking_lot::Mutex;
use pegel_proto::batch::{AgentEpoch, BatchSeq};
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use pegel_proto::metrics::{Family, MetricType, stale_marker};
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, mpsc};

/// The metric's name.
pub const NODE_UP: &str = "pegel_node_up";
/// The node under which the aggregator writes. No certificate of an agent should have it.
const PSEUDO_NODE: &str = "pegel-aggregator";
/// The pseudo-agent's session. Sessions count from below.
const PSEUDO_SESSION: u64 = u64::MAX;
/// The least time between two writes: a fleet that reconnects at once costs one write a second.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// How the metric is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How often it is written if nothing changes. Below Prometheus' look-back of 5 minutes, and as often as a usual
    /// scrape.
    pub refresh: Duration,
    /// How long a node that left stays at 0. A day: an alert over a night is still there in the morning.
    pub forget_after: Duration,
    /// The label that tells this aggregator's series from another's; none where there is only one.
    pub aggregator: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { refresh: Duration::from_secs(15), forget_after: Duration::from_hours(24), aggregator: None }
    }
}

/// Knows the nodes and writes the metric.
pub struct NodeUp {
    settings: Settings,
    outputs: Vec<Arc<dyn Output>>,
    symbols: Arc<Symbols>,
    family: Arc<Family>,
    fleet: Mutex<Fleet>,
    changed: Notify,
}

/// The nodes of each tenant.
#[derive(Default)]
struct Fleet {
    tenants: BTreeMap<TenantId, Tenant>,
}

struct Tenant {
    nodes: BTreeMap<NodeId, Node>,
    /// The series of all nodes in their order; none after a change.
    set: Option<Arc<ResolvedSet>>,
    last_ms: i64,
    /// One for each output.
    writers: Vec<Writer>,
}

struct Node {
    sessions: usize,
    left: Option<Instant>,
    series: Arc<ResolvedSeries>,
}

/// The pseudo-agent of one tenant at one output. It has one batch under way: what the output can't take now will be
/// out of date when it can.
struct Writer {
    agent: Arc<AgentInfo>,
    seq: BatchSeq,
    under_way: bool,
    sender: mpsc::UnboundedSender<Verdict>,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
}

impl NodeUp {
    /// Writes through these outputs of metrics.
    pub fn new(settings: Settings, outputs: Vec<Arc<dyn Output>>, symbols: Arc<Symbols>) -> Arc<Self> {
        let family = Family {
            name: NODE_UP.into(),
            kind: MetricType::Gauge,
            help: "Whether the node's agent has a session with the aggregator.".into(),
            unit: "".into(),
        };
        let family = Arc::new(family);
        Arc::new(Self { settings, outputs, symbols, family, fleet: Mutex::default(), changed: Notify::new() })
    }

    /// An agent's session began. A node may have several for a while.
    pub fn connected(&self, identity: &AgentIdentity) {
        let mut fleet = self.fleet.lock();
        let tenant = fleet.tenants.entry(identity.tenant.clone()).or_insert_with(|| Tenant {
            nodes: BTreeMap::new(),
            set: None,
            last_ms: i64::MIN,
            writers: self.outputs.iter().map(|_| Writer::new(&identity.tenant)).collect(),
        });
        let node = tenant.nodes.entry(identity.node.clone()).or_insert_with(|| {
            tenant.set = None;
            Node { sessions: 0, left: None, series: self.series(identity) }
        });
        node.sessions += 1;
        if node.sessions == 1 {
            self.changed.notify_one();
        }
    }

    /// An agent's session ended at this instant.
    pub fn disconnected(&self, identity: &AgentIdentity, now: Instant) {
        let mut fleet = self.fleet.lock();
        let tenant = fleet.tenants.get_mut(&identity.tenant);
        let Some(node) = tenant.and_then(|tenant| tenant.nodes.get_mut(&identity.node)) else { return };
        node.sessions = node.sessions.saturating_sub(1);
        if node.sessions == 0 {
            node.left = Some(now);
            self.changed.notify_one();
        }
    }

    /// Writes for good, on changes and otherwise at the interval.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.write(Instant::now(), wall_ms());
            tokio::time::sleep(MIN_INTERVAL.min(self.settings.refresh)).await;
            let rest = self.settings.refresh.saturating_sub(MIN_INTERVAL);
            let _ = tokio::time::timeout(rest, self.changed.notified()).await;
        }
    }

    /// Writes one sample for each node.
    pub fn write(&self, now: Instant, wall_ms: i64) {
        for (name, tenant) in &mut self.fleet.lock().tenants {
            let gone = |node: &Node| {
                node.sessions == 0
                    && node.left.is_some_and(|left| now.duration_since(left) >= self.settings.forget_after)
            };
            let set = tenant.set.get_or_insert_with(|| {
                let series: Vec<_> = tenant.nodes.values().map(|node| node.series.clone()).collect();
                // Membership changes, so that successive sets share series: one lineage.
                Arc::new(ResolvedSet::new(series, 1))
            });
            if set.series.is_empty() {
                continue;
            }
            let values = tenant.nodes.values().map(|node| match node.sessions {
                0 if gone(node) => stale_marker(),
                0 => 0.0,
                _ => 1.0,
            });
            // A clock that was set back must not make the series go back.
            let at_ms = wall_ms.max(tenant.last_ms.saturating_add(1));
            let block = ResolvedBlock { at_ms, set: set.clone(), values: values.collect(), stamps_ms: None };
            tenant.last_ms = at_ms;
            for (writer, output) in tenant.writers.iter_mut().zip(&self.outputs) {
                writer.write(output.as_ref(), &block);
            }
            let before = tenant.nodes.len();
            tenant.nodes.retain(|node, state| {
                let gone = gone(state);
                if gone {
                    tracing::info!(tenant = %name, %node, "forgetting a node that left");
                }
                !gone
            });
            if tenant.nodes.len() != before {
                tenant.set = None;
            }
        }
    }

    /// All nodes that are known, and whether each has a session.
    pub fn nodes(&self) -> HashMap<AgentIdentity, bool> {
        let fleet = self.fleet.lock();
        let nodes = fleet.tenants.iter().flat_map(|(tenant, state)| {
            state.nodes.iter().map(|(node, state)| {
                (AgentIdentity { tenant: tenant.clone(), node: node.clone() }, state.sessions > 0)
            })
        });
        nodes.collect()
    }

    fn series(&self, identity: &AgentIdentity) -> Arc<ResolvedSeries> {
        let mut labels = vec![("__name__", NODE_UP)];
        if let Some(aggregator) = &self.settings.aggregator {
            labels.push(("aggregator", aggregator));
        }
        labels.push(("node", identity.node.as_str()));
        labels.push(("tenant", identity.tenant.as_str()));
        Arc::new(ResolvedSeries::new(&self.symbols, &labels, self.family.clone()))
    }
}

impl Writer {
    fn new(tenant: &TenantId) -> Self {
        let (sender, verdicts) = mpsc::unbounded_channel();
        let node = NodeId::parse(PSEUDO_NODE).expect("the constant is a valid name");
        let agent = AgentInfo {
            identity: AgentIdentity { tenant: tenant.clone(), node },
            epoch: AgentEpoch(0),
            session: PSEUDO_SESSION,
            version: env!("CARGO_PKG_VERSION").into(),
            hostname: String::new(),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        };
        Self { agent: Arc::new(agent), seq: BatchSeq(0), under_way: false, sender, verdicts }
    }

    fn write(&mut self, output: &dyn Output, block: &ResolvedBlock) {
        while let Ok(verdict) = self.verdicts.try_recv() {
            if let Verdict::Settled(..) = verdict {
                self.under_way = false;
            }
        }
        if self.under_way {
            return;
        }
        self.seq = self.seq.next();
        self.under_way = true;
        output.submit(Delivery {
            agent: self.agent.clone(),
            seq: self.seq,
            sent_before: false,
            payload: Payload::Metrics(vec![block.clone()]),
            reply: Reply(self.sender.clone()),
        });
    }
}

fn wall_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::{Announcement, OutputHealth};
    use pegel_proto::batch::{Outcome, Signal};
    use pegel_proto::identity::OutputName;
    use pegel_proto::metrics::is_stale_marker;

    #[derive(Default)]
    struct Recorder {
        deliveries: Mutex<Vec<Delivery>>,
    }

    impl Output for Recorder {
        fn announcement(&self) -> Announcement {
            Announcement {
                name: OutputName::parse("o").unwrap(),
                signal: Signal::Metrics,
                accepts_out_of_order: false,
                out_of_order_window_seconds: 0,
            }
        }

        fn submit(&self, delivery: Delivery) {
            self.deliveries.lock().push(delivery);
        }

        fn forget_session(&self, _: u64) {}

        fn health(&self) -> OutputHealth {
            OutputHealth { ok: true, detail: String::new() }
        }
    }

    struct Rig {
        up: Arc<NodeUp>,
        output: Arc<Recorder>,
        symbols: Arc<Symbols>,
        start: Instant,
    }

    fn rig() -> Rig {
        let (output, symbols) = (Arc::new(Recorder::default()), Arc::new(Symbols::new()));
        let settings = Settings { aggregator: Some("a1".into()), ..Settings::default() };
        let up = NodeUp::new(settings, vec![output.clone()], symbols.clone());
        Rig { up, output, symbols, start: Instant::now() }
    }

    fn identity(tenant: &str, node: &str) -> AgentIdentity {
        AgentIdentity { tenant: TenantId::parse(tenant).unwrap(), node: NodeId::parse(node).unwrap() }
    }

    impl Rig {
        /// Writes so many seconds after the start and gives (tenant/node, time, value) of what was submitted,
        /// settled at once if wanted.
        fn written(&self, seconds: u64, wall_ms: i64, settle: bool) -> Vec<(String, i64, f64)> {
            self.up.write(self.start + Duration::from_secs(seconds), wall_ms);
            let mut all = Vec::new();
            for delivery in self.output.deliveries.lock().drain(..) {
                let Payload::Metrics(blocks) = &delivery.payload else { panic!("samples are written") };
                let block = &blocks[0];
                let view = self.symbols.view();
                for (series, value) in block.set.series.iter().zip(&block.values) {
                    let text = |name| series.value(&view, name).unwrap().to_owned();
                    assert_eq!((text("__name__").as_str(), text("aggregator").as_str()), (NODE_UP, "a1"));
                    all.push((format!("{}/{}", text("tenant"), text("node")), block.at_ms, *value));
                }
                if settle {
                    delivery.reply.0.send(Verdict::Settled(delivery.seq, Outcome::default())).unwrap();
                }
            }
            all
        }
    }

    #[test]
    fn a_node_is_up_while_any_session_lasts_then_down_then_forgotten() {
        let rig = rig();
        let node = identity("acme", "n1");
        rig.up.connected(&node);
        rig.up.connected(&node);
        rig.up.connected(&identity("other", "n1"));
        let both = |v| vec![("acme/n1".to_owned(), 1_000, v), ("other/n1".to_owned(), 1_000, 1.0)];
        assert_eq!(rig.written(0, 1_000, true), both(1.0));
        rig.up.disconnected(&node, rig.start);
        assert_eq!(
            rig.written(15, 16_000, true)[0].2.to_bits(),
            1.0_f64.to_bits(),
            "the newer session lasts"
        );
        rig.up.disconnected(&node, rig.start + Duration::from_secs(20));
        assert_eq!(rig.written(30, 31_000, true)[0].2.to_bits(), 0);
        assert!(!rig.up.nodes()[&node]);
        assert_eq!(rig.written(86_400, 86_400_000, true)[0].2.to_bits(), 0);
        assert!(is_stale_marker(rig.written(86_420, 86_420_000, true)[0].2));
        assert_eq!(rig.written(86_435, 86_435_000, true).len(), 1, "only the other tenant's");
    }

    #[test]
    fn a_node_that_comes_back_is_up_again_and_is_not_forgotten() {
        let rig = rig();
        let node = identity("acme", "n1");
        rig.up.connected(&node);
        rig.up.disconnected(&node, rig.start);
        rig.up.connected(&node);
        assert_eq!(rig.written(90_000, 1, true), [("acme/n1".to_owned(), 1, 1.0)]);
    }

    #[test]
    fn a_clock_set_back_does_not_set_the_series_back() {
        let rig = rig();
        rig.up.connected(&identity("acme", "n1"));
        assert_eq!(rig.written(0, 5_000, true)[0].1, 5_000);
        assert_eq!(rig.written(15, 2_000, true)[0].1, 5_001);
    }

    #[test]
    fn an_output_that_is_away_has_one_batch_under_way() {
        let rig = rig();
        rig.up.connected(&identity("acme", "n1"));
        assert_eq!(rig.written(0, 1, false).len(), 1);
        assert_eq!(rig.written(15, 2, false).len(), 0);
    }
}
