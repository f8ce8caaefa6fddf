//! Load averages from `/proc/loadavg` (Documentation/filesystems/proc.rst).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, float};
use super::{CollectError, Collector, Setup};

struct Loadavg {
    file: PolledFile,
    metrics: [Metric; 3],
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Loadavg {
        file: PolledFile::new(setup.paths.procfs.join("loadavg")),
        metrics: [
            Metric::gauge("node_load1", "Load average over 1 minute.", &[]),
            Metric::gauge("node_load5", "Load average over 5 minutes.", &[]),
            Metric::gauge("node_load15", "Load average over 15 minutes.", &[]),
        ],
    })
}

impl Collector for Loadavg {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        let mut loads = fields(text.bytes.trim_ascii_end());
        for metric in &self.metrics {
            let load = loads.next().and_then(float);
            let load = load.ok_or_else(|| text.bad("three loads are expected", text.bytes))?;
            out.emit(metric, &[], load);
        }
        Ok(())
    }
}
