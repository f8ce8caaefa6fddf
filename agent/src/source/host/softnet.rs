//! What processors did with received packets, from `/proc/net/softnet_stat` (net/core/net-procfs.c).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, hex, lines};
use super::{CollectError, Collector, Setup};

/// The columns of every kernel since 2.6.23.
const LEAST_COLUMNS: usize = 9;
/// The columns that are read: Linux 2.6.39 added the tenth, 4.18 the eleventh, 5.14 the last two.
const COLUMNS: usize = 13;
/// The column with the processor's number.
const INDEX: usize = 12;

/// The metrics, with their column.
const COUNTERS: [(usize, &str, &str); 6] = [
    (0, "processed_total", "Packets processed."),
    (1, "dropped_total", "Packets dropped because the backlog was full."),
    (2, "times_squeezed_total", "How often packets were left when time or budget was used up."),
    (8, "cpu_collision_total", "Collisions when the device's lock was taken for sending."),
    (9, "received_rps_total", "How often another processor woke this one to receive."),
    (10, "flow_limit_count_total", "How often the limit of a flow was reached."),
];
const BACKLOG: usize = 11;

struct Softnet {
    file: PolledFile,
    counters: Vec<(usize, Metric)>,
    backlog: Metric,
    /// The processors' numbers, by their line.
    numbers: Vec<(u64, Box<str>)>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let counter = |(column, name, help): &(usize, &str, &str)| {
        (*column, Metric::counter(&format!("node_softnet_{name}"), help, &["cpu"]))
    };
    Box::new(Softnet {
        file: PolledFile::new(setup.paths.procfs.join("net/softnet_stat")),
        counters: COUNTERS.iter().map(counter).collect(),
        backlog: Metric::gauge("node_softnet_backlog_len", "Packets in the backlog.", &["cpu"]),
        numbers: Vec::new(),
    })
}

impl Collector for Softnet {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        for (place, line) in lines(text.bytes).enumerate() {
            let mut values = [0; COLUMNS];
            let mut found = 0;
            for (value, column) in values.iter_mut().zip(fields(line)) {
                *value = hex(column)
                    .filter(|value| u32::try_from(*value).is_ok())
                    .ok_or_else(|| text.bad("a count is not a hexadecimal number of 32 bits", line))?;
                found += 1;
            }
            if found < LEAST_COLUMNS {
                return Err(text.bad("at least nine columns are expected", line));
            }
            if found < COLUMNS {
                // Without a number the line's is the processor's, and a column on its own means nothing.
                values[BACKLOG] = 0;
                values[INDEX] = place as u64;
            }
            let number = values[INDEX];
            if self.numbers.get(place).is_none_or(|(known, _)| *known != number) {
                self.numbers.truncate(place);
                self.numbers.push((number, number.to_string().into()));
            }
            let cpu = &*self.numbers[place].1;
            for (column, metric) in &self.counters {
                out.emit(metric, &[cpu], values[*column] as f64);
            }
            out.emit(&self.backlog, &[cpu], values[BACKLOG] as f64);
        }
        Ok(())
    }
}
