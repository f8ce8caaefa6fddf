//! Soft interrupts by processor, from `/proc/softirqs` (Documentation/filesystems/proc.rst).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, lines, uint};
use super::{CollectError, Collector, Setup};

/// The vectors that node_exporter knows.
const VECTORS: [&str; 10] =
    ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"];

struct Softirqs {
    file: PolledFile,
    total: Metric,
    /// The processors, by their column.
    processors: Vec<Box<str>>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Softirqs {
        file: PolledFile::new(setup.paths.procfs.join("softirqs")),
        total: Metric::counter(
            "node_softirqs_functions_total",
            "Soft interrupts, by processor and vector.",
            &["cpu", "type"],
        ),
        processors: Vec::new(),
    })
}

impl Collector for Softirqs {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let Self { file, total, processors } = self;
        let text = file.read()?;
        if text.bytes.is_empty() {
            return Err(text.bad("it is empty", b""));
        }
        for line in lines(text.bytes).skip(1) {
            let mut columns = fields(line);
            let name = columns.next().and_then(|name| name.strip_suffix(b":"));
            let known = VECTORS.iter().find(|known| Some(known.as_bytes()) == name);
            let Some(vector) = known else { continue };
            for (column, count) in columns.enumerate() {
                let count = uint(count).ok_or_else(|| text.bad("a count is not a number", line))?;
                if column == processors.len() {
                    processors.push(column.to_string().into());
                }
                out.emit(total, &[&processors[column], vector], count as f64);
            }
        }
        Ok(())
    }
}
