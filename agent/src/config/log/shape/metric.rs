//! `metric` steps: metrics derived from lines.

use super::step::RawCondition;
use crate::source::log::shape::{DEFAULT_MAX_SERIES, MAX_SERIES, Metric, MetricKind};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a metric does with values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawMetricType {
    /// Adds them up; entries without `field`.
    #[default]
    Counter,
    /// Keeps the last one.
    Gauge,
    /// Counts them by upper bounds.
    Histogram,
}

/// A metric derived from lines, delivered like any other.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"], "x-renamed" = {"source": "field", "description": "help", "value": "field"}))]
pub struct RawMetric {
    /// Its name.
    pub name: String,
    /// What it does with values.
    pub r#type: RawMetricType,
    /// Its help text.
    pub help: String,
    /// The field with the value. A counter without one counts entries.
    pub field: Option<String>,
    /// What the value is multiplied with: `0.001` makes seconds of milliseconds.
    pub scale: f64,
    /// Upper bounds of a histogram, ascending; without them those of Prometheus' clients (5 ms to 10 s).
    pub buckets: Vec<f64>,
    /// Its labels and the fields, labels or structured metadata that they are of; no others.
    pub labels: BTreeMap<String, String>,
    /// Only entries for which this holds.
    pub when: Option<RawCondition>,
    /// The most series; entries beyond them are counted as dropped.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_series: u32,
}

const DEFAULT_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Default for RawMetric {
    fn default() -> Self {
        Self {
            name: String::new(),
            r#type: RawMetricType::default(),
            help: String::new(),
            field: None,
            scale: 1.0,
            buckets: Vec::new(),
            labels: BTreeMap::new(),
            when: None,
            max_series: DEFAULT_MAX_SERIES as u32,
        }
    }
}

impl RawMetric {
    pub(super) fn resolve(&self, known: &[Arc<Metric>], path: &Path, mistakes: &mut Mistakes) -> Arc<Metric> {
        let word = |name: &str| {
            !name.is_empty()
                && !name.starts_with(|first: char| first.is_ascii_digit())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
        };
        if !word(&self.name) {
            let reason = format!("`{}` is no name of a metric", self.name.escape_debug());
            mistakes.at(&path.key("name"), reason, "use letters, digits, underscores and colons");
        } else if known.iter().any(|other| other.name == self.name) {
            let reason = format!("an earlier step of this input makes `{}` as well", self.name);
            mistakes.at(&path.key("name"), reason, "give each metric a name of its own");
        } else if self.r#type == RawMetricType::Counter && !self.name.ends_with("_total") {
            mistakes.warn(&path.key("name"), "counters end in `_total` by custom", "rename it");
        }
        if self.r#type != RawMetricType::Counter && self.field.is_none() {
            mistakes.at(&path.key("field"), "is missing: it has the value", "name a field with a number");
        }
        if self.r#type != RawMetricType::Histogram && !self.buckets.is_empty() {
            mistakes.at(
                &path.key("buckets"),
                "are for histograms only",
                "set type: histogram, or take them out",
            );
        }
        let ascending = self.buckets.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || self.buckets.iter().any(|bound| !bound.is_finite()) || self.buckets.len() > 64 {
            mistakes.at(
                &path.key("buckets"),
                "are not up to 64 ascending numbers",
                "sort them, without infinity",
            );
        }
        if !self.scale.is_finite() || self.scale == 0.0 {
            mistakes.at(&path.key("scale"), "makes every value the same", "use 1");
        }
        for name in self.labels.keys() {
            let histogram = self.r#type == RawMetricType::Histogram;
            if !crate::source::log::shape::is_label(name) || (histogram && name == "le") {
                let remedy = "use letters, digits and underscores, and not `le` for histograms";
                mistakes.at(&path.key("labels").key(name), "is no label of a metric", remedy);
            }
        }
        let labels = self.labels.iter().filter(|(name, _)| *name != "le");
        Arc::new(Metric {
            name: self.name.clone(),
            help: self.help.clone(),
            kind: match self.r#type {
                RawMetricType::Counter => MetricKind::Counter,
                RawMetricType::Gauge => MetricKind::Gauge,
                RawMetricType::Histogram if self.buckets.is_empty() => {
                    MetricKind::Histogram(DEFAULT_BUCKETS.into())
                }
                RawMetricType::Histogram => MetricKind::Histogram(self.buckets.clone().into()),
            },
            field: self.field.clone(),
            scale: self.scale,
            labels: labels.map(|(name, field)| (name.clone(), field.clone())).collect(),
            when: self.when.as_ref().map(|when| when.resolve(&path.key("when"), mistakes)),
            max_series: (self.max_series as usize).clamp(1, MAX_SERIES),
        })
    }
}
