//! ZFS: the adaptive replacement cache and other parts, pools and datasets, `/proc/spl/kstat/zfs`
//! (OpenZFS, `man 4 spl`).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::sysfs::{Attribute, Devices, Entry, Page, is_missing, no_data_if};
use super::text::{KeyCache, fields, is_metric_name, label, lines, uint};
use super::{CollectError, Collector, Setup};
use pegel_proto::metrics::MetricType;

/// The parts, and what their metrics' names begin with.
const PARTS: [(&str, &str); 11] = [
    ("abdstats", "zfs_abd"),
    ("arcstats", "zfs_arc"),
    ("dbufstats", "zfs_dbuf"),
    ("dmu_tx", "zfs_dmu_tx"),
    ("dnodestats", "zfs_dnode"),
    ("fm", "zfs_fm"),
    ("vdev_cache_stats", "zfs_vdev_cache"),
    ("vdev_mirror_stats", "zfs_vdev_mirror"),
    ("xuio_stats", "zfs_xuio"),
    ("zfetchstats", "zfs_zfetch"),
    ("zil", "zfs_zil"),
];

/// The states of a pool.
const STATES: [&str; 7] = ["degraded", "faulted", "offline", "online", "removed", "suspended", "unavail"];

/// `KSTAT_DATA_INT64` and `KSTAT_DATA_UINT64`: the types of values that are numbers.
const SIGNED: &[u8] = b"3";
const UNSIGNED: &[u8] = b"4";

/// The line before the values.
const HEADING: [&[u8]; 3] = [b"name", b"type", b"data"];

/// A pool's table of its input and output has at least these columns.
const LEAST_COLUMNS: usize = 12;

struct Zfs {
    parts: Vec<(PolledFile, &'static str, KeyCache)>,
    pools: Devices<Pool>,
    of_pool: KeyCache,
    of_dataset: KeyCache,
    state: Metric,
}

struct Pool {
    io: Attribute,
    state: Attribute,
    datasets: Devices<Dataset>,
}

struct Dataset {
    statistics: Attribute,
    name: Box<str>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let root = setup.paths.procfs.join("spl/kstat/zfs");
    let part = |(file, prefix): &(&str, &'static str)| {
        (PolledFile::new(root.join(file)), *prefix, KeyCache::default())
    };
    Box::new(Zfs {
        parts: PARTS.iter().map(part).collect(),
        pools: Devices::new(root),
        of_pool: KeyCache::default(),
        of_dataset: KeyCache::default(),
        state: Metric::gauge(
            "node_zfs_zpool_state",
            "1 for the state that a pool is in.",
            &["state", "zpool"],
        ),
    })
}

impl Collector for Zfs {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let make = |entry: &Entry<'_>| (!entry.is_file()).then(|| Pool::new(entry));
        let pools = self.pools.list(make).map_err(no_data_if(is_missing, "ZFS"))?;
        for (file, prefix, keys) in &mut self.parts {
            // Versions of ZFS differ in what they have.
            let Ok(Some(text)) = file.read_if_there() else { continue };
            let make = |key: &[u8]| untyped(prefix, key, &[]);
            let emit = |metric: &Metric, value| out.emit(metric, &[], value);
            statistics(text.bytes, keys, make, emit, |_| {}).map_err(|(what, line)| text.bad(what, line))?;
        }
        let mut page: Page = [0; 4096];
        for pool in &mut *pools {
            let name: &str = &pool.name;
            let Ok(text) = pool.is.io.read(&mut page) else { continue };
            let emit = |metric: &Metric, value| out.emit(metric, &[name], value);
            table(text, &mut self.of_pool, emit).map_err(|(what, line)| pool.is.io.bad(what, line))?;
        }
        for pool in &mut *pools {
            for dataset in pool.is.datasets.list(Dataset::new)? {
                dataset.is.emit(&pool.name, &mut self.of_dataset, out)?;
            }
        }
        for pool in pools {
            let Ok(text) = pool.is.state.read(&mut page) else { continue };
            let now = text.split(|b| *b == b'\n').next().unwrap_or_default().to_ascii_lowercase();
            for state in STATES {
                let value = f64::from(u8::from(state.as_bytes() == now));
                out.emit(&self.state, &[state, &pool.name], value);
            }
        }
        Ok(())
    }
}

impl Pool {
    fn new(entry: &Entry<'_>) -> Self {
        let dir = entry.path();
        Self {
            io: Attribute::new(dir.join("io")),
            state: Attribute::new(dir.join("state")),
            datasets: Devices::new(dir),
        }
    }
}

impl Dataset {
    fn new(entry: &Entry<'_>) -> Option<Self> {
        let is_one = entry.name.starts_with("objset-");
        is_one.then(|| Self { statistics: Attribute::new(entry.path()), name: Box::default() })
    }

    fn emit(&mut self, pool: &str, keys: &mut KeyCache, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let mut page: Page = [0; 4096];
        // A pool that is just exported takes its files along.
        let Ok(text) = self.statistics.read(&mut page) else { return Ok(()) };
        let mut name = None;
        let labels: &'static [&'static str] = &["dataset", "zpool"];
        let make = |key: &[u8]| untyped("zfs_zpool_dataset", key, labels);
        // The name stands first; what would come before it belongs to none.
        let mut values = Vec::new();
        let emit = |metric: &Metric, value| values.push((metric.clone(), value));
        statistics(text, keys, make, emit, |found| name = Some(found))
            .map_err(|(what, line)| self.statistics.bad(what, line))?;
        let name = name.unwrap_or_default();
        if *self.name.as_bytes() != *name {
            self.name = label(name);
        }
        for (metric, value) in values {
            out.emit(&metric, &[&self.name, pool], value);
        }
        Ok(())
    }
}

/// What is wrong, and the line in which it is.
type Wrong<'a> = (&'static str, &'a [u8]);

/// Goes through `name type data` lines: numbers go to `emit`, a dataset's name to `named`.
fn statistics<'a>(
    text: &'a [u8],
    keys: &mut KeyCache,
    make: impl Fn(&[u8]) -> Option<Metric>,
    mut emit: impl FnMut(&Metric, f64),
    mut named: impl FnMut(&'a [u8]),
) -> Result<(), Wrong<'a>> {
    let mut rest = lines(text);
    if !rest.by_ref().any(|line| fields(line).eq(HEADING)) {
        return Err(("the heading `name type data` is expected", text));
    }
    // Lines without a number have no place among the keys.
    let mut place = 0;
    for line in rest {
        let mut columns = fields(line);
        let (Some(key), Some(kind), Some(value)) = (columns.next(), columns.next(), columns.next()) else {
            continue;
        };
        if key == b"dataset_name" {
            // A name may have blanks.
            let rest = line[key.len()..].trim_ascii_start();
            named(rest[kind.len()..].trim_ascii_start());
            continue;
        }
        let value = match kind {
            UNSIGNED => uint(value).map(|value| value as f64),
            SIGNED => {
                let value = std::str::from_utf8(value).ok().and_then(|value| value.parse::<i64>().ok());
                value.map(|value| value as f64)
            }
            _ => continue,
        };
        let value = value.ok_or(("a number is expected", line))?;
        if let Some(metric) = keys.metric(place, key, &make) {
            emit(metric, value);
        }
        place += 1;
    }
    Ok(())
}

/// Goes through a table: a line of names, lines of numbers.
fn table<'a>(
    text: &'a [u8],
    keys: &mut KeyCache,
    mut emit: impl FnMut(&Metric, f64),
) -> Result<(), Wrong<'a>> {
    let mut rest = lines(text);
    let is_heading =
        |line: &&[u8]| fields(line).next() == Some(b"nread") && fields(line).count() >= LEAST_COLUMNS;
    let Some(heading) = rest.find(is_heading) else { return Ok(()) };
    for line in rest {
        let mut values = fields(line);
        for (place, key) in fields(heading).enumerate() {
            let value = values.next().and_then(uint).ok_or(("a number for each column is expected", line))?;
            let make = |key: &[u8]| untyped("zfs_zpool", key, &["zpool"]);
            if let Some(metric) = keys.metric(place, key, make) {
                emit(metric, value as f64);
            }
        }
    }
    Ok(())
}

/// The metric of a key; none if it cannot be one.
fn untyped(prefix: &str, key: &[u8], labels: &'static [&'static str]) -> Option<Metric> {
    let last = key.rsplit(|b| *b == b'.').next()?;
    let name = label(last).replace('-', "_");
    let help = format!("`{}` of ZFS's statistics.", label(key));
    let named = || Metric::new(&format!("node_{prefix}_{name}"), &help, MetricType::Unknown, labels);
    is_metric_name(name.as_bytes()).then(named)
}
