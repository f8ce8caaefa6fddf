//! The steps that an entry goes through, in the order of the configuration.

use super::SourceLabels;
use super::capture::Capture;
use super::event::Event;
use super::level::Level;
use super::mask::Mask;
use super::matching::{self, Condition};
use super::metrics::{Kind, Metric, Observation, push_value};
use super::settings::is_name;
use super::time::{Bounds, Format, Zone};
use super::{json, logfmt};
use regex::CaptureLocations;
use std::collections::HashMap;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// What is done with an entry.
#[derive(Debug, Clone)]
pub enum Step {
    /// Adds the fields of a JSON object.
    Json(Parse),
    /// Adds the fields of logfmt.
    Logfmt(Parse),
    /// Adds the named groups of an expression: `regex`, `pattern` or `grok`.
    Capture(&'static str, Parse, Capture),
    /// Takes the entry's time from a field.
    Timestamp(Timestamp),
    /// Finds the level, normalises it and gives it as the field `level` and in structured metadata.
    Level(Option<String>),
    /// Makes labels of fields: the label and its field.
    Labels(Vec<(String, String)>),
    /// Puts fields into structured metadata.
    Metadata(Metadata),
    /// Makes a field the line.
    Output(String),
    /// Leaves out all others.
    Keep(Condition),
    /// Leaves it out.
    Drop(Condition),
    /// Keeps a share.
    Sample(Sample),
    /// Keeps so many a second.
    RateLimit(RateLimit),
    /// Counts it: the metric's number and the metric.
    Metric(usize, Arc<Metric>),
}

/// What a parser reads and how it names what it found.
#[derive(Debug, Clone, Default)]
pub struct Parse {
    /// The field that is read; the line without one.
    pub field: Option<String>,
    /// Before the name of each field.
    pub prefix: String,
}

/// Where an entry's time is.
#[derive(Debug, Clone)]
pub struct Timestamp {
    /// The field.
    pub field: String,
    /// How it may be written; the first that reads it counts.
    pub formats: Vec<Format>,
    /// Where times without an offset are meant.
    pub zone: Zone,
    /// What is believed.
    pub bounds: Bounds,
}

/// Which fields become structured metadata.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// These; all if empty.
    pub keep: Vec<String>,
    /// All but these.
    pub drop: Vec<String>,
}

/// A share of entries.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Of 2⁶⁴ hashes, how many are kept.
    pub threshold: u64,
    /// Entries with the same value of this field are kept or left out together.
    pub field: Option<String>,
    /// Only these are sampled.
    pub when: Option<Condition>,
}

/// So many entries a second of each stream.
#[derive(Debug, Clone, Copy)]
pub struct RateLimit {
    /// Entries a second.
    pub per_second: f64,
    /// Entries at once after a pause.
    pub burst: f64,
}

/// What a step decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The entry goes on.
    On,
    /// It is left out.
    Out,
    /// It is left out this time; read again, it might not be.
    OutForNow,
}

/// What is known of an entry beside itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub read: &'a str,
    pub source: &'a SourceLabels,
    pub stream: &'a str,
    pub base_ns: i64,
    /// What tells it from its twins: its place in the source, or its time.
    pub place: u64,
    pub again: bool,
    /// What is taken out of what leaves before the last step: the labels of metrics.
    pub mask: Option<&'a Mask>,
}

/// The label of a container's output.
pub(super) const STREAM_LABEL: &str = "stream";

/// The most buckets that one rate limit remembers.
const MAX_BUCKETS: usize = 10_000;

/// What a step needs while it works.
#[derive(Debug, Default)]
pub(super) struct Tools {
    locations: Option<CaptureLocations>,
    buckets: HashMap<u64, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at_ns: i64,
}

impl Tools {
    pub fn new(step: &Step) -> Self {
        let locations = match step {
            Step::Capture(_, _, capture) => Some(capture.locations()),
            _ => None,
        };
        Self { locations, buckets: HashMap::new() }
    }

    /// Gives a token back: the entry that took it comes again.
    pub fn give_back(&mut self, bucket: u64) {
        if let Some(bucket) = self.buckets.get_mut(&bucket) {
            bucket.tokens += 1.0;
        }
    }
}

impl<'a> Facts<'a> {
    /// What is not a field: labels that were made, structured metadata, labels of the source.
    fn named(&self, event: &'a Event, name: &str) -> Option<&'a str> {
        let pairs = event.labels.iter().chain(&event.metadata);
        let own = pairs.rev().find(|pair| event.text(pair.name) == name).map(|pair| event.text(pair.value));
        own.or_else(|| self.source.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()))
            .or((name == STREAM_LABEL && !self.stream.is_empty()).then_some(self.stream))
    }

    fn holds(&self, condition: &Condition, event: &'a Event) -> bool {
        condition.holds(event, self.read, |name| self.named(event, name))
    }

    fn value(&self, event: &'a Event, name: &str) -> Option<&'a str> {
        event.value(name).or_else(|| self.named(event, name))
    }
}

impl Step {
    /// Its key in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Json(_) => "json",
            Self::Logfmt(_) => "logfmt",
            Self::Capture(name, ..) => name,
            Self::Timestamp(_) => "timestamp",
            Self::Level(_) => "level",
            Self::Labels(_) => "labels",
            Self::Metadata(_) => "metadata",
            Self::Output(_) => "output",
            Self::Keep(_) => "keep",
            Self::Drop(_) => "drop",
            Self::Sample(_) => "sample",
            Self::RateLimit(_) => "rate_limit",
            Self::Metric(..) => "metric",
        }
    }

    /// The reason by which it leaves entries out, if it does.
    pub(super) fn drops_as(&self) -> Option<&'static str> {
        match self {
            Self::Keep(_) | Self::Drop(_) => Some("filtered"),
            Self::Sample(_) => Some("sampled"),
            Self::RateLimit(_) => Some("rate_limited"),
            _ => None,
        }
    }

    /// Whether it may find nothing where it looks.
    pub(super) fn may_fail(&self) -> bool {
        matches!(self, Self::Json(_) | Self::Logfmt(_) | Self::Capture(..) | Self::Timestamp(_))
    }

    /// Does it. `nth` is its number.
    pub(super) fn run(
        &self,
        nth: usize,
        event: &mut Event,
        facts: &Facts<'_>,
        tools: &mut Tools,
        scratch: &mut String,
    ) -> Verdict {
        let failed = match self {
            Self::Json(parse) => !parse
                .read(event, facts, scratch, |text, event| json::parse(text, &parse.prefix, event).is_ok()),
            Self::Logfmt(parse) => {
                !parse.read(event, facts, scratch, |text, event| logfmt::parse(text, &parse.prefix, event))
            }
            Self::Capture(_, parse, capture) => {
                let at = tools.locations.get_or_insert_with(|| capture.locations());
                !parse
                    .read(event, facts, scratch, |text, event| capture.parse(text, &parse.prefix, at, event))
            }
            Self::Timestamp(timestamp) => !timestamp.read(event, facts),
            Self::Level(field) => {
                let level = match field {
                    Some(field) => facts.value(event, field).and_then(Level::of_value),
                    None => matching::of_event(event).or_else(|| Level::of_line(event.line(facts.read))),
                };
                if let Some(level) = level {
                    event.set("level", level.name());
                    event.forget("level");
                    event.note("level", level.name());
                }
                false
            }
            Self::Labels(labels) => {
                for (label, field) in labels {
                    match event.find(field) {
                        Some(span) => event.label(label, span),
                        None => {
                            let found = event.metadata.iter().find(|pair| event.text(pair.name) == *field);
                            if let Some(span) = found.map(|pair| pair.value) {
                                event.label(label, span);
                            }
                        }
                    }
                }
                false
            }
            Self::Metadata(metadata) => {
                metadata.add(event);
                false
            }
            Self::Output(field) => {
                if let Some(span) = event.find(field) {
                    event.set_line(span);
                }
                false
            }
            Self::Keep(condition) => return Verdict::out_if(!facts.holds(condition, event)),
            Self::Drop(condition) => return Verdict::out_if(facts.holds(condition, event)),
            Self::Sample(sample) => return Verdict::out_if(!sample.keeps(event, facts)),
            Self::RateLimit(limit) => {
                if facts.again {
                    return Verdict::On;
                }
                let stream = stream_hash(event, facts);
                if !limit.take(&mut tools.buckets, stream, facts.base_ns) {
                    return Verdict::OutForNow;
                }
                event.effects.tokens.push((nth, stream));
                false
            }
            Self::Metric(number, metric) => {
                if !facts.again {
                    observe(*number, metric, event, facts);
                }
                false
            }
        };
        if failed {
            event.effects.failed |= 1 << nth;
        }
        Verdict::On
    }
}

impl Verdict {
    fn out_if(out: bool) -> Self {
        if out { Self::Out } else { Self::On }
    }
}

impl Parse {
    /// Has what is to be read parsed. A field is copied first: what is found is written where it stands.
    fn read(
        &self,
        event: &mut Event,
        facts: &Facts<'_>,
        scratch: &mut String,
        parse: impl FnOnce(&str, &mut Event) -> bool,
    ) -> bool {
        match &self.field {
            None if !event.is_rewritten() => return parse(facts.read, event),
            None => event.line(facts.read).clone_into(scratch),
            Some(field) => match facts.value(event, field) {
                Some(text) => text.clone_into(scratch),
                None => return false,
            },
        }
        parse(scratch, event)
    }
}

impl Timestamp {
    fn read(&self, event: &mut Event, facts: &Facts<'_>) -> bool {
        let Some(text) = facts.value(event, &self.field) else { return false };
        let read = self.formats.iter().find_map(|format| format.read(text, &self.zone, facts.base_ns));
        let Some(at_ns) = read else { return false };
        if self.bounds.hold(at_ns, facts.base_ns) {
            event.at_ns = Some(at_ns);
            event.original = None;
            event.effects.clamped = false;
        } else {
            let text = text.to_owned();
            event.not_believed(&text);
        }
        true
    }
}

impl Metadata {
    fn add(&self, event: &mut Event) {
        for nth in 0..event.fields.len() {
            let field = event.fields[nth];
            let name = event.text(field.name);
            let wanted = (self.keep.is_empty() || listed(&self.keep, name)) && !listed(&self.drop, name);
            let elsewhere =
                event.is_line(field.value) || event.labels.iter().any(|label| label.value == field.value);
            if wanted && !elsewhere && !event.text(field.value).is_empty() {
                event.metadata.push(field);
            }
        }
    }
}

/// Whether a name is listed, as it is or by what stands before a `*`.
fn listed(list: &[String], name: &str) -> bool {
    list.iter().any(|one| match one.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => one == name,
    })
}

impl Sample {
    fn keeps(&self, event: &Event, facts: &Facts<'_>) -> bool {
        if self.when.as_ref().is_some_and(|when| !facts.holds(when, event)) {
            return true;
        }
        let hash = match &self.field {
            Some(field) => {
                let value = facts.value(event, field).unwrap_or_default();
                xxhash_rust::xxh3::xxh3_64(value.as_bytes())
            }
            None => xxhash_rust::xxh3::xxh3_64_with_seed(facts.read.as_bytes(), facts.place),
        };
        hash < self.threshold || self.threshold == u64::MAX
    }
}

impl RateLimit {
    /// Takes a token of a stream's bucket at a moment; false if there is none.
    fn take(&self, buckets: &mut HashMap<u64, Bucket>, stream: u64, now_ns: i64) -> bool {
        let filled = |bucket: &Bucket| {
            let elapsed = now_ns.saturating_sub(bucket.at_ns).max(0) as f64 / 1e9;
            (bucket.tokens + elapsed * self.per_second).min(self.burst)
        };
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&stream) {
            // A full bucket is what a stream without one has.
            buckets.retain(|_, bucket| filled(bucket) < self.burst);
            if buckets.len() >= MAX_BUCKETS {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(stream).or_insert(Bucket { tokens: self.burst, at_ns: now_ns });
        bucket.tokens = filled(bucket);
        bucket.at_ns = bucket.at_ns.max(now_ns);
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

fn stream_hash(event: &Event, facts: &Facts<'_>) -> u64 {
    let mut hash = Xxh3::new();
    let source = facts.source.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let own = event.labels.iter().map(|pair| (event.text(pair.name), event.text(pair.value)));
    for (name, value) in source.chain(own).chain([(STREAM_LABEL, facts.stream)]) {
        for text in [name, value] {
            hash.update(&(text.len() as u32).to_le_bytes());
            hash.update(text.as_bytes());
        }
    }
    hash.digest()
}

fn observe(number: usize, metric: &Metric, event: &mut Event, facts: &Facts<'_>) {
    if metric.when.as_ref().is_some_and(|when| !facts.holds(when, event)) {
        return;
    }
    let value = match &metric.field {
        None => 1.0,
        Some(field) => match facts.value(event, field).and_then(|text| text.trim().parse::<f64>().ok()) {
            Some(value) if value.is_finite() && (metric.kind != Kind::Counter || value >= 0.0) => value,
            _ => return,
        },
    };
    let mut key = String::new();
    let mut pieces = Vec::new();
    if let Some(mask) = facts.mask.filter(|_| !metric.labels.is_empty()) {
        // What is secret for the words before it in the line is so in its field.
        mask.text(facts.read, &mut pieces);
    }
    for (nth, (_, field)) in metric.labels.iter().enumerate() {
        let value = facts.value(event, field).unwrap_or_default();
        match facts.mask {
            Some(mask) => push_value(&mut key, nth == 0, &mask.value(field, value, &mut pieces)),
            None => push_value(&mut key, nth == 0, value),
        }
    }
    event.effects.observations.push(Observation { metric: number, key, value: value * metric.scale });
}

/// Whether a text can be a field's name in a list: any that is not empty, with a `*` at the end alone.
pub fn is_field_pattern(text: &str) -> bool {
    let begin = text.strip_suffix('*').unwrap_or(text);
    !text.is_empty() && !begin.contains('*')
}

/// Whether a text can be a label's name.
pub fn is_label(name: &str) -> bool {
    is_name(name) && !name.starts_with("__")
}
