//! The state machine of one shard: one writer of the streams of some agents of one tenant.
//!
//! A shard has one request in flight. It takes batches in the order of their submission, builds a request of many of
//! them, and does not take more until every entry of it is accounted for: sent again after a failure, split where Loki
//! refuses it, down to single entries if need be. So a stream's later entry is never sent before its earlier one is
//! resolved, and batches of one session are settled in the order of their numbers. What one stream's limit holds up is
//! put aside, and only its session waits.
//!
//! It has no socket and no clock: `poll` says what to send or to ask or until when to wait, `answered` and `told` take
//! what came back. What becomes of refused entries is in `refusal`, waiting and parking in `trouble`.

mod refusal;
mod trouble;

use super::answer::Meaning;
use super::batch::{Batch, BatchKey};
use super::crowd::Crowd;
use super::limits::Limits;
use super::piece::{Doubt, Group, Piece, PieceBuilder};
use super::streams::{StreamLimits, Streams};
use super::tally::Tally;
use crate::fanout::{Delivery, Reply, Verdict};
use crate::output::trouble::Trouble;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many entries in a row may be refused without a known reason, with no good one between them, before the shard
/// takes the output for misconfigured: so many are refused for good if something was accepted before, and so many are
/// held back and tried again. A wrong URL or proxy refuses everything; damaged entries have good neighbours.
const MAX_SUSPECTS: usize = 16;
/// How often Loki is asked what it holds before the entries are sent without an answer.
const MAX_QUESTIONS: u32 = 5;

/// How a shard batches and waits.
#[derive(Debug, Clone)]
pub(super) struct ShardSettings {
    pub max_request_bytes: usize,
    pub linger: Duration,
    pub min_backoff: Duration,
    pub max_backoff: Duration,
    pub max_retry_after: Duration,
    pub park_probe: Duration,
    pub stream_limits: StreamLimits,
    /// What is refused before it is sent.
    pub limits: Limits,
    /// How long a stream may be one too many before its entries are refused.
    pub stream_patience: Duration,
    /// What the batches of sessions that wait for such a stream may take in memory before their patience ends.
    pub max_waiting_bytes: u64,
    /// Whether Loki can be asked.
    pub can_ask: bool,
}

/// What the driver is to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Encode and send this, then tell [`Shard::answered`].
    Send(Arc<Piece>),
    /// Ask Loki which of these it holds, then tell [`Shard::told`].
    Ask(Arc<Piece>),
    /// Wait for the instant, or for a submission.
    Wait(Option<Instant>),
}

/// What Loki holds of a piece: for each group and entry, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holdings {
    pub held: Vec<Vec<bool>>,
    /// Of older entries, in nanoseconds since the Unix epoch, "not held" is no sure answer.
    pub blind_before_ns: i64,
}

/// Why nothing is taken at present.
#[derive(Debug)]
struct Parked {
    reason: String,
    told: HashMap<u64, Reply>,
}

#[derive(Debug)]
struct Suspect {
    piece: Piece,
    message: String,
}

/// What waits for a stream's limit.
#[derive(Debug)]
struct Aside {
    due: Instant,
    piece: Piece,
}

/// One shard.
#[derive(Debug)]
pub(super) struct Shard {
    settings: ShardSettings,
    tally: Tally,
    random: StdRng,
    streams: Streams,
    crowd: Crowd,
    batches: HashMap<BatchKey, Batch>,
    next_key: u64,
    /// Batches with entries that are in no request yet, in order.
    queue: VecDeque<BatchKey>,
    queued_bytes: u64,
    /// Batches that have entries in requests, in order.
    active: Vec<BatchKey>,
    /// What is left of the present request; the last is to be sent next.
    left: Vec<Piece>,
    in_flight: Option<Arc<Piece>>,
    not_before: Option<Instant>,
    failures: u32,
    questions: u32,
    accepted_ever: bool,
    /// Entries refused without a known reason since something was accepted.
    unexplained: usize,
    suspects: Vec<Suspect>,
    aside: Vec<Aside>,
    parked: Option<Parked>,
    trouble: Option<Trouble>,
}

impl Shard {
    pub fn new(settings: ShardSettings, tally: Tally, seed: u64) -> Self {
        Self {
            streams: Streams::new(settings.stream_limits),
            crowd: Crowd::new(settings.stream_patience),
            settings,
            tally,
            random: StdRng::seed_from_u64(seed),
            batches: HashMap::new(),
            next_key: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            active: Vec::new(),
            left: Vec::new(),
            in_flight: None,
            not_before: None,
            failures: 0,
            questions: 0,
            accepted_ever: false,
            unexplained: 0,
            suspects: Vec::new(),
            aside: Vec::new(),
            parked: None,
            trouble: None,
        }
    }

    /// Takes a batch. `now_ns` is the wall clock's, in nanoseconds since the Unix epoch.
    pub fn submit(&mut self, delivery: Delivery, now: Instant, now_ns: i64) {
        let key = BatchKey(self.next_key);
        self.next_key += 1;
        let batch = Batch::new(delivery, &self.settings.limits, now, now_ns);
        if let Some(parked) = &mut self.parked
            && !parked.told.contains_key(&batch.session)
        {
            batch.account.tell(Verdict::Parked(parked.reason.clone()));
            parked.told.insert(batch.session, batch.account.reply().clone());
        }
        self.queued_bytes += batch.untaken_bytes();
        self.tally.queued(batch.untaken() as i64);
        self.batches.insert(key, batch);
        self.queue.push_back(key);
    }

    /// Drops what a session has here. What is in flight goes on, its outcome unheard.
    pub fn forget_session(&mut self, session: u64) {
        self.streams.forget_session(session);
        let mut gone = HashSet::new();
        self.batches.retain(|key, batch| {
            if batch.session == session {
                gone.insert(*key);
                self.queued_bytes = self.queued_bytes.saturating_sub(batch.untaken_bytes());
                self.tally.queued(-(batch.untaken() as i64));
            }
            batch.session != session
        });
        if gone.is_empty() {
            return;
        }
        self.queue.retain(|key| !gone.contains(key));
        self.active.retain(|key| !gone.contains(key));
        let aside = self.aside.iter_mut().map(|aside| &mut aside.piece);
        let suspects = self.suspects.iter_mut().map(|suspect| &mut suspect.piece);
        for piece in self.left.iter_mut().chain(suspects).chain(aside) {
            piece.retain(|key| !gone.contains(&key));
        }
        self.suspects.retain(|suspect| !suspect.piece.is_empty());
        self.aside.retain(|aside| !aside.piece.is_empty());
        if let Some(parked) = &mut self.parked {
            parked.told.remove(&session);
        }
    }

    /// What is wrong, if anything is.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// What to do now.
    pub fn poll(&mut self, now: Instant) -> Step {
        if self.in_flight.is_some() {
            return Step::Wait(None);
        }
        if let Some(instant) = self.not_before {
            if now < instant {
                return Step::Wait(Some(instant));
            }
            self.not_before = None;
        }
        loop {
            if self.suspects.len() >= MAX_SUSPECTS {
                return self.park_suspects(now);
            }
            if let Some(step) = self.next_of_request(now) {
                return step;
            }
            if self.take_from_aside(now) {
                continue;
            }
            if !self.suspects.is_empty() {
                // The request is done, but for entries that are held back. Perhaps another agent's are taken.
                self.take_request();
                return match self.next_of_request(now) {
                    Some(step) => step,
                    None => self.park_suspects(now),
                };
            }
            self.settle();
            let aside = self.aside.iter().map(|aside| aside.due).min();
            let passed_over = self.held_up_sessions();
            let mut waiting = self.queue.iter().map(|key| &self.batches[key]);
            let Some(first) = waiting.find(|batch| !passed_over.contains(&batch.session)) else {
                return Step::Wait(aside);
            };
            let due = first.submitted + self.settings.linger;
            if now < due && self.queued_bytes < self.settings.max_request_bytes as u64 {
                return Step::Wait(Some(aside.map_or(due, |aside| aside.min(due))));
            }
            self.take_request();
        }
    }

    /// Takes what the answer to the request in flight means.
    pub fn answered(&mut self, meaning: Meaning, now: Instant) {
        let Some(piece) = self.in_flight.take() else { return };
        let mut piece = Arc::unwrap_or_clone(piece);
        let batches = &self.batches;
        let whole = !piece.retain(|key| batches.contains_key(&key));
        match meaning {
            // Of what was refused a part is forgotten, and that may be what was meant: ask about the rest.
            Meaning::Complained { .. } | Meaning::Refused { .. } if !whole => {
                self.doubt(&mut piece);
                self.left.push(piece);
            }
            Meaning::TooLarge { .. } if !whole => self.left.push(piece),
            Meaning::Accepted => self.accepted(&piece, now),
            Meaning::Retry { after, ambiguous, reason } => {
                if ambiguous {
                    self.doubt(&mut piece);
                }
                self.try_again(piece, after, reason, now);
                return;
            }
            Meaning::RateLimited { after, reason } => {
                // More than the tenant's burst at once never passes, however long one waits.
                if self.failures >= 3 && self.failures % 2 == 1 && piece.len() > 1 {
                    self.split(piece);
                    self.wait(after, reason, now);
                } else {
                    self.try_again(piece, after, reason, now);
                }
                return;
            }
            Meaning::TooLarge { reason } => self.too_large(piece, &reason),
            Meaning::Complained { complaint, message } => self.complained(piece, complaint, &message, now),
            Meaning::Refused { reason, message, partly_stored, known } => {
                self.refused(piece, reason, &message, partly_stored, known);
            }
            Meaning::Park { reason } => {
                self.left.push(piece);
                self.park(reason, now);
                return;
            }
        }
        self.failures = 0;
        self.settle();
    }

    /// Takes what Loki holds of what it was asked about, or why it could not be asked.
    pub fn told(&mut self, holdings: Result<Holdings, String>, now: Instant) {
        let Some(piece) = self.in_flight.take() else { return };
        let mut piece = Arc::unwrap_or_clone(piece);
        match holdings {
            Ok(holdings) => {
                self.questions = 0;
                self.tally.question("answered");
                self.hold(&mut piece, &holdings);
            }
            Err(reason) => {
                self.tally.question("failed");
                self.questions += 1;
                self.in_trouble(reason, now);
                if self.questions < MAX_QUESTIONS {
                    let wait = self.backoff(None, self.questions);
                    self.not_before = Some(now + wait);
                } else {
                    piece.doubt = Doubt::Open;
                    self.questions = 0;
                }
            }
        }
        let batches = &self.batches;
        piece.retain(|key| batches.contains_key(&key));
        self.left.push(piece);
        self.settle();
    }

    fn next_of_request(&mut self, now: Instant) -> Option<Step> {
        while let Some(piece) = self.left.pop() {
            if piece.is_empty() {
                continue;
            }
            if piece.doubt == Doubt::Ask {
                let piece = Arc::new(piece);
                self.in_flight = Some(piece.clone());
                return Some(Step::Ask(piece));
            }
            let piece = self.without_shut_out(piece, now);
            if piece.is_empty() {
                continue;
            }
            if let Some(piece) = self.lay_out(piece, now) {
                let piece = Arc::new(piece);
                self.in_flight = Some(piece.clone());
                return Some(Step::Send(piece));
            }
        }
        None
    }

    /// Streams that an ingester may refuse travel alone: see `streams`. Gives the piece if it can be sent as it is;
    /// else its parts are what is to be sent next.
    fn lay_out(&mut self, mut piece: Piece, now: Instant) -> Option<Piece> {
        let extents: Vec<_> =
            piece.groups.iter().map(|g| piece.extent(g, self.streams.newest_ns(&g.stream))).collect();
        let safe = |group: &Group, extent| self.streams.is_safe(&group.stream, group.session, extent, now);
        if piece.groups.len() > 1 && !piece.groups.iter().zip(&extents).all(|(g, e)| safe(g, e)) {
            let groups = std::mem::take(&mut piece.groups);
            let (together, alone): (Vec<_>, Vec<_>) =
                groups.into_iter().zip(&extents).partition(|(group, extent)| safe(group, extent));
            for (group, _) in alone.into_iter().rev() {
                self.left.push(piece.with(vec![group]));
            }
            self.left.push(piece.with(together.into_iter().map(|(group, _)| group).collect()));
            return None;
        }
        for (group, extent) in piece.groups.iter().zip(&extents) {
            self.streams.sent(&group.stream, extent.bytes, now);
        }
        Some(piece)
    }

    fn take_request(&mut self) {
        let mut builder = PieceBuilder::default();
        let limit = self.settings.max_request_bytes;
        let mut passed_over = self.held_up_sessions();
        let first =
            self.queue.iter().map(|key| &self.batches[key]).find(|b| !passed_over.contains(&b.session));
        let sent_before = first.is_some_and(|batch| batch.sent_before);
        let mut kept = VecDeque::new();
        while let Some(key) = self.queue.pop_front() {
            let Some(batch) = self.batches.get_mut(&key) else { continue };
            // First sends and re-sends never share a request; an agent's batches stay in order.
            if batch.sent_before != sent_before || passed_over.contains(&batch.session) {
                passed_over.insert(batch.session);
                kept.push_back(key);
                continue;
            }
            let (before, before_bytes) = (batch.untaken(), batch.untaken_bytes());
            let tally = &self.tally;
            let all = batch.take_into(key, &mut builder, limit, |reason| tally.rejected(reason, 1));
            self.queued_bytes = self.queued_bytes.saturating_sub(before_bytes - batch.untaken_bytes());
            self.tally.queued(-((before - batch.untaken()) as i64));
            if !self.active.contains(&key) {
                self.active.push(key);
            }
            if !all {
                kept.push_back(key);
                break;
            }
        }
        // What was passed over goes back to the front, in its order.
        while let Some(key) = kept.pop_back() {
            self.queue.push_front(key);
        }
        let doubt = match (sent_before, self.settings.can_ask) {
            (false, _) => Doubt::None,
            (true, true) => Doubt::Ask,
            (true, false) => Doubt::Open,
        };
        self.left.push(builder.finish(doubt));
    }

    /// Sessions with entries that are held back: their later batches wait.
    fn held_up_sessions(&self) -> HashSet<u64> {
        let suspects = self.suspects.iter().map(|suspect| &suspect.piece);
        let pieces = suspects.chain(self.aside.iter().map(|aside| &aside.piece));
        pieces.flat_map(|piece| &piece.groups).map(|group| group.session).collect()
    }

    /// Settles the batches that are resolved, each session's in order.
    fn settle(&mut self) {
        let mut waiting: HashSet<u64> = HashSet::new();
        let batches = &mut self.batches;
        self.active.retain(|key| {
            let Some(batch) = batches.get(key) else { return false };
            if waiting.contains(&batch.session) || batch.untaken() > 0 || !batch.account.is_resolved() {
                waiting.insert(batch.session);
                return true;
            }
            if let Some(batch) = batches.remove(key) {
                batch.account.settle();
            }
            false
        });
    }
}
