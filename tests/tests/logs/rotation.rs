//! Files that are rotated while they are read.

use crate::world::World;
use crate::writers::{Plan, Rotation, Writer};
use pegel_tests::let_run;
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
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
    let writers = plans
        .map(|(name, rotation, every)| Writer::start(Plan::rotated(world.file(name), 500, rotation, every)));
    let_run(Duration::from_secs(10)).await;
    world.check_to_the_line(writers.into_iter().collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_behind_reads_every_generation() {
    let Some(mut world) = World::start(", buffer: {quota: 16MiB, front: 64KiB}").await else { return };
    let plan = Plan::rotated(world.file("behind"), 2_000, Rotation::Rename, Duration::from_secs(1));
    let writer = Writer::start(plan);
    let_run(Duration::from_secs(2)).await;
    // The agent stands still while the file is rotated several times.
    world.agent.process().signal(rustix::process::Signal::STOP);
    let_run(Duration::from_secs(4)).await;
    world.agent.process().signal(rustix::process::Signal::CONT);
    let_run(Duration::from_secs(2)).await;
    world.check_to_the_line(vec![writer]).await;
}

/// The bound that docs/logs/files.md states: of a file that is truncated under its writer, all is read that is in the
/// file or in a copy of it. What was written between the copy's end and the truncation is in neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_files_that_are_copied_and_truncated_under_their_writer_all_that_is_in_a_copy_arrives() {
    let Some(world) = World::start("").await else { return };
    let path = world.file("copied");
    let writer = Writer::start(Plan::plain(path.clone(), 5_000));
    let mut copies: Vec<PathBuf> = Vec::new();
    // Up to what the agent takes to read what was written, and beyond.
    let pauses_ms = [0, 5, 20, 50];
    for (nth, pause_ms) in pauses_ms.iter().cycle().take(12).enumerate() {
        let_run(Duration::from_millis(600)).await;
        let copy = PathBuf::from(format!("{}-202601{:02}", path.display(), nth + 1));
        fs::copy(&path, &copy).expect("the file is copied");
        let_run(Duration::from_millis(*pause_ms)).await;
        let file = fs::File::options().write(true).open(&path).expect("the file");
        file.set_len(0).expect("the file is truncated");
        copies.push(copy);
    }
    let_run(Duration::from_secs(1)).await;
    let written = writer.end();
    copies.push(path.clone());
    let readable: Vec<String> =
        copies.iter().map(|copy| String::from_utf8(fs::read(copy).expect("a copy")).expect("text")).collect();
    let all: HashSet<String> = written.lines().map(|(_, line)| line).collect();
    // Where a file was cut, half a line may stand at its end, and the other half at the beginning of the next.
    let whole = |line: &&str| all.contains(*line);
    let kept: u64 = readable.iter().map(|text| text.lines().filter(whole).count() as u64).sum();
    world.settled(kept).await;
    let held = world.held_of(&path, kept).await;
    let mut halves = 0;
    let mut held_lines = held.iter().map(|(_, line)| line.as_str()).filter(|line| {
        let is_whole = all.contains(*line);
        halves += usize::from(!is_whole);
        is_whole
    });
    // All that can be read arrived in its order. What else arrived is in its place too: it was read before the cut.
    let mut early = 0_u64;
    for line in readable.iter().flat_map(|text| text.lines()).filter(whole) {
        let found = held_lines.by_ref().position(|have| have == line);
        early +=
            found.unwrap_or_else(|| panic!("{line:?} is in a copy and did not arrive in its order")) as u64;
    }
    early += held_lines.count() as u64;
    let lost = written.count() - kept - early;
    println!(
        "{} lines, {kept} in copies, {early} of the others read in time, {lost} lost, {halves} halves",
        written.count()
    );
    assert!(lost + early > 0, "nothing was written between a copy and a truncation: this shows nothing");
    assert!(halves <= 2 * copies.len(), "{halves} entries are no line that was written");
    let texts = || held.iter().map(|(_, line)| line);
    let numbered = || texts().filter(|line| line.starts_with("line ") && all.contains(*line));
    assert_eq!(numbered().collect::<HashSet<_>>().len(), numbered().count(), "lines came twice");
}
