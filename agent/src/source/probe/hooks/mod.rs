//! Hooks: what the agent does by itself when a check's state changes.
//!
//! - Nothing here holds up a check: changes come on a broadcast channel whose sender never waits. Who falls behind is
//!   told how many it missed, and says so.
//! - What a hook may do is bounded: programs by an allow-list of the configuration, [how often](limit) for a target and
//!   in all, how long, how many at once ([`MAX_RUNNING`]) and how many wait ([`MAX_WAITING`], and no longer than
//!   [`MAX_WAIT`]: to restart what is up again does harm).
//! - For one hook and one target things are done one after the other, in the order of the changes.
//! - [Everything is told](audit): what was done, and what was not, with the reason.
//! - Maintenance is no event ([`Event::of`]), and what a container asks for by its labels is none either unless the hook
//!   says so: who may start a container is not to decide what the host runs.

mod action;
pub mod audit;
pub mod limit;
pub mod settings;

pub use audit::HookRun;

use super::settings::Settings;
use super::status::{Latest, StateChange};
use super::turns::Turns;
use crate::source::clock::SampleClock;
use action::{Client, act};
use audit::{Audit, Done, Outcome};
use limit::Limit;
use parking_lot::Mutex;
use pegel_runtime::metrics::{Counter, Registry};
use settings::{Event, Hook};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many hooks run at once.
pub const MAX_RUNNING: usize = 8;
/// How many runs of hooks may wait.
pub const MAX_WAITING: usize = 1_000;
/// How long one may wait.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// A hook with what lasts from run to run.
struct Active {
    hook: Arc<Hook>,
    client: Arc<Client>,
    limit: Arc<Mutex<Limit>>,
}

/// The task that waits for changes.
pub(super) struct Hooks {
    settings: watch::Receiver<Arc<Settings>>,
    changes: broadcast::Receiver<StateChange>,
    shutdown: CancellationToken,
    active: Vec<Active>,
    audit: Audit,
    missed: Counter,
    slots: Arc<Semaphore>,
    turns: Arc<Turns<(String, u64)>>,
    runs: JoinSet<()>,
}

impl Hooks {
    pub(super) fn new(
        settings: watch::Receiver<Arc<Settings>>,
        changes: broadcast::Receiver<StateChange>,
        told: Arc<Latest<HookRun>>,
        shutdown: CancellationToken,
        clock: SampleClock,
        registry: &Registry,
    ) -> Self {
        Self {
            settings,
            changes,
            shutdown,
            active: Vec::new(),
            audit: Audit { registry: registry.clone(), runs: told, clock },
            missed: registry.counter(
                "pegel_hook_missed_changes_total",
                "Changes of checks' states that hooks did not see because too many came at once.",
                &[],
            ),
            slots: Arc::new(Semaphore::new(MAX_RUNNING)),
            turns: Arc::default(),
            runs: JoinSet::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        self.take_over();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Ok(()) = self.settings.changed() => self.take_over(),
                Some(_) = self.runs.join_next() => {}
                change = self.changes.recv() => match change {
                    Ok(change) => self.consider(&change),
                    Err(RecvError::Lagged(missed)) => {
                        self.missed.add(missed);
                        if !self.active.is_empty() {
                            tracing::warn!(
                                missed, "hooks missed changes of checks' states: too many came at once"
                            );
                        }
                    }
                    Err(RecvError::Closed) => break,
                },
            }
        }
        // Each tells that it was given up; its program is ended.
        while self.runs.join_next().await.is_some() {}
    }

    /// Takes settings over. How often a hook ran lately is remembered by its name; certificates are read again.
    fn take_over(&mut self) {
        let settings = self.settings.borrow_and_update().clone();
        let before = std::mem::take(&mut self.active);
        let mut limits: HashMap<&str, Arc<Mutex<Limit>>> =
            before.iter().map(|active| (active.hook.name.as_str(), active.limit.clone())).collect();
        for hook in &settings.hooks {
            self.audit.begin(&hook.name);
            let limit = limits.remove(hook.name.as_str()).unwrap_or_default();
            self.active.push(Active { hook: Arc::new(hook.clone()), client: Arc::default(), limit });
        }
        for gone in limits.keys() {
            self.audit.end(gone);
        }
    }

    fn consider(&mut self, change: &StateChange) {
        let Some(event) = Event::of(change) else { return };
        let target = change.target.identity_hash();
        for Active { hook, client, limit } in self.active.iter().filter(|a| a.hook.is_for(event, change)) {
            let not_begun = if !limit.lock().admit(&hook.bounds, target, Instant::now()) {
                Some(Outcome::RateLimited)
            } else if hook.dry_run {
                Some(Outcome::DryRun)
            } else if self.runs.len() >= MAX_WAITING {
                Some(Outcome::Overloaded)
            } else {
                None
            };
            if let Some(outcome) = not_begun {
                self.audit.tell(hook, event, change, Done::without_run(outcome));
                continue;
            }
            let (hook, client, change) = (hook.clone(), client.clone(), change.clone());
            let (audit, shutdown) = (self.audit.clone(), self.shutdown.clone());
            let (turns, slots) = (self.turns.clone(), self.slots.clone());
            self.runs.spawn(async move {
                let done = async {
                    let told = Instant::now();
                    let turn = turns.take((hook.name.clone(), target)).await;
                    let slot = slots.acquire_owned().await;
                    if told.elapsed() > MAX_WAIT {
                        return Done::without_run(Outcome::Expired);
                    }
                    act(&hook, &client, event, &change, (turn, slot)).await
                };
                let done = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => Done::without_run(Outcome::Aborted),
                    done = done => done,
                };
                audit.tell(&hook, event, &change, done);
            });
        }
    }
}

#[cfg(test)]
mod tests;
