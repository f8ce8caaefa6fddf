//! Pressure stall information, from `/proc/pressure` (Documentation/accounting/psi.rst).

use super::emit::{Emitter, Metric};
use super::file::{Content, PolledFile};
use super::text::{fields, lines, uint};
use super::{CollectError, Collector, Setup};

/// `EOPNOTSUPP`: the kernel has the files, but was booted with `psi=0`.
const SWITCHED_OFF: i32 = 95;

/// Microseconds a second.
const MICROS: f64 = 1000.0;

struct Pressure {
    resources: [Resource; 4],
}

struct Resource {
    file: PolledFile,
    some: Option<Metric>,
    full: Option<Metric>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let resource = |name: &str, some: Option<(&str, &str)>, full: Option<(&str, &str)>| Resource {
        file: PolledFile::new(setup.paths.procfs.join("pressure").join(name)),
        some: some.map(|(name, help)| Metric::counter(name, help, &[])),
        full: full.map(|(name, help)| Metric::counter(name, help, &[])),
    };
    Box::new(Pressure {
        resources: [
            resource(
                "cpu",
                Some((
                    "node_pressure_cpu_waiting_seconds_total",
                    "Time in which some task waited for a processor.",
                )),
                None,
            ),
            resource(
                "io",
                Some(("node_pressure_io_waiting_seconds_total", "Time in which some task waited for I/O.")),
                Some(("node_pressure_io_stalled_seconds_total", "Time in which all tasks waited for I/O.")),
            ),
            resource(
                "memory",
                Some((
                    "node_pressure_memory_waiting_seconds_total",
                    "Time in which some task waited for memory.",
                )),
                Some((
                    "node_pressure_memory_stalled_seconds_total",
                    "Time in which all tasks waited for memory.",
                )),
            ),
            resource(
                "irq",
                None,
                Some((
                    "node_pressure_irq_stalled_seconds_total",
                    "Time that interrupts took from all tasks.",
                )),
            ),
        ],
    })
}

impl Collector for Pressure {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let mut found = false;
        for Resource { file, some, full } in &mut self.resources {
            let text = match file.read_if_there() {
                Ok(Some(text)) => text,
                Ok(None) => continue,
                Err(CollectError::Read { source, .. }) if source.raw_os_error() == Some(SWITCHED_OFF) => {
                    return Err(CollectError::NoData("pressure stall information: it was booted with psi=0"));
                }
                Err(error) => return Err(error),
            };
            for (metric, line) in [(some, b"some".as_slice()), (full, b"full")] {
                let Some(metric) = metric else { continue };
                let Some(micros) = total(text, line)? else {
                    return Err(CollectError::NoData("complete pressure stall information"));
                };
                out.emit(metric, &[], micros as f64 / MICROS / MICROS);
            }
            found = true;
        }
        if found {
            Ok(())
        } else {
            Err(CollectError::NoData("pressure stall information (Linux 4.20, CONFIG_PSI)"))
        }
    }
}

/// The total of the line that begins with `kind`, in microseconds.
fn total(text: Content<'_>, kind: &[u8]) -> Result<Option<u64>, CollectError> {
    for line in lines(text.bytes) {
        let mut parts = fields(line);
        if parts.next() == Some(kind) {
            let total = parts.find_map(|part| part.strip_prefix(b"total=")).and_then(uint);
            return total.map(Some).ok_or_else(|| text.bad("it has no total", line));
        }
    }
    Ok(None)
}
