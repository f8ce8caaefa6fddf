//! What is known of container accounting: for `/api/v1/status` and `/metrics`.

use super::events::{Event, Events};
use super::summary::{Offender, PassReport};
use parking_lot::Mutex;
use pegel_runtime::metrics::{Counter, Gauge, Registry};
use serde::Serialize;
use std::sync::Arc;

/// What the last pass over all cgroups found. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    known: Snapshot,
    events: Events,
}

/// The status at an instant.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// Cgroups that have series.
    pub cgroups: usize,
    /// Containers among them.
    pub containers: usize,
    /// Their series.
    pub series: usize,
    /// Series that a cap leaves out.
    pub series_left_out: usize,
    /// Cgroups that are left out, by the cap of the machine or for want of permission.
    pub cgroups_left_out: usize,
    /// Who has more series than allowed, the worst first.
    pub offenders: Vec<Offender>,
    /// How long a pass takes, in seconds.
    pub pass_seconds: f64,
    /// Whether a pass does not return.
    pub hung: bool,
    /// Why there are no samples.
    pub trouble: Option<String>,
    /// The first file that is there and cannot be read.
    pub unreadable: Option<String>,
    /// The last events, the newest last.
    pub events: Vec<Event>,
}

impl Status {
    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.0.lock();
        Snapshot { events: state.events.last(), ..state.known.clone() }
    }

    /// Shows these events.
    pub(super) fn set_events(&self, events: Events) {
        self.0.lock().events = events;
    }

    /// Says whether a pass hangs.
    pub(super) fn set_hung(&self, hung: bool) {
        self.0.lock().known.hung = hung;
    }

    /// Takes in a pass.
    pub(super) fn note(&self, report: PassReport) {
        let mut state = self.0.lock();
        let known = &mut state.known;
        known.cgroups = report.cgroups;
        known.containers = report.containers;
        known.series = report.series;
        if !report.is_full {
            return;
        }
        *known = Snapshot {
            cgroups: report.cgroups,
            containers: report.containers,
            series: report.series,
            series_left_out: report.series_left_out,
            cgroups_left_out: report.cgroups_left_out,
            offenders: report.offenders,
            pass_seconds: report.seconds,
            hung: false,
            trouble: report.trouble,
            unreadable: report.first_unreadable,
            events: Vec::new(),
        };
    }
}

/// The source on `/metrics`.
pub(super) struct Telemetry {
    registry: Registry,
    hung: Gauge,
    cgroups: Gauge,
    series: Gauge,
    cgroups_left_out: Gauge,
    left_out: Counter,
    unreadable: Counter,
    failed: Counter,
    said: Mutex<Said>,
}

/// What was said in the log and on `/metrics` before.
#[derive(Debug, Default)]
struct Said {
    offenders: Vec<Offender>,
    trouble: Option<String>,
    unreadable: bool,
}

impl Telemetry {
    /// Declares the metrics.
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name, help| registry.gauge(name, help, &[]);
        let counter = |name, help| registry.counter(name, help, &[]);
        Self {
            hung: gauge("pegel_container_hung", "1 while reading cgroups does not return in time."),
            cgroups: gauge("pegel_container_cgroups", "Cgroups that have series."),
            series: gauge("pegel_container_series", "Series of all cgroups."),
            cgroups_left_out: gauge(
                "pegel_container_cgroups_left_out",
                "Cgroups without series for want of permission or because containers.max_series is reached.",
            ),
            left_out: counter(
                "pegel_container_series_left_out_total",
                "Samples left out by containers.max_series_per_container and containers.max_series.",
            ),
            unreadable: counter(
                "pegel_container_unreadable_files_total",
                "Files of cgroups that are there and could not be read.",
            ),
            failed: counter(
                "pegel_container_failed_passes_total",
                "Passes over cgroups that came to nothing.",
            ),
            registry: registry.clone(),
            said: Mutex::default(),
        }
    }

    /// Says whether a pass hangs.
    pub(super) fn hung(&self, hung: bool) {
        self.hung.set(f64::from(u8::from(hung)));
    }

    /// Takes in a pass.
    pub(super) fn note(&self, report: &PassReport) {
        self.series.set(report.series as f64);
        self.cgroups.set(report.cgroups as f64);
        self.left_out.add(report.series_left_out as u64);
        self.unreadable.add(report.unreadable as u64);
        self.failed.add(u64::from(report.trouble.is_some()));
        if !report.is_full {
            return;
        }
        self.cgroups_left_out.set(report.cgroups_left_out as f64);
        let mut said = self.said.lock();
        self.name_offenders(&said.offenders, &report.offenders);
        said.offenders.clone_from(&report.offenders);
        match (&report.trouble, &said.trouble) {
            (Some(trouble), before) if before.as_ref() != Some(trouble) => {
                tracing::warn!("containers have no samples: {trouble}");
            }
            (None, Some(_)) => tracing::info!("cgroups can be read again"),
            _ => {}
        }
        said.trouble.clone_from(&report.trouble);
        if let (Some(first), false) = (&report.first_unreadable, said.unreadable) {
            tracing::warn!(
                files = report.unreadable,
                "{first}; its metrics are missing. Run the agent as root or with the capability CAP_DAC_READ_SEARCH"
            );
        }
        said.unreadable = report.first_unreadable.is_some();
    }

    /// Shows who has too many series, and no longer those who had.
    fn name_offenders(&self, before: &[Offender], now: &[Offender]) {
        let name = "pegel_container_left_out_series";
        for gone in before.iter().filter(|before| now.iter().all(|now| now.id != before.id)) {
            self.registry.remove(name, &[("id", &gone.id), ("name", &gone.name)]);
        }
        for offender in now {
            let labels = [("id", &*offender.id), ("name", &*offender.name)];
            let help = "Series that a cap leaves out, of the cgroups that have the most of them.";
            self.registry.gauge(name, help, &labels).set(offender.left_out as f64);
            if before.iter().all(|before| before.id != offender.id) {
                tracing::warn!(
                    id = %offender.id,
                    name = %offender.name,
                    left_out = offender.left_out,
                    "a cgroup has more series than allowed; the newest are left out. Raise \
                     containers.max_series_per_container or containers.max_series, or collect fewer groups"
                );
            }
        }
    }
}
