//! Tape drives, `/sys/class/scsi_tape/stN/stats` (Documentation/scsi/st.rst).

use super::emit::{Emitter, Metric};
use super::filter::Filter;
use super::sysfs::{Attribute, Devices, Entry, Short, is_missing, no_data_if, uint_any_base};
use super::{CollectError, Collector, Setup};
use pegel_proto::metrics::MetricType::{self, Counter, Gauge};

const COUNT: f64 = 1.0;
/// The kernel says nanoseconds.
const NANO: f64 = 0.000_000_001;

/// The attribute, the metric's name, its type, the unit, its help.
const NUMBERS: [(&str, &str, MetricType, f64, &str); 10] = [
    ("in_flight", "io_now", Gauge, COUNT, "Requests that wait for the drive."),
    ("io_ns", "io_time_seconds_total", Counter, NANO, "Time that all requests took."),
    ("other_cnt", "io_others_total", Counter, COUNT, "Requests other than reads and writes."),
    ("read_byte_cnt", "read_bytes_total", Counter, COUNT, "Bytes read."),
    ("read_cnt", "reads_completed_total", Counter, COUNT, "Reads."),
    ("read_ns", "read_time_seconds_total", Counter, NANO, "Time that reads took."),
    ("resid_cnt", "residual_total", Counter, COUNT, "Reads and writes that moved less than was asked for."),
    ("write_byte_cnt", "written_bytes_total", Counter, COUNT, "Bytes written."),
    ("write_cnt", "writes_completed_total", Counter, COUNT, "Writes."),
    ("write_ns", "write_time_seconds_total", Counter, NANO, "Time that writes took."),
];

struct Tapes {
    drives: Devices<Drive>,
    filter: Filter,
    metrics: Vec<Metric>,
}

struct Drive {
    stats: std::path::PathBuf,
    numbers: [Attribute; NUMBERS.len()],
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let metric = |(_, name, kind, _, help): &(&str, &str, MetricType, f64, &str)| {
        Metric::new(&format!("node_tape_{name}"), help, *kind, &["device"])
    };
    Box::new(Tapes {
        drives: Devices::new(setup.paths.sysfs.join("class/scsi_tape")),
        filter: setup.settings.tapes.clone(),
        metrics: NUMBERS.iter().map(metric).collect(),
    })
}

impl Collector for Tapes {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let filter = &self.filter;
        // A drive has entries for its modes and for not rewinding, such as `nst0a`.
        let make = |entry: &Entry<'_>| {
            let digits = entry.name.strip_prefix("st")?;
            let is_drive = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            (is_drive && filter.passes(entry.name)).then(|| Drive::new(entry))
        };
        out.whole(|out| {
            for drive in self.drives.list(make)? {
                drive.is.emit(&drive.name, &self.metrics, out)?;
            }
            Ok(())
        })
        .map_err(no_data_if(is_missing, "tape drives, or no statistics of them"))
    }
}

impl Drive {
    fn new(entry: &Entry<'_>) -> Self {
        let stats = entry.path().join("stats");
        Self { numbers: NUMBERS.map(|(name, ..)| Attribute::new(stats.join(name))), stats }
    }

    fn emit(&mut self, name: &str, metrics: &[Metric], out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        let mut buffer: Short = [0; 128];
        let mut found = false;
        for ((attribute, metric), (.., unit, _)) in self.numbers.iter_mut().zip(metrics).zip(NUMBERS) {
            let value = match attribute.read_unless(&mut buffer, missing)? {
                // A kernel that does not count this says nothing of it: it counts as none.
                None => 0,
                Some(text) => {
                    found = true;
                    uint_any_base(text).ok_or_else(|| attribute.bad("a number is expected", text))?
                }
            };
            out.emit(metric, &[name], value as f64 * unit);
        }
        if !found {
            std::fs::metadata(&self.stats)
                .map_err(|source| CollectError::Read { path: self.stats.clone(), source })?;
        }
        Ok(())
    }
}
