//! Feeds the core from the real parts: intake, uplink, spool thread, positions.
//!
//! One task. Effects are carried out in their order; what takes time (the spool) comes back as a finished job. The
//! books and what else people ask for are published as a snapshot after every turn that changed anything.

use super::books::DropReason;
use super::core::Core;
use super::effect::{Effect, Memory, OutputBooks, SpoolLoss, StoreFailure, Stored};
use crate::intake::Inbox;
use crate::positions::Positions;
use crate::rejects::Rejects;
use crate::spool::thread::{CommitOutcome, CursorId, ReadOutcome, SpoolState, SpoolThread};
use crate::spool::{Inventory, Loss, LossReason, SpoolError};
use crate::uplink::{Attempt, HeartbeatReport, StreamKey, UplinkEvent, UplinkHandle};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use pegel_proto::batch::{BatchSeq, Content, Logs, RejectReason, Signal};
use pegel_proto::identity::OutputName;
use pegel_proto::wire;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How many samples one read of the spool brings: some milliseconds of decoding, and 1 MiB of values.
const READ_SAMPLES: u64 = 128 << 10;
/// How often positions are written when nothing asks for it sooner.
const REMEMBER_EVERY: Duration = Duration::from_secs(1);
/// How often the core is asked what is due when it names no instant.
const IDLE_TICK: Duration = Duration::from_secs(5);
/// How soon the aggregator hears how things are after a session began, and when data begins to wait.
const NEWS_AFTER: Duration = Duration::from_secs(2);
/// How often it hears while data waits.
const NEWS_EVERY: Duration = Duration::from_secs(5);
/// How long cursors wait for a spool that did not answer at the start.
const SPOOL_PATIENCE: Duration = Duration::from_secs(60);
/// A stream that was reset so often without an acknowledgement has a batch that the aggregator cannot read.
const RESETS_BEFORE_REFUSAL: u32 = 3;
/// The bytes of values that a cursor has in flight at most; the aggregator's window, in encoded bytes, binds first
/// in steady state.
const IN_FLIGHT_BYTES: usize = 2 << 20;

/// The state of delivery, for status and metrics.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The books of each output.
    pub books: Vec<OutputBooks>,
    /// Bytes of values in memory.
    pub front_bytes: usize,
    /// What the spool holds.
    pub spool: Inventory,
    /// How the spool is; none if it answers.
    pub spool_trouble: Option<String>,
    /// Why positions can't be written, if so.
    pub positions_trouble: Option<String>,
    /// Why sources wait, if it is for the spool.
    pub takes_nothing: Option<StoreFailure>,
}

/// Hears of log batches that are safe.
pub type Safe = Arc<dyn Fn(BatchSeq, &Logs) + Send + Sync>;

/// What the driver works with.
pub struct Parts {
    /// What is delivered.
    pub signal: Signal,
    /// What sources hand over.
    pub intake: Inbox,
    /// Is told of batches whose source need not keep its place before them any longer.
    pub safe: Option<Safe>,
    /// The uplink.
    pub uplink: UplinkHandle,
    /// Its events.
    pub events: mpsc::UnboundedReceiver<UplinkEvent>,
    /// The spool.
    pub spool: Arc<SpoolThread>,
    /// Positions; none if the state directory can't be written.
    pub positions: Option<Positions>,
    /// Where refused records are kept.
    pub rejects: Arc<Mutex<Rejects>>,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub wall_clock_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// How long the end may take.
    pub shutdown_timeout: Duration,
}

enum Done {
    Stored(Result<CommitOutcome, SpoolError>),
    Loaded(OutputName, BatchSeq, Result<ReadOutcome, SpoolError>),
    Trimmed,
    Listed(Option<Inventory>),
}

/// Delivery, ready to run.
pub struct Driver {
    core: Core,
    parts: Parts,
    started: Instant,
    attempts: HashMap<OutputName, Attempt>,
    cursor_ids: HashMap<OutputName, CursorId>,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    intake_dropped: u64,
    remember_at: Instant,
    /// Whether there is a session, be it with an aggregator that has no output for this signal.
    linked: bool,
    heartbeat_at: Instant,
    heartbeat_every: Duration,
    /// Whether the last heartbeat said that data waits.
    told_behind: bool,
    dirty: bool,
    /// The spool was touched since it was last listed.
    spool_moved: bool,
    spool_given_up: bool,
    snapshot: watch::Sender<Snapshot>,
}

/// Starts the core from what positions and spool know. A spool that does not answer is not an empty one: as long as
/// the books say that it holds something, cursors wait for it ([`SPOOL_PATIENCE`]).
pub async fn restore(settings: super::effect::Settings, memory: Memory, spool: &SpoolThread) -> Core {
    // An empty append opens the spool and brings what was lost on the way.
    let opened = spool.append(Vec::new()).await;
    let inventory = spool.inventory().await;
    let (Ok(opened), Ok(inventory)) = (opened, inventory) else {
        let expected = memory.cursors.values().map(|(_, _, books)| books).chain(&memory.unassigned);
        let expects = expected.map(|books| books.spooled).sum::<u64>() > 0;
        let last = expects.then(|| BatchSeq(memory.next_seq.max(1) - 1));
        let held: HashMap<BatchSeq, u64> =
            memory.cursors.values().map(|(acked, _, books)| (*acked, books.spooled)).collect();
        let unassigned = memory.unassigned.as_ref().map_or(0, |books| books.spooled);
        let mut core =
            Core::new(settings, memory, last, |acked| held.get(&acked).copied().unwrap_or(unassigned));
        core.await_spool();
        return core;
    };
    let losses: Vec<SpoolLoss> = opened.losses.into_iter().map(spool_loss).collect();
    let lost_above = |seq: BatchSeq| -> u64 {
        losses.iter().flat_map(|l| &l.batches).filter(|(s, _)| *s > seq).map(|(_, n)| n).sum()
    };
    let mut held = HashMap::new();
    for acked in memory.cursors.values().map(|(acked, ..)| *acked).chain([BatchSeq(0)]) {
        let tally = spool.held_above(acked).await.unwrap_or_default();
        held.insert(acked, tally.records + lost_above(acked));
    }
    // What was lost was held, be it behind all that is left.
    let lost_last = losses.iter().flat_map(|loss| &loss.batches).map(|(seq, _)| *seq).max();
    let mut core = Core::new(settings, memory, inventory.last().max(lost_last), |acked| {
        held.get(&acked).copied().unwrap_or(0)
    });
    core.spool_lost(&losses);
    core
}

/// Tells a core that does not run yet of what was lost since it was restored.
pub async fn lost_since(core: &mut Core, spool: &SpoolThread, losses: Vec<Loss>) {
    let inexact = losses.iter().any(|loss| !loss.exact);
    core.spool_lost(&losses.into_iter().map(spool_loss).collect::<Vec<_>>());
    if inexact {
        recount(core, spool).await;
    }
}

/// The spool lost batches and does not know which: the books follow what it still holds.
async fn recount(core: &mut Core, spool: &SpoolThread) {
    let outputs = core.books().into_iter().map(|b| b.output).collect::<Vec<_>>();
    for output in outputs {
        let Some(taken) = core.taken(output.as_ref()) else { continue };
        if let Ok(tally) = spool.held_above(taken).await {
            core.recount(output.as_ref(), tally.records);
        }
    }
}

fn spool_loss(loss: Loss) -> SpoolLoss {
    let reason = match loss.reason {
        LossReason::QuotaFull => DropReason::QuotaOldest,
        LossReason::Damaged => DropReason::Damaged,
    };
    SpoolLoss { batches: loss.batches, reason }
}

impl Driver {
    /// Puts delivery together; the receiver follows its state.
    pub fn new(core: Core, parts: Parts) -> (Self, watch::Receiver<Snapshot>) {
        let (snapshot, watcher) = watch::channel(Snapshot::default());
        let now = Instant::now();
        let driver = Self {
            core,
            intake_dropped: parts.intake.dropped(),
            parts,
            started: now,
            attempts: HashMap::new(),
            cursor_ids: HashMap::new(),
            jobs: FuturesUnordered::new(),
            remember_at: now,
            linked: false,
            heartbeat_at: now,
            heartbeat_every: NEWS_AFTER,
            told_behind: false,
            dirty: true,
            spool_moved: true,
            spool_given_up: false,
            snapshot,
        };
        (driver, watcher)
    }

    /// Delivers until `shutdown`, then gives the aggregator a moment for what is in flight, stores the rest and
    /// remembers where it stopped. Sources must have ended by then.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.remember();
        let mut intake_open = true;
        loop {
            let wait = self.until_due();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.finished(done).await,
                Some(event) = self.parts.events.recv() => self.event(event),
                collected = self.parts.intake.next(), if intake_open && self.core.wants_input() => match collected {
                    Some(content) => self.collect(content),
                    None => intake_open = false,
                },
                () = tokio::time::sleep(wait) => self.tick(),
            }
            self.after_turn();
        }
        self.end().await;
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn until_due(&self) -> Duration {
        let now = Instant::now();
        let mut due = now + IDLE_TICK;
        if let Some(at_ms) = self.core.next_deadline_ms() {
            due = due.min(self.started + Duration::from_millis(at_ms));
        }
        if self.dirty {
            due = due.min(self.remember_at);
        }
        if self.linked {
            due = due.min(self.heartbeat_at);
        }
        due.saturating_duration_since(now)
    }

    fn collect(&mut self, content: Content) {
        let mut effects = Vec::new();
        self.core.collected(self.now_ms(), content, &mut effects);
        self.carry_out(effects);
    }

    fn tick(&mut self) {
        let mut effects = Vec::new();
        self.core.tick(self.now_ms(), &mut effects);
        self.carry_out(effects);
    }

    fn event(&mut self, event: UplinkEvent) {
        let now_ms = self.now_ms();
        // An acknowledgement that leaves nothing to do changes the books all the same.
        self.dirty = true;
        let mut effects = Vec::new();
        match event {
            UplinkEvent::Up { attempt, outputs, .. } => {
                let names = outputs_of(self.parts.signal, &outputs);
                self.attempts = names.iter().map(|name| (name.clone(), attempt)).collect();
                self.linked = true;
                self.core.link_up(now_ms, &names, IN_FLIGHT_BYTES, &mut effects);
                self.heartbeat_every = NEWS_AFTER;
                self.heartbeat_at = Instant::now() + NEWS_AFTER;
            }
            UplinkEvent::OutputsChanged { outputs, .. } => {
                let names = outputs_of(self.parts.signal, &outputs);
                let newest = self.attempts.values().max().copied();
                for name in &names {
                    if let Some(attempt) = newest {
                        self.attempts.entry(name.clone()).or_insert(attempt);
                    }
                }
                self.core.link_up(now_ms, &names, IN_FLIGHT_BYTES, &mut effects);
            }
            UplinkEvent::Ack { stream, acked } => {
                if acked.parked.is_some() || !acked.rejections.is_empty() {
                    report_ack(&stream, &acked);
                    self.heartbeat_at = self.heartbeat_at.min(Instant::now() + NEWS_AFTER);
                }
                self.core.acked(now_ms, &stream.output, &acked, &mut effects);
            }
            UplinkEvent::StreamReset { stream, attempt, reason, resets_without_progress } => {
                tracing::warn!(output = %stream.output, reason, "the stream was reset; what is in flight is sent again");
                self.attempts.insert(stream.output.clone(), attempt);
                if resets_without_progress >= RESETS_BEFORE_REFUSAL {
                    let message = format!("no aggregator could read this batch: {reason}");
                    self.core.refuse(&stream.output, None, RejectReason::Other, &message, &mut effects);
                }
                self.core.stream_reset(now_ms, &stream.output, &mut effects);
            }
            UplinkEvent::Unsendable { stream, seq, reason } => {
                tracing::warn!(output = %stream.output, %seq, reason, "a batch is too large to send; its records are refused");
                self.core.refuse(&stream.output, Some(seq), RejectReason::TooLarge, &reason, &mut effects);
            }
            UplinkEvent::Throttle { bytes_per_second } => {
                tracing::info!(bytes_per_second, "the aggregator asks for a slower pace");
            }
            UplinkEvent::Down { reason } => {
                tracing::warn!(reason, "the session with the aggregator ended; data is kept");
                self.attempts.clear();
                self.linked = false;
                self.core.link_down();
            }
        }
        self.carry_out(effects);
    }

    async fn finished(&mut self, done: Done) {
        self.spool_moved |= !matches!(done, Done::Listed(_));
        self.dirty |= !matches!(done, Done::Listed(_));
        let now_ms = self.now_ms();
        let mut effects = Vec::new();
        match done {
            Done::Stored(result) => {
                let mut inexact = false;
                let stored = match result {
                    Ok(outcome) => {
                        inexact = outcome.losses.iter().any(|loss| !loss.exact);
                        Stored {
                            up_to: outcome.up_to,
                            failed: outcome.failed.as_ref().map(failure),
                            losses: outcome.losses.into_iter().map(spool_loss).collect(),
                        }
                    }
                    Err(error) => Stored { failed: Some(failure(&error)), ..Stored::default() },
                };
                self.core.stored(now_ms, &stored, &mut effects);
                if inexact {
                    recount(&mut self.core, &self.parts.spool).await;
                }
            }
            Done::Loaded(output, asked_up_to, Ok(outcome)) => {
                if self.core.awaits_spool() {
                    self.find_spool().await;
                }
                let inexact = outcome.losses.iter().any(|loss| !loss.exact);
                let losses: Vec<SpoolLoss> = outcome.losses.into_iter().map(spool_loss).collect();
                self.core.spool_lost(&losses);
                self.core.loaded(now_ms, &output, asked_up_to, outcome.batches, &mut effects);
                if inexact {
                    recount(&mut self.core, &self.parts.spool).await;
                }
            }
            Done::Loaded(output, _, Err(error)) => {
                self.core.load_failed(&output);
                if self.core.awaits_spool() && self.started.elapsed() > SPOOL_PATIENCE && !self.spool_given_up
                {
                    self.spool_given_up = true;
                    tracing::error!(%error, "the spool does not answer: what it may hold is left there, and delivery goes on without it");
                    self.core.give_up_spool(now_ms, &mut effects);
                }
            }
            Done::Trimmed => {}
            Done::Listed(inventory) => {
                if let Some(inventory) = inventory {
                    self.snapshot.send_modify(|snapshot| snapshot.spool = inventory);
                }
                return;
            }
        }
        self.carry_out(effects);
    }

    /// The spool answers for the first time: the books follow what it holds.
    async fn find_spool(&mut self) {
        let mut beyond = BTreeMap::new();
        for output in self.core.books().into_iter().filter_map(|b| b.output) {
            let Some(taken) = self.core.taken(Some(&output)) else { continue };
            let Ok(tally) = self.parts.spool.held_above(taken).await else { return };
            beyond.insert(output, tally.records);
        }
        tracing::info!("the spool answers now");
        self.core.spool_found(&beyond);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        self.dirty |= !effects.is_empty();
        let mut bounced = HashSet::new();
        // Refused records are kept before the place that passes them is remembered.
        for effect in &effects {
            if let Effect::Reject { output, rejection, batch } = effect {
                let now_ms = (self.parts.wall_clock_ms)();
                self.parts.rejects.lock().keep(now_ms, output.as_str(), rejection, batch);
            }
        }
        // What is remembered holds all of this turn's changes: once is enough, and before anything is sent.
        // A source's place moves after the books say what became of the batch: a kill in between has it read again and
        // counted again, never not at all.
        if effects.iter().any(|effect| matches!(effect, Effect::Remember | Effect::Safe(_))) {
            self.remember();
        }
        for effect in effects {
            match effect {
                Effect::Send { output, batch, sent_before } => {
                    let Some(attempt) = self.attempts.get(&output) else { continue };
                    if bounced.contains(&output) {
                        continue;
                    }
                    let stream = StreamKey::in_order(self.parts.signal, output.clone());
                    let seq = batch.seq;
                    if self.parts.uplink.try_send(&stream, *attempt, batch, sent_before).is_err() {
                        self.core.bounced(&output, seq);
                        bounced.insert(output);
                    }
                }
                Effect::Store(batches) => {
                    let spool = self.parts.spool.clone();
                    self.jobs.push(Box::pin(async move { Done::Stored(spool.append(batches).await) }));
                }
                Effect::Load { output, from, up_to } => {
                    let next = CursorId(self.cursor_ids.len() as u32);
                    let cursor = *self.cursor_ids.entry(output.clone()).or_insert(next);
                    let spool = self.parts.spool.clone();
                    self.jobs.push(Box::pin(async move {
                        Done::Loaded(output, up_to, spool.read(cursor, from, READ_SAMPLES).await)
                    }));
                }
                Effect::Trim(up_to) => {
                    let spool = self.parts.spool.clone();
                    self.jobs.push(Box::pin(async move {
                        // A trim that fails is made up for by the next one.
                        let _ = spool.trim(up_to).await;
                        Done::Trimmed
                    }));
                }
                Effect::Safe(batch) => {
                    if let (Some(safe), Content::Logs(logs)) = (&self.parts.safe, &batch.content) {
                        safe(batch.seq, logs);
                    }
                }
                Effect::Reject { .. } | Effect::Remember => {}
            }
        }
    }

    fn after_turn(&mut self) {
        let lost = self.parts.intake.take_lost();
        if lost > 0 {
            self.core.lost_in_crash(lost);
            self.dirty = true;
        }
        let dropped = self.parts.intake.dropped();
        if dropped > self.intake_dropped {
            self.core.dropped_at_intake(dropped - self.intake_dropped);
            self.intake_dropped = dropped;
            self.dirty = true;
        }
        let now = Instant::now();
        if self.dirty && now >= self.remember_at {
            self.remember();
        }
        if now >= self.heartbeat_at && self.linked {
            self.heartbeat();
        }
    }

    fn remember(&mut self) {
        let now = Instant::now();
        self.remember_at = now + REMEMBER_EVERY;
        self.dirty = false;
        if self.is_behind() != self.told_behind {
            self.heartbeat_at = self.heartbeat_at.min(now + NEWS_AFTER);
        }
        let memory = self.core.memory();
        let trouble = match self.parts.positions.as_mut() {
            Some(positions) => positions.remember(&memory).err().map(|error| error.to_string()),
            None => Some("the state directory could not be used at the start".to_owned()),
        };
        self.publish(trouble);
        self.list_spool();
    }

    /// Asks what the spool holds, once it was touched.
    fn list_spool(&mut self) {
        if std::mem::take(&mut self.spool_moved) {
            let spool = self.parts.spool.clone();
            self.jobs.push(Box::pin(async move { Done::Listed(spool.inventory().await.ok()) }));
        }
    }

    fn publish(&mut self, positions_trouble: Option<String>) {
        let was = self.snapshot.borrow().positions_trouble.is_some();
        match &positions_trouble {
            Some(reason) if !was => {
                tracing::warn!(
                    reason,
                    "positions can't be written; a restart would go back to the last that could"
                );
            }
            None if was => tracing::info!("positions are written again"),
            _ => {}
        }
        let spool_trouble = match self.parts.spool.state() {
            SpoolState::Ready => None,
            SpoolState::Unavailable(why) => Some(why),
            SpoolState::Stalled(doing, since) => Some(format!("{doing} has taken {} s", since.as_secs())),
        };
        let (books, front_bytes) = (self.core.books(), self.core.front_bytes());
        let takes_nothing = self.core.takes_nothing();
        self.snapshot.send_modify(|snapshot| {
            snapshot.takes_nothing = takes_nothing;
            snapshot.books = books;
            snapshot.front_bytes = front_bytes;
            snapshot.spool_trouble = spool_trouble;
            snapshot.positions_trouble = positions_trouble;
        });
    }

    fn is_behind(&self) -> bool {
        self.core.books().iter().any(|b| b.parked.is_some() || b.books.spooled > 0)
    }

    /// Tells the aggregator how things are: soon again in a session's first seconds and while data waits, else seldom.
    fn heartbeat(&mut self) {
        self.told_behind = self.is_behind();
        self.heartbeat_every = if self.told_behind {
            NEWS_EVERY
        } else {
            (2 * self.heartbeat_every).min(crate::uplink::HEARTBEAT_INTERVAL)
        };
        self.heartbeat_at = Instant::now() + self.heartbeat_every;
        let now_ms = (self.parts.wall_clock_ms)();
        let snapshot = self.snapshot.borrow();
        let oldest_spooled_ms = snapshot.spool.segments.first().map(|s| s.oldest_ms);
        self.parts.uplink.heartbeat(
            self.parts.signal,
            HeartbeatReport {
                books: self
                    .core
                    .books()
                    .iter()
                    .filter_map(|b| wire_books(self.parts.signal, b, oldest_spooled_ms, now_ms))
                    .collect(),
                spool_bytes: snapshot.spool.bytes,
                front_bytes: self.core.front_bytes() as u64,
                quarantined_segments: snapshot.spool.quarantined as u64,
            },
        );
    }

    /// Ends delivery: hears what is still answered, stores what is left, remembers.
    async fn end(mut self) {
        let deadline = Instant::now() + self.parts.shutdown_timeout;
        while let Some(content) = self.parts.intake.take_now() {
            self.collect(content);
        }
        // Half of the time for acknowledgements, the rest for the disk.
        let hear_until = Instant::now() + self.parts.shutdown_timeout / 2;
        while !self.core.all_settled() && !self.attempts.is_empty() && Instant::now() < hear_until {
            tokio::select! {
                biased;
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.finished(done).await,
                Some(event) = self.parts.events.recv() => self.event(event),
                () = tokio::time::sleep_until(hear_until.into()) => {}
            }
            self.after_turn();
        }
        let mut effects = Vec::new();
        self.core.end(self.now_ms(), &mut effects);
        self.carry_out(effects);
        while !self.core.front_is_safe() && Instant::now() < deadline {
            let wait = self.until_due().min(deadline.saturating_duration_since(Instant::now()));
            tokio::select! {
                biased;
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.finished(done).await,
                () = tokio::time::sleep(wait) => self.tick(),
            }
            self.after_turn();
        }
        let lost = self.core.give_up_front();
        if lost > 0 {
            tracing::error!(records = lost, "the disk took nothing until the end: what is in memory is lost");
        }
        let memory = self.core.memory();
        if let Some(Err(error)) = self.parts.positions.as_mut().map(|p| p.remember_durably(&memory)) {
            tracing::error!(%error, "positions could not be written at the end");
        }
        self.publish(None);
    }
}

/// Tells an operator what an acknowledgement says beyond "done".
fn report_ack(stream: &StreamKey, acked: &wire::Acked) {
    match &acked.parked {
        Some(Some(reason)) => {
            tracing::error!(output = %stream.output, reason, "the output takes nothing; data is kept until it does");
        }
        Some(None) => tracing::info!(output = %stream.output, "the output takes batches again"),
        None => {}
    }
    if let Some(first) = acked.rejections.first() {
        tracing::warn!(
            output = %stream.output, reason = first.reason.name(), message = first.message,
            "the backend refused records; `pegel-agent rejects` lists them"
        );
    }
}

fn failure(error: &SpoolError) -> StoreFailure {
    match error {
        SpoolError::Full { .. } => StoreFailure::Full,
        _ => StoreFailure::Disk,
    }
}

fn outputs_of(signal: Signal, outputs: &[crate::uplink::AnnouncedOutput]) -> Vec<OutputName> {
    outputs.iter().filter(|o| o.signal == signal).map(|o| o.name.clone()).collect()
}

/// One output's books as heartbeats carry them. What is kept for outputs that no aggregator has announced yet goes
/// under an empty name, once there is something.
fn wire_books(
    signal: Signal,
    books: &OutputBooks,
    oldest_spooled_ms: Option<i64>,
    now_ms: i64,
) -> Option<wire::Books> {
    let output = match &books.output {
        Some(output) => output.to_string(),
        None if books.books.collected > 0 => String::new(),
        None => return None,
    };
    let on_disk = oldest_spooled_ms.filter(|_| books.books.spooled > 0);
    let oldest_at_ms = books.oldest_at_ms.into_iter().chain(on_disk).min();
    let counts = |pairs: Vec<(&'static str, u64)>| {
        pairs
            .into_iter()
            .map(|(reason, count)| wire::ReasonCount { reason: reason.to_owned(), count })
            .collect()
    };
    Some(wire::Books {
        signal: wire::WireSignal::from(signal).into(),
        output,
        collected: books.books.collected,
        delivered: books.books.delivered,
        held_already: books.books.held_already,
        in_front: books.books.in_front,
        spooled: books.books.spooled,
        dropped: counts(books.books.dropped.iter().map(|(r, n)| (r.name(), *n)).collect()),
        rejected: counts(books.books.rejected.iter().map(|(r, n)| (r.name(), *n)).collect()),
        lost_in_crash: books.books.lost_in_crash,
        lag_ms: oldest_at_ms.map_or(0, |at_ms| now_ms.saturating_sub(at_ms).max(0) as u64),
        parked: books.parked.clone().unwrap_or_default(),
    })
}
