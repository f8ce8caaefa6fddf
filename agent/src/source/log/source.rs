//! The log source: its inputs, and what delivery tells them.

use super::checkpoints::Checkpoints;
use super::cutter::Cutter;
use super::file::{self, Files};
use super::other::{OtherStatus, Others, noted};
use super::settings::{InputKind, Settings};
use crate::intake::LogIntake;
use crate::source::container::Catalogue;
use pegel_proto::batch::{BatchSeq, Logs};
use pegel_runtime::metrics::Registry;
use serde::Serialize;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The running log source.
pub struct LogSource {
    checkpoints: Arc<Checkpoints>,
    files: Option<Files>,
    others: Others,
}

/// How the log source fares.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Why checkpoints can't be written, if so.
    pub checkpoints_trouble: Option<String>,
    /// Files.
    pub files: file::Status,
    /// Inputs that are no files.
    #[serde(flatten)]
    pub others: OtherStatus,
}

impl LogSource {
    /// Starts all inputs. `checkpoints` were opened in the settings' directory and advanced over what the spool
    /// holds. Blocks that may have been sent before the last kill are built again first. Must be called within a
    /// tokio runtime.
    pub fn start(
        settings: Settings,
        checkpoints: Arc<Checkpoints>,
        intake: LogIntake,
        registry: &Registry,
        catalogue: Option<Arc<Catalogue>>,
        shutdown: CancellationToken,
    ) -> Self {
        count_pushed(&checkpoints, &intake);
        let configuration = fingerprint(&settings);
        let mut of_files = Vec::new();
        let mut of_containers = Vec::new();
        let mut others = Others::default();
        for input in settings.inputs {
            let cutter = || Cutter::new(checkpoints.clone(), intake.clone(), configuration);
            let Some(input) = others.start(input, cutter, registry, &shutdown) else { continue };
            match &input.kind {
                InputKind::Files(files) => {
                    let files = files.clone();
                    of_files.push((input, files));
                }
                // Files that the catalogue tells of.
                InputKind::Containers(containers) => {
                    of_containers.push((of_files.len(), input.clone(), containers.clone()));
                    of_files.push((input, file::Settings::default()));
                }
                _ => {}
            }
        }
        let files = (!of_files.is_empty()).then(|| {
            let start = file::Parts {
                inputs: of_files,
                checkpoints: checkpoints.clone(),
                intake: intake.clone(),
                configuration,
                registry: registry.clone(),
                shutdown: shutdown.clone(),
                remade: noted,
            };
            Files::start(start)
        });
        if let (Some(files), Some(catalogue)) = (&files, catalogue) {
            for (nth, input, containers) in of_containers {
                others.follow_containers(
                    &input,
                    containers,
                    files.feed(nth),
                    catalogue.clone(),
                    shutdown.clone(),
                );
            }
        }
        Self { checkpoints, files, others }
    }

    /// A block is safe: delivery calls this in the order in which it becomes so.
    pub fn safe(&self, seq: BatchSeq, logs: &Logs) {
        self.checkpoints.safe(seq, logs);
    }

    /// The newest batch that was told safe.
    pub fn settled_up_to(&self) -> BatchSeq {
        self.checkpoints.settled_up_to()
    }

    /// What waits unread in files.
    pub fn behind(&self) -> file::Behind {
        self.files.as_ref().map(Files::behind).unwrap_or_default()
    }

    /// How it fares. Waits for the thread of files, some milliseconds.
    pub fn status(&self) -> Status {
        Status {
            checkpoints_trouble: self.checkpoints.trouble(),
            files: self.files.as_ref().map(Files::status).unwrap_or_default(),
            others: self.others.status(),
        }
    }

    /// Waits for the end of all inputs, after the shutdown was said. What they had shaped was handed over.
    pub async fn stopped(&self) {
        if let Some(files) = &self.files {
            files.stopped().await;
        }
        self.others.stopped().await;
        let checkpoints = self.checkpoints.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || checkpoints.sync()).await {
            tracing::warn!(%error, "checkpoints are not on the disk: a power cut now would repeat lines");
        }
    }
}

/// What was pushed and was in memory only at the kill can't be had again.
fn count_pushed(checkpoints: &Arc<Checkpoints>, intake: &LogIntake) {
    for origin in checkpoints.outstanding() {
        if origin.ranges.iter().all(|range| range.source == 0) {
            intake.lost_in_crash(origin.pushed_entries());
            checkpoints.withdraw(origin.intent);
        }
    }
}

/// What entries depend on beside their bytes. Only equality matters, from one start of a build to the next.
fn fingerprint(settings: &Settings) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    for input in &settings.inputs {
        (&input.name, &input.labels).hash(&mut hasher);
        format!("{:?}", input.shape).hash(&mut hasher);
        if let InputKind::Files(files) = &input.kind {
            files.labels_from_path.iter().for_each(|capture| capture.text().hash(&mut hasher));
        }
    }
    hasher.finish()
}
