//! The inputs that are no files: each runs by itself.

use super::cutter::Cutter;
use super::journal;
use super::pipe;
use super::settings::{Input, InputKind};
use super::shape::Shaper;
use super::syslog;
use super::syslog::input::Syslog;
use parking_lot::Mutex;
use pegel_runtime::metrics::Registry;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Those that run.
#[derive(Default)]
pub(super) struct Others {
    journals: Vec<Arc<Mutex<journal::Status>>>,
    pipes: Vec<Arc<Mutex<pipe::Status>>>,
    syslogs: Vec<Syslog>,
    threads: Vec<CancellationToken>,
}

/// How they fare.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OtherStatus {
    /// Inputs of the journal.
    pub journals: Vec<journal::Status>,
    /// Inputs of syslog.
    pub syslogs: Vec<syslog::Status>,
    /// Pipes.
    pub pipes: Vec<pipe::Status>,
}

impl Others {
    /// Starts an input; gives it back if it is none of these.
    pub(super) fn start(
        &mut self,
        input: Input,
        cutter: impl FnOnce() -> Cutter,
        registry: &Registry,
        shutdown: &CancellationToken,
    ) -> Option<Input> {
        let mut labels: BTreeMap<String, String> = input.labels.clone();
        labels.entry("job".to_owned()).or_insert_with(|| input.name.clone());
        let shaper = || Shaper::counted(&input.shape, &input.name, registry);
        match &input.kind {
            InputKind::Journal(settings) => {
                let status = Arc::default();
                let parts = journal::input::Parts {
                    name: input.name.clone(),
                    fields: journal::Fields::new(settings, &labels),
                    settings: settings.clone(),
                    shaper: shaper(),
                    cutter: cutter(),
                    registry: registry.clone(),
                    shutdown: shutdown.clone(),
                    status: Arc::clone(&status),
                };
                self.journals.push(status);
                self.thread("journal", move || journal::input::run(parts));
            }
            InputKind::Pipe(settings) => {
                let status = Arc::default();
                let parts = pipe::Parts {
                    name: input.name.clone(),
                    settings: settings.clone(),
                    labels: labels.into_iter().collect(),
                    flush_after: input.shape.flush_after(),
                    shaper: shaper(),
                    cutter: cutter(),
                    registry: registry.clone(),
                    shutdown: shutdown.clone(),
                    status: Arc::clone(&status),
                };
                self.pipes.push(status);
                self.thread("pipe", move || pipe::run(parts));
            }
            InputKind::Syslog(settings) => self.syslogs.push(Syslog::start(syslog::input::Parts {
                name: input.name.clone(),
                settings: settings.clone(),
                labels,
                shaper: shaper(),
                cutter: cutter(),
                registry: registry.clone(),
                shutdown: shutdown.clone(),
            })),
            _ => return Some(input),
        }
        None
    }

    fn thread(&mut self, name: &str, run: impl FnOnce() + Send + 'static) {
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ended = guard;
            run();
        });
        match started {
            Ok(_) => self.threads.push(ended),
            Err(error) => {
                tracing::error!(input = name, %error, "cannot start a thread: the input is not read; restart the agent");
            }
        }
    }

    pub(super) fn status(&self) -> OtherStatus {
        OtherStatus {
            journals: self.journals.iter().map(|status| status.lock().clone()).collect(),
            syslogs: self.syslogs.iter().map(Syslog::status).collect(),
            pipes: self.pipes.iter().map(|status| status.lock().clone()).collect(),
        }
    }

    pub(super) async fn stopped(&self) {
        for syslog in &self.syslogs {
            syslog.stopped().await;
        }
        for thread in &self.threads {
            thread.cancelled().await;
        }
    }
}
