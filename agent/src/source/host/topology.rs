//! What sysfs says of processors: throttling by heat, isolation, on- and offline
//! (Documentation/ABI/testing/sysfs-devices-system-cpu).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{label, uint};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The files to read, found once and again whenever processors come or go.
pub(super) struct Topology {
    isolated: Vec<Box<str>>,
    isolated_metric: Metric,
    package_throttles: Vec<(Box<str>, PolledFile)>,
    package_metric: Metric,
    core_throttles: Vec<(Box<str>, Box<str>, PolledFile)>,
    core_metric: Metric,
    online: Vec<(Box<str>, PolledFile)>,
    online_metric: Metric,
}

impl Topology {
    /// Looks for the files under `…/devices/system/cpu`. What is not there has no metric.
    pub(super) fn read(root: &Path) -> Self {
        let mut topology = Self {
            isolated: isolated(&fs::read_to_string(root.join("isolated")).unwrap_or_default()),
            isolated_metric: Metric::gauge(
                "node_cpu_isolated",
                "1 for processors that the scheduler leaves alone (isolcpus).",
                &["cpu"],
            ),
            package_throttles: Vec::new(),
            package_metric: Metric::counter(
                "node_cpu_package_throttles_total",
                "How often a package was throttled for its heat.",
                &["package"],
            ),
            core_throttles: Vec::new(),
            core_metric: Metric::counter(
                "node_cpu_core_throttles_total",
                "How often a core was throttled for its heat.",
                &["core", "package"],
            ),
            online: Vec::new(),
            online_metric: Metric::gauge(
                "node_cpu_online",
                "1 if the processor is online, 0 if not.",
                &["cpu"],
            ),
        };
        let cpus = numbered(root, "cpu");
        let mut packages = BTreeSet::new();
        let mut cores = BTreeSet::new();
        // Processors that cannot be unplugged at all have no `online`: then none is reported.
        let pluggable = cpus.first().is_some_and(|(_, path)| path.join("online").exists());
        for (number, path) in cpus {
            if pluggable {
                topology.online.push((number.to_string().into(), PolledFile::new(path.join("online"))));
            }
            let topology_of = |file: &str| read_uint(&path.join("topology").join(file));
            let (Some(package), Some(core)) = (topology_of("physical_package_id"), topology_of("core_id"))
            else {
                continue;
            };
            let text = |number: u64| number.to_string().into_boxed_str();
            let throttle = path.join("thermal_throttle");
            if let Some(file) = counter_file(throttle.join("core_throttle_count"))
                && cores.insert((package, core))
            {
                topology.core_throttles.push((text(core), text(package), file));
            }
            if let Some(file) = counter_file(throttle.join("package_throttle_count"))
                && packages.insert(package)
            {
                topology.package_throttles.push((text(package), file));
            }
        }
        topology
    }

    /// Emits what the files say now; a file that cannot be read has no sample.
    pub(super) fn emit(&mut self, out: &mut Emitter<'_>) {
        for cpu in &self.isolated {
            out.emit(&self.isolated_metric, &[cpu], 1.0);
        }
        for (package, file) in &mut self.package_throttles {
            if let Some(count) = count(file) {
                out.emit(&self.package_metric, &[package], count);
            }
        }
        for (core, package, file) in &mut self.core_throttles {
            if let Some(count) = count(file) {
                out.emit(&self.core_metric, &[core, package], count);
            }
        }
        for (cpu, file) in &mut self.online {
            let online = count(file) == Some(1.0);
            out.emit(&self.online_metric, &[cpu], f64::from(u8::from(online)));
        }
    }
}

fn count(file: &mut PolledFile) -> Option<f64> {
    file.read().ok().and_then(|text| uint(text.bytes.trim_ascii())).map(|count| count as f64)
}

fn counter_file(path: PathBuf) -> Option<PolledFile> {
    read_uint(&path).map(|_| PolledFile::new(path))
}

fn read_uint(path: &Path) -> Option<u64> {
    uint(fs::read(path).ok()?.trim_ascii())
}

/// The entries `PREFIXn` of a directory, by their number.
pub(super) fn numbered(dir: &Path, prefix: &str) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = uint(name.to_str()?.strip_prefix(prefix)?.as_bytes())?;
            Some((number, entry.path()))
        })
        .collect();
    found.sort_unstable();
    found
}

/// The numbers in a list such as `1,3-5` (Documentation/core-api/cpu-lists).
fn isolated(list: &str) -> Vec<Box<str>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(uint(first.as_bytes())?..=uint(last.as_bytes())?.min(u64::from(u16::MAX)))
    };
    let numbers = list.trim().split(',').filter_map(range).flatten();
    numbers.map(|number| label(number.to_string().as_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(isolated("1,3-5,9\n"), ["1", "3", "4", "5", "9"].map(Box::from));
        assert_eq!(isolated("\n"), Vec::<Box<str>>::new());
        assert_eq!(isolated("nonsense"), Vec::<Box<str>>::new());
    }
}
