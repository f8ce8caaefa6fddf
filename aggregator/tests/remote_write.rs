//! The remote-write output against real Prometheus and VictoriaMetrics.

mod backends;

use backends::{Agent, Backend, assert_holds, block, now_ms, set};
use pegel_aggregator::fanout::Output as _;
use pegel_aggregator::output::remote_write::{Protocol, RemoteWrite, Settings};
use pegel_aggregator::session::{ResolvedBlock, ResolvedSeries, ResolvedSet};
use pegel_aggregator::symbols::Symbols;
use pegel_proto::batch::RejectReason;
use pegel_proto::identity::OutputName;
use pegel_runtime::metrics::Registry;
use std::sync::Arc;

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
