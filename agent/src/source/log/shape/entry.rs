//! From an event to an entry of the block: steps, masking, the backend's limits, its time.

use super::SourceLabels;
use super::counts::{Counts, Tally};
use super::event::{Effects, Event, Pair};
use super::explain::Trace;
use super::mask::without;
use super::settings::{ADDED_LABELS, Settings, is_name, sanitise};
use super::step::{Facts, STREAM_LABEL, Tools, Verdict};
use super::text::prefix;
use pegel_proto::logs::{BlockBuilder, KeyIndex, StreamIndex};
use std::borrow::Cow;
use std::collections::HashMap;

/// A line's own time, where another one was taken.
const ORIGINAL_KEY: &str = "original_timestamp";
/// The entry goes on in the next one.
const CUT_KEY: &str = "cut";
/// How often the line came again.
const REPEATED_KEY: &str = "repeated";
/// How far a time may be moved without being told: what keeps order within a burst is no news.
const UNTOLD_NS: i64 = 1_000_000;
/// A run of repeats ends after so many.
const MAX_REPEATS: u32 = 1_000;

/// An event as framing gives it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    pub text: &'a str,
    /// The container's output.
    pub stream: &'a str,
    pub at_ns: Option<i64>,
    pub lines: u32,
    pub cut: bool,
    pub bad: u32,
    /// What tells it from its twins.
    pub place: u64,
    pub metadata: &'a [(&'a str, &'a str)],
}

/// What holds for all events of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub source: &'a SourceLabels,
    pub base_ns: i64,
    pub again: bool,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is in the block, or was left out.
    Done,
    /// It is held: what follows may repeat it.
    Held,
    /// It does not fit this block any more.
    Full,
}

/// Makes entries of events.
#[derive(Debug)]
pub(super) struct Maker {
    pub settings: Settings,
    counts: Option<Counts>,
    pub tally: Tally,
    tools: Vec<Tools>,
    event: Event,
    scratch: String,
    pieces: Vec<String>,
    source: Source,
    streams: HashMap<Box<[u8]>, StreamIndex>,
    keys: HashMap<Box<str>, KeyIndex>,
    spelling: Vec<u8>,
    /// An entry that may be repeated by what follows.
    held: Option<Held>,
    pub last_ns: i64,
    /// The time of the last entry before the one that is held.
    settled_ns: i64,
    pub entries: u32,
    pub trace: Option<Trace>,
}

/// The labels of a source as they may be sent.
#[derive(Debug, Default)]
struct Source {
    of: Option<Vec<(String, String)>>,
    labels: Vec<(String, String)>,
    /// What is too much for labels.
    moved: Vec<(String, String)>,
}

#[derive(Debug)]
struct Held {
    line: String,
    stream: StreamIndex,
    at_ns: i64,
    metadata: Vec<(KeyIndex, String)>,
    repeats: u32,
    /// What is to be counted when it is taken: of itself and of all that followed.
    tally: Tally,
    effects: Vec<Effects>,
}

impl Maker {
    pub fn new(settings: &Settings, counts: Option<Counts>) -> Self {
        Self {
            counts,
            tally: Tally::new(settings.steps.len()),
            tools: settings.steps.iter().map(Tools::new).collect(),
            event: Event::default(),
            scratch: String::new(),
            pieces: Vec::new(),
            source: Source::default(),
            streams: HashMap::new(),
            keys: HashMap::new(),
            spelling: Vec::new(),
            held: None,
            last_ns: 0,
            settled_ns: 0,
            entries: 0,
            trace: None,
            settings: settings.clone(),
        }
    }

    /// Begins a call.
    pub fn begin(&mut self, source: &SourceLabels, floor_ns: i64) {
        self.streams.clear();
        self.keys.clear();
        self.last_ns = floor_ns;
        self.settled_ns = floor_ns;
        self.entries = 0;
        self.held = None;
        if self.source.of.as_deref() != Some(source) {
            self.source = Source::of(source, &self.settings, &mut self.tally);
        }
    }

    /// Ends a call: what was counted becomes visible.
    pub fn end(&mut self) {
        if let Some(held) = self.held.take() {
            // It was not taken: it comes again.
            self.give_back(&held.effects);
        }
        match &self.counts {
            Some(counts) => counts.take(&mut self.tally),
            None => self.tally = Tally::new(self.settings.steps.len()),
        }
    }

    /// Whether an entry is held that what follows may repeat.
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// The time of the last entry that does not come again.
    pub fn settled_ns(&self) -> i64 {
        if self.is_holding() { self.settled_ns } else { self.last_ns }
    }

    /// Whether entries are the lines as they were read.
    pub fn is_plain(&self) -> bool {
        self.settings.steps.is_empty()
            && self.settings.mask.is_none()
            && !self.settings.repeats
            && self.source.moved.is_empty()
            && self.trace.is_none()
    }

    /// The stream of entries without labels of their own.
    pub fn plain_stream(&mut self, block: &mut BlockBuilder) -> Option<StreamIndex> {
        block.stream(self.source.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Makes an entry of an event. [`Put::Full`] changes nothing.
    pub fn put(&mut self, raw: Raw<'_>, call: Call<'_>, block: &mut BlockBuilder) -> Put {
        let mut event = std::mem::take(&mut self.event);
        event.clear();
        let put = self.shape(&mut event, raw, call, block);
        if put == Put::Full {
            self.give_back(std::slice::from_ref(&event.effects));
            if let Some(trace) = &mut self.trace {
                trace.again();
            }
        }
        self.event = event;
        put
    }

    fn give_back(&mut self, effects: &[Effects]) {
        for (step, bucket) in effects.iter().flat_map(|effects| &effects.tokens) {
            self.tools[*step].give_back(*bucket);
        }
    }

    fn shape(&mut self, event: &mut Event, raw: Raw<'_>, call: Call<'_>, block: &mut BlockBuilder) -> Put {
        for (name, value) in raw.metadata {
            event.note(name, value);
        }
        event.at_ns = raw.at_ns;
        if let Some(at_ns) = raw.at_ns.filter(|at_ns| !self.settings.times.hold(*at_ns, call.base_ns)) {
            event.not_believed(&written(at_ns));
        }
        let mask = self.settings.mask.clone();
        let facts = Facts {
            mask: mask.as_deref(),
            read: raw.text,
            source: call.source,
            stream: raw.stream,
            base_ns: call.base_ns,
            place: raw.place,
            again: call.again,
        };
        let steps = self.settings.steps.clone();
        if let Some(trace) = &mut self.trace {
            trace.begin(&raw);
        }
        for (nth, step) in steps.iter().enumerate() {
            let verdict = step.run(nth, event, &facts, &mut self.tools[nth], &mut self.scratch);
            if let Some(trace) = &mut self.trace {
                trace.step(nth, step.name(), event, raw.text, verdict);
            }
            if verdict != Verdict::On {
                self.leave_out(event, &raw, nth, verdict, call.base_ns);
                return Put::Done;
            }
        }
        self.mask(event, raw.text);
        let source = std::mem::take(&mut self.source);
        let put = self.write(event, &source, &raw, call, block);
        self.source = source;
        put
    }

    /// Counts an event that a step left out.
    fn leave_out(&mut self, event: &mut Event, raw: &Raw<'_>, nth: usize, verdict: Verdict, base_ns: i64) {
        let effects = std::mem::take(&mut event.effects);
        let held = self.held.is_some();
        let tally = match &mut self.held {
            Some(held) => &mut held.tally,
            None => &mut self.tally,
        };
        tally.dropped[nth] += 1;
        tally.count_lines(raw);
        tally.count_effects(&effects);
        if verdict == Verdict::OutForNow {
            // The next entry's time is the same whether this one is left out or not.
            self.last_ns = event.at_ns.unwrap_or(base_ns).max(self.last_ns.saturating_add(1));
        }
        match &mut self.held {
            Some(held) => held.effects.push(effects),
            None => event.effects = effects,
        }
        if !held {
            self.tally.unseries += self.settings.derived.observe(&mut event.effects.observations);
        }
    }

    /// Masks the line, labels and metadata in place.
    fn mask(&mut self, event: &mut Event, read: &str) {
        let Some(mask) = self.settings.mask.clone() else { return };
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.clear();
        let mut masked = 0;
        let line = mask.text(read, &mut pieces);
        if event.is_rewritten() {
            let own = event.line(read).to_owned();
            let line = without(mask.text(&own, &mut pieces), &pieces);
            if line != own {
                masked += 1;
                let line = line.into_owned();
                event.replace_line(&line);
            }
        } else if let Cow::Owned(line) = line {
            masked += 1;
            event.replace_line(&line);
        }
        for which in [Which::Labels, Which::Metadata] {
            for nth in 0..which.of(event).len() {
                let pair = which.of(event)[nth];
                let (name, value) = (event.text(pair.name), event.text(pair.value));
                let masked_value = mask.value(name, value, &mut pieces);
                let value = (*masked_value != *value).then(|| masked_value.into_owned());
                let masked_name = without(mask.text(name, &mut pieces), &pieces);
                let name = (*masked_name != *name).then(|| masked_name.into_owned());
                let mut next = pair;
                if let Some(value) = value {
                    masked += 1;
                    next.value = event.keep(&value);
                }
                if let Some(name) = name {
                    masked += 1;
                    next.name = event.keep(&name);
                }
                which.of(event)[nth] = next;
            }
        }
        if let Some(original) = event.original {
            let text = event.text(original).to_owned();
            let clean = without(mask.text(&text, &mut pieces), &pieces).into_owned();
            event.original = Some(event.keep(&clean));
        }
        self.pieces = pieces;
        event.effects.masked = masked;
    }

    /// Puts the entry into the block within the backend's limits, or holds it.
    fn write(
        &mut self,
        event: &mut Event,
        source: &Source,
        raw: &Raw<'_>,
        call: Call<'_>,
        block: &mut BlockBuilder,
    ) -> Put {
        let limits = self.settings.limits;
        let empty = block.entries() == 0;
        let mut noted = Tally::default();

        // Labels: what does not fit goes into metadata.
        let room = limits.labels.saturating_sub(ADDED_LABELS + source.labels.len());
        let stream_label = usize::from(!raw.stream.is_empty());
        let mut kept: usize = stream_label;
        self.spelling.clear();
        self.spelling.extend_from_slice(raw.stream.as_bytes());
        let (mut own, mut too_much): (Vec<Pair>, Vec<Pair>) = (Vec::new(), Vec::new());
        for nth in 0..event.labels.len() {
            let pair = event.labels[nth];
            let (name, value) = (event.text(pair.name), event.text(pair.value));
            if value.is_empty() || own.iter().any(|other| event.text(other.name) == name) {
                continue;
            }
            let replaces = source.labels.iter().any(|(known, _)| known == name);
            if value.len() > limits.label_value || (!replaces && kept >= room) {
                noted.moved_labels += 1;
                too_much.push(pair);
                continue;
            }
            kept += usize::from(!replaces);
            for text in [name, value] {
                self.spelling.push(0xff);
                self.spelling.extend_from_slice(text.as_bytes());
            }
            own.push(pair);
        }
        let stream = match self.streams.get(self.spelling.as_slice()) {
            Some(stream) => *stream,
            None => {
                let Some(stream) = source.stream(event, &own, raw.stream, block) else { return Put::Full };
                self.streams.insert(self.spelling.as_slice().into(), stream);
                stream
            }
        };

        // The line, that masking may have made longer.
        let whole = event.line(raw.text);
        let line = prefix(whole, limits.line);
        let cut = raw.cut || line.len() < whole.len();
        noted.cut += u64::from(cut);

        // Time: its own if it is believed, and later than the entry before.
        let at_ns = event.at_ns.unwrap_or(call.base_ns).max(self.last_ns.saturating_add(1));
        let moved = event.at_ns.filter(|own| at_ns - own > UNTOLD_NS).map(written);
        let original = event.original.map(|span| event.text(span)).or(moved.as_deref());
        let extra = [original.map(|text| (ORIGINAL_KEY, text)), cut.then_some((CUT_KEY, "true"))];

        // Structured metadata, as far as it goes.
        let parsed = too_much
            .iter()
            .chain(&event.metadata)
            .map(|pair| (event.text(pair.name), event.text(pair.value)));
        let moved = source.moved.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut names: Vec<Cow<'_, str>> = Vec::new();
        let mut pairs: Vec<(KeyIndex, &str)> = Vec::new();
        let mut bytes = 0;
        for (name, value) in extra.into_iter().flatten().chain(parsed).chain(moved) {
            if value.is_empty()
                || own.iter().any(|l| event.text(l.name) == name && event.text(l.value) == value)
            {
                continue;
            }
            let name = if is_name(name) && name.len() <= limits.label_name {
                Cow::Borrowed(name)
            } else {
                let mut clean = String::with_capacity(name.len() + 1);
                sanitise(name, limits.label_name, &mut clean);
                Cow::Owned(clean)
            };
            if names.contains(&name) {
                continue;
            }
            let left = limits.metadata_bytes.saturating_sub(bytes + name.len());
            if pairs.len() >= limits.metadata_pairs || left == 0 {
                noted.lost_metadata += 1;
                continue;
            }
            let fitting = prefix(value, left);
            noted.lost_metadata += u64::from(fitting.len() < value.len());
            let key = match self.keys.get(&*name) {
                Some(key) => Some(*key),
                None => {
                    let key = block.key(&name);
                    if let Some(key) = key {
                        self.keys.insert(name.as_ref().into(), key);
                    }
                    key
                }
            };
            match key {
                Some(key) if !fitting.is_empty() => {
                    bytes += name.len() + fitting.len();
                    pairs.push((key, fitting));
                    names.push(name);
                }
                None if !empty => return Put::Full,
                _ => noted.lost_metadata += 1,
            }
        }
        if !block.fits(line.len() + bytes + 16 * (pairs.len() + 2)) {
            return Put::Full;
        }
        let repeats = self.settings.repeats && !cut;
        let same = repeats
            && self
                .held
                .as_ref()
                .is_some_and(|held| held.stream == stream && held.line == line && held.repeats < MAX_REPEATS);
        if same {
            self.last_ns = at_ns;
            if let Some(held) = &mut self.held {
                held.repeats += 1;
                held.tally.repeats += 1;
                held.tally.count_lines(raw);
                held.tally.count_effects(&event.effects);
                held.tally.add(&noted);
                held.effects.push(std::mem::take(&mut event.effects));
            }
            return Put::Done;
        }
        if self.settings.repeats {
            if !self.release(block) {
                return Put::Full;
            }
            // The room was asked for before the held one took its own.
            let mut tally = Tally::new(self.settings.steps.len());
            tally.count_lines(raw);
            tally.count_effects(&event.effects);
            tally.add(&noted);
            self.held = Some(Held {
                line: line.to_owned(),
                stream,
                at_ns,
                metadata: pairs.iter().map(|(key, value)| (*key, (*value).to_owned())).collect(),
                repeats: 0,
                tally,
                effects: vec![std::mem::take(&mut event.effects)],
            });
            self.last_ns = at_ns;
            return Put::Held;
        }
        block.push(stream, at_ns, line, &pairs);
        self.last_ns = at_ns;
        self.entries += 1;
        if let Some(trace) = &mut self.trace {
            trace.entry();
        }
        self.tally.entries += 1;
        self.tally.count_lines(raw);
        self.tally.count_effects(&event.effects);
        self.tally.add(&noted);
        self.tally.unseries += self.settings.derived.observe(&mut event.effects.observations);
        Put::Done
    }

    /// Puts the entry that was held into the block. Whether it fitted.
    pub fn release(&mut self, block: &mut BlockBuilder) -> bool {
        let Some(held) = self.held.take() else { return true };
        let bytes: usize = held.metadata.iter().map(|(_, value)| value.len() + 32).sum();
        let key = if held.repeats > 0 { block.key(REPEATED_KEY) } else { None };
        let lacks_key = held.repeats > 0 && key.is_none() && block.entries() > 0;
        if lacks_key || !block.fits(held.line.len() + bytes + 64) {
            self.held = Some(held);
            return false;
        }
        let repeated = held.repeats.to_string();
        let mut pairs: Vec<_> = held.metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
        pairs.extend(key.map(|key| (key, repeated.as_str())));
        block.push(held.stream, held.at_ns, &held.line, &pairs);
        self.settled_ns = self.last_ns;
        self.entries += 1;
        self.tally.entries += 1;
        self.tally.add(&held.tally);
        for mut effects in held.effects {
            self.tally.unseries += self.settings.derived.observe(&mut effects.observations);
        }
        true
    }

    /// Counts a line that is nothing but a hole in its file.
    pub fn count_hole(&mut self) {
        let tally = self.held.as_mut().map_or(&mut self.tally, |held| &mut held.tally);
        tally.lines += 1;
        tally.empty += 1;
    }

    /// Counts an event that fits no block at all.
    pub fn give_up(&mut self, raw: &Raw<'_>) {
        self.tally.count_lines(raw);
        self.tally.unfitting += 1;
    }
}

/// The two lists that are masked.
#[derive(Clone, Copy)]
enum Which {
    Labels,
    Metadata,
}

impl Which {
    fn of(self, event: &mut Event) -> &mut Vec<Pair> {
        match self {
            Self::Labels => &mut event.labels,
            Self::Metadata => &mut event.metadata,
        }
    }
}

impl Tally {
    fn count_lines(&mut self, raw: &Raw<'_>) {
        self.lines += u64::from(raw.lines);
        self.joined += u64::from(raw.lines.saturating_sub(1));
        // A piece of a line that was cut is an entry more than there are lines.
        self.pieces += u64::from(raw.lines == 0);
        self.bad_text += u64::from(raw.bad);
    }

    fn count_effects(&mut self, effects: &Effects) {
        self.clamped += u64::from(effects.clamped);
        self.masked += effects.masked;
        let mut failed = effects.failed;
        while failed != 0 {
            self.failed[failed.trailing_zeros() as usize] += 1;
            failed &= failed - 1;
        }
    }
}

impl Source {
    fn of(source: &SourceLabels, settings: &Settings, tally: &mut Tally) -> Self {
        let limits = &settings.limits;
        let most = limits.labels.saturating_sub(ADDED_LABELS + usize::from(settings.container.is_some()));
        let (mut labels, mut moved) = (Vec::<(String, String)>::new(), Vec::new());
        for (name, value) in source {
            let mut clean = String::new();
            if is_name(name) && name.len() <= limits.label_name {
                clean.push_str(name);
            } else {
                sanitise(name, limits.label_name, &mut clean);
            }
            let value = match &settings.mask {
                Some(mask) => mask.value(name, value, &mut Vec::new()).into_owned(),
                None => value.clone(),
            };
            if value.is_empty() || labels.iter().any(|(known, _)| *known == clean) {
                continue;
            }
            if labels.len() >= most || value.len() > limits.label_value {
                tally.moved_labels += 1;
                moved.push((clean, value));
            } else {
                labels.push((clean, value));
            }
        }
        labels.sort_unstable();
        Self { of: Some(source.to_vec()), labels, moved }
    }

    /// The stream of an entry with labels of its own, which win.
    fn stream(
        &self,
        event: &Event,
        own: &[Pair],
        output: &str,
        block: &mut BlockBuilder,
    ) -> Option<StreamIndex> {
        let mut labels: Vec<(&str, &str)> =
            own.iter().map(|pair| (event.text(pair.name), event.text(pair.value))).collect();
        let stream = (!output.is_empty()).then_some((STREAM_LABEL, output));
        let others = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in stream.into_iter().chain(others) {
            if labels.iter().all(|(known, _)| *known != name) {
                labels.push((name, value));
            }
        }
        labels.sort_unstable();
        block.stream(labels.into_iter())
    }
}

/// A time as metadata has it.
pub(super) fn written(at_ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at_ns))
        .map_or_else(|_| at_ns.to_string(), |at| at.to_string())
}
