//! `logs.inputs[].…`: what is made of an input's lines: encoding, joining, steps, masking.

mod metric;
mod step;

pub use metric::RawMetric;
pub use step::RawStep;

use super::RawLogInput;
use crate::source::log::shape::{
    Bounds, Container, DEFAULT_MAX_LINE, DEFAULT_MAX_LINES, DEFAULT_TIMEOUT, Derived, Encoding, Limits,
    MAX_STEPS, MOST_MAX_LINE, Mask, MaskKind, Multiline, OwnMask, Settings, Step, Trace, compile,
};
use pegel_runtime::config::form::{ByteSize, Period};
use pegel_runtime::config::{Mistakes, Path};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How bytes become characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum RawEncoding {
    /// UTF-8; bytes that are none are replaced by U+FFFD and counted.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-16, the lower byte first.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, the higher byte first.
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// ISO 8859-1.
    #[serde(rename = "latin1")]
    Latin1,
}

/// How the lines of files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawFormat {
    /// As they are.
    #[default]
    Plain,
    /// Docker's json-file.
    Docker,
    /// Kubernetes' CRI.
    Cri,
}

/// Stack traces that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawTrace {
    /// Java, Kotlin, Scala.
    Java,
    /// Python.
    Python,
    /// Go: panics and dumps of goroutines.
    Go,
    /// Node.js.
    Node,
    /// .NET.
    Dotnet,
    /// Anything that is indented.
    Indented,
}

/// Which lines belong together.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"firstline": "start", "preset": "traces", "max_wait_time": "timeout", "condition_pattern": "start", "timeout_ms": "timeout"}))]
pub struct RawMultiline {
    /// The first line of an entry matches this; what does not match belongs to the one before.
    pub start: Option<String>,
    /// A line that belongs to the one before matches this.
    pub continues: Option<String>,
    /// Stack traces that are joined with the line before them.
    pub traces: Vec<RawTrace>,
    /// The most lines of one entry; the next one begins another entry.
    #[schemars(range(min = 2, max = 10_000))]
    pub max_lines: u32,
    /// How long the next line is waited for. The last entry of a silent file is sent after it.
    pub timeout: Period,
}

impl Default for RawMultiline {
    fn default() -> Self {
        Self {
            start: None,
            continues: None,
            traces: Vec::new(),
            max_lines: DEFAULT_MAX_LINES as u32,
            timeout: Period(DEFAULT_TIMEOUT),
        }
    }
}

/// What is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawMaskKind {
    /// E-mail addresses.
    Email,
    /// Numbers of payment cards; issuer, length and check digit are looked at.
    Card,
    /// International bank account numbers; country, length and check digits are looked at.
    Iban,
    /// Tokens that are known by their form (AWS, GitHub, GitLab, Slack, Stripe, Google, npm, JWT), what follows `Bearer`
    /// and in `Authorization`, passwords in URLs, private keys (also over several lines).
    Token,
    /// Values of keys and fields such as `password`, `secret`, `api_key`.
    Secret,
    /// IP addresses.
    Ip,
}

/// A pattern of one's own.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["pattern"], "x-renamed" = {"regex": "pattern", "replace": "replacement"}))]
pub struct RawMaskPattern {
    /// What is taken out, a regular expression.
    pub pattern: String,
    /// What is written in its place; `$1` and `${name}` are groups of the pattern.
    pub replacement: Option<String>,
}

/// What is taken out of lines, labels and structured metadata before they are written to disk or sent.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawMask {
    /// What is looked for. IP addresses only if they are listed.
    pub kinds: Vec<RawMaskKind>,
    /// Patterns of one's own.
    pub patterns: Vec<RawMaskPattern>,
}

impl Default for RawMask {
    fn default() -> Self {
        use RawMaskKind::{Card, Email, Iban, Secret, Token};
        Self { kinds: vec![Email, Card, Iban, Token, Secret], patterns: Vec::new() }
    }
}

/// What the backend takes. The defaults are Loki's own; raise them with `limits_config` there.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {
    "max_label_names_per_series": "labels", "max_label_name_length": "label_name_bytes",
    "max_label_value_length": "label_value_bytes", "max_line_size": "line",
    "max_structured_metadata_size": "metadata", "max_structured_metadata_entries_count": "metadata_pairs",
}))]
pub struct RawLogLimits {
    /// Labels of a stream, with `node` and `tenant`, which the aggregator adds. More become structured metadata.
    #[schemars(range(min = 3, max = 64))]
    pub labels: u32,
    /// Bytes of a label's name.
    #[schemars(range(min = 8, max = 1024))]
    pub label_name_bytes: u32,
    /// Bytes of a label's value. Longer ones become structured metadata.
    #[schemars(range(min = 16, max = 16384))]
    pub label_value_bytes: u32,
    /// The longest line.
    pub line: ByteSize,
    /// Bytes of an entry's structured metadata, names and values.
    pub metadata: ByteSize,
    /// Pairs of an entry's structured metadata.
    #[schemars(range(max = 128))]
    pub metadata_pairs: u32,
    /// How far ahead of the time of reading a line's own time may be; else the time of reading is taken.
    pub max_ahead: Period,
    /// How old a line's own time may be; else the time of reading is taken.
    pub max_age: Period,
}

impl Default for RawLogLimits {
    fn default() -> Self {
        let (limits, times) = (Limits::default(), Bounds::default());
        Self {
            labels: limits.labels as u32,
            label_name_bytes: limits.label_name as u32,
            label_value_bytes: limits.label_value as u32,
            line: ByteSize(limits.line as u64),
            metadata: ByteSize(limits.metadata_bytes as u64),
            metadata_pairs: limits.metadata_pairs as u32,
            max_ahead: Period(times.ahead),
            max_age: Period(times.age),
        }
    }
}

impl RawLogInput {
    /// What is made of the input's lines.
    pub(super) fn resolve_shape(&self, path: &Path, mistakes: &mut Mistakes) -> Settings {
        let (limits, times) = self.limits.clone().unwrap_or_default().resolve(&path.key("limits"), mistakes);
        let max_line = self.resolve_max_line(&limits, path, mistakes);
        let (steps, metrics) = self.resolve_steps(times, path, mistakes);
        Settings {
            encoding: match self.encoding {
                RawEncoding::Utf8 => Encoding::Utf8,
                RawEncoding::Utf16Le => Encoding::Utf16Le,
                RawEncoding::Utf16Be => Encoding::Utf16Be,
                RawEncoding::Latin1 => Encoding::Latin1,
            },
            container: match self.format {
                RawFormat::Plain => None,
                RawFormat::Docker => Some(Container::Docker),
                RawFormat::Cri => Some(Container::Cri),
            },
            max_line,
            multiline: self.multiline.as_ref().map(|raw| raw.resolve(&path.key("multiline"), mistakes)),
            steps: steps.into(),
            mask: self.mask.as_ref().map(|raw| Arc::new(raw.resolve(&path.key("mask"), mistakes))),
            repeats: self.count_repeats,
            times,
            limits,
            derived: Derived::new(metrics),
        }
    }

    fn resolve_max_line(&self, limits: &Limits, path: &Path, mistakes: &mut Mistakes) -> usize {
        let Some(ByteSize(bytes)) = self.max_line else { return DEFAULT_MAX_LINE.min(limits.line) };
        let path = path.key("max_line");
        if !(64..=MOST_MAX_LINE as u64).contains(&bytes) {
            mistakes.at(&path, format!("{bytes} bytes are not between 64 B and 384 KiB"), "use 252KiB");
        } else if bytes > limits.line as u64 {
            let reason = format!("is more than the {} bytes that the backend takes", limits.line);
            mistakes.at(&path, reason, "lower it, or raise limits.line as the backend's own limit is");
        }
        (bytes as usize).clamp(64, MOST_MAX_LINE)
    }

    fn resolve_steps(
        &self,
        times: Bounds,
        path: &Path,
        mistakes: &mut Mistakes,
    ) -> (Vec<Step>, Vec<Arc<crate::source::log::shape::Metric>>) {
        let path = path.key("steps");
        let (mut steps, mut metrics) = (Vec::new(), Vec::new());
        if self.steps.len() > MAX_STEPS {
            let reason = format!("there are {} steps, and {MAX_STEPS} are the most", self.steps.len());
            mistakes.at(&path, reason, "put several expressions into one, or make two inputs");
        }
        for (nth, raw) in self.steps.iter().enumerate().take(MAX_STEPS) {
            steps.extend(raw.resolve(times, &mut metrics, &path.index(nth), mistakes));
        }
        (steps, metrics)
    }
}

impl RawLogLimits {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> (Limits, Bounds) {
        let mut bytes = |key: &str, size: &ByteSize, most: u64| {
            if size.0 > most || size.0 < 256 {
                let reason = format!("{} bytes are not between 256 and {most}", size.0);
                mistakes.at(&path.key(key), reason, "use the backend's own limit");
            }
            size.0.clamp(256, most) as usize
        };
        let limits = Limits {
            labels: self.labels as usize,
            label_name: self.label_name_bytes as usize,
            label_value: self.label_value_bytes as usize,
            line: bytes("line", &self.line, 1 << 20),
            metadata_bytes: bytes("metadata", &self.metadata, 256 << 10),
            metadata_pairs: self.metadata_pairs as usize,
        };
        (limits, Bounds { ahead: self.max_ahead.0, age: self.max_age.0 })
    }
}

impl RawMultiline {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Multiline {
        if self.start.is_none() && self.continues.is_none() && self.traces.is_empty() {
            mistakes.at(
                path,
                "says nowhere which lines belong together",
                "give it start, continues or traces",
            );
        }
        if self.timeout.0 < Duration::from_millis(50) || self.timeout.0 > Duration::from_secs(60) {
            mistakes.at(&path.key("timeout"), "is not between 50ms and 60s", "use 1s");
        }
        let mut expression = |key: &str, text: &Option<String>| {
            text.as_ref().and_then(|text| expression(text, &path.key(key), mistakes))
        };
        Multiline {
            start: expression("start", &self.start),
            continues: expression("continues", &self.continues),
            traces: self.traces.iter().map(|trace| trace.resolve()).collect(),
            max_lines: self.max_lines as usize,
            timeout: self.timeout.0,
            ..Multiline::default()
        }
    }
}

impl RawTrace {
    /// The trace that is meant.
    pub fn resolve(self) -> Trace {
        match self {
            Self::Java => Trace::Java,
            Self::Python => Trace::Python,
            Self::Go => Trace::Go,
            Self::Node => Trace::Node,
            Self::Dotnet => Trace::Dotnet,
            Self::Indented => Trace::Indented,
        }
    }
}

impl RawMask {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Mask {
        if self.kinds.is_empty() && self.patterns.is_empty() {
            mistakes.at(path, "masks nothing", "list kinds or patterns, or take it out");
        }
        let kinds = self.kinds.iter().map(|kind| match kind {
            RawMaskKind::Email => MaskKind::Email,
            RawMaskKind::Card => MaskKind::Card,
            RawMaskKind::Iban => MaskKind::Iban,
            RawMaskKind::Token => MaskKind::Token,
            RawMaskKind::Secret => MaskKind::Secret,
            RawMaskKind::Ip => MaskKind::Ip,
        });
        let mut own = Vec::new();
        for (nth, raw) in self.patterns.iter().enumerate() {
            let path = path.key("patterns").index(nth).key("pattern");
            let Some(pattern) = expression(&raw.pattern, &path, mistakes) else { continue };
            if pattern.is_match("") {
                mistakes.at(
                    &path,
                    "matches where there is nothing",
                    "write what has to be there, as `+` for `*`",
                );
                continue;
            }
            own.push(OwnMask {
                pattern,
                replacement: raw.replacement.clone().unwrap_or_else(|| "<masked>".to_owned()),
            });
        }
        Mask::new(kinds.collect(), own)
    }
}

/// Compiles an expression.
fn expression(text: &str, path: &Path, mistakes: &mut Mistakes) -> Option<Regex> {
    if text.is_empty() {
        mistakes.at(path, "is empty", "write a regular expression, or take it out");
        return None;
    }
    compile(text)
        .map_err(|why| {
            mistakes.at(path, format!("is no regular expression: {why}"), REGEX_REMEDY);
        })
        .ok()
}

/// What to do about an expression that does not compile.
pub(super) const REGEX_REMEDY: &str = "use RE2's syntax, without look-around and back-references";

#[cfg(test)]
mod tests;
