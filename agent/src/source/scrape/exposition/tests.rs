//! The parser beside two others: the slow one of [`super::oracle`], and Prometheus' own where it is at hand.

use super::oracle::{self, hex};
use super::{Entry, Exposition, Format, labels};
use pegel_proto::metrics::MetricType;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

mod cases;

/// What a body means, in the form that the oracles use; none if it is refused.
fn read(body: &[u8], format: Format) -> Option<String> {
    let mut out = String::new();
    let mut exposition = Exposition::new(body, format);
    while let Some(entry) = exposition.next() {
        let _ = match entry.ok()? {
            Entry::Sample(sample) => {
                let mut pairs = labels::decode(sample.series, format, exposition.kind()).unwrap();
                pairs.sort();
                let _ = write!(out, "S{}|", hex(sample.series));
                for (name, value) in pairs {
                    let _ = write!(out, "{}={},", hex(name.as_bytes()), hex(value.as_bytes()));
                }
                let stamp = sample.stamp_ms.map_or_else(String::new, |stamp| stamp.to_string());
                write!(out, "|{:016x}|{stamp};", sample.value.to_bits())
            }
            Entry::Help { family, text } => {
                write!(out, "H{}|{};", hex(family.as_bytes()), hex(text.as_bytes()))
            }
            Entry::Type { family, kind } => write!(out, "Y{}|{};", hex(family.as_bytes()), type_word(kind)),
            Entry::Unit { family, unit } => {
                write!(out, "U{}|{};", hex(family.as_bytes()), hex(unit.as_bytes()))
            }
        };
    }
    Some(out)
}

fn type_word(kind: MetricType) -> &'static str {
    match kind {
        MetricType::Unknown => "unknown",
        MetricType::Counter => "counter",
        MetricType::Gauge => "gauge",
        MetricType::Histogram => "histogram",
        MetricType::GaugeHistogram => "gaugehistogram",
        MetricType::Summary => "summary",
        MetricType::Info => "info",
        MetricType::StateSet => "stateset",
    }
}

/// Bodies that are nearly always nearly right: whole lines of many kinds, then some damage.
struct Generator(StdRng);

impl Generator {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.choose(&mut self.0).unwrap()
    }

    fn body(&mut self, format: Format) -> Vec<u8> {
        let mut body = String::new();
        for _ in 0..self.0.random_range(0..6) {
            let line = match self.0.random_range(0..8) {
                0 => self.metadata(),
                1 if format == Format::Text => self.comment(),
                _ => self.sample(format),
            };
            body.push_str(&line);
            body.push('\n');
        }
        if format == Format::OpenMetrics && self.0.random_bool(0.97) {
            body.push_str("# EOF\n");
        }
        let mut body = body.into_bytes();
        if self.0.random_bool(0.4) {
            for _ in 0..self.0.random_range(1..3) {
                self.damage(&mut body);
            }
        }
        body
    }

    fn damage(&mut self, body: &mut Vec<u8>) {
        const PIECES: [&str; 34] = [
            " ",
            "  ",
            "\t",
            "\n",
            "\r",
            "\"",
            "\\",
            "{",
            "}",
            ",",
            "=",
            "#",
            " # ",
            " # {",
            "# HELP ",
            "# TYPE a counter",
            "# EOF",
            "1",
            "-",
            ".",
            "e",
            "a",
            ":",
            "_",
            "NaN",
            "\\\"",
            "\\\\",
            "\\n",
            "ü",
            "=\"x\"",
            "{a=\"b\"}",
            " 12",
            "# UNIT a_s s",
            "x=\"y\",",
        ];
        let at = self.0.random_range(0..=body.len());
        match self.0.random_range(0..4) {
            0 if at < body.len() => {
                body.remove(at);
            }
            1 if at < body.len() => {
                let until = (at + self.0.random_range(0..6)).min(body.len());
                body.drain(at..until);
            }
            2 if at < body.len() => body[at] = self.0.random_range(1..=255),
            _ => {
                let piece = self.pick(&PIECES).as_bytes().to_vec();
                body.splice(at..at, piece);
            }
        }
    }

    fn name(&mut self) -> &'static str {
        self.pick(&["a", "b_total", "_x", "c:d", "h_bucket", "Z9", "x_seconds"])
    }

    fn quoted(&mut self) -> String {
        let text = self.pick(&[
            "", "a", "x y", "ü", "a\\\"b", "a\\\\", "a\\nb", "a\\qb", "}", ",", "{", "#", "1", "0.5", "+Inf",
            "1e6", "100000", "1e-5", "le",
        ]);
        format!("\"{text}\"")
    }

    fn labels(&mut self, mut with_name: bool, text: bool) -> String {
        let mut out = String::from("{");
        let count = self.0.random_range(usize::from(with_name)..4);
        for number in 0..count {
            if with_name && (number + 1 == count || self.0.random_bool(0.5)) {
                with_name = false;
                out.push_str(&self.quoted());
            } else {
                let name = match self.0.random_range(0..4) {
                    0 => self.quoted(),
                    1 => self.pick(&["le", "quantile"]).to_owned(),
                    _ => self.pick(&["l", "job", "_m", "__name__", "a1"]).to_owned(),
                };
                let blank = if text { self.pick(&["", "", "", " ", "\t"]) } else { "" };
                let _ = write!(out, "{blank}{name}{blank}={blank}{}", self.quoted());
            }
            if number + 1 < count || self.0.random_bool(0.2) {
                out.push_str(if text { self.pick(&[",", ",", ", ", " ", " ,"]) } else { "," });
            }
        }
        out.push('}');
        out
    }

    fn number(&mut self) -> String {
        match self.0.random_range(0..6) {
            0 => self.0.random_range(-5_000_000_000_i64..5_000_000_000).to_string(),
            1 => format!("{}", f64::from_bits(self.0.random())),
            2 => format!("{:e}", f64::from_bits(self.0.random())),
            _ => self
                .pick(&[
                    "0",
                    "-0",
                    "1",
                    "NaN",
                    "nan",
                    "+NaN",
                    "-nan",
                    "Inf",
                    "+Inf",
                    "-inf",
                    "Infinity",
                    "infinit",
                    "1e400",
                    "-1e400",
                    "1e-400",
                    "0x10",
                    "0x1p3",
                    "1_000",
                    ".5",
                    "5.",
                    ".",
                    "1e",
                    "+1",
                    "--1",
                    "1e+5",
                    "1E5",
                    "999999999999999",
                    "9999999999999999",
                    "123456789012345678901234567890",
                    "0e999999",
                    "4.9e-324",
                    "2.5e-324",
                    "1.7976931348623157e308",
                    "1.7976931348623159e308",
                ])
                .to_owned(),
        }
    }

    fn sample(&mut self, format: Format) -> String {
        let text = format == Format::Text;
        let mut out = String::new();
        match self.0.random_range(0..5) {
            0 => out.push_str(&self.labels(true, text)),
            1 | 2 => out.push_str(self.name()),
            _ => {
                out.push_str(self.name());
                out.push_str(&self.labels(false, text));
            }
        }
        out.push_str(if text { self.pick(&[" ", " ", " ", "  ", "\t", ""]) } else { " " });
        out.push_str(&self.number());
        if self.0.random_bool(0.3) {
            let stamp = match self.0.random_range(0..4) {
                0 => self.number(),
                1 if !text => {
                    format!("{}.{:03}", self.0.random_range(0..9_999), self.0.random_range(0..1_000))
                }
                _ => self.0.random_range(0..2_000_000_000_000_i64).to_string(),
            };
            out.push(' ');
            out.push_str(&stamp);
        }
        if !text && self.0.random_bool(0.2) {
            let _ = write!(out, " # {} {}", self.labels(false, false), self.number());
            if self.0.random_bool(0.3) {
                let _ = write!(out, " {}", self.number());
            }
        }
        if text {
            out.push_str(self.pick(&["", "", "", "", " ", "\t"]));
        }
        out
    }

    fn metadata(&mut self) -> String {
        let name = if self.0.random_bool(0.2) { self.quoted() } else { self.name().to_owned() };
        match self.0.random_range(0..5) {
            0 => format!("# HELP {name} {}", self.pick(&["", "Help.", "a\\nb \\\\ \\\" \\q", " two", "ü"])),
            1 => format!("# UNIT {name} {}", self.pick(&["", "seconds", "total", "s"])),
            _ => {
                let types = [
                    "counter",
                    "gauge",
                    "histogram",
                    "histogram",
                    "summary",
                    "untyped",
                    "unknown",
                    "info",
                    "stateset",
                    "gaugehistogram",
                    "counter ",
                    "",
                ];
                format!("# TYPE {name} {}", self.pick(&types))
            }
        }
    }

    fn comment(&mut self) -> String {
        self.pick(&[
            "",
            " ",
            "\t",
            "# a comment",
            "#",
            "#x",
            "# HELPX a",
            "#\tTYPE a gauge",
            "# HELP a",
            "# HELP ",
            "# TYPE a",
            "# HELP  a  b",
        ])
        .to_owned()
    }
}

fn seed() -> u64 {
    std::env::var("PEGEL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random)
}

fn printed(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

#[test]
fn random_bodies_mean_what_the_slow_parser_says() {
    let seed = seed();
    let mut generator = Generator(StdRng::seed_from_u64(seed));
    let mut accepted = 0;
    for _ in 0..10_000 {
        for format in [Format::Text, Format::OpenMetrics] {
            let body = generator.body(format);
            let ours = read(&body, format);
            let slow = oracle::read(&body, format == Format::OpenMetrics);
            assert_eq!(ours, slow, "PEGEL_SEED={seed}, {format:?}: {:?}", printed(&body));
            accepted += usize::from(ours.is_some());
        }
    }
    assert!((2_000..18_000).contains(&accepted), "{accepted} of 20,000 bodies are accepted");
}

#[test]
fn random_bodies_and_the_corpus_hold_what_fuzzing_checks() {
    let seed = seed();
    eprintln!("PEGEL_SEED={seed}");
    let mut generator = Generator(StdRng::seed_from_u64(seed));
    for _ in 0..5_000 {
        for (first, format) in [(0, Format::Text), (1, Format::OpenMetrics)] {
            let mut input = vec![first];
            input.extend(generator.body(format));
            crate::source::scrape::fuzzing::exposition(&input);
        }
    }
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus/exposition");
    let mut files = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        crate::source::scrape::fuzzing::exposition(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 10, "the corpus has {files} files");
}

/// Prometheus' own parser behind a pipe, if it was built: see `agent/oracle/textparse/main.go`.
fn textparse() -> Option<PathBuf> {
    let path = match std::env::var_os("PEGEL_TEXTPARSE") {
        Some(path) => path.into(),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache/pegel-tests/textparse-3.13.5"),
    };
    path.is_file().then_some(path)
}

#[test]
fn random_bodies_mean_what_prometheus_says() {
    let Some(program) = textparse() else {
        eprintln!("skipped: Prometheus' parser is not built (agent/oracle/textparse/main.go says how)");
        return;
    };
    let seed = seed();
    let mut generator = Generator(StdRng::seed_from_u64(seed));
    let bodies: Vec<(Format, Vec<u8>)> = (0..10_000)
        .flat_map(|_| [Format::Text, Format::OpenMetrics])
        .map(|format| (format, generator.body(format)))
        .collect();
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: String = bodies.iter().fold(String::new(), |mut lines, (format, body)| {
        let _ = writeln!(lines, "{} {}", if *format == Format::Text { 'T' } else { 'O' }, hex(body));
        lines
    });
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    assert_eq!(answers.lines().count(), bodies.len());
    for ((format, body), answer) in bodies.iter().zip(answers.lines()) {
        let theirs = answer.strip_prefix("OK ");
        let ours = read(body, *format);
        assert_eq!(ours.as_deref(), theirs, "PEGEL_SEED={seed}, {format:?}: {:?}", printed(body));
    }
}
