//! From what a collector reads to series: families, label values and the values of one scrape.
//!
//! A collector emits its series in the same order every time, so the i-th emitted series is compared with the
//! i-th of the scrape before: equal family (by pointer) and equal label values mean the same [`Series`], and
//! nothing is allocated.

use pegel_proto::metrics::{DuplicateLabel, Family, Labels, MetricType, NAME_LABEL, Series};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What a collector can emit: a family and the names of its labels.
#[derive(Debug, Clone)]
pub(in crate::source) struct Metric {
    family: Arc<Family>,
    labels: &'static [&'static str],
}

impl Metric {
    /// A metric of any type. `labels` are sorted by name.
    pub(in crate::source) fn new(
        name: &str,
        help: &str,
        kind: MetricType,
        labels: &'static [&'static str],
    ) -> Self {
        debug_assert!(labels.is_sorted(), "{name}: label names are sorted");
        let family = Family { name: name.into(), kind, help: help.into(), unit: "".into() };
        Self { family: Arc::new(family), labels }
    }

    /// A counter.
    pub(in crate::source) fn counter(name: &str, help: &str, labels: &'static [&'static str]) -> Self {
        Self::new(name, help, MetricType::Counter, labels)
    }

    /// A gauge.
    pub(in crate::source) fn gauge(name: &str, help: &str, labels: &'static [&'static str]) -> Self {
        Self::new(name, help, MetricType::Gauge, labels)
    }

    /// A metric whose type nobody knows (`untyped`).
    pub(in crate::source) fn untyped(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::Unknown, &[])
    }

    #[cfg(test)]
    pub(in crate::source) fn family(&self) -> &Family {
        &self.family
    }

    fn is_of(&self, series: &Series, values: &[&str]) -> bool {
        // `__name__` sorts before every other label name that is in use here.
        Arc::ptr_eq(series.family(), &self.family)
            && series.labels().iter().skip(1).map(|(_, value)| value).eq(values.iter().copied())
    }

    fn series(&self, values: &[&str]) -> Arc<Series> {
        assert_eq!(self.labels.len(), values.len(), "{}: one value a label", self.family.name);
        self.series_with(self.labels.iter().copied().zip(values.iter().copied()))
            .expect("the label names of a metric are unique")
    }

    /// A series of this metric with labels whose names are found at run time, for [`Emitter::emit_series`]. A name
    /// that occurs twice is an error.
    pub(in crate::source) fn series_with<N: Into<Box<str>>, V: Into<Box<str>>>(
        &self,
        labels: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Arc<Series>, DuplicateLabel> {
        let name: (Box<str>, Box<str>) = (NAME_LABEL.into(), self.family.name.clone());
        let labels = labels.into_iter().map(|(name, value)| (name.into(), value.into()));
        let labels = Labels::new(std::iter::once(name).chain(labels))?;
        Ok(Arc::new(Series::new(labels, self.family.clone())))
    }
}

/// The part of a scrape that one collector emits.
#[derive(Debug, Default)]
pub(in crate::source) struct Segment {
    series: Vec<Arc<Series>>,
    values: Vec<f64>,
}

impl Segment {
    /// The series of the last scrape.
    pub(in crate::source) fn series(&self) -> &[Arc<Series>] {
        &self.series
    }

    /// Their values.
    pub(in crate::source) fn values(&self) -> &[f64] {
        &self.values
    }

    /// Forgets all series.
    pub(in crate::source) fn clear(&mut self) {
        self.series.clear();
        self.values.clear();
    }

    /// A segment that begins with the series of another, which its first scrape takes where it emits equal ones.
    pub(in crate::source) fn like(series: Vec<Arc<Series>>) -> Self {
        Self { series, values: Vec::new() }
    }

    /// Has series that are equal to ones of other segments be those: a thousand containers have the same series, each
    /// under its own target.
    pub(in crate::source) fn share(&mut self, pool: &mut SeriesPool) {
        for series in &mut self.series {
            pool.share(series);
        }
    }

    /// Keeps the series for which `keep` says so, with their values.
    pub(in crate::source) fn retain(&mut self, keep: impl Fn(&Arc<Series>) -> bool) {
        let kept: Vec<bool> = self.series.iter().map(keep).collect();
        let mut flags = kept.iter();
        self.series.retain(|_| *flags.next().unwrap_or(&true));
        let mut flags = kept.iter();
        self.values.retain(|_| *flags.next().unwrap_or(&true));
    }

    /// Begins a scrape.
    pub(in crate::source) fn emitter(&mut self, scrape: u64) -> Emitter<'_> {
        self.values.clear();
        Emitter { segment: self, cursor: 0, rebuilt: None, scrape }
    }
}

/// Series that several segments share.
#[derive(Debug, Default)]
pub(in crate::source) struct SeriesPool(HashMap<u64, Arc<Series>>);

impl SeriesPool {
    fn share(&mut self, series: &mut Arc<Series>) {
        match self.0.entry(series.fingerprint()) {
            Entry::Occupied(known) if **known.get() == **series => series.clone_from(known.get()),
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => {
                place.insert(series.clone());
            }
        }
    }

    /// Forgets what nobody else has any more.
    pub(in crate::source) fn tidy(&mut self) {
        self.0.retain(|_, series| Arc::strong_count(series) > 1);
    }
}

/// Takes the series of one scrape of one collector, in an order that stays the same.
#[derive(Debug)]
pub(in crate::source) struct Emitter<'a> {
    segment: &'a mut Segment,
    /// How far the segment's series matched, or were passed over.
    cursor: usize,
    /// The new series, once they differ from the segment's.
    rebuilt: Option<Vec<Arc<Series>>>,
    scrape: u64,
}

impl Emitter<'_> {
    /// The number of the scrape.
    pub(in crate::source) fn scrape(&self) -> u64 {
        self.scrape
    }

    /// Emits one sample. `labels` has a value for each of the metric's label names, in their order.
    pub(in crate::source) fn emit(&mut self, metric: &Metric, labels: &[&str], value: f64) {
        self.push(value, |series| metric.is_of(series, labels), || metric.series(labels));
    }

    /// Emits one sample of a series that the collector keeps itself, for labels whose names are not known
    /// beforehand. As long as its labels stay the same the collector gives the same `Arc`.
    pub(in crate::source) fn emit_series(&mut self, series: &Arc<Series>, value: f64) {
        self.push(value, |before| Arc::ptr_eq(before, series), || series.clone());
    }

    fn push(&mut self, value: f64, is_it: impl Fn(&Arc<Series>) -> bool, make: impl FnOnce() -> Arc<Series>) {
        self.segment.values.push(value);
        let before = &self.segment.series;
        if let Some(series) = before.get(self.cursor)
            && is_it(series)
        {
            self.cursor += 1;
            if let Some(rebuilt) = &mut self.rebuilt {
                rebuilt.push(series.clone());
            }
            return;
        }
        let rebuilt = self.rebuilt.get_or_insert_with(|| before[..self.cursor].to_vec());
        // Where series vanished, the wanted one stands further on.
        let ahead = before[self.cursor.min(before.len())..].iter().position(is_it);
        match ahead {
            Some(skipped) => {
                rebuilt.push(before[self.cursor + skipped].clone());
                self.cursor += skipped + 1;
            }
            None => rebuilt.push(make()),
        }
    }

    /// Has a collector emit all of its samples or, where it fails, none.
    pub(in crate::source) fn whole<E>(
        &mut self,
        emit: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let result = emit(self);
        if result.is_err() {
            self.segment.values.clear();
            self.cursor = 0;
            self.rebuilt = None;
        }
        result
    }

    /// Ends the scrape.
    pub(in crate::source) fn finish(self) {
        match self.rebuilt {
            Some(series) => {
                self.segment.series = series;
                drop_repeated(self.segment);
            }
            None => self.segment.series.truncate(self.cursor),
        }
    }
}

/// Two samples of one series in one scrape would have a whole request refused: the first one stays.
fn drop_repeated(segment: &mut Segment) {
    let mut seen = HashSet::with_capacity(segment.series.len());
    let fresh: Vec<bool> = segment.series.iter().map(|s| seen.insert(s.fingerprint())).collect();
    if fresh.iter().all(|fresh| *fresh) {
        return;
    }
    let mut keep = fresh.iter();
    segment.series.retain(|_| *keep.next().unwrap_or(&true));
    let mut keep = fresh.iter();
    segment.values.retain(|_| *keep.next().unwrap_or(&true));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(segment: &mut Segment, metric: &Metric, devices: &[&str]) -> Vec<Arc<Series>> {
        let mut out = segment.emitter(1);
        for (i, device) in devices.iter().enumerate() {
            out.emit(metric, &[device], i as f64);
        }
        out.finish();
        assert_eq!(segment.series().len(), segment.values().len());
        segment.series().to_vec()
    }

    #[test]
    fn series_that_stay_keep_their_identity_whatever_comes_and_goes_around_them() {
        let metric = Metric::gauge("node_x", "X.", &["device"]);
        let mut segment = Segment::default();
        let first = scrape(&mut segment, &metric, &["a", "b", "c"]);
        let same = scrape(&mut segment, &metric, &["a", "b", "c"]);
        assert!(first.iter().zip(&same).all(|(x, y)| Arc::ptr_eq(x, y)));
        let gone = scrape(&mut segment, &metric, &["a", "c"]);
        assert!(Arc::ptr_eq(&gone[0], &first[0]) && Arc::ptr_eq(&gone[1], &first[2]));
        let come = scrape(&mut segment, &metric, &["a", "new", "c", "last"]);
        assert!(Arc::ptr_eq(&come[0], &first[0]) && Arc::ptr_eq(&come[2], &first[2]));
        assert_eq!(come[3].labels().value("device"), Some("last"));
        assert_eq!(scrape(&mut segment, &metric, &["a"]).len(), 1);
        assert_eq!(scrape(&mut segment, &metric, &[]).len(), 0);
    }

    #[test]
    fn what_fails_midway_leaves_nothing_and_begins_anew() {
        let metric = Metric::gauge("node_x", "X.", &["device"]);
        let mut segment = Segment::default();
        let first = scrape(&mut segment, &metric, &["a", "b"]);
        let mut out = segment.emitter(2);
        let failed = out.whole(|out| {
            out.emit(&metric, &["new"], 1.0);
            out.emit(&metric, &["a"], 2.0);
            Err("midway")
        });
        assert_eq!(failed, Err("midway"));
        out.emit(&metric, &["b"], 3.0);
        out.finish();
        assert_eq!(segment.values(), [3.0]);
        assert!(Arc::ptr_eq(&segment.series()[0], &first[1]));
    }

    #[test]
    fn a_series_emitted_twice_counts_once() {
        let metric = Metric::gauge("node_x", "X.", &["device"]);
        let mut segment = Segment::default();
        scrape(&mut segment, &metric, &["a", "a", "b"]);
        assert_eq!(segment.values(), [0.0, 2.0]);
        scrape(&mut segment, &metric, &["a", "a", "b"]);
        assert_eq!(segment.values(), [0.0, 2.0]);
    }

    #[test]
    fn labels_with_names_of_their_own_keep_their_series_as_long_as_the_collector_does() {
        let metric = Metric::gauge("node_x", "X.", &[]);
        let made = |value| metric.series_with([("b", value), ("a", "1")]).unwrap();
        let (one, two) = (made("one"), made("two"));
        assert_eq!(one.labels().iter().map(|(name, _)| name).collect::<Vec<_>>(), ["__name__", "a", "b"]);
        let mut segment = Segment::default();
        let mut emit = |all: &[&Arc<Series>]| {
            let mut out = segment.emitter(1);
            for series in all {
                out.emit_series(series, 1.0);
            }
            out.finish();
            segment.series().to_vec()
        };
        let first = emit(&[&one, &two]);
        assert!(Arc::ptr_eq(&first[1], &two));
        assert!(Arc::ptr_eq(&emit(&[&two])[0], &two));
        assert_eq!(emit(&[&made("two"), &one, &one]).len(), 2, "a series twice counts once");
        assert!(metric.series_with([("a", ""), ("a", "")]).is_err());
    }
}
