//! Log files: found by patterns, followed across rotation, each generation read once to its end.

mod pattern;
mod settings;
mod thin;

pub use pattern::{Pattern, PatternError};
pub use settings::{Settings, Start};

use super::checkpoints::Checkpoints;
use super::settings::Input;
use crate::intake::LogIntake;
use parking_lot::Mutex;
use pegel_runtime::metrics::Registry;
use serde::Serialize;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How files fare.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// How many files are known.
    pub known: usize,
    /// Those with most that is unread, and those that are open.
    pub files: Vec<FileStatus>,
}

/// How one file fares.
#[derive(Debug, Clone, Serialize)]
pub struct FileStatus {
    /// The input's name.
    pub input: String,
    /// Where it was first seen.
    pub path: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// How many of them were read.
    pub offset: u64,
    /// How many wait.
    pub lag_bytes: u64,
    /// For how long the oldest of them have.
    pub lag_seconds: f64,
    /// What is done with it.
    pub state: &'static str,
}

/// What the thread works with.
pub(super) struct Parts {
    pub(super) inputs: Vec<(Input, Settings)>,
    pub(super) checkpoints: Arc<Checkpoints>,
    pub(super) intake: LogIntake,
    pub(super) configuration: u64,
    pub(super) registry: Registry,
    pub(super) shutdown: CancellationToken,
}

/// The thread of files.
pub(super) struct Files {
    status: Arc<Mutex<Status>>,
    ended: CancellationToken,
}

impl Files {
    pub(super) fn start(parts: Parts) -> Self {
        let status = Arc::new(Mutex::new(Status::default()));
        let ended = CancellationToken::new();
        let (shared, guard) = (status.clone(), ended.clone().drop_guard());
        let thread = std::thread::Builder::new().name("logs".to_owned()).spawn(move || {
            let _ended = guard;
            thin::run(parts, &shared);
        });
        if let Err(error) = thread {
            tracing::error!(%error, "cannot start the thread of log files: no file is read; restart the agent");
        }
        Self { status, ended }
    }

    pub(super) fn status(&self) -> Status {
        self.status.lock().clone()
    }

    pub(super) async fn stopped(&self) {
        self.ended.cancelled().await;
    }
}
