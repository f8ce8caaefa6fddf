//! Which series a group's scrape has: kept as one set as long as they stay the same.

use pegel_proto::metrics::{Labels, Series, SeriesSet};
use std::collections::HashSet;
use std::sync::Arc;

/// The set of a scrape, and what of that scrape is not in it.
#[derive(Debug)]
pub(super) struct Shape {
    set: Arc<SeriesSet>,
    /// The places, in rising order, of series that another collector emitted before: two samples of one series at
    /// one instant would have a whole request refused. As in node_exporter the first one stays.
    left_out: Box<[usize]>,
}

impl Shape {
    /// The shape of a scrape that emitted these series.
    pub(super) fn new<'a>(target: Arc<Labels>, emitted: impl Iterator<Item = &'a Arc<Series>>) -> Self {
        let mut seen = HashSet::new();
        let (mut series, mut left_out) = (Vec::new(), Vec::new());
        for (place, one) in emitted.enumerate() {
            if seen.insert(one.fingerprint()) {
                series.push(one.clone());
            } else {
                left_out.push(place);
            }
        }
        Self { set: Arc::new(SeriesSet::new(target, series)), left_out: left_out.into() }
    }

    /// The set.
    pub(super) fn set(&self) -> &Arc<SeriesSet> {
        &self.set
    }

    /// How many series were left out.
    pub(super) fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// Whether a scrape that emitted these series has this shape.
    pub(super) fn fits<'a>(&self, emitted: impl Iterator<Item = &'a Arc<Series>>, count: usize) -> bool {
        if count != self.set.len() + self.left_out.len() {
            return false;
        }
        if self.left_out.is_empty() {
            return self.set.series().iter().zip(emitted).all(|(known, one)| Arc::ptr_eq(known, one));
        }
        let (mut left_out, mut known) = (self.left_out.iter().peekable(), self.set.series().iter());
        let mut before = HashSet::new();
        emitted.enumerate().all(|(place, one)| {
            let twice = !before.insert(one.fingerprint());
            let expected = left_out.next_if(|left_out| **left_out == place).is_some();
            twice == expected && (twice || known.next().is_some_and(|known| Arc::ptr_eq(known, one)))
        })
    }

    /// Takes the values of what is left out away.
    pub(super) fn keep(&self, values: &mut Vec<f64>) {
        if self.left_out.is_empty() {
            return;
        }
        let (mut left_out, mut place) = (self.left_out.iter().peekable(), 0);
        values.retain(|_| {
            let keep = left_out.next_if(|left_out| **left_out == place).is_none();
            place += 1;
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::host::emit::Metric;

    #[test]
    fn what_two_collectors_emit_is_there_once_and_the_shape_is_known_again() {
        let metric = Metric::gauge("node_x", "X.", &[]);
        let made = |value: &str| metric.series_with([("a", value)]).unwrap();
        let (one, two, three, again) = (made("1"), made("2"), made("3"), made("1"));
        let all = [&one, &two, &again, &three];
        let shape = Shape::new(Arc::default(), all.into_iter());
        assert_eq!((shape.set().len(), shape.left_out()), (3, 1));
        assert!(shape.fits(all.into_iter(), 4));
        let mut values = vec![1.0, 2.0, 9.0, 3.0];
        shape.keep(&mut values);
        assert_eq!(values, [1.0, 2.0, 3.0]);
        assert!(!shape.fits([&one, &two, &three].into_iter(), 3), "the second one went");
        assert!(!shape.fits([&one, &again, &two, &three].into_iter(), 4), "another order");
        assert!(!shape.fits([&one, &two, &made("4"), &three].into_iter(), 4), "no second one any more");
        let plain = Shape::new(Arc::default(), [&one, &two].into_iter());
        assert!(plain.fits([&one, &two].into_iter(), 2) && !plain.fits([&two, &one].into_iter(), 2));
    }
}
