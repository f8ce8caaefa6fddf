//! `steps`: each an object with one key, the step's kind.

use super::{REGEX_REMEDY, RawMetric, expression};
use crate::source::log::shape::{
    BadCapture, BadGrok, Bounds, Capture, Condition, Format, Level, Metadata, Metric, Parse, Preset,
    RateLimit, Sample, Step, Timestamp, Zone, compile_grok, is_field_pattern, is_label,
};
use pegel_runtime::config::form::Period;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One step. Exactly one of its keys is given.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "x-renamed" = {
        "structured_metadata": "metadata", "match": "keep", "limit": "rate_limit", "sampling": "sample",
        "metrics": "metric", "replace": "mask", "line": "output",
    },
    "x-refused" = {
        "multiline": "lines are joined before all steps: write it beside `steps`",
        "docker": "write `format: docker` beside `steps`",
        "cri": "write `format: cri` beside `steps`",
        "mask": "all text is masked after the last step: write it beside `steps`",
        "static_labels": "write them under the input's `labels`",
        "tenant": "the tenant comes from the agent's certificate",
    },
))]
pub struct RawStep {
    /// Adds the fields of a JSON object; those of nested ones as `a_b`.
    pub json: Option<RawParse>,
    /// Adds the fields of `key=value` pairs.
    pub logfmt: Option<RawParse>,
    /// Adds the named groups of a regular expression.
    pub regex: Option<RawRegex>,
    /// Adds the fields of a web server's log.
    pub pattern: Option<RawPatternStep>,
    /// Adds the fields of a grok pattern.
    pub grok: Option<RawGrok>,
    /// Takes the entry's time from a field.
    pub timestamp: Option<RawTimestamp>,
    /// Finds the level (from `level`, `severity` and fields like them, else from the line's words), normalises it
    /// (trace, debug, info, warn, error, critical, fatal) and gives it as field and structured metadata `level`.
    pub level: Option<RawLevelStep>,
    /// Makes labels of fields: each label and its field. Each value is a stream of its own: only what has few.
    pub labels: Option<BTreeMap<String, String>>,
    /// Puts fields into structured metadata: all that are not labels, or some.
    pub metadata: Option<RawMetadata>,
    /// Makes a field the line.
    pub output: Option<RawOutput>,
    /// Leaves out all entries for which this does not hold.
    pub keep: Option<RawCondition>,
    /// Leaves out entries for which this holds.
    pub drop: Option<RawCondition>,
    /// Keeps a share of the entries, by hash and not by chance.
    pub sample: Option<RawSample>,
    /// Keeps so many entries a second of each stream.
    pub rate_limit: Option<RawRateLimit>,
    /// Derives a metric.
    pub metric: Option<RawMetric>,
}

/// What a parser reads.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"source": "field"}, "x-refused" = {"expressions": "all fields are taken"}))]
pub struct RawParse {
    /// The field that is read; the line without one.
    pub field: Option<String>,
    /// Before the name of each field that is found.
    pub prefix: String,
}

/// A regular expression.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["pattern"], "x-renamed" = {"expression": "pattern", "source": "field"}))]
pub struct RawRegex {
    /// The expression, with named groups: `status=(?<status>\d+)`.
    pub pattern: String,
    /// The field that is read; the line without one.
    pub field: Option<String>,
    /// Before the name of each field that is found.
    pub prefix: String,
}

/// A web server's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawPattern {
    /// nginx' `combined`.
    #[default]
    NginxCombined,
    /// nginx' error log.
    NginxError,
    /// Apache's `common`.
    ApacheCommon,
    /// Apache's `combined`.
    ApacheCombined,
    /// Apache's error log.
    ApacheError,
}

/// A web server's log.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct RawPatternStep {
    /// The format.
    pub name: RawPattern,
    /// The field that is read; the line without one.
    pub field: Option<String>,
    /// Before the name of each field that is found.
    pub prefix: String,
}

/// A grok pattern.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["pattern"], "x-renamed" = {"match": "pattern", "pattern_definitions": "patterns", "source": "field"}))]
pub struct RawGrok {
    /// The pattern: `%{IP:client} %{WORD:method}`.
    pub pattern: String,
    /// Patterns of one's own, by name.
    pub patterns: BTreeMap<String, String>,
    /// The field that is read; the line without one.
    pub field: Option<String>,
    /// Before the name of each field that is found.
    pub prefix: String,
}

/// Where an entry's time is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["field"], "x-renamed" = {"source": "field", "format": "formats", "location": "zone", "timezone": "zone"}))]
pub struct RawTimestamp {
    /// The field.
    pub field: String,
    /// How it may be written: names (`rfc3339`, `iso8601`, `unix`, `unix_ms`, `unix_us`, `unix_ns`, `unix_any`, `rfc3164`,
    /// `rfc1123`, `common_log`, `nginx_error`, `apache_error` …), strftime's directives (`%d/%b/%Y:%H:%M:%S %z`) or Go's
    /// layouts (`2006-01-02 15:04:05`). The first that reads it counts. A year that is not written is the one that
    /// brings the time closest to now.
    pub formats: Vec<String>,
    /// Where times without an offset are meant: `UTC`, `local`, `+02:00` or `Europe/Berlin`.
    pub zone: String,
    /// How old the time may be, in place of `limits.max_age`.
    pub max_age: Option<Period>,
}

impl Default for RawTimestamp {
    fn default() -> Self {
        Self {
            field: String::new(),
            formats: vec!["rfc3339".to_owned(), "iso8601".to_owned(), "unix_any".to_owned()],
            zone: "UTC".to_owned(),
            max_age: None,
        }
    }
}

/// Where the level is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"source": "field"}))]
pub struct RawLevelStep {
    /// The field, if it is not one of the usual ones.
    pub field: Option<String>,
}

/// Which fields become structured metadata.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"allow": "keep", "deny": "drop", "include": "keep", "exclude": "drop"}))]
pub struct RawMetadata {
    /// These; a `*` at the end stands for any end. All, if there are none.
    pub keep: Vec<String>,
    /// All but these.
    pub drop: Vec<String>,
}

/// What becomes the line.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["field"], "x-renamed" = {"source": "field"}))]
pub struct RawOutput {
    /// The field; an entry without it keeps its line.
    pub field: String,
}

/// A level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawLevel {
    /// The finest detail.
    Trace,
    /// For those who look for faults.
    Debug,
    /// What goes on as it should.
    Info,
    /// What may become a fault.
    Warn,
    /// A fault.
    Error,
    /// A fault after which something does not go on.
    Critical,
    /// The end of a process.
    Fatal,
}

/// What is asked of an entry. All that is given has to hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"source": "field", "expression": "matches", "regex": "matches", "in": "one_of", "level_below": "below"}))]
pub struct RawCondition {
    /// The field, label or structured metadata that is asked; the line without one.
    pub field: Option<String>,
    /// It is this.
    pub equals: Option<String>,
    /// It is one of these.
    pub one_of: Vec<String>,
    /// It holds this text.
    pub contains: Option<String>,
    /// It matches this regular expression somewhere.
    pub matches: Option<String>,
    /// Its level is less serious than this one.
    pub below: Option<RawLevel>,
    /// It is there, or is not.
    pub exists: Option<bool>,
    /// The opposite of all this.
    pub not: bool,
}

/// A share of entries.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["keep"], "x-renamed" = {"rate": "keep", "probability": "keep"}))]
pub struct RawSample {
    /// The share that is kept: `0.1` is one in ten.
    pub keep: f64,
    /// Entries with the same value of this field (a trace's id) are kept or left out together.
    pub field: Option<String>,
    /// Only these are sampled; all others are kept.
    pub when: Option<RawCondition>,
}

/// A rate.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["per_second"], "x-renamed" = {"rate": "per_second"}))]
pub struct RawRateLimit {
    /// Entries a second of each stream.
    pub per_second: f64,
    /// Entries at once after a pause; without it, those of two seconds.
    pub burst: Option<f64>,
}

fn parse(field: &Option<String>, prefix: &str) -> Parse {
    Parse { field: field.clone(), prefix: prefix.to_owned() }
}

impl RawStep {
    fn given(&self) -> Vec<&'static str> {
        [
            ("json", self.json.is_some()),
            ("logfmt", self.logfmt.is_some()),
            ("regex", self.regex.is_some()),
            ("pattern", self.pattern.is_some()),
            ("grok", self.grok.is_some()),
            ("timestamp", self.timestamp.is_some()),
            ("level", self.level.is_some()),
            ("labels", self.labels.is_some()),
            ("metadata", self.metadata.is_some()),
            ("output", self.output.is_some()),
            ("keep", self.keep.is_some()),
            ("drop", self.drop.is_some()),
            ("sample", self.sample.is_some()),
            ("rate_limit", self.rate_limit.is_some()),
            ("metric", self.metric.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }

    pub(super) fn resolve(
        &self,
        times: Bounds,
        metrics: &mut Vec<Arc<Metric>>,
        path: &Path,
        mistakes: &mut Mistakes,
    ) -> Option<Step> {
        let given = self.given();
        let [name] = given.as_slice() else {
            if given.is_empty() {
                mistakes.at(path, "the step does nothing", "give it one key, such as `json: {}`");
            } else {
                let reason = format!("the step has {}: their order is not told", given.join(" and "));
                mistakes.at(path, reason, "make a step of each");
            }
            return None;
        };
        let path = path.key(name);
        let path = &path;
        if let Some(raw) = &self.json {
            return Some(Step::Json(parse(&raw.field, &raw.prefix)));
        }
        if let Some(raw) = &self.logfmt {
            return Some(Step::Logfmt(parse(&raw.field, &raw.prefix)));
        }
        if let Some(raw) = &self.regex {
            return raw.resolve(path, mistakes);
        }
        if let Some(raw) = &self.pattern {
            return Some(Step::Capture(
                "pattern",
                parse(&raw.field, &raw.prefix),
                raw.name.preset().capture(),
            ));
        }
        if let Some(raw) = &self.grok {
            return raw.resolve(path, mistakes);
        }
        if let Some(raw) = &self.timestamp {
            return Some(raw.resolve(times, path, mistakes));
        }
        if let Some(raw) = &self.level {
            return Some(Step::Level(raw.field.clone()));
        }
        if let Some(raw) = &self.labels {
            return Some(labels(raw, path, mistakes));
        }
        if let Some(raw) = &self.metadata {
            return Some(raw.resolve(path, mistakes));
        }
        if let Some(raw) = &self.output {
            return Some(Step::Output(raw.field.clone()));
        }
        if let Some(raw) = &self.keep {
            return Some(Step::Keep(raw.resolve(path, mistakes)));
        }
        if let Some(raw) = &self.drop {
            return Some(Step::Drop(raw.resolve(path, mistakes)));
        }
        if let Some(raw) = &self.sample {
            return Some(raw.resolve(path, mistakes));
        }
        if let Some(raw) = &self.rate_limit {
            return Some(raw.resolve(path, mistakes));
        }
        let raw = self.metric.as_ref()?;
        let metric = raw.resolve(metrics, path, mistakes);
        metrics.push(metric.clone());
        Some(Step::Metric(metrics.len() - 1, metric))
    }
}

impl RawRegex {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Option<Step> {
        let path = path.key("pattern");
        match Capture::new(&self.pattern) {
            Ok(capture) => Some(Step::Capture("regex", parse(&self.field, &self.prefix), capture)),
            Err(bad @ BadCapture::NoNames) => {
                mistakes.at(&path, bad.to_string(), "name what becomes a field: (?<status>\\d+)");
                None
            }
            Err(bad @ BadCapture::Syntax(_)) => {
                mistakes.at(&path, bad.to_string(), REGEX_REMEDY);
                None
            }
        }
    }
}

impl RawPattern {
    fn preset(self) -> Preset {
        match self {
            Self::NginxCombined => Preset::NginxCombined,
            Self::NginxError => Preset::NginxError,
            Self::ApacheCommon => Preset::ApacheCommon,
            Self::ApacheCombined => Preset::ApacheCombined,
            Self::ApacheError => Preset::ApacheError,
        }
    }
}

impl RawGrok {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Option<Step> {
        match compile_grok(&self.pattern, &self.patterns) {
            Ok(capture) => Some(Step::Capture("grok", parse(&self.field, &self.prefix), capture)),
            Err(bad) => {
                let remedy = match &bad {
                    BadGrok::Unknown(_) => "add it under `patterns`",
                    BadGrok::Circle(_) | BadGrok::TooLong => "name fewer patterns within patterns",
                    BadGrok::Open => "close it, or write \\%\\{",
                    BadGrok::NoFields => "give a pattern the name of a field",
                    BadGrok::Syntax(_) => REGEX_REMEDY,
                };
                mistakes.at(&path.key("pattern"), bad.to_string(), remedy);
                None
            }
        }
    }
}

impl RawTimestamp {
    fn resolve(&self, times: Bounds, path: &Path, mistakes: &mut Mistakes) -> Step {
        if self.field.is_empty() {
            mistakes.at(&path.key("field"), "is empty", "name the field with the time");
        }
        let zone = Zone::named(&self.zone).unwrap_or_else(|why| {
            let reason = format!("`{}` is no time zone here: {why}", self.zone.escape_debug());
            mistakes.at(&path.key("zone"), reason, "use UTC, local, +02:00 or a name such as Europe/Berlin");
            Zone::default()
        });
        let mut formats = Vec::new();
        for (nth, text) in self.formats.iter().enumerate() {
            match Format::parse(text) {
                Ok(format) => formats.push(format),
                Err(why) => {
                    let reason = format!("`{}` {why}", text.escape_debug());
                    let names: Vec<_> = Format::names().collect();
                    let remedy =
                        format!("use a name ({}), strftime's directives or Go's layout", names.join(", "));
                    mistakes.at(&path.key("formats").index(nth), reason, remedy);
                }
            }
        }
        if self.formats.is_empty() {
            mistakes.at(&path.key("formats"), "are none", "list one, such as rfc3339");
        }
        let bounds = Bounds { age: self.max_age.as_ref().map_or(times.age, |age| age.0), ..times };
        Step::Timestamp(Timestamp { field: self.field.clone(), formats, zone, bounds })
    }
}

fn labels(raw: &BTreeMap<String, String>, path: &Path, mistakes: &mut Mistakes) -> Step {
    if raw.is_empty() {
        mistakes.at(path, "make no label", "write LABEL: FIELD");
    }
    for (label, field) in raw {
        let here = path.key(label);
        if !is_label(label) {
            let remedy =
                "use letters, digits and underscores, a digit and two underscores not at the beginning";
            mistakes.at(&here, "is no label's name", remedy);
        } else if matches!(label.as_str(), "node" | "tenant") {
            let reason = format!("`{label}` comes from the agent's certificate");
            mistakes.at(&here, reason, "use another name");
        }
        if field.is_empty() {
            mistakes.at(&here, "names no field", "write LABEL: FIELD");
        }
    }
    Step::Labels(raw.iter().map(|(label, field)| (label.clone(), field.clone())).collect())
}

impl RawMetadata {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Step {
        for (key, list) in [("keep", &self.keep), ("drop", &self.drop)] {
            for (nth, name) in list.iter().enumerate().filter(|(_, name)| !is_field_pattern(name)) {
                let reason = format!("`{}` is no name of fields", name.escape_debug());
                mistakes.at(&path.key(key).index(nth), reason, "write a name; a `*` may stand at its end");
            }
        }
        Step::Metadata(Metadata { keep: self.keep.clone(), drop: self.drop.clone() })
    }
}

impl RawLevel {
    fn level(self) -> Level {
        match self {
            Self::Trace => Level::Trace,
            Self::Debug => Level::Debug,
            Self::Info => Level::Info,
            Self::Warn => Level::Warn,
            Self::Error => Level::Error,
            Self::Critical => Level::Critical,
            Self::Fatal => Level::Fatal,
        }
    }
}

impl RawCondition {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Condition {
        let asks = self.equals.is_some()
            || !self.one_of.is_empty()
            || self.contains.is_some()
            || self.matches.is_some()
            || self.below.is_some()
            || self.exists.is_some();
        if !asks {
            let remedy = "give it equals, one_of, contains, matches, below or exists";
            mistakes.at(path, "asks nothing", remedy);
        }
        if self.field.is_none() && self.exists.is_some() {
            mistakes.at(&path.key("exists"), "is asked of no field", "add `field`");
        }
        Condition {
            field: self.field.clone(),
            one_of: self.equals.iter().chain(&self.one_of).cloned().collect(),
            contains: self.contains.clone(),
            matches: self.matches.as_ref().and_then(|text| expression(text, &path.key("matches"), mistakes)),
            below: self.below.map(RawLevel::level),
            exists: self.exists,
            not: self.not,
        }
    }
}

impl RawSample {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Step {
        if !(self.keep > 0.0 && self.keep <= 1.0) {
            mistakes.at(&path.key("keep"), "is no share between 0 and 1", "use 0.1 for one in ten");
        }
        Step::Sample(Sample {
            // Saturates: all of them is all of them.
            threshold: (self.keep * u64::MAX as f64) as u64,
            field: self.field.clone(),
            when: self.when.as_ref().map(|when| when.resolve(&path.key("when"), mistakes)),
        })
    }
}

impl RawRateLimit {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Step {
        if !(self.per_second > 0.0 && self.per_second.is_finite()) {
            mistakes.at(&path.key("per_second"), "is no rate", "use 100 for a hundred entries a second");
        }
        let burst = self.burst.unwrap_or(2.0 * self.per_second).max(1.0);
        if self.burst.is_some_and(|burst| !(burst >= 1.0 && burst.is_finite())) {
            mistakes.at(&path.key("burst"), "is less than one entry", "use 1 or more");
        }
        Step::RateLimit(RateLimit { per_second: self.per_second, burst })
    }
}
