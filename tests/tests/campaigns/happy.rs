//! Everything works: values, `up`, staleness, `pegel_node_up`, and the same into VictoriaMetrics.

use crate::account::*;
use pegel_tests::exporter::Exporter;
use pegel_tests::http::{escape, get};
use pegel_tests::oracle::{holdings, missing};
use pegel_tests::pegel::{AgentSetup, Site};
use pegel_tests::process::Process;
use pegel_tests::prometheus::{Prometheus, RawSamples};
use pegel_tests::{backend, eventually, free_port};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A field of /proc/meminfo in bytes.
fn meminfo(field: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
    let line = text.lines().find(|line| line.starts_with(field)).expect("the field is there");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("a number") * 1024.0
}

/// A line of /proc/stat.
fn stat(field: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/stat").expect("/proc is mounted");
    let line = text.lines().find(|line| line.starts_with(field)).expect("the field is there");
    line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_and_exporter_arrive_and_what_goes_away_says_so() {
    let site = Site::new();
    let Some(prometheus) = Prometheus::start(&site.dir().join("prometheus"), "0s").await else { return };
    let exporter = Exporter::start(20).await;
    let passing = Exporter::start(3).await;
    let aggregator = site.aggregator("one", Some(&output(&prometheus.url(), None))).await;
    let mut setup = AgentSetup::scraping(exporter.address(), INTERVAL);
    setup.jobs.push(("passing".to_owned(), passing.address(), Duration::from_millis(200)));
    setup.host = Some(Duration::from_secs(1));
    let mut agent = site.agent("web-1", &[aggregator.address()], setup);
    let forks_before = stat("processes");
    agent.start().await;

    // The host's own series are what /proc says beside them.
    eventually("host series are there", SOON, || prometheus.value("node_forks_total{job=\"node\"}")).await;
    let forks = prometheus.value("node_forks_total{job=\"node\"}").await.unwrap();
    assert!(forks_before <= forks && forks <= stat("processes"), "{forks_before} ≤ {forks}");
    for (series, is) in [
        ("node_memory_MemTotal_bytes", meminfo("MemTotal:")),
        ("node_memory_SwapTotal_bytes", meminfo("SwapTotal:")),
        ("node_boot_time_seconds", stat("btime")),
        (
            "count(count by (cpu) (node_cpu_seconds_total))",
            std::thread::available_parallelism().unwrap().get() as f64,
        ),
        ("node_uname_info", 1.0),
        (
            "min(node_scrape_collector_success{collector=~\"cpu|diskstats|filesystem|loadavg|meminfo|netdev|stat\"})",
            1.0,
        ),
    ] {
        assert_eq!(prometheus.value(series).await, Some(is), "{series}");
    }
    let load: f64 =
        std::fs::read_to_string("/proc/loadavg").unwrap().split(' ').next().unwrap().parse().unwrap();
    let told = prometheus.value("node_load1").await.unwrap();
    assert!((told - load).abs() <= 1.0, "load {told} beside {load}");

    // A target's report, and the identity that the certificate gives.
    let up = prometheus.query("up{job=\"passing\"}").await.unwrap();
    assert_eq!(up[0]["value"][1], "1", "{up:?}");
    assert_eq!(
        (&up[0]["metric"]["tenant"], &up[0]["metric"]["node"]),
        (&"tests".into(), &"web-1".into()),
        "{up:?}"
    );
    assert_eq!(prometheus.value("scrape_samples_scraped{job=\"passing\"}").await, Some(3.0));
    assert!(prometheus.value("scrape_duration_seconds{job=\"passing\"}").await.unwrap() < 1.0);
    eventually("the node is up", SOON, || async {
        (prometheus.value("pegel_node_up{node=\"web-1\"}").await == Some(1.0)).then_some(())
    })
    .await;

    // An exporter that stops is down, and its series are stale at once.
    passing.stop();
    eventually("it is down", SOON, || async {
        (prometheus.value("up{job=\"passing\"}").await == Some(0.0)).then_some(())
    })
    .await;
    assert_eq!(
        prometheus.query("pegel_oracle_total{job=\"passing\"}").await.unwrap(),
        Vec::<serde_json::Value>::new()
    );
    assert!(!prometheus.query("pegel_oracle_total{job=\"oracle\"}").await.unwrap().is_empty());

    // All that was served is there, and after the end of the agent its node is known to be down.
    scraped(&exporter, 50).await;
    let status = agent.end().await;
    assert!(status.success(), "{status}");
    let held = held_of(&prometheus, &exporter).await;
    assert_eq!(missing(&held, exporter.scrapes()), Vec::<u64>::new());
    eventually("the node is down", SOON, || async {
        (prometheus.value("pegel_node_up{node=\"web-1\"}").await == Some(0.0)).then_some(())
    })
    .await;
    let stale = prometheus.query("pegel_oracle_total{job=\"oracle\"}").await.unwrap();
    println!("happy: {} scrapes; after the end {} series are not stale", exporter.scrapes(), stale.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victoria_metrics_gets_all_of_it_too() {
    let Some(program) = backend("victoria-metrics") else { return };
    let site = Site::new();
    let port = free_port();
    let mut command = Command::new(program);
    command
        .arg(format!("-storageDataPath={}", site.dir().join("vm").display()))
        .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
        .arg("-retentionPeriod=10y");
    let victoria = Process::start("victoria-metrics", site.dir(), command);
    let base = format!("http://127.0.0.1:{port}");
    eventually("VictoriaMetrics answers", SOON, || get_text(&base, "/health")).await;
    let exporter = Exporter::start(30).await;
    let aggregator = site.aggregator("one", Some(&output(&base, Some("30h")))).await;
    let setup = AgentSetup::scraping(exporter.address(), INTERVAL);
    let mut agent = site.agent("web-1", &[aggregator.address()], setup);
    agent.start().await;
    scraped(&exporter, 30).await;
    victoria.signal(rustix::process::Signal::STOP);
    scraped_more(&exporter, 20).await;
    victoria.signal(rustix::process::Signal::CONT);
    scraped_more(&exporter, 20).await;
    let books = agent.settled(SETTLE_WITHIN).await;
    assert_eq!((books.dropped(), books.rejected(), books.lost_in_crash), (0, 0, 0), "{books:?}");
    // Its export gives raw samples; it shows what was written after at most a few seconds.
    eventually("everything is there", SOON, || async {
        let path = format!("/api/v1/export?match%5B%5D={}", escape("pegel_oracle_total"));
        let text = get_text(&base, &path).await?;
        let held = holdings(&exported(&text), exporter.series(), exporter.scrapes())
            .unwrap_or_else(|e| panic!("{e}"));
        missing(&held, exporter.scrapes()).is_empty().then_some(())
    })
    .await;
    println!("victoria-metrics: {} scrapes, {books:?}", exporter.scrapes());
}

async fn get_text(base: &str, path: &str) -> Option<String> {
    get(&format!("{base}{path}")).await
}

/// VictoriaMetrics' export, without its staleness markers.
fn exported(text: &str) -> BTreeMap<String, RawSamples> {
    let series = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    series
        .map(|series| {
            let at = series["timestamps"].as_array().expect("a list").iter();
            let samples = at.zip(series["values"].as_array().expect("a list"));
            let samples = samples.filter_map(|(at, value)| Some((at.as_i64()?, value.as_f64()?))).collect();
            (series["metric"].to_string(), samples)
        })
        .collect()
}
