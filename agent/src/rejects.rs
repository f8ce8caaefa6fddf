//! Records that an output refused, kept with the reason: `pegel-agent rejects` lists them and sends them again.
//!
//! Two files of JSON lines, the newer growing to half the bound, then taking the older one's place. So what is kept
//! is always the latest, and the bound holds whatever a backend refuses. The records are written before the cursor
//! that passes them is remembered; a kill in between repeats a rejection, it never forgets one.

use bytes::Bytes;
use pegel_proto::batch::{Batch, Content, Logs, Rejection};
use pegel_proto::logs::BlockBuilder;
use pegel_proto::metrics::{Block, Family, Labels, NAME_LABEL, Series, SeriesSet, full_labels};
use pegel_runtime::metrics::{Counter, Registry};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The default bound of both files together: some 50,000 samples with their labels.
pub const DEFAULT_REJECTS_BYTES: u64 = 8 << 20;

const NEWER: &str = "rejects.jsonl";
const OLDER: &str = "rejects.1.jsonl";

/// One rejection as kept: a line of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptRejection {
    /// When it was refused, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The output that refused.
    pub output: String,
    /// The batch.
    pub seq: u64,
    /// The reason's name.
    pub reason: String,
    /// What the backend said.
    pub message: String,
    /// The samples, where metrics were refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<KeptSample>,
    /// The log entries, where logs were refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<KeptEntry>,
}

/// One refused log entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptEntry {
    /// Its stream.
    pub labels: BTreeMap<String, String>,
    /// Its time, nanoseconds since the Unix epoch.
    pub at_ns: i64,
    /// Its line.
    pub line: String,
    /// Its structured metadata.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<(String, String)>,
}

/// One refused sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptSample {
    /// All labels, the name among them.
    pub labels: BTreeMap<String, String>,
    /// The sample's time, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The value as people read it.
    pub value: String,
    /// The value's bits, so that a NaN comes back as it was.
    pub bits: u64,
}

/// The bounded store.
#[derive(Debug)]
pub struct Rejects {
    dir: PathBuf,
    half_bytes: u64,
    newer: Option<(BufWriter<File>, u64)>,
    not_kept: Counter,
    failing: bool,
}

impl Rejects {
    /// A store in this directory, which is made when the first record is kept.
    pub fn new(dir: PathBuf, limit_bytes: u64, registry: &Registry) -> Self {
        let not_kept = registry.counter(
            "pegel_rejects_not_kept_samples_total",
            "Refused samples that could not be written to the reject files; they are counted as rejected all the same.",
            &[],
        );
        Self { dir, half_bytes: limit_bytes / 2, newer: None, not_kept, failing: false }
    }

    /// Keeps the refused records of a batch.
    pub fn keep(&mut self, now_ms: i64, output: &str, rejection: &Rejection, batch: &Batch) {
        let kept = KeptRejection {
            at_ms: now_ms,
            output: output.to_owned(),
            seq: rejection.seq.0,
            reason: rejection.reason.name().to_owned(),
            message: rejection.message.clone(),
            samples: samples_of(rejection, batch),
            entries: entries_of(rejection, batch),
        };
        match self.write(&kept) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.newer = None;
                self.not_kept.add((kept.samples.len() + kept.entries.len()) as u64);
                if !self.failing {
                    tracing::warn!(dir = %self.dir.display(), %error, "cannot keep refused samples; they are counted only");
                }
                self.failing = true;
            }
        }
    }

    fn write(&mut self, kept: &KeptRejection) -> io::Result<()> {
        let line = serde_json::to_vec(kept)?;
        if self.newer.as_ref().is_some_and(|(_, size)| size + line.len() as u64 > self.half_bytes) {
            self.newer = None;
            fs::rename(self.dir.join(NEWER), self.dir.join(OLDER))?;
        }
        if self.newer.is_none() {
            fs::create_dir_all(&self.dir)?;
            let file = OpenOptions::new().create(true).append(true).open(self.dir.join(NEWER))?;
            let size = file.metadata()?.len();
            self.newer = Some((BufWriter::new(file), size));
        }
        let (file, size) = self.newer.as_mut().expect("opened above");
        file.write_all(&line)?;
        file.write_all(b"\n")?;
        file.flush()?;
        *size += line.len() as u64 + 1;
        Ok(())
    }

    /// What is kept: of one output, or all.
    pub fn list(&self, output: Option<&str>) -> io::Result<Vec<KeptRejection>> {
        let mut kept = read(&self.dir)?;
        kept.retain(|kept| output.is_none_or(|name| name == kept.output));
        Ok(kept)
    }

    /// Takes kept rejections out, to be sent again: those of one output, or all.
    pub fn take(&mut self, output: Option<&str>) -> io::Result<Vec<KeptRejection>> {
        self.newer = None;
        let (taken, left): (Vec<_>, Vec<_>) =
            read(&self.dir)?.into_iter().partition(|kept| output.is_none_or(|name| name == kept.output));
        if !left.is_empty() {
            let mut lines = Vec::new();
            for kept in &left {
                serde_json::to_writer(&mut lines, kept)?;
                lines.push(b'\n');
            }
            let fresh = self.dir.join("rejects.new");
            fs::write(&fresh, lines)?;
            fs::rename(fresh, self.dir.join(OLDER))?;
        }
        let gone: &[&str] = if left.is_empty() { &[OLDER, NEWER] } else { &[NEWER] };
        for name in gone {
            match fs::remove_file(self.dir.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(taken)
    }
}

/// Reads what is kept in a directory, oldest first. A line that a kill cut short is passed over.
pub fn read(dir: &Path) -> io::Result<Vec<KeptRejection>> {
    let mut kept = Vec::new();
    for name in [OLDER, NEWER] {
        match File::open(dir.join(name)) {
            Ok(file) => {
                for line in BufReader::new(file).split(b'\n') {
                    kept.extend(serde_json::from_slice::<KeptRejection>(&line?).ok());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(kept)
}

fn is_refused(rejection: &Rejection, index: u32) -> bool {
    rejection.records.iter().any(|(first, n)| (*first..first.saturating_add(*n)).contains(&index))
}

fn entries_of(rejection: &Rejection, batch: &Batch) -> Vec<KeptEntry> {
    let Content::Logs(logs) = &batch.content else { return Vec::new() };
    // The block is our own and was read back by nobody else: that it can't be decoded is a fault to tell.
    let block = match logs.block.decode() {
        Ok(block) => block,
        Err(error) => {
            tracing::error!(%error, seq = %batch.seq, "refused log entries can't be kept");
            return Vec::new();
        }
    };
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    block
        .entries()
        .enumerate()
        .filter(|(index, _)| is_refused(rejection, *index as u32))
        .map(|(_, entry)| KeptEntry {
            labels: block.labels(entry.stream()).map(own).collect(),
            at_ns: entry.at_ns(),
            line: entry.line().to_owned(),
            metadata: entry.metadata().map(own).collect(),
        })
        .collect()
}

fn samples_of(rejection: &Rejection, batch: &Batch) -> Vec<KeptSample> {
    let all = batch.blocks().iter().flat_map(|block| (0..block.values.len()).map(move |i| (block, i)));
    all.enumerate()
        .filter(|(index, _)| is_refused(rejection, *index as u32))
        .map(|(_, (block, i))| {
            let labels = full_labels(block.set.target(), block.set.series()[i].labels());
            KeptSample {
                labels: labels.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
                at_ms: block.stamp_ms(i),
                value: block.values[i].to_string(),
                bits: block.values[i].to_bits(),
            }
        })
        .collect()
}

/// The blocks that send kept samples again, one for each instant, oldest first.
pub fn replay_blocks(kept: &[KeptRejection]) -> Vec<Block> {
    // A sample that two outputs refused is sent once.
    let mut by_instant: BTreeMap<i64, BTreeMap<&BTreeMap<String, String>, &KeptSample>> = BTreeMap::new();
    for sample in kept.iter().flat_map(|k| &k.samples) {
        by_instant.entry(sample.at_ms).or_default().insert(&sample.labels, sample);
    }
    let mut blocks = Vec::new();
    for (at_ms, samples) in by_instant {
        let mut series = Vec::with_capacity(samples.len());
        let mut values = Vec::with_capacity(samples.len());
        for sample in samples.into_values() {
            let pairs = sample.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            let Ok(labels) = Labels::new(pairs) else { continue };
            let name = labels.value(NAME_LABEL).unwrap_or_default().into();
            series.push(Arc::new(Series::new(labels, Arc::new(Family { name, ..Family::default() }))));
            values.push(f64::from_bits(sample.bits));
        }
        blocks.push(Block::new(at_ms, Arc::new(SeriesSet::new(Arc::default(), series)), values));
    }
    blocks
}

/// The blocks that send kept log entries again, in the order in which they were refused. They have no origin: once
/// handed over they can't be read again from anywhere.
pub fn replay_logs(kept: &[KeptRejection]) -> Vec<Logs> {
    let mut builder = BlockBuilder::new();
    let mut all = Vec::new();
    let mut sent = HashSet::new();
    for entry in kept.iter().flat_map(|k| &k.entries) {
        // An entry that two outputs refused is sent once.
        if !sent.insert((&entry.labels, entry.at_ns, &entry.line)) {
            continue;
        }
        let metadata: usize = entry.metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
        if !builder.fits(entry.line.len() + metadata) {
            all.extend(builder.finish());
        }
        let labels = || entry.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let stream = builder.stream(labels()).or_else(|| {
            all.extend(builder.finish());
            builder.stream(labels())
        });
        let Some(stream) = stream else { continue };
        let pairs: Vec<_> =
            entry.metadata.iter().filter_map(|(k, v)| Some((builder.key(k)?, v.as_str()))).collect();
        builder.push(stream, entry.at_ns, &entry.line, &pairs);
    }
    all.extend(builder.finish());
    all.into_iter().map(|block| Logs { block, origin: Bytes::new(), rebuilt: false }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegel_proto::batch::{BatchSeq, RejectReason};
    use pegel_proto::metrics::stale_marker;

    fn batch(values: &[f64]) -> Batch {
        let target = Arc::new(Labels::new([("job", "node")]).unwrap());
        let series: Vec<_> = (0..values.len())
            .map(|i| {
                let labels = Labels::new([(NAME_LABEL, format!("m{i}"))]).unwrap();
                Arc::new(Series::new(labels, Arc::default()))
            })
            .collect();
        let set = Arc::new(SeriesSet::new(target, series));
        Batch::metrics(BatchSeq(7), vec![Block::new(1_000, set, values)])
    }

    fn rejection(records: Vec<(u32, u32)>) -> Rejection {
        Rejection { seq: BatchSeq(7), reason: RejectReason::TooOld, message: "too old".into(), records }
    }

    #[test]
    fn refused_records_come_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let mut rejects = Rejects::new(dir.path().join("rejects"), 1 << 20, &Registry::new());
        rejects.keep(5, "prom", &rejection(vec![(0, 1), (2, 1)]), &batch(&[1.5, 2.0, stale_marker()]));
        let kept = rejects.take(None).unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].samples[0].labels["job"], "node");
        let blocks = replay_blocks(&kept);
        let bits: Vec<u64> = blocks[0].values.iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, [1.5_f64.to_bits(), stale_marker().to_bits()]);
        assert!(rejects.take(None).unwrap().is_empty(), "what was taken is gone");
    }

    #[test]
    fn refused_entries_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = BlockBuilder::new();
        for at in 0..3 {
            let stream = builder.stream([("job", "a")].into_iter()).unwrap();
            let key = builder.key("trace_id").unwrap();
            builder.push(stream, 10 + at, &format!("line {at}"), &[(key, "x")]);
        }
        let logs = Logs { block: builder.finish().unwrap(), origin: Bytes::new(), rebuilt: false };
        let batch = Batch { seq: BatchSeq(7), content: Content::Logs(logs) };
        let mut rejects = Rejects::new(dir.path().to_owned(), 1 << 20, &Registry::new());
        for output in ["loki", "second"] {
            rejects.keep(5, output, &rejection(vec![(1, 2)]), &batch);
        }
        let blocks = replay_logs(&rejects.list(None).unwrap());
        assert_eq!(blocks.len(), 1);
        let block = blocks[0].block.decode().unwrap();
        let said: Vec<_> = block.entries().map(|e| (e.at_ns(), e.line(), e.metadata().next())).collect();
        assert_eq!(said, [(11, "line 1", Some(("trace_id", "x"))), (12, "line 2", Some(("trace_id", "x")))]);
        assert_eq!(block.labels(0).collect::<Vec<_>>(), [("job", "a")]);
    }

    #[test]
    fn one_output_s_rejections_are_taken_and_the_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut rejects = Rejects::new(dir.path().to_owned(), 1 << 20, &Registry::new());
        for output in ["a", "b", "a"] {
            rejects.keep(5, output, &rejection(vec![(0, 1)]), &batch(&[1.0]));
        }
        assert_eq!(rejects.take(Some("a")).unwrap().len(), 2);
        rejects.keep(6, "c", &rejection(vec![(0, 1)]), &batch(&[1.0]));
        let left: Vec<_> = read(dir.path()).unwrap().into_iter().map(|k| k.output).collect();
        assert_eq!(left, ["b", "c"]);
    }

    #[test]
    fn the_bound_holds_and_the_latest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut rejects = Rejects::new(dir.path().to_owned(), 4_000, &Registry::new());
        for at in 0..200 {
            rejects.keep(at, "prom", &rejection(vec![(0, 1)]), &batch(&[1.0]));
        }
        let kept = read(dir.path()).unwrap();
        assert_eq!(kept.last().unwrap().at_ms, 199);
        let bytes: u64 =
            fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= 4_000 && kept.len() > 5, "{bytes} bytes, {} rejections", kept.len());
    }

    #[test]
    fn a_directory_that_takes_nothing_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let registry = Registry::new();
        Rejects::new(file, 1 << 20, &registry).keep(5, "prom", &rejection(vec![(0, 3)]), &batch(&[1.0; 3]));
        assert!(registry.render().contains("pegel_rejects_not_kept_samples_total 3"));
    }
}
