//! Files that are rotated while they are read.

use crate::world::World;
use crate::writers::{Plan, Rotation, Writer};
use pegel_tests::let_run;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_files_are_rotated_each_line_arrives_once_and_in_order() {
    let Some(world) = World::start("").await else { return };
    let fast = Duration::from_millis(200);
    let slow = Duration::from_millis(900);
    let plans = [
        ("plain", Rotation::Never, slow),
        ("renamed", Rotation::Rename, fast),
        ("truncated", Rotation::CopyTruncate, slow),
        ("removed", Rotation::Remove, slow),
        ("compressed", Rotation::Compress, slow),
    ];
    let writers = plans.map(|(name, rotation, every)| {
        let path = world.file(name);
        (path.clone(), Writer::start(Plan::rotated(path, 500, rotation, every)))
    });
    let_run(Duration::from_secs(10)).await;
    let books = world.check(writers.into_iter().collect()).await;
    assert_eq!((books.dropped(), books.rejected(), books.lost_in_crash), (0, 0, 0), "{books:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_behind_reads_every_generation() {
    let Some(mut world) = World::start(", buffer: {quota: 16MiB, front: 64KiB}").await else { return };
    let path = world.file("behind");
    let writer = Writer::start(Plan::rotated(path.clone(), 2_000, Rotation::Rename, Duration::from_secs(1)));
    let_run(Duration::from_secs(2)).await;
    // The agent stands still while the file is rotated several times.
    world.agent.process().signal(rustix::process::Signal::STOP);
    let_run(Duration::from_secs(4)).await;
    world.agent.process().signal(rustix::process::Signal::CONT);
    let_run(Duration::from_secs(2)).await;
    world.check(vec![(path, writer)]).await;
}
