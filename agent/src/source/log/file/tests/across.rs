//! Events of several lines that are being written when their file is rotated.

use super::*;
use regex::Regex;

const LONG: Duration = Duration::from_secs(60);

fn joined_lines(timeout: Duration) {
    let multiline = shape::Multiline {
        continues: Some(Regex::new(r"^\s").unwrap()),
        timeout,
        ..shape::Multiline::default()
    };
    SHAPE.set(Some(shape::Settings { multiline: Some(multiline), ..shape::Settings::default() }));
}

impl World {
    fn line(&mut self, line: &str) {
        self.writers[0].file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// What may happen between two lines.
    fn disturb(&mut self, truncates: bool) {
        match self.rng.random_range(0..24) {
            what @ 0..3 => {
                self.story.push(format!("rename {what}"));
                self.writers[0].rename();
                self.writers[0].reopen();
                if what == 0 {
                    self.turn();
                }
            }
            3 => {
                self.story.push("killed".to_owned());
                self.kill();
                self.start();
            }
            4 if truncates => {
                self.story.push("copytruncate".to_owned());
                self.turn();
                self.writers[0].copytruncate();
                self.turn();
            }
            5..14 => {
                self.story.push("turn".to_owned());
                self.turn();
                self.deliver();
                let some = self.rng.random_range(0..3);
                self.settle(some);
            }
            _ => {}
        }
    }
}

#[test]
fn events_of_several_lines_are_one_entry_each_across_rotations_and_kills() {
    for seed in seeds(25) {
        simulate_events(seed, false);
    }
}

#[test]
fn events_of_several_lines_are_one_entry_each_across_copytruncate_and_kills() {
    for seed in seeds(25) {
        simulate_events(seed, true);
    }
}

fn simulate_events(seed: u64, truncates: bool) {
    joined_lines(LONG);
    {
        let mut world = World::new(seed, 1, "*.log");
        let path = world.writers[0].path.clone();
        let mut events = Vec::new();
        for nth in 0..100 {
            let mut event = format!("event {nth}");
            world.story.push(event.clone());
            world.line(&event);
            for part in 0..world.rng.random_range(0..4) {
                world.disturb(truncates);
                let line = format!("  part {part} of {nth}");
                world.story.push(line.clone());
                world.line(&line);
                event.push('\n');
                event.push_str(&line);
            }
            events.push(event);
            world.disturb(truncates);
        }
        world.line("the end");
        eprintln!("---");
        world.until("the last event", |world| world.backend.lines(&path).len() >= events.len());
        world.some_turns();
        let arrived = world.backend.lines(&path);
        if arrived != events {
            let at = arrived
                .iter()
                .zip(&events)
                .position(|(a, b)| a != b)
                .unwrap_or(arrived.len().min(events.len()));
            let why = format!(
                "{} of {}: {:?}, where {:?} was written",
                arrived.len(),
                events.len(),
                arrived.get(at),
                events.get(at)
            );
            let other: Vec<_> = arrived.iter().filter(|a| !events.iter().any(|e| e == *a)).collect();
            let missing: Vec<_> = events.iter().filter(|e| !arrived.contains(&e.as_str())).collect();
            let repeated = arrived.len() - arrived.iter().collect::<std::collections::HashSet<_>>().len();
            world.fail(&format!("{why}; other {other:?}, missing {missing:?}, {repeated} repeated"));
        }
    }
}

#[test]
fn an_event_whose_time_is_over_does_not_go_on_in_the_next_file() {
    joined_lines(Duration::from_millis(50));
    let mut world = World::new(1, 1, "*.log");
    let path = world.writers[0].path.clone();
    world.line("one");
    world.until("it to be an entry", |world| world.backend.lines(&path) == ["one"]);
    world.writers[0].rename();
    world.writers[0].reopen();
    world.line("  more");
    world.until("the rest", |world| world.backend.lines(&path) == ["one", "  more"]);
}
