//! Checks made once by `pegel-agent once`, and what it says of them.

use crate::beside::{Samples, samples, without_label};
use pegel_tests::binary;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What came of a check.
#[derive(Debug, Default)]
pub struct Seen {
    /// Its series without the target's labels.
    pub samples: Samples,
    /// Phase and reason of its failure; empty if there is none.
    pub phase: String,
    /// See `phase`.
    pub reason: String,
}

impl Seen {
    /// Whether it succeeded.
    pub fn success(&self) -> bool {
        self.value("probe_success") == Some(1.0)
    }

    /// A series by its name and labels.
    pub fn value(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// Phase and reason.
    pub fn failure(&self) -> (&str, &str) {
        (&self.phase, &self.reason)
    }
}

/// The command that makes checks once: a section `probes`, as YAML in braces.
pub fn command(dir: &Path, probes: &str) -> (std::path::PathBuf, Command) {
    let config = dir.join("once.yaml");
    let yaml = format!("host: {{enabled: false}}\ncontainers: {{enabled: false}}\nprobes: {probes}\n");
    std::fs::write(&config, yaml).expect("a configuration");
    let mut command = Command::new(binary("pegel-agent"));
    command.arg("once").arg("--config").arg(&config);
    (config, command)
}

/// Makes the checks of a section `probes` once; by the checks' names, each with one target. Also all that the agent
/// said.
pub fn once(dir: &Path, probes: &str) -> (BTreeMap<String, Seen>, String) {
    let (_, mut command) = command(dir, probes);
    run(&mut command)
}

/// The same for a command that is made.
pub fn run(command: &mut Command) -> (BTreeMap<String, Seen>, String) {
    let output = command.output().expect("pegel-agent runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    let mut all: BTreeMap<String, Seen> = BTreeMap::new();
    for (series, value) in samples(&out) {
        let (rest, check) = without_label(&series, "check");
        let (rest, _) = without_label(&rest, "instance");
        let (rest, _) = without_label(&rest, "job");
        let seen = all.entry(check.unwrap_or_else(|| panic!("{series} has no check"))).or_default();
        if rest.starts_with("pegel_probe_failure{") {
            seen.phase = without_label(&rest, "phase").1.expect("a phase");
            seen.reason = without_label(&rest, "reason").1.expect("a reason");
        }
        seen.samples.insert(rest, value);
    }
    (all, format!("{out}{err}"))
}
