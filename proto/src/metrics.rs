//! Metrics as pegel moves them: series described once, values in blocks.
//!
//! A *series* has labels of its own (its name among them) and shares *target labels* (`job`, `instance`,
//! external labels) with the rest of its [`SeriesSet`]. A series' full label set is its own labels plus those
//! target labels whose name it does not have itself; an own label with an empty value takes the target label
//! of that name away ([`full_labels`]). A [`Block`] is the values of one set at one instant.

use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// The bits of Prometheus' staleness marker, a NaN that ends a series.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The staleness marker as a value.
pub fn stale_marker() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether a value is the staleness marker (any other NaN is an ordinary value).
pub fn is_stale_marker(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// The metric name's label.
pub const NAME_LABEL: &str = "__name__";

/// A sorted set of labels with unique names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

/// A label name occurs twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label `{0}` occurs twice")]
pub struct DuplicateLabel(pub String);

impl Labels {
    /// Sorts the pairs by name; a name that occurs twice is an error.
    pub fn new<N: Into<Box<str>>, V: Into<Box<str>>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, DuplicateLabel> {
        let mut pairs: Vec<(Box<str>, Box<str>)> =
            pairs.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        pairs.sort();
        match pairs.windows(2).find(|w| w[0].0 == w[1].0) {
            Some(w) => Err(DuplicateLabel(w[0].0.to_string())),
            None => Ok(Self(pairs.into())),
        }
    }

    /// The value of a label.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.binary_search_by(|(n, _)| n.as_ref().cmp(name)).ok().map(|i| self.0[i].1.as_ref())
    }

    /// The labels in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(n, v)| (n.as_ref(), v.as_ref()))
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A hash of names and values, the same in every process.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Xxh3::new();
        self.hash_into(&mut hash);
        hash.digest()
    }

    fn hash_into(&self, hash: &mut Xxh3) {
        hash.update(&(self.0.len() as u32).to_le_bytes());
        for (name, value) in self.iter() {
            for text in [name, value] {
                hash.update(&(text.len() as u32).to_le_bytes());
                hash.update(text.as_bytes());
            }
        }
    }
}

/// The Prometheus type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum MetricType {
    /// Nothing is known of the type (`untyped` in the text format).
    #[default]
    Unknown,
    /// A value that only rises, but for resets.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
    /// A histogram of gauges (OpenMetrics).
    GaugeHistogram,
    /// Quantiles, sum and count.
    Summary,
    /// Information in labels (OpenMetrics).
    Info,
    /// A set of states (OpenMetrics).
    StateSet,
}

/// What the series of one metric have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Family {
    /// The family's name, without the suffixes of histograms and summaries.
    pub name: Box<str>,
    /// The type.
    pub kind: MetricType,
    /// The help text; empty if unknown.
    pub help: Box<str>,
    /// The unit; empty if unknown.
    pub unit: Box<str>,
}

/// One series: labels of its own and its family.
#[derive(Debug, PartialEq, Eq)]
pub struct Series {
    labels: Labels,
    family: Arc<Family>,
    fingerprint: u64,
}

impl Series {
    /// Puts a series together. `labels` holds `__name__`.
    pub fn new(labels: Labels, family: Arc<Family>) -> Self {
        let fingerprint = labels.fingerprint();
        Self { labels, family, fingerprint }
    }

    /// The series' own labels, its name among them.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The metric name.
    pub fn name(&self) -> &str {
        self.labels.value(NAME_LABEL).unwrap_or_default()
    }

    /// The family.
    pub fn family(&self) -> &Arc<Family> {
        &self.family
    }

    /// A hash of the own labels, the same in every process.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// An ordered set of series that share target labels. Sources keep one set as long as the shape of what they
/// collect stays the same, so that comparing pointers is enough to know that nothing changed.
#[derive(Debug, PartialEq, Eq)]
pub struct SeriesSet {
    target: Arc<Labels>,
    series: Box<[Arc<Series>]>,
    fingerprint: u64,
}

impl SeriesSet {
    /// Puts a set together.
    pub fn new(target: Arc<Labels>, series: impl Into<Box<[Arc<Series>]>>) -> Self {
        let series = series.into();
        let mut hash = Xxh3::new();
        target.hash_into(&mut hash);
        for one in &series {
            hash.update(&one.fingerprint.to_le_bytes());
        }
        let fingerprint = hash.digest();
        Self { target, series, fingerprint }
    }

    /// The labels that all series of the set share.
    pub fn target(&self) -> &Arc<Labels> {
        &self.target
    }

    /// The series, in the order of a block's values.
    pub fn series(&self) -> &[Arc<Series>] {
        &self.series
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// A hash of target labels and series in their order, the same in every process.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// The values of one set at one instant.
#[derive(Debug, Clone)]
pub struct Block {
    /// The instant in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The series.
    pub set: Arc<SeriesSet>,
    /// One value a series, in the set's order.
    pub values: Box<[f64]>,
    /// Where samples carry instants of their own (an exporter's explicit timestamps): one a series.
    pub stamps_ms: Option<Box<[i64]>>,
}

impl Block {
    /// Puts a block together. Panics if the lengths differ: a source's bug, not an input's.
    pub fn new(at_ms: i64, set: Arc<SeriesSet>, values: impl Into<Box<[f64]>>) -> Self {
        let values = values.into();
        assert_eq!(values.len(), set.len(), "one value a series");
        Self { at_ms, set, values, stamps_ms: None }
    }

    /// The instant of the sample at an index.
    pub fn stamp_ms(&self, index: usize) -> i64 {
        self.stamps_ms.as_ref().map_or(self.at_ms, |s| s[index])
    }

    /// A hash of all that the block says, the same in every process.
    pub fn content_hash(&self) -> u64 {
        let mut hash = Xxh3::with_seed(self.set.fingerprint);
        hash.update(&self.at_ms.to_le_bytes());
        for value in &self.values {
            hash.update(&value.to_bits().to_le_bytes());
        }
        for stamp in self.stamps_ms.iter().flatten() {
            hash.update(&stamp.to_le_bytes());
        }
        hash.digest()
    }
}

/// Bitwise equality: NaN payloads count.
impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        self.at_ms == other.at_ms
            && self.set == other.set
            && self.stamps_ms == other.stamps_ms
            && self.values.iter().map(|v| v.to_bits()).eq(other.values.iter().map(|v| v.to_bits()))
    }
}

/// A series' full label set, in the order of the names: its own labels, and the target labels that it does not
/// name itself; labels with empty values are left out, as in Prometheus' data model.
pub fn full_labels<'a>(target: &'a Labels, own: &'a Labels) -> Vec<(&'a str, &'a str)> {
    let mut all: Vec<(&str, &str)> = own.iter().collect();
    all.extend(target.iter().filter(|(name, _)| own.value(name).is_none()));
    all.retain(|(_, value)| !value.is_empty());
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_labels_win_over_target_labels_and_an_empty_one_takes_them_away() {
        let target = Labels::new([("job", "node"), ("instance", "a:1"), ("dc", "x")]).unwrap();
        let own = Labels::new([(NAME_LABEL, "up"), ("instance", "other"), ("dc", "")]).unwrap();
        assert_eq!(full_labels(&target, &own), [(NAME_LABEL, "up"), ("instance", "other"), ("job", "node")]);
    }

    #[test]
    fn a_label_named_twice_is_refused() {
        assert_eq!(Labels::new([("a", "1"), ("a", "2")]), Err(DuplicateLabel("a".into())));
    }

    #[test]
    fn the_content_hash_sees_nan_payloads() {
        let series = Arc::new(Series::new(Labels::new([(NAME_LABEL, "x")]).unwrap(), Arc::default()));
        let set = Arc::new(SeriesSet::new(Arc::default(), vec![series]));
        let quiet = Block::new(1, set.clone(), vec![f64::NAN]);
        let stale = Block::new(1, set, vec![stale_marker()]);
        assert_ne!(quiet.content_hash(), stale.content_hash());
        assert_ne!(quiet, stale);
        assert_eq!(stale, stale.clone());
    }
}
