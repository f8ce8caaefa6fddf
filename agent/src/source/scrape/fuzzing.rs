//! Bodies of fuzz targets: plain functions that panic on what must not happen, for `scripts/test` on stable and for
//! cargo-fuzz alike.

use super::exposition::{Entry, Exposition, Format, labels};
use pegel_proto::metrics::MetricType;
use std::fmt::Write as _;

/// An entry without what another way of writing it may change.
#[derive(Debug, PartialEq)]
enum Said {
    Sample { labels: Vec<(String, String)>, bits: u64, stamp_ms: Option<i64> },
    Help(String, String),
    Type(String, MetricType),
    Unit(String, String),
}

/// The exposition parser: the first byte's lowest bit picks the format, the rest is the body. It never panics, what
/// it reads with expectations is what it reads without, and what it accepts means the same when written anew.
pub fn exposition(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    let format = if first & 1 == 0 { Format::Text } else { Format::OpenMetrics };
    let Some(said) = read(body, format) else { return };
    let rendered = render(&said, format);
    let again = read(rendered.as_bytes(), format);
    assert_eq!(again.as_ref(), Some(&said), "written anew as {rendered:?}");
}

/// What a body says; none if it is refused.
fn read(body: &[u8], format: Format) -> Option<Vec<Said>> {
    let entries: Result<Vec<Entry<'_>>, _> = Exposition::new(body, format).collect();
    expectations_change_nothing(body, format, entries.as_deref().ok());
    let mut kind = MetricType::Unknown;
    let mut said = Vec::new();
    for entry in entries.ok()? {
        said.push(match entry {
            Entry::Sample(sample) => {
                assert_eq!(&body[sample.at..][..sample.series.len()], sample.series);
                let labels = labels::decode(sample.series, format, kind).expect("a text that was lent");
                let labels = labels.into_iter().map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
                // Seconds as floats do not survive being written in milliseconds; whole seconds are enough here.
                let stamp_ms = sample.stamp_ms.filter(|_| format == Format::Text);
                Said::Sample { labels, bits: sample.value.to_bits(), stamp_ms }
            }
            Entry::Help { family, text } => {
                // The text format has no way to write a help text of nothing but blanks.
                let text = if text.trim_matches([' ', '\t']).is_empty() { "" } else { &*text };
                Said::Help(family.into_owned(), text.to_owned())
            }
            Entry::Type { family, kind: named } => {
                kind = named;
                Said::Type(family.into_owned(), named)
            }
            Entry::Unit { family, unit } => Said::Unit(family.into_owned(), unit.into_owned()),
        });
    }
    Some(said)
}

/// Reads a body again, expecting each series text (and, every other time, a wrong one).
fn expectations_change_nothing(body: &[u8], format: Format, plain: Option<&[Entry<'_>]>) {
    let Some(plain) = plain else { return };
    let mut exposition = Exposition::new(body, format);
    for (number, entry) in plain.iter().enumerate() {
        let expected = match entry {
            Entry::Sample(sample) if number % 3 != 2 => sample.series,
            _ => b"a",
        };
        let mut again = exposition.next_entry(Some(expected)).expect("as many entries").expect("no error");
        if let Entry::Sample(sample) = &mut again {
            sample.expected = false;
        }
        assert_eq!(format!("{again:?}"), format!("{entry:?}"));
    }
    assert!(exposition.next_entry(Some(b"a{}")).is_none());
}

fn render(said: &[Said], format: Format) -> String {
    let mut out = String::new();
    for one in said {
        let _ = match one {
            Said::Sample { labels, bits, stamp_ms } => render_sample(&mut out, labels, *bits, *stamp_ms),
            Said::Help(family, text) => {
                let text = text.replace('\\', r"\\").replace('\n', r"\n");
                let text = if format == Format::OpenMetrics { text.replace('"', "\\\"") } else { text };
                writeln!(out, "# HELP \"{}\" {text}", labels::escape(family))
            }
            Said::Type(family, kind) => {
                writeln!(out, "# TYPE \"{}\" {}", labels::escape(family), type_name(*kind, format))
            }
            Said::Unit(family, unit) => writeln!(out, "# UNIT \"{}\" {unit}", labels::escape(family)),
        };
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn render_sample(
    out: &mut String,
    labels: &[(String, String)],
    bits: u64,
    stamp_ms: Option<i64>,
) -> std::fmt::Result {
    out.push('{');
    let mut named = false;
    for (name, value) in labels {
        let value = labels::escape(value);
        // The first `__name__` is the name; another one was written as a label.
        if name == pegel_proto::metrics::NAME_LABEL && !std::mem::replace(&mut named, true) {
            write!(out, "\"{value}\",")?;
        } else {
            write!(out, "\"{}\"=\"{value}\",", labels::escape(name))?;
        }
    }
    let value = f64::from_bits(bits);
    if value.is_nan() {
        write!(out, "}} NaN")?;
    } else {
        write!(out, "}} {value:e}")?;
    }
    match stamp_ms {
        Some(stamp) => writeln!(out, " {stamp}"),
        None => writeln!(out),
    }
}

fn type_name(kind: MetricType, format: Format) -> &'static str {
    match kind {
        MetricType::Unknown if format == Format::Text => "untyped",
        MetricType::Unknown => "unknown",
        MetricType::Counter => "counter",
        MetricType::Gauge => "gauge",
        MetricType::Histogram => "histogram",
        MetricType::GaugeHistogram => "gaugehistogram",
        MetricType::Summary => "summary",
        MetricType::Info => "info",
        MetricType::StateSet => "stateset",
    }
}
