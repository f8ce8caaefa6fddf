//! pegel's own metrics about checks.

use pegel_runtime::metrics::{Counter, Gauge, Histogram, Registry};

/// From what timers are late by to an interval.
const LAG_BOUNDS: &[f64] = &[0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

#[derive(Debug)]
pub(super) struct ProbeMetrics {
    pub(super) targets: Gauge,
    pub(super) running: Gauge,
    pub(super) succeeded: Counter,
    pub(super) failed: Counter,
    pub(super) retried: Counter,
    pub(super) skipped: Counter,
    pub(super) waited: Counter,
    pub(super) lag: Histogram,
}

impl ProbeMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let runs = |result| {
            registry.counter("pegel_probe_runs_total", "Runs of checks, by result.", &[("result", result)])
        };
        Self {
            targets: registry.gauge("pegel_probe_targets", "Targets that are checked.", &[]),
            running: registry.gauge("pegel_probe_running", "Runs of checks that go on.", &[]),
            succeeded: runs("success"),
            failed: runs("failure"),
            retried: registry.counter(
                "pegel_probe_retries_total",
                "Attempts that runs of checks made after one that failed.",
                &[],
            ),
            skipped: registry.counter(
                "pegel_probe_skipped_total",
                "Runs of checks that were due while the one before still ran.",
                &[],
            ),
            waited: registry.counter(
                "pegel_probe_waited_total",
                "Runs of checks that had to wait because as many ran as are allowed (probes.max_running).",
                &[],
            ),
            lag: registry.histogram(
                "pegel_probe_lag_seconds",
                "How long after its instant a run of a check began.",
                &[],
                LAG_BOUNDS,
            ),
        }
    }
}
