//! Scrapes of exporters: what Prometheus' scraper does, on the node.
//!
//! Targets come from the settings and from `file_sd` files ([`discovery`]); a [`Target`] is one of them, resolved.
//! Each has a task of its own ([`worker`]) that waits for its next instant, [`fetch`]es the body within the timeout,
//! has it read ([`exposition`]) and put into blocks ([`assembly`]), and hands all blocks of the scrape to the intake
//! as one: samples, staleness markers for series that vanished, and the report (`up`, `scrape_…`).
//!
//! A scrape that fails reports `up` = 0 and ends all series of the one before with staleness markers. A target that
//! is removed, by a reload or its file, has all its series ended at once, the reported ones included; one whose
//! labels and URL stay the same keeps its series through a reload, whatever else changes. **When the agent shuts
//! down it writes no markers**: it may be back within the five minutes that Prometheus looks behind, and a restart is
//! not to tear every graph. A node that does not come back shows in `pegel_node_up`.
//!
//! Where this differs from Prometheus on purpose: a sample whose labels can't be stored is left out and counted
//! while the rest of the scrape is taken (Prometheus fails the scrape); a target that exposes `up` or another of the
//! reported series without labels of its own has that one left out as a duplicate (there the target's wins).

pub mod assembly;
mod buffers;
pub mod discovery;
pub mod exposition;
pub(in crate::source) mod fetch;
#[doc(hidden)]
pub mod fuzzing;
pub mod own_labels;
mod regions;
mod report;
pub mod settings;
mod shape;
pub mod status;
pub mod target;
mod telemetry;
#[cfg(test)]
mod tests;
pub(in crate::source) mod url;
mod worker;

use super::SourceContext;
use arc_swap::ArcSwap;
use buffers::BufferPool;
use discovery::FileTargets;
use fetch::Clients;
use parking_lot::Mutex;
use pegel_proto::metrics::{Block, Labels};
use pegel_runtime::metrics::Registry;
use settings::{Job, Settings};
use status::TargetStatus;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use target::{Target, TargetKey, resolve_group};
use telemetry::ScrapeMetrics;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use worker::{TargetSeries, Worker};

/// What the tasks of a source share.
struct Shared {
    context: SourceContext,
    clients: Clients,
    buffers: BufferPool,
    metrics: ScrapeMetrics,
    /// What schedules count from.
    origin: Instant,
}

/// The states of the targets, in the order of their jobs.
type Statuses = Arc<ArcSwap<Vec<Arc<ArcSwap<TargetStatus>>>>>;

/// The running source.
pub struct ScrapeSource {
    settings: watch::Sender<Arc<Settings>>,
    statuses: Statuses,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl ScrapeSource {
    /// Starts scraping on the current tokio runtime, until the context's shutdown.
    pub fn start(settings: Settings, context: SourceContext) -> Self {
        let (sender, receiver) = watch::channel(Arc::new(settings));
        let statuses = Statuses::default();
        let metrics = ScrapeMetrics::new(&context.registry);
        let shared = Arc::new(Shared {
            context,
            clients: Clients::default(),
            buffers: BufferPool::default(),
            metrics,
            origin: Instant::now(),
        });
        let supervisor = Supervisor {
            shared,
            settings: receiver,
            files: Vec::new(),
            running: HashMap::new(),
            statuses: statuses.clone(),
            tasks: JoinSet::new(),
            complained: HashSet::new(),
        };
        Self { settings: sender, statuses, task: Mutex::new(Some(tokio::spawn(supervisor.run()))) }
    }

    /// Goes on with other settings. Targets that stay equal keep their series.
    pub fn apply(&self, settings: Settings) {
        self.settings.send_replace(Arc::new(settings));
    }

    /// The state of every target.
    pub fn status(&self) -> Vec<Arc<TargetStatus>> {
        self.statuses.load().iter().map(|status| status.load_full()).collect()
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

/// A target that is being scraped.
struct Running {
    target: watch::Sender<Arc<Target>>,
    status: Arc<ArcSwap<TargetStatus>>,
    removed: CancellationToken,
}

/// Keeps the tasks of the targets in step with settings and files.
struct Supervisor {
    shared: Arc<Shared>,
    settings: watch::Receiver<Arc<Settings>>,
    files: Vec<(Arc<Job>, Vec<FileTargets>)>,
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
        self.watch_files(&settings);
        self.refresh_files();
        self.follow_targets();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = self.settings.changed() => {
                    if changed.is_err() {
                        // Nobody can change the settings any more; the targets go on.
                        shutdown.cancelled().await;
                        break;
                    }
                    settings = self.settings.borrow_and_update().clone();
                    self.shared.clients.forget_tls();
                    self.complained.clear();
                    self.watch_files(&settings);
                    self.refresh_files();
                    self.follow_targets();
                }
                () = tokio::time::sleep(settings.file_sd_refresh), if self.has_files() => {
                    if self.refresh_files() {
                        self.follow_targets();
                    }
                }
            }
        }
        while self.tasks.join_next().await.is_some() {}
    }

    fn has_files(&self) -> bool {
        self.files.iter().any(|(_, files)| !files.is_empty())
    }

    /// Sets the files to look at, keeping what is known of those that stay.
    fn watch_files(&mut self, settings: &Settings) {
        let mut known: HashMap<(String, std::path::PathBuf), FileTargets> = HashMap::new();
        for (job, files) in self.files.drain(..) {
            for (pattern, files) in job.file_sd.iter().zip(files) {
                known.insert((job.name.clone(), pattern.clone()), files);
            }
        }
        for job in &settings.jobs {
            let files = job.file_sd.iter().map(|pattern| {
                known
                    .remove(&(job.name.clone(), pattern.clone()))
                    .unwrap_or_else(|| FileTargets::new(pattern.clone()))
            });
            self.files.push((Arc::new(job.clone()), files.collect()));
        }
    }

    /// Looks at the files; says whether their targets changed.
    fn refresh_files(&mut self) -> bool {
        let mut changed = false;
        for (job, files) in &mut self.files {
            for file in files {
                let (different, errors) = file.refresh();
                changed |= different;
                for error in errors {
                    tracing::warn!(job = %job.name, %error, "target file is left as it was");
                }
            }
        }
        changed
    }

    /// Starts, changes and removes tasks so that they are those of the targets.
    fn follow_targets(&mut self) {
        let (wanted, bad) = resolve_all(&self.files, &self.shared.context.external_labels);
        for error in bad {
            if self.complained.insert(error.clone()) {
                tracing::warn!(%error, "a target is left out");
            }
        }
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
        for (key, target) in wanted {
            let running = self.running.entry(key).or_insert_with(|| {
                let (running, worker) = start(target.clone(), &self.shared);
                self.tasks.spawn(worker.run());
                running
            });
            running.target.send_if_modified(|current| {
                let differs = **current != *target;
                *current = target;
                differs
            });
            statuses.push(running.status.clone());
        }
        self.shared.metrics.targets.set(statuses.len() as f64);
        self.statuses.store(Arc::new(statuses));
    }
}

fn start(target: Arc<Target>, shared: &Arc<Shared>) -> (Running, Worker) {
    let status = Arc::new(ArcSwap::from_pointee(TargetStatus::before_first(&target)));
    let removed = CancellationToken::new();
    let (sender, receiver) = watch::channel(target);
    let worker =
        Worker { target: receiver, shared: shared.clone(), status: status.clone(), removed: removed.clone() };
    (Running { target: sender, status, removed }, worker)
}

/// All targets with what makes them the same, each once, and why others are none.
fn resolve_all(
    files: &[(Arc<Job>, Vec<FileTargets>)],
    external: &Labels,
) -> (Vec<(TargetKey, Arc<Target>)>, Vec<String>) {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut bad = Vec::new();
    for (job, files) in files {
        for group in job.targets.iter().chain(files.iter().flat_map(FileTargets::groups)) {
            let (targets, errors) = resolve_group(job, group, external);
            bad.extend(errors.iter().map(ToString::to_string));
            for target in targets {
                let key = target.key();
                if seen.insert(key.clone()) {
                    found.push((key, Arc::new(target)));
                }
            }
        }
    }
    (found, bad)
}

/// One scrape of one target, for `pegel-agent once`.
#[derive(Debug)]
pub struct OneScrape {
    /// What became of it.
    pub status: TargetStatus,
    /// Its blocks, the reported series last.
    pub blocks: Vec<Block>,
}

/// Scrapes every target of the settings once, all at the same time. The second value says which targets could not be
/// resolved and which files could not be read.
pub async fn scrape_once(settings: &Settings, context: &SourceContext) -> (Vec<OneScrape>, Vec<String>) {
    let mut problems = Vec::new();
    let mut files = Vec::new();
    for job in &settings.jobs {
        let mut of_job: Vec<_> = job.file_sd.iter().cloned().map(FileTargets::new).collect();
        for file in &mut of_job {
            problems.extend(file.refresh().1.iter().map(ToString::to_string));
        }
        files.push((Arc::new(job.clone()), of_job));
    }
    let (targets, bad) = resolve_all(&files, &context.external_labels);
    problems.extend(bad);
    let shared = Shared {
        context: context.clone(),
        clients: Clients::default(),
        buffers: BufferPool::default(),
        metrics: ScrapeMetrics::new(&Registry::new()),
        origin: Instant::now(),
    };
    let at_ms = context.clock.now_ms();
    let scrapes = targets.iter().map(async |(_, target)| {
        let mut series = TargetSeries::new(target);
        let scraped = series.scrape(target, &shared, at_ms, std::future::pending()).await;
        let scraped = scraped.expect("nothing stops it");
        let status = TargetStatus::after(target, &scraped, at_ms, series.assembly.series());
        OneScrape { status, blocks: scraped.blocks }
    });
    (futures_util::future::join_all(scrapes).await, problems)
}
