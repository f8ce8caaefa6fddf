//! The remote-write output against real Prometheus and VictoriaMetrics.

mod backends;

use backends::{Agent, Backend, assert_holds, block, now_ms, set};
use pegel_aggregator::fanout::{Output, Verdict};
use pegel_aggregator::node_up::{self, NodeUp};
use pegel_aggregator::output::remote_write::{Protocol, RemoteWrite, Settings};
use pegel_aggregator::session::{ResolvedBlock, ResolvedSeries, ResolvedSet};
use pegel_aggregator::symbols::Symbols;
use pegel_proto::batch::RejectReason;
use pegel_proto::identity::OutputName;
use pegel_runtime::metrics::Registry;
use std::sync::Arc;
use std::time::Instant;

struct Rig {
    output: RemoteWrite,
    symbols: Arc<Symbols>,
    registry: Registry,
}

fn rig(backend: &Backend, protocol: Protocol) -> Rig {
    let settings =
        Settings { protocol, ..Settings::new(OutputName::parse("prom").unwrap(), backend.write_url()) };
    let (symbols, registry) = (Arc::new(Symbols::new()), Registry::new());
    let output = RemoteWrite::new(settings, symbols.clone(), &registry).unwrap();
    Rig { output, symbols, registry }
}

const BOTH: [Protocol; 2] = [Protocol::V1, Protocol::Auto];

#[tokio::test]
async fn what_many_agents_send_is_in_prometheus_to_the_sample() {
    for protocol in BOTH {
        let backend = Backend::prometheus(None).await;
        let rig = rig(&backend, protocol);
        let start = now_ms() - 60_000;
        let instants: Vec<i64> = (0..10).map(|i| start + i * 1_000).collect();
        let mut agents: Vec<_> = (0..5).map(|i| Agent::new("acme", &format!("n{i}"), i)).collect();
        for agent in &mut agents {
            let set = set(&rig.symbols, "sent", agent.info.identity.node.as_str(), 100);
            for at in &instants {
                rig.output.submit(agent.batch(false, vec![block(&set, *at)]));
            }
        }
        for agent in &mut agents {
            for _ in &instants {
                assert_eq!(agent.outcome().await.delivered, 100);
            }
        }
        let found = backend.samples("sent").await;
        assert_eq!(found.len(), 500);
        for agent in &agents {
            assert_holds(&found, "sent", agent.info.identity.node.as_str(), 0..100, &instants);
        }
        assert!(rig.output.health().ok);
    }
}

/// A block of one series at the time of the others.
fn alone(symbols: &Arc<Symbols>, name: &str, at_ms: i64) -> ResolvedBlock {
    let set = set(symbols, name, "poison", 1);
    block(&set, at_ms)
}

#[tokio::test]
async fn poisoned_series_are_refused_with_their_reason_and_the_others_delivered() {
    for protocol in BOTH {
        let backend = Backend::prometheus(None).await;
        let rig = rig(&backend, protocol);
        let now = now_ms();
        let mut agent = Agent::new("acme", "n1", 1);
        let good = set(&rig.symbols, "good", "n1", 200);
        let mut blocks = vec![
            block(&good, now),
            alone(&rig.symbols, "bad_future", now + 3_600_000),
            alone(&rig.symbols, "bad_past_long", now - 2 * 3_600_000),
        ];
        let nameless = ResolvedSeries::new(&rig.symbols, &[("a", "b")], Arc::default());
        let nameless = Arc::new(ResolvedSet::new(vec![Arc::new(nameless)], 77));
        blocks.push(block(&nameless, now));
        // The head's newest sample decides what is too old.
        rig.output.submit(agent.batch(false, vec![block(&set(&rig.symbols, "first", "n1", 1), now)]));
        assert_eq!(agent.outcome().await.delivered, 1);
        rig.output.submit(agent.batch(false, blocks));
        let outcome = agent.outcome().await;
        assert_eq!((outcome.delivered, outcome.held_already), (200, 0), "{outcome:?}");
        let mut refused: Vec<_> = outcome.rejections.iter().map(|r| (r.reason, r.records.clone())).collect();
        refused.sort();
        assert_eq!(
            refused,
            [
                (RejectReason::TooOld, vec![(201, 1)]),
                (RejectReason::TooFarInFuture, vec![(200, 1)]),
                (RejectReason::InvalidLabels, vec![(202, 1)]),
            ],
            "{outcome:?}"
        );
        assert_holds(&backend.samples("good").await, "good", "n1", 0..200, &[now]);
    }
}

#[tokio::test]
async fn without_an_out_of_order_window_each_sample_of_a_backlog_is_too_old_and_costs_few_requests() {
    for protocol in BOTH {
        let backend = Backend::prometheus(None).await;
        let rig = rig(&backend, protocol);
        let now = now_ms();
        let mut fresh = Agent::new("acme", "fresh", 1);
        rig.output.submit(fresh.batch(false, vec![block(&set(&rig.symbols, "first", "fresh", 1), now)]));
        assert_eq!(fresh.outcome().await.delivered, 1);
        let mut agent = Agent::new("acme", "n1", 2);
        let late = set(&rig.symbols, "late", "n1", 500);
        let backlog: Vec<_> = (0..8).map(|i| block(&late, now - 86_400_000 + i * 15_000)).collect();
        rig.output.submit(agent.batch(false, backlog));
        rig.output.submit(agent.batch(false, vec![block(&late, now)]));
        let outcome = agent.outcome().await;
        assert_eq!((outcome.delivered, outcome.held_already), (0, 0));
        assert_eq!(outcome.rejections.len(), 1);
        let rejection = &outcome.rejections[0];
        assert_eq!((rejection.reason, &*rejection.records), (RejectReason::TooOld, &[(0, 4_000)][..]));
        assert_eq!(agent.outcome().await.delivered, 500);
        assert_holds(&backend.samples("late").await, "late", "n1", 0..500, &[now]);
        let requests = rig.requests();
        assert!(requests < 150, "{requests} requests for 4,000 samples");
    }
}

#[tokio::test]
async fn with_an_out_of_order_window_a_backlog_is_delivered_behind_fresh_samples() {
    for protocol in BOTH {
        let backend = Backend::prometheus(Some("30h")).await;
        let rig = rig(&backend, protocol);
        let now = now_ms();
        let mut agent = Agent::new("acme", "n1", 1);
        let late = set(&rig.symbols, "late", "n1", 50);
        let instants: Vec<_> = (0..20).map(|i| now - 86_400_000 + i * 60_000).chain([now]).collect();
        rig.output.submit(agent.batch(false, vec![block(&late, now)]));
        assert_eq!(agent.outcome().await.delivered, 50);
        rig.output.submit(agent.batch(false, instants[..20].iter().map(|at| block(&late, *at)).collect()));
        assert_eq!(agent.outcome().await.delivered, 1_000);
        assert_holds(&backend.samples("late").await, "late", "n1", 0..50, &instants);
    }
}

#[tokio::test]
async fn what_is_sent_again_is_held_already_or_accepted_again_and_stored_once() {
    for protocol in BOTH {
        let backend = Backend::prometheus(None).await;
        let rig = rig(&backend, protocol);
        let start = now_ms() - 60_000;
        let mut agent = Agent::new("acme", "n1", 1);
        let set = set(&rig.symbols, "twice", "n1", 30);
        let instants = [start, start + 1_000, start + 2_000];
        for sent_before in [false, true] {
            for at in instants {
                rig.output.submit(agent.batch(sent_before, vec![block(&set, at)]));
            }
        }
        let mut outcomes = Vec::new();
        for _ in 0..6 {
            let outcome = agent.outcome().await;
            assert_eq!(outcome.rejections, []);
            outcomes.push((outcome.delivered, outcome.held_already));
        }
        assert_eq!(outcomes, [(30, 0), (30, 0), (30, 0), (0, 30), (0, 30), (30, 0)]);
        assert_holds(&backend.samples("twice").await, "twice", "n1", 0..30, &instants);
    }
}

#[tokio::test]
async fn another_value_at_an_instant_is_a_duplicate_even_when_sent_before() {
    for protocol in BOTH {
        let backend = Backend::prometheus(None).await;
        let rig = rig(&backend, protocol);
        let mut agent = Agent::new("acme", "n1", 1);
        let set = set(&rig.symbols, "other", "n1", 3);
        let first = block(&set, now_ms());
        let mut second = first.clone();
        second.values[1] = 42.0;
        rig.output.submit(agent.batch(false, vec![first]));
        assert_eq!(agent.outcome().await.delivered, 3);
        rig.output.submit(agent.batch(true, vec![second]));
        let outcome = agent.outcome().await;
        assert_eq!((outcome.delivered, outcome.held_already), (2, 0));
        assert_eq!(outcome.rejections[0].reason, RejectReason::DuplicateTimestamp);
        assert_eq!(outcome.rejections[0].records, [(1, 1)]);
    }
}

#[tokio::test]
async fn victoria_metrics_is_found_to_speak_one_zero_and_gets_every_sample() {
    let backend = Backend::victoria_metrics().await;
    let rig = rig(&backend, Protocol::Auto);
    let start = now_ms() - 60_000;
    let mut agent = Agent::new("acme", "n1", 1);
    let set = set(&rig.symbols, "vm", "n1", 40);
    let instants = [start, start + 1_000, start + 2_000];
    for at in instants {
        rig.output.submit(agent.batch(false, vec![block(&set, at)]));
        assert_eq!(agent.outcome().await.delivered, 40);
    }
    // What was written is searchable after a moment.
    backend.until("the samples show", async || backend.samples("vm").await.len() == 40).await;
    backend
        .until("all of them", async || {
            backend.samples("vm").await.values().all(|s| s.len() == instants.len())
        })
        .await;
    assert_holds(&backend.samples("vm").await, "vm", "n1", 0..40, &instants);
}

#[tokio::test]
async fn a_receiver_that_is_not_enabled_parks_the_output() {
    let backend = Backend::prometheus(None).await;
    let url = format!("{}/api/v1/nowhere", backend.base).parse().unwrap();
    let settings = Settings::new(OutputName::parse("prom").unwrap(), url);
    let symbols = Arc::new(Symbols::new());
    let output = RemoteWrite::new(settings, symbols.clone(), &Registry::new()).unwrap();
    let mut agent = Agent::new("acme", "n1", 1);
    output.submit(agent.batch(false, vec![block(&set(&symbols, "x", "n1", 3), now_ms())]));
    assert!(matches!(agent.verdict().await, Verdict::Parked(_)));
    assert!(!output.health().ok);
}

#[tokio::test]
async fn node_up_is_written_through_the_output() {
    let backend = Backend::prometheus(None).await;
    let rig = rig(&backend, Protocol::Auto);
    let output: Arc<dyn Output> = Arc::new(rig.output);
    let up = NodeUp::new(node_up::Settings::default(), vec![output], rig.symbols.clone());
    let agent = Agent::new("acme", "n1", 1);
    up.connected(&agent.info.identity);
    let task = tokio::spawn(up.clone().run());
    backend.until("node_up shows", async || !backend.samples("pegel_node_up").await.is_empty()).await;
    up.disconnected(&agent.info.identity, Instant::now());
    let key = "__name__=pegel_node_up,node=n1,tenant=acme";
    let last = async || backend.samples("pegel_node_up").await[key].last().unwrap().1;
    backend.until("it is down", async || last().await < 0.5).await;
    task.abort();
}

impl Rig {
    /// How many requests were made.
    fn requests(&self) -> u64 {
        let text = self.registry.render();
        let counts = text.lines().filter(|line| line.starts_with("pegel_output_requests_total{"));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}
