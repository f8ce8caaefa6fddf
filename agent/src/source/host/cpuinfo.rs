//! What `/proc/cpuinfo` says of the processors (Documentation/filesystems/proc.rst, arch/x86/kernel/cpu/proc.c).

use super::CollectError;
use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::filter::Pattern;
use super::text::{fields, float, lines};
use std::borrow::Cow;
use std::path::Path;

/// The labels of `node_cpu_info`.
const LABELS: [&str; 10] = [
    "cachesize",
    "core",
    "cpu",
    "family",
    "microcode",
    "model",
    "model_name",
    "package",
    "stepping",
    "vendor",
];
const CORE: usize = 1;
const CPU: usize = 2;
const PACKAGE: usize = 7;

/// The file's keys, and the place of the label that they become.
const KEYS: [(&[u8], usize); 11] = [
    (b"cache size", 0),
    (b"core id", CORE),
    (b"processor", CPU),
    (b"cpu family", 3),
    (b"microcode", 4),
    (b"model", 5),
    (b"model name", 6),
    (b"physical id", PACKAGE),
    (b"stepping", 8),
    (b"vendor", 9),
    (b"vendor_id", 9),
];

const HERTZ_PER_MEGAHERTZ: f64 = 1e6;

/// What is wanted of the file beyond the processors.
pub(super) struct CpuInfo {
    file: PolledFile,
    info: Metric,
    frequency: Option<Metric>,
    flags: Option<(Pattern, Metric)>,
    bugs: Option<(Pattern, Metric)>,
}

/// A processor's part of the file.
#[derive(Default)]
struct Processor<'a> {
    labels: [&'a [u8]; LABELS.len()],
    hertz: f64,
}

impl CpuInfo {
    /// Reads nothing yet. `frequency` asks for `node_cpu_frequency_hertz`.
    pub(super) fn new(procfs: &Path, frequency: bool, flags: Option<Pattern>, bugs: Option<Pattern>) -> Self {
        let hertz =
            || Metric::gauge("node_cpu_frequency_hertz", "Frequency, in hertz.", &["core", "cpu", "package"]);
        let flag = |flags| {
            (flags, Metric::gauge("node_cpu_flag_info", "1 for a flag of the first processor.", &["flag"]))
        };
        let bug = |bugs| {
            (bugs, Metric::gauge("node_cpu_bug_info", "1 for a bug of the first processor.", &["bug"]))
        };
        Self {
            file: PolledFile::new(procfs.join("cpuinfo")),
            info: Metric::gauge("node_cpu_info", "1, with what the processor is.", &LABELS),
            frequency: frequency.then(hertz),
            flags: flags.map(flag),
            bugs: bugs.map(bug),
        }
    }

    /// Emits what the file says now.
    pub(super) fn emit(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let Self { file, info, frequency, flags, bugs } = self;
        let text = file.read()?;
        let mut processors: Vec<Processor<'_>> = Vec::new();
        let (mut first_flags, mut first_bugs): (&[u8], &[u8]) = (b"", b"");
        for line in lines(text.bytes) {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let key = line[..colon].trim_ascii();
            let value = line[colon + 1..].strip_prefix(b" ").unwrap_or_default();
            if key == b"processor" {
                processors.push(Processor::default());
            }
            let first = processors.len() == 1;
            // Other architectures say more before the first processor and behind the last.
            let Some(processor) = processors.last_mut() else { continue };
            match key {
                b"flags" | b"Features" if first => first_flags = value,
                b"bugs" if first => first_bugs = value,
                b"cpu MHz" => {
                    let megahertz = float(value);
                    let megahertz =
                        megahertz.ok_or_else(|| text.bad("the frequency is not a number", line))?;
                    processor.hertz = megahertz * HERTZ_PER_MEGAHERTZ;
                }
                _ => {
                    if let Some((_, at)) = KEYS.iter().find(|(known, _)| *known == key) {
                        processor.labels[*at] = value;
                    }
                }
            }
        }
        for Processor { labels, hertz } in &processors {
            let labels: [Cow<'_, str>; LABELS.len()] = labels.map(String::from_utf8_lossy);
            let values: [&str; LABELS.len()] = std::array::from_fn(|at| &*labels[at]);
            out.emit(info, &values, 1.0);
            if let Some(frequency) = frequency {
                out.emit(frequency, &[values[CORE], values[CPU], values[PACKAGE]], *hertz);
            }
        }
        for (wanted, words) in [(flags, first_flags), (bugs, first_bugs)] {
            let Some((pattern, metric)) = wanted else { continue };
            for word in fields(words).map(String::from_utf8_lossy) {
                if pattern.matches(&word) {
                    out.emit(metric, &[&word], 1.0);
                }
            }
        }
        Ok(())
    }
}
