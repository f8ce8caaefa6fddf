//! Single cases that a reader should be able to look up.

use super::*;
use crate::source::scrape::exposition::ParseError;

fn error(body: &str, format: Format) -> ParseError {
    Exposition::new(body.as_bytes(), format)
        .find_map(Result::err)
        .unwrap_or_else(|| panic!("{body:?} is accepted"))
}

/// The first sample's decoded labels, value and stamp.
fn first(body: &str, format: Format) -> (Vec<(String, String)>, f64, Option<i64>) {
    let mut exposition = Exposition::new(body.as_bytes(), format);
    loop {
        if let Entry::Sample(sample) = exposition.next().expect("a sample").expect("no error") {
            let labels = labels::decode(sample.series, format, exposition.kind()).unwrap();
            let labels = labels.into_iter().map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
            return (labels, sample.value, sample.stamp_ms);
        }
    }
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn stamps_are_milliseconds_in_text_and_seconds_in_openmetrics() {
    assert_eq!(first("a 1 1700000000123", Format::Text).2, Some(1_700_000_000_123));
    assert_eq!(first("a 1 1700000000.123\n# EOF\n", Format::OpenMetrics).2, Some(1_700_000_000_123));
    assert_eq!(first("a 1 -1.5\n# EOF\n", Format::OpenMetrics).2, Some(-1_500));
    error("a 1 -1", Format::Text);
    error("a 1 NaN\n# EOF\n", Format::OpenMetrics);
    error("a 1 99999999999999999999", Format::Text);
}

#[test]
fn quoted_names_are_utf8_names() {
    let expected = pairs(&[("__name__", "my.metric \"ü\""), ("label name", "x\n\\")]);
    for format in [Format::Text, Format::OpenMetrics] {
        let body = "{\"my.metric \\\"ü\\\"\",\"label name\"=\"x\\n\\\\\"} 1\n# EOF\n";
        assert_eq!(first(body, format).0, expected);
    }
}

#[test]
fn le_and_quantile_are_written_as_openmetrics_writes_floats() {
    for (kind, label, written, normal) in [
        ("histogram", "le", "1", "1.0"),
        ("histogram", "le", "1e6", "1e+06"),
        ("histogram", "le", "100000", "100000.0"),
        ("histogram", "le", "0.00001", "1e-05"),
        ("histogram", "le", "+Inf", "+Inf"),
        ("histogram", "le", "-0", "0.0"),
        ("histogram", "le", "x", "x"),
        ("summary", "quantile", "1", "1.0"),
        ("summary", "le", "1", "1"),
        ("gauge", "le", "1", "1"),
    ] {
        let body = format!("# TYPE a {kind}\na{{{label}=\"{written}\"}} 1");
        let labels = first(&body, Format::Text).0;
        assert_eq!(labels, pairs(&[("__name__", "a"), (label, normal)]), "{kind} {label} {written}");
    }
}

#[test]
fn every_nan_is_the_ordinary_one_so_that_nobody_can_write_a_staleness_marker() {
    for text in ["NaN", "nan", "NAN"] {
        assert_eq!(first(&format!("a {text}"), Format::Text).1.to_bits(), 0x7ff8_0000_0000_0001);
    }
}

#[test]
fn openmetrics_wants_its_end_mark_and_nothing_after_it() {
    assert!(error("a 1\n", Format::OpenMetrics).to_string().contains("does not end with `# EOF`"));
    assert!(error("a 1\n# EOF\na 2\n", Format::OpenMetrics).to_string().contains("follows `# EOF`"));
    assert!(error("a 1", Format::OpenMetrics).to_string().contains("cut off"));
    assert_eq!(read(b"# EOF", Format::OpenMetrics).as_deref(), Some(""));
}

#[test]
fn carriage_returns_are_refused_with_a_hint() {
    for body in ["a 1\r\n", "# TYPE a counter\r\n", "\r\n"] {
        let message = error(body, Format::Text).to_string();
        assert!(message.contains("carriage return"), "{message}");
    }
}

#[test]
fn errors_say_where_and_why() {
    for (body, format, message) in [
        ("a 1\n\nb x", Format::Text, "line 3, column 3: `x` is no number that fits a 64-bit float"),
        ("a{b} 1", Format::Text, "line 1, column 4: expected `=` after the label's name, found `}`"),
        ("a{b=c} 1", Format::Text, "line 1, column 5: expected a quoted label value, found `c`"),
        ("a{b=\"c} 1\n", Format::Text, "line 1, column 5: the quoted string does not end"),
        ("a{1=\"c\"} 1", Format::Text, "line 1, column 3: expected a label name, found `1`"),
        ("{b=\"c\"} 1", Format::Text, "line 1, column 1: the series has no metric name"),
        ("a{\"b\"} 1", Format::Text, "line 1, column 6: the series has two metric names"),
        ("a\n", Format::Text, "line 1, column 2: expected a value, found the end of the line"),
        ("a 1 2 3", Format::Text, "line 1, column 7: expected the end of the line, found `3`"),
        ("%", Format::Text, "line 1, column 1: expected a metric name, `{` or a comment, found `%`"),
        ("# TYPE a apple", Format::Text, "line 1, column 9: `apple` is no metric type"),
        ("# HELP 1", Format::Text, "line 1, column 8: expected a metric name after # HELP"),
        ("a  1\n# EOF\n", Format::OpenMetrics, "line 1, column 3: expected a value, found a blank"),
        (
            "# UNIT a s\n# EOF\n",
            Format::OpenMetrics,
            "line 1, column 10: the unit `s` is not the end of the metric's name",
        ),
        (
            "\n# EOF\n",
            Format::OpenMetrics,
            "line 1, column 1: expected a metric name, `{` or a comment, found the end of the line",
        ),
        (
            "#x\n",
            Format::OpenMetrics,
            "line 1, column 1: OpenMetrics has no comments: expected HELP, TYPE, UNIT or EOF",
        ),
    ] {
        assert_eq!(error(body, format).to_string(), message, "{body:?}");
    }
}

#[test]
fn what_we_refuse_and_prometheus_does_not() {
    // It takes a NUL for the end, and so the second sample is lost silently there.
    assert_eq!(error("a 1\n\0b 2\n", Format::Text).line, 2);
    let invalid: Vec<_> = Exposition::new(b"{\"\xff\"} 1", Format::Text).collect();
    assert!(invalid[0].is_err());
    // It makes this a metric whose name begins with a blank.
    assert_eq!(first("  a 1", Format::Text).0, pairs(&[("__name__", "a")]));
}

#[test]
fn an_expected_text_is_taken_only_where_it_is_the_whole_series() {
    for (body, expected, taken) in [
        ("a 1", "a", true),
        ("ab 1", "a", false),
        ("a{x=\"1\"} 1", "a", false),
        ("a {x=\"1\"} 1", "a", false),
        ("a  1", "a", false),
        ("a{x=\"1\"}1", "a{x=\"1\"}", true),
        ("a{x=\"12\"} 1", "a{x=\"1\"}", false),
        ("a-1", "a", false),
    ] {
        let plain = Exposition::new(body.as_bytes(), Format::Text).next().unwrap().unwrap();
        let hinted = Exposition::new(body.as_bytes(), Format::Text).next_entry(Some(expected.as_bytes()));
        let (Entry::Sample(plain), Some(Ok(Entry::Sample(hinted)))) = (plain, hinted) else {
            panic!("{body}")
        };
        assert_eq!(hinted.expected, taken, "{body} {expected}");
        assert_eq!((plain.series, plain.value.to_bits()), (hinted.series, hinted.value.to_bits()), "{body}");
    }
}
