//! The inputs that are no files: each runs by itself.

use super::containers;
use super::cutter::Cutter;
use super::file;
use super::journal;
use super::pipe;
use super::settings::{Input, InputKind};
use super::shape::{self, Shaper};
use super::syslog;
use super::syslog::input::Syslog;
use crate::source::container::Catalogue;
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
    containers: Vec<Arc<Mutex<containers::Status>>>,
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
    /// Inputs of containers.
    pub containers: Vec<containers::Status>,
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

    /// Has the thread of files read those of containers. Must be called within a tokio runtime.
    pub(super) fn follow_containers(
        &mut self,
        input: &Input,
        settings: containers::Settings,
        feed: file::Feed,
        catalogue: Arc<Catalogue>,
        shutdown: CancellationToken,
    ) {
        let mut labels = input.labels.clone();
        labels.entry("job".to_owned()).or_insert_with(|| input.name.clone());
        let status = Arc::new(Mutex::new(containers::Status {
            input: input.name.clone(),
            ..containers::Status::default()
        }));
        self.containers.push(status.clone());
        let feed = ContainerFiles { feed, shape: input.shape.clone() };
        tokio::spawn(containers::run(settings, labels, catalogue, feed, status, shutdown));
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
            containers: self.containers.iter().map(|status| status.lock().clone()).collect(),
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

/// Tells the thread of files of containers' files.
struct ContainerFiles {
    feed: file::Feed,
    shape: shape::Settings,
}

/// A container's file and what is made of it.
fn file_of(followed: containers::Followed, shape: &shape::Settings) -> file::Followed {
    let note = followed.to_note();
    let container = match followed.format {
        containers::Format::Docker => shape::Container::Docker,
        containers::Format::Cri => shape::Container::Cri,
    };
    let mut shape = shape::Settings { container: Some(container), ..shape.clone() };
    if let Some(name) = &followed.multiline {
        match trace(name) {
            Some(trace) => {
                shape.multiline =
                    Some(shape::Multiline { traces: vec![trace], ..shape::Multiline::default() });
            }
            None => tracing::warn!(
                container = followed.key,
                preset = name,
                "the label pegel.logs.multiline is no preset; write java, python, go, node, dotnet or indented"
            ),
        }
    }
    file::Followed {
        key: followed.key,
        path: followed.path,
        labels: followed.labels,
        shape: Some(shape),
        note,
    }
}

/// A container's file as it was noted before a restart.
pub(super) fn noted(note: &[u8], shape: &shape::Settings) -> Option<file::Followed> {
    Some(file_of(containers::Followed::from_note(note)?, shape))
}

impl containers::Feed for ContainerFiles {
    fn follow(&mut self, followed: containers::Followed) {
        self.feed.follow(file_of(followed, &self.shape));
    }

    fn gone(&mut self, key: &str) {
        self.feed.gone(key);
    }

    fn complete(&mut self) {
        self.feed.complete();
    }
}

/// The preset of a container's label.
fn trace(name: &str) -> Option<shape::Trace> {
    Some(match name {
        "java" => shape::Trace::Java,
        "python" => shape::Trace::Python,
        "go" => shape::Trace::Go,
        "node" => shape::Trace::Node,
        "dotnet" => shape::Trace::Dotnet,
        "indented" => shape::Trace::Indented,
        _ => return None,
    })
}
