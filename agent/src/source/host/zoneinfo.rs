//! Zones of memory, `/proc/zoneinfo` (`man 5 proc_zoneinfo`).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::sysfs::int_any_base;
use super::text::{fields, lines};
use super::{CollectError, Collector, Setup};
use pegel_proto::metrics::MetricType::{self, Counter, Gauge};

/// The key, the metric's name, its type.
const NUMBERS: [(&str, &str, MetricType); 34] = [
    ("nr_free_pages", "nr_free_pages", Gauge),
    ("min", "min_pages", Gauge),
    ("low", "low_pages", Gauge),
    ("high", "high_pages", Gauge),
    ("scanned", "scanned_pages", Gauge),
    ("spanned", "spanned_pages", Gauge),
    ("present", "present_pages", Gauge),
    ("managed", "managed_pages", Gauge),
    ("nr_active_anon", "nr_active_anon_pages", Gauge),
    ("nr_inactive_anon", "nr_inactive_anon_pages", Gauge),
    ("nr_isolated_anon", "nr_isolated_anon_pages", Gauge),
    ("nr_anon_pages", "nr_anon_pages", Gauge),
    ("nr_anon_transparent_hugepages", "nr_anon_transparent_hugepages", Gauge),
    ("nr_active_file", "nr_active_file_pages", Gauge),
    ("nr_inactive_file", "nr_inactive_file_pages", Gauge),
    ("nr_isolated_file", "nr_isolated_file_pages", Gauge),
    ("nr_file_pages", "nr_file_pages", Gauge),
    ("nr_slab_reclaimable", "nr_slab_reclaimable_pages", Gauge),
    ("nr_slab_unreclaimable", "nr_slab_unreclaimable_pages", Gauge),
    ("nr_mlock_stack", "nr_mlock_stack_pages", Gauge),
    ("nr_kernel_stack", "nr_kernel_stacks", Gauge),
    ("nr_mapped", "nr_mapped_pages", Gauge),
    ("nr_dirty", "nr_dirty_pages", Gauge),
    ("nr_writeback", "nr_writeback_pages", Gauge),
    ("nr_unevictable", "nr_unevictable_pages", Gauge),
    ("nr_shmem", "nr_shmem_pages", Gauge),
    ("nr_dirtied", "nr_dirtied_total", Counter),
    ("nr_written", "nr_written_total", Counter),
    ("numa_hit", "numa_hit_total", Counter),
    ("numa_miss", "numa_miss_total", Counter),
    ("numa_foreign", "numa_foreign_total", Counter),
    ("numa_interleave", "numa_interleave_total", Counter),
    ("numa_local", "numa_local_total", Counter),
    ("numa_other", "numa_other_total", Counter),
];

const LABELS: &[&str] = &["node", "zone"];

struct Zoneinfo {
    file: PolledFile,
    metrics: Metrics,
}

struct Metrics {
    numbers: Vec<Metric>,
    /// By place in the list of the zones below.
    protection: Vec<Metric>,
}

/// What was read of a zone so far.
struct Zone<'a> {
    node: &'a [u8],
    name: &'a [u8],
    numbers: [Option<i64>; NUMBERS.len()],
    protection: &'a [u8],
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let metric = |(key, name, kind): &(&str, &str, MetricType)| {
        Metric::new(&format!("node_zoneinfo_{name}"), &format!("`{key}` of a zone."), *kind, LABELS)
    };
    Box::new(Zoneinfo {
        file: PolledFile::new(setup.paths.procfs.join("zoneinfo")),
        metrics: Metrics { numbers: NUMBERS.iter().map(metric).collect(), protection: Vec::new() },
    })
}

impl Collector for Zoneinfo {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        let mut zone: Option<Zone<'_>> = None;
        for line in lines(text.bytes) {
            let mut words = fields(line);
            let (Some(key), Some(value)) = (words.next(), words.next()) else { continue };
            if key == b"Node" {
                if let Some(zone) = zone.take() {
                    self.metrics.emit(&zone, out).map_err(|bad| text.bad("a number is expected", bad))?;
                }
                let node = value.strip_suffix(b",").unwrap_or(value);
                let name = words.nth(1).unwrap_or_default();
                zone = Some(Zone { node, name, numbers: [None; NUMBERS.len()], protection: b"" });
                continue;
            }
            let Some(zone) = &mut zone else {
                return Err(text.bad("`Node n, zone name` is expected first", line));
            };
            if key == b"protection:" {
                zone.protection = line;
            } else if let Some(at) = NUMBERS.iter().position(|(known, ..)| known.as_bytes() == key) {
                let value = int_any_base(value).ok_or_else(|| text.bad("a number is expected", line))?;
                zone.numbers[at] = Some(value);
            }
        }
        match zone {
            Some(zone) => self.metrics.emit(&zone, out).map_err(|bad| text.bad("a number is expected", bad)),
            None => Ok(()),
        }
    }
}

impl Metrics {
    fn emit<'a>(&mut self, zone: &Zone<'a>, out: &mut Emitter<'_>) -> Result<(), &'a [u8]> {
        let (node, name) = (String::from_utf8_lossy(zone.node), String::from_utf8_lossy(zone.name));
        let labels = [&*node, &*name];
        for (metric, value) in self.numbers.iter().zip(zone.numbers) {
            if let Some(value) = value {
                out.emit(metric, &labels, value as f64);
            }
        }
        let numbers = zone.protection.iter().position(|b| *b == b'(').map(|at| &zone.protection[at + 1..]);
        let numbers = numbers.unwrap_or_default();
        let numbers = numbers.split(|b| *b == b')').next().unwrap_or_default();
        for (place, number) in numbers.split(|b| *b == b',').filter(|n| !n.is_empty()).enumerate() {
            let value = int_any_base(number.trim_ascii()).ok_or(zone.protection)?;
            if self.protection.len() == place {
                let name = format!("node_zoneinfo_protection_{place}");
                let help = format!("Pages that a zone keeps from allocations for zone {place}.");
                self.protection.push(Metric::gauge(&name, &help, LABELS));
            }
            out.emit(&self.protection[place], &labels, value as f64);
        }
        Ok(())
    }
}
