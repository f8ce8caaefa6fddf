use super::fuzzing::{Shown, entries};
use super::*;
use pegel_proto::metrics::Labels;
use std::collections::BTreeMap;
use std::sync::Arc;

mod masking;
mod speed;
mod steps;

const BASE_NS: i64 = 1_795_287_600_000_000_000;

/// What a whole source becomes.
fn shaped(settings: &Settings, bytes: &[u8]) -> Vec<Shown> {
    entries(settings, bytes, |left| left)
}

fn lines(settings: &Settings, bytes: &[u8]) -> Vec<String> {
    shaped(settings, bytes).into_iter().map(|entry| entry.line).collect()
}

fn metadata<'a>(entry: &'a Shown, name: &str) -> Option<&'a str> {
    entry.metadata.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn label<'a>(entry: &'a Shown, name: &str) -> Option<&'a str> {
    entry.labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn plain_lines_become_entries_in_order() {
    let settings = Settings::default();
    assert_eq!(
        lines(&settings, b"\xef\xbb\xbfone\r\ntwo\n\nfo\xffur\n\0\0five\n\0\0\0\nlast"),
        ["one", "two", "", "fo\u{fffd}ur", "five", "last"]
    );
    let entries = shaped(&settings, b"a\nb\n");
    assert_eq!((entries[0].at_ns, entries[1].at_ns), (BASE_NS, BASE_NS + 1));
    assert_eq!(entries[0].labels, [("job".to_owned(), "fuzz".to_owned())]);
}

#[test]
fn a_long_line_goes_on_in_more_entries_and_the_file_goes_on() {
    let settings = Settings { max_line: 1_000, ..Settings::default() };
    let long = "0123456789".repeat(250);
    let entries = shaped(&settings, format!("before\n{long}\nafter\n").as_bytes());
    let joined: String = entries[1..4].iter().map(|entry| entry.line.as_str()).collect();
    assert_eq!((entries.len(), joined == long), (5, true));
    let cut: Vec<_> = entries.iter().map(|entry| metadata(entry, "cut").is_some()).collect();
    assert_eq!(cut, [false, true, true, false, false]);
    // With the default, a line that no caller can hold at once.
    let huge = vec![b'x'; 3 << 20];
    let pieces = lines(&Settings::default(), &huge);
    assert_eq!(pieces.iter().map(String::len).sum::<usize>(), huge.len());
    assert!(pieces.iter().all(|piece| piece.len() <= DEFAULT_MAX_LINE));
}

#[test]
fn what_is_not_complete_waits_and_nothing_else_does() {
    let mut shaper = Shaper::new(&Settings::default());
    let mut block = BlockBuilder::new();
    let mut shape = |bytes: &[u8], end| {
        let chunk = Chunk { bytes, offset: 9, base_ns: 5, floor_ns: 3, end, again: false };
        shaper.shape(&[], chunk, 100, &mut block)
    };
    let more = shape(b"a\nhalf", End::More);
    assert_eq!(more, Shaped { consumed: 2, last_ns: 5, entries: 1, full: false });
    assert_eq!(shape(b"half", End::More), Shaped { consumed: 0, last_ns: 3, entries: 0, full: false });
    assert_eq!(shape(b"half", End::Flush).consumed, 4);
}

#[test]
fn a_block_is_full_after_its_bytes_and_the_rest_comes_again() {
    let text: String =
        (0..100).map(|n| format!("line {n} {}\n", "x".repeat(50))).collect::<Vec<_>>().concat();
    // `entries` takes blocks of 2,000 bytes.
    assert_eq!(lines(&Settings::default(), text.as_bytes()).len(), 100);
}

#[test]
fn parts_of_containers_lines_are_joined_for_each_output() {
    let cri = "1970-01-01T00:00:01Z stdout P one \n1970-01-01T00:00:02Z stderr F other\n1970-01-01T00:00:03Z stdout F two\n";
    let settings = Settings {
        container: Some(Container::Cri),
        times: Bounds { age: std::time::Duration::MAX, ..Bounds::default() },
        ..Settings::default()
    };
    let entries = shaped(&settings, cri.as_bytes());
    let seen: Vec<_> =
        entries.iter().map(|e| (e.line.as_str(), label(e, "stream").unwrap_or(""), e.at_ns)).collect();
    assert_eq!(seen, [("other", "stderr", 2_000_000_000), ("one two", "stdout", 2_000_000_001)]);
    assert_eq!(metadata(&entries[1], "original_timestamp"), Some("1970-01-01T00:00:01Z"));
    let docker = concat!(
        r#"{"log":"a","stream":"stdout","time":"1970-01-01T00:00:01Z"}"#,
        "\n",
        r#"{"log":"b\n","stream":"stdout","time":"1970-01-01T00:00:01Z"}"#,
        "\n",
        // Killed within a line, and started again.
        r#"{"log":"half","stream":"stdout","time":"1970-01-01T00:00:01.5Z"}"#,
        "\n",
        r#"{"log":"again\n","stream":"stdout","time":"1970-01-01T00:00:02Z"}"#,
        "\n",
        "{\"log\":\"torn",
        "\n",
        r#"{"log":"open","stream":"stdout","time":"1970-01-01T00:00:03Z"}"#,
    );
    let settings = Settings { container: Some(Container::Docker), ..settings };
    assert_eq!(lines(&settings, docker.as_bytes()), ["ab", "half", "again", "{\"log\":\"torn", "open"]);
}

#[test]
fn stack_traces_of_two_outputs_in_turn_stay_whole() {
    let mut text = String::new();
    for n in 0..2_000 {
        for output in ["stdout", "stderr"] {
            for line in [format!("{n} failed"), "java.lang.Exc$Error: x".into(), "\tat a.B(C.java:1)".into()]
            {
                text.extend(["1970-01-01T00:00:01Z ", output, " F ", &line, "\n"]);
            }
        }
    }
    let multiline = Multiline { traces: vec![Trace::Java], ..Multiline::default() };
    let settings =
        Settings { container: Some(Container::Cri), multiline: Some(multiline), ..Settings::default() };
    let lines = lines(&settings, text.as_bytes());
    // Where a group is closed for its size, the last event of each output may be cut in two.
    let whole = lines.iter().filter(|line| line.lines().count() == 3).count();
    assert!(whole >= 3_990 && lines.len() <= 4_010, "{whole} of {}", lines.len());
}

#[test]
fn events_have_a_limit_of_lines_and_wait_for_what_may_follow() {
    let multiline = Multiline { traces: vec![Trace::Indented], max_lines: 3, ..Multiline::default() };
    let settings = Settings { multiline: Some(multiline), ..Settings::default() };
    assert_eq!(lines(&settings, b"a\n b\n c\n d\ne\n"), ["a\n b\n c", " d", "e"]);
    let mut shaper = Shaper::new(&settings);
    let mut block = BlockBuilder::new();
    let chunk =
        Chunk { bytes: b"a\n b\nc\n", offset: 0, base_ns: 5, floor_ns: 3, end: End::More, again: false };
    assert_eq!(shaper.shape(&[], chunk, 100, &mut block).consumed, 5);
}

#[test]
fn repeats_are_counted_in_the_entry_that_they_repeat() {
    let settings = Settings { repeats: true, ..Settings::default() };
    let entries = shaped(&settings, b"a\nb\nb\nb\na\na\nc");
    let seen: Vec<_> = entries.iter().map(|e| (e.line.as_str(), metadata(e, "repeated"))).collect();
    assert_eq!(seen, [("a", None), ("b", Some("2")), ("a", Some("1")), ("c", None)]);
    assert_eq!(entries[2].at_ns, BASE_NS + 4, "those that were left out take their times");
}

#[test]
fn in_whatever_portions_bytes_come_the_entries_are_the_same() {
    let documents: [&[u8]; 5] = [
        b"INFO a=1\nERROR b\njava.lang.FooException: x\n\tat y\n\tat z\nERROR b\nERROR b\n a\n\r\n\0\0\nlast a",
        b"{\"level\":\"warn\",\"a\":\"x\",\"n\":{\"b\":[1]}}\n{\"level\":\"warn\",\"a\":\"x\",\"n\":{\"b\":[1]}}\nno json bob@example.org\n{}\n",
        b"t=1795287600 msg=\"hello 4111111111111111\" a=b\nt=1795287599 msg=x\nt=1 msg=old\nmsg=none\n-----BEGIN PRIVATE KEY-----\nMIIE\nAAA=\n-----END PRIVATE KEY-----\nx\n",
        b"2026-11-21T18:59:00Z stdout P one \n2026-11-21T18:59:01Z stderr F Traceback (most recent call last):\n2026-11-21T18:59:01Z stdout F two\n2026-11-21T18:59:01Z stderr F   File x\n2026-11-21T18:59:05Z stdout F   three\nbroken\n2026-11-21T18:59:06Z stderr F KeyError: x\n2026-11-21T18:59:06Z stdout P open",
        b"{\"log\":\"goroutine 1 [running]:\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-21T18:59:00Z\"}\n{\"log\":\"main.main()\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-21T18:59:00Z\"}\n{\"log\":\"half\",\"stream\":\"stderr\",\"time\":\"2026-11-21T18:59:00Z\"}\n{\"log\":\" more\\n\",\"stream\":\"stderr\",\"time\":\"2026-11-21T18:59:00Z\"}\n",
    ];
    let mut joined = documents.concat();
    joined.extend_from_slice(&b"long ".repeat(60));
    for choice in 0..=255_u8 {
        let nth = usize::from(choice);
        for (document, split) in [
            (documents[nth % 5], 0),
            (documents[(nth + 1) % 5], 7),
            (joined.as_slice(), [30, 90, 200][nth % 3]),
        ] {
            let mut input = vec![choice, split];
            input.extend_from_slice(document);
            fuzzing::shaper(&input);
        }
    }
}

#[test]
fn random_bytes_hold_what_fuzzing_checks() {
    let mut seed = 5_u64;
    let mut random = move |most: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % most
    };
    let words: [&[u8]; 24] = [
        b"\n",
        b"\r\n",
        b" ",
        b"a",
        b"{\"a\":\"",
        b"\"}",
        b"=",
        b"\"",
        b"\\",
        b"\xff",
        b"\0",
        b"\tat x",
        b"ERROR ",
        b"level=",
        b"1970-01-01T00:00:01Z stdout P ",
        b"2026-11-21T18:59:00.1Z stderr F ",
        b"{\"log\":\"x\\n\",\"stream\":\"stdout\"}",
        b"4111111111111111",
        b"bob@example.org",
        b"-----BEGIN PRIVATE KEY-----",
        b"-----END PRIVATE KEY-----",
        b"%{INT:x}",
        "é😀".as_bytes(),
        b"Traceback (most recent call last):",
    ];
    for _ in 0..600 {
        let mut input = vec![random(256) as u8, random(256) as u8];
        for _ in 0..random(60) {
            input.extend_from_slice(words[random(words.len())]);
        }
        fuzzing::shaper(&input);
        fuzzing::parsers(&input[1..]);
    }
}

#[test]
fn what_happened_to_lines_is_counted() {
    let registry = Registry::new();
    let steps = vec![
        Step::Json(Parse::default()),
        Step::Drop(Condition { contains: Some("secret".into()), ..Condition::default() }),
    ];
    let settings = Settings { steps: steps.into(), repeats: true, max_line: 100, ..Settings::default() };
    let mut shaper = Shaper::counted(&settings, "app", &registry);
    let mut block = BlockBuilder::new();
    let bytes = format!("{{\"a\":1}}\nsecret\nx\nx\n\0\n{}\n", "y".repeat(150));
    let bytes = [bytes.as_bytes(), b"\xfe\n"].concat();
    let mut at = 0;
    // Handed over twice with what was not consumed: counted once.
    for end in [End::More, End::Flush] {
        let chunk =
            Chunk { bytes: &bytes[at..], offset: at as u64, base_ns: 9, floor_ns: 0, end, again: false };
        at += shaper.shape(&[], chunk, 1 << 20, &mut block).consumed;
    }
    let text = registry.render();
    let value = |name: &str| {
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let read = value("pegel_log_lines_total{input=\"app\"}");
    let made = value("pegel_log_entries_total{input=\"app\"}");
    let dropped: u64 = text
        .lines()
        .filter(|line| line.starts_with("pegel_log_lines_dropped_total"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!((at, read, made, dropped), (bytes.len(), 8, 5, 3), "{text}");
    assert_eq!(value("pegel_log_lines_cut_total"), 1);
    assert_eq!(value("pegel_log_bad_text_total"), 1);
    assert_eq!(value("pegel_log_step_failures_total{input=\"app\",step=\"0:json\"}"), 6);
}

#[test]
fn messages_keep_their_time_and_metadata() {
    let steps = vec![Step::Drop(Condition {
        field: Some("unit".into()),
        one_of: vec!["noisy".into()],
        ..Condition::default()
    })];
    let settings = Settings { steps: steps.into(), repeats: true, max_line: 100, ..Settings::default() };
    let mut shaper = Shaper::new(&settings);
    let mut block = BlockBuilder::new();
    let mut floor_ns = 0;
    let long = "z".repeat(250);
    for (text, unit, at_ns) in [
        ("one\ntwo", "a", Some(BASE_NS - 5_000_000)),
        ("left out", "noisy", None),
        ("old", "a", Some(BASE_NS - 9_000_000)),
        ("ancient", "a", Some(1_000)),
        ("none", "a", None),
        (&long, "a", None),
    ] {
        let message = Message {
            text: text.as_bytes(),
            at_ns,
            base_ns: BASE_NS,
            floor_ns,
            metadata: &[("unit", unit), ("bad key!", "v")],
            again: false,
        };
        let shaped = shaper.message(&[("job".to_owned(), "j".to_owned())], message, 1 << 20, &mut block);
        assert_eq!((shaped.consumed, shaped.full), (text.len(), false));
        floor_ns = shaped.last_ns;
    }
    let decoded = block.finish().unwrap().decode().unwrap();
    let seen: Vec<_> = decoded
        .entries()
        .map(|entry| {
            let metadata: BTreeMap<_, _> = entry.metadata().collect();
            (
                entry.line().len(),
                entry.at_ns() - BASE_NS,
                metadata.contains_key("original_timestamp"),
                metadata.len(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (7, -5_000_000, false, 2),
            (3, -4_999_999, true, 3),
            (7, 0, true, 3),
            (4, 1, false, 2),
            (100, 2, false, 3),
            (100, 3, false, 3),
            (50, 4, false, 2),
        ]
    );
    let mut full = BlockBuilder::new();
    let stream = full.stream(std::iter::empty()).unwrap();
    full.push(stream, 1, "some text", &[]);
    let message = Message { text: b"x", at_ns: None, base_ns: 5, floor_ns: 7, metadata: &[], again: false };
    let shaped = shaper.message(&[], message, 5, &mut full);
    assert_eq!(shaped, Shaped { consumed: 0, last_ns: 7, entries: 0, full: true });
}

#[test]
fn what_is_too_much_for_the_backend_is_moved_or_cut_and_counted() {
    let registry = Registry::new();
    let labels: Vec<_> = ["b", "c", "d", "e"].map(|name| (name.to_owned(), name.to_owned())).into();
    let steps = vec![Step::Json(Parse::default()), Step::Labels(labels), Step::Metadata(Metadata::default())];
    let limits =
        Limits { labels: 5, label_value: 10, metadata_bytes: 60, metadata_pairs: 4, ..Limits::default() };
    let settings = Settings { steps: steps.into(), limits, ..Settings::default() };
    let mut shaper = Shaper::counted(&settings, "app", &registry);
    let mut block = BlockBuilder::new();
    let line = br#"{"b":"this is too long","c":"1","d":"2","e":"3","9 x.y":"v","long":"0123456789012345678901234567890123456789"}"#;
    let source = [("job".to_owned(), "j".to_owned())];
    let chunk = Chunk { bytes: line, offset: 0, base_ns: 9, floor_ns: 0, end: End::Flush, again: false };
    shaper.shape(&source, chunk, 1 << 20, &mut block);
    let decoded = block.finish().unwrap().decode().unwrap();
    let entry = decoded.entries().next().unwrap();
    assert_eq!(decoded.labels(0).collect::<Vec<_>>(), [("c", "1"), ("d", "2"), ("job", "j")]);
    let metadata: Vec<_> = entry.metadata().collect();
    assert_eq!(metadata[..3], [("b", "this is too long"), ("e", "3"), ("_9_x_y", "v")]);
    assert!(metadata.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>() <= 60);
    let text = registry.render();
    assert!(text.contains("pegel_log_labels_moved_total{input=\"app\"} 2"), "{text}");
    assert!(text.contains("pegel_log_metadata_cut_total{input=\"app\"} 1"), "{text}");
}

#[test]
fn derived_metrics_count_what_is_read_once() {
    let metric = Arc::new(Metric {
        name: "requests_total".into(),
        help: String::new(),
        kind: MetricKind::Counter,
        field: None,
        scale: 1.0,
        labels: vec![("status".into(), "status".into()), ("job".into(), "job".into())],
        when: None,
        max_series: 10,
    });
    let steps = vec![Step::Logfmt(Parse::default()), Step::Metric(0, metric.clone())];
    let settings =
        Settings { steps: steps.into(), derived: Derived::new(vec![metric]), ..Settings::default() };
    let mut block = BlockBuilder::new();
    for again in [false, true] {
        let mut shaper = Shaper::new(&settings);
        let bytes = b"status=200\nstatus=500\nstatus=200\n";
        let chunk = Chunk { bytes, offset: 0, base_ns: 9, floor_ns: 0, end: End::More, again };
        shaper.shape(&[("job".to_owned(), "web".to_owned())], chunk, 1 << 20, &mut block);
    }
    let blocks = settings.derived().blocks(&Arc::new(Labels::new([("instance", "i")]).unwrap()), 5);
    let values: Vec<_> =
        blocks[0].set.series().iter().map(|s| s.labels().value("status")).zip(&blocks[0].values).collect();
    assert_eq!(values, [(Some("200"), &2.0), (Some("500"), &1.0)]);
    assert_eq!(blocks[0].set.series()[0].labels().value("job"), Some("web"));
}
