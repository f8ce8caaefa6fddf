//! Interrupts, context switches, forks and boot time, from `/proc/stat` (Documentation/filesystems/proc.rst).

use super::emit::{Emitter, Metric};
use super::file::SharedFile;
use super::text::{fields, lines, uint};
use super::{CollectError, Collector, Setup};
use std::sync::Arc;

/// The soft interrupts in the order of the kernel's columns.
const SOFT_INTERRUPTS: [&str; 10] =
    ["hi", "timer", "net_tx", "net_rx", "block", "block_iopoll", "tasklet", "sched", "hrtimer", "rcu"];

struct Stat {
    file: Arc<SharedFile>,
    metrics: [(&'static [u8], Metric); 6],
    softirqs: Option<Metric>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let softirqs =
        || Metric::counter("node_softirqs_total", "Soft interrupts, by their vector.", &["vector"]);
    Box::new(Stat {
        file: setup.stat.clone(),
        metrics: [
            (b"intr", Metric::counter("node_intr_total", "Interrupts that were serviced.", &[])),
            (b"ctxt", Metric::counter("node_context_switches_total", "Context switches.", &[])),
            (b"processes", Metric::counter("node_forks_total", "Processes and threads begun.", &[])),
            (b"btime", Metric::gauge("node_boot_time_seconds", "When the kernel booted, in Unix time.", &[])),
            (b"procs_running", Metric::gauge("node_procs_running", "Processes that can run now.", &[])),
            (b"procs_blocked", Metric::gauge("node_procs_blocked", "Processes that wait for I/O.", &[])),
        ],
        softirqs: setup.settings.stat_softirq.then(softirqs),
    })
}

impl Collector for Stat {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let shared = self.file.read(out.scrape())?;
        let text = shared.content();
        // A field that a kernel does not write is zero, as in node_exporter.
        let mut values = [0u64; 6];
        let mut softirqs = [0u64; SOFT_INTERRUPTS.len()];
        for line in lines(text.bytes) {
            let mut columns = fields(line);
            let key = columns.next().unwrap_or_default();
            if let Some(at) = self.metrics.iter().position(|(name, _)| *name == key) {
                let value = columns.next().and_then(uint);
                values[at] = value.ok_or_else(|| text.bad("the value is not a number", line))?;
            } else if key == b"softirq" && self.softirqs.is_some() {
                // The first column is the sum.
                for (value, column) in softirqs.iter_mut().zip(columns.skip(1)) {
                    *value = uint(column).ok_or_else(|| text.bad("a count is not a number", line))?;
                }
            }
        }
        for ((_, metric), value) in self.metrics.iter().zip(values) {
            out.emit(metric, &[], value as f64);
        }
        if let Some(metric) = &self.softirqs {
            for (vector, count) in SOFT_INTERRUPTS.iter().zip(softirqs) {
                out.emit(metric, &[vector], count as f64);
            }
        }
        Ok(())
    }
}
