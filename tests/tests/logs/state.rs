//! The state directory: full, read-only, damaged.

use crate::world::{SETTLE_WITHIN, World};
use crate::writers::{Plan, Writer};
use pegel_tests::disk::{SmallDisk, flip, largest_file, remove, truncate};
use pegel_tests::pegel::AgentSetup;
use pegel_tests::{eventually, let_run};
use std::path::Path;
use std::time::Duration;

/// Small enough that some seconds of lines fill it.
const SMALL: &str = ", buffer: {quota: 16MiB, front: 64KiB}";

async fn on_disk(disk: &SmallDisk) -> Option<World> {
    let state_dir = disk.path().join("state");
    World::start_with(SMALL, |setup| {
        let setup = AgentSetup { state_dir: Some(state_dir), ..setup };
        setup.buffer("{segment: 1MiB, keep_free: 1MiB}")
    })
    .await
}

/// Waits until a file waits unread.
async fn waits_unread(world: &World) -> u64 {
    eventually("the file waits unread", SETTLE_WITHIN, || async {
        Some(world.unread_bytes().await).filter(|bytes| *bytes > 512 << 10)
    })
    .await
}

/// How one restart ends the life before.
#[derive(Debug, Clone, Copy)]
enum Ends {
    Well,
    Killed,
}

async fn full_disk(restarts: &[Ends]) {
    let Some(disk) = SmallDisk::mount("16m") else { return };
    let Some(mut world) = on_disk(&disk).await else { return };
    let writer = Writer::start(Plan::plain(world.file("full"), 8_000));
    world.books_when("lines arrive", |books| books.arrived() > 1_000).await;
    world.aggregator.kill();
    world.books_when("lines are on disk", |books| books.spooled > 0).await;
    let filler = disk.fill();
    waits_unread(&world).await;
    for ends in restarts {
        match ends {
            Ends::Well => assert!(world.agent.end().await.success()),
            Ends::Killed => world.agent.kill(),
        }
        world.agent.start().await;
        let unread = waits_unread(&world).await;
        println!("{ends:?} and started on a full disk: {unread} bytes wait");
    }
    std::fs::remove_file(&filler).expect("the filler");
    world.aggregator.start().await;
    if restarts.is_empty() {
        world.check_to_the_line(vec![writer]).await;
    } else {
        world.check(vec![writer]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_files_wait_and_nothing_is_lost() {
    full_disk(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_on_a_full_disk_lose_and_repeat_nothing() {
    full_disk(&[Ends::Well, Ends::Killed, Ends::Killed]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_under_a_link_stops_and_repeats_nothing() {
    let Some(disk) = SmallDisk::mount("16m") else { return };
    let Some(mut world) = on_disk(&disk).await else { return };
    let writer = Writer::start(Plan::plain(world.file("full"), 2_000));
    world.books_when("lines arrive", |books| books.arrived() > 1_000).await;
    let filler = disk.fill();
    // Lines arrive without room on the disk, and what arrived is known after a restart.
    for ends in [Ends::Killed, Ends::Well, Ends::Killed] {
        let before = world.books_when("the agent answers", |_| true).await.arrived();
        world.books_when("lines arrive without room", |books| books.arrived() > before + 4_000).await;
        match ends {
            Ends::Well => assert!(world.agent.end().await.success()),
            Ends::Killed => world.agent.kill(),
        }
        world.agent.start().await;
    }
    let status = world.agent.status().await.expect("it answers");
    assert!(status["logs"]["checkpoints_trouble"].is_null(), "{:#}", status["logs"]);
    std::fs::remove_file(&filler).expect("the filler");
    world.check(vec![writer]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_read_only_state_directory_files_wait_and_nothing_is_lost() {
    let Some(disk) = SmallDisk::mount("16m") else { return };
    disk.remount("ro");
    let Some(mut world) = on_disk(&disk).await else { return };
    let writer = Writer::start(Plan::plain(world.file("read-only"), 8_000));
    // What is sent without a note would be sent once more after a restart: with or without somebody who takes lines.
    waits_unread(&world).await;
    let status = world.agent.status().await.expect("it answers");
    assert!(status["logs"]["checkpoints_trouble"].is_string(), "{:#}", status["logs"]);
    world.aggregator.kill();
    disk.remount("rw");
    world.aggregator.start().await;
    world.books_when("lines arrive", |books| books.arrived() > 10_000).await;
    // From now on a restart is one like any other.
    world.agent.kill();
    world.agent.start().await;
    world.check(vec![writer]).await;
}

/// The newest segment of the spool of logs.
fn newest_segment(state_dir: &Path) -> std::path::PathBuf {
    let segments = std::fs::read_dir(state_dir.join("logs/spool/segments")).expect("segments");
    let newest = segments.flatten().map(|entry| entry.path()).max();
    newest.expect("a segment")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_damaged_segments_only_what_is_counted_is_missing() {
    let small = |setup: AgentSetup| setup.buffer("{segment: 1MiB}");
    let Some(mut world) = World::start_with(", buffer: {front: 64KiB}", small).await else { return };
    let writer = Writer::start(Plan::plain(world.file("damaged"), 12_000));
    world.books_when("lines arrive", |books| books.arrived() > 1_000).await;
    world.aggregator.kill();
    let damages = [
        (truncate as fn(&Path), Ends::Well),
        (flip, Ends::Well),
        (remove, Ends::Killed),
        (truncate, Ends::Killed),
        (
            |segment| {
                std::fs::remove_dir_all(segment.ancestors().nth(2).expect("a segment")).expect("removed");
            },
            Ends::Well,
        ),
    ];
    for (nth, (damage, ends)) in damages.into_iter().enumerate() {
        let before = world.books_when("the agent answers", |_| true).await.spooled;
        world.books_when("more is on disk", |books| books.spooled > before + 25_000).await;
        // What is damaged is to be what nobody reads again: all that was read is stored.
        writer.write_up_to(0);
        world.books_when("all is on disk", |books| books.in_front == 0).await;
        let_run(Duration::from_millis(500)).await;
        world.books_when("all is on disk", |books| books.in_front == 0).await;
        match ends {
            Ends::Well => assert!(world.agent.end().await.success()),
            Ends::Killed => world.agent.kill(),
        }
        let file = largest_file(&newest_segment(world.agent.state_dir())).expect("a database");
        println!("damage {nth}, {ends:?}: {}", file.display());
        damage(&file);
        world.agent.start().await;
        writer.write_up_to(u64::MAX);
    }
    world.books_when("lines go on", |books| books.in_front > 0).await;
    world.aggregator.start().await;
    let written = writer.end();
    let books = world.settled(written.count()).await;
    let quarantine = world.agent.state_dir().join("logs/spool/quarantine");
    let quarantined = std::fs::read_dir(quarantine).map_or(0, Iterator::count);
    let lost = books.dropped() + books.lost_in_crash;
    println!("{quarantined} set aside, {books:?}");
    let (missing, stretches) = world.missing_of(&written, lost).await;
    println!("{} lines, {missing} missing in {stretches} stretches", written.count());
    assert!(quarantined >= 3 && books.dropped["damaged"] > 0);
    assert_eq!((missing, books.rejected()), (lost, 0), "{books:?}");
    assert_eq!(books.dropped.len(), 1, "{books:?}");
    assert_eq!(books.arrived(), written.count() - missing, "{books:?}");
}
