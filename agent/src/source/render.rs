//! A scrape as text, in the Prometheus text format 0.0.4.

use pegel_proto::metrics::{Block, Family, Labels, MetricType, NAME_LABEL, Series, full_labels};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A family and its samples.
type Samples<'a> = (&'a Family, Vec<(&'a Labels, &'a Series, f64)>);

/// Which labels are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhichLabels {
    /// A series' own, as an exporter would show it.
    Own,
    /// Those of its target too, as a backend stores it.
    Full,
}

/// Renders blocks: families by name, each with HELP and TYPE.
pub fn text(blocks: &[Block], which: WhichLabels) -> String {
    let mut families: BTreeMap<&str, Samples<'_>> = BTreeMap::new();
    let none = Labels::default();
    for block in blocks {
        let target = if which == WhichLabels::Full { &**block.set.target() } else { &none };
        for (series, value) in block.set.series().iter().zip(&block.values) {
            let family = series.family();
            families.entry(&family.name).or_insert((family, Vec::new())).1.push((target, series, *value));
        }
    }
    let mut out = String::new();
    for (name, (family, samples)) in families {
        let help = family.help.replace('\\', r"\\").replace('\n', r"\n");
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {}", type_name(family.kind));
        for (target, series, value) in samples {
            out.push_str(series.name());
            let mut separator = '{';
            // An exporter shows its empty labels; a backend does not store them.
            let labels = match which {
                WhichLabels::Own => series.labels().iter().collect(),
                WhichLabels::Full => full_labels(target, series.labels()),
            };
            for (label, value) in labels.into_iter().filter(|(n, _)| *n != NAME_LABEL) {
                let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
                let _ = write!(out, "{separator}{label}=\"{value}\"");
                separator = ',';
            }
            if separator == ',' {
                out.push('}');
            }
            let _ = match value {
                v if v.is_nan() => writeln!(out, " NaN"),
                v if v.is_infinite() => writeln!(out, " {}Inf", if v > 0.0 { '+' } else { '-' }),
                v => writeln!(out, " {v}"),
            };
        }
    }
    out
}

fn type_name(kind: MetricType) -> &'static str {
    match kind {
        MetricType::Counter => "counter",
        MetricType::Gauge | MetricType::Info | MetricType::StateSet => "gauge",
        MetricType::Histogram | MetricType::GaugeHistogram => "histogram",
        MetricType::Summary => "summary",
        MetricType::Unknown => "untyped",
    }
}
