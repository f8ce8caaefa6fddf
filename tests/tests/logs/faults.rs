//! Backends and disks that fail.

use crate::world::{World, files_of, outputs};
use crate::writers::{Plan, Text, Writer};
use pegel_tests::fault_proxy::{Fate, FaultProxy};
use pegel_tests::http::get_json;
use pegel_tests::{binary, eventually, let_run};
use std::process::Command;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loki_that_was_away_gets_what_was_written_meanwhile() {
    let Some(mut world) = World::start("").await else { return };
    let writer = Writer::start(Plan::plain(world.file("away"), 2_000));
    let_run(Duration::from_secs(2)).await;
    world.loki.kill();
    let_run(Duration::from_secs(5)).await;
    let books = world.agent.books_of("logs").await.expect("the agent answers");
    assert!(books.spooled > 0, "what can't be delivered is on disk: {books:?}");
    world.loki.restart().await;
    world.check_to_the_line(vec![writer]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storms_of_refusals_and_answers_after_their_time_lose_and_repeat_nothing() {
    let proxy = std::cell::RefCell::new(None);
    let Some(first) = World::start("").await else { return };
    // The aggregator that takes part talks to Loki through a proxy that answers for it.
    let faulty = FaultProxy::start(&first.loki.url(), |seen| match seen.number % 8 {
        0 => Fate::error(500, "something broke"),
        1 | 2 => Fate::Answer { status: 429, retry_after: Some(1), message: "slow down".to_owned() },
        3 => Fate::AnswerLate(Duration::from_secs(3)),
        4 => Fate::error(503, "not now"),
        _ => Fate::Forward,
    })
    .await;
    let yaml = format!("{}    timeout: 1s\n", outputs(&faulty.url(), Some(&first.loki.url())));
    let aggregator = first.site.aggregator_with("two", &yaml).await;
    let dir = first.site.dir().join("storm");
    std::fs::create_dir_all(&dir).expect("a directory");
    let setup = pegel_tests::pegel::AgentSetup { logs: Some(files_of(&dir, "", "")), ..Default::default() };
    let mut agent = first.site.agent("web-2", &[aggregator.address()], setup);
    agent.start().await;
    *proxy.borrow_mut() = Some(faulty);
    let numbered = Writer::start(Plan::plain(dir.join("storm.log"), 1_000));
    // Some 2 MB of the same line, eight times what Loki itself could tell from a repetition.
    let same = Plan { text: Text::Same, ..Plan::plain(dir.join("same.log"), 5_000) };
    let same = Writer::start(same);
    let_run(Duration::from_secs(12)).await;
    let world = World { aggregator, agent, dir, ..first };
    let books = world.check_to_the_line(vec![numbered, same]).await;
    assert!(books.held_already > 0, "answers that came too late were asked about: {books:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_buffer_leaves_files_unread_and_loses_nothing() {
    // Four segments of the smallest size: some seconds of lines.
    let more = ", buffer: {quota: 4MiB, front: 64KiB}";
    let change = |setup: pegel_tests::pegel::AgentSetup| setup.buffer("{segment: 1MiB}");
    let Some(mut world) = World::start_with(more, change).await else { return };
    let_run(Duration::from_secs(1)).await;
    world.loki.kill();
    let path = world.file("full");
    let writer = Writer::start(Plan::plain(path.clone(), 15_000));
    eventually("the file waits unread", Duration::from_secs(90), || async {
        (world.unread_bytes().await > 1 << 20).then_some(())
    })
    .await;
    // Who asks is told: which files, how much, since when, and what they wait for.
    let said_last = std::cell::RefCell::new(String::new());
    let told = eventually("`pegel why` names the file and its cause", Duration::from_secs(60), || async {
        let mut why = Command::new(binary("pegel"));
        let said = why.args(["why", "web-1", "--aggregator-url", &world.page()]).output().ok()?;
        let told = String::from_utf8_lossy(&said.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        if said_last.borrow().as_str() != told {
            println!("pegel why: {told}{}", String::from_utf8_lossy(&said.stderr));
            said_last.borrow_mut().clone_from(&told);
        }
        told.contains("The node's buffer for logs is full").then_some(told)
    })
    .await;
    for words in
        ["1 log file waits unread: ", "MiB, ", "Output loki: ", "(for ", path.to_str().expect("a path")]
    {
        assert!(told.contains(words), "{words} in {told}");
    }
    let fleet = get_json(&format!("{}/api/v1/fleet", world.page())).await.expect("the aggregator answers");
    let behind = &fleet["agents"][0]["files_behind"];
    assert_eq!(
        (behind["no_room"].as_str(), behind["files"].as_u64()),
        (Some("buffer_full"), Some(1)),
        "{behind:#}"
    );
    assert_eq!(behind["worst"][0]["path"].as_str(), path.to_str(), "{behind:#}");
    let status = world.agent.status().await.expect("the agent answers");
    assert_eq!(status["sources_wait_for"], "the buffer is full");
    let metrics = world.agent.metrics().await.expect("the agent answers");
    let lag = metrics.lines().find(|line| line.starts_with("pegel_log_file_lag_bytes{input=\"oracle\""));
    assert!(lag.is_some_and(|line| line.contains("full.log")), "{metrics}");
    world.loki.restart().await;
    world.check_to_the_line(vec![writer]).await;
    eventually("nobody speaks of it any more", Duration::from_secs(30), || async {
        let fleet = get_json(&format!("{}/api/v1/fleet", world.page())).await?;
        let metrics = world.agent.metrics().await?;
        let silent = fleet["agents"][0].get("files_behind").is_none();
        (silent && !metrics.contains("pegel_log_file_lag_bytes{")).then_some(())
    })
    .await;
}
