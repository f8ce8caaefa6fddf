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
//! `pegel_probe_schedule_lag_seconds`. Changes of state are told on a channel ([`ProbeSource::changes`]).
//!
//! Nothing here blocks the runtime's thread: names are looked up by [`net::resolve`] without threads, so a name
//! server that never answers costs a socket for each run that waits for it and nothing else.

pub mod containers;
pub mod heartbeats;
pub mod kinds;
pub mod maintenance;
pub mod net;
pub mod outcome;
pub mod record;
mod report;
pub mod run;
pub mod settings;
mod slots;
pub mod state;
pub mod status;
pub mod target;
mod telemetry;
#[cfg(test)]
mod tests;
mod worker;

use super::SourceContext;
use super::container::Catalogue;
use super::labels::TargetLabels;
use super::scrape::discovery::FileTargets;
use arc_swap::ArcSwap;
use heartbeats::Heartbeats;
use kinds::Kind;
use net::Network;
use parking_lot::Mutex;
use pegel_proto::metrics::{Block, Labels};
use pegel_runtime::metrics::Registry;
use run::Probe;
use settings::{Check, Settings};
use slots::Slots;
use status::{CheckStatus, StateChange};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use target::{TargetKey, resolve_group};
use telemetry::ProbeMetrics;
use tokio::sync::{broadcast, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use worker::{TargetSeries, Task, Worker};

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
    heartbeats: Arc<Heartbeats>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl ProbeSource {
    /// Starts checking on the current tokio runtime, until the context's shutdown. With a catalogue, containers'
    /// labels make checks too.
    pub fn start(settings: Settings, containers: Option<Arc<Catalogue>>, context: SourceContext) -> Self {
        let registry = context.registry.clone();
        let shared = Arc::new(Shared::new(context, &settings, &registry));
        let (changes, heartbeats) = (shared.changes.clone(), shared.heartbeats.clone());
        let (sender, receiver) = watch::channel(Arc::new(settings));
        let statuses = Statuses::default();
        let supervisor = Supervisor {
            shared,
            settings: receiver,
            containers,
            checks: Vec::new(),
            running: HashMap::new(),
            statuses: statuses.clone(),
            tasks: JoinSet::new(),
            complained: HashSet::new(),
        };
        let task = Mutex::new(Some(tokio::spawn(supervisor.run())));
        Self { settings: sender, statuses, changes, heartbeats, task }
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

    /// Where jobs call in.
    pub fn heartbeats(&self) -> &Arc<Heartbeats> {
        &self.heartbeats
    }

    /// Waits until every task has ended, after the context's shutdown.
    pub async fn stopped(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            // A panic of the supervisor was reported by the panic hook.
            let _ = task.await;
        }
    }
}

/// A check with what its targets need.
struct Checked {
    check: Arc<Check>,
    probe: Arc<dyn Probe>,
    files: Vec<FileTargets>,
}

/// A target that is being checked.
struct Running {
    task: watch::Sender<Task>,
    status: Arc<ArcSwap<CheckStatus>>,
    removed: CancellationToken,
}

/// Whether certificates and other files that checks name are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    /// As after a reload of the configuration.
    ReadAgain,
    /// Only checks that are new or different read theirs.
    AsBefore,
}

/// Keeps the tasks of the targets in step with settings, files and containers.
struct Supervisor {
    shared: Arc<Shared>,
    settings: watch::Receiver<Arc<Settings>>,
    containers: Option<Arc<Catalogue>>,
    checks: Vec<Checked>,
    running: HashMap<TargetKey, Running>,
    statuses: Statuses,
    tasks: JoinSet<()>,
    /// Bad targets that were named.
    complained: HashSet<String>,
}

impl Supervisor {
    async fn run(mut self) {
        let shutdown = self.shared.context.shutdown.clone();
        let mut settings = self.settings.borrow_and_update().clone();
        let mut changes = self.containers.as_ref().map(|catalogue| catalogue.changes());
        self.begin(&settings, Files::ReadAgain);
        loop {
            let refresh = settings.file_sd_refresh;
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = self.settings.changed() => {
                    if changed.is_err() {
                        // Nobody can change the settings any more; the targets go on.
                        shutdown.cancelled().await;
                        break;
                    }
                    settings = self.settings.borrow_and_update().clone();
                    self.shared.slots.resize(settings.max_running);
                    self.shared.network.resolver.ask(&settings.name_servers);
                    self.complained.clear();
                    self.begin(&settings, Files::ReadAgain);
                }
                () = containers::changed(&mut changes), if settings.from_containers => {
                    self.begin(&settings, Files::AsBefore);
                }
                () = tokio::time::sleep(refresh), if self.has_files() => {
                    if self.refresh_files() {
                        self.follow_targets(&settings);
                    }
                }
            }
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Takes settings and containers over.
    fn begin(&mut self, settings: &Settings, files: Files) {
        let mut checks = settings.checks.clone();
        if let Some(catalogue) = self.containers.as_ref().filter(|_| settings.from_containers) {
            let (found, bad) = containers::checks(&catalogue.all());
            checks.extend(found);
            self.complain(bad);
        }
        self.take_over(checks, files);
        self.refresh_files();
        self.follow_targets(settings);
    }

    fn has_files(&self) -> bool {
        self.checks.iter().any(|checked| !checked.files.is_empty())
    }

    /// Sets the checks, keeping those that are the same with what they hold, and what is known of files.
    fn take_over(&mut self, checks: Vec<Check>, read: Files) {
        let mut files: HashMap<(String, PathBuf), FileTargets> = HashMap::new();
        let mut before: HashMap<String, Checked> = HashMap::new();
        for mut checked in self.checks.drain(..) {
            for (pattern, known) in checked.check.file_sd.iter().zip(std::mem::take(&mut checked.files)) {
                files.insert((checked.check.name.clone(), pattern.clone()), known);
            }
            before.insert(checked.check.name.clone(), checked);
        }
        for check in checks {
            let of_check = check
                .file_sd
                .iter()
                .map(|pattern| {
                    let known = files.remove(&(check.name.clone(), pattern.clone()));
                    known.unwrap_or_else(|| FileTargets::new(pattern.clone()))
                })
                .collect();
            let checked = match before.remove(&check.name).filter(|same| *same.check == check) {
                Some(same) if read == Files::AsBefore => Checked { files: of_check, ..same },
                same => Checked {
                    probe: check.kind.probe(),
                    check: same.map_or_else(|| Arc::new(check), |same| same.check),
                    files: of_check,
                },
            };
            self.checks.push(checked);
        }
    }

    /// Looks at the files; says whether their targets changed.
    fn refresh_files(&mut self) -> bool {
        let mut changed = false;
        for Checked { check, files, .. } in &mut self.checks {
            for file in files {
                let (different, errors) = file.refresh();
                changed |= different;
                for error in errors {
                    tracing::warn!(check = %check.name, %error, "target file is left as it was");
                }
            }
        }
        changed
    }

    fn complain(&mut self, bad: Vec<String>) {
        for error in bad {
            if self.complained.insert(error.clone()) {
                tracing::warn!(%error, "a target is left out");
            }
        }
    }

    /// Starts, changes and removes tasks so that they are those of the targets.
    fn follow_targets(&mut self, settings: &Settings) {
        let (wanted, bad) = resolve_all(&self.checks, &settings.labels, &self.shared.context.external_labels);
        self.complain(bad);
        let jobs = wanted.iter().map(|(_, task)| &task.target);
        let jobs = jobs.filter(|target| matches!(target.check.kind, Kind::Heartbeat(_)));
        let jobs: Vec<&str> = jobs.map(|target| target.address.as_str()).collect();
        self.shared.heartbeats.expect_only(&jobs, self.shared.context.clock.now_ms());
        let keys: HashSet<&TargetKey> = wanted.iter().map(|(key, _)| key).collect();
        self.running.retain(|key, running| {
            let stays = keys.contains(key);
            if !stays {
                running.removed.cancel();
            }
            stays
        });
        while self.tasks.try_join_next().is_some() {}
        let mut statuses = Vec::with_capacity(wanted.len());
        for (key, task) in wanted {
            let running = self.running.entry(key).or_insert_with(|| {
                let (running, worker) = start(task.clone(), &self.shared);
                self.tasks.spawn(worker.run());
                running
            });
            running.task.send_if_modified(|current| {
                let differs = current.target != task.target || !Arc::ptr_eq(&current.probe, &task.probe);
                *current = task;
                differs
            });
            statuses.push(running.status.clone());
        }
        self.shared.metrics.targets.set(statuses.len() as f64);
        self.statuses.store(Arc::new(statuses));
    }
}

fn start(task: Task, shared: &Arc<Shared>) -> (Running, Worker) {
    let status = Arc::new(ArcSwap::from_pointee(CheckStatus::before_first(&task.target)));
    let removed = CancellationToken::new();
    let (sender, receiver) = watch::channel(task);
    let worker =
        Worker { task: receiver, shared: shared.clone(), status: status.clone(), removed: removed.clone() };
    (Running { task: sender, status, removed }, worker)
}

/// All targets with what makes them the same, each once, and why others are none.
fn resolve_all(
    checks: &[Checked],
    labels: &TargetLabels,
    external: &Labels,
) -> (Vec<(TargetKey, Task)>, Vec<String>) {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut bad = Vec::new();
    for Checked { check, probe, files } in checks {
        for group in check.targets.iter().chain(files.iter().flat_map(FileTargets::groups)) {
            let (targets, errors) = resolve_group(check, group, labels, external);
            bad.extend(errors.iter().map(ToString::to_string));
            for target in targets {
                let key = target.key();
                if seen.insert(key.clone()) {
                    found.push((key, Task { target: Arc::new(target), probe: probe.clone() }));
                }
            }
        }
    }
    (found, bad)
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
