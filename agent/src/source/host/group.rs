//! The collectors of one interval: they are scraped together, with one instant for all their samples.
//!
//! Most hosts have one group. A collector with an interval of its own is in another, which has a schedule, a thread
//! and a series set of its own: between its runs nothing is said of its series, neither their old values nor that
//! they ended.

use super::emit::{Metric, Segment};
use super::lane::{Lane, Limits, Round};
use super::own_process::{self, OwnProcess};
use super::settings::scrape_limit;
use super::shape::Shape;
use super::status::{CollectorStatus, HostStatus, State};
use super::task::{Done, Outcome, ScrapeMetrics, Task};
use super::{CollectorKind, Settings, Setup, System, build_info};
use crate::source::schedule::{self, Schedule};
use crate::source::{SourceContext, vanished};
use pegel_proto::metrics::{Block, Labels, stale_marker};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// See the module.
pub(super) struct Group {
    interval: Duration,
    /// The limit of a collector that has none of its own.
    limit: Duration,
    /// What the group says of the source as a whole: only the one with the source's own interval does.
    lead: Option<Lead>,
    target: Arc<Labels>,
    lane: Lane<Box<Task>>,
    slots: Vec<Slot>,
    scrape: u64,
    own: Segment,
    metrics: ScrapeMetrics,
    shape: Option<Shape>,
    status: HostStatus,
}

/// The series of the source as a whole.
struct Lead {
    build_info: Metric,
    own_process: OwnProcess,
}

/// A collector's place. Its task is away while it hangs.
struct Slot {
    kind: CollectorKind,
    task: Option<Box<Task>>,
    begun: Instant,
    hung: bool,
}

impl Group {
    /// The collectors that run at an interval. Nothing is read yet.
    pub(super) fn new(
        interval: Duration,
        settings: &Settings,
        system: &Arc<dyn System>,
        target: &Arc<Labels>,
        status: &HostStatus,
    ) -> Self {
        let setup = Setup::new(settings, system);
        let slot = |kind: &CollectorKind| Slot {
            kind: *kind,
            task: Some(Box::new(Task::new(*kind, kind.build(&setup), settings.limit_of(*kind)))),
            begun: Instant::now(),
            hung: false,
        };
        let collectors = settings.collectors.iter().filter(|kind| settings.interval_of(**kind) == interval);
        let leads = interval == settings.interval;
        Self {
            interval,
            limit: settings.collector_timeout.min(scrape_limit(interval)),
            lead: leads.then(|| Lead { build_info: build_info::metric(), own_process: OwnProcess::new() }),
            target: target.clone(),
            lane: Lane::new("pegel-host"),
            slots: collectors.map(slot).collect(),
            scrape: 0,
            own: Segment::default(),
            metrics: ScrapeMetrics::new(),
            shape: None,
            status: status.clone(),
        }
    }

    /// Scrapes at the instants of its schedule until the context's shutdown.
    pub(super) async fn run(mut self, context: SourceContext, origin: tokio::time::Instant, phase: Duration) {
        let schedule = Schedule::new(self.interval, phase);
        loop {
            let due = schedule.next_after(origin.elapsed());
            tokio::select! {
                biased;
                () = context.shutdown.cancelled() => return,
                () = tokio::time::sleep_until(origin + due) => {}
            }
            let late = origin.elapsed().saturating_sub(due);
            let at_ms = context.clock.ms_before_now(schedule::stamp_lateness(late, self.interval));
            context.intake.offer(self.collect(at_ms).await);
        }
    }

    /// One scrape at `at_ms` (milliseconds since the Unix epoch): its samples, and staleness markers for what
    /// vanished since the last one. Takes at most half the interval.
    pub(super) async fn collect(&mut self, at_ms: i64) -> Vec<Block> {
        let begun = Instant::now();
        let limits = self.begin(begun);
        while let Round::WaitUntil(until) = self.check(limits, at_ms) {
            self.lane.wait_async(until).await;
        }
        self.finish(at_ms, begun)
    }

    /// As [`Group::collect`], for callers without a runtime.
    pub(super) fn collect_blocking(&mut self, at_ms: i64) -> Vec<Block> {
        let begun = Instant::now();
        let limits = self.begin(begun);
        while let Round::WaitUntil(until) = self.check(limits, at_ms) {
            self.lane.wait(until);
        }
        self.finish(at_ms, begun)
    }

    fn begin(&mut self, now: Instant) -> Limits {
        self.take_back();
        self.scrape += 1;
        let Self { slots, lane, scrape, status, .. } = self;
        lane.begin(slots.iter_mut().enumerate().filter_map(|(key, slot)| {
            let mut task = slot.task.take()?;
            slot.begun = now;
            if std::mem::take(&mut slot.hung) {
                tracing::info!(collector = slot.kind.name(), "the collector's call has returned");
                status.note(slot.kind, |status| status.state = State::Waits);
            }
            task.prepare(*scrape);
            Some((key, task))
        }));
        Limits { job: self.limit, deadline: now + scrape_limit(self.interval) }
    }

    fn check(&mut self, limits: Limits, at_ms: i64) -> Round {
        let Self { slots, lane, status, .. } = self;
        lane.check(Instant::now(), limits, |key| {
            let slot = &mut slots[key];
            slot.hung = true;
            status.note(slot.kind, |status| status.state = State::Hangs { since_ms: at_ms });
            tracing::warn!(
                collector = slot.kind.name(),
                after_seconds = slot.begun.elapsed().as_secs_f64(),
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
        let mut values = Vec::with_capacity(self.shape.as_ref().map_or(0, |shape| shape.set().len()));
        for task in self.slots.iter().filter_map(|slot| slot.complete(scrape)) {
            values.extend_from_slice(task.segment().values());
        }
        let mut out = self.own.emitter(scrape);
        if let Some(lead) = &mut self.lead {
            build_info::emit(&lead.build_info, &mut out);
            lead.own_process.emit(&mut out);
        }
        let now = Instant::now();
        for slot in &self.slots {
            let done = slot.task.as_ref().and_then(|task| task.done(scrape));
            let seconds = done.map_or_else(|| slot.running_seconds(now), |done| done.seconds);
            let success = done.is_some_and(|done| done.outcome == Outcome::Works);
            self.status.note(slot.kind, |status| slot.tell(status, done, at_ms));
            out.emit(&self.metrics.duration, &[slot.kind.name()], seconds);
            out.emit(&self.metrics.success, &[slot.kind.name()], f64::from(u8::from(success)));
        }
        if self.lead.is_some() {
            let scraped = values.len() + 1 + own_process::SAMPLES + 2 * self.slots.len();
            out.emit(&self.metrics.up, &[], 1.0);
            out.emit(&self.metrics.scrape_duration, &[], begun.elapsed().as_secs_f64());
            out.emit(&self.metrics.samples, &[], scraped as f64);
        }
        out.finish();
        values.extend_from_slice(self.own.values());
        self.blocks(at_ms, values)
    }

    /// Puts the blocks of a scrape together: the markers for what vanished, if anything, then the samples.
    fn blocks(&mut self, at_ms: i64, mut values: Vec<f64>) -> Vec<Block> {
        let series = || {
            let tasks = self.slots.iter().filter_map(|slot| slot.complete(self.scrape));
            tasks.flat_map(|task| task.segment().series()).chain(self.own.series())
        };
        if let Some(shape) = self.shape.as_ref().filter(|shape| shape.fits(series(), values.len())) {
            shape.keep(&mut values);
            return vec![Block::new(at_ms, shape.set().clone(), values)];
        }
        let shape = Shape::new(self.target.clone(), series());
        shape.keep(&mut values);
        let (set, left_out) = (shape.set().clone(), shape.left_out());
        let before = self.shape.replace(shape);
        if left_out > before.as_ref().map_or(0, Shape::left_out) {
            tracing::warn!(
                series = left_out,
                "series that two collectors have are taken from the first one; \
                 look for names in textfiles that the agent collects itself"
            );
        }
        let gone = before.and_then(|before| vanished(before.set(), Some(&set)));
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

    /// Says how a scrape went for the collector.
    fn tell(&self, status: &mut CollectorStatus, done: Option<Done>, at_ms: i64) {
        let state = match done.map(|done| done.outcome) {
            Some(Outcome::Works) => State::Works,
            Some(Outcome::NoData(what)) => State::NoData(what),
            Some(Outcome::Fails) => {
                let words = self.task.as_ref().and_then(|task| task.trouble());
                State::Fails(words.unwrap_or_else(|| "".into()))
            }
            // That it hangs was said when its time was over.
            None if self.hung => status.state.clone(),
            None => State::Waits,
        };
        status.failures += u64::from(!matches!(state, State::Works | State::NoData(_)));
        status.state = state;
        status.at_ms = Some(at_ms);
        if let Some(done) = done {
            status.seconds = done.seconds;
        }
    }
}
