//! What is known of each checked target, and the changes of its state.

use super::outcome::Failure;
use super::state::State;
use super::target::Target;
use pegel_proto::metrics::Labels;
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
