//! Software RAID, from `/proc/mdstat` and `/sys/block/md*/md` (Documentation/admin-guide/md.rst).

use super::emit::{Emitter, Metric};
use super::file::{Content, PolledFile};
use super::sysfs::{Attribute, Devices, Entry, Page, Short, is_missing, no_data_if};
use super::text::{fields, label, uint};
use super::{CollectError, Collector, Setup};
use std::fs;
use std::path::Path;

/// The states that have a series each, and what they are called in this program.
const STATES: [(&str, State); 5] = [
    ("active", State::Active),
    ("check", State::Checking),
    ("inactive", State::Inactive),
    ("recovering", State::Recovering),
    ("resync", State::Resyncing),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    Inactive,
    Recovering,
    Resyncing,
    Checking,
    /// Another, such as `broken` or a reshape: none of the series says 1.
    Other,
}

struct Mdadm {
    mdstat: PolledFile,
    arrays: Devices<Array>,
    metrics: Metrics,
}

struct Metrics {
    required: Metric,
    disks: Metric,
    state: Metric,
    blocks: Metric,
    synced: Metric,
    raid_disks: Metric,
    degraded: Metric,
}

/// What `/proc/mdstat` says of an array.
#[derive(Debug, PartialEq)]
struct Stat<'a> {
    name: &'a [u8],
    state: State,
    active: u64,
    required: u64,
    failed: u64,
    spare: u64,
    blocks: u64,
    synced: u64,
}

/// An array in sysfs.
struct Array {
    /// What every array has; without one of them the array is none that this program knows.
    missing: Option<CollectError>,
    level: Attribute,
    raid_disks: Attribute,
    degraded: Attribute,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let metric = |name: &str, help: &str| Metric::gauge(&format!("node_md_{name}"), help, &["device"]);
    let with_state =
        |name: &str, help: &str| Metric::gauge(&format!("node_md_{name}"), help, &["device", "state"]);
    Box::new(Mdadm {
        mdstat: PolledFile::new(setup.paths.procfs.join("mdstat")),
        arrays: Devices::new(setup.paths.sysfs.join("block")),
        metrics: Metrics {
            required: metric("disks_required", "How many disks an array needs."),
            disks: with_state("disks", "How many disks of an array are in a state."),
            state: with_state("state", "1 for the state that an array is in."),
            blocks: metric("blocks", "How many blocks of 1024 bytes an array has."),
            synced: metric("blocks_synced", "How many blocks of an array are in sync."),
            raid_disks: metric("raid_disks", "How many disks an array has when it is whole."),
            degraded: metric("degraded", "How many disks an array lacks."),
        },
    })
}

impl Collector for Mdadm {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let Some(text) = self.mdstat.read_if_there()? else {
            return Err(CollectError::NoData("software RAID"));
        };
        for stat in &parse(text)? {
            self.metrics.emit(stat, out);
        }
        let mut found = Vec::new();
        match self.arrays.list(Array::new) {
            Ok(arrays) => {
                for array in arrays {
                    let (disks, degraded) = array
                        .is
                        .read()
                        .map_err(no_data_if(is_missing, "complete description of its arrays in sysfs"))?;
                    found.push((&array.name, disks, degraded));
                }
            }
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
        for (name, disks, degraded) in found {
            if let Some(disks) = disks {
                out.emit(&self.metrics.raid_disks, &[name], disks as f64);
            }
            out.emit(&self.metrics.degraded, &[name], degraded as f64);
        }
        Ok(())
    }
}

impl Metrics {
    fn emit(&self, stat: &Stat<'_>, out: &mut Emitter<'_>) {
        let name = label(stat.name);
        out.emit(&self.required, &[&name], stat.required as f64);
        for (state, disks) in [("active", stat.active), ("failed", stat.failed), ("spare", stat.spare)] {
            out.emit(&self.disks, &[&name, state], disks as f64);
        }
        for (words, state) in STATES {
            out.emit(&self.state, &[&name, words], f64::from(u8::from(state == stat.state)));
        }
        out.emit(&self.blocks, &[&name], stat.blocks as f64);
        out.emit(&self.synced, &[&name], stat.synced as f64);
    }
}

impl Array {
    fn new(entry: &Entry<'_>) -> Option<Self> {
        let dir = entry.path().join("md");
        (entry.name.starts_with("md") && dir.exists()).then(|| Self {
            missing: missing(&dir),
            level: Attribute::new(dir.join("level")),
            raid_disks: Attribute::new(dir.join("raid_disks")),
            degraded: Attribute::new(dir.join("degraded")),
        })
    }

    /// The array's disks, if it has such a number, and how many it lacks.
    fn read(&mut self) -> Result<(Option<u64>, u64), CollectError> {
        let mut buffer: Short = [0; 128];
        let level = self.level.required(&mut buffer)?;
        if let Some(CollectError::Read { path, source }) = &self.missing {
            return Err(CollectError::Read { path: path.clone(), source: source.kind().into() });
        }
        let mut page: Page = [0; 4096];
        let disks = match level {
            b"container" | b"imsm" | b"ddf" | b"" => None,
            // While an array grows, the number before stands in brackets behind.
            _ => fields(self.raid_disks.required(&mut page)?).next().and_then(uint),
        };
        let degraded = match level {
            b"raid1" | b"raid4" | b"raid5" | b"raid6" | b"raid10" => self.degraded.number(&mut page)?,
            _ => 0,
        };
        Ok((disks, degraded))
    }
}

fn missing(dir: &Path) -> Option<CollectError> {
    ["array_state", "metadata_version", "uuid"].into_iter().find_map(|name| {
        let path = dir.join(name);
        fs::metadata(&path).err().map(|source| CollectError::Read { path, source })
    })
}

/// The arrays of `/proc/mdstat`: each has a line that begins with its name, one with its blocks, perhaps one of its
/// bitmap and perhaps one that says how far a recovery is.
fn parse(text: Content<'_>) -> Result<Vec<Stat<'_>>, CollectError> {
    let lines: Vec<&[u8]> = text.bytes.split(|b| *b == b'\n').collect();
    let mut found = Vec::new();
    let mut personalities_seen = false;
    for (at, line) in lines.iter().enumerate() {
        if line.trim_ascii().is_empty() || line.starts_with(b" ") || line.starts_with(b"unused") {
            continue;
        }
        if !personalities_seen && line.starts_with(b"Personalities : ") {
            personalities_seen = fields(line).nth(2).is_some();
            continue;
        }
        let mut words = fields(line);
        let (Some(name), Some(_), Some(state)) = (words.next(), words.next(), words.next()) else {
            return Err(text.bad("`name : state` is expected", line));
        };
        let [status, third, fourth] = [at + 1, at + 2, at + 3].map(|at| lines.get(at).copied());
        let (Some(status), Some(third), Some(fourth)) = (status, third, fourth) else {
            return Err(text.bad("lines are missing after it", line));
        };
        let Some((active, required, blocks)) = disks_and_blocks(line, status) else {
            return Err(text.bad("`N blocks … [n/m] [UU_]` is expected", status));
        };
        let progress = if contains(third, b"bitmap") { fourth } else { third };
        let (state, synced) = match state_of(progress) {
            Some(state) if contains(progress, b"PENDING") || contains(progress, b"DELAYED") => (state, 0),
            Some(state) => {
                let synced = synced(progress);
                (state, synced.ok_or_else(|| text.bad("`(done/all)` is expected", progress))?)
            }
            None => (
                match state {
                    b"active" => State::Active,
                    b"inactive" => State::Inactive,
                    _ => State::Other,
                },
                blocks,
            ),
        };
        let count = |mark| line.windows(3).filter(|window| *window == mark).count() as u64;
        let (failed, spare) = (count(b"(F)"), count(b"(S)"));
        found.push(Stat { name, state, active, required, failed, spare, blocks, synced });
    }
    Ok(found)
}

/// Disks in use, disks that the array needs, and its blocks.
fn disks_and_blocks(line: &[u8], status: &[u8]) -> Option<(u64, u64, u64)> {
    let blocks = fields(status).next().and_then(uint)?;
    if contains(line, b"raid0") || contains(line, b"linear") {
        // Only disks have a number in brackets here; all of them are needed.
        let disks = memchr::memchr_iter(b'[', line).count() as u64;
        return Some((disks, disks, blocks));
    }
    if contains(line, b"inactive") {
        return Some((0, 0, blocks));
    }
    let numbers = fields(status).zip(fields(status).skip(1)).filter_map(|(numbers, marks)| {
        let inner = |word: &'_ [u8]| Some(word.strip_prefix(b"[")?.strip_suffix(b"]")?.to_vec());
        inner(marks)?.iter().all(|b| matches!(b, b'U' | b'_')).then_some(())?;
        let numbers = inner(numbers)?;
        let slash = numbers.iter().position(|b| *b == b'/')?;
        Some((uint(&numbers[slash + 1..])?, uint(&numbers[..slash])?))
    });
    let (active, required) = numbers.last()?;
    Some((active, required, blocks))
}

fn state_of(progress: &[u8]) -> Option<State> {
    [
        (b"recovery".as_slice(), State::Recovering),
        (b"reshape", State::Other),
        (b"check", State::Checking),
        (b"resync", State::Resyncing),
    ]
    .into_iter()
    .find_map(|(word, state)| contains(progress, word).then_some(state))
}

/// The blocks that are done, of `(done/all)`.
fn synced(progress: &[u8]) -> Option<u64> {
    let start = progress.iter().position(|b| *b == b'(')? + 1;
    let slash = start + progress[start..].iter().position(|b| *b == b'/')?;
    uint(&progress[start..slash])
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(text, word).is_some()
}
