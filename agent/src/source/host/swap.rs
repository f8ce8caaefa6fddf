//! Swap areas, from `/proc/swaps` (proc(5)).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, int, label, lines};
use super::{CollectError, Collector, Setup};

/// The kernel counts in units of so many bytes.
const UNIT_BYTES: i64 = 1024;

struct Swap {
    file: PolledFile,
    size: Metric,
    used: Metric,
    priority: Metric,
    /// Device and type, by their line.
    areas: Vec<(Box<str>, Box<str>)>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let gauge =
        |name: &str, help: &str| Metric::gauge(&format!("node_swap_{name}"), help, &["device", "swap_type"]);
    Box::new(Swap {
        file: PolledFile::new(setup.paths.procfs.join("swaps")),
        size: gauge("size_bytes", "Size of the area, in bytes."),
        used: gauge("used_bytes", "What is used of the area, in bytes."),
        priority: gauge("priority", "Priority of the area."),
        areas: Vec::new(),
    })
}

impl Collector for Swap {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        for (place, line) in lines(text.bytes).skip(1).enumerate() {
            let mut columns = fields(line);
            let (device, kind) = (columns.next().unwrap_or_default(), columns.next().unwrap_or_default());
            let mut numbers = columns.map(int);
            let (Some(Some(size)), Some(Some(used)), Some(Some(priority))) =
                (numbers.next(), numbers.next(), numbers.next())
            else {
                return Err(text.bad("a device, a type and three numbers are expected", line));
            };
            let is_it =
                |(known, of): &(Box<str>, Box<str>)| known.as_bytes() == device && of.as_bytes() == kind;
            if !self.areas.get(place).is_some_and(is_it) {
                self.areas.truncate(place);
                self.areas.push((label(device), label(kind)));
            }
            let (device, kind) = &self.areas[place];
            out.emit(&self.size, &[device, kind], size.wrapping_mul(UNIT_BYTES) as f64);
            out.emit(&self.used, &[device, kind], used.wrapping_mul(UNIT_BYTES) as f64);
            out.emit(&self.priority, &[device, kind], priority as f64);
        }
        Ok(())
    }
}
