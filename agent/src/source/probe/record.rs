//! What a run of a check measured: samples, put down one by one, that outlive the run when its time is over.
//!
//! A probe first sets what it always reports to zero and then overwrites, as blackbox_exporter does: so a failed run
//! has the same series as a good one. [`Shape`] makes one [`Block`] of it, with the same [`SeriesSet`] as long as
//! the series are the same, and ends those that went away with staleness markers.

use crate::source::vanished;
use pegel_proto::caps::MAX_LABEL_VALUE_BYTES;
use pegel_proto::metrics::{Block, Family, Labels, MetricType, NAME_LABEL, Series, SeriesSet, stale_marker};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// A gauge that probes set. Kept in a `static`.
#[derive(Debug)]
pub struct Gauge {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    family: OnceLock<Arc<Family>>,
}

impl Gauge {
    /// A gauge with label names, in any order.
    pub const fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels, family: OnceLock::new() }
    }

    fn family(&self) -> &Arc<Family> {
        self.family.get_or_init(|| Arc::new(family(self.name, self.help)))
    }
}

fn family(name: &str, help: &str) -> Family {
    Family { name: name.into(), kind: MetricType::Gauge, help: help.into(), unit: "".into() }
}

/// The values of a sample's labels, in the order of the gauge's label names.
type Values = Box<[Cow<'static, str>]>;

#[derive(Debug, Clone)]
struct Sample {
    family: Arc<Family>,
    names: Cow<'static, [Box<str>]>,
    static_names: &'static [&'static str],
    labels: Values,
    value: f64,
}

impl Sample {
    fn is(&self, family: &Arc<Family>, labels: &[Cow<'static, str>]) -> bool {
        Arc::ptr_eq(&self.family, family) && *self.labels == *labels
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.static_names.iter().copied().chain(self.names.iter().map(AsRef::as_ref));
        names.zip(self.labels.iter().map(AsRef::as_ref))
    }

    fn series(&self) -> Series {
        let name = (NAME_LABEL, self.family.name.as_ref());
        let labels = Labels::new(std::iter::once(name).chain(self.pairs()))
            .expect("label names of a gauge are unique, those of a check are checked");
        Series::new(labels, self.family.clone())
    }
}

/// The samples of one run.
#[derive(Debug, Default)]
pub struct Record {
    samples: Vec<Sample>,
}

impl Record {
    /// Sets a gauge without labels.
    pub fn set(&mut self, gauge: &'static Gauge, value: f64) {
        self.set_with(gauge, Box::default(), value);
    }

    /// Sets a gauge with values for its labels, in the order of their names.
    pub fn set_labels<const N: usize>(
        &mut self,
        gauge: &'static Gauge,
        labels: [Cow<'static, str>; N],
        value: f64,
    ) {
        self.set_with(gauge, labels.into_iter().map(within_caps).collect(), value);
    }

    /// Sets a gauge with one label.
    pub fn set_label(&mut self, gauge: &'static Gauge, label: &'static str, value: f64) {
        self.set_with(gauge, Box::new([Cow::Borrowed(label)]), value);
    }

    /// Adds to a gauge with one label, which is zero before.
    pub fn add_label(&mut self, gauge: &'static Gauge, label: &'static str, value: f64) {
        let labels = [Cow::Borrowed(label)];
        let family = gauge.family();
        match self.samples.iter_mut().find(|s| s.is(family, &labels)) {
            Some(sample) => sample.value += value,
            None => self.set_label(gauge, label, value),
        }
    }

    fn set_with(&mut self, gauge: &'static Gauge, labels: Values, value: f64) {
        debug_assert_eq!(gauge.labels.len(), labels.len(), "{}: one value a label", gauge.name);
        let family = gauge.family();
        match self.samples.iter_mut().find(|s| s.is(family, &labels)) {
            Some(sample) => sample.value = value,
            None => self.samples.push(Sample {
                family: family.clone(),
                names: Cow::Borrowed(&[]),
                static_names: gauge.labels,
                labels,
                value,
            }),
        }
    }

    /// Sets a gauge whose label names the check's settings have. A later call replaces it, whatever its labels.
    pub fn set_named(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Vec<(Box<str>, String)>,
        value: f64,
    ) {
        self.samples.retain(|sample| *sample.family.name != *name);
        let (names, labels): (Vec<_>, Vec<_>) =
            labels.into_iter().map(|(name, value)| (name, within_caps(value.into()))).unzip();
        self.samples.push(Sample {
            family: Arc::new(family(name, help)),
            names: names.into(),
            static_names: &[],
            labels: labels.into(),
            value,
        });
    }

    /// The value of a gauge without labels, if it is set.
    pub fn value(&self, gauge: &'static Gauge) -> Option<f64> {
        self.samples.iter().find(|s| s.is(gauge.family(), &[])).map(|s| s.value)
    }

    /// Forgets all samples, for another attempt.
    pub fn clear(&mut self) {
        self.samples.clear();
    }
}

/// A label value that can be sent, cut at a comma where it lists something.
fn within_caps(value: Cow<'static, str>) -> Cow<'static, str> {
    if value.len() <= MAX_LABEL_VALUE_BYTES {
        return value;
    }
    let mut cut = MAX_LABEL_VALUE_BYTES;
    while !value.is_char_boundary(cut) {
        cut -= 1;
    }
    let whole = value[..cut].rfind(',').unwrap_or(cut);
    Cow::Owned(value[..whole].to_owned())
}

/// The series of one target from run to run.
#[derive(Debug)]
pub struct Shape {
    target: Arc<Labels>,
    /// What the set was made of, in its order.
    samples: Vec<Sample>,
    set: Option<Arc<SeriesSet>>,
    last_ms: Option<i64>,
}

impl Shape {
    /// The series of a target with these labels; there are none yet.
    pub fn new(target: Arc<Labels>) -> Self {
        Self { target, samples: Vec::new(), set: None, last_ms: None }
    }

    /// The blocks of a run: its samples, and staleness markers for series that the run before had.
    pub fn blocks(&mut self, record: Record, at_ms: i64) -> Vec<Block> {
        self.last_ms = Some(at_ms);
        let same =
            self.set.is_some()
                && self.samples.len() == record.samples.len()
                && self.samples.iter().zip(&record.samples).all(|(a, b)| {
                    a.family.name == b.family.name && a.labels == b.labels && a.names == b.names
                });
        let values: Vec<f64> = record.samples.iter().map(|s| s.value).collect();
        let before = self.set.clone();
        let set = if let Some(set) = before.clone().filter(|_| same) {
            set
        } else {
            let series: Vec<_> = record.samples.iter().map(|s| Arc::new(s.series())).collect();
            let set = Arc::new(SeriesSet::new(self.target.clone(), series));
            self.samples = record.samples;
            self.set = Some(set.clone());
            set
        };
        let gone = before.filter(|_| !same).and_then(|before| vanished(&before, Some(&set)));
        let mut blocks = vec![Block::new(at_ms, set, values)];
        blocks.extend(gone.map(|gone| stale(gone, at_ms)));
        blocks
    }

    /// Staleness markers for all series: the target is gone.
    pub fn end(&mut self, now_ms: i64) -> Vec<Block> {
        // A marker at the very instant of the last sample would be a second value for it.
        let at_ms = if self.last_ms == Some(now_ms) { now_ms + 1 } else { now_ms };
        self.set.take().map(|set| stale(set, at_ms)).into_iter().collect()
    }
}

fn stale(set: Arc<SeriesSet>, at_ms: i64) -> Block {
    let values = vec![stale_marker(); set.len()];
    Block::new(at_ms, set, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegel_proto::metrics::is_stale_marker;

    static SUCCESS: Gauge = Gauge::new("probe_success", "S.", &[]);
    static PHASES: Gauge = Gauge::new("probe_phase_seconds", "P.", &["phase"]);

    fn record(phases: &[&'static str]) -> Record {
        let mut record = Record::default();
        record.set(&SUCCESS, 0.0);
        for phase in phases {
            record.add_label(&PHASES, phase, 1.0);
            record.add_label(&PHASES, phase, 0.5);
        }
        record.set(&SUCCESS, 1.0);
        record
    }

    #[test]
    fn the_same_series_keep_their_set_and_others_end() {
        let mut shape = Shape::new(Arc::default());
        let first = shape.blocks(record(&["connect", "tls"]), 1);
        assert_eq!(*first[0].values, [1.0, 1.5, 1.5]);
        let same = shape.blocks(record(&["connect", "tls"]), 2);
        assert!(same.len() == 1 && Arc::ptr_eq(&same[0].set, &first[0].set));
        let fewer = shape.blocks(record(&["connect"]), 3);
        assert_eq!((fewer.len(), fewer[1].set.len()), (2, 1));
        assert_eq!(fewer[1].set.series()[0].labels().value("phase"), Some("tls"));
        assert!(is_stale_marker(fewer[1].values[0]));
        let end = shape.end(3);
        assert_eq!((end[0].at_ms, end[0].set.len()), (4, 2));
        assert!(shape.end(5).is_empty());
    }

    #[test]
    fn labels_of_a_checks_own_replace_each_other() {
        let mut shape = Shape::new(Arc::default());
        let mut expect = |value: &str, at_ms| {
            let mut record = Record::default();
            record.set_named("probe_expect_info", "E.", vec![("a".into(), "old".into())], 1.0);
            record.set_named("probe_expect_info", "E.", vec![("b".into(), value.into())], 1.0);
            shape.blocks(record, at_ms)
        };
        let first = expect("x", 1);
        assert_eq!(first[0].set.series()[0].labels().value("b"), Some("x"));
        assert!(Arc::ptr_eq(&expect("x", 2)[0].set, &first[0].set));
        assert_eq!(expect("y", 3).len(), 2);
    }

    #[test]
    fn a_value_beyond_the_caps_is_cut_where_its_list_allows() {
        let names = "www.example.org,".repeat(2_000);
        let cut = within_caps(names.into());
        assert!(cut.len() <= MAX_LABEL_VALUE_BYTES && cut.ends_with("www.example.org"), "{}", cut.len());
    }
}
