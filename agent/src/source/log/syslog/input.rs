//! A syslog input: its listeners, and the task that makes entries of what they receive.

use super::listen::{self, Received, Shared, listener_name};
use super::message::Message as Parsed;
use super::parse::{Context, parse};
use super::settings::{Part, QUEUE_BYTES, Settings};
use super::status::{Counters, Status, Statuses};
use crate::source::log::cutter::{BLOCK_LINGER, BLOCK_TEXT_BYTES, Cutter};
use crate::source::log::origin::Range;
use crate::source::log::pushed::{Ended, Outlet, queue};
use crate::source::log::shape::{Message, Shaper};
use crate::source::log::tally::Tally;
use pegel_runtime::metrics::Registry;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A message that claims to be from further ahead than this has a wrong clock: it gets the time of its receipt.
const MAX_AHEAD_NS: i64 = 10 * 60 * 1_000_000_000;
/// So has one from longer ago: a sender that keeps messages for a week is none that is known.
const MAX_BEHIND_NS: i64 = 7 * 24 * 3_600 * 1_000_000_000;
/// Streams whose last time is remembered.
const MAX_FLOORS: usize = 16_384;

/// What an input works with.
pub(in crate::source::log) struct Parts {
    pub(in crate::source::log) name: String,
    pub(in crate::source::log) settings: Settings,
    pub(in crate::source::log) labels: BTreeMap<String, String>,
    pub(in crate::source::log) shaper: Shaper,
    pub(in crate::source::log) cutter: Cutter,
    pub(in crate::source::log) registry: Registry,
    pub(in crate::source::log) shutdown: CancellationToken,
}

/// A running input.
pub(in crate::source::log) struct Syslog {
    name: String,
    counters: Arc<Counters>,
    statuses: Arc<Statuses>,
    ended: CancellationToken,
}

impl Syslog {
    /// Starts listeners and the task. Must be called within a tokio runtime.
    pub(in crate::source::log) fn start(parts: Parts) -> Self {
        let Parts { name, settings, labels, shaper, cutter, registry, shutdown } = parts;
        let settings = Arc::new(settings);
        let counters = Arc::new(Counters::new(&registry, &name));
        let names = settings.listeners.iter().map(listener_name).collect();
        let statuses = Arc::new(Statuses::new(names));
        let (inlet, outlet) = queue(QUEUE_BYTES);
        let (tally, lost) = Tally::open(cutter.checkpoints().dir(), &name);
        let tally = Arc::new(tally);
        if lost > 0 {
            tracing::warn!(input = name, messages = lost, "syslog messages waited at a kill: lost");
            cutter.intake().lost_in_crash(lost);
        }
        for (nth, listener) in settings.listeners.iter().enumerate() {
            let shared = Shared {
                settings: settings.clone(),
                inlet: inlet.clone(),
                counters: counters.clone(),
                statuses: statuses.clone(),
                tally: tally.clone(),
                shutdown: shutdown.clone(),
            };
            tokio::spawn(listen::run(nth, listener.clone(), shared));
        }
        drop(inlet);
        let ended = CancellationToken::new();
        let writer = Writer {
            settings,
            labels: labels.into_iter().collect(),
            shaper,
            cutter,
            counters: counters.clone(),
            floors: HashMap::new(),
            entries: 0,
            tally,
            messages: 0,
            last_ns: 0,
            cut_at: None,
        };
        let guard = ended.clone().drop_guard();
        tokio::spawn(async move {
            let _ended = guard;
            // An end of delivery is the end of the agent.
            let _ = writer.run(outlet, shutdown).await;
        });
        Self { name, counters, statuses, ended }
    }

    pub(in crate::source::log) fn status(&self) -> Status {
        Status {
            input: self.name.clone(),
            listeners: self.statuses.all(),
            received: self.counters.received.value(),
            dropped: self.counters.dropped.value(),
        }
    }

    pub(in crate::source::log) async fn stopped(&self) {
        self.ended.cancelled().await;
    }
}

/// Makes entries.
struct Writer {
    settings: Arc<Settings>,
    labels: Vec<(String, String)>,
    shaper: Shaper,
    cutter: Cutter,
    counters: Arc<Counters>,
    /// The last time of each stream of each host: one host's wrong clock moves no other's.
    floors: HashMap<Vec<(String, String)>, i64>,
    /// What is in the block.
    entries: u32,
    tally: Arc<Tally>,
    /// Messages of which something was made since the last block.
    messages: u64,
    last_ns: i64,
    cut_at: Option<Instant>,
}

impl Writer {
    async fn run(mut self, mut outlet: Outlet<Received>, shutdown: CancellationToken) -> Result<(), Ended> {
        loop {
            let due = self.cut_at.unwrap_or_else(|| Instant::now() + BLOCK_LINGER);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep_until(due), if self.cut_at.is_some() => self.cut().await?,
                received = outlet.next() => match received {
                    Some(received) => self.take(received).await?,
                    None => break,
                },
            }
        }
        while let Some(received) = outlet.take_now() {
            self.take(received).await?;
        }
        self.cut().await
    }

    async fn take(&mut self, received: Received) -> Result<(), Ended> {
        let text = String::from_utf8_lossy(&received.bytes);
        let context = Context {
            received_ns: received.at_ns,
            zone: self.settings.zone.clone(),
            local: received.peer.is_none(),
        };
        let parsed = parse(&text, &context);
        if let Some(flaw) = parsed.flaw {
            self.counters.flaw(flaw);
        }
        if received.cut {
            self.counters.cut.inc();
        }
        let peer = received.peer.map(|peer| peer.to_string());
        let peer = peer.as_deref();
        let labels = self.labels_of(&parsed, peer);
        let mut moved = None;
        let at_ns = parsed.at_ns.filter(|_| self.settings.use_time).filter(|at| {
            let right = at.saturating_sub(received.at_ns) <= MAX_AHEAD_NS
                && received.at_ns.saturating_sub(*at) <= MAX_BEHIND_NS;
            if !right {
                moved = jiff::Timestamp::from_nanosecond(i128::from(*at)).ok().map(|at| at.to_string());
            }
            right
        });
        let metadata = metadata(&parsed, &self.settings.labels, peer, received.cut, moved);
        let metadata: Vec<(&str, &str)> = metadata.iter().map(|(n, v)| (n.as_ref(), v.as_ref())).collect();
        let mut stream = labels.clone();
        stream.extend(parsed.host.or(peer).map(|host| (String::new(), host.to_owned())));
        let floor_ns = self.floors.get(&stream).copied().unwrap_or(0);
        loop {
            self.cutter.begin();
            let message = Message {
                text: parsed.text.as_bytes(),
                at_ns: Some(at_ns.unwrap_or(received.at_ns)),
                base_ns: received.at_ns,
                floor_ns,
                metadata: &metadata,
                again: false,
            };
            let shaped = self.shaper.message(&labels, message, BLOCK_TEXT_BYTES, self.cutter.builder());
            self.entries += shaped.entries;
            if shaped.full {
                self.cut().await?;
                continue;
            }
            self.last_ns = self.last_ns.max(shaped.last_ns);
            if self.floors.len() >= MAX_FLOORS {
                self.floors.clear();
            }
            self.floors.insert(stream, shaped.last_ns);
            self.messages += 1;
            if self.entries == 0 {
                // Left out.
                self.tally.made(std::mem::take(&mut self.messages));
            }
            break;
        }
        if self.entries > 0 {
            self.cut_at.get_or_insert_with(|| Instant::now() + BLOCK_LINGER);
        }
        if self.cutter.is_full() {
            self.cut().await?;
        }
        Ok(())
    }

    async fn cut(&mut self) -> Result<(), Ended> {
        self.cut_at = None;
        let entries = std::mem::take(&mut self.entries);
        if entries > 0 {
            self.cutter.cover(Range { entries, last_ns: self.last_ns, ..Range::default() });
        }
        let logs = self.cutter.finish();
        self.tally.made(std::mem::take(&mut self.messages));
        match logs {
            Some(logs) => self.cutter.intake().offer(logs).await.map_err(|_| Ended),
            None => Ok(()),
        }
    }

    /// The labels of a message's stream; the configuration's win.
    fn labels_of(&self, parsed: &Parsed<'_>, peer: Option<&str>) -> Vec<(String, String)> {
        let mut labels = self.labels.clone();
        for part in &self.settings.labels {
            let value = part_of(*part, parsed, peer);
            if let Some(value) = value.filter(|value| !value.is_empty())
                && !labels.iter().any(|(name, _)| name == part.name())
            {
                labels.push((part.name().to_owned(), value.to_owned()));
            }
        }
        labels.sort();
        labels
    }
}

fn part_of<'a>(part: Part, parsed: &Parsed<'a>, peer: Option<&'a str>) -> Option<&'a str> {
    match part {
        Part::Facility => Some(parsed.priority.facility()),
        Part::Level => Some(parsed.priority.level()),
        Part::App => parsed.app,
        Part::Host => parsed.host.or(peer),
    }
}

type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// What of a message is no label.
fn metadata<'a>(
    parsed: &'a Parsed<'a>,
    labels: &[Part],
    peer: Option<&'a str>,
    cut: bool,
    moved: Option<String>,
) -> Vec<Pair<'a>> {
    let mut metadata: Vec<Pair<'a>> = Vec::new();
    for part in [Part::Facility, Part::Level, Part::App, Part::Host] {
        if !labels.contains(&part)
            && let Some(value) = part_of(part, parsed, peer)
        {
            metadata.push((part.name().into(), value.into()));
        }
    }
    let parts = [("procid", parsed.procid), ("msgid", parsed.msgid), ("peer", peer)];
    metadata.extend(parts.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into()))));
    metadata.extend(parsed.flaw.map(|flaw| ("syslog_flaw".into(), flaw.name().into())));
    metadata.extend(cut.then(|| ("cut".into(), "true".into())));
    metadata.extend(moved.map(|time| ("syslog_time".into(), time.into())));
    metadata.extend(
        parsed.data.iter().map(|(name, value)| (name.as_str().into(), Cow::Borrowed(value.as_ref()))),
    );
    metadata
}
