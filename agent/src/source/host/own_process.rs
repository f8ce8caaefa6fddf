//! `process_*`: the agent's own process, where dashboards look for node_exporter's.
//!
//! Names and units are those of Prometheus' client libraries. `process_network_*_bytes_total` is left out: it counts
//! the machine's traffic, which the netdev collector has by device.

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, float};
use rustix::process::{Resource, Rlimit, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// The samples of one reading.
pub(super) const SAMPLES: usize = 7;
/// The kernel's unit of times in `/proc/PID/stat` (proc(5)): 100 on every architecture that pegel runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The metrics and what is read for them.
pub(super) struct OwnProcess {
    cpu: Metric,
    resident: Metric,
    virtual_memory: Metric,
    virtual_memory_max: Metric,
    open_files: Metric,
    open_files_max: Metric,
    started: Metric,
    statm: PolledFile,
    started_seconds: f64,
}

impl OwnProcess {
    /// Makes it. When the process began is read once.
    pub(super) fn new() -> Self {
        let gauge = |name, help| Metric::gauge(name, help, &[]);
        Self {
            cpu: Metric::counter(
                "process_cpu_seconds_total",
                "User and system CPU time of the agent, in seconds.",
                &[],
            ),
            resident: gauge("process_resident_memory_bytes", "Resident memory of the agent, in bytes."),
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory of the agent, in bytes."),
            virtual_memory_max: gauge(
                "process_virtual_memory_max_bytes",
                "The most virtual memory that the agent may have, in bytes.",
            ),
            open_files: gauge("process_open_fds", "Open file descriptors of the agent."),
            open_files_max: gauge(
                "process_max_fds",
                "The most file descriptors that the agent may have open.",
            ),
            started: gauge(
                "process_start_time_seconds",
                "When the agent began, in seconds since the Unix epoch.",
            ),
            statm: PolledFile::new("/proc/self/statm"),
            started_seconds: started_seconds().unwrap_or_default(),
        }
    }

    /// Emits its [`SAMPLES`]. What the kernel does not say is 0.
    pub(super) fn emit(&mut self, out: &mut Emitter<'_>) {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        out.emit(&self.cpu, &[], used.tv_sec as f64 + used.tv_nsec as f64 / 1e9);
        let page = rustix::param::page_size() as f64;
        // proc(5): size and resident are its first two fields, in pages.
        let (virtual_pages, resident_pages) = self.statm.read().map_or((0.0, 0.0), |text| {
            let mut pages = fields(text.bytes.trim_ascii_end()).map_while(float);
            (pages.next().unwrap_or_default(), pages.next().unwrap_or_default())
        });
        out.emit(&self.resident, &[], resident_pages * page);
        out.emit(&self.virtual_memory, &[], virtual_pages * page);
        out.emit(&self.virtual_memory_max, &[], limit(getrlimit(Resource::As)));
        out.emit(&self.open_files, &[], open_files());
        out.emit(&self.open_files_max, &[], limit(getrlimit(Resource::Nofile)));
        out.emit(&self.started, &[], self.started_seconds);
    }
}

/// A limit in force; one that is none counts as 2⁶⁴ - 1, as in Prometheus' client libraries.
fn limit(limit: Rlimit) -> f64 {
    limit.current.unwrap_or(u64::MAX) as f64
}

/// Since Linux 6.2 the size of `/proc/PID/fd` is their number; before, they are counted.
fn open_files() -> f64 {
    let size = rustix::fs::stat("/proc/self/fd").map_or(0, |stat| stat.st_size);
    if size > 0 {
        return size as f64;
    }
    // The listing's own descriptor is one of them.
    std::fs::read_dir("/proc/self/fd").map_or(0.0, |entries| entries.count().saturating_sub(1) as f64)
}

/// When this process began: field 22 of its stat, in ticks since the machine's start.
fn started_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks: f64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let machine = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = machine.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + ticks / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::super::emit::Segment;
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn the_process_is_this_one() {
        let mut process = OwnProcess::new();
        let mut segment = Segment::default();
        let mut out = segment.emitter(1);
        process.emit(&mut out);
        out.finish();
        let value = |name: &str| {
            let at = segment.series().iter().position(|series| series.name() == name);
            segment.values()[at.unwrap_or_else(|| panic!("{name} is missing"))]
        };
        assert_eq!(segment.values().len(), SAMPLES);
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_resident_memory_bytes") >= 1e6);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!(value("process_virtual_memory_max_bytes") >= value("process_virtual_memory_bytes"));
        assert!((3.0..value("process_max_fds")).contains(&value("process_open_fds")));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        // The kernel's boot time is in whole seconds.
        assert!((-1.5..86_400.0).contains(&age), "{age}");
    }
}
