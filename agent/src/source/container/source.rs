//! The container source: passes on a schedule, and at once when a runtime tells of a change.

use super::accounting::Accounting;
use super::events::Events;
use super::pass::Order;
use super::settings::Settings;
use super::status::{Status, Telemetry};
use super::summary::PassReport;
use super::{Catalogue, Change, ContainerId};
use crate::source::SourceContext;
use crate::source::host::System;
use crate::source::reading::lane::{Lane, Limits, Round};
use pegel_proto::metrics::{Block, Labels};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::{self, error::RecvError};

/// How long changes are gathered before a pass that is for them: a storm of starts costs a few passes a second.
const GATHERING: Duration = Duration::from_millis(200);

/// How long a container that waits for its name is given until it is looked at again.
const WAITING: Duration = Duration::from_millis(1_050);

/// See the module.
pub struct ContainerSource {
    settings: Settings,
    /// From the source's making on: what is told before it runs is not lost.
    changes: broadcast::Receiver<Change>,
    lane: Lane<Box<Accounting>>,
    /// Away while it hangs.
    accounting: Option<Box<Accounting>>,
    events: Events,
    status: Status,
}

/// What the next pass is for.
#[derive(Debug, Default)]
struct Urgent {
    read: HashSet<ContainerId>,
    ended: HashSet<ContainerId>,
    at: Option<Instant>,
}

impl Urgent {
    fn note(&mut self, change: &Change) {
        match change {
            Change::Started(container) | Change::Updated(container) => {
                if matches!(change, Change::Started(_)) {
                    self.ended.remove(&container.id);
                }
                self.read.insert(container.id.clone());
            }
            Change::Stopped { container, .. } => {
                self.ended.insert(container.id.clone());
                self.read.remove(&container.id);
            }
            Change::Removed(id) => {
                self.ended.insert(id.clone());
                self.read.remove(id);
            }
            Change::Health(container, _) | Change::OutOfMemory(container) => {
                self.read.insert(container.id.clone());
            }
        }
        self.soon(GATHERING);
    }

    fn soon(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        self.at = Some(self.at.map_or(at, |before| before.min(at)));
    }

    fn take(&mut self) -> Order {
        self.at = None;
        Order::Urgent { read: std::mem::take(&mut self.read), ended: std::mem::take(&mut self.ended) }
    }
}

impl ContainerSource {
    /// Makes the source. Its labels are those of the settings, the host's name as `instance`, and `external`, which
    /// override none of them.
    pub fn new(
        settings: Settings,
        external: &Arc<Labels>,
        catalogue: &Arc<Catalogue>,
        system: &Arc<dyn System>,
    ) -> Self {
        let accounting =
            Accounting::new(settings.clone(), external.clone(), catalogue.clone(), system.clone());
        Self {
            settings,
            changes: catalogue.changes(),
            lane: Lane::new("pegel-cgroups"),
            accounting: Some(Box::new(accounting)),
            events: Events::default(),
            status: Status::default(),
        }
    }

    /// What is known of containers, for `/api/v1/status`.
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// Reads at every multiple of the interval, by the sample clock, and at changes, until the context's shutdown.
    pub async fn run(mut self, context: SourceContext) {
        let telemetry = Telemetry::new(&context.registry);
        self.status.set_events(self.events.clone());
        let mut urgent = Urgent::default();
        let mut due_ms = None;
        loop {
            let now_ms = context.clock.now_ms();
            let next_ms = next_due(now_ms, self.settings.interval, due_ms);
            let scheduled = Instant::now() + Duration::from_millis((next_ms - now_ms).max(0) as u64);
            let urgent_at = urgent.at;
            let order = tokio::select! {
                () = context.shutdown.cancelled() => return,
                change = self.changes.recv() => {
                    match change {
                        Ok(change) => {
                            self.events.note_change(&change, now_ms, &context.registry);
                            urgent.note(&change);
                        }
                        // Whatever was missed, the next pass over all cgroups sees what is there.
                        Err(RecvError::Lagged(_)) => urgent.soon(GATHERING),
                        Err(RecvError::Closed) => return,
                    }
                    continue;
                }
                () = tokio::time::sleep_until(scheduled.into()) => {
                    due_ms = Some(next_ms);
                    Order::Full
                }
                () = sleep_until(urgent_at) => urgent.take(),
            };
            let at_ms = context.clock.now_ms();
            let Some(mut report) = self.pass(order, at_ms).await else {
                telemetry.hung(true);
                self.status.set_hung(true);
                continue;
            };
            telemetry.hung(false);
            self.status.set_hung(false);
            context.intake.offer(std::mem::take(&mut report.blocks));
            if report.waiting > 0 {
                urgent.soon(WAITING);
            }
            for kill in report.oom_kills.drain(..) {
                self.events.note_kill(kill, at_ms, &context.registry);
            }
            telemetry.note(&report);
            self.status.note(report);
        }
    }

    /// Reads once at `at_ms` (milliseconds since the Unix epoch), without waiting for names of containers.
    pub async fn once(&mut self, at_ms: i64) -> Vec<Block> {
        if let Some(accounting) = &mut self.accounting {
            accounting.patience_ms = 0;
        }
        let mut blocks = Vec::new();
        // The first pass finds out whether there is any container at all.
        for _ in 0..2 {
            let Some(report) = self.pass(Order::Full, at_ms).await else { break };
            if let Some(trouble) = &report.trouble {
                tracing::warn!("{trouble}");
            }
            blocks = report.blocks;
        }
        blocks
    }

    /// One pass; none if it, or one before it, has not returned in time.
    async fn pass(&mut self, order: Order, at_ms: i64) -> Option<PassReport> {
        self.take_back();
        let mut accounting = self.accounting.take()?;
        accounting.order = order;
        accounting.at_ms = at_ms;
        let limit = self.settings.pass_limit();
        let limits = Limits { job: limit, deadline: Instant::now() + limit };
        self.lane.begin([(0, accounting)].into_iter());
        let stuck = |_| {
            tracing::warn!(
                limit_seconds = limit.as_secs_f64(),
                "reading cgroups does not return; containers have no samples until it does"
            );
        };
        while let Round::WaitUntil(until) = self.lane.check(Instant::now(), limits, stuck) {
            self.lane.wait_async(until).await;
        }
        self.take_back();
        Some(std::mem::take(&mut self.accounting.as_mut()?.report))
    }

    fn take_back(&mut self) {
        let place = &mut self.accounting;
        self.lane.take(|_, accounting| *place = Some(accounting));
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The next multiple of the interval after an instant, in milliseconds. A timer that fires a little early must not
/// make two passes of the one that was due.
fn next_due(now_ms: i64, interval: Duration, last_due_ms: Option<i64>) -> i64 {
    let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
    let next_ms = now_ms - now_ms.rem_euclid(interval_ms) + interval_ms;
    if last_due_ms == Some(next_ms) { next_ms + interval_ms } else { next_ms }
}
