//! Events of several lines that are being written when their file is rotated.

use super::*;
use regex::Regex;

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
