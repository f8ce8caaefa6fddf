//! What a backend holds, compared with what was served and with what the agent says.

use pegel_tests::exporter::Exporter;
use pegel_tests::oracle::{Holdings, holdings, missing};
use pegel_tests::pegel::Books;
use pegel_tests::prometheus::Prometheus;
use pegel_tests::{eventually, let_run};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The series that the agent adds to a target's own: `up`, duration, samples scraped and left, series added.
pub const REPORT_SERIES: u64 = 5;

/// How long a backlog of a short campaign may take to drain on a machine that does much else.
pub const SETTLE_WITHIN: Duration = Duration::from_secs(60);

/// The scrape interval of campaigns.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// The wall clock in milliseconds.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// What Prometheus holds of an exporter, within two days around now. Panics if it holds anything that was not served,
/// or anything twice.
pub async fn held_of(prometheus: &Prometheus, exporter: &Exporter) -> Holdings {
    held_at(prometheus, &format!("pegel_oracle_total{{instance=\"{}\"}}", exporter.address()), exporter).await
}

/// What Prometheus holds of an exporter under a selector.
pub async fn held_at(prometheus: &Prometheus, selector: &str, exporter: &Exporter) -> Holdings {
    let raw = prometheus.raw(selector, 96, now_ms() + 48 * 3_600_000).await.expect("Prometheus answers");
    holdings(&raw, exporter.series(), exporter.scrapes()).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// All samples that Prometheus holds of an exporter's target, those of the report included.
pub async fn samples_of(prometheus: &Prometheus, exporter: &Exporter) -> u64 {
    let selector = format!("{{instance=\"{}\"}}", exporter.address());
    let raw = prometheus.raw(&selector, 96, now_ms() + 48 * 3_600_000).await.expect("Prometheus answers");
    raw.values().map(|samples| samples.len() as u64).sum()
}

/// The staleness markers that a target leaves behind when it is taken away.
pub fn markers(exporter: &Exporter) -> u64 {
    exporter.series() + REPORT_SERIES
}

/// Checks that nothing is missing and that the books say so, to the sample. A scrape that was under way when its agent
/// was asked to end is broken off: it was served and never collected. `ends` is how many there may be.
pub async fn assert_all_there(prometheus: &Prometheus, exporter: &Exporter, books: &Books, ends: usize) {
    let held = held_of(prometheus, exporter).await;
    let missing = missing(&held, exporter.scrapes());
    assert!(missing.len() <= ends, "of {} scrapes, {missing:?} are missing; {books:?}", exporter.scrapes());
    assert!(held.partial.is_empty(), "{:?}", held.partial);
    assert_eq!((books.dropped(), books.rejected(), books.lost_in_crash), (0, 0, 0), "{books:?}");
    let there = samples_of(prometheus, exporter).await;
    assert_eq!(there + markers(exporter), books.arrived(), "{there} samples are there; {books:?}");
}

/// Waits for this many scrapes in all.
pub async fn scraped(exporter: &Exporter, scrapes: u64) {
    let within = INTERVAL * scrapes as u32 * 5 + Duration::from_secs(30);
    eventually(&format!("{scrapes} scrapes were served"), within, || async {
        (exporter.scrapes() >= scrapes).then_some(())
    })
    .await;
}

/// Waits for this many scrapes more.
pub async fn scraped_more(exporter: &Exporter, scrapes: u64) {
    scraped(exporter, exporter.scrapes() + scrapes).await;
}

/// Waits for a moment without a scrape under way: one that a SIGTERM breaks off is served and never collected.
pub async fn quiet_moment(exporter: &Exporter) {
    let before = exporter.scrapes();
    while exporter.scrapes() == before {
        let_run(INTERVAL / 20).await;
    }
    let_run(INTERVAL / 5).await;
}

/// The YAML of an output towards a base URL.
pub fn output(base: &str, window: Option<&str>) -> String {
    let window = window.map(|window| format!("out_of_order_window: {window}\n")).unwrap_or_default();
    format!("url: {base}/api/v1/write\nbackoff_max: 500ms\n{window}")
}
