//! The series that a scrape reports about itself, as Prometheus does.

use super::assembly::Counts;
use pegel_proto::metrics::{Block, Family, Labels, MetricType, NAME_LABEL, Series, SeriesSet, stale_marker};
use std::sync::Arc;
use std::time::Duration;

/// Name, unit and help, in the order of the values.
const SERIES: [(&str, &str, &str); 5] = [
    ("up", "", "Whether the last scrape of the target succeeded."),
    ("scrape_duration_seconds", "seconds", "How long the last scrape of the target took."),
    ("scrape_samples_scraped", "", "Samples that the target exposed."),
    ("scrape_samples_post_metric_relabeling", "", "Samples that were left after those with invalid labels."),
    ("scrape_series_added", "", "Series that the scrape before did not have."),
];

/// The reported series of one target.
#[derive(Debug)]
pub struct ReportSeries {
    set: Arc<SeriesSet>,
    fingerprints: [u64; SERIES.len()],
    live: bool,
}

impl ReportSeries {
    /// Those of the target with these labels.
    pub fn new(shared: Arc<Labels>) -> Self {
        let series = SERIES.map(|(name, unit, help)| {
            let labels = Labels::new([(NAME_LABEL, name)]).expect("one label is unique");
            let family =
                Family { name: name.into(), kind: MetricType::Gauge, help: help.into(), unit: unit.into() };
            Arc::new(Series::new(labels, Arc::new(family)))
        });
        let fingerprints = series.each_ref().map(|series| series.fingerprint());
        Self { set: Arc::new(SeriesSet::new(shared, series)), fingerprints, live: false }
    }

    /// What a target's own series are told apart from these by.
    pub fn fingerprints(&self) -> &[u64; SERIES.len()] {
        &self.fingerprints
    }

    /// Reports a scrape.
    pub fn block(&mut self, at_ms: i64, up: bool, took: Duration, counts: Counts) -> Block {
        self.live = true;
        let values = [
            f64::from(u8::from(up)),
            took.as_secs_f64(),
            counts.scraped as f64,
            (counts.scraped - counts.invalid) as f64,
            counts.added as f64,
        ];
        Block::new(at_ms, self.set.clone(), values)
    }

    /// Ends the series: the target is gone.
    pub fn end(&mut self, at_ms: i64) -> Option<Block> {
        std::mem::take(&mut self.live)
            .then(|| Block::new(at_ms, self.set.clone(), [stale_marker(); SERIES.len()]))
    }
}
