//! Merging of equal pages, from `/sys/kernel/mm/ksm` (Documentation/admin-guide/mm/ksm.rst).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::int;
use super::{CollectError, Collector, Setup};

const COUNT: f64 = 1.0;
const MILLIS_PER_SECOND: f64 = 1000.0;

/// The files, what their values are divided by, and their metrics.
const FILES: [(&str, f64, &str, &str); 10] = [
    ("full_scans", COUNT, "full_scans_total", "How often all areas were scanned."),
    ("general_profit", COUNT, "general_profit_bytes", "Memory saved less what it costs, in bytes."),
    ("merge_across_nodes", COUNT, "merge_across_nodes", "1 if pages of different nodes are merged."),
    ("pages_shared", COUNT, "pages_shared", "Shared pages in use."),
    ("pages_sharing", COUNT, "pages_sharing", "Places that share them: what is saved."),
    ("pages_to_scan", COUNT, "pages_to_scan", "Pages to scan before a sleep."),
    ("pages_unshared", COUNT, "pages_unshared", "Pages that are looked at but are unique."),
    ("pages_volatile", COUNT, "pages_volatile", "Pages that change too fast."),
    ("run", COUNT, "run", "1 if it runs, 0 if it is stopped, 2 if it has been undone."),
    ("sleep_millisecs", MILLIS_PER_SECOND, "sleep_seconds", "Sleep between two scans."),
];

struct Ksmd {
    files: Vec<(PolledFile, f64, Metric)>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let dir = setup.paths.sysfs.join("kernel/mm/ksm");
    let file = |(file, unit, name, help): &(&str, f64, &str, &str)| {
        let name = format!("node_ksmd_{name}");
        let metric = match *file {
            "full_scans" => Metric::counter(&name, help, &[]),
            _ => Metric::gauge(&name, help, &[]),
        };
        (PolledFile::new(dir.join(file)), *unit, metric)
    };
    Box::new(Ksmd { files: FILES.iter().map(file).collect() })
}

impl Collector for Ksmd {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        for (file, unit, metric) in &mut self.files {
            // Older kernels have fewer of them, and one without CONFIG_KSM none.
            let Some(text) = file.read_if_there()? else { continue };
            let value = int(text.bytes.trim_ascii());
            let value = value.ok_or_else(|| text.bad("a number is expected", text.bytes))?;
            out.emit(metric, &[], value as f64 / *unit);
        }
        Ok(())
    }
}
