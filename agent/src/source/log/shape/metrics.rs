//! Metrics derived from lines: counters, gauges and histograms, as promtail's and Vector's users know them.
//!
//! They count in memory: what was counted since the last hand-over is gone with a killed process, and what is read again
//! after a restart is not counted again. So they are as exact as a process' own counters, not as lines are.

use super::matching::Condition;
use parking_lot::Mutex;
use pegel_proto::metrics::{Block, Family, Labels, MetricType, NAME_LABEL, Series, SeriesSet};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// How many series a metric may have by default.
pub const DEFAULT_MAX_SERIES: usize = 1_000;
/// The most series that a metric may be allowed.
pub const MAX_SERIES: usize = 10_000;
/// The longest value of a label; longer ones are cut.
const MAX_VALUE_BYTES: usize = 256;
/// Between the values of labels in a series' key; no text holds it.
const SEPARATOR: char = '\u{1f}';

/// One metric.
#[derive(Debug, Clone)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its help text.
    pub help: String,
    /// What it does with values.
    pub kind: Kind,
    /// The field with the value; a counter without one counts entries.
    pub field: Option<String>,
    /// What the value is multiplied with.
    pub scale: f64,
    /// Its labels and the fields that they are of.
    pub labels: Vec<(String, String)>,
    /// What an entry has to be to be counted.
    pub when: Option<Condition>,
    /// How many series it may have; entries beyond are counted as dropped.
    pub max_series: usize,
}

/// What a metric does with values.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Adds them up.
    Counter,
    /// Keeps the last one.
    Gauge,
    /// Counts them by upper bounds, ascending, without the infinite one.
    Histogram(Arc<[f64]>),
}

/// A value for a metric.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observation {
    pub metric: usize,
    /// The labels' values with separators.
    pub key: String,
    pub value: f64,
}

/// The metrics of one input, shared by all that shape its lines.
#[derive(Clone, Default)]
pub struct Derived(Arc<Mutex<Table>>);

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.lock().metrics.iter().map(|one| &one.metric.name)).finish()
    }
}

#[derive(Default)]
struct Table {
    metrics: Vec<State>,
    /// The set of the last blocks, while no series came.
    set: Option<(Arc<Labels>, Arc<SeriesSet>)>,
}

struct State {
    metric: Arc<Metric>,
    numbers: HashMap<String, usize>,
    /// In the order in which they came.
    series: Vec<(String, Value)>,
}

enum Value {
    Number(f64),
    Histogram { counts: Vec<u64>, sum: f64, count: u64 },
}

impl Derived {
    /// Room for these metrics.
    pub fn new(metrics: Vec<Arc<Metric>>) -> Self {
        let state = |metric| State { metric, numbers: HashMap::new(), series: Vec::new() };
        Self(Arc::new(Mutex::new(Table { metrics: metrics.into_iter().map(state).collect(), set: None })))
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.0.lock().metrics.is_empty()
    }

    /// Takes values. How many found no room for their series.
    pub(super) fn observe(&self, observations: &mut Vec<Observation>) -> u64 {
        if observations.is_empty() {
            return 0;
        }
        let mut table = self.0.lock();
        let table = &mut *table;
        let mut dropped = 0;
        for one in observations.drain(..) {
            let Some(state) = table.metrics.get_mut(one.metric) else { continue };
            let number = match state.numbers.get(&one.key) {
                Some(number) => *number,
                None if state.series.len() >= state.metric.max_series => {
                    dropped += 1;
                    continue;
                }
                None => {
                    table.set = None;
                    let value = match &state.metric.kind {
                        Kind::Counter | Kind::Gauge => Value::Number(0.0),
                        Kind::Histogram(bounds) => {
                            Value::Histogram { counts: vec![0; bounds.len()], sum: 0.0, count: 0 }
                        }
                    };
                    state.numbers.insert(one.key.clone(), state.series.len());
                    state.series.push((one.key, value));
                    state.series.len() - 1
                }
            };
            match (&mut state.series[number].1, &state.metric.kind) {
                (Value::Number(sum), Kind::Counter) => *sum += one.value,
                (Value::Number(last), _) => *last = one.value,
                (Value::Histogram { counts, sum, count }, Kind::Histogram(bounds)) => {
                    *sum += one.value;
                    *count += 1;
                    if let Some(bucket) = bounds.iter().position(|bound| one.value <= *bound) {
                        counts[bucket] += 1;
                    }
                }
                (Value::Histogram { .. }, _) => {}
            }
        }
        dropped
    }

    /// The samples of all series at an instant, with these labels of the target; no block before the first one.
    pub fn blocks(&self, target: &Arc<Labels>, at_ms: i64) -> Vec<Block> {
        let mut table = self.0.lock();
        if table.metrics.iter().all(|state| state.series.is_empty()) {
            return Vec::new();
        }
        let values = table.metrics.iter().flat_map(State::values).collect::<Vec<_>>();
        let kept = table.set.as_ref().filter(|(of, _)| of == target).map(|(_, set)| set.clone());
        let set = kept.unwrap_or_else(|| {
            let series: Vec<_> = table.metrics.iter().flat_map(State::describe).collect();
            Arc::new(SeriesSet::new(target.clone(), series))
        });
        table.set = Some((target.clone(), set.clone()));
        vec![Block::new(at_ms, set, values)]
    }
}

impl State {
    fn values(&self) -> Vec<f64> {
        let mut values = Vec::new();
        for (_, value) in &self.series {
            match value {
                Value::Number(number) => values.push(*number),
                Value::Histogram { counts, sum, count } => {
                    let mut below = 0;
                    for counted in counts {
                        below += counted;
                        values.push(below as f64);
                    }
                    values.extend([*count as f64, *sum, *count as f64]);
                }
            }
        }
        values
    }

    /// The series in the order of their values.
    fn describe(&self) -> Vec<Arc<Series>> {
        let metric = &self.metric;
        let kind = match metric.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram(_) => MetricType::Histogram,
        };
        let family = Arc::new(Family {
            name: metric.name.as_str().into(),
            kind,
            help: metric.help.as_str().into(),
            unit: "".into(),
        });
        let mut series = Vec::new();
        for (key, _) in &self.series {
            let mut add = |suffix: &str, bound: Option<String>| {
                let name = format!("{}{suffix}", metric.name);
                let own = metric.labels.iter().map(|(name, _)| name.as_str()).zip(key.split(SEPARATOR));
                let pairs = std::iter::once((NAME_LABEL, name.as_str()))
                    .chain(own.filter(|(_, value)| !value.is_empty()))
                    .chain(bound.as_deref().map(|bound| ("le", bound)));
                let labels =
                    Labels::new(pairs).expect("the configuration has each label once, and none `le`");
                series.push(Arc::new(Series::new(labels, family.clone())));
            };
            match &metric.kind {
                Kind::Counter | Kind::Gauge => add("", None),
                Kind::Histogram(bounds) => {
                    bounds.iter().for_each(|bound| add("_bucket", Some(bound.to_string())));
                    add("_bucket", Some("+Inf".to_owned()));
                    add("_sum", None);
                    add("_count", None);
                }
            }
        }
        series
    }
}

/// Puts the value of a label behind those before.
pub(super) fn push_value(key: &mut String, first: bool, value: &str) {
    if !first {
        key.push(SEPARATOR);
    }
    key.extend(super::text::prefix(value, MAX_VALUE_BYTES).chars().filter(|char| *char != SEPARATOR));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str, kind: Kind, labels: &[&str]) -> Arc<Metric> {
        Arc::new(Metric {
            name: name.to_owned(),
            help: "H.".to_owned(),
            kind,
            field: None,
            scale: 1.0,
            labels: labels.iter().map(|name| ((*name).to_owned(), (*name).to_owned())).collect(),
            when: None,
            max_series: 2,
        })
    }

    fn shown(derived: &Derived) -> Vec<String> {
        let blocks = derived.blocks(&Arc::default(), 5);
        let block = &blocks[0];
        let labels = |series: &Series| {
            series.labels().iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(",")
        };
        block
            .set
            .series()
            .iter()
            .zip(&block.values)
            .map(|(series, v)| format!("{} {v}", labels(series)))
            .collect()
    }

    #[test]
    fn counters_gauges_and_histograms() {
        let bounds: Arc<[f64]> = vec![0.5, 1.0].into();
        let derived = Derived::new(vec![
            metric("lines_total", Kind::Counter, &["a", "b"]),
            metric("last", Kind::Gauge, &[]),
            metric("seconds", Kind::Histogram(bounds), &[]),
        ]);
        assert!(derived.blocks(&Arc::default(), 1).is_empty());
        let observe = |metric, key: &str, value| {
            derived.observe(&mut vec![Observation { metric, key: key.to_owned(), value }])
        };
        assert_eq!(observe(0, "x\u{1f}y", 1.0) + observe(0, "x\u{1f}y", 2.0) + observe(0, "\u{1f}z", 1.0), 0);
        assert_eq!(observe(0, "one\u{1f}more", 1.0), 1);
        for value in [0.2, 0.7, 9.0] {
            observe(1, "", value);
            observe(2, "", value);
        }
        assert_eq!(
            shown(&derived),
            [
                "__name__=lines_total,a=x,b=y 3",
                "__name__=lines_total,b=z 1",
                "__name__=last 9",
                "__name__=seconds_bucket,le=0.5 1",
                "__name__=seconds_bucket,le=1 2",
                "__name__=seconds_bucket,le=+Inf 3",
                "__name__=seconds_sum 9.9",
                "__name__=seconds_count 3",
            ]
        );
    }

    #[test]
    fn the_set_stays_the_same_while_no_series_comes() {
        let derived = Derived::new(vec![metric("n", Kind::Counter, &["a"])]);
        let observe = |key: &str| {
            derived.observe(&mut vec![Observation { metric: 0, key: key.to_owned(), value: 1.0 }]);
            derived.blocks(&Arc::default(), 1).remove(0).set
        };
        let first = observe("x");
        assert!(Arc::ptr_eq(&first, &observe("x")));
        assert_eq!(observe("y").len(), 2);
    }
}
