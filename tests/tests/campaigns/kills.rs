//! SIGKILL, at random moments: of the agent, of the aggregator, of one of two.

use crate::account::*;
use pegel_tests::exporter::Exporter;
use pegel_tests::fault_proxy::{Fate, FaultProxy};
use pegel_tests::oracle::missing;
use pegel_tests::pegel::{AgentSetup, Site};
use pegel_tests::prometheus::Prometheus;
use pegel_tests::udp_proxy::{Conditions, UdpProxy};
use pegel_tests::{eventually, let_run, rounds, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The promise about a kill: what was collected longer before it than this is on disk or delivered. The linger's
/// second, one scrape under way, and as margin what an fsync takes on a busy machine.
const AT_RISK: Duration = Duration::from_millis(1_000 + 100 + 400);

/// A scrape that is served in the instant of the kill may be answered just after it.
const AFTER_KILL: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_loses_at_most_its_last_instant() {
    let mut rng = StdRng::seed_from_u64(seed());
    let site = Site::new();
    let Some(prometheus) = Prometheus::start(&site.dir().join("prometheus"), "30h").await else { return };
    let exporter = Exporter::start(50).await;
    let mut aggregator = site.aggregator("one", Some(&output(&prometheus.url(), Some("30h")))).await;
    let setup = AgentSetup::scraping(exporter.address(), INTERVAL);
    let mut agent = site.agent("web-1", &[aggregator.address()], setup);
    agent.start().await;
    let kills = rounds("PEGEL_KILLS", 20);
    let mut at_risk = BTreeSet::new();
    let mut away = false;
    for _ in 0..kills {
        // Every other time there is nobody to deliver to, so that the disk is in use.
        if rng.random_bool(0.5) != away {
            away = !away;
            if away { aggregator.kill() } else { aggregator.start().await }
        }
        let_run(Duration::from_millis(rng.random_range(300..4_000))).await;
        let _ = agent.books().await;
        let_run(Duration::from_millis(rng.random_range(0..100))).await;
        let killed = Instant::now();
        agent.kill();
        let_run(AFTER_KILL).await;
        let from = killed.checked_sub(AT_RISK).expect("the machine runs longer than that");
        at_risk.extend(exporter.served_within(&(from..killed + AFTER_KILL)));
        agent.start().await;
    }
    if away {
        aggregator.start().await;
    }
    scraped_more(&exporter, 10).await;
    let books = agent.settled(SETTLE_WITHIN).await;
    let held = held_of(&prometheus, &exporter).await;
    let missing = missing(&held, exporter.scrapes());
    let unexpected: Vec<_> = missing.iter().filter(|scrape| !at_risk.contains(scrape)).collect();
    println!(
        "{kills} kills of the agent: {} scrapes served, {} at risk, {} missing, {books:?}",
        exporter.scrapes(),
        at_risk.len(),
        missing.len()
    );
    assert!(unexpected.is_empty(), "lost beyond the last instant before a kill: {unexpected:?}; {books:?}");
    assert!(held.partial.is_empty(), "a batch arrives whole or not at all: {:?}", held.partial);
    assert_eq!((books.dropped(), books.rejected()), (0, 0), "{books:?}");
    // A scrape whose body arrived after the kill was served and never collected: one a kill at most.
    let lost = (missing.len() as u64).saturating_sub(kills as u64) * exporter.series();
    assert!(books.lost_in_crash >= lost, "{lost} samples are missing; {books:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_aggregator_loses_nothing() {
    let mut rng = StdRng::seed_from_u64(seed());
    let site = Site::new();
    let Some(prometheus) = Prometheus::start(&site.dir().join("prometheus"), "30h").await else { return };
    let proxy = FaultProxy::start(&prometheus.url(), |_| Fate::Forward).await;
    let exporter = Exporter::start(50).await;
    let mut aggregator = site.aggregator("one", Some(&output(&proxy.url(), Some("30h")))).await;
    let setup = AgentSetup::scraping(exporter.address(), INTERVAL);
    let mut agent = site.agent("web-1", &[aggregator.address()], setup);
    agent.start().await;
    let kills = rounds("PEGEL_KILLS", 20);
    let (mut between, mut ends) = (0, 0);
    for round in 0..kills {
        delivers(&proxy).await;
        if round % 2 == 0 {
            // Between what the backend took and its answer: the request is committed and the answer held back.
            proxy.set(|_| Fate::AnswerLate(Duration::from_secs(30)));
            delivers(&proxy).await;
            between += 1;
        } else {
            let_run(Duration::from_millis(rng.random_range(0..1_500))).await;
        }
        aggregator.kill();
        proxy.set(|_| Fate::Forward);
        let_run(Duration::from_millis(rng.random_range(0..300))).await;
        let _ = agent.books().await;
        aggregator.start().await;
        if round % 4 != 3 {
            // An agent takes five seconds and its backoff to be back; a restart makes the campaign shorter.
            quiet_moment(&exporter).await;
            assert!(agent.end().await.success());
            agent.start().await;
            ends += 1;
        }
    }
    let books = agent.settled(SETTLE_WITHIN).await;
    println!(
        "{kills} kills of the aggregator, {between} of them before an answer: {} scrapes, {books:?}",
        exporter.scrapes()
    );
    assert_all_there(&prometheus, &exporter, &books, ends).await;
}

/// Waits until the backend has taken a request more.
async fn delivers(proxy: &FaultProxy) {
    let committed = proxy.committed();
    eventually("a request is committed", Duration::from_secs(90), || async {
        (proxy.committed() > committed).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_aggregators_one_is_killed_and_the_path_is_bad() {
    let seed = seed();
    let site = Site::new();
    let Some(prometheus) = Prometheus::start(&site.dir().join("prometheus"), "30h").await else { return };
    let exporter = Exporter::start(50).await;
    let to_prometheus = output(&prometheus.url(), Some("30h"));
    let mut aggregators = [
        site.aggregator("one", Some(&to_prometheus)).await,
        site.aggregator("two", Some(&to_prometheus)).await,
    ];
    let mut proxies = Vec::new();
    for aggregator in &aggregators {
        proxies.push(UdpProxy::start(aggregator.address(), seed).await.expect("a proxy"));
    }
    let bad = Conditions {
        loss: 0.05,
        duplicate: 0.05,
        reorder: 0.1,
        reorder_by: Duration::from_millis(15),
        delay: Duration::from_millis(2),
        ..Conditions::default()
    };
    for proxy in &proxies {
        proxy.set(bad);
    }
    let setup = AgentSetup::scraping(exporter.address(), INTERVAL);
    let addresses: Vec<_> = proxies.iter().map(UdpProxy::address).collect();
    let mut agent = site.agent("web-1", &addresses, setup);
    agent.start().await;
    for killed in [0, 1, 0, 1] {
        scraped_more(&exporter, 20).await;
        aggregators[killed].kill();
        scraped_more(&exporter, 15).await;
        aggregators[killed].start().await;
        agent.connected(Duration::from_secs(60)).await;
    }
    let books = agent.settled(SETTLE_WITHIN).await;
    let lost: u64 = proxies.iter().map(|proxy| proxy.passed().lost).sum();
    println!("two aggregators: {} scrapes, {lost} datagrams lost, {books:?}", exporter.scrapes());
    assert!(lost > 0);
    assert_all_there(&prometheus, &exporter, &books, 0).await;
}
