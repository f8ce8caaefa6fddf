//! Backends that answer errors: to some requests, to some series, or not at all. Nothing is lost but what is refused
//! for good, and that is counted to the sample.

use crate::account::*;
use pegel_tests::exporter::Exporter;
use pegel_tests::fault_proxy::{Fate, FaultProxy};
use pegel_tests::pegel::{Agent, AgentSetup, Site};
use pegel_tests::prometheus::Prometheus;
use pegel_tests::seed;
use pegel_tests::udp_proxy::{Conditions, UdpProxy};
use std::time::Duration;

/// The first of every so many requests meets the fault; the others pass.
fn every(n: u64, fault: Fate) -> impl FnMut(&pegel_tests::fault_proxy::Seen) -> Fate + Send + 'static {
    move |seen| if seen.number % n == 0 { fault.clone() } else { Fate::Forward }
}

fn retry_after(status: u16) -> Fate {
    Fate::Answer { status, retry_after: Some(1), message: "not now".to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_mean_later_lose_nothing() {
    let seed = seed();
    let site = Site::new();
    let Some(prometheus) = Prometheus::start(&site.dir().join("prometheus"), "30h").await else { return };
    let proxy = FaultProxy::start(&prometheus.url(), |_| Fate::Forward).await;
    let out = format!("{}timeout: 1s\n", output(&proxy.url(), Some("30h")));
    let mut aggregator = site.aggregator("one", Some(&out)).await;
    let path = UdpProxy::start(aggregator.address(), seed).await.expect("a proxy");

    // Two nodes; the second has a backlog when the first has none.
    let exporters = [Exporter::start(40).await, Exporter::start(70).await];
    let mut agents: Vec<Agent> = Vec::new();
    for (node, (exporter, address)) in
        exporters.iter().zip([aggregator.address(), path.address()]).enumerate()
    {
        let setup = AgentSetup::scraping(exporter.address(), INTERVAL);
        let mut agent = site.agent(&format!("web-{node}"), &[address], setup);
        agent.start().await;
        agent.connected(SETTLE_WITHIN).await;
        agents.push(agent);
    }
    path.set(Conditions { blocked: true, ..Conditions::default() });
    scraped_more(&exporters[1], 60).await;
    path.set(Conditions::default());

    let faults = [
        ("429 with Retry-After", every(2, retry_after(429))),
        ("429", every(3, Fate::error(429, "slow down"))),
        ("503 with Retry-After", every(4, retry_after(503))),
        ("503", every(2, Fate::error(503, "not now"))),
        ("500", every(3, Fate::error(500, "sorry"))),
        ("no answer after the commit", every(8, Fate::AnswerLate(Duration::from_secs(3)))),
    ];
    let mut met = Vec::new();
    for (what, fault) in faults {
        let before = proxy.requests();
        proxy.set(fault);
        scraped_more(&exporters[0], 25).await;
        met.push((what, proxy.requests() - before));
    }
    // 413: whatever is larger than this is refused, so requests have to be split.
    proxy.set(|seen| if seen.body.len() > 3_000 { Fate::error(413, "too large") } else { Fate::Forward });
    scraped_more(&exporters[0], 25).await;
    proxy.set(|_| Fate::Forward);
    // And the backend is away for both at once.
    aggregator.kill();
    scraped_more(&exporters[0], 20).await;
    aggregator.start().await;
    for (agent, exporter) in agents.iter().zip(&exporters) {
        let books = agent.settled(SETTLE_WITHIN).await;
        println!("faults {met:?}: {} scrapes, {books:?}", exporter.scrapes());
        assert_all_there(&prometheus, exporter, &books, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poisoned_series_is_refused_and_its_neighbours_arrive() {
    let site = Site::new();
    let Some(prometheus) = Prometheus::start(&site.dir().join("prometheus"), "30h").await else { return };
    // A backend that refuses a request whole for one series in it, as many do.
    let proxy = FaultProxy::start(&prometheus.url(), |seen| {
        if seen.speaks_of("series-of-poison") {
            Fate::error(400, "series-of-poison: invalid labels for series")
        } else {
            Fate::Forward
        }
    })
    .await;
    let good = Exporter::start(40).await;
    let bad = Exporter::start(5).await;
    let aggregator = site.aggregator("one", Some(&output(&proxy.url(), Some("30h")))).await;
    let mut setup = AgentSetup::scraping(good.address(), INTERVAL);
    setup.jobs.push(("series-of-poison".to_owned(), bad.address(), INTERVAL));
    let mut agent = site.agent("web-1", &[aggregator.address()], setup);
    agent.start().await;
    scraped(&good, 60).await;
    let books = agent.settled(SETTLE_WITHIN).await;
    let held = held_of(&prometheus, &good).await;
    let missing = pegel_tests::oracle::missing(&held, good.scrapes());
    println!(
        "poison: {} and {} scrapes, {} requests, {books:?}",
        good.scrapes(),
        bad.scrapes(),
        proxy.requests()
    );
    assert!(missing.is_empty(), "{missing:?}; {books:?}");
    let poisoned = (bad.scrapes() + 1) * (bad.series() + REPORT_SERIES);
    assert_eq!((books.rejected(), books.dropped()), (poisoned, 0), "{books:?}");
    let there = samples_of(&prometheus, &good).await + markers(&good);
    assert_eq!(books.arrived(), there, "{books:?}");
    assert_eq!(samples_of(&prometheus, &bad).await, 0);
}
