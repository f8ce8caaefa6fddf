//! The kernel's object caches, `/proc/slabinfo` (Documentation/mm/slab.rst, `man 5 slabinfo`). It is for root.

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::filter::Filter;
use super::text::{fields, label, lines, uint};
use super::{CollectError, Collector, Setup};

/// The columns of version 2.1: name, five numbers, `: tunables` and three, `: slabdata` and three.
const COLUMNS: usize = 16;
/// Where the last three blocks' words stand.
const WORDS: [usize; 5] = [0, 6, 7, 11, 12];

/// The metrics of the first five numbers, in the file's order.
const METRICS: [(&str, &str); 5] = [
    ("active_objects", "Objects in use."),
    ("objects", "Objects there are."),
    ("object_size_bytes", "The size of an object."),
    ("objects_per_slab", "How many objects a slab has."),
    ("pages_per_slab", "How many pages a slab has."),
];

struct Slabinfo {
    file: PolledFile,
    filter: Filter,
    metrics: Vec<Metric>,
    /// By place.
    known: Vec<Slab>,
}

struct Slab {
    name: Box<[u8]>,
    /// The name as a label; none for one that is filtered out.
    wanted: Option<Box<str>>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let metric =
        |(name, help): &(&str, &str)| Metric::gauge(&format!("node_slabinfo_{name}"), help, &["slab"]);
    Box::new(Slabinfo {
        file: PolledFile::new(setup.paths.procfs.join("slabinfo")),
        filter: setup.settings.slabs.clone(),
        metrics: METRICS.iter().map(metric).collect(),
        known: Vec::new(),
    })
}

impl Collector for Slabinfo {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        let is_heading = |line: &&[u8]| line.starts_with(b"slabinfo -") || line.starts_with(b"# name");
        let mut place = 0;
        for line in lines(text.bytes).filter(|line| !is_heading(line)) {
            let mut numbers = [0; METRICS.len()];
            let mut count = 0;
            for (at, column) in fields(line).enumerate() {
                if !WORDS.contains(&at) {
                    let number = uint(column).ok_or_else(|| text.bad("a number is expected", line))?;
                    if let Some(value) = numbers.get_mut(at - 1) {
                        *value = number;
                    }
                }
                count += 1;
            }
            if count != COLUMNS {
                return Err(text.bad("16 columns are expected", line));
            }
            let name = fields(line).next().unwrap_or_default();
            if self.known.get(place).is_none_or(|known| *known.name != *name) {
                let slab = label(name);
                let wanted = self.filter.passes(&slab).then_some(slab);
                self.known.truncate(place);
                self.known.push(Slab { name: name.into(), wanted });
            }
            if let Some(Slab { wanted: Some(slab), .. }) = self.known.get(place) {
                for (metric, value) in self.metrics.iter().zip(numbers) {
                    out.emit(metric, &[slab], value as f64);
                }
            }
            place += 1;
        }
        self.known.truncate(place);
        Ok(())
    }
}
