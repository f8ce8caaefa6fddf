//! `GET /federate?match[]=…`: last values in the Prometheus text format 0.0.4, with their instants.

use super::api::{labels, prometheus_number, selectors};
use super::{Refusal, Status};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, StatusCode, header};
use pegel_proto::metrics::{MetricType, NAME_LABEL};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The lines of one metric.
#[derive(Default)]
struct Metric {
    kind: Option<&'static str>,
    lines: String,
}

pub(super) async fn federate(
    State(status): State<Arc<Status>>,
    RawQuery(query): RawQuery,
) -> Result<([(HeaderName, &'static str); 1], String), Refusal> {
    let selectors = selectors(query.as_deref(), &["match[]"])?;
    let text = [(header::CONTENT_TYPE, CONTENT_TYPE)];
    if selectors.is_empty() {
        // As in Prometheus: what is not asked for is not given.
        return Ok((text, String::new()));
    }
    let recent = status.board.recent();
    let since_ms = recent.now_ms() - status.settings.look_back.as_millis() as i64;
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    let mut series_count = 0;
    recent.visit(None, &selectors, &mut |series, value, at_ms| {
        if at_ms < since_ms {
            return;
        }
        series_count += 1;
        if series_count > status.settings.max_answer_series {
            return;
        }
        let mut labels = labels(recent.symbols(), series);
        let Some(name) = labels.iter().position(|(label, _)| label == NAME_LABEL) else { return };
        let (_, name) = labels.remove(name);
        let metric = metrics.entry(name).or_default();
        metric.kind.get_or_insert(match series.family.kind {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            // Parts of histograms and summaries stand alone here, as in Prometheus' own federation.
            _ => "untyped",
        });
        line(&mut metric.lines, &labels, value, at_ms);
    });
    let most = status.settings.max_answer_series;
    if series_count > most {
        let told = format!(
            "{series_count} series match, and one answer holds at most {most}: ask with narrower match[] selectors"
        );
        return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, told));
    }
    let mut out = String::with_capacity(metrics.iter().map(|(n, m)| (n.len() + 20) + m.lines.len()).sum());
    for (name, metric) in &metrics {
        if !is_plain_name(name) {
            // The 0.0.4 format has no way to write it.
            continue;
        }
        let _ = writeln!(out, "# TYPE {name} {}", metric.kind.unwrap_or("untyped"));
        for line in metric.lines.lines() {
            let _ = writeln!(out, "{name}{line}");
        }
    }
    Ok((text, out))
}

/// One sample, but for the metric's name.
fn line(out: &mut String, labels: &[(String, String)], value: f64, at_ms: i64) {
    let mut separator = '{';
    for (name, text) in labels {
        let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let _ = write!(out, "{separator}{name}=\"{text}\"");
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    let _ = writeln!(out, " {} {at_ms}", prometheus_number(value));
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.as_bytes()[0].is_ascii_digit()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
}
