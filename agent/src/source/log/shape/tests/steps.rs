//! What steps decide.

use super::super::explain::{Explained, explain};
use super::*;

fn steps(steps: Vec<Step>) -> Settings {
    Settings { steps: steps.into(), ..Settings::default() }
}

fn one(settings: &Settings, line: &str) -> Explained {
    let mut explained = explain(settings, &[], line.as_bytes(), BASE_NS);
    assert_eq!(explained.len(), 1);
    explained.remove(0)
}

#[test]
fn fields_become_labels_metadata_and_the_line() {
    let settings = steps(vec![
        Step::Json(Parse::default()),
        Step::Level(None),
        Step::Labels(vec![("level".into(), "level".into()), ("app".into(), "k8s_app".into())]),
        Step::Metadata(Metadata { keep: Vec::new(), drop: vec!["tmp*".into()] }),
        Step::Output("msg".into()),
    ]);
    let seen = one(
        &settings,
        r#"{"severity":"WARNING","msg":"hi","k8s":{"app":"shop"},"tmp_x":"1","trace_id":"abc"}"#,
    );
    let entry = seen.entry.unwrap();
    let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
    assert_eq!(entry.labels, BTreeMap::from([pair("app", "shop"), pair("level", "warn")]));
    let expected = [pair("severity", "WARNING"), pair("trace_id", "abc"), pair("msg", "hi")];
    assert_eq!(entry.metadata, BTreeMap::from(expected));
    assert_eq!(entry.line, "hi");
    assert_eq!(seen.steps[1].fields, BTreeMap::from([pair("level", "warn")]));
}

#[test]
fn times_are_read_believed_or_replaced() {
    let timestamp = |zone: &str| {
        Step::Timestamp(Timestamp {
            field: "t".into(),
            formats: vec![Format::parse("rfc3339").unwrap(), Format::parse("rfc3164").unwrap()],
            zone: Zone::named(zone).unwrap(),
            bounds: Bounds::default(),
        })
    };
    let settings = steps(vec![Step::Logfmt(Parse::default()), timestamp("+01:00")]);
    let time = |line: &str| {
        let seen = one(&settings, line);
        let failed = seen.steps[1].failed;
        let entry = seen.entry.unwrap();
        (entry.timestamp, entry.metadata.get("original_timestamp").cloned(), failed)
    };
    let base = "2026-11-21T19:00:00Z".to_owned();
    assert_eq!(time("t=2026-11-21T18:00:00Z"), ("2026-11-21T18:00:00Z".into(), None, false));
    assert_eq!(time("t=\"Nov 21 19:30:00\""), ("2026-11-21T18:30:00Z".into(), None, false));
    assert_eq!(time("t=2027-01-01T00:00:00Z"), (base.clone(), Some("2027-01-01T00:00:00Z".into()), false));
    assert_eq!(time("t=2016-01-01T00:00:00Z"), (base.clone(), Some("2016-01-01T00:00:00Z".into()), false));
    assert_eq!(time("t=yesterday"), (base.clone(), None, true));
    assert_eq!(time("x=1"), (base, None, true));
}

#[test]
fn times_that_go_back_are_moved_and_told() {
    let step = Step::Timestamp(Timestamp {
        field: "t".into(),
        formats: vec![Format::parse("unix_ms").unwrap()],
        zone: Zone::default(),
        bounds: Bounds::default(),
    });
    let settings = steps(vec![Step::Logfmt(Parse::default()), step]);
    let entries = shaped(&settings, b"t=1795287600000\nt=1795287600000\nt=1795287599000\nt=1795287601000\n");
    let seen: Vec<_> =
        entries.iter().map(|e| (e.at_ns - BASE_NS, metadata(e, "original_timestamp"))).collect();
    assert_eq!(seen, [(0, None), (1, None), (2, Some("2026-11-21T18:59:59Z")), (1_000_000_000, None)]);
}

#[test]
fn filters_say_which_step_left_a_line_out() {
    let settings = steps(vec![
        Step::Level(None),
        Step::Drop(Condition { below: Some(Level::Info), ..Condition::default() }),
        Step::Keep(Condition { contains: Some("shop".into()), ..Condition::default() }),
    ]);
    for (line, by) in
        [("DEBUG shop", Some("1:drop")), ("INFO bank", Some("2:keep")), ("INFO shop", None), ("shop", None)]
    {
        let seen = one(&settings, line);
        assert_eq!((seen.dropped_by.as_deref(), seen.entry.is_none()), (by, by.is_some()), "{line}");
    }
}

#[test]
fn sampling_keeps_its_share_and_decides_the_same_again() {
    let settings = |field: Option<&str>| {
        let threshold = (0.25 * u64::MAX as f64) as u64;
        let sample = Sample { threshold, field: field.map(ToOwned::to_owned), when: None };
        steps(vec![Step::Logfmt(Parse::default()), Step::Sample(sample)])
    };
    let text: String = (0..4_000).map(|n| format!("trace={} same line\n", n / 4)).collect();
    let by_line = lines(&settings(None), text.as_bytes());
    assert!((800..1_200).contains(&by_line.len()), "{}", by_line.len());
    assert_eq!(by_line, lines(&settings(None), text.as_bytes()));
    let by_trace = lines(&settings(Some("trace")), text.as_bytes());
    let mut whole = BTreeMap::new();
    by_trace.iter().for_each(|line| *whole.entry(line).or_insert(0) += 1);
    assert!(whole.values().all(|count| *count == 4) && (150..350).contains(&whole.len()), "{}", whole.len());
}

#[test]
fn a_rate_limit_holds_for_each_stream_and_lets_pass_what_comes_again() {
    let limit = RateLimit { per_second: 2.0, burst: 3.0 };
    let settings = steps(vec![
        Step::Logfmt(Parse::default()),
        Step::Labels(vec![("app".into(), "app".into())]),
        Step::RateLimit(limit),
    ]);
    let mut shaper = Shaper::new(&settings);
    let mut block = BlockBuilder::new();
    let text: String = (0..10).map(|n| format!("app={} n={n}\n", if n == 9 { "b" } else { "a" })).collect();
    let mut shape = |base_ns, again| {
        let chunk = Chunk {
            bytes: text.as_bytes(),
            offset: 1,
            base_ns,
            floor_ns: base_ns - 1,
            end: End::More,
            again,
        };
        let shaped = shaper.shape(&[], chunk, 1 << 20, &mut block);
        assert_eq!((shaped.consumed, shaped.last_ns), (text.len(), base_ns + 9), "each line takes its time");
        let decoded = block.finish().unwrap().decode().unwrap();
        decoded.entries().map(|e| (e.at_ns() - base_ns, e.line().to_owned())).collect::<Vec<_>>()
    };
    let first = shape(BASE_NS, false);
    assert_eq!(first.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1, 2, 9]);
    let again = shape(BASE_NS, true);
    assert_eq!(again.len(), 10);
    assert!(
        first.iter().all(|entry| again.contains(entry)),
        "the same entries with the same times, and more"
    );
    assert_eq!(shape(BASE_NS + 1_000_000_000, false).len(), 3);
}

#[test]
fn a_full_block_gives_tokens_back() {
    let settings = steps(vec![Step::RateLimit(RateLimit { per_second: 0.001, burst: 4.0 })]);
    let mut shaper = Shaper::new(&settings);
    let mut block = BlockBuilder::new();
    let text = "some line\n".repeat(10);
    let (mut at, mut made) = (0, 0);
    while at < text.len() {
        let bytes = &text.as_bytes()[at..];
        let chunk = Chunk { bytes, offset: 1, base_ns: BASE_NS, floor_ns: 0, end: End::More, again: false };
        let shaped = shaper.shape(&[], chunk, 9, &mut block);
        at += shaped.consumed;
        made += shaped.entries;
        block.finish();
    }
    assert_eq!(made, 4);
}
