//! A backend that is away for a day, in accelerated time, and a wall clock that jumps.

use crate::account::*;
use pegel_tests::exporter::Exporter;
use pegel_tests::oracle::{holdings, missing};
use pegel_tests::pegel::{Agent, AgentSetup, Books, Site};
use pegel_tests::prometheus::Prometheus;

const HOUR_MS: i64 = 3_600_000;

/// How often the accelerated clock moves on; the agent follows a jump within two scrapes.
const JUMP_EVERY_SCRAPES: u64 = 3;

/// A day without the backend, from 25 h in the past on, so that nothing lies in the future: 24 jumps of an hour.
/// Gives the exporter and the final books.
async fn a_day_away(prometheus: &mut Prometheus, site: &Site, window: Option<&str>) -> (Exporter, Books) {
    let exporter = Exporter::start(30).await;
    let aggregator = site.aggregator("one", Some(&output(&prometheus.url(), window))).await;
    let setup = AgentSetup::scraping(exporter.address(), INTERVAL);
    let mut agent: Agent = site.agent("web-1", &[aggregator.address()], setup);
    agent.shift_clock(-25 * HOUR_MS);
    agent.start().await;
    scraped(&exporter, 10).await;
    prometheus.stop();
    for hour in 1..=24 {
        agent.shift_clock((hour - 25) * HOUR_MS);
        scraped_more(&exporter, JUMP_EVERY_SCRAPES).await;
        let _ = agent.books().await;
        if hour == 12 {
            // Half the day is on disk only.
            quiet_moment(&exporter).await;
            agent.end().await;
            agent.start().await;
        }
    }
    prometheus.start_again().await;
    scraped_more(&exporter, 5).await;
    let books = agent.settled(SETTLE_WITHIN).await;
    (exporter, books)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_away_loses_nothing_with_a_window() {
    let site = Site::new();
    let Some(mut prometheus) = Prometheus::start(&site.dir().join("prometheus"), "30h").await else { return };
    let (exporter, books) = a_day_away(&mut prometheus, &site, Some("30h")).await;
    println!("a day away, window 30h: {} scrapes, {books:?}", exporter.scrapes());
    let held = held_of(&prometheus, &exporter).await;
    let missing = missing(&held, exporter.scrapes());
    assert!(missing.is_empty(), "{missing:?}; {books:?}");
    assert_eq!((books.dropped(), books.rejected(), books.lost_in_crash), (0, 0, 0), "{books:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_away_without_a_window_is_counted_as_too_old() {
    let site = Site::new();
    let Some(mut prometheus) = Prometheus::start(&site.dir().join("prometheus"), "0s").await else { return };
    // Somebody else has written what is new: without a window, what is older than an hour before that is refused.
    let newest = Exporter::start(1).await;
    let other = site.aggregator("other", Some(&output(&prometheus.url(), None))).await;
    let mut fresh = site.agent("web-2", &[other.address()], AgentSetup::scraping(newest.address(), INTERVAL));
    fresh.start().await;
    scraped(&newest, 5).await;
    fresh.settled(SETTLE_WITHIN).await;
    let (exporter, books) = a_day_away(&mut prometheus, &site, None).await;
    let held = held_of(&prometheus, &exporter).await;
    let missing = missing(&held, exporter.scrapes());
    println!("a day away, no window: {} scrapes, {} missing, {books:?}", exporter.scrapes(), missing.len());
    assert!(!missing.is_empty());
    assert_eq!((books.dropped(), books.lost_in_crash), (0, 0), "{books:?}");
    assert_eq!(books.rejected.keys().collect::<Vec<_>>(), ["too_old"], "{books:?}");
    let there = samples_of(&prometheus, &exporter).await;
    assert_eq!(
        there + markers(&exporter) + books.rejected(),
        books.collected,
        "{there} are there; {books:?}"
    );
    let refused = missing.len() as u64 * (exporter.series() + REPORT_SERIES);
    assert_eq!(books.rejected(), refused, "{books:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_steps_lose_no_sample_that_is_not_counted() {
    let site = Site::new();
    let Some(prometheus) = Prometheus::start(&site.dir().join("prometheus"), "30h").await else { return };
    let exporter = Exporter::start(30).await;
    let aggregator = site.aggregator("one", Some(&output(&prometheus.url(), Some("30h")))).await;
    let setup = AgentSetup::scraping(exporter.address(), INTERVAL);
    let mut agent = site.agent("web-1", &[aggregator.address()], setup);
    // Twelve hours in the past, so that +6 h is no future.
    let start = -12 * HOUR_MS;
    agent.shift_clock(start);
    agent.start().await;
    let mut followed = Vec::new();
    for step in [0, 6, 0, -6, 0] {
        agent.shift_clock(start + step * HOUR_MS);
        scraped_more(&exporter, 3).await;
        let clock = agent.status().await.expect("it answers")["clock"].clone();
        followed.push((step, clock["steps"].clone(), clock["offset_seconds"].clone()));
        scraped_more(&exporter, 12).await;
    }
    let books = agent.settled(SETTLE_WITHIN).await;
    println!("clock steps {followed:?}: {} scrapes, {books:?}", exporter.scrapes());
    // Values are in the order of their scrapes within each stretch of time; over a step back they need not be.
    let raw = prometheus.raw("pegel_oracle_total", 96, now_ms() + 48 * HOUR_MS).await.expect("it answers");
    let mut there = 0;
    for (labels, mut samples) in raw {
        there += samples.len() as u64;
        samples.sort_by(|a, b| a.1.total_cmp(&b.1));
        holdings(&[(labels, samples)].into(), 1, exporter.scrapes())
            .unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    let collected = exporter.scrapes() * exporter.series();
    assert_eq!((books.dropped(), books.lost_in_crash), (0, 0), "{books:?}");
    assert!(there + books.rejected() >= collected, "{there} of {collected} are there; {books:?}");
    // +6 h is followed within two scrapes.
    assert!(followed[1].2.as_f64().unwrap().abs() < 1.0, "{followed:?}");
}
