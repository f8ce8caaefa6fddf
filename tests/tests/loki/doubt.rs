//! Requests whose fate is not known: Loki is asked, and only the rest is sent again.

use crate::rig::{Agent, HOUR, Rig, counted, lines, now_ns, output, said};
use pegel_runtime::metrics::Registry;
use pegel_tests::fault_proxy::{Fate, FaultProxy};
use pegel_tests::loki::LokiSetup;
use std::time::Duration;

/// Far more than the 256 KiB of a head block, so that Loki itself would keep a repeated entry.
fn many(now: i64, from: i64, to: i64) -> Vec<crate::rig::Said> {
    (from..to)
        .map(|i| said("x", now - HOUR / 2 + i * 1_000, format!("{i:06} {}", "text ".repeat(80))))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_without_an_answer_has_stored_is_not_stored_again() {
    let Some(rig) = Rig::start(&LokiSetup::default()).await else { return };
    let proxy = FaultProxy::start(&rig.loki.url(), |seen| {
        if seen.number == 2 { Fate::AnswerLate(Duration::from_secs(30)) } else { Fate::Forward }
    })
    .await;
    let registry = Registry::new();
    let output = output(&proxy.url(), &rig.loki, &registry, |settings| {
        settings.request_timeout = Duration::from_secs(5);
    });
    let now = now_ns();
    let mut agent = Agent::new("acme", "n1", 1);
    agent.submit(&output, &many(now, 0, 1));
    assert_eq!(agent.outcome().await.delivered, 1);
    agent.submit(&output, &many(now, 1, 4_001));
    let outcome = agent.outcome().await;
    assert_eq!((outcome.delivered, outcome.held_already), (0, 4_000), "{outcome:?}");
    let held = rig.held("fake", r#"{app="x"}"#).await;
    assert_eq!(lines(&held, "x").len(), 4_001, "each once");
    assert_eq!(rig.loki.count_before("fake", r#"{app="x"}"#, 2, now_ns()).await, 4_001);
    assert_eq!(counted(&registry, "pegel_output_entries_possibly_repeated_total", ""), 0);
    assert_eq!(counted(&registry, "pegel_output_questions_total", "answered"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_that_an_aggregator_has_sent_before_only_the_rest_is_sent() {
    let Some(rig) = Rig::start(&LokiSetup::default()).await else { return };
    let now = now_ns();
    let mut first = Agent::new("acme", "n1", 1);
    first.submit(&rig.output, &many(now, 0, 1_500));
    assert_eq!(first.outcome().await.delivered, 1_500);
    // The aggregator was killed, and with it what it knew; the agent sends again, and more.
    let registry = Registry::new();
    let next = output(&rig.loki.url(), &rig.loki, &registry, |_| {});
    let mut agent = Agent::new("acme", "n1", 2);
    agent.submit_as(&next, &many(now, 0, 2_000), true);
    agent.submit(&next, &many(now, 2_000, 2_010));
    let outcome = agent.outcome().await;
    assert_eq!((outcome.delivered, outcome.held_already), (500, 1_500), "{outcome:?}");
    assert_eq!(agent.outcome().await.delivered, 10);
    assert_eq!(rig.loki.count_before("fake", r#"{app="x"}"#, 2, now_ns()).await, 2_010);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_query_address_what_is_sent_again_is_counted() {
    let Some(rig) = Rig::start(&LokiSetup::default()).await else { return };
    let proxy = FaultProxy::start(&rig.loki.url(), |seen| {
        if seen.number == 1 { Fate::AnswerLate(Duration::from_secs(30)) } else { Fate::Forward }
    })
    .await;
    let registry = Registry::new();
    let output = output(&proxy.url(), &rig.loki, &registry, |settings| {
        settings.request_timeout = Duration::from_secs(5);
        settings.query_url = None;
    });
    let now = now_ns();
    let mut agent = Agent::new("acme", "n1", 1);
    agent.submit(&output, &many(now, 0, 10));
    let outcome = agent.outcome().await;
    assert_eq!((outcome.delivered, outcome.held_already), (10, 0));
    assert_eq!(counted(&registry, "pegel_output_entries_possibly_repeated_total", ""), 10);
    // Little as it was, Loki dropped the copies: they are in its head block.
    assert_eq!(rig.loki.count_before("fake", r#"{app="x"}"#, 2, now_ns()).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loki_that_is_killed_and_comes_back_has_each_entry_once() {
    let Some(mut rig) = Rig::start(&LokiSetup::default()).await else { return };
    let now = now_ns();
    let mut agent = Agent::new("acme", "n1", 1);
    agent.submit(&rig.output, &many(now, 0, 1_000));
    assert_eq!(agent.outcome().await.delivered, 1_000);
    rig.loki.kill();
    for batch in 1..5 {
        agent.submit(&rig.output, &many(now, batch * 1_000, (batch + 1) * 1_000));
    }
    rig.loki.restart().await;
    for _ in 1..5 {
        let outcome = agent.outcome().await;
        assert_eq!(outcome.delivered + outcome.held_already, 1_000, "{outcome:?}");
    }
    assert_eq!(rig.loki.count_before("fake", r#"{app="x"}"#, 2, now_ns()).await, 5_000);
}
