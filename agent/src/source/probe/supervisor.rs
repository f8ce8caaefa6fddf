//! Keeps the tasks of the targets in step with settings, files and containers.

use super::kinds::Kind;
use super::run::Probe;
use super::settings::{Check, Settings};
use super::status::CheckStatus;
use super::target::{TargetKey, resolve_group};
use super::worker::{Task, Worker};
use super::{Shared, Statuses, containers};
use crate::source::container::Catalogue;
use crate::source::labels::TargetLabels;
use crate::source::scrape::discovery::FileTargets;
use arc_swap::ArcSwap;
use pegel_proto::metrics::Labels;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A check with what its targets need.
pub(super) struct Checked {
    pub(super) check: Arc<Check>,
    pub(super) probe: Arc<dyn Probe>,
    pub(super) files: Vec<FileTargets>,
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

/// See the module.
pub(super) struct Supervisor {
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
    pub(super) fn new(
        shared: Arc<Shared>,
        settings: watch::Receiver<Arc<Settings>>,
        containers: Option<Arc<Catalogue>>,
        statuses: Statuses,
    ) -> Self {
        Self {
            shared,
            settings,
            containers,
            checks: Vec::new(),
            running: HashMap::new(),
            statuses,
            tasks: JoinSet::new(),
            complained: HashSet::new(),
        }
    }

    pub(super) async fn run(mut self) {
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
pub(super) fn resolve_all(
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
