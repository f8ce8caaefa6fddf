//! Metrics of log files.

use super::FileStatus;
use pegel_runtime::metrics::{Counter, Gauge, Registry};

/// Those of one input.
pub(super) struct Telemetry {
    pub(super) bytes_read: Counter,
    pub(super) rotations: Counter,
    pub(super) truncations: Counter,
    pub(super) recovered: Counter,
    pub(super) lost_bytes: Counter,
    pub(super) lost_files: Counter,
    pub(super) unread_files: Counter,
    pub(super) lost_generations: Counter,
    pub(super) files: Gauge,
    pub(super) open: Gauge,
    pub(super) unreadable: Gauge,
    pub(super) lag_bytes: Gauge,
    pub(super) lag_seconds: Gauge,
}

impl Telemetry {
    pub(super) fn new(input: &str, registry: &Registry) -> Self {
        let labels = [("input", input)];
        Self {
            bytes_read: registry.counter(
                "pegel_log_bytes_read_total",
                "Bytes of log files that became entries or were left out.",
                &labels,
            ),
            rotations: registry.counter(
                "pegel_log_rotations_total",
                "Log files that were renamed, removed or replaced.",
                &labels,
            ),
            truncations: registry.counter(
                "pegel_log_truncations_total",
                "Log files that were truncated or written anew in their place.",
                &labels,
            ),
            recovered: registry.counter(
                "pegel_log_recovered_generations_total",
                "Generations of log files that were read on in a copy or a compressed form.",
                &labels,
            ),
            lost_bytes: registry.counter(
                "pegel_log_lost_bytes_total",
                "Bytes of log files that were known to be there and could not be read any more.",
                &labels,
            ),
            lost_files: registry.counter(
                "pegel_log_lost_files_total",
                "Log files that were given up before they were read to their end, also where it is not known how much \
                 was left.",
                &labels,
            ),
            unread_files: registry.counter(
                "pegel_log_unread_files_total",
                "Log files of containers that were gone before they could be read.",
                &labels,
            ),
            lost_generations: registry.counter(
                "pegel_log_lost_generations_total",
                "Log files that were rotated and removed while the agent did not run, as far as their numbers tell.",
                &labels,
            ),
            files: registry.gauge("pegel_log_files", "Log files that are known.", &labels),
            open: registry.gauge("pegel_log_open_files", "Log files that are open.", &labels),
            unreadable: registry.gauge(
                "pegel_log_unreadable_files",
                "Log files that can't be opened or read; the agent's log names each with the reason.",
                &labels,
            ),
            lag_bytes: registry.gauge(
                "pegel_log_lag_bytes",
                "Bytes of log files that are not read yet.",
                &labels,
            ),
            lag_seconds: registry.gauge(
                "pegel_log_lag_seconds",
                "For how long the oldest unread byte has waited in its file since it was seen.",
                &labels,
            ),
        }
    }
}

/// Metrics of the files that are furthest behind, taken away when they no longer are.
pub(super) struct NamedFiles {
    registry: Registry,
    shown: Vec<[String; 2]>,
}

const FILE_LAG_BYTES: &str = "pegel_log_file_lag_bytes";
const FILE_LAG_SECONDS: &str = "pegel_log_file_lag_seconds";

impl NamedFiles {
    pub(super) fn new(registry: &Registry) -> Self {
        Self { registry: registry.clone(), shown: Vec::new() }
    }

    /// Shows these, and no other.
    pub(super) fn show(&mut self, files: &[FileStatus]) {
        let now: Vec<_> = files.iter().map(|file| [file.input.clone(), file.path.clone()]).collect();
        for gone in self.shown.iter().filter(|shown| !now.contains(shown)) {
            let [input, path] = gone;
            for name in [FILE_LAG_BYTES, FILE_LAG_SECONDS] {
                self.registry.remove(name, &[("input", input), ("path", path)]);
            }
        }
        // Two generations of one path are one series: the later one stands behind the first.
        for file in files.iter().rev() {
            let labels = [("input", file.input.as_str()), ("path", file.path.as_str())];
            let bytes = self.registry.gauge(
                FILE_LAG_BYTES,
                "Bytes that wait unread in a file, of the ten files with the most that have waited for a second.",
                &labels,
            );
            bytes.set(file.lag_bytes as f64);
            let seconds = self.registry.gauge(
                FILE_LAG_SECONDS,
                "For how long the oldest unread byte of such a file has waited.",
                &labels,
            );
            seconds.set(file.lag_seconds);
        }
        self.shown = now;
    }
}
