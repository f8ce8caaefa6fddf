//! Files that look alike: the same beginning, the same inode, next to nothing in them, the same lines.

use crate::world::World;
use crate::writers::{Plan, Rotation, Writer, Written};
use pegel_tests::let_run;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// More than the agent compares of a beginning (1 KiB).
const HEADER: u64 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_that_begin_alike_are_each_read_once() {
    let Some(world) = World::start("").await else { return };
    let plans = [
        ("renamed", 200, Rotation::Rename, 200),
        ("removed", 200, Rotation::Remove, 500),
        ("truncated", 200, Rotation::CopyTruncate, 900),
        ("compressed", 200, Rotation::Compress, 900),
        // Tiny ones: one or two lines each.
        ("tiny-renamed", 5, Rotation::Rename, 200),
        ("tiny-removed", 5, Rotation::Remove, 200),
    ];
    let numbered = plans.into_iter().map(|(name, rate, rotation, every)| {
        let plan = Plan::rotated(world.file(name), rate, rotation, Duration::from_millis(every));
        Writer::start(Plan { header: if rate > 5 { HEADER } else { 0 }, ..plan })
    });
    // And files of which one is as the other, byte for byte.
    let same = [Rotation::Rename, Rotation::Remove].into_iter().map(|rotation| {
        let plan =
            Plan::rotated(world.file(&format!("{rotation:?}")), 0, rotation, Duration::from_millis(300));
        Writer::start(Plan { header: 3, ..plan })
    });
    let writers: Vec<Writer> = numbered.chain(same).collect();
    let_run(Duration::from_secs(8)).await;
    world.check_to_the_line(writers).await;
}

/// Writes a file anew until it has the inode that it had; whether it got it.
fn write_with_inode(path: &Path, text: &str, inode: u64) -> bool {
    let mut in_the_way = Vec::new();
    let mut reused = false;
    for nth in 0..64 {
        fs::write(path, text).expect("a file");
        reused = fs::metadata(path).expect("a file").ino() == inode;
        if reused {
            break;
        }
        // It keeps the number that it got, so that the next one gets another.
        let aside = path.with_file_name(format!("aside-{nth}"));
        fs::hard_link(path, &aside).expect("a link");
        fs::remove_file(path).expect("removed");
        in_the_way.push(aside);
    }
    if !reused {
        fs::write(path, text).expect("a file");
    }
    in_the_way.iter().for_each(|path| fs::remove_file(path).expect("removed"));
    reused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_got_the_inode_of_one_that_was_read_is_read() {
    let Some(mut world) = World::start("").await else { return };
    // How many lines the first has and the second: it is shorter, as long, longer, and the same byte for byte.
    let files = [("shorter", 100, 50), ("as-long", 100, 100), ("longer", 100, 150), ("same", 0, 0)];
    let mut written = Vec::new();
    let mut reused = 0;
    for killed in [false, true] {
        let of = |name: &str| {
            let path = world.file(&format!("{name}-{killed}"));
            Plan { header: HEADER, ..Plan::plain(path, 0) }
        };
        let plans = files.map(|(name, first, second)| (of(name), first, first + second));
        for (plan, first, all) in &plans {
            fs::write(&plan.path, plan.content(0..*first)).expect("a file");
            written.push(Written::by_hand(plan.clone(), *all, vec![0, *first]));
        }
        let so_far: u64 = written.iter().map(Written::count).sum();
        let second: u64 = plans.iter().map(|(plan, first, all)| plan.count(*first..*all, 1)).sum();
        world.settled(so_far - second).await;
        if killed {
            world.agent.kill();
        } else {
            assert!(world.agent.end().await.success());
        }
        for (plan, first, all) in &plans {
            let inode = fs::metadata(&plan.path).expect("a file").ino();
            fs::remove_file(&plan.path).expect("removed");
            reused += u32::from(write_with_inode(&plan.path, &plan.content(*first..*all), inode));
        }
        world.agent.start().await;
    }
    println!("{reused} of {} files got the inode of the one before", 2 * files.len());
    assert!(reused > 0, "no file got the inode of the one before: this file system can't show it");
    world.check_written(written).await;
}
