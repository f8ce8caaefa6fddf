//! What processors are vulnerable to, from `/sys/devices/system/cpu/vulnerabilities`
//! (Documentation/ABI/testing/sysfs-devices-system-cpu).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, label};
use super::{CollectError, Collector, Setup};
use std::fs;
use std::path::PathBuf;

/// The words that the kernel begins with; what they are is told by the same words in small letters.
const STATES: [&str; 4] = ["not affected", "vulnerable", "mitigation", "unknown"];
const NOT_AFFECTED: usize = 0;
const UNKNOWN: usize = 3;

struct CpuVulnerabilities {
    dir: PathBuf,
    info: Metric,
    /// None until the directory was read: it does not change while the kernel runs.
    files: Option<Vec<Vulnerability>>,
}

struct Vulnerability {
    name: Box<str>,
    file: PolledFile,
    text: Box<[u8]>,
    state: &'static str,
    mitigation: Box<str>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(CpuVulnerabilities {
        dir: setup.paths.sysfs.join("devices/system/cpu/vulnerabilities"),
        info: Metric::gauge(
            "node_cpu_vulnerabilities_info",
            "1, with a vulnerability of the processors and what is done about it.",
            &["codename", "mitigation", "state"],
        ),
        files: None,
    })
}

impl Collector for CpuVulnerabilities {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let dir = &self.dir;
        for known in self.files.get_or_insert_with(|| listed(dir)) {
            let text = known.file.read()?;
            if *known.text != *text.bytes {
                known.text = text.bytes.into();
                (known.state, known.mitigation) = parse(text.bytes.trim_ascii());
            }
            out.emit(&self.info, &[&known.name, &known.mitigation, known.state], 1.0);
        }
        Ok(())
    }
}

/// The directory's files, by name; none where there is no such directory.
fn listed(dir: &PathBuf) -> Vec<Vulnerability> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| {
            let name = label(entry.file_name().as_encoded_bytes());
            let file = PolledFile::new(entry.path());
            Vulnerability {
                name,
                file,
                text: Box::default(),
                state: STATES[UNKNOWN],
                mitigation: Box::default(),
            }
        })
        .collect();
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    files
}

/// The state, and what is said behind its first word.
fn parse(text: &[u8]) -> (&'static str, Box<str>) {
    let begins =
        |state: &str| text.get(..state.len()).is_some_and(|t| t.eq_ignore_ascii_case(state.as_bytes()));
    match STATES.iter().position(|state| begins(state)) {
        Some(NOT_AFFECTED) => (STATES[NOT_AFFECTED], Box::default()),
        Some(at) => {
            let words: Vec<&[u8]> = fields(text).skip(1).collect();
            (STATES[at], label(&words.join(b" ".as_slice())))
        }
        None => (STATES[UNKNOWN], label(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_by_their_first_words() {
        for (text, state, mitigation) in [
            ("Not affected", "not affected", ""),
            ("Vulnerable", "vulnerable", ""),
            ("Vulnerable: No microcode", "vulnerable", "No microcode"),
            ("Mitigation: PTI; SMT  off", "mitigation", "PTI; SMT off"),
            ("Unknown: Dependent on hypervisor status", "unknown", "Dependent on hypervisor status"),
            ("KVM: Vulnerable", "unknown", "KVM: Vulnerable"),
            ("", "unknown", ""),
        ] {
            assert_eq!(parse(text.as_bytes()), (state, mitigation.into()), "{text}");
        }
    }
}
