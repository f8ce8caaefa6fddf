//! Generations that came and went while nobody looked, by the names that people give them.

use super::*;

/// Moves a writer's file to the name that it has on a day, and begins anew.
fn rotate(writer: &mut Writer, to: &str) {
    fs::rename(&writer.path, writer.path.with_file_name(to)).unwrap();
    writer.reopen();
}

#[test]
fn generations_with_the_date_in_the_middle_of_their_names_are_read_in_order() {
    for (pattern, down) in [("app0.log", true), ("*.log", true), ("app0.log", false), ("*.log", false)] {
        let mut world = World::new(1, 1, pattern);
        world.writers[0].write(5, 40);
        world.catch_up();
        if down {
            world.settle(usize::MAX);
            world.agent = None;
        }
        for day in 1..5 {
            rotate(&mut world.writers[0], &format!("app0-2026010{day}.log"));
            world.writers[0].write(7, 40);
        }
        if down {
            world.start();
        }
        world.catch_up();
        world.check();
    }
}

#[test]
fn a_dated_file_beside_one_that_has_not_moved_is_one_of_its_own() {
    let mut world = World::new(1, 1, "*.log");
    world.writers[0].write(5, 40);
    world.catch_up();
    world.settle(usize::MAX);
    world.agent = None;
    let dated = world.writers[0].path.with_file_name("app0-20260101.log");
    world.writers.push(Writer::new(dated));
    world.writers[1].write(5, 40);
    world.start();
    world.catch_up();
    world.check();
}

#[test]
fn generations_that_were_removed_unseen_are_counted_once_as_far_as_numbers_tell() {
    let mut world = World::new(1, 1, "*.log");
    world.writers[0].write(5, 40);
    world.catch_up();
    world.settle(usize::MAX);
    world.agent = None;
    for _ in 0..3 {
        world.writers[0].rename();
        world.writers[0].reopen();
        world.writers[0].write(7, 40);
    }
    fs::remove_file(suffixed(&world.writers[0].path, ".2")).unwrap();
    world.start();
    let name = "pegel_log_lost_generations_total";
    assert_eq!(world.agent().counted(name), 1);
    let path = world.writers[0].path.clone();
    world.until("what is left", |world| world.backend.lines(&path).len() == 5 + 7 + 7);
    world.settle(usize::MAX);
    world.agent = None;
    world.start();
    assert_eq!(world.agent().counted(name), 0);
}
