//! A Loki that is away for hours: lines that bring their times, as many as hours at a stated rate have.
//!
//! The agent's clock of logs is the system's, and so is Loki's. So it is the lines that are from yesterday: written by
//! the thousand a second, with the times that they would have had. What is on disk and in Loki afterwards is the same.

use crate::world::{World, files_of, loki_setup, outputs};
use crate::writers::{Plan, Text, Writer};
use pegel_tests::loki::Loki;
use pegel_tests::pegel::{AgentSetup, Site};
use std::time::{SystemTime, UNIX_EPOCH};

/// The time of a line stands before it.
const TIMED: &str = r", steps: [{regex: {pattern: '^(?<at>\S+) (?<text>.*)$'}}, {timestamp: {field: at}}, {output: {field: text}}]";

/// Loki is away for so many hours of a file with so many lines a second; the agent is restarted in the middle.
async fn away(hours: u64, rate: u64) {
    let site = Site::new();
    let mut setup = loki_setup();
    // As docs/loki.md has it for outages that are longer than what Loki's ingesters are asked for.
    setup.ingester = vec!["query_store_max_look_back_period: -1".to_owned()];
    let Some(loki) = Loki::start_with(&site.dir().join("loki"), &setup).await else { return };
    let yaml = outputs(&loki.url(), Some(&loki.url())) + "    query_ingesters_within: 0s\n";
    let dir = site.dir().join("files");
    std::fs::create_dir_all(&dir).expect("a directory");
    let logs = files_of(&dir, TIMED, "");
    let setup = AgentSetup { logs: Some(logs), ..AgentSetup::default() };
    let mut world = World::assemble(site, loki, dir, &yaml, setup).await;

    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as i64;
    let hour_ns = 3_600_000_000_000;
    let text = Text::Timed {
        // Two hours more than the outage: one before it, and what is left does not reach into the future.
        first_ns: now - (hours as i64 + 2) * hour_ns,
        step_ns: 1_000_000_000 / rate as i64,
    };
    let writer = Writer::start(Plan { text, ..Plan::plain(world.file("outage"), 20_000) });
    let hour = 3_600 * rate;
    writer.write_up_to(hour);
    world.books_when("the hour before has arrived", |books| books.arrived() > hour).await;
    world.loki.kill();
    for part in 1..=2 {
        let numbers = hour + part * hours * hour / 2;
        writer.write_up_to(numbers);
        // Every tenth number is two lines.
        let lines = numbers + numbers / 10;
        world.books_when("half of it is read", |books| books.collected >= lines).await;
        if part == 1 {
            assert!(world.agent.end().await.success());
            world.agent.start().await;
        }
    }
    let books = world.books_when("the agent answers", |_| true).await;
    println!("{hours} h at {rate} lines/s are away: {books:?}");
    assert!(books.spooled > 0 && books.in_front + books.spooled > hours * hour, "{books:?}");
    world.loki.restart().await;
    writer.write_up_to((hours + 1) * hour + hour / 10);
    world.books_when("it is over", |books| books.collected > (hours + 1) * hour + hour / 10).await;
    world.check_to_the_line(vec![writer]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loki_that_was_away_for_three_hours_gets_each_line_once_and_in_order() {
    away(3, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loki_that_was_away_for_a_day_gets_each_line_once_and_in_order() {
    away(24, 1).await;
}
