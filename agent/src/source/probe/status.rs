//! What is known of each checked target, and the changes of its state.

use super::outcome::Failure;
use super::state::State;
use super::target::Target;
use parking_lot::Mutex;
use pegel_proto::metrics::Labels;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The state of one target of a check, for the status API.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CheckStatus {
    /// The check's name.
    pub name: String,
    /// Its kind: `http`, `tcp` and so on.
    pub kind: &'static str,
    /// What is checked.
    pub target: String,
    /// Its `job` label.
    pub job: String,
    /// Its `instance` label.
    pub instance: String,
    /// What it is taken for.
    pub state: State,
    /// Since when, in milliseconds since the Unix epoch; none before the first run.
    pub since_ms: Option<i64>,
    /// Whether the last run succeeded; none before the first.
    pub last_success: Option<bool>,
    /// Why the last run that failed did, in words. It stays until a run succeeds.
    pub last_error: Option<String>,
    /// How far that run came, as in `pegel_probe_failure`.
    pub phase: Option<&'static str>,
    /// Its reason, as in `pegel_probe_failure`.
    pub reason: Option<&'static str>,
    /// The sample time of the last run, in milliseconds since the Unix epoch.
    pub last_run_ms: Option<i64>,
    /// How long it took, in seconds.
    pub last_duration_seconds: f64,
}

impl CheckStatus {
    pub(super) fn before_first(target: &Target) -> Self {
        let label = |name| target.labels.value(name).unwrap_or_default().to_owned();
        Self {
            name: target.check.name.clone(),
            kind: target.check.kind.name(),
            target: target.address.clone(),
            job: label("job"),
            instance: label("instance"),
            state: State::Pending,
            since_ms: None,
            last_success: None,
            last_error: None,
            phase: None,
            reason: None,
            last_run_ms: None,
            last_duration_seconds: 0.0,
        }
    }

    pub(super) fn after(
        target: &Target,
        state: State,
        since_ms: i64,
        failure: Option<&Failure>,
        at_ms: i64,
        took: Duration,
    ) -> Self {
        Self {
            state,
            since_ms: Some(since_ms),
            last_success: Some(failure.is_none()),
            last_error: failure.map(|f| f.words.clone()),
            phase: failure.map(|f| f.phase.name()),
            reason: failure.map(|f| f.reason.name()),
            last_run_ms: Some(at_ms),
            last_duration_seconds: took.as_secs_f64(),
            ..Self::before_first(target)
        }
    }
}

/// A target of a check is taken for something else than before. Told on a broadcast channel
/// ([`ProbeSource::changes`](super::ProbeSource::changes)); nobody has to listen.
#[derive(Debug, Clone, PartialEq)]
pub struct StateChange {
    /// The target with its check.
    pub target: Arc<Target>,
    /// What it was taken for.
    pub from: State,
    /// What it is taken for now.
    pub to: State,
    /// Whether it was up when it last was up or down, maintenance left out; none if it never was either.
    pub was_up: Option<bool>,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Since when it was in the state before.
    pub was_since_ms: i64,
    /// Why the run that brought the change failed, if it did.
    pub failure: Option<Failure>,
}

impl StateChange {
    /// The labels of the target's series, the agent's external labels among them.
    pub fn labels(&self) -> &Arc<Labels> {
        &self.target.shared
    }
}

/// How many changes of state and runs of hooks are kept for the status.
pub const TOLD_KEPT: usize = 200;

/// A change of state, for the status API.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ToldChange {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The check's name.
    pub check: String,
    /// Its kind.
    pub kind: &'static str,
    /// What is checked.
    pub target: String,
    /// What it was taken for.
    pub from: State,
    /// What it is taken for now.
    pub to: State,
    /// Since when it was in the state before, in milliseconds since the Unix epoch.
    pub was_since_ms: i64,
    /// How far the run came that brought the change, if it failed.
    pub phase: Option<&'static str>,
    /// Why it failed.
    pub reason: Option<&'static str>,
    /// The same in words.
    pub error: Option<String>,
}

impl From<&StateChange> for ToldChange {
    fn from(change: &StateChange) -> Self {
        let failure = change.failure.as_ref();
        Self {
            at_ms: change.at_ms,
            check: change.target.check.name.clone(),
            kind: change.target.check.kind.name(),
            target: change.target.address.clone(),
            from: change.from,
            to: change.to,
            was_since_ms: change.was_since_ms,
            phase: failure.map(|f| f.phase.name()),
            reason: failure.map(|f| f.reason.name()),
            error: failure.map(|f| f.words.clone()),
        }
    }
}

/// The last things of a kind that were told, oldest first.
#[derive(Debug)]
pub struct Latest<T>(Mutex<VecDeque<T>>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Latest<T> {
    /// Adds one, and forgets the oldest beyond [`TOLD_KEPT`].
    pub fn push(&self, told: T) {
        let mut all = self.0.lock();
        if all.len() == TOLD_KEPT {
            all.pop_front();
        }
        all.push_back(told);
    }

    /// All that are kept.
    pub fn all(&self) -> Vec<T> {
        self.0.lock().iter().cloned().collect()
    }
}

/// An instant as people write it, in UTC.
pub(super) fn written(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| format!("{at_ms} ms"), |at| at.to_string())
}
