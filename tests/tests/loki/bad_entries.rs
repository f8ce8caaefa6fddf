//! Bad entries among good ones: these are delivered, those refused with their reason.

use crate::rig::{Agent, HOUR, Rig, SECOND, lines, now_ns, refused, said};
use pegel_proto::batch::RejectReason as R;
use pegel_tests::loki::LokiSetup;

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_is_refused_with_its_reason_and_the_others_are_delivered() {
    let setup =
        LokiSetup::default().limit("max_line_size", "64KB").limit("max_structured_metadata_size", "1KB");
    let Some(rig) = Rig::start(&setup).await else { return };
    let now = now_ns();
    let mut agent = Agent::new("acme", "n1", 1);
    let day = 24 * HOUR;
    let mut loaded = said("x", now + 6, "metadata");
    loaded.metadata.push(("much".into(), "m".repeat(2_000)));
    let mut many_labels = said("many", now + 7, "labels");
    many_labels.labels.extend((0..14).map(|i| (format!("l{i:02}"), "v".into())));
    let mut long_value = said("long", now + 8, "value");
    long_value.labels[0].1 = "v".repeat(3_000);
    let mut bad_name = said("name", now + 9, "name");
    bad_name.labels[0].0 = "a.b".into();
    let entries = [
        said("x", now - 8 * day, "too old"),
        said("x", now - 8 * day + 1, "too old as well"),
        said("x", now, "good 0"),
        said("x", now + HOUR, "too far ahead"),
        said("x", now + 1, "l".repeat(70_000)),
        loaded,
        many_labels,
        long_value,
        bad_name,
        said("y", now + 2, "good 1"),
        said("x", now + 3, "good 2"),
    ];
    agent.submit(&rig.output, &entries);
    let outcome = agent.outcome().await;
    assert_eq!((outcome.delivered, outcome.held_already), (3, 0), "{outcome:?}");
    assert_eq!(
        refused(&outcome),
        [
            (R::TooOld, vec![(0, 2)]),
            (R::TooFarInFuture, vec![(3, 1)]),
            (R::InvalidLabels, vec![(6, 3)]),
            (R::TooLarge, vec![(4, 2)]),
        ],
        "{outcome:?}"
    );
    assert_eq!(lines(&rig.held("fake", r#"{node="n1"}"#).await, "x"), [(now, "good 0"), (now + 3, "good 2")]);
    assert_eq!(rig.counted("pegel_output_entries_rejected_total", "too_old"), 2);
    // It took few requests: the texts name the entries.
    assert!(rig.counted("pegel_output_requests_total", "") <= 6);
    assert!(rig.output_is_well());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_is_too_old_costs_few_requests() {
    let Some(rig) = Rig::start(&LokiSetup::default()).await else { return };
    let now = now_ns();
    let mut agent = Agent::new("acme", "n1", 1);
    let bound = now - 7 * 24 * HOUR;
    // Some 8,000 seconds of too old entries, then good ones; the bound moves on meanwhile, so none lies near it.
    let entries: Vec<_> = (0..10_000)
        .map(|i| {
            said(
                "x",
                bound - 9_000 * SECOND + i * SECOND + if i < 8_000 { 0 } else { 3_600 * SECOND },
                "line",
            )
        })
        .collect();
    agent.submit(&rig.output, &entries);
    let outcome = agent.outcome().await;
    assert_eq!(outcome.delivered, 2_000, "{:?}", outcome.rejections.first().map(|r| &r.message));
    assert_eq!(refused(&outcome), [(R::TooOld, vec![(0, 8_000)])]);
    assert!(rig.counted("pegel_output_requests_total", "") <= 4);
}

/// Loki 3.7 answers 204 to a request whose first stream an ingester refused, if it took the last one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_far_behind_its_stream_is_never_dropped_in_silence() {
    let Some(rig) = Rig::start(&LokiSetup::default()).await else { return };
    let now = now_ns();
    let mut agent = Agent::new("acme", "n1", 1);
    agent.submit(&rig.output, &[said("a", now, "new"), said("b", now, "new")]);
    assert_eq!(agent.outcome().await.delivered, 2);
    let mut entries = vec![said("a", now - 2 * HOUR, "old"), said("b", now + 1, "good")];
    // More than the ten that Loki names.
    entries.extend((0..20).map(|i| said("c", now + i, format!("good {i}"))));
    entries.extend((0..20).map(|i| said("b", now - 2 * HOUR + i, "old")));
    entries.push(said("a", now + 2, "good"));
    agent.submit(&rig.output, &entries);
    let outcome = agent.outcome().await;
    assert_eq!(outcome.delivered, 22, "{outcome:?}");
    assert_eq!(refused(&outcome), [(R::OutOfOrder, vec![(0, 1), (22, 20)])], "{outcome:?}");
    let held = rig.held("fake", r#"{node="n1"}"#).await;
    assert_eq!(lines(&held, "a"), [(now, "new"), (now + 2, "good")]);
    assert_eq!(lines(&held, "b"), [(now, "new"), (now + 1, "good")]);
    assert_eq!(lines(&held, "c").len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_a_known_limit_costs_no_request() {
    let Some(rig) = Rig::start(&LokiSetup::default()).await else { return };
    let now = now_ns();
    let mut agent = Agent::new("acme", "n1", 1);
    let mut many_labels = said("many", now, "labels");
    many_labels.labels.extend((0..13).map(|i| (format!("l{i:02}"), "v".into())));
    let mut most_labels = said("most", now, "labels");
    most_labels.labels.extend((0..12).map(|i| (format!("l{i:02}"), "v".into())));
    let mut loaded = said("x", now + 1, "metadata");
    loaded.metadata.push(("much".into(), "m".repeat(65_536)));
    let entries = [
        many_labels,
        most_labels,
        loaded,
        said("x", now + 2, "l".repeat((256 << 10) + 1)),
        said("x", now + 3, "l".repeat(256 << 10)),
    ];
    agent.submit(&rig.output, &entries);
    let outcome = agent.outcome().await;
    assert_eq!(outcome.delivered, 2, "{outcome:?}");
    assert_eq!(
        refused(&outcome),
        [(R::InvalidLabels, vec![(0, 1)]), (R::TooLarge, vec![(2, 2)])],
        "{outcome:?}"
    );
    assert_eq!(rig.counted("pegel_output_requests_total", "\"400\""), 0);
    assert_eq!(lines(&rig.held("fake", r#"{node="n1"}"#).await, "x").len(), 1);
}
