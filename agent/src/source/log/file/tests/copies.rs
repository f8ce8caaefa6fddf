//! Copies that a truncation follows, where the pattern takes their names too.

use super::*;

/// A copy is made, more is written and read, then the truncation comes.
fn copied_and_read_before_the_truncation(lines: u64) -> World {
    let mut world = World::new(1, 1, "*");
    world.writers[0].write(lines, 40);
    world.catch_up();
    world.writers[0].copy();
    world.until("the copy to be seen", |world| world.agent().thread.known.len() == 2);
    world.writers[0].write(3, 40);
    world.catch_up();
    world.settle(usize::MAX);
    world
}

fn once(world: &mut World) {
    world.agent().thread.rescan = true;
    world.some_turns();
    world.catch_up();
    world.some_turns();
    world.check();
}

#[test]
fn a_copy_of_what_was_read_is_not_read_again_whatever_becomes_of_it() {
    // Less and more than a print.
    for lines in [4, 100] {
        for what in ["moved", "killed", "killed before", "removed"] {
            let mut world = copied_and_read_before_the_truncation(lines);
            if what == "killed before" {
                if lines < 50 {
                    // A copy of less than a KiB is not recognised then.
                    continue;
                }
                world.kill();
            }
            world.writers[0].truncate();
            if world.agent.is_none() {
                world.start();
            }
            world.turn();
            world.writers[0].write(4, 40);
            world.catch_up();
            match what {
                "moved" => world.writers[0].shift(),
                "killed" => {
                    world.settle(usize::MAX);
                    world.kill();
                    world.start();
                }
                "removed" => {
                    fs::remove_file(&world.writers[0].path).unwrap();
                    world.until("it to be forgotten", |world| world.agent().thread.known.len() == 1);
                    world.agent().thread.missing.clear();
                }
                _ => {}
            }
            once(&mut world);
        }
    }
}

#[test]
fn what_is_appended_to_a_copy_that_was_read_is_read() {
    let mut world = copied_and_read_before_the_truncation(100);
    world.writers[0].truncate();
    world.some_turns();
    let copy = suffixed(&world.writers[0].path, ".1");
    appending(&copy).write_all(b"later\n").unwrap();
    world.until("the line", |world| world.backend.lines(&copy) == ["later"]);
}

#[test]
fn a_copy_that_nobody_truncates_is_not_read_when_its_original_is_gone() {
    let mut world = copied_and_read_before_the_truncation(100);
    fs::remove_file(&world.writers[0].path).unwrap();
    world.until("it to be forgotten", |world| world.agent().thread.known.len() == 1);
    once(&mut world);
}

#[test]
fn a_file_that_only_begins_as_its_neighbour_is_read() {
    let mut world = World::new(1, 1, "*");
    let head = format!("{}\n", "h".repeat(2_000));
    let path = world.writers[0].path.clone();
    let other = suffixed(&path, ".1");
    fs::write(&path, format!("{head}one\ntwo\n")).unwrap();
    world.until("the first", |world| world.backend.lines(&path).len() == 3);
    fs::write(&other, format!("{head}six\n")).unwrap();
    world.until("the other", |world| world.backend.lines(&other).len() == 2);
}

#[test]
fn what_was_in_memory_at_a_kill_is_built_again_from_a_copy_that_has_it() {
    let mut world = World::new(1, 1, "*");
    world.writers[0].write(100, 40);
    world.catch_up();
    world.writers[0].copy();
    world.until("the copy to be seen", |world| world.agent().thread.known.len() == 2);
    world.writers[0].write(3, 40);
    world.catch_up();
    let in_flight: u64 = world.agent().held.iter().map(|logs| u64::from(logs.block.entries)).sum();
    assert_eq!(in_flight, 103);
    world.agent = None;
    world.writers[0].truncate();
    world.writers[0].write(2, 40);
    world.start();
    world.catch_up();
    world.some_turns();
    world.check();
    assert_eq!(world.agent().inbox.take_lost(), 3, "those that only the truncated file had");
}
