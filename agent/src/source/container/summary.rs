//! What a pass gave, for the log, `/metrics` and `/api/v1/status`.

use super::accounting::Accounting;
use super::tracked::Tracked;
use crate::source::reading::emit::{Emitter, Metric};
use pegel_proto::metrics::Block;
use rustix::io::Errno;
use serde::Serialize;
use std::ffi::CStr;

/// The most offenders that are named.
const MAX_OFFENDERS: usize = 20;

/// A cgroup with more series than a cap allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offender {
    /// Its path.
    pub id: Box<str>,
    /// Its container's name, or its path.
    pub name: Box<str>,
    /// The series that it has.
    pub series: usize,
    /// The series that were left out.
    pub left_out: usize,
}

/// Processes that the kernel killed for want of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OomKill {
    /// The container's id; none for other cgroups.
    pub(super) id: Option<Box<str>>,
    /// The container's name, or the cgroup's path.
    pub(super) name: Box<str>,
    /// How many.
    pub(super) count: u64,
}

/// What a pass gave.
#[derive(Debug, Default)]
pub(super) struct PassReport {
    /// The samples and markers.
    pub(super) blocks: Vec<Block>,
    /// Whether it was over all cgroups.
    pub(super) is_full: bool,
    /// How long it took.
    pub(super) seconds: f64,
    /// Why it came to nothing.
    pub(super) trouble: Option<String>,
    /// Cgroups with series.
    pub(super) cgroups: usize,
    /// Containers among them.
    pub(super) containers: usize,
    /// Their series.
    pub(super) series: usize,
    /// Series that caps left out.
    pub(super) series_left_out: usize,
    /// Cgroups that were left out: for want of permission, or by the cap of the machine.
    pub(super) cgroups_left_out: usize,
    /// Who has more than allowed, the worst first.
    pub(super) offenders: Vec<Offender>,
    /// Containers that wait for their names.
    pub(super) waiting: usize,
    /// Files that are there and cannot be read: how many, and the first with its reason.
    pub(super) unreadable: usize,
    /// The first of them.
    pub(super) first_unreadable: Option<String>,
    /// Kills since the last pass.
    pub(super) oom_kills: Vec<OomKill>,
}

impl PassReport {
    /// Counts series of a cgroup that a cap left out.
    pub(super) fn leave_out(&mut self, path: &str, tracked: &Tracked, count: usize) {
        self.series_left_out += count;
        let series = tracked.segment.series().len();
        self.cgroups_left_out += usize::from(series == 0);
        let name = tracked.name(path).into();
        self.offenders.push(Offender { id: path.into(), name, series, left_out: count });
    }

    /// Counts a file that cannot be read.
    pub(super) fn note_unreadable(&mut self, path: &str, file: &CStr, error: Errno) {
        self.unreadable += 1;
        self.first_unreadable.get_or_insert_with(|| {
            format!("cannot read {} of cgroup {path}: {error}", file.to_string_lossy())
        });
    }

    /// Notes kills in a cgroup.
    pub(super) fn note_oom(&mut self, path: &str, tracked: &Tracked, count: u64) {
        self.oom_kills.push(OomKill { id: tracked.id.clone(), name: tracked.name(path).into(), count });
    }

    /// Counts what there is after a pass.
    pub(super) fn count(&mut self, accounting: &Accounting) {
        let with_series = || accounting.tracked.values().filter(|tracked| tracked.series() > 0);
        self.cgroups = with_series().count();
        self.containers = with_series().filter(|tracked| tracked.id.is_some()).count();
        self.series = accounting.series;
        self.offenders.sort_by(|a, b| b.left_out.cmp(&a.left_out).then_with(|| a.id.cmp(&b.id)));
        self.offenders.truncate(MAX_OFFENDERS);
    }
}

/// The metrics of a pass: those that cAdvisor has of itself, and those that Prometheus' scraper adds.
#[derive(Debug)]
pub(super) struct PassMetrics {
    container_error: Metric,
    machine_error: Metric,
    up: Metric,
    duration: Metric,
    samples: Metric,
}

impl PassMetrics {
    /// Makes them.
    pub(super) fn new() -> Self {
        Self {
            container_error: Metric::gauge("container_scrape_error", "1 if cgroups could not be read.", &[]),
            machine_error: Metric::gauge("machine_scrape_error", "1 if the machine could not be read.", &[]),
            up: Metric::gauge("up", "1 as long as the agent collects.", &[]),
            duration: Metric::gauge("scrape_duration_seconds", "How long the whole collection took.", &[]),
            samples: Metric::gauge("scrape_samples_scraped", "How many samples were collected.", &[]),
        }
    }

    /// Emits them.
    pub(super) fn emit(&self, trouble: bool, seconds: f64, samples: usize, out: &mut Emitter<'_>) {
        out.emit(&self.container_error, &[], f64::from(u8::from(trouble)));
        out.emit(&self.machine_error, &[], 0.0);
        out.emit(&self.up, &[], 1.0);
        out.emit(&self.duration, &[], seconds);
        out.emit(&self.samples, &[], samples as f64);
    }
}
