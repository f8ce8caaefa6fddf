//! One collector as a job of the lane: timed, its failures said once.

use super::emit::{Metric, Segment};
use super::lane::Job;
use super::{CollectError, Collector, CollectorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// A collector and what its last scrape gave.
pub(super) struct Task {
    kind: CollectorKind,
    collector: Box<dyn Collector>,
    segment: Segment,
    scrape: u64,
    done: Option<Done>,
    failing: bool,
}

/// How a collector's run ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    /// Which scrape it was.
    pub(super) scrape: u64,
    /// How long it took.
    pub(super) seconds: f64,
    /// Whether it has all its samples.
    pub(super) success: bool,
}

impl Task {
    pub(super) fn new(kind: CollectorKind, collector: Box<dyn Collector>) -> Self {
        Self { kind, collector, segment: Segment::default(), scrape: 0, done: None, failing: false }
    }

    /// Says which scrape comes next.
    pub(super) fn prepare(&mut self, scrape: u64) {
        self.scrape = scrape;
    }

    /// How the run of this scrape ended; none if it did not.
    pub(super) fn done(&self, scrape: u64) -> Option<Done> {
        self.done.filter(|done| done.scrape == scrape)
    }

    /// The samples.
    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    fn note(&mut self, result: &Result<(), CollectError>) {
        let collector = self.kind.name();
        match result {
            Ok(()) if self.failing => tracing::info!(collector, "the collector works again"),
            Err(CollectError::NoData(what)) if !self.failing => {
                tracing::debug!(collector, "this kernel has no {what}; the collector stays without data");
            }
            Err(error) if !self.failing => tracing::warn!(
                collector,
                %error,
                "the collector fails: its metrics are missing until it works again"
            ),
            _ => {}
        }
        self.failing = result.is_err();
    }
}

impl Job for Task {
    fn run(&mut self) {
        let begun = Instant::now();
        let mut out = self.segment.emitter(self.scrape);
        let collector = &mut self.collector;
        let run = catch_unwind(AssertUnwindSafe(|| {
            let result = collector.collect(&mut out);
            out.finish();
            result
        }));
        let result = run.unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words");
            Err(CollectError::Panicked(words.to_owned()))
        });
        if matches!(result, Err(CollectError::Parse { .. } | CollectError::Panicked(_))) {
            self.segment.clear();
        }
        let seconds = begun.elapsed().as_secs_f64();
        self.done = Some(Done { scrape: self.scrape, seconds, success: result.is_ok() });
        self.note(&result);
    }
}

impl Job for Box<Task> {
    fn run(&mut self) {
        (**self).run();
    }
}

/// The metrics about the scrape itself: node_exporter's and those that Prometheus' scraper adds.
pub(super) struct ScrapeMetrics {
    pub(super) duration: Metric,
    pub(super) success: Metric,
    pub(super) up: Metric,
    pub(super) scrape_duration: Metric,
    pub(super) samples: Metric,
}

impl ScrapeMetrics {
    pub(super) fn new() -> Self {
        Self {
            duration: Metric::gauge(
                "node_scrape_collector_duration_seconds",
                "How long a collector took.",
                &["collector"],
            ),
            success: Metric::gauge(
                "node_scrape_collector_success",
                "1 if a collector has all its samples, 0 if it failed, has no data or did not end in time.",
                &["collector"],
            ),
            up: Metric::gauge("up", "1 as long as the agent collects.", &[]),
            scrape_duration: Metric::gauge(
                "scrape_duration_seconds",
                "How long the whole collection took.",
                &[],
            ),
            samples: Metric::gauge("scrape_samples_scraped", "How many samples were collected.", &[]),
        }
    }
}
