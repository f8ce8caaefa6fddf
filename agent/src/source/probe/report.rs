//! The series that every check has, whatever its kind.

use super::outcome::Failure;
use super::record::{Gauge, Record};
use super::state::Tracker;
use std::time::Duration;

static SUCCESS: Gauge = Gauge::new("probe_success", "Whether the run succeeded.", &[]);
static DURATION: Gauge = Gauge::new("probe_duration_seconds", "How long the run took.", &[]);
static TIMEOUT: Gauge = Gauge::new("probe_timeout_seconds", "How long a run may take.", &[]);
static UP: Gauge = Gauge::new(
    "pegel_probe_up",
    "Whether the check counts as up: down after so many failures in a row, up after so many successes.",
    &["kind"],
);
static SINCE: Gauge = Gauge::new(
    "pegel_probe_state_since_timestamp_seconds",
    "Since when the check is in its state (pending, up, down, maintenance).",
    &[],
);
static MAINTENANCE: Gauge =
    Gauge::new("pegel_probe_maintenance", "Whether the check is in a maintenance window.", &[]);
static LAG: Gauge = Gauge::new(
    "pegel_probe_schedule_lag_seconds",
    "How long after its instant the run began; waiting for other runs included.",
    &[],
);
static FAILURE: Gauge =
    Gauge::new("pegel_probe_failure", "Where and why the run failed, always 1.", &["phase", "reason"]);

/// What is known of a run when it has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report<'a> {
    pub(super) kind: &'static str,
    pub(super) failure: Option<&'a Failure>,
    pub(super) took: Duration,
    pub(super) limit: Duration,
    pub(super) lag: Duration,
    pub(super) tracker: &'a Tracker,
    pub(super) in_maintenance: bool,
}

impl Report<'_> {
    /// Adds it to what the probe measured. The failure, which comes and goes, is last.
    pub(super) fn add_to(self, record: &mut Record) {
        let flag = |yes| f64::from(u8::from(yes));
        record.set(&SUCCESS, flag(self.failure.is_none()));
        record.set(&DURATION, self.took.as_secs_f64());
        record.set(&TIMEOUT, self.limit.as_secs_f64());
        record.set(&MAINTENANCE, flag(self.in_maintenance));
        record.set(&LAG, self.lag.as_secs_f64());
        record.set(&SINCE, self.tracker.since_ms() as f64 / 1_000.0);
        if let Some(up) = self.tracker.up() {
            record.set_label(&UP, self.kind, flag(up));
        }
        if let Some(failure) = self.failure {
            let labels = [failure.phase.name().into(), failure.reason.name().into()];
            record.set_labels(&FAILURE, labels, 1.0);
        }
    }
}
