//! What waits in files is measured, by the oldest byte, and named while it waits.

use super::super::behind::MOST_NAMED;
use super::super::identity::{Kind, Stat};
use super::*;

#[test]
fn the_wait_is_that_of_the_oldest_unread_byte() {
    let stat = Stat { device: 1, inode: 1, born_ns: 1, bytes: 0, links: 1, kind: Kind::File };
    let mut generation = Thread::generation(0, &Path::new("/a").into(), &stat);
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    let seconds = |generation: &known::Generation, now| generation.waits(at(now)).as_secs();
    assert_eq!(seconds(&generation, 5), 0);
    generation.saw(100, at(0));
    generation.saw(200, at(2));
    generation.saw(300, at(3));
    assert_eq!(seconds(&generation, 5), 5);
    generation.offset = 100;
    assert_eq!(seconds(&generation, 5), 3, "the byte behind those that were seen first was seen at 2");
    generation.saw(300, at(6));
    assert_eq!(seconds(&generation, 7), 5);
    generation.offset = 300;
    assert_eq!(seconds(&generation, 8), 0);
    generation.saw(301, at(9));
    assert_eq!(seconds(&generation, 10), 1);
}

#[test]
fn files_that_wait_for_delivery_are_counted_and_those_with_most_are_named() {
    let mut world = World::new(1, 12, "*.log");
    for writer in &mut world.writers {
        writer.write(500, 1_000);
    }
    let deadline = Instant::now() + PATIENCE;
    while world.agent().thread.pending.is_none() {
        assert!(Instant::now() < deadline, "delivery that takes nothing has no room");
        world.turn();
    }
    // What comes now is seen though nothing is read.
    for (nth, writer) in world.writers.iter_mut().enumerate() {
        writer.write(1 + 100 * nth as u64, 1_000);
    }
    world.turn();
    let measured = |world: &mut World, later| {
        world.agent().thread.measure(Instant::now() + Duration::from_secs(later));
        let named = world.agent().registry.render();
        let named = named.lines().filter(|line| line.starts_with("pegel_log_file_lag_bytes{")).count();
        (world.agent().thread.shared.behind.lock().clone(), named)
    };
    let (behind, named) = measured(&mut world, 10);
    assert_eq!((behind.files, behind.worst.len(), named), (12, MOST_NAMED, MOST_NAMED));
    assert!((9.0..60.0).contains(&behind.seconds), "{behind:?}");
    assert!(behind.no_room_seconds.is_some_and(|seconds| seconds >= 9.0), "{behind:?}");
    assert!(behind.worst.is_sorted_by_key(|file| std::cmp::Reverse(file.lag_bytes)), "{behind:?}");
    let status = world.agent().thread.status();
    assert_eq!(behind.bytes, status.files.iter().map(|file| file.lag_bytes).sum::<u64>());
    world.catch_up();
    world.check();
    let (behind, named) = measured(&mut world, 20);
    assert_eq!((behind.files, behind.bytes, named), (0, 0, 0), "{behind:?}");
    assert!(behind.no_room_seconds.is_none());
}
