//! Block caches, `/sys/fs/bcache/UUID` (Documentation/admin-guide/bcache.rst).

mod number;

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Devices, Entry, Page, is_missing};
use super::text::{fields, lines, uint};
use super::{CollectError, Collector, Setup};
use number::{sized, sized_with_sign};
use pegel_proto::metrics::MetricType::{self, Counter, Gauge};
use std::io::ErrorKind;
use std::path::Path;

/// The kernel says nanoseconds, whatever the attribute's name says.
const NANO: f64 = 1e-9;
const COUNT: f64 = 1.0;

/// The attribute, the metric's name, its type, its unit, its help.
type Row = (&'static str, &'static str, MetricType, f64, &'static str);

const OF_SET: [Row; 10] = [
    ("average_key_size", "average_key_size_sectors", Gauge, COUNT, "Data by key of the tree, in sectors."),
    ("btree_cache_size", "btree_cache_size_bytes", Gauge, COUNT, "Memory that the tree's cache takes."),
    (
        "cache_available_percent",
        "cache_available_percent",
        Gauge,
        COUNT,
        "How much of the cache is not dirty.",
    ),
    ("congested", "congested", Gauge, COUNT, "How congested the cache is."),
    ("root_usage_percent", "root_usage_percent", Gauge, COUNT, "How full the tree's root is."),
    ("tree_depth", "tree_depth", Gauge, COUNT, "How deep the tree is."),
    (
        "internal/active_journal_entries",
        "active_journal_entries",
        Gauge,
        COUNT,
        "Entries of the journal that are newer than the index.",
    ),
    ("internal/btree_nodes", "btree_nodes", Gauge, COUNT, "Nodes of the tree."),
    (
        "internal/btree_read_average_duration_us",
        "btree_read_average_duration_seconds",
        Gauge,
        NANO,
        "How long reading a node takes.",
    ),
    (
        "internal/cache_read_races",
        "cache_read_races_total",
        Counter,
        COUNT,
        "Reads whose bucket was used anew meanwhile.",
    ),
];

/// Lines of `writeback_rate_debug` with their name, in the order of the metrics.
const WRITEBACK: [Row; 5] = [
    ("target:", "dirty_target_bytes", Gauge, COUNT, "How much dirty data there should be."),
    ("rate:", "writeback_rate", Gauge, COUNT, "How fast dirty data is written back, in bytes a second."),
    ("proportional:", "writeback_rate_proportional_term", Gauge, COUNT, "The proportional part of the rate."),
    ("integral:", "writeback_rate_integral_term", Gauge, COUNT, "The integral part of the rate."),
    ("change:", "writeback_change", Gauge, COUNT, "The last change of the rate."),
];

/// Of a backing device since it was attached.
const TOTALS: [Row; 7] = [
    ("bypassed", "bypassed_bytes_total", Counter, COUNT, "Data that went past the cache."),
    ("cache_hits", "cache_hits_total", Counter, COUNT, "Requests that the cache answered."),
    ("cache_misses", "cache_misses_total", Counter, COUNT, "Requests that the cache did not answer."),
    ("cache_bypass_hits", "cache_bypass_hits_total", Counter, COUNT, "Requests past the cache that it had."),
    (
        "cache_bypass_misses",
        "cache_bypass_misses_total",
        Counter,
        COUNT,
        "Requests past the cache that it had not.",
    ),
    (
        "cache_miss_collisions",
        "cache_miss_collisions_total",
        Counter,
        COUNT,
        "Misses whose data a write put there meanwhile.",
    ),
    (READAHEADS, "cache_readaheads_total", Counter, COUNT, "Readaheads."),
];

/// Told only where there are any: Linux 5.18 dropped it.
const READAHEADS: &str = "cache_readaheads";

const OF_CACHE: [Row; 3] = [
    ("io_errors", "io_errors", Gauge, COUNT, "Errors, which are forgotten with time."),
    ("metadata_written", "metadata_written_bytes_total", Counter, COUNT, "Bytes of metadata written."),
    ("written", "written_bytes_total", Counter, COUNT, "Bytes of data written."),
];

/// Lines of `priority_stats`.
const PRIORITIES: [Row; 2] = [
    ("Unused:", "priority_stats_unused_percent", Gauge, COUNT, "How much of the cache has no data."),
    ("Metadata:", "priority_stats_metadata_percent", Gauge, COUNT, "How much of the cache is metadata."),
];

struct Bcache {
    sets: Devices<CacheSet>,
    with_priorities: bool,
    metrics: Metrics,
}

struct Metrics {
    of_set: Vec<Metric>,
    dirty: Metric,
    writeback: Vec<Metric>,
    totals: Vec<Metric>,
    of_cache: Vec<Metric>,
    priorities: Vec<Metric>,
}

struct CacheSet {
    numbers: [Attribute; OF_SET.len()],
    backing: Devices<Backing>,
    caches: Devices<Cache>,
}

struct Backing {
    dirty: Attribute,
    writeback: Attribute,
    totals: [Attribute; TOTALS.len()],
}

struct Cache {
    numbers: [Attribute; OF_CACHE.len()],
    priorities: Attribute,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let metric = |name: &str, kind, help: &str, labels| {
        Metric::new(&format!("node_bcache_{name}"), help, kind, labels)
    };
    let metrics = |rows: &[Row], labels: &'static [&'static str]| -> Vec<Metric> {
        rows.iter().map(|(_, name, kind, _, help)| metric(name, *kind, help, labels)).collect()
    };
    let of_backing: &[&str] = &["backing_device", "uuid"];
    let of_cache: &[&str] = &["cache_device", "uuid"];
    Box::new(Bcache {
        sets: Devices::new(setup.paths.sysfs.join("fs/bcache")),
        with_priorities: setup.settings.bcache_priority_stats,
        metrics: Metrics {
            of_set: metrics(&OF_SET, &["uuid"]),
            dirty: metric("dirty_data_bytes", Gauge, "Dirty data of a device in the cache.", of_backing),
            writeback: metrics(&WRITEBACK, of_backing),
            totals: metrics(&TOTALS, of_backing),
            of_cache: metrics(&OF_CACHE, of_cache),
            priorities: metrics(&PRIORITIES, of_cache),
        },
    })
}

impl Collector for Bcache {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let make = |entry: &Entry<'_>| entry.name.contains('-').then(|| CacheSet::new(&entry.path()));
        let sets = match self.sets.list(make) {
            Err(error) if is_missing(&error) => return Ok(()),
            sets => sets?,
        };
        out.whole(|out| {
            for set in sets {
                set.is.emit(&set.name, &self.metrics, self.with_priorities, out)?;
            }
            Ok(())
        })
    }
}

impl CacheSet {
    fn new(dir: &Path) -> Self {
        Self {
            numbers: OF_SET.map(|(name, ..)| Attribute::new(dir.join(name))),
            backing: Devices::new(dir),
            caches: Devices::new(dir),
        }
    }

    fn emit(
        &mut self,
        uuid: &str,
        metrics: &Metrics,
        with_priorities: bool,
        out: &mut Emitter<'_>,
    ) -> Result<(), CollectError> {
        for ((attribute, metric), (.., unit, _)) in self.numbers.iter_mut().zip(&metrics.of_set).zip(OF_SET) {
            out.emit(metric, &[uuid], number(attribute)? as f64 * unit);
        }
        for device in
            self.backing.list(|entry| entry.numbered("bdev").map(|_| Backing::new(&entry.path())))?
        {
            device.is.emit(&[&device.name, uuid], metrics, out)?;
        }
        for device in self.caches.list(|entry| entry.numbered("cache").map(|_| Cache::new(&entry.path())))? {
            let labels: [&str; 2] = [&device.name, uuid];
            for (attribute, metric) in device.is.numbers.iter_mut().zip(&metrics.of_cache) {
                out.emit(metric, &labels, number(attribute)? as f64);
            }
            if with_priorities {
                device.is.emit_priorities(&labels, metrics, out)?;
            }
        }
        Ok(())
    }
}

impl Backing {
    fn new(dir: &Path) -> Self {
        Self {
            dirty: Attribute::new(dir.join("dirty_data")),
            writeback: Attribute::new(dir.join("writeback_rate_debug")),
            totals: TOTALS.map(|(name, ..)| Attribute::new(dir.join("stats_total").join(name))),
        }
    }

    fn emit(
        &mut self,
        labels: &[&str],
        metrics: &Metrics,
        out: &mut Emitter<'_>,
    ) -> Result<(), CollectError> {
        out.emit(&metrics.dirty, labels, number(&mut self.dirty)? as f64);
        let mut page: Page = [0; 4096];
        let text = self.writeback.required(&mut page)?;
        for ((line, ..), metric) in WRITEBACK.iter().zip(&metrics.writeback) {
            let found = lines(text).find(|found| found.starts_with(line.as_bytes()));
            let value = match found.and_then(|found| fields(found).last()) {
                None => 0.0,
                Some(value) => {
                    let amount = value.strip_suffix(b"/sec").unwrap_or(value);
                    // The target and the rate have no sign.
                    let value = match *line {
                        "target:" | "rate:" => sized(amount).map(|value| value as f64),
                        _ => sized_with_sign(amount).map(|value| value as f64),
                    };
                    value.ok_or_else(|| self.writeback.bad("`name: size` is expected", amount))?
                }
            };
            out.emit(metric, labels, value);
        }
        for ((attribute, metric), (name, ..)) in self.totals.iter_mut().zip(&metrics.totals).zip(TOTALS) {
            let value = number(attribute)?;
            if name != READAHEADS || value != 0 {
                out.emit(metric, labels, value as f64);
            }
        }
        Ok(())
    }
}

impl Cache {
    fn new(dir: &Path) -> Self {
        Self {
            numbers: OF_CACHE.map(|(name, ..)| Attribute::new(dir.join(name))),
            priorities: Attribute::new(dir.join("priority_stats")),
        }
    }

    /// Reading them has the kernel go through all buckets.
    fn emit_priorities(
        &mut self,
        labels: &[&str],
        metrics: &Metrics,
        out: &mut Emitter<'_>,
    ) -> Result<(), CollectError> {
        let mut page: Page = [0; 4096];
        let text = self.priorities.required(&mut page)?;
        for ((line, ..), metric) in PRIORITIES.iter().zip(&metrics.priorities) {
            let found = lines(text).find(|found| found.starts_with(line.as_bytes()));
            let value = match found.and_then(|found| fields(found).last()) {
                None => 0,
                Some(value) => uint(value.strip_suffix(b"%").unwrap_or(value))
                    .ok_or_else(|| self.priorities.bad("a percentage is expected", value))?,
            };
            out.emit(metric, labels, value as f64);
        }
        Ok(())
    }
}

/// A number; zero where there is none.
fn number(attribute: &mut Attribute) -> Result<u64, CollectError> {
    let mut page: Page = [0; 4096];
    let missing = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
    match attribute.read_unless(&mut page, missing)? {
        None => Ok(0),
        Some(text) => sized(text).ok_or_else(|| attribute.bad("a size is expected", text)),
    }
}
