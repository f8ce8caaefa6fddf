//! Synthetic checks: whether services answer as their users need, under blackbox_exporter's names.
//!
//! Targets come from the settings, from `file_sd` files and from containers' labels ([`containers`]); a
//! [`Target`](target::Target) is one of them, resolved. Each has a task of its own ([`worker`]) that waits for its
//! next instant and for a [slot](slots), makes a run with the check's [`Probe`](run::Probe) within the time limit,
//! and hands its samples to the intake. What a probe measured before it failed or ran out of time is reported all
//! the same ([`record`]): certificates survive a failed assertion, phases tell where the time went.
//!
//! Beside blackbox_exporter's series every check has `pegel_probe_up` (what [`state`] makes of the runs),
//! `pegel_probe_failure` with [phase and reason](outcome) of a failed run, `pegel_probe_maintenance` and
//! `pegel_probe_schedule_lag_seconds`. Changes of state are told on a channel ([`ProbeSource::changes`]), on which
//! [`hooks`] act.
//!
//! Nothing here blocks the runtime's thread: names are looked up by [`net::resolve`] without threads, so a name
//! server that never answers costs a socket for each run that waits for it and nothing else.

pub mod containers;
pub mod heartbeats;
pub mod hooks;
pub mod kinds;
pub mod maintenance;
pub mod net;
pub mod outcome;
pub mod program;
pub mod record;
mod report;
pub mod run;
pub mod settings;
mod slots;
pub mod state;
pub mod status;
mod supervisor;
pub mod target;
mod telemetry;
#[cfg(test)]
mod tests;
mod turns;
mod worker;

use super::SourceContext;
use super::container::Catalogue;
use super::scrape::discovery::FileTargets;
use arc_swap::ArcSwap;
use heartbeats::Heartbeats;
use hooks::{HookRun, Hooks};
use net::Network;
use parking_lot::Mutex;
use pegel_proto::metrics::Block;
use pegel_runtime::metrics::Registry;
use settings::Settings;
use slots::Slots;
use status::{CheckStatus, Latest, StateChange, ToldChange};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use supervisor::{Checked, Supervisor, resolve_all};
use telemetry::ProbeMetrics;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use worker::TargetSeries;

/// A run that begins at most this late (and at most a hundredth of its interval) has the time at which it was due,
/// as scrapes have.
const STAMP_TOLERANCE: Duration = Duration::from_millis(10);

/// How many changes of state a slow listener may be behind before it misses some: a site's outage at once.
const CHANGES_KEPT: usize = 1_024;

/// What the tasks of a source share.
struct Shared {
    context: SourceContext,
    network: Arc<Network>,
    heartbeats: Arc<Heartbeats>,
    slots: Slots,
    running: AtomicUsize,
    metrics: ProbeMetrics,
    changes: broadcast::Sender<StateChange>,
    told: Arc<Latest<ToldChange>>,
    /// What schedules count from.
    origin: Instant,
}

impl Shared {
    fn new(context: SourceContext, settings: &Settings, registry: &Registry) -> Self {
        let heartbeats = settings.state_dir.as_deref().map_or_else(Heartbeats::in_memory, Heartbeats::open);
        let network = Network::of_this_machine();
        network.resolver.ask(&settings.name_servers);
        Self {
            heartbeats: Arc::new(heartbeats),
            context,
            network: Arc::new(network),
            slots: Slots::new(settings.max_running),
            running: AtomicUsize::new(0),
            metrics: ProbeMetrics::new(registry),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            told: Arc::default(),
            origin: Instant::now(),
        }
    }

    /// Counts a run as long as the value lives.
    fn count_running(&self) -> CountedRun<'_> {
        let now = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.metrics.running.set(now as f64);
        CountedRun(self)
    }
}

struct CountedRun<'a>(&'a Shared);

impl Drop for CountedRun<'_> {
    fn drop(&mut self) {
        let now = self.0.running.fetch_sub(1, Ordering::Relaxed) - 1;
        self.0.metrics.running.set(now as f64);
    }
}

/// The states of the targets, in the order of their checks.
type Statuses = Arc<ArcSwap<Vec<Arc<ArcSwap<CheckStatus>>>>>;

/// The running source.
pub struct ProbeSource {
    settings: watch::Sender<Arc<Settings>>,
    statuses: Statuses,
    changes: broadcast::Sender<StateChange>,
    told: Arc<Latest<ToldChange>>,
    hook_runs: Arc<Latest<HookRun>>,
    heartbeats: Arc<Heartbeats>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl ProbeSource {
    /// Starts checking on the current tokio runtime, until the context's shutdown. With a catalogue, containers'
    /// labels make checks too.
    pub fn start(settings: Settings, containers: Option<Arc<Catalogue>>, context: SourceContext) -> Self {
        let registry = context.registry.clone();
        let shared = Arc::new(Shared::new(context, &settings, &registry));
        let (changes, heartbeats) = (shared.changes.clone(), shared.heartbeats.clone());
        let (told, hook_runs) = (shared.told.clone(), Arc::default());
        let (sender, receiver) = watch::channel(Arc::new(settings));
        let statuses = Statuses::default();
        let hooks = Hooks::new(
            receiver.clone(),
            shared.changes.subscribe(),
            Arc::clone(&hook_runs),
            shared.context.shutdown.clone(),
            shared.context.clock.clone(),
            &registry,
        );
        let supervisor = Supervisor::new(shared, receiver, containers, statuses.clone());
        let tasks = Mutex::new(vec![tokio::spawn(supervisor.run()), tokio::spawn(hooks.run())]);
        Self { settings: sender, statuses, changes, told, hook_runs, heartbeats, tasks }
    }

    /// Goes on with other settings. Targets that stay equal keep their series and states.
    pub fn apply(&self, settings: Settings) {
        self.settings.send_replace(Arc::new(settings));
    }

    /// The state of every target.
    pub fn status(&self) -> Vec<Arc<CheckStatus>> {
        self.statuses.load().iter().map(|status| status.load_full()).collect()
    }

    /// Changes of state from now on. A listener that lags is told how many it missed.
    pub fn changes(&self) -> broadcast::Receiver<StateChange> {
        self.changes.subscribe()
    }

    /// The last changes of state, oldest first.
    pub fn told_changes(&self) -> Vec<ToldChange> {
        self.told.all()
    }

    /// What hooks did last, oldest first.
    pub fn hook_runs(&self) -> Vec<HookRun> {
        self.hook_runs.all()
    }

    /// Where jobs call in.
    pub fn heartbeats(&self) -> &Arc<Heartbeats> {
        &self.heartbeats
    }

    /// Waits until every task has ended, after the context's shutdown.
    pub async fn stopped(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            // A panic of one was reported by the panic hook.
            let _ = task.await;
        }
    }
}

/// Runs every check of the settings once, all at the same time, for `pegel-agent once`: statuses and blocks. The last
/// value says which targets could not be resolved and which files could not be read.
pub async fn probe_once(
    settings: &Settings,
    context: &SourceContext,
) -> (Vec<(CheckStatus, Vec<Block>)>, Vec<String>) {
    let mut problems = Vec::new();
    let mut checks = Vec::new();
    for check in &settings.checks {
        let mut files: Vec<_> = check.file_sd.iter().cloned().map(FileTargets::new).collect();
        for file in &mut files {
            problems.extend(file.refresh().1.iter().map(ToString::to_string));
        }
        checks.push(Checked { probe: check.kind.probe(), check: Arc::new(check.clone()), files });
    }
    let (tasks, bad) = resolve_all(&checks, &settings.labels, &context.external_labels);
    problems.extend(bad);
    let shared = Shared::new(context.clone(), settings, &Registry::new());
    let runs = tasks.iter().map(async |(_, task)| {
        let _slot = shared.slots.take(false).await;
        let at_ms = context.clock.now_ms();
        let mut series = TargetSeries::new(&task.target, at_ms);
        let ran = worker::run(task, &shared).await;
        let (blocks, told) = series.report(task, ran, Duration::ZERO, at_ms);
        (told.status, blocks)
    });
    (futures_util::future::join_all(runs).await, problems)
}
