//! Files that can't be opened or read.

use super::*;
use std::os::unix::fs::MetadataExt;

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// So much time passes for files that can't be read.
fn later(world: &mut World, by: Duration) {
    let known = &mut world.agent().thread.known;
    for id in known.ids() {
        if let Some(trouble) = &mut known.generation_mut(id).unwrap().trouble {
            trouble.grow_older(by);
        }
    }
}

fn unreadable(world: &mut World) -> usize {
    world.turn();
    let status = world.agent().thread.status();
    status.files.iter().filter(|file| file.state == "unreadable").count()
}

const SOON: Duration = Duration::from_secs(6);
const LATE: Duration = Duration::from_secs(601);

#[test]
fn a_rotated_file_that_may_not_be_opened_holds_up_the_next_one_for_seconds_and_is_lost_after_minutes() {
    let mut world = World::new(1, 1, "*.log");
    let path = world.writers[0].path.clone();
    world.agent().thread.refused.insert(inode(&path));
    world.writers[0].write(5, 40);
    world.until("the trouble", |world| unreadable(world) == 1);
    let bytes = fs::metadata(&path).unwrap().len();
    world.writers[0].rename();
    world.writers[0].reopen();
    world.writers[0].write(3, 40);
    world.some_turns();
    assert!(world.backend.lines(&path).is_empty(), "the next one waits for a while");
    later(&mut world, SOON);
    world.until("the next one", |world| world.backend.lines(&path).len() == 3);
    assert_eq!(world.agent().counted("pegel_log_lost_bytes_total"), 0);
    later(&mut world, LATE);
    world.until("it to be given up", |world| world.agent().thread.known.len() == 1);
    assert_eq!(world.agent().counted("pegel_log_lost_bytes_total"), bytes);
    assert_eq!(world.agent().counted("pegel_log_lost_files_total"), 1);
    let source = world.agent().checkpoints.sources("app");
    assert_eq!(source.len(), 1, "nothing is remembered of it");
}

#[test]
fn a_file_that_may_not_be_opened_for_long_is_read_when_it_may_and_its_lines_come_once() {
    let mut world = World::new(1, 1, "*.log");
    let path = world.writers[0].path.clone();
    world.writers[0].write(5, 40);
    world.catch_up();
    world.until("it to be closed", |world| world.agent().thread.open.is_empty());
    world.agent().thread.refused.insert(inode(&path));
    world.writers[0].write(5, 40);
    world.until("the trouble", |world| unreadable(world) == 1);
    later(&mut world, LATE);
    world.some_turns();
    assert_eq!(unreadable(&mut world), 1, "what is there is not lost");
    world.agent().thread.refused.clear();
    later(&mut world, Duration::ZERO);
    world.catch_up();
    world.some_turns();
    world.check();
    assert_eq!(unreadable(&mut world), 0);
    assert_eq!(world.agent().counted("pegel_log_lost_bytes_total"), 0);
}

#[test]
fn a_rotated_file_that_may_be_opened_again_in_time_is_read_though_the_next_one_was_before_it() {
    let mut world = World::new(1, 1, "*.log");
    let path = world.writers[0].path.clone();
    world.agent().thread.refused.insert(inode(&path));
    world.writers[0].write(5, 40);
    world.until("the trouble", |world| unreadable(world) == 1);
    world.writers[0].rename();
    world.writers[0].reopen();
    world.writers[0].write(3, 40);
    world.turn();
    later(&mut world, SOON);
    world.until("the next one", |world| world.backend.lines(&path).len() == 3);
    world.agent().thread.refused.clear();
    later(&mut world, Duration::ZERO);
    world.until("the first one", |world| world.backend.lines(&path).len() == 8);
}

#[test]
fn a_compressed_file_that_is_broken_holds_up_the_next_one_for_seconds_and_is_lost_after_minutes() {
    let mut world = World::new(1, 1, "*.log");
    let path = world.writers[0].path.clone();
    world.writers[0].write(2, 40);
    world.catch_up();
    world.settle(usize::MAX);
    world.agent = None;
    world.writers[0].write(20_000, 40);
    world.writers[0].rename();
    world.writers[0].compress(false);
    let packed = suffixed(&path, ".1.gz");
    let whole = fs::read(&packed).unwrap();
    fs::write(&packed, &whole[..whole.len() / 2]).unwrap();
    world.writers[0].reopen();
    world.writers[0].write(3, 40);
    world.start();
    world.until("the trouble", |world| unreadable(world) == 1);
    world.some_turns();
    let read = world.backend.lines(&path).len();
    assert!(read > 1_000, "{read}: what is whole of it is read");
    later(&mut world, SOON);
    let last = format!(" {} ", world.writers[0].next - 1);
    world.until("the next one", |world| world.backend.lines(&path).iter().any(|line| line.contains(&last)));
    later(&mut world, LATE);
    world.until("it to be given up", |world| world.agent().thread.known.len() == 1);
    assert_eq!(world.agent().counted("pegel_log_lost_files_total"), 1);
    fs::remove_file(&packed).unwrap();
    world.some_turns();
    assert_eq!(world.backend.lines(&path).len(), read + 3);
}

#[test]
fn a_compressed_file_that_is_whole_after_all_is_read_on() {
    let mut world = World::new(1, 1, "*.log");
    world.writers[0].write(2, 40);
    world.catch_up();
    world.settle(usize::MAX);
    world.agent = None;
    world.writers[0].write(20_000, 40);
    world.writers[0].rename();
    world.writers[0].compress(false);
    let packed = suffixed(&world.writers[0].path, ".1.gz");
    let whole = fs::read(&packed).unwrap();
    fs::write(&packed, &whole[..whole.len() / 2]).unwrap();
    world.start();
    world.until("the trouble", |world| unreadable(world) == 1);
    appending(&packed).write_all(&whole[whole.len() / 2..]).unwrap();
    later(&mut world, Duration::ZERO);
    world.catch_up();
    world.check();
}

#[test]
fn a_file_that_may_not_be_opened_at_the_start_keeps_its_place() {
    let mut world = World::new(1, 1, "*.log");
    world.writers[0].write(5, 40);
    world.catch_up();
    world.settle(usize::MAX);
    world.agent = None;
    world.writers[0].write(3, 40);
    let path = world.writers[0].path.clone();
    let refused = inode(&path);
    REFUSED_AT_START.set(Some(refused));
    world.start();
    REFUSED_AT_START.set(None);
    world.until("the trouble", |world| unreadable(world) == 1);
    world.agent().thread.refused.clear();
    later(&mut world, Duration::ZERO);
    world.catch_up();
    world.some_turns();
    world.check();
}
