//! Rates and other limits: what waits, what is delivered in the end, and whom it does not delay.

use crate::rig::{Agent, Rig, lines, now_ns, refused, said};
use pegel_proto::batch::RejectReason;
use pegel_tests::loki::LokiSetup;
use std::time::Duration;

fn text(i: i64) -> String {
    format!("{i:05} {}", "x".repeat(1_000))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_over_its_rate_gets_all_of_it_delivered_and_delays_no_other() {
    // Less than a request at once: it has to be split.
    let setup = LokiSetup::default()
        .with_tenants()
        .limit("ingestion_rate_mb", "1")
        .limit("ingestion_burst_size_mb", "1");
    let Some(rig) = Rig::start(&setup).await else { return };
    let now = now_ns();
    let mut greedy = Agent::new("greedy", "n1", 1);
    let entries: Vec<_> = (0..3_000).map(|i| said("x", now + i, text(i))).collect();
    greedy.submit(&rig.output, &entries);
    let mut other = Agent::new("other", "n1", 2);
    other.submit(&rig.output, &[said("x", now, "hello")]);
    assert_eq!(other.outcome().await.delivered, 1);
    assert!(greedy.is_silent(), "3 MB take two seconds at least");
    let outcome = greedy.outcome().await;
    assert_eq!((outcome.delivered, outcome.rejections.len()), (3_000, 0));
    assert_eq!(lines(&rig.held("greedy", r#"{app="x"}"#).await, "x").len(), 3_000);
    assert!(rig.counted("pegel_output_requests_total", "429") > 0);
}

async fn stream_over_its_rate(sharding: &str) {
    let setup = LokiSetup::default()
        .limit("per_stream_rate_limit", "500KB")
        .limit("per_stream_rate_limit_burst", "1MB")
        .limit("shard_streams", sharding);
    let Some(rig) = Rig::start_with(&setup, |settings| {
        settings.stream_rate = 500 << 10;
        settings.stream_burst = 1 << 20;
        settings.max_request_bytes = 512 << 10;
    })
    .await
    else {
        return;
    };
    let now = now_ns();
    let (mut busy, mut calm) = (Agent::new("acme", "n1", 1), Agent::new("acme", "n2", 2));
    for batch in 0..6 {
        let entries: Vec<_> =
            (batch * 500..(batch + 1) * 500).map(|i| said("busy", now + i, text(i))).collect();
        busy.submit(&rig.output, &entries);
    }
    for i in 0..10 {
        calm.submit(&rig.output, &[said("calm", now + i, "calm")]);
    }
    for _ in 0..10 {
        assert_eq!(calm.outcome().await.delivered, 1);
    }
    let mut accounted = 0;
    for _ in 0..6 {
        let outcome = busy.outcome().await;
        assert_eq!(outcome.rejections.len(), 0, "{outcome:?}");
        accounted += outcome.delivered + outcome.held_already;
    }
    assert_eq!(accounted, 3_000);
    let held = rig.held("fake", r#"{node=~"n.*"}"#).await;
    let found: Vec<_> = lines(&held, "busy");
    let expected: Vec<_> = (0..3_000).map(|i| (now + i, text(i))).collect();
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(&expected).all(|(f, e)| f.0 == e.0 && f.1 == e.1));
    assert_eq!(lines(&held, "calm").len(), 10);
    assert!(rig.counted("pegel_output_requests_total", "429") > 0, "the limit was reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_its_rate_waits_and_nothing_else_does() {
    stream_over_its_rate("{enabled: false}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_where_a_stream_is_refused_as_a_whole() {
    // Sharding as by default, but for a rate that it is never reached at.
    stream_over_its_rate("{enabled: true, desired_rate: 1GB}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_tenants_most_are_refused_after_a_while_and_the_others_delivered() {
    let setup = LokiSetup::default().limit("max_global_streams_per_user", "3");
    let Some(rig) =
        Rig::start_with(&setup, |settings| settings.stream_patience = Duration::from_secs(1)).await
    else {
        return;
    };
    let now = now_ns();
    let mut agent = Agent::new("acme", "n1", 1);
    let entries: Vec<_> = (0..5).map(|i| said(&format!("app{i}"), now, "line")).collect();
    agent.submit(&rig.output, &entries);
    let outcome = agent.outcome().await;
    assert_eq!(outcome.delivered, 3, "{outcome:?}");
    let reasons = refused(&outcome);
    assert_eq!(reasons.len(), 1);
    assert_eq!((reasons[0].0, outcome.rejections[0].count()), (RejectReason::TenantLimit, 2));
    // The stream that is known goes on.
    let first = rig.held("fake", r#"{node="n1"}"#).await;
    assert_eq!(first.len(), 3);
    let app = first.keys().next().unwrap()["app"].clone();
    agent.submit(&rig.output, &[said(&app, now + 1, "next")]);
    assert_eq!(agent.outcome().await.delivered, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_more_than_a_distributor_hands_on_is_split() {
    let change = |settings: &mut pegel_aggregator::output::loki::Settings| {
        settings.max_request_bytes = 16 << 20;
        // Until both batches are there.
        settings.linger = Duration::from_secs(2);
    };
    let Some(rig) = Rig::start_with(&LokiSetup::default(), change).await else { return };
    let now = now_ns();
    let mut agent = Agent::new("acme", "n1", 1);
    // Two batches of 3 MB, for one request of more than 4 MiB.
    for batch in 0..2 {
        let entries: Vec<_> = (0..30).map(|i| said("x", now + batch * 30 + i, "y".repeat(100_000))).collect();
        agent.submit(&rig.output, &entries);
    }
    for _ in 0..2 {
        let outcome = agent.outcome().await;
        // A half that was refused with a 500 may be asked about.
        let accounted = outcome.delivered + outcome.held_already;
        assert_eq!((accounted, outcome.rejections.len()), (30, 0), "{outcome:?}");
    }
    let refused: u64 = ["413", "500"]
        .iter()
        .map(|code| rig.counted("pegel_output_requests_total", &format!("\"{code}\"")))
        .sum();
    assert!(refused > 0, "Loki refused the whole: {}", rig.registry.render());
    assert!(rig.counted("pegel_output_splits_total", "") > 0);
    // Such an answer would be more than a querier may send at once: they are counted.
    assert_eq!(rig.loki.count_before("fake", r#"{app="x"}"#, 1, now_ns()).await, 60);
}
