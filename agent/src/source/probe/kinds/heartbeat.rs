//! Checks of what has to call in: a job is down when it is overdue or said that it failed. See
//! [`heartbeats`](crate::source::probe::heartbeats) for how it calls.

use crate::source::probe::heartbeats::Heard;
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::record::Gauge;
use crate::source::probe::run::{Probe, Run, Running};
use std::time::Duration;

/// The longest name of a job.
const MAX_NAME_BYTES: usize = 64;

static LAST: Gauge = Gauge::new(
    "pegel_probe_heartbeat_last_timestamp_seconds",
    "When the job last said that it ended, in seconds since the Unix epoch; 0 if it never did.",
    &[],
);
static DUE: Gauge = Gauge::new(
    "pegel_probe_heartbeat_due_timestamp_seconds",
    "By when it must say so again, in seconds since the Unix epoch.",
    &[],
);
static TOOK: Gauge = Gauge::new(
    "pegel_probe_heartbeat_duration_seconds",
    "How long the job's last run took, if it said when it began.",
    &[],
);
static EXIT_CODE: Gauge =
    Gauge::new("pegel_probe_heartbeat_exit_code", "How the job's last run ended: 0 for success.", &[]);

/// When a job has to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// At least this often.
    pub every: Duration,
    /// How late it may be.
    pub grace: Duration,
}

/// Says why an address is no target: names of jobs stand in the paths of calls.
pub fn check_address(address: &str) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if address.is_empty() || address.len() > MAX_NAME_BYTES || !address.bytes().all(good) {
        return Err(format!(
            "it is no name of a job: up to {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`"
        ));
    }
    Ok(())
}

/// The probe.
#[derive(Debug)]
pub struct HeartbeatProbe {
    settings: Settings,
}

impl HeartbeatProbe {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    fn judge(&self, run: &mut Run) -> Result<(), Failure> {
        run.enter(Phase::Assertion);
        let job = run.target.address.clone();
        let now_ms = run.now_ms;
        run.heartbeats.expect(&job, now_ms);
        let heard = run.heartbeats.heard(&job).unwrap_or_default();
        let seconds = |ms: i64| ms as f64 / 1_000.0;
        let due_ms = self.due_ms(&heard);
        run.record.set(&LAST, heard.ended_ms.map_or(0.0, seconds));
        run.record.set(&DUE, seconds(due_ms));
        run.record.set(&EXIT_CODE, heard.exit_code as f64);
        if let Some(took) = heard.took_ms {
            run.record.set(&TOOK, seconds(took));
        }
        if heard.exit_code != 0 {
            let words = format!("its last run ended with exit code {}", heard.exit_code);
            return Err(Failure::assertion(Reason::ExitCode, words));
        }
        if now_ms <= due_ms {
            return Ok(());
        }
        let late = Duration::from_millis((now_ms - due_ms) as u64);
        let last = match (heard.ended_ms, heard.started_ms) {
            (_, Some(_)) => "it said that it begins, and not that it ended",
            (Some(_), None) => "it called the last time before that",
            (None, None) => "it never called",
        };
        Err(Failure::assertion(Reason::Missed, format!("overdue by {} s: {last}", late.as_secs())))
    }

    /// The instant after which it is overdue.
    fn due_ms(&self, heard: &Heard) -> i64 {
        let from = heard.ended_ms.unwrap_or(heard.expected_since_ms);
        from.saturating_add((self.settings.every + self.settings.grace).as_millis() as i64)
    }
}

impl Probe for HeartbeatProbe {
    fn attempt<'a>(&'a self, run: &'a mut Run) -> Running<'a> {
        Box::pin(async move { self.judge(run) })
    }
}
