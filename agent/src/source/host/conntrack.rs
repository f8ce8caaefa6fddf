//! Connection tracking, from `/proc/sys/net/netfilter` (Documentation/networking/nf_conntrack-sysctl.rst) and
//! `/proc/net/stat/nf_conntrack` (net/netfilter/nf_conntrack_standalone.c).

use super::emit::{Emitter, Metric};
use super::file::{Content, PolledFile};
use super::text::{fields, hex, lines, uint};
use super::{CollectError, Collector, Setup};

/// What a kernel without connection tracking lacks.
const ABSENT: CollectError = CollectError::NoData("connection tracking (nf_conntrack is not loaded)");

/// The columns of a processor's line; kernels before 2.6.35 have no `search_restart`.
const COLUMNS: usize = 17;

/// The metrics, with their column.
const COUNTS: [(usize, &str, &str); 8] = [
    (2, "found", "Searches that found an entry."),
    (4, "invalid", "Packets that cannot be tracked."),
    (5, "ignore", "Packets that belong to an entry already."),
    (8, "insert", "Entries inserted."),
    (9, "insert_failed", "Entries that could not be inserted."),
    (10, "drop", "Packets dropped because tracking failed."),
    (11, "early_drop", "Entries dropped to make room for new ones."),
    (16, "search_restart", "Searches begun anew because the table was resized."),
];

struct Conntrack {
    sizes: [(PolledFile, Metric); 2],
    file: PolledFile,
    counts: Vec<(usize, Metric)>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let size = |file: &str, name: &str, help: &str| {
        let path = setup.paths.procfs.join("sys/net/netfilter").join(file);
        (PolledFile::new(path), Metric::gauge(&format!("node_nf_conntrack_{name}"), help, &[]))
    };
    let count = |(column, name, help): &(usize, &str, &str)| {
        // They only grow, but node_exporter calls them gauges.
        (*column, Metric::gauge(&format!("node_nf_conntrack_stat_{name}"), help, &[]))
    };
    Box::new(Conntrack {
        sizes: [
            size("nf_conntrack_count", "entries", "Connections that are tracked."),
            size("nf_conntrack_max", "entries_limit", "Connections that can be tracked."),
        ],
        file: PolledFile::new(setup.paths.procfs.join("net/stat/nf_conntrack")),
        counts: COUNTS.iter().map(count).collect(),
    })
}

impl Collector for Conntrack {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        for (file, metric) in &mut self.sizes {
            let text = file.read_if_there()?.ok_or(ABSENT)?;
            let size = uint(text.bytes.trim_ascii());
            let size = size.ok_or_else(|| text.bad("a number is expected", text.bytes))?;
            out.emit(metric, &[], size as f64);
        }
        let sums = sums(self.file.read_if_there()?.ok_or(ABSENT)?)?;
        for (column, metric) in &self.counts {
            out.emit(metric, &[], sums[*column] as f64);
        }
        Ok(())
    }
}

/// The sums of all processors' columns.
fn sums(text: Content<'_>) -> Result<[u64; COLUMNS], CollectError> {
    let mut sums = [0u64; COLUMNS];
    for line in lines(text.bytes).skip(1) {
        let mut found = 0;
        for column in fields(line) {
            let value = hex(column).ok_or_else(|| text.bad("a count is not a hexadecimal number", line))?;
            if let Some(sum) = sums.get_mut(found) {
                *sum = sum.wrapping_add(value);
            }
            found += 1;
        }
        if !(COLUMNS - 1..=COLUMNS).contains(&found) {
            return Err(text.bad("16 or 17 columns are expected", line));
        }
    }
    Ok(sums)
}
