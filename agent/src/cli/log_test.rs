//! `pegel-agent test`: what the steps of a log input make of sample lines.

use super::TestArgs;
use crate::config::Settings;
use crate::source::log::settings::{Input, InputKind};
use crate::source::log::shape::explain::{Entry, Explained, Seen, explain};
use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

/// The most bytes of a sample.
const MAX_SAMPLE_BYTES: u64 = 16 << 20;

/// Reads the sample and tells what becomes of it.
pub(super) fn run(settings: &Settings, args: &TestArgs) -> anyhow::Result<String> {
    let input = find(settings, args.input.as_deref())?;
    let bytes = sample(args)?;
    // The moment is only what lines without a time of their own get.
    let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
    told(input, &args.file.display().to_string(), &bytes, now_ns, args.json)
}

fn find<'a>(settings: &'a Settings, name: Option<&str>) -> anyhow::Result<&'a Input> {
    let inputs = settings.logs.source.inputs.as_slice();
    let names = || inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, inputs) {
        (_, []) => bail!("the configuration has no log input: add one under logs.inputs"),
        (Some(name), _) => inputs
            .iter()
            .find(|input| input.name == name)
            .with_context(|| format!("there is no log input `{name}`; there are: {}", names())),
        (None, [only]) => Ok(only),
        (None, _) => bail!("there are several log inputs: say which by --input: {}", names()),
    }
}

fn sample(args: &TestArgs) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limited =
        |reader: &mut dyn Read, bytes: &mut Vec<u8>| reader.take(MAX_SAMPLE_BYTES + 1).read_to_end(bytes);
    if args.file.as_os_str() == "-" {
        limited(&mut std::io::stdin().lock(), &mut bytes).context("reading standard input")?;
    } else {
        let name = args.file.display();
        let mut file = std::fs::File::open(&args.file).with_context(|| format!("opening {name}"))?;
        limited(&mut file, &mut bytes).with_context(|| format!("reading {name}"))?;
    }
    if bytes.len() as u64 > MAX_SAMPLE_BYTES {
        bail!("the sample is larger than 16 MiB: give it some of its lines, as by `head -n 1000`");
    }
    Ok(bytes)
}

fn told(input: &Input, file: &str, bytes: &[u8], now_ns: i64, json: bool) -> anyhow::Result<String> {
    let mut labels = input.labels.clone();
    labels.entry("job".to_owned()).or_insert_with(|| input.name.clone());
    if let InputKind::Files(files) = &input.kind {
        let of_path = files.labels_of(file).map(|(name, value)| (name.to_owned(), value.to_owned()));
        labels.extend(of_path);
    }
    labels.entry("filename".to_owned()).or_insert_with(|| file.to_owned());
    let labels: Vec<_> = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let mut out = String::new();
    for (nth, one) in explain(&input.shape, &labels, bytes, now_ns).iter().enumerate() {
        if json {
            out.push_str(&serde_json::to_string(one)?);
            out.push('\n');
        } else {
            write_event(&mut out, nth + 1, one);
        }
    }
    Ok(out)
}

fn write_event(out: &mut String, number: usize, event: &Explained) {
    let joined = if event.lines > 1 { format!(" ({} lines)", event.lines) } else { String::new() };
    let _ = writeln!(out, "{number}{joined}: {}", shown(&event.read));
    for step in &event.steps {
        let _ = writeln!(out, "    {:<14}{}", step.step, did(step));
    }
    match (&event.entry, &event.dropped_by) {
        (Some(entry), _) => write_entry(out, entry),
        (None, Some(step)) => {
            let _ = writeln!(out, "    left out by {step}");
        }
        (None, None) => out.push_str("    left out: it is too large\n"),
    }
    out.push('\n');
}

fn did(step: &Seen) -> String {
    let mut parts = Vec::new();
    if step.failed {
        parts.push("found nothing".to_owned());
    }
    for (what, pairs) in [("", &step.fields), ("labels ", &step.labels), ("metadata ", &step.metadata)] {
        if !pairs.is_empty() {
            parts.push(format!("{what}{}", listed(pairs)));
        }
    }
    parts.extend(step.timestamp.as_ref().map(|at| format!("time {at}")));
    parts.extend(step.line.as_ref().map(|line| format!("line {}", shown(line))));
    if step.drops {
        parts.push("leaves it out".to_owned());
    }
    if parts.is_empty() { "-".to_owned() } else { parts.join("; ") }
}

fn write_entry(out: &mut String, entry: &Entry) {
    let _ = writeln!(out, "    sent: {} {{{}}}", entry.timestamp, listed(&entry.labels));
    if !entry.metadata.is_empty() {
        let _ = writeln!(out, "      metadata {}", listed(&entry.metadata));
    }
    let _ = writeln!(out, "      line {}", shown(&entry.line));
}

fn listed(pairs: &BTreeMap<String, String>) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!("{name}={:?}", shown(value)));
    pairs.collect::<Vec<_>>().join(", ")
}

/// A text on one line, cut where it is long. Control characters of a log don't reach the terminal.
fn shown(text: &str) -> String {
    const MOST: usize = 400;
    let shown: String = text
        .chars()
        .take(MOST)
        .map(|char| match char {
            '\n' => '⏎',
            char if char.is_control() => '\u{fffd}',
            char => char,
        })
        .collect();
    if text.chars().nth(MOST).is_some() { format!("{shown}…") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegel_runtime::config;

    fn settings() -> Settings {
        let text = "logs:\n  inputs:\n    - name: app\n      files: {include: [/var/log/app.log]}\n      labels: {env: test}\n      \
                    mask: {}\n      steps:\n        - json: {}\n        - level: {}\n        - drop: {below: info}\n        - labels: \
                    {level: level}\n        - output: {field: msg}\n";
        let input = config::Input { check_files: false, ..config::Input::new(None, Vec::new()) };
        let loaded = config::load_text(
            "agent.yaml".to_owned(),
            text,
            &input,
            |raw: &crate::config::RawAgent, mistakes| raw.resolve(crate::config::Purpose::Collect, mistakes),
        );
        loaded.unwrap_or_else(|bad| panic!("{bad}")).settings
    }

    #[test]
    fn each_step_says_what_it_did() {
        let settings = settings();
        let input = find(&settings, None).unwrap();
        let lines =
            b"{\"level\":\"WARN\",\"msg\":\"mail to bob@example.org\"}\n{\"level\":\"debug\"}\nnone\n";
        let text = told(input, "sample.log", lines, 1_795_287_600_000_000_000, false).unwrap();
        let expected = "\
1: {\"level\":\"WARN\",\"msg\":\"mail to bob@example.org\"}
    0:json        level=\"WARN\", msg=\"mail to bob@example.org\"
    1:level       level=\"warn\"; metadata level=\"warn\"
    2:drop        -
    3:labels      labels level=\"warn\"
    4:output      line mail to bob@example.org
    sent: 2026-11-21T19:00:00Z {env=\"test\", filename=\"sample.log\", job=\"app\", level=\"warn\"}
      line mail to <email>

2: {\"level\":\"debug\"}
    0:json        level=\"debug\"
    1:level       level=\"debug\"; metadata level=\"debug\"
    2:drop        leaves it out
    left out by 2:drop

3: none
    0:json        found nothing
    1:level       -
    2:drop        -
    3:labels      -
    4:output      -
    sent: 2026-11-21T19:00:00.000000001Z {env=\"test\", filename=\"sample.log\", job=\"app\"}
      line none

";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_is_an_object_an_event() {
        let settings = settings();
        let text = told(find(&settings, Some("app")).unwrap(), "-", b"x\ny\n", 5, true).unwrap();
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((text.lines().count(), &first["entry"]["line"]), (2, &"x".into()));
    }

    #[test]
    fn an_input_has_to_be_there() {
        let settings = settings();
        let why = find(&settings, Some("nope")).unwrap_err().to_string();
        assert!(why.contains("`nope`") && why.contains("app"), "{why}");
    }
}
