//! One collector as a job of the lane: timed, its failures said once.

use super::emit::{Metric, Segment};
use super::lane::Job;
use super::{CollectError, Collector, CollectorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A collector and what its last scrape gave.
pub(super) struct Task {
    kind: CollectorKind,
    collector: Box<dyn Collector>,
    segment: Segment,
    limit: Duration,
    scrape: u64,
    done: Option<Done>,
    failing: bool,
    trouble: Option<Arc<str>>,
}

/// What a collector's run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has all its samples.
    Works,
    /// This machine does not have what it reads.
    NoData(&'static str),
    /// It failed; [`Task::trouble`] says why.
    Fails,
}

/// How a collector's run ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    /// Which scrape it was.
    pub(super) scrape: u64,
    /// How long it took.
    pub(super) seconds: f64,
    /// What it came to.
    pub(super) outcome: Outcome,
}

impl Task {
    /// A collector that may take as long as `limit`.
    pub(super) fn new(kind: CollectorKind, collector: Box<dyn Collector>, limit: Duration) -> Self {
        Self {
            kind,
            collector,
            segment: Segment::default(),
            limit,
            scrape: 0,
            done: None,
            failing: false,
            trouble: None,
        }
    }

    /// Says which scrape comes next.
    pub(super) fn prepare(&mut self, scrape: u64) {
        self.scrape = scrape;
    }

    /// Why the last run failed.
    pub(super) fn trouble(&self) -> Option<Arc<str>> {
        self.trouble.clone()
    }

    /// How the run of this scrape ended; none if it did not.
    pub(super) fn done(&self, scrape: u64) -> Option<Done> {
        self.done.filter(|done| done.scrape == scrape)
    }

    /// The samples.
    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    fn note(&mut self, result: &Result<(), CollectError>) -> Outcome {
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
        self.trouble = None;
        match result {
            Ok(()) => Outcome::Works,
            Err(CollectError::NoData(what)) => Outcome::NoData(what),
            Err(error) => {
                self.trouble = Some(error.to_string().into());
                Outcome::Fails
            }
        }
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
        let outcome = self.note(&result);
        self.done = Some(Done { scrape: self.scrape, seconds, outcome });
    }

    fn limit(&self) -> Option<Duration> {
        Some(self.limit)
    }
}

impl Job for Box<Task> {
    fn run(&mut self) {
        (**self).run();
    }

    fn limit(&self) -> Option<Duration> {
        (**self).limit()
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

#[cfg(test)]
mod tests {
    use super::super::emit::Emitter;
    use super::*;
    use parking_lot::Mutex;
    use std::fmt::Write as _;

    /// Counts events by their level, and keeps the last one's words.
    #[derive(Default)]
    struct Events(Mutex<Vec<(tracing::Level, String)>>);

    impl tracing::Subscriber for Events {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut words = String::new();
            event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                let _ = write!(words, "{field}={value:?} ");
            });
            self.0.lock().push((*event.metadata().level(), words));
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    /// Cannot read its file for some runs.
    struct Fails(u32);

    impl Collector for Fails {
        fn collect(&mut self, _: &mut Emitter<'_>) -> Result<(), CollectError> {
            self.0 = self.0.saturating_sub(1);
            let source = std::io::ErrorKind::PermissionDenied.into();
            if self.0 == 0 { Ok(()) } else { Err(CollectError::Read { path: "/proc/stat".into(), source }) }
        }
    }

    #[test]
    fn a_failure_is_logged_once_with_file_and_reason_and_so_is_its_end() {
        let events = Arc::new(Events::default());
        tracing::subscriber::with_default(events.clone(), || {
            let mut task = Task::new(CollectorKind::Stat, Box::new(Fails(4)), Duration::MAX);
            (0..6).for_each(|_| task.run());
        });
        let events = events.0.lock();
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!((events[0].0, events[1].0), (tracing::Level::WARN, tracing::Level::INFO));
        assert!(events[0].1.contains("cannot read /proc/stat: permission denied"), "{}", events[0].1);
    }

    struct Panics {
        times: u32,
        metric: Metric,
    }

    impl Collector for Panics {
        fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
            out.emit(&self.metric, &[], 1.0);
            self.times = self.times.saturating_sub(1);
            assert!(self.times == 0, "a bug");
            Ok(())
        }
    }

    #[test]
    fn a_panic_fails_one_run_of_one_collector() {
        let panics = Panics { times: 2, metric: Metric::gauge("node_x", "X.", &[]) };
        let mut task = Task::new(CollectorKind::Stat, Box::new(panics), Duration::MAX);
        for (scrape, outcome) in [(1, Outcome::Fails), (2, Outcome::Works), (3, Outcome::Works)] {
            task.prepare(scrape);
            task.run();
            assert_eq!(task.done(scrape).map(|done| done.outcome), Some(outcome));
            let success = outcome == Outcome::Works;
            assert_eq!(task.trouble().is_none(), success);
            assert_eq!(task.segment().values().len(), usize::from(success));
            assert_eq!(task.segment().series().len(), usize::from(success));
        }
    }
}
