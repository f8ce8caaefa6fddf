//! How long processors ran tasks and tasks waited for them, from `/proc/schedstat`
//! (Documentation/scheduler/sched-stats.rst).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, label, lines, uint};
use super::{CollectError, Collector, Setup};

const NANOS_PER_SECOND: f64 = 1e9;

/// The counters before the three that are read.
const SKIPPED: usize = 6;

struct Schedstat {
    file: PolledFile,
    running: Metric,
    waiting: Metric,
    timeslices: Metric,
    /// The processors' numbers, by their place.
    processors: Vec<Box<str>>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let counter =
        |name: &str, help: &str| Metric::counter(&format!("node_schedstat_{name}_total"), help, &["cpu"]);
    Box::new(Schedstat {
        file: PolledFile::new(setup.paths.procfs.join("schedstat")),
        running: counter("running_seconds", "Time that a processor ran tasks."),
        waiting: counter("waiting_seconds", "Time that tasks waited for a processor."),
        timeslices: counter("timeslices", "Time slices that a processor ran."),
        processors: Vec::new(),
    })
}

impl Collector for Schedstat {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.file.read_if_there()?;
        let text = text.ok_or(CollectError::NoData("scheduler statistics (CONFIG_SCHEDSTATS)"))?;
        let mut place = 0;
        for line in lines(text.bytes) {
            // Each processor's scheduling domains follow it, on lines of their own.
            let Some(rest) = line.strip_prefix(b"cpu") else { continue };
            let mut columns = fields(rest);
            let number = columns.next().unwrap_or_default();
            let mut columns = columns.skip(SKIPPED);
            let (Some(running), Some(waiting), Some(slices)) =
                (columns.next(), columns.next(), columns.next())
            else {
                // A format that is older than any that is known.
                continue;
            };
            let value = |column| uint(column).ok_or_else(|| text.bad("a counter is not a number", line));
            let (running, waiting, slices) = (value(running)?, value(waiting)?, value(slices)?);
            if self.processors.get(place).is_none_or(|known| known.as_bytes() != number) {
                if uint(number).is_none() {
                    return Err(text.bad("the processor has no number", line));
                }
                self.processors.truncate(place);
                self.processors.push(label(number));
            }
            let cpu = &*self.processors[place];
            out.emit(&self.running, &[cpu], running as f64 / NANOS_PER_SECOND);
            out.emit(&self.waiting, &[cpu], waiting as f64 / NANOS_PER_SECOND);
            out.emit(&self.timeslices, &[cpu], slices as f64);
            place += 1;
        }
        Ok(())
    }
}
