//! Discovery: asks the container runtimes of this node who is there and keeps the [`Catalogue`].
//!
//! Docker and Podman are asked through their API on a unix socket (`engine/`), containerd and CRI-O through the CRI
//! (`cri/`). Every socket has a task of its own (`watch`), which begins a session, and another after a pause when
//! that ends: a runtime that is away, hangs, talks nonsense or floods us with events costs neither another runtime
//! its time nor the agent its memory. A session subscribes to the runtime's events and lists what runs; an event
//! makes it ask about one container. What was seen goes to the one `roster`, which compares, tells and forgets.
//!
//! Nothing is ever started, stopped or pulled. Of what a runtime answers only the facts of [`Container`] are kept;
//! environment variables, which hold secrets, only those that the configuration lists.
//!
//! [`Container`]: super::Container

mod allowance;
mod cri;
mod engine;
mod facts;
mod inquiries;
mod roster;
mod sockets;
mod trouble;
mod watch;

pub use sockets::{Socket, Sockets};

use super::Catalogue;
use parking_lot::Mutex;
use pegel_runtime::metrics::Registry;
use roster::{Owner, Roster};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use watch::Watch;

/// What discovery is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Which sockets.
    pub sockets: Sockets,
    /// The environment variables that may be read.
    pub env: Box<[Box<str>]>,
    /// How often the sizes of writable layers are asked for; none for never.
    pub writable_size_interval: Option<Duration>,
    /// procfs, to see what ended while its runtime is away.
    pub procfs: PathBuf,
    /// Time limits and rhythms.
    pub pace: Pace,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sockets: Sockets::WellKnown { root: "/".into() },
            env: Box::default(),
            writable_size_interval: None,
            procfs: "/proc".into(),
            pace: Pace::default(),
        }
    }
}

/// Time limits and rhythms. The defaults are for production; tests wait for less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How long an answer may take. A busy engine needs a second or two for a list of 200.
    pub call: Duration,
    /// How often a quiet runtime is asked whether it is still there: a hang shows this long plus `call` later.
    pub ping_every: Duration,
    /// How often everything is listed although events are heard: what was missed for whatever reason.
    pub relist_every: Duration,
    /// How often everything is listed where a runtime has no events, as the kubelet does it (its PLEG).
    pub poll_every: Duration,
    /// The first pause after a session ended; it doubles from try to try.
    pub first_pause: Duration,
    /// The longest pause: a runtime that is back is found within it.
    pub longest_pause: Duration,
    /// How often sockets are looked for.
    pub look_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(10),
            ping_every: Duration::from_secs(10),
            relist_every: Duration::from_mins(5),
            poll_every: Duration::from_secs(1),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(15),
            look_every: Duration::from_secs(10),
        }
    }
}

/// Where a session with a runtime stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeState {
    /// Being asked for the first time.
    Connecting,
    /// Its containers are known and its events are heard.
    Watching,
    /// It does not answer as it should; it is tried again.
    Away,
    /// A containerd without the CRI; there is nothing to ask.
    Unused,
}

/// What is known of a runtime, for the status.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuntimeStatus {
    /// `docker`, `podman`, `containerd` or `cri-o`, by its own words once it answered.
    pub kind: &'static str,
    /// Its socket.
    pub socket: PathBuf,
    /// Where we stand.
    pub state: RuntimeState,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Why the last session ended, or what was left out of this one.
    pub last_error: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// How many running containers it has.
    pub containers: usize,
}

/// The running discovery. Dropping it ends it.
#[derive(Debug)]
pub struct Discovery {
    board: Arc<Mutex<Board>>,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
    _ends_with_this: tokio_util::sync::DropGuard,
}

/// Who is watched.
#[derive(Debug, Default)]
struct Board {
    watches: BTreeMap<Owner, Arc<Watch>>,
}

impl Discovery {
    /// Begins to look for runtimes and to fill the catalogue, until `shutdown`.
    pub fn start(
        settings: Settings,
        catalogue: Arc<Catalogue>,
        registry: &Registry,
        shutdown: &CancellationToken,
    ) -> Self {
        let shutdown = shutdown.child_token();
        let board = Arc::new(Mutex::new(Board::default()));
        let run = Run {
            roster: Arc::new(Mutex::new(Roster::new(catalogue))),
            settings: Arc::new(settings),
            registry: registry.clone(),
            board: board.clone(),
            next_owner: 0,
            shutdown: shutdown.clone(),
        };
        let task = Mutex::new(Some(tokio::spawn(run.until_shutdown())));
        Self { board, task, _ends_with_this: shutdown.drop_guard() }
    }

    /// The runtimes, in the order in which they were found.
    pub fn status(&self) -> Vec<RuntimeStatus> {
        let watches: Vec<_> = self.board.lock().watches.values().cloned().collect();
        watches.iter().map(|watch| watch.status()).collect()
    }

    /// Waits until each runtime that is here was asked, its containers known or the reason why not; but no longer
    /// than this.
    pub async fn settled(&self, within: Duration) {
        let settled = async {
            let mut looks = tokio::time::interval(Duration::from_millis(20));
            // The first look for sockets is at once.
            looks.tick().await;
            loop {
                looks.tick().await;
                if self.status().iter().all(|status| status.state != RuntimeState::Connecting) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(within, settled).await;
    }

    /// Waits until it ended, after `shutdown`.
    pub async fn stopped(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

struct Run {
    roster: Arc<Mutex<Roster>>,
    settings: Arc<Settings>,
    registry: Registry,
    board: Arc<Mutex<Board>>,
    next_owner: u32,
    shutdown: CancellationToken,
}

impl Run {
    async fn until_shutdown(mut self) {
        let mut sessions: JoinSet<Owner> = JoinSet::new();
        let mut looks = tokio::time::interval(self.settings.pace.look_every);
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                _ = looks.tick() => self.look(&mut sessions),
                _ = ticks.tick() => self.roster.lock().expire(Instant::now()),
                Some(Ok(owner)) = sessions.join_next(), if !sessions.is_empty() => {
                    if let Some(watch) = self.board.lock().watches.remove(&owner) {
                        watch.retract();
                    }
                }
            }
        }
        sessions.shutdown().await;
    }

    /// Watches the sockets that are there and not watched yet.
    fn look(&mut self, sessions: &mut JoinSet<Owner>) {
        for socket in self.settings.sockets.present() {
            let watched = self.board.lock().watches.values().any(|watch| watch.is_for(&socket));
            if watched {
                continue;
            }
            let owner = Owner(self.next_owner);
            self.next_owner += 1;
            let watch = Watch::new(socket, owner, self.roster.clone(), self.settings.clone(), &self.registry);
            let watch = Arc::new(watch);
            self.board.lock().watches.insert(owner, watch.clone());
            sessions.spawn(async move {
                watch.run().await;
                owner
            });
        }
    }
}

/// Milliseconds since the Unix epoch: for people to read, and for an engine's `since`.
fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests;
