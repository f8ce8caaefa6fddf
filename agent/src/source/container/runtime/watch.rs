//! One socket: sessions with whatever listens there, one after another, and what is said of them.

use super::super::{ContainerId, RuntimeKind};
use super::roster::{MAX_CONTAINERS, Owner, Roster, Sighting};
use super::trouble::Trouble;
use super::{RuntimeState, RuntimeStatus, Settings, Socket, Sockets, cri, engine, wall_ms};
use parking_lot::{Mutex, MutexGuard};
use pegel_runtime::metrics::{Counter, Registry};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// See the module.
pub(super) struct Watch {
    socket: Socket,
    owner: Owner,
    roster: Arc<Mutex<Roster>>,
    settings: Arc<Settings>,
    board: Mutex<Standing>,
    registry: Registry,
    socket_label: String,
    events: Counter,
    relists: Counter,
}

#[derive(Debug)]
struct Standing {
    kind: RuntimeKind,
    state: RuntimeState,
    since_ms: i64,
    last_error: Option<String>,
    /// What this session goes on without.
    left_out: Option<String>,
    version: Option<String>,
    /// The trouble that was told last, until the runtime answers again.
    told: Option<Trouble>,
    /// Whether it was told that there is no room for all containers, and which could not be understood.
    told_full: bool,
    told_container: bool,
    /// How many sessions in a row did not get to watching.
    failures: u32,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("socket", &self.socket)
            .field("standing", &self.board)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Watches nothing yet.
    pub(super) fn new(
        socket: Socket,
        owner: Owner,
        roster: Arc<Mutex<Roster>>,
        settings: Arc<Settings>,
        registry: &Registry,
    ) -> Self {
        let standing = Standing {
            kind: socket.kind,
            state: RuntimeState::Connecting,
            since_ms: wall_ms(),
            last_error: None,
            left_out: None,
            version: None,
            told: None,
            told_full: false,
            told_container: false,
            failures: 0,
        };
        let socket_label = socket.path.display().to_string();
        let labels = [("socket", socket_label.as_str())];
        let events = registry.counter(EVENTS, "Events that a container runtime sent.", &labels);
        let relists =
            registry.counter(RELISTS, "Lists of all containers that a runtime was asked for.", &labels);
        registry.gauge(UP, UP_HELP, &labels).set(0.0);
        Self {
            socket,
            owner,
            roster,
            settings,
            board: Mutex::new(standing),
            registry: registry.clone(),
            socket_label,
            events,
            relists,
        }
    }

    /// Whether it is for this socket.
    pub(super) fn is_for(&self, socket: &Socket) -> bool {
        self.socket.path == socket.path
    }

    /// The socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket.path
    }

    /// What discovery was told.
    pub(super) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Whose reports these are.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// The roster.
    pub(super) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock()
    }

    /// What the runtime is, by its own words.
    pub(super) fn identified(&self, kind: RuntimeKind, version: Option<String>) {
        let mut standing = self.board.lock();
        standing.kind = kind;
        standing.version = version;
    }

    /// An event was read.
    pub(super) fn counted_event(&self) {
        self.events.inc();
    }

    /// A list is asked for.
    pub(super) fn counted_list(&self) {
        self.relists.inc();
    }

    /// Everything was listed and events are heard.
    pub(super) fn watching(&self) {
        if self.board.lock().state == RuntimeState::Watching {
            return;
        }
        let containers = self.roster().count(self.owner);
        let mut standing = self.board.lock();
        standing.failures = 0;
        standing.state = RuntimeState::Watching;
        standing.since_ms = wall_ms();
        standing.last_error = None;
        standing.told = None;
        let (runtime, version) = (standing.kind.name(), standing.version.as_deref().unwrap_or("unknown"));
        let socket = &self.socket_label;
        tracing::info!(runtime, socket, version, containers, "containers are known by their names");
        self.registry.gauge(UP, UP_HELP, &[("socket", socket)]).set(1.0);
    }

    /// Hands a sighting to the roster; says once if there is no room for it.
    pub(super) fn see(&self, sighting: Sighting) {
        let fits = self.roster().see(self.owner, sighting, Instant::now());
        let mut standing = self.board.lock();
        if !fits && !standing.told_full {
            standing.told_full = true;
            let words = format!("more than {MAX_CONTAINERS} containers: the others have ids for names");
            tracing::warn!(socket = self.socket_label, "{words}");
            standing.left_out = Some(words);
        }
    }

    /// Says once that a container can't be understood, and goes on without what it would have said.
    pub(super) fn not_understood(&self, id: &ContainerId, trouble: &Trouble) {
        let mut standing = self.board.lock();
        standing.left_out = Some(format!("container {id}: {trouble}"));
        if !standing.told_container {
            standing.told_container = true;
            tracing::warn!(
                socket = self.socket_label,
                container = %id,
                "only what a list says is known of this container, and of others like it: {trouble}"
            );
        }
    }

    /// For the status.
    pub(super) fn status(&self) -> RuntimeStatus {
        let status = {
            let standing = self.board.lock();
            RuntimeStatus {
                kind: standing.kind.name(),
                socket: self.socket.path.clone(),
                state: standing.state,
                since_ms: standing.since_ms,
                last_error: standing.left_out.clone().or_else(|| standing.last_error.clone()),
                version: standing.version.clone(),
                containers: 0,
            }
        };
        // Counted after the state was read: who is watched has its containers.
        RuntimeStatus { containers: self.roster().count(self.owner), ..status }
    }

    /// Sessions, until the socket is gone and none of its containers is left.
    pub(super) async fn run(&self) {
        loop {
            let trouble = match self.socket.kind {
                RuntimeKind::Docker | RuntimeKind::Podman => engine::session(self).await,
                RuntimeKind::Containerd | RuntimeKind::CriO => cri::session(self).await,
            };
            let pause = self.ended(&trouble);
            let gone =
                matches!(self.settings.sockets, Sockets::WellKnown { .. }) && !self.socket.path.exists();
            if gone && self.roster().count(self.owner) == 0 {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// A session ended so; says how long to wait for the next.
    fn ended(&self, trouble: &Trouble) -> Duration {
        {
            let mut roster = self.roster();
            roster.lose(self.owner);
            // Names of what still runs stay, and what ended meanwhile ends here too.
            let procfs = &self.settings.procfs;
            let lives = |pid: u32| std::fs::exists(procfs.join(pid.to_string())).unwrap_or(true);
            roster.sweep(self.owner, lives, Instant::now());
        }
        let socket = &self.socket_label;
        self.registry.gauge(UP, UP_HELP, &[("socket", socket)]).set(0.0);
        self.registry
            .counter(FAILURES, FAILURES_HELP, &[("socket", socket), ("reason", trouble.word())])
            .inc();
        let mut standing = self.board.lock();
        let state = if trouble.is_expected() { RuntimeState::Unused } else { RuntimeState::Away };
        if standing.state != state {
            standing.state = state;
            standing.since_ms = wall_ms();
        }
        standing.last_error = Some(trouble.to_string());
        standing.left_out = None;
        if !standing.told.as_ref().is_some_and(|told| told.same_as(trouble)) {
            let runtime = standing.kind.name();
            if trouble.is_expected() {
                tracing::info!(runtime, socket, "this runtime is not used: {trouble}");
            } else {
                tracing::warn!(
                    runtime,
                    socket,
                    "this container runtime is away; numbers of its containers go on, new ones have ids for names: \
                     {trouble}"
                );
            }
            standing.told = Some(trouble.clone());
        }
        standing.failures += 1;
        let pace = &self.settings.pace;
        if trouble.is_expected() {
            return pace.relist_every;
        }
        pace.first_pause.saturating_mul(1 << (standing.failures - 1).min(10)).min(pace.longest_pause)
    }

    /// Takes back what the registry shows of it.
    pub(super) fn retract(&self) {
        for name in [UP, EVENTS, RELISTS] {
            self.registry.remove(name, &[("socket", &self.socket_label)]);
        }
    }
}

const UP: &str = "pegel_runtime_up";
const UP_HELP: &str = "Whether a container runtime answers and its events are heard.";
const EVENTS: &str = "pegel_runtime_events_total";
const RELISTS: &str = "pegel_runtime_lists_total";
const FAILURES: &str = "pegel_runtime_failures_total";
const FAILURES_HELP: &str = "Sessions with a container runtime that ended, by reason.";
