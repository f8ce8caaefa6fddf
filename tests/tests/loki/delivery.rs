//! What is delivered is there: each entry once, in order, with its labels and metadata, for its tenant.

use crate::rig::{Agent, HOUR, Rig, SECOND, Said, lines, now_ns, said};
use pegel_tests::loki::LokiSetup;

const BATCHES: i64 = 4;
const ENTRIES: i64 = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_many_agents_send_is_in_loki_once_in_order() {
    let Some(rig) = Rig::start(&LokiSetup::default()).await else { return };
    let start = now_ns() - 600 * SECOND;
    let line = |node: usize, i: i64| format!("{i:06} node {node} {}", "some text of a log line ".repeat(4));
    let mut agents: Vec<_> = (0..3).map(|i| Agent::new("acme", &format!("n{i}"), i)).collect();
    for batch in 0..BATCHES {
        for (node, agent) in agents.iter_mut().enumerate() {
            // One stream grows far beyond the 256 KiB of a head block, another has a line now and then; every tenth
            // text is a genuine repetition.
            let entries: Vec<_> = (0..ENTRIES)
                .map(|i| {
                    let number = batch * ENTRIES + i;
                    let app = if i % 100 == 7 { "rare" } else { "busy" };
                    let text = if i % 10 == 0 { "again".to_owned() } else { line(node, number) };
                    said(app, start + number, text)
                })
                .collect();
            agent.submit(&rig.output, &entries);
        }
    }
    for agent in &mut agents {
        for _ in 0..BATCHES {
            let outcome = agent.outcome().await;
            assert_eq!((outcome.delivered, outcome.rejections.len()), (ENTRIES as u64, 0), "{outcome:?}");
        }
    }
    for node in 0..3 {
        let held = rig.held("fake", &format!("{{node=\"n{node}\"}}")).await;
        assert_eq!(held.len(), 2);
        let (busy, rare) = (lines(&held, "busy"), lines(&held, "rare"));
        assert_eq!(busy.len() + rare.len(), (BATCHES * ENTRIES) as usize);
        for (at, text) in busy.into_iter().chain(rare) {
            let number = at - start;
            let expected = if number % 10 == 0 { "again".to_owned() } else { line(node, number) };
            assert_eq!(text, expected);
        }
        let count = rig.loki.count_before("fake", &format!("{{node=\"n{node}\"}}"), 2, now_ns()).await;
        assert_eq!(count, (BATCHES * ENTRIES) as u64);
    }
    assert_eq!(rig.counted("pegel_output_entries_delivered_total", ""), (3 * BATCHES * ENTRIES) as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_metadata_arrive_and_node_and_tenant_are_the_certificates() {
    let Some(rig) = Rig::start(&LokiSetup::default()).await else { return };
    let now = now_ns();
    let own =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect::<Vec<_>>();
    let strange = "a \"quoted\" \\ back\nslash\ttab ü } ' \u{1} 日本";
    let mut agent = Agent::new("acme", "n1", 1);
    agent.submit(
        &rig.output,
        &[Said {
            labels: own(&[("node", "claimed"), ("strange", strange), ("tenant", "other")]),
            at_ns: now,
            line: "a line with \0 and ü and \u{7f}".into(),
            metadata: own(&[("span_id", "42"), ("trace_id", strange)]),
        }],
    );
    let outcome = agent.outcome().await;
    assert_eq!(outcome.delivered, 1, "{outcome:?}");
    let held = rig.held("fake", r#"{node="n1"}"#).await;
    let (labels, entries) = held.first_key_value().unwrap();
    for (name, value) in [
        ("node", "n1"),
        ("tenant", "acme"),
        ("exported_node", "claimed"),
        ("exported_tenant", "other"),
        ("strange", strange),
    ] {
        assert_eq!(labels.get(name).map(String::as_str), Some(value), "{name}");
    }
    let (at, line, metadata) = &entries[0];
    assert_eq!((*at, line.as_str()), (now, "a line with \0 and ü and \u{7f}"));
    assert_eq!((metadata["span_id"].as_str(), metadata["trace_id"].as_str()), ("42", strange));
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_kept_apart() {
    let Some(rig) = Rig::start(&LokiSetup::default().with_tenants()).await else { return };
    let now = now_ns();
    for (session, tenant) in [(1, "acme"), (2, "other")] {
        let mut agent = Agent::new(tenant, "n1", session);
        agent.submit(&rig.output, &[said("x", now, tenant)]);
        assert_eq!(agent.outcome().await.delivered, 1);
    }
    for tenant in ["acme", "other"] {
        let held = rig.held(tenant, r#"{app="x"}"#).await;
        assert_eq!(lines(&held, "x"), [(now, tenant)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_old_backlog_is_taken_oldest_first() {
    // Else a query does not find what is older than three hours and not flushed.
    let querier = vec!["query_ingesters_within: 0s".into()];
    let setup = LokiSetup { querier, ..LokiSetup::default() };
    let Some(rig) = Rig::start(&setup).await else { return };
    let now = now_ns();
    let mut agent = Agent::new("acme", "n1", 1);
    let entries: Vec<_> =
        (0..240).map(|i| said("x", now - 24 * HOUR + i * HOUR / 10, format!("{i}"))).collect();
    for part in entries.chunks(40) {
        agent.submit(&rig.output, part);
    }
    for _ in 0..6 {
        assert_eq!(agent.outcome().await.delivered, 40);
    }
    let held = rig.held("fake", r#"{app="x"}"#).await;
    let found: Vec<_> = lines(&held, "x").into_iter().map(|(at, line)| (at, line.to_owned())).collect();
    let expected: Vec<_> = entries.iter().map(|entry| (entry.at_ns, entry.line.clone())).collect();
    // All were accepted. Of what lies hours back and is not flushed this Loki's querier shows the last part only.
    assert!(found.len() > 20 && expected.ends_with(&found), "{found:?}");
}
