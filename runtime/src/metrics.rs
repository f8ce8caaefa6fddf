//! pegel's own metrics: a small registry of counters, gauges and histograms, rendered in the Prometheus text format.
//!
//! A metric is declared where it is counted: `registry.counter("pegel_x_total", "What it counts.", &[("k", "v")])`
//! gives a handle that is cheap to clone and to add to. Declaring the same name and labels again gives the same
//! handle. Values that are only known when somebody asks are added by [`Registry::on_render`].

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Continues from a persisted total.
    pub fn resume_at(&self, total: u64) {
        self.0.store(total, Ordering::Relaxed);
    }

    /// The value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A gauge.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// The value.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// A histogram with fixed upper bounds.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<HistogramState>);

#[derive(Debug)]
struct HistogramState {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    sum: Mutex<f64>,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(HistogramState { bounds, counts, sum: Mutex::new(0.0) }))
    }

    /// Counts one observation.
    pub fn observe(&self, value: f64) {
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        *self.0.sum.lock() += value;
    }
}

#[derive(Debug, Clone)]
enum Metric {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

#[derive(Debug)]
struct MetricFamily {
    help: &'static str,
    metrics: BTreeMap<Vec<(&'static str, String)>, Metric>,
}

type RenderHook = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct RegistryState {
    families: Mutex<BTreeMap<&'static str, MetricFamily>>,
    hooks: Mutex<Vec<RenderHook>>,
}

/// The metrics of one process (or one test).
#[derive(Clone, Default)]
pub struct Registry(Arc<RegistryState>);

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares or finds a counter. Its name ends in `_total`.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Counter {
        match self.declare(name, help, labels, || Metric::Counter(Counter::default())) {
            Metric::Counter(found) => found,
            other => panic!("metric {name} is declared as {other:?} elsewhere"),
        }
    }

    /// Declares or finds a gauge.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        match self.declare(name, help, labels, || Metric::Gauge(Gauge::default())) {
            Metric::Gauge(found) => found,
            other => panic!("metric {name} is declared as {other:?} elsewhere"),
        }
    }

    /// Declares or finds a histogram with these ascending upper bounds.
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        bounds: &'static [f64],
    ) -> Histogram {
        match self.declare(name, help, labels, || Metric::Histogram(Histogram::new(bounds))) {
            Metric::Histogram(found) => found,
            other => panic!("metric {name} is declared as {other:?} elsewhere"),
        }
    }

    /// Takes one labelled metric away, when what it spoke of is gone.
    pub fn remove(&self, name: &str, labels: &[(&'static str, &str)]) {
        if let Some(family) = self.0.families.lock().get_mut(name) {
            family.metrics.remove(&owned(labels));
        }
    }

    /// Has `hook` called before each rendering, to set gauges that nobody sets otherwise.
    pub fn on_render(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.0.hooks.lock().push(Box::new(hook));
    }

    fn declare(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        make: impl FnOnce() -> Metric,
    ) -> Metric {
        self.0
            .families
            .lock()
            .entry(name)
            .or_insert_with(|| MetricFamily { help, metrics: BTreeMap::new() })
            .metrics
            .entry(owned(labels))
            .or_insert_with(make)
            .clone()
    }

    /// All metrics in the Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        for hook in self.0.hooks.lock().iter() {
            hook();
        }
        let mut out = String::new();
        for (name, family) in self.0.families.lock().iter() {
            let kind = match family.metrics.values().next() {
                Some(Metric::Counter(_)) => "counter",
                Some(Metric::Gauge(_)) => "gauge",
                Some(Metric::Histogram(_)) => "histogram",
                None => continue,
            };
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (labels, metric) in &family.metrics {
                match metric {
                    Metric::Counter(c) => sample(&mut out, name, "", labels, None, c.value() as f64),
                    Metric::Gauge(g) => sample(&mut out, name, "", labels, None, g.value()),
                    Metric::Histogram(h) => render_histogram(&mut out, name, labels, &h.0),
                }
            }
        }
        out
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    labels.iter().map(|(n, v)| (*n, (*v).to_owned())).collect()
}

fn render_histogram(out: &mut String, name: &str, labels: &[(&'static str, String)], state: &HistogramState) {
    let mut cumulative = 0;
    for (i, count) in state.counts.iter().enumerate() {
        cumulative += count.load(Ordering::Relaxed);
        let bound = state.bounds.get(i).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
        sample(out, name, "_bucket", labels, Some(&bound), cumulative as f64);
    }
    sample(out, name, "_sum", labels, None, *state.sum.lock());
    sample(out, name, "_count", labels, None, cumulative as f64);
}

fn sample(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(&'static str, String)],
    le: Option<&str>,
    value: f64,
) {
    let _ = write!(out, "{name}{suffix}");
    let mut separator = '{';
    let le = le.map(|le| ("le", le));
    for (label, text) in labels.iter().map(|(n, v)| (*n, v.as_str())).chain(le) {
        let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let _ = write!(out, "{separator}{label}=\"{text}\"");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_declaration_gives_the_same_counter() {
        let registry = Registry::new();
        registry.counter("pegel_a_total", "A.", &[("k", "v")]).add(2);
        registry.counter("pegel_a_total", "A.", &[("k", "v")]).inc();
        assert_eq!(
            registry.render(),
            "# HELP pegel_a_total A.\n# TYPE pegel_a_total counter\npegel_a_total{k=\"v\"} 3\n"
        );
    }

    #[test]
    fn a_histogram_is_cumulative_and_label_values_are_escaped() {
        let registry = Registry::new();
        let h = registry.histogram("pegel_h", "H.", &[("p", "a\"b\n")], &[1.0, 2.0]);
        h.observe(1.0);
        h.observe(9.0);
        let text = registry.render();
        assert!(text.contains(r#"pegel_h_bucket{p="a\"b\n",le="1"} 1"#), "{text}");
        assert!(text.contains(r#"pegel_h_bucket{p="a\"b\n",le="+Inf"} 2"#), "{text}");
        assert!(text.contains(r#"pegel_h_sum{p="a\"b\n"} 10"#), "{text}");
    }

    #[test]
    fn hooks_run_before_each_rendering() {
        let registry = Registry::new();
        let gauge = registry.gauge("pegel_g", "G.", &[]);
        let inner = gauge.clone();
        registry.on_render(move || inner.set(inner.value() + 1.0));
        registry.render();
        assert!(registry.render().contains("pegel_g 2"));
    }
}
