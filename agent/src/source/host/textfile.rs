//! What other programs write into `*.prom` files, as node_exporter's textfile collector takes it.
//!
//! A file that cannot be read costs its own series, is named in the log once with line and reason, and sets
//! `node_textfile_scrape_error`. A file is read again when its time, size or inode changed, so a file that is
//! replaced by renaming another over it is seen at the next scrape, and one that stays costs a `stat(2)`.
//!
//! Where node_exporter's library refuses what files disagree about, the first file in the order of paths wins: a
//! family with another help text or type is left out of later files.

mod glob;
mod parse;
#[cfg(test)]
mod tests;

use super::emit::{Emitter, Metric};
use super::{CollectError, Collector, Setup};
use parse::ParsedFamily;
use pegel_proto::metrics::{Labels, MetricType, Series};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The most series of all files: a quarter of what a batch may hold, so that files leave room for the host's own.
const MAX_SERIES: usize = pegel_proto::caps::MAX_BATCH_SAMPLES / 4;

struct Textfile {
    directories: Vec<String>,
    target: Arc<Labels>,
    files: BTreeMap<PathBuf, Known>,
    /// What was said to be wrong with which path.
    complaints: BTreeMap<PathBuf, String>,
    mtime: Metric,
    error: Metric,
}

/// A file as it was when it was last read.
struct Known {
    stamp: Stamp,
    content: Result<Vec<ParsedFamily>, String>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    seconds: i64,
    nanoseconds: i64,
    bytes: u64,
    inode: u64,
    device: u64,
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
            bytes: metadata.len(),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Textfile {
        directories: setup.settings.textfile_directories.clone(),
        // Only the names matter: an own label that has one of them is renamed.
        target: setup.settings.labels.target(&[("instance", "x")], &Labels::default()),
        files: BTreeMap::new(),
        complaints: BTreeMap::new(),
        mtime: Metric::gauge(
            "node_textfile_mtime_seconds",
            "When a file that could be read was last changed, in seconds since the Unix epoch.",
            &["file"],
        ),
        error: Metric::gauge(
            "node_textfile_scrape_error",
            "1 if a directory or file could not be read, or files disagree about a help text.",
            &[],
        ),
    })
}

impl Collector for Textfile {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let mut wrong = BTreeMap::new();
        let found = self.list(&mut wrong);
        self.files.retain(|path, _| found.binary_search(path).is_ok());
        for path in &found {
            self.refresh(path);
        }
        let errors = self.emit(out, &mut wrong);
        out.emit(&self.error, &[], f64::from(u8::from(errors)));
        self.complain(wrong);
        Ok(())
    }
}

impl Textfile {
    /// The files, sorted by path.
    fn list(&self, wrong: &mut BTreeMap<PathBuf, String>) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for directory in self.directories.iter().flat_map(|pattern| glob::expand(pattern)) {
            match std::fs::read_dir(&directory) {
                Ok(entries) => {
                    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
                    found
                        .extend(paths.filter(|path| path.as_os_str().as_encoded_bytes().ends_with(b".prom")));
                }
                Err(error) => {
                    wrong.insert(directory, format!("cannot list the directory: {error}"));
                }
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// Reads a file if it changed.
    fn refresh(&mut self, path: &Path) {
        let stamp = match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Stamp::of(&metadata),
            // Opening a pipe would wait for who writes into it.
            Ok(_) => return self.keep_error(path, "it is not a file".to_owned()),
            Err(error) => return self.keep_error(path, format!("cannot look at it: {error}")),
        };
        let before = self.files.get(path);
        if before.is_some_and(|known| known.stamp == stamp) {
            return;
        }
        let families = before.and_then(|known| known.content.as_ref().ok()).into_iter().flatten();
        let known: HashMap<u64, Arc<Series>> = families
            .flat_map(|family| &family.samples)
            .map(|(series, _)| (series.fingerprint(), series.clone()))
            .collect();
        match read(path) {
            Ok((stamp, text)) => {
                let content = parse::parse(&text, &self.target, &known).map_err(|error| error.to_string());
                self.files.insert(path.to_owned(), Known { stamp, content });
            }
            Err(error) => self.keep_error(path, format!("cannot read it: {error}")),
        }
    }

    /// Notes that there is nothing to have of a path. It is looked at again at the next scrape.
    fn keep_error(&mut self, path: &Path, error: String) {
        let never = Stamp { seconds: i64::MIN, nanoseconds: 0, bytes: 0, inode: 0, device: 0 };
        self.files.insert(path.to_owned(), Known { stamp: never, content: Err(error) });
    }

    /// Emits what the files hold; says whether anything counts as an error.
    fn emit(&self, out: &mut Emitter<'_>, wrong: &mut BTreeMap<PathBuf, String>) -> bool {
        let mut errors = !wrong.is_empty();
        let mut told: HashMap<&str, (Option<&str>, MetricType)> = HashMap::new();
        let mut read = Vec::new();
        let mut series = 0;
        for (path, known) in &self.files {
            let families = match &known.content {
                Ok(families) => families,
                Err(reason) => {
                    errors = true;
                    wrong.insert(path.clone(), reason.clone());
                    continue;
                }
            };
            series += families.iter().map(|family| family.samples.len()).sum::<usize>();
            if series > MAX_SERIES {
                errors = true;
                let reason =
                    format!("it is left out: the files have more than {MAX_SERIES} series altogether");
                wrong.insert(path.clone(), reason);
                continue;
            }
            read.push((path, known.stamp));
            for family in families {
                let (help, kind) = *told
                    .entry(&family.name)
                    .and_modify(|(help, _)| *help = help.or(family.help.as_deref()))
                    .or_insert((family.help.as_deref(), family.kind));
                if family.help.is_some() && help != family.help.as_deref() {
                    errors = true;
                    let reason = format!(
                        "`{}` has another # HELP than in an earlier file; it is left out",
                        family.name
                    );
                    wrong.insert(path.clone(), reason);
                } else if kind != family.kind {
                    let reason = format!(
                        "`{}` has another # TYPE than in an earlier file; it is left out",
                        family.name
                    );
                    wrong.insert(path.clone(), reason);
                } else {
                    family.samples.iter().for_each(|(series, value)| out.emit_series(series, *value));
                }
            }
        }
        for (path, stamp) in read {
            out.emit(&self.mtime, &[&path.to_string_lossy()], stamp.seconds as f64);
        }
        errors
    }

    /// Names what is wrong with a path when that changes.
    fn complain(&mut self, wrong: BTreeMap<PathBuf, String>) {
        for (path, reason) in &wrong {
            if self.complaints.get(path) != Some(reason) {
                tracing::warn!(path = %path.display(), %reason, "a textfile is not taken as it is");
            }
        }
        for path in self.complaints.keys().filter(|path| !wrong.contains_key(*path)) {
            tracing::info!(path = %path.display(), "nothing is wrong with the textfile any more");
        }
        self.complaints = wrong;
    }
}

/// A file's content, with its stamp as of the reading.
fn read(path: &Path) -> std::io::Result<(Stamp, Vec<u8>)> {
    let file = File::open(path)?;
    let mut text = Vec::new();
    let stamp = Stamp::of(&file.metadata()?);
    if file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)? as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other(format!("it is longer than {MAX_FILE_BYTES} bytes")));
    }
    Ok((stamp, text))
}
