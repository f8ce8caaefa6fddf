//! Runs the same checks by the agent and by blackbox_exporter and compares what both report.
//!
//! Both get the same settings for a kind, byte for byte. Every series of blackbox_exporter must be there with the
//! same labels and, times aside, the same value; every other of the agent's must be one of pegel's own
//! (`pegel_…`). What differs is in a table with the reason, and the table is held to be true: a difference that does
//! not occur fails the test as well.

use pegel_tests::http::{escape, get};
use pegel_tests::process::Process;
use pegel_tests::{backend, binary, eventually, lasting_port};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// How long both may take for a target that hangs.
const TIMEOUT: &str = "3s";

/// One check of both.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// The settings of the kind, YAML in braces.
    pub settings: String,
    /// What is checked.
    pub target: String,
    /// Whether it is to succeed: what both must say.
    pub success: bool,
}

/// A difference that is meant, in one case: the series' name, and why.
pub type Difference = (&'static str, &'static str, &'static str);

/// What blackbox_exporter has since later versions than the one that is here.
const NEWER: [&str; 1] = ["probe_timeout_seconds"];

/// Series with their values.
pub type Samples = BTreeMap<String, f64>;

/// Compares all cases; gives the table of differences as text, or what is wrong.
pub async fn compare(cases: &[Case], differences: &[Difference]) {
    let Some(blackbox) = backend("blackbox_exporter") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let ours = agent(dir.path(), cases);
    let theirs = blackbox_exporter(&blackbox, dir.path(), cases).await;
    let mut wrong = Vec::new();
    let mut seen = vec![false; differences.len()];
    for case in cases {
        let (ours, theirs) = (&ours[case.name], &theirs[case.name]);
        let verdict = |samples: &Samples| samples.get("probe_success").map(|value| *value > 0.5);
        if verdict(ours) != Some(case.success) || verdict(theirs) != Some(case.success) {
            let why: Vec<_> =
                ours.keys().filter(|series| series.starts_with("pegel_probe_failure")).collect();
            wrong.push(format!(
                "{}: succeeds: pegel {:?} {why:?}, blackbox_exporter {:?}, expected {}",
                case.name,
                verdict(ours),
                verdict(theirs),
                case.success
            ));
        }
        let mut differs = |series: &str, what: String| {
            let name = series.split('{').next().unwrap_or(series);
            if NEWER.contains(&name) {
                return;
            }
            let meant = differences.iter().position(|(at, of, _)| *at == case.name && *of == name);
            match meant {
                Some(at) => seen[at] = true,
                None => wrong.push(format!("{}: {series}: {what}", case.name)),
            }
        };
        for (series, value) in theirs {
            match ours.get(series) {
                None => differs(series, format!("missing, {value} in blackbox_exporter")),
                Some(our_value) if !same(series, *our_value, *value) => {
                    differs(series, format!("{our_value}, {value} in blackbox_exporter"));
                }
                Some(_) => {}
            }
        }
        for (series, value) in ours.iter().filter(|(series, _)| series.starts_with("probe_")) {
            if !theirs.contains_key(series) {
                differs(series, format!("{value}, not in blackbox_exporter"));
            }
        }
    }
    for ((case, series, why), seen) in differences.iter().zip(seen) {
        println!("difference: {case}: {series}: {why}");
        if !seen {
            wrong.push(format!("{case}: {series} is in the table of differences and does not differ"));
        }
    }
    println!(
        "{} cases beside blackbox_exporter, {} differences in the table",
        cases.len(),
        differences.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether two values are the same: times are only held to be of one order.
fn same(series: &str, ours: f64, theirs: f64) -> bool {
    if series.contains("duration_seconds") || series.contains("lookup_time") {
        return (ours - theirs).abs() < 2.0 && (ours >= 0.0);
    }
    ours.to_bits() == theirs.to_bits()
}

fn agent(dir: &Path, cases: &[Case]) -> BTreeMap<&'static str, Samples> {
    let mut yaml = String::from("host: {enabled: false}\ncontainers: {enabled: false}\nprobes:\n  checks:\n");
    for Case { name, kind, settings, target, .. } in cases {
        let _ = writeln!(
            yaml,
            "    - {{name: {name}, kind: {kind}, timeout: {TIMEOUT}, targets: [{target:?}], {kind}: {}}}",
            // A dollar with a brace would be a variable of the environment.
            settings.replace("${", "$${")
        );
    }
    let config = dir.join("agent.yaml");
    std::fs::write(&config, yaml).expect("a configuration");
    let output = Command::new(binary("pegel-agent")).arg("once").arg("--config").arg(&config).output();
    let output = output.expect("pegel-agent runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let mut all: BTreeMap<&'static str, Samples> = cases.iter().map(|c| (c.name, Samples::new())).collect();
    for (series, value) in samples(&text) {
        // The labels of the target are those that blackbox_exporter's users add by relabelling.
        let (mut own, mut check) = (series.clone(), None);
        for name in ["check", "instance", "job"] {
            let (rest, value) = without_label(&own, name);
            if name == "check" {
                check = value;
            }
            own = rest;
        }
        let check = check.unwrap_or_else(|| panic!("{series} has no check"));
        let case = cases.iter().find(|case| case.name == check).expect("a case").name;
        all.entry(case).or_default().insert(own, value);
    }
    all
}

async fn blackbox_exporter(program: &Path, dir: &Path, cases: &[Case]) -> BTreeMap<&'static str, Samples> {
    let mut yaml = String::from("modules:\n");
    for Case { name, kind, settings, .. } in cases {
        let _ = writeln!(yaml, "  {name}: {{prober: {kind}, timeout: {TIMEOUT}, {kind}: {settings}}}");
    }
    let config = dir.join("blackbox.yml");
    std::fs::write(&config, yaml).expect("a configuration");
    let port = lasting_port();
    let mut command = Command::new(program);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let _process = Process::start("blackbox_exporter", dir, command);
    let base = format!("http://127.0.0.1:{port}");
    eventually("blackbox_exporter answers", SOON, || get_text(format!("{base}/-/healthy"))).await;
    let mut all = BTreeMap::new();
    for case in cases {
        let url = format!("{base}/probe?module={}&target={}", case.name, escape(&case.target));
        let text =
            get(&url).await.unwrap_or_else(|| panic!("{}: blackbox_exporter does not answer", case.name));
        let of_case = samples(&text).map(|(series, value)| (without_label(&series, "").0, value));
        all.insert(case.name, of_case.collect());
    }
    all
}

async fn get_text(url: String) -> Option<String> {
    get(&url).await
}

/// The samples of a text exposition.
pub fn samples(text: &str) -> impl Iterator<Item = (String, f64)> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let series = series.strip_suffix("{}").unwrap_or(series);
        (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line} has no number")))
    })
}

/// A series without one of its labels, and that label's value.
pub fn without_label(series: &str, name: &str) -> (String, Option<String>) {
    let Some((metric, labels)) = series.strip_suffix('}').and_then(|s| s.split_once('{')) else {
        return (series.to_owned(), None);
    };
    let mut rest = Vec::new();
    let mut found = None;
    for label in split_labels(labels) {
        match label.split_once('=') {
            Some((known, value)) if known == name => found = Some(value.trim_matches('"').to_owned()),
            // A label without a value is none.
            Some((_, "\"\"")) => {}
            _ => rest.push(label),
        }
    }
    let series = if rest.is_empty() { metric.to_owned() } else { format!("{metric}{{{}}}", rest.join(",")) };
    (series, found)
}

/// Labels at the commas that are not in their values.
fn split_labels(labels: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut begin, mut quoted, mut escaped) = (0, false, false);
    for (at, c) in labels.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&labels[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&labels[begin..]);
    parts
}
