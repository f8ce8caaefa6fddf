//! Caches of the network, from the files of `/proc/net/stat` (lnstat(8)).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, hex, is_metric_name, label, lines};
use super::{CollectError, Collector, Setup};
use std::fs;
use std::io;
use std::path::PathBuf;

struct Lnstat {
    dir: PathBuf,
    /// The files, by their name.
    files: Vec<Cache>,
    /// The processors, by their line.
    processors: Vec<Box<str>>,
    metrics: Vec<(Box<[u8]>, Metric)>,
}

struct Cache {
    name: Box<str>,
    file: PolledFile,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Lnstat {
        dir: setup.paths.procfs.join("net/stat"),
        files: Vec::new(),
        processors: Vec::new(),
        metrics: Vec::new(),
    })
}

impl Collector for Lnstat {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        self.list()?;
        let Self { files, processors, metrics, .. } = self;
        for Cache { name: cache, file } in files {
            let text = file.read()?;
            let mut all = lines(text.bytes);
            let heading = all.next().unwrap_or_default();
            for (cpu, line) in all.enumerate() {
                if cpu == processors.len() {
                    processors.push(cpu.to_string().into());
                }
                let mut names = fields(heading);
                for value in fields(line) {
                    let name =
                        names.next().ok_or_else(|| text.bad("there are more counters than names", line))?;
                    let value = hex(value);
                    let value =
                        value.ok_or_else(|| text.bad("a counter is not a hexadecimal number", line))?;
                    if let Some(metric) = metric(metrics, name) {
                        out.emit(metric, &[&processors[cpu], cache], value as f64);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Lnstat {
    /// Finds the files that are there now: modules come and go.
    fn list(&mut self) -> Result<(), CollectError> {
        let failed = |source| CollectError::Read { path: self.dir.clone(), source };
        let mut names = Vec::new();
        match fs::read_dir(&self.dir) {
            Ok(entries) => {
                for entry in entries {
                    names.push(entry.map_err(failed)?.file_name());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        names.sort_unstable();
        let shown = |name: &std::ffi::OsString| label(name.as_encoded_bytes());
        if !self.files.iter().map(|file| &*file.name).eq(names.iter().map(|name| name.to_string_lossy())) {
            let file = |name: &std::ffi::OsString| PolledFile::new(self.dir.join(name));
            self.files = names.iter().map(|name| Cache { name: shown(name), file: file(name) }).collect();
        }
        Ok(())
    }
}

/// The metric of a counter; none for a name that no metric could have.
fn metric<'a>(metrics: &'a mut Vec<(Box<[u8]>, Metric)>, name: &[u8]) -> Option<&'a Metric> {
    let at = match metrics.iter().position(|(known, _)| **known == *name) {
        Some(at) => at,
        None if is_metric_name(name) => {
            let text = label(name);
            let full = format!("node_lnstat_{text}_total");
            let help = format!("`{text}` of a cache of the network.");
            metrics.push((name.into(), Metric::counter(&full, &help, &["cpu", "subsystem"])));
            metrics.len() - 1
        }
        None => return None,
    };
    metrics.get(at).map(|(_, metric)| metric)
}
