//! Starts, reloads and ends: what is away stops no start, a bad file changes nothing, an end loses nothing; and
//! certificates that change while everything runs.

use crate::account::*;
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use pegel_runtime::pki::{DEFAULT_LEAF_LIFETIME, Existing};
use pegel_tests::exporter::Exporter;
use pegel_tests::oracle::missing;
use pegel_tests::pegel::{AgentSetup, Site};
use pegel_tests::process::Process;
use pegel_tests::prometheus::Prometheus;
use pegel_tests::{binary, eventually, let_run};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_away_stops_no_start_and_an_end_loses_nothing() {
    let site = Site::new();
    let Some(mut prometheus) = Prometheus::start(&site.dir().join("prometheus"), "30h").await else { return };
    prometheus.stop();
    let exporter = Exporter::start(40).await;
    // Backend and aggregator are away: both start, and the agent collects.
    let mut aggregator = site.aggregator("one", Some(&output(&prometheus.url(), Some("30h")))).await;
    aggregator.kill();
    let mut agent =
        site.agent("web-1", &[aggregator.address()], AgentSetup::scraping(exporter.address(), INTERVAL));
    agent.start().await;
    scraped(&exporter, 15).await;
    aggregator.start().await;
    agent.connected(SOON).await;

    // A bad file on SIGHUP changes nothing and says so.
    let good = std::fs::read_to_string(agent.config()).expect("a configuration");
    std::fs::write(agent.config(), "aggregator: {addresses: 7}\nscrap: {}\n").expect("a file");
    agent.hangup();
    eventually("the bad file is spoken of", SOON, || async {
        agent_log(&site, "web-1").contains("scrap").then_some(())
    })
    .await;
    let (status, words) = agent.reload().await.expect("it answers");
    assert!(status >= 400 && words.contains("scrap"), "{status} {words}");
    std::fs::write(agent.config(), &good).expect("a file");
    scraped_more(&exporter, 10).await;

    // SIGTERM with the backend still away: everything waits on the disk.
    assert!(agent.end().await.success());
    let served = exporter.scrapes();
    let mut inspect = Command::new(binary("pegel-agent"));
    inspect.args(["buffer", "inspect", "--json", "--config"]).arg(agent.config());
    let listing = inspect.output().expect("it runs");
    let listing: serde_json::Value = serde_json::from_slice(&listing.stdout).expect("JSON");
    assert!(!listing["segments"].as_array().expect("a list").is_empty(), "{listing:#}");
    prometheus.start_again().await;
    agent.start().await;
    scraped_more(&exporter, 10).await;

    // SIGTERM of everything under load.
    for _ in 0..3 {
        assert!(agent.end().await.success());
        agent.start().await;
        scraped_more(&exporter, 5).await;
        assert!(aggregator.end().await.success());
        scraped_more(&exporter, 3).await;
        aggregator.start().await;
        agent.connected(SOON).await;
    }
    let books = agent.settled(SETTLE_WITHIN).await;
    let held = held_of(&prometheus, &exporter).await;
    let missing = missing(&held, exporter.scrapes());
    println!(
        "ends: {} scrapes ({served} before the first), missing {missing:?}, {books:?}",
        exporter.scrapes()
    );
    // A scrape under way at a SIGTERM is broken off: served, and never collected.
    assert!(missing.len() <= 4, "{missing:?}; {books:?}");
    assert!(held.partial.is_empty(), "{:?}", held.partial);
    assert_eq!((books.dropped(), books.rejected(), books.lost_in_crash), (0, 0, 0), "{books:?}");
    assert_eq!(samples_of(&prometheus, &exporter).await + markers(&exporter), books.arrived(), "{books:?}");
}

fn agent_log(site: &Site, node: &str) -> String {
    std::fs::read_to_string(site.dir().join(node).join("pegel-agent.log")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_cannot_be_used_ends_with_78() {
    let dir = tempfile::tempdir().expect("a directory");
    for program in ["pegel-agent", "pegel-aggregator"] {
        let config = dir.path().join(format!("{program}.yaml"));
        std::fs::write(&config, "listen: [\"nonsense\"]\nno_such_key: 1\n").expect("a file");
        let mut command = Command::new(binary(program));
        command.args(["run", "--config"]).arg(&config);
        let mut process = Process::start(program, dir.path(), command);
        let status = process.exited(SOON).await;
        assert_eq!(status.code(), Some(78), "{}", process.log());
        assert!(process.log().contains("no_such_key"), "{}", process.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_agent_is_sent_away_and_a_new_certificate_brings_it_back() {
    let site = Site::new();
    let Some(prometheus) = Prometheus::start(&site.dir().join("prometheus"), "30h").await else { return };
    let exporter = Exporter::start(20).await;
    let aggregator = site.aggregator("one", Some(&output(&prometheus.url(), Some("30h")))).await;
    let mut agent =
        site.agent("web-1", &[aggregator.address()], AgentSetup::scraping(exporter.address(), INTERVAL));
    agent.start().await;
    agent.connected(SOON).await;
    scraped(&exporter, 10).await;

    let certificate = site.dir().join("pki/agents/tests/web-1/cert.pem");
    site.authority().revoke(&certificate).expect("a revocation");
    reload(&aggregator.admin("/-/reload")).await;
    eventually("the revoked agent is sent away", SOON, || async {
        (agent.status().await?["uplink"]["state"] != "connected").then_some(())
    })
    .await;
    scraped_more(&exporter, 20).await;
    // Not a sample of it comes through meanwhile.
    let held = held_of(&prometheus, &exporter).await.complete.len();
    let_run(Duration::from_secs(1)).await;
    assert_eq!(held_of(&prometheus, &exporter).await.complete.len(), held);

    let identity = AgentIdentity {
        tenant: TenantId::parse("tests").expect("a name"),
        node: NodeId::parse("web-1").expect("a name"),
    };
    site.authority().issue_agent(&identity, DEFAULT_LEAF_LIFETIME, Existing::Replace).expect("a certificate");
    reload(&agent.admin("/-/reload")).await;
    agent.connected(SOON).await;
    let books = agent.settled(SETTLE_WITHIN).await;
    println!("revoked and renewed: {} scrapes, {books:?}", exporter.scrapes());
    assert_all_there(&prometheus, &exporter, &books).await;
}

async fn reload(url: &str) {
    let answer = pegel_tests::http::request(hyper::Method::POST, url, "").await;
    assert!(answer.as_ref().is_some_and(|(status, _)| *status == 200), "{answer:?}");
}
