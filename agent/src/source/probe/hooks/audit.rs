//! What hooks did and did not do: a line in the log for each, a counter, and the last of them in the status.

use super::settings::{Event, Hook};
use crate::source::probe::status::{Latest, StateChange};
use pegel_runtime::metrics::Registry;
use pegel_runtime::telemetry::AUDIT;
use std::sync::Arc;
use std::time::Duration;

/// What became of a hook's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done, and the program or the server is content.
    Ok,
    /// The program ended with something else than 0, or the server answered with something else than 2xx.
    Failed,
    /// It took too long and was ended.
    Timeout,
    /// The program could not be started, or the server could not be asked.
    NotDone,
    /// It would have been done.
    DryRun,
    /// It was done too often already.
    RateLimited,
    /// Too many wait already.
    Overloaded,
    /// It waited for so long that it might do harm.
    Expired,
    /// The agent ended meanwhile.
    Aborted,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Failed,
        Self::Timeout,
        Self::NotDone,
        Self::DryRun,
        Self::RateLimited,
        Self::Overloaded,
        Self::Expired,
        Self::Aborted,
    ];

    /// The label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::NotDone => "not_done",
            Self::DryRun => "dry_run",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Expired => "expired",
            Self::Aborted => "aborted",
        }
    }
}

/// What came of an action.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// What became of it.
    pub outcome: Outcome,
    /// The exit code, or the answer's status.
    pub code: Option<i32>,
    /// Why, in words that hold no secret.
    pub detail: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Done {
    /// Something that was not begun.
    pub fn without_run(outcome: Outcome) -> Self {
        Self { outcome, code: None, detail: None, took: Duration::ZERO }
    }
}

/// A run of a hook, for the status API.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct HookRun {
    /// When it was told, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The hook's name.
    pub hook: String,
    /// The check's name.
    pub check: String,
    /// What is checked.
    pub target: String,
    /// `down` or `up`.
    pub event: &'static str,
    /// When the state changed, in milliseconds since the Unix epoch.
    pub changed_ms: i64,
    /// The program, or the request without its path.
    pub action: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The exit code, or the answer's status.
    pub code: Option<i32>,
    /// Why, in words.
    pub detail: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Where it is told.
#[derive(Clone)]
pub(super) struct Audit {
    pub(super) registry: Registry,
    pub(super) runs: Arc<Latest<HookRun>>,
    pub(super) clock: crate::source::clock::SampleClock,
}

const RUNS: &str = "pegel_hook_runs_total";
const RUNS_HELP: &str = "What hooks did, and what they did not do, by hook and outcome.";

impl Audit {
    /// Has a hook's counters, all at zero.
    pub(super) fn begin(&self, hook: &str) {
        for outcome in Outcome::ALL {
            self.registry.counter(RUNS, RUNS_HELP, &[("hook", hook), ("outcome", outcome.name())]);
        }
    }

    /// Takes the counters of a hook away that there is no more.
    pub(super) fn end(&self, hook: &str) {
        for outcome in Outcome::ALL {
            self.registry.remove(RUNS, &[("hook", hook), ("outcome", outcome.name())]);
        }
    }

    /// Tells of a run.
    pub(super) fn tell(&self, hook: &Hook, event: Event, change: &StateChange, done: Done) {
        let Done { outcome, code, detail, took } = done;
        self.registry.counter(RUNS, RUNS_HELP, &[("hook", &hook.name), ("outcome", outcome.name())]).inc();
        let run = HookRun {
            at_ms: self.clock.now_ms(),
            hook: hook.name.clone(),
            check: change.target.check.name.clone(),
            target: change.target.address.clone(),
            event: event.name(),
            changed_ms: change.at_ms,
            action: hook.action.shown(),
            outcome,
            code,
            detail,
            seconds: took.as_secs_f64(),
        };
        let HookRun { hook, check, target, event, action, code, detail, seconds, .. } = &run;
        let (name, code) = (outcome.name(), code.map(tracing::field::display));
        let detail = detail.as_ref().map(tracing::field::display);
        if matches!(outcome, Outcome::Ok | Outcome::DryRun) {
            tracing::info!(
                target: AUDIT, %hook, %check, %target, event, %action, outcome = name, code, detail, seconds,
                "a hook ran"
            );
        } else {
            tracing::warn!(
                target: AUDIT, %hook, %check, %target, event, %action, outcome = name, code, detail, seconds,
                "a hook did not succeed"
            );
        }
        self.runs.push(run);
    }
}
