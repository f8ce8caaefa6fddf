//! The runs of one target: a task that nothing else waits for.

use super::STAMP_TOLERANCE;
use super::outcome::Failure;
use super::record::{Record, Shape};
use super::report::Report;
use super::run::{Probe, Run};
use super::settings::Check;
use super::state::{State, Tracker};
use super::status::{CheckStatus, StateChange, written};
use super::target::Target;
use super::{Shared, outcome::Reason};
use crate::source::schedule::{self, Schedule};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A target with the probe that its check's settings make, shared by all targets of the check.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) target: Arc<Target>,
    pub(super) probe: Arc<dyn Probe>,
}

/// What a run gave.
pub(super) struct Ran {
    pub(super) record: Record,
    pub(super) failure: Option<Failure>,
    pub(super) took: Duration,
    pub(super) retries: u32,
}

/// Runs a check once: the first attempt and, while attempts fail, as many more as the check allows.
pub(super) async fn run(task: &Task, shared: &Shared) -> Ran {
    let began = Instant::now();
    let check = &task.target.check;
    let mut retries = 0;
    loop {
        let deadline = Instant::now() + check.timeout;
        let now_ms = shared.context.clock.now_ms();
        let heartbeats = shared.heartbeats.clone();
        let mut run = Run::new(task.target.clone(), shared.network.clone(), heartbeats, deadline, now_ms);
        let ended = tokio::time::timeout_at(deadline, task.probe.attempt(&mut run)).await;
        let failure = match ended {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(_) => Some(Failure::timeout(run.phase(), check.timeout)),
        };
        if failure.is_none() || retries == check.retries {
            return Ran { record: run.record, failure, took: began.elapsed(), retries };
        }
        retries += 1;
    }
}

/// The task of one target.
pub(super) struct Worker {
    pub(super) task: watch::Receiver<Task>,
    pub(super) shared: Arc<Shared>,
    pub(super) status: Arc<ArcSwap<CheckStatus>>,
    /// The target is gone for good.
    pub(super) removed: CancellationToken,
}

impl Worker {
    /// Runs the check until the target is removed, which ends its series, or the agent shuts down, which does not:
    /// it may be back in a moment.
    pub(super) async fn run(mut self) {
        let mut task = self.task.borrow_and_update().clone();
        let mut series = TargetSeries::new(&task.target, self.shared.context.clock.now_ms());
        let shutdown = self.shared.context.shutdown.clone();
        loop {
            let target = &task.target;
            let interval = target.check.interval;
            let schedule = Schedule::new(interval, schedule::offset(target.identity_hash(), interval));
            let due = schedule.next_after(self.shared.origin.elapsed());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.removed.cancelled() => break,
                changed = self.task.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    task = self.task.borrow_and_update().clone();
                    series.tracker.set_thresholds(task.target.check.thresholds);
                    continue;
                }
                () = tokio::time::sleep_until(self.shared.origin + due) => {}
            }
            let due_at = self.shared.origin + due;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.removed.cancelled() => break,
                () = series.run(&task, &self.shared, due_at, &self.status) => {}
            }
            let skipped = schedule.skipped_between(due, self.shared.origin.elapsed());
            self.shared.metrics.skipped.add(skipped);
        }
        self.shared.context.intake.offer(series.shape.end(self.shared.context.clock.now_ms()));
    }
}

/// What is kept of a target from run to run.
pub(super) struct TargetSeries {
    shape: Shape,
    tracker: Tracker,
    /// Whether the last run ended by its time limit.
    slow: bool,
}

impl TargetSeries {
    pub(super) fn new(target: &Target, at_ms: i64) -> Self {
        Self {
            shape: Shape::new(target.shared.clone()),
            tracker: Tracker::new(target.check.thresholds, at_ms),
            slow: false,
        }
    }

    /// One run, due at an instant, and what is to be told of it.
    async fn run(&mut self, task: &Task, shared: &Shared, due: Instant, status: &ArcSwap<CheckStatus>) {
        let (slot, waited) = shared.slots.take(self.slow).await;
        let metrics = &shared.metrics;
        if waited {
            metrics.waited.inc();
        }
        let lag = due.elapsed();
        metrics.lag.observe(lag.as_secs_f64());
        let tolerance = STAMP_TOLERANCE.min(task.target.check.interval / 100);
        let aligned = if lag <= tolerance { lag } else { Duration::ZERO };
        let at_ms = shared.context.clock.ms_before_now(aligned);
        let ran = {
            let _running = shared.count_running();
            run(task, shared).await
        };
        drop(slot);
        metrics.retried.add(u64::from(ran.retries));
        let result = if ran.failure.is_none() { &metrics.succeeded } else { &metrics.failed };
        result.inc();
        self.slow = ran.failure.as_ref().is_some_and(|f| f.reason == Reason::Timeout);
        let (blocks, told) = self.report(task, ran, lag, at_ms);
        status.store(Arc::new(told.status));
        if let Some(change) = told.change {
            log(&change);
            shared.told.push((&change).into());
            // Nobody has to listen.
            let _ = shared.changes.send(change);
        }
        shared.context.intake.offer(blocks);
    }

    /// The blocks of a run, and what changed with it.
    pub(super) fn report(
        &mut self,
        task: &Task,
        ran: Ran,
        lag: Duration,
        at_ms: i64,
    ) -> (Vec<pegel_proto::metrics::Block>, Told) {
        let target = &task.target;
        let Check { kind, timeout, .. } = &*target.check;
        let Ran { mut record, failure, took, .. } = ran;
        let in_maintenance = target.check.in_maintenance(at_ms);
        let was_since_ms = self.tracker.since_ms();
        let transition = self.tracker.note(failure.is_none(), in_maintenance, at_ms);
        let report = Report {
            kind: kind.name(),
            failure: failure.as_ref(),
            took,
            limit: *timeout,
            lag,
            tracker: &self.tracker,
            in_maintenance,
        };
        report.add_to(&mut record);
        let status = CheckStatus::after(
            target,
            self.tracker.state(),
            self.tracker.since_ms(),
            failure.as_ref(),
            at_ms,
            took,
        );
        let change = transition.map(|t| StateChange {
            target: target.clone(),
            from: t.from,
            to: t.to,
            was_up: t.was_up,
            at_ms,
            was_since_ms,
            failure,
        });
        (self.shape.blocks(record, at_ms), Told { status, change })
    }
}

/// What is told of a run beside its series.
pub(super) struct Told {
    pub(super) status: CheckStatus,
    pub(super) change: Option<StateChange>,
}

/// Says what changed, every change with all that is known of it. The log leaves repeats out by itself; the status has
/// the last changes all the same.
fn log(change: &StateChange) {
    let (check, target) = (&change.target.check.name, &change.target.address);
    let kind = change.target.check.kind.name();
    let (from, to) = (change.from.name(), change.to.name());
    let (since, was_since) = (written(change.at_ms), written(change.was_since_ms));
    let seconds = (change.at_ms - change.was_since_ms) / 1_000;
    match (&change.failure, change.to) {
        (Some(failure), _) => {
            let (phase, reason) = (failure.phase.name(), failure.reason.name());
            if change.to == State::Down {
                tracing::warn!(
                    %check, kind, %target, from, to, since, was_since, phase, reason, error = %failure,
                    "a check is down"
                );
            } else {
                tracing::info!(
                    %check, kind, %target, from, to, since, was_since, phase, reason, error = %failure,
                    "a check changed its state"
                );
            }
        }
        (None, State::Up) if change.from == State::Pending => {
            tracing::debug!(%check, kind, %target, from, to, since, "a check is up");
        }
        (None, State::Up) => {
            tracing::info!(%check, kind, %target, from, to, since, was_since, seconds, "a check is up again");
        }
        (None, _) => {
            tracing::info!(%check, kind, %target, from, to, since, was_since, "a check changed its state");
        }
    }
}
