//! `pegel tail`: log entries of a node or of all, the recent past and then as they arrive.
//!
//! Entries are written as they come and flushed with each piece of the answer. An aggregator that goes away is asked
//! again until it is back, from the last entry that was shown.

use crate::cli::TailArgs;
use crate::client::StatusClient;
use crate::paint::{Paint, printable};
use anyhow::{Context as _, Result};
use http_body_util::BodyExt as _;
use pegel_aggregator::status::findings::Level;
use pegel_aggregator::status::words::records;
use pegel_runtime::http_client::ClientTls;
use serde_json::Value;
use std::io::Write;
use std::time::Duration;

/// How long to wait before a lost aggregator is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The aggregator says something every 15 s, if only that it is there.
const SILENCE: Duration = Duration::from_secs(45);
/// The longest line of an answer, in bytes: an entry's line, its labels and metadata, escaped.
const MAX_ANSWER_LINE: usize = 16 << 20;

/// Prints until the reader of the output or the person has enough.
pub fn tail(args: &TailArgs) -> Result<String> {
    let tls = ClientTls {
        ca_file: args.ca_file.clone(),
        cert_file: args.cert_file.clone(),
        key_file: args.key_file.clone(),
        insecure_skip_verify: false,
    };
    let client = StatusClient::with_tls(&args.url.aggregator_url, &tls)?;
    let mut shown = Shown {
        json: args.json,
        many_nodes: args.node().is_none(),
        paint: Paint::for_stdout(),
        began: false,
        last_ns: None,
        out: std::io::stdout(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        loop {
            let path = path(args, shown.last_ns);
            match follow(&client, &path, &mut shown).await {
                Ok(()) if args.no_follow => return Ok(String::new()),
                Ok(()) => tell("the aggregator ended the answer; asking again"),
                Err(End::Closed) => return Ok(String::new()),
                // Never answered: a person asked wrongly, may not see it, or nobody is there.
                Err(End::Failed(error)) if !shown.began || args.no_follow => return Err(error),
                Err(End::Failed(error)) => tell(&format!("{error:#}; asking again")),
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    })
}

fn tell(words: &str) {
    // Nobody listens to a closed stderr.
    let _ = writeln!(std::io::stderr(), "pegel: {words}");
}

/// Why a stream is no longer read.
enum End {
    /// Nobody reads what is printed.
    Closed,
    /// It broke, or was refused.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for End {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// What is asked, from the beginning or behind an entry.
fn path(args: &TailArgs, after_ns: Option<i64>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let mut pair = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            query.append_pair(name, value);
        }
    };
    pair("node", args.node());
    pair("tenant", args.tenant.as_deref());
    pair("match", args.selector());
    pair("contains", args.contains.as_deref());
    if let Some(after_ns) = after_ns {
        pair("after", Some(&after_ns.to_string()));
    } else {
        pair("since", args.since.as_deref());
        pair("limit", args.lines.map(|lines| lines.to_string()).as_deref());
    }
    pair("follow", args.no_follow.then_some("false"));
    format!("/api/v1/tail?{}", query.finish())
}

async fn follow<W: Write>(client: &StatusClient, path: &str, shown: &mut Shown<W>) -> Result<(), End> {
    let mut body = client.open(path).await?;
    shown.began = true;
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await;
        let frame = frame.map_err(|_| anyhow::anyhow!("the aggregator has been silent for {SILENCE:?}"))?;
        let Some(frame) = frame else { return Ok(()) };
        let frame = frame.context("the answer broke off")?;
        let Some(bytes) = frame.data_ref() else { continue };
        rest.extend_from_slice(bytes);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in rest[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            shown.line(line)?;
        }
        rest.drain(..whole);
        if rest.len() > MAX_ANSWER_LINE {
            return Err(
                anyhow::anyhow!("the answer is none of this version's API: it has no end of a line").into()
            );
        }
        shown.out.flush().map_err(|_| End::Closed)?;
    }
}

/// Where entries are shown, and how.
struct Shown<W> {
    json: bool,
    many_nodes: bool,
    paint: Paint,
    /// Whether the aggregator has answered.
    began: bool,
    last_ns: Option<i64>,
    out: W,
}

impl<W: Write> Shown<W> {
    fn line(&mut self, line: &[u8]) -> Result<(), End> {
        let entry: Value =
            serde_json::from_slice(line).context("the answer is none of this version's API")?;
        if let Some(event) = entry["event"].as_str() {
            match event {
                "left_out" => {
                    let n = entry["entries"].as_u64().unwrap_or_default();
                    tell(&format!(
                        "{} left out: they came faster than they are read here",
                        records("logs", n)
                    ));
                }
                "note" => tell(&printable(entry["text"].as_str().unwrap_or_default())),
                _ => {}
            }
            return Ok(());
        }
        let at_ns = entry["at_ns"].as_str().and_then(|at| at.parse::<i64>().ok());
        self.last_ns = self.last_ns.max(at_ns);
        let written = if self.json {
            self.out.write_all(line).and_then(|()| self.out.write_all(b"\n"))
        } else {
            let text = self.words(&entry, at_ns.unwrap_or_default());
            writeln!(self.out, "{text}")
        };
        written.map_err(|_| End::Closed)
    }

    /// `12:03:04.123 web-1 nginx  GET / 200`, in the colour of its level.
    fn words(&self, entry: &Value, at_ns: i64) -> String {
        let text = |value: &Value| printable(value.as_str().unwrap_or_default());
        let mut head = clock(at_ns);
        if self.many_nodes {
            head.push(' ');
            head.push_str(&text(&entry["node"]));
        }
        let name = source(&entry["labels"]);
        if !name.is_empty() {
            head.push(' ');
            head.push_str(&printable(name));
        }
        // Lines of several lines (stack traces) stay so, without what would move the cursor.
        let line: Vec<String> =
            entry["line"].as_str().unwrap_or_default().split('\n').map(printable_line).collect();
        let line = line.join("\n    ");
        let line = match level(entry) {
            Some(level) => self.paint.level(level, &line),
            None => line,
        };
        format!("{}  {line}", self.paint.faint(&head))
    }
}

/// Like [`printable`], with tabs as they are.
fn printable_line(line: &str) -> String {
    line.split('\t').map(printable).collect::<Vec<_>>().join("\t")
}

/// What a line came from, in the word of a person: the unit, container or file.
fn source(labels: &Value) -> &str {
    let label = |name: &str| labels[name].as_str().filter(|value| !value.is_empty());
    let file = || label("filename").map(|path| path.rsplit('/').next().unwrap_or(path));
    let names = ["unit", "container", "app", "service_name", "identifier"];
    names.into_iter().find_map(label).or_else(file).or_else(|| label("job")).unwrap_or_default()
}

/// The level of an entry by its label or metadata.
fn level(entry: &Value) -> Option<Level> {
    let names = ["level", "detected_level", "severity"];
    let found = ["labels", "metadata"]
        .into_iter()
        .flat_map(|part| names.map(|name| &entry[part][name]))
        .find_map(Value::as_str)?;
    match found.to_ascii_lowercase().as_str() {
        "fatal" | "critical" | "crit" | "alert" | "emerg" | "emergency" | "panic" | "error" | "err" => {
            Some(Level::Bad)
        }
        "warn" | "warning" => Some(Level::Warning),
        "notice" => Some(Level::Note),
        _ => None,
    }
}

/// The time of day in UTC, as logs have it.
fn clock(at_ns: i64) -> String {
    let ms = at_ns.div_euclid(1_000_000);
    let of_day = ms.rem_euclid(86_400_000);
    let (seconds, ms) = (of_day / 1_000, of_day % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn args(line: &[&str]) -> TailArgs {
        match Cli::try_parse_from([&["pegel", "tail"], line].concat()).unwrap().command {
            Command::Tail(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn shown(json: bool, many_nodes: bool) -> Shown<Vec<u8>> {
        Shown { json, many_nodes, paint: Paint::plain(), began: false, last_ns: None, out: Vec::new() }
    }

    #[test]
    fn a_node_a_selector_or_both_become_a_question() {
        assert_eq!(path(&args(&[]), None), "/api/v1/tail?");
        assert_eq!(path(&args(&["web-1"]), None), "/api/v1/tail?node=web-1");
        let selector = "match=%7Bjob%3D%22x%22%7D+%7C%3D+%22a%22";
        assert_eq!(path(&args(&[r#"{job="x"} |= "a""#]), None), format!("/api/v1/tail?{selector}"));
        let both = args(&["web-1", r#"{job="x"} |= "a""#, "--tenant", "acme", "-g", "b c", "-n", "5"]);
        let asked = format!("/api/v1/tail?node=web-1&tenant=acme&{selector}&contains=b+c");
        assert_eq!(path(&both, None), format!("{asked}&limit=5"));
        assert_eq!(path(&both, Some(17)), format!("{asked}&after=17"), "behind what was shown");
        assert_eq!(
            path(&args(&["--since", "5m", "--no-follow"]), None),
            "/api/v1/tail?since=5m&follow=false"
        );
    }

    #[test]
    fn entries_are_lines_with_time_node_and_source() {
        let entry = r#"{"at_ns":"1700000000123456789","tenant":"acme","node":"web-1",
            "labels":{"filename":"/var/log/nginx/access.log","job":"nginx"},"metadata":{},"line":"a\tb\u001b[2Jc\n  at d"}"#;
        let mut all = shown(false, true);
        assert!(all.line(entry.as_bytes()).is_ok());
        assert_eq!(
            String::from_utf8(all.out).unwrap(),
            "22:13:20.123 web-1 access.log  a\tb\u{fffd}[2Jc\n      at d\n",
            "no escape of a peer reaches the terminal"
        );
        assert_eq!(all.last_ns, Some(1_700_000_000_123_456_789));
        let mut one = shown(false, false);
        assert!(one.line(entry.as_bytes()).is_ok());
        assert!(one.out.starts_with(b"22:13:20.123 access.log  a"));
        let mut json = shown(true, true);
        let line = entry.replace('\n', "");
        assert!(json.line(line.as_bytes()).is_ok() && json.line(br#"{"event":"live"}"#).is_ok());
        assert_eq!(String::from_utf8(json.out).unwrap(), format!("{line}\n"));
    }

    #[test]
    fn the_level_is_found_in_labels_and_metadata() {
        let level = |text: &str| level(&serde_json::from_str(text).unwrap());
        assert_eq!(level(r#"{"labels":{"level":"ERROR"},"metadata":{}}"#), Some(Level::Bad));
        assert_eq!(level(r#"{"labels":{},"metadata":{"detected_level":"warn"}}"#), Some(Level::Warning));
        assert_eq!(level(r#"{"labels":{"level":"info"},"metadata":{}}"#), None);
    }
}
