//! The state directory: full, read-only, damaged.

use crate::account::*;
use pegel_tests::disk::{SmallDisk, flip, largest_file, remove, truncate};
use pegel_tests::exporter::Exporter;
use pegel_tests::oracle::missing;
use pegel_tests::pegel::{AgentSetup, Aggregator, Site};
use pegel_tests::prometheus::Prometheus;
use pegel_tests::{eventually, let_run};
use std::path::Path;
use std::time::Duration;

async fn aggregator(site: &Site, prometheus: &Prometheus) -> Aggregator {
    site.aggregator("one", Some(&output(&prometheus.url(), Some("30h")))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_drops_what_is_counted_and_recovers() {
    let Some(disk) = SmallDisk::mount("24m") else { return };
    let site = Site::new();
    let Some(prometheus) = Prometheus::start(&site.dir().join("prometheus"), "30h").await else { return };
    let exporter = Exporter::start(200).await;
    let mut aggregator = aggregator(&site, &prometheus).await;
    let mut setup = AgentSetup::scraping(exporter.address(), INTERVAL)
        .buffer("{front: 64KiB, segment: 1MiB, quota: 16MiB, keep_free: 1MiB}");
    setup.state_dir = Some(disk.path().join("state"));
    let mut agent = site.agent("web-1", &[aggregator.address()], setup);
    agent.start().await;
    agent.connected(SETTLE_WITHIN).await;
    scraped(&exporter, 10).await;
    aggregator.kill();
    scraped_more(&exporter, 20).await;
    let filler = disk.fill();
    scraped_more(&exporter, 60).await;
    let books = eventually("something is dropped", SETTLE_WITHIN, || async {
        agent.books().await.filter(|books| books.dropped() > 0)
    })
    .await;
    println!("disk full: {books:?}");
    // A start on a full disk works as well.
    quiet_moment(&exporter).await;
    agent.end().await;
    let before = exporter.scrapes();
    agent.start().await;
    assert!(
        agent.books().await.is_some_and(|books| books.dropped() > 0),
        "what was dropped is known after a start"
    );
    scraped_more(&exporter, 10).await;
    std::fs::remove_file(&filler).expect("the filler");
    scraped_more(&exporter, 10).await;
    aggregator.start().await;
    let books = agent.settled(SETTLE_WITHIN).await;
    let held = held_of(&prometheus, &exporter).await;
    let missing = missing(&held, exporter.scrapes());
    println!(
        "disk full: {} scrapes, {} missing, restart at {before}, {books:?}",
        exporter.scrapes(),
        missing.len()
    );
    let lost = missing.len() as u64 * (exporter.series() + REPORT_SERIES);
    assert!(held.partial.is_empty(), "{:?}", held.partial);
    assert_eq!((books.rejected(), books.lost_in_crash), (0, 0), "{books:?}");
    assert_eq!(books.dropped(), lost, "{books:?}");
    assert_eq!(samples_of(&prometheus, &exporter).await + markers(&exporter), books.arrived(), "{books:?}");
    let newest = exporter.scrapes();
    assert!(held.complete.contains(&newest), "after it recovered, {newest} arrived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_state_directory_stops_nothing() {
    let Some(disk) = SmallDisk::mount("16m") else { return };
    let site = Site::new();
    let Some(prometheus) = Prometheus::start(&site.dir().join("prometheus"), "30h").await else { return };
    let exporter = Exporter::start(50).await;
    let mut aggregator = aggregator(&site, &prometheus).await;
    disk.remount("ro");
    let mut setup = AgentSetup::scraping(exporter.address(), INTERVAL).buffer("{front: 64KiB}");
    setup.state_dir = Some(disk.path().join("state"));
    let mut agent = site.agent("web-1", &[aggregator.address()], setup);
    agent.start().await;
    agent.connected(SETTLE_WITHIN).await;
    scraped(&exporter, 20).await;
    // While somebody takes the data, a disk is not needed.
    let early = exporter.scrapes();
    eventually("data arrives without a disk", SETTLE_WITHIN, || async {
        held_of(&prometheus, &exporter).await.complete.contains(&early).then_some(())
    })
    .await;
    aggregator.kill();
    // Longer than the front holds.
    let books = eventually("something is dropped", SETTLE_WITHIN * 2, || async {
        agent.books().await.filter(|books| books.dropped() > 0)
    })
    .await;
    println!("read-only: {books:?}");
    disk.remount("rw");
    aggregator.start().await;
    scraped_more(&exporter, 10).await;
    let books = agent.settled(SETTLE_WITHIN).await;
    let held = held_of(&prometheus, &exporter).await;
    let missing = missing(&held, exporter.scrapes());
    let per_scrape = exporter.series() + REPORT_SERIES;
    println!("read-only: {} scrapes, {} missing, {books:?}", exporter.scrapes(), missing.len());
    assert_eq!(books.dropped(), missing.len() as u64 * per_scrape, "{books:?}");
    assert_eq!(samples_of(&prometheus, &exporter).await + markers(&exporter), books.arrived(), "{books:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_segments_are_set_aside_and_counted() {
    let site = Site::new();
    let Some(prometheus) = Prometheus::start(&site.dir().join("prometheus"), "30h").await else { return };
    let exporter = Exporter::start(300).await;
    let mut aggregator = aggregator(&site, &prometheus).await;
    let setup = AgentSetup::scraping(exporter.address(), INTERVAL).buffer("{front: 64KiB, segment: 1MiB}");
    let mut agent = site.agent("web-1", &[aggregator.address()], setup);
    agent.start().await;
    agent.connected(SETTLE_WITHIN).await;
    scraped(&exporter, 10).await;
    aggregator.kill();
    let mut cuts = 0;
    for damage in [truncate as fn(&Path), flip, remove] {
        scraped_more(&exporter, 25).await;
        quiet_moment(&exporter).await;
        assert!(agent.end().await.success());
        let Some(file) = largest_file(&agent.state_dir().join("spool/segments")) else {
            panic!("no segment")
        };
        println!("damaging {}", file.display());
        damage(&file);
        cuts += 1;
        agent.start().await;
        let_run(Duration::from_millis(300)).await;
        let _ = agent.books().await;
    }
    aggregator.start().await;
    scraped_more(&exporter, 10).await;
    let books = agent.settled(SETTLE_WITHIN).await;
    let held = held_of(&prometheus, &exporter).await;
    let missing = missing(&held, exporter.scrapes());
    let quarantined =
        std::fs::read_dir(agent.state_dir().join("spool/quarantine")).map_or(0, Iterator::count);
    println!(
        "{cuts} damages: {} scrapes, {} missing, {quarantined} set aside, {books:?}",
        exporter.scrapes(),
        missing.len()
    );
    let per_scrape = exporter.series() + REPORT_SERIES;
    assert!(quarantined > 0 && !missing.is_empty());
    assert_eq!(books.dropped(), missing.len() as u64 * per_scrape, "{missing:?}; {books:?}");
    assert_eq!(books.dropped.keys().collect::<Vec<_>>(), ["damaged"], "{books:?}");
    assert_eq!((books.rejected(), books.lost_in_crash), (0, 0), "{books:?}");
    assert_eq!(samples_of(&prometheus, &exporter).await + markers(&exporter), books.arrived(), "{books:?}");
}
