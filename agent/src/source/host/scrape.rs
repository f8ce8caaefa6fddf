//! The host source: scrapes on a schedule, made of the collectors' segments.

use super::emit::{Metric, Segment};
use super::lane::{Lane, Limits, Round};
use super::own_process::{self, OwnProcess};
use super::settings::scrape_limit;
use super::task::{Done, ScrapeMetrics, Task};
use super::{CollectorKind, Settings, Setup, System, build_info};
use crate::source::render;
use crate::source::{SourceContext, vanished};
use pegel_proto::metrics::{Block, Labels, SeriesSet, stale_marker};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The host source. [`HostSource::run`] scrapes until shutdown; [`HostSource::once`] renders one scrape as text.
pub struct HostSource {
    settings: Settings,
    target: Arc<Labels>,
    lane: Lane<Box<Task>>,
    slots: Vec<Slot>,
    scrape: u64,
    own: Segment,
    metrics: ScrapeMetrics,
    build_info: Metric,
    own_process: OwnProcess,
    set: Option<Arc<SeriesSet>>,
}

/// A collector's place. Its task is away while it hangs.
struct Slot {
    kind: CollectorKind,
    task: Option<Box<Task>>,
    begun: Instant,
    hung: bool,
}

impl HostSource {
    /// Makes the source. Nothing is read yet. Labels of the target are those of the settings, the host's name
    /// as `instance`, and `external`, which override none of them.
    pub fn new(settings: Settings, external: &Labels, system: &Arc<dyn System>) -> Self {
        let setup = Setup::new(&settings, system);
        let slot = |kind: &CollectorKind| Slot {
            kind: *kind,
            task: Some(Box::new(Task::new(*kind, kind.build(&setup)))),
            begun: Instant::now(),
            hung: false,
        };
        let slots = settings.collectors.iter().map(slot).collect();
        let instance = system.uname().nodename;
        let target = settings.labels.target(&[("instance", &instance)], external);
        Self {
            target,
            lane: Lane::new("pegel-host"),
            slots,
            scrape: 0,
            own: Segment::default(),
            metrics: ScrapeMetrics::new(),
            build_info: build_info::metric(),
            own_process: OwnProcess::new(),
            set: None,
            settings,
        }
    }

    /// Scrapes at every multiple of the interval, by the sample clock, until the context's shutdown.
    pub async fn run(mut self, context: SourceContext) {
        let stuck = context.registry.gauge(
            "pegel_host_hung_collectors",
            "Collectors of the host source whose call into the kernel has not returned in time.",
            &[],
        );
        let mut due_ms = None;
        loop {
            let now_ms = context.clock.now_ms();
            let next_ms = next_due(now_ms, self.settings.interval, due_ms);
            due_ms = Some(next_ms);
            tokio::select! {
                () = context.shutdown.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis((next_ms - now_ms) as u64)) => {}
            }
            let at_ms = context.clock.now_ms();
            context.intake.offer(self.collect(at_ms).await);
            stuck.set(self.slots.iter().filter(|slot| slot.hung).count() as f64);
        }
    }

    /// One scrape at `at_ms` (milliseconds since the Unix epoch): its samples, and staleness markers for what
    /// vanished since the last one. Takes at most half the interval.
    pub async fn collect(&mut self, at_ms: i64) -> Vec<Block> {
        let begun = Instant::now();
        let limits = self.begin(begun);
        while let Round::WaitUntil(until) = self.check(limits) {
            self.lane.wait_async(until).await;
        }
        self.finish(at_ms, begun)
    }

    /// As [`HostSource::collect`], for callers without a runtime.
    pub fn collect_blocking(&mut self, at_ms: i64) -> Vec<Block> {
        let begun = Instant::now();
        let limits = self.begin(begun);
        while let Round::WaitUntil(until) = self.check(limits) {
            self.lane.wait(until);
        }
        self.finish(at_ms, begun)
    }

    /// Scrapes once and renders the samples in the Prometheus text format 0.0.4, without the target's labels, as
    /// an exporter would.
    pub fn once(&mut self) -> String {
        let blocks = self.collect_blocking(0);
        blocks
            .last()
            .map(|b| render::text(std::slice::from_ref(b), render::WhichLabels::Own))
            .unwrap_or_default()
    }

    fn begin(&mut self, now: Instant) -> Limits {
        self.take_back();
        self.scrape += 1;
        let Self { slots, lane, scrape, settings, .. } = self;
        lane.begin(slots.iter_mut().enumerate().filter_map(|(key, slot)| {
            let mut task = slot.task.take()?;
            slot.begun = now;
            if std::mem::take(&mut slot.hung) {
                tracing::info!(collector = slot.kind.name(), "the collector's call has returned");
            }
            task.prepare(*scrape);
            Some((key, task))
        }));
        Limits {
            job: settings.collector_timeout.min(scrape_limit(settings.interval)),
            deadline: now + scrape_limit(settings.interval),
        }
    }

    fn check(&mut self, limits: Limits) -> Round {
        let Self { slots, lane, .. } = self;
        lane.check(Instant::now(), limits, |key| {
            let slot = &mut slots[key];
            slot.hung = true;
            tracing::warn!(
                collector = slot.kind.name(),
                limit_seconds = limits.job.as_secs_f64(),
                "a collector's call into the kernel does not return; the others go on, and its metrics are missing until it does"
            );
        })
    }

    fn take_back(&mut self) {
        let slots = &mut self.slots;
        self.lane.take(|key, task| slots[key].task = Some(task));
    }

    fn finish(&mut self, at_ms: i64, begun: Instant) -> Vec<Block> {
        self.take_back();
        let scrape = self.scrape;
        let mut values = Vec::with_capacity(self.set.as_ref().map_or(0, |set| set.len()));
        for task in self.slots.iter().filter_map(|slot| slot.complete(scrape)) {
            values.extend_from_slice(task.segment().values());
        }
        let mut out = self.own.emitter(scrape);
        build_info::emit(&self.build_info, &mut out);
        self.own_process.emit(&mut out);
        let now = Instant::now();
        for slot in &self.slots {
            let done = slot.task.as_ref().and_then(|task| task.done(scrape));
            let done = done.unwrap_or(Done { scrape, seconds: slot.running_seconds(now), success: false });
            out.emit(&self.metrics.duration, &[slot.kind.name()], done.seconds);
            out.emit(&self.metrics.success, &[slot.kind.name()], f64::from(u8::from(done.success)));
        }
        let scraped = values.len() + 1 + own_process::SAMPLES + 2 * self.slots.len();
        out.emit(&self.metrics.up, &[], 1.0);
        out.emit(&self.metrics.scrape_duration, &[], begun.elapsed().as_secs_f64());
        out.emit(&self.metrics.samples, &[], scraped as f64);
        out.finish();
        values.extend_from_slice(self.own.values());
        self.blocks(at_ms, values)
    }

    /// Puts the blocks of a scrape together: the markers for what vanished, if anything, then the samples.
    fn blocks(&mut self, at_ms: i64, values: Vec<f64>) -> Vec<Block> {
        let series = || {
            let tasks = self.slots.iter().filter_map(|slot| slot.complete(self.scrape));
            tasks.flat_map(|task| task.segment().series()).chain(self.own.series())
        };
        let same = |set: &&Arc<SeriesSet>| {
            set.len() == values.len() && set.series().iter().zip(series()).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if let Some(set) = self.set.as_ref().filter(same) {
            return vec![Block::new(at_ms, set.clone(), values)];
        }
        let series: Vec<_> = series().cloned().collect();
        let set = Arc::new(SeriesSet::new(self.target.clone(), series));
        let before = self.set.replace(set.clone());
        let gone = before.and_then(|before| vanished(&before, Some(&set)));
        let markers = gone.map(|gone| {
            let values = vec![stale_marker(); gone.len()];
            Block::new(at_ms, gone, values)
        });
        markers.into_iter().chain([Block::new(at_ms, set, values)]).collect()
    }
}

impl Slot {
    /// The task, if it has returned from this scrape.
    fn complete(&self, scrape: u64) -> Option<&Task> {
        self.task.as_deref().filter(|task| task.done(scrape).is_some())
    }

    /// How long ago the run began that has not ended: zero for one that never began.
    fn running_seconds(&self, now: Instant) -> f64 {
        if self.task.is_some() { 0.0 } else { (now - self.begun).as_secs_f64() }
    }
}

/// The next multiple of the interval after an instant, in milliseconds. A timer that fires a little early must not
/// make two scrapes of the one that was due.
fn next_due(now_ms: i64, interval: Duration, last_due_ms: Option<i64>) -> i64 {
    let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
    let next_ms = now_ms - now_ms.rem_euclid(interval_ms) + interval_ms;
    if last_due_ms == Some(next_ms) { next_ms + interval_ms } else { next_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapes_are_due_at_multiples_once_each_whatever_the_clock_does() {
        let second = Duration::from_secs(1);
        assert_eq!(next_due(1_300, second, None), 2_000);
        assert_eq!(next_due(2_000, second, Some(2_000)), 3_000);
        assert_eq!(next_due(1_999, second, Some(2_000)), 3_000, "fired early");
        assert_eq!(next_due(9_500, second, Some(2_000)), 10_000, "stepped on");
        assert_eq!(next_due(500, second, Some(9_000)), 1_000, "stepped back");
        assert_eq!(next_due(-1, second, None), 0);
    }
}
