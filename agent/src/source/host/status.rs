//! What the host source says of its collectors: on `/metrics` and in the agent's status.

use super::CollectorKind;
use parking_lot::Mutex;
use pegel_runtime::metrics::Registry;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How the collectors fare. Clones share what they say.
#[derive(Debug, Clone)]
pub struct HostStatus(Arc<Mutex<Vec<CollectorStatus>>>);

/// How one collector fares.
#[derive(Debug, Clone)]
pub(super) struct CollectorStatus {
    pub(super) kind: CollectorKind,
    pub(super) interval: Duration,
    pub(super) state: State,
    /// The sample time of the run that `state` is of; none before the first.
    pub(super) at_ms: Option<i64>,
    /// How long the last run took that ended.
    pub(super) seconds: f64,
    /// Scrapes in which the collector failed or hung.
    pub(super) failures: u64,
}

/// Where a collector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It has not run yet.
    New,
    /// Its last run had all samples.
    Works,
    /// This machine does not have what it reads.
    NoData(&'static str),
    /// Its last run failed with these words.
    Fails(Arc<str>),
    /// The scrape had no time left for it.
    Waits,
    /// Its call into the kernel has not returned since the scrape at this sample time.
    Hangs {
        /// Milliseconds since the Unix epoch.
        since_ms: i64,
    },
}

impl HostStatus {
    pub(super) fn new(collectors: impl Iterator<Item = (CollectorKind, Duration)>) -> Self {
        let new = |(kind, interval)| CollectorStatus {
            kind,
            interval,
            state: State::New,
            at_ms: None,
            seconds: 0.0,
            failures: 0,
        };
        Self(Arc::new(Mutex::new(collectors.map(new).collect())))
    }

    /// Changes what is known of one collector.
    pub(super) fn note(&self, kind: CollectorKind, change: impl FnOnce(&mut CollectorStatus)) {
        if let Some(status) = self.0.lock().iter_mut().find(|status| status.kind == kind) {
            change(status);
        }
    }

    /// One object a collector: its state, since when it hangs, why it fails.
    pub fn json(&self) -> Value {
        let one = |status: &CollectorStatus| {
            let (state, words, since_ms) = match &status.state {
                State::New => ("not run yet", None, None),
                State::Works => ("works", None, None),
                State::NoData(what) => ("no data", Some(format!("this machine has no {what}")), None),
                State::Fails(words) => ("fails", Some(words.to_string()), None),
                State::Waits => ("left out", Some("the scrape had no time left for it".to_owned()), None),
                State::Hangs { since_ms } => ("hangs", None, Some(*since_ms)),
            };
            json!({
                "name": status.kind.name(),
                "state": state,
                "reason": words,
                "hangs_since_ms": since_ms,
                "at_ms": status.at_ms,
                "interval_seconds": status.interval.as_secs_f64(),
                "last_run_seconds": status.seconds,
                "failures": status.failures,
            })
        };
        self.0.lock().iter().map(one).collect()
    }

    /// Has a registry show how many collectors hang, and how often each failed.
    pub fn expose(&self, registry: &Registry) {
        let hung = registry.gauge(
            "pegel_host_hung_collectors",
            "Collectors of the host source whose call into the kernel has not returned in time.",
            &[],
        );
        let failures = |status: &CollectorStatus| {
            registry.counter(
                "pegel_host_collector_failures_total",
                "Scrapes in which a collector of the host source failed or did not return in time. That the machine \
                 does not have what it reads is no failure.",
                &[("collector", status.kind.name())],
            )
        };
        let failures: Vec<_> = self.0.lock().iter().map(failures).collect();
        let status = self.clone();
        registry.on_render(move || {
            let all = status.0.lock();
            hung.set(all.iter().filter(|one| matches!(one.state, State::Hangs { .. })).count() as f64);
            for (counter, one) in failures.iter().zip(all.iter()) {
                counter.resume_at(one.failures);
            }
        });
    }
}
