//! The state machine of one shard: one writer of the series of some agents of one tenant.
//!
//! A shard has one request in flight. It takes batches in the order of their submission, builds a request of many of
//! them, and does not take more until every record of that request is accounted for: sent again after a failure,
//! split where the backend refuses it, down to single records if need be. So a series' later sample is never sent
//! before its earlier one is resolved, and batches of one session are settled in the order of their numbers.
//!
//! It has no socket and no clock: `poll` says what to send or until when to wait, `answered` takes what an answer
//! means. Whoever drives it encodes and sends. What becomes of refused records is in `refusal`, waiting and parking in
//! `trouble`.

mod refusal;
mod trouble;

use super::answer::Meaning;
use super::batch::{Batch, BatchKey, NameRule, Taken};
use super::piece::{Piece, PieceBuilder, Record};
use super::tally::Tally;
use crate::fanout::{Delivery, Reply, Verdict};
use crate::symbols::Symbols;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many records in a row may be refused without a known reason, with no good one between them, before the shard
/// takes the output for misconfigured: so many are refused for good if something was accepted before, and so many
/// are held back and tried again. A wrong URL or proxy refuses everything; damaged records have good neighbours.
const MAX_SUSPECTS: usize = 16;

/// How a shard batches and waits.
#[derive(Debug, Clone)]
pub(super) struct ShardSettings {
    pub max_request_samples: usize,
    pub linger: Duration,
    pub min_backoff: Duration,
    pub max_backoff: Duration,
    pub max_retry_after: Duration,
    pub park_probe: Duration,
    pub names: NameRule,
    /// The backend's, as configured: see `covers_older`.
    pub out_of_order_window: Duration,
}

/// What the driver is to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Encode and send this, then tell [`Shard::answered`].
    Send(Arc<Piece>),
    /// Wait for the instant, or for a submission.
    Wait(Option<Instant>),
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

/// One shard.
#[derive(Debug)]
pub(super) struct Shard {
    settings: ShardSettings,
    symbols: Arc<Symbols>,
    tally: Tally,
    random: StdRng,
    batches: HashMap<BatchKey, Batch>,
    next_key: u64,
    /// Batches with records that are in no request yet, in order.
    queue: VecDeque<BatchKey>,
    queued_samples: u64,
    /// Batches that have records in the present request, in order.
    active: Vec<BatchKey>,
    /// What is left of the present request; the last is to be sent next.
    left: Vec<Piece>,
    in_flight: Option<Arc<Piece>>,
    not_before: Option<Instant>,
    failures: u32,
    accepted_ever: bool,
    /// Records refused without a known reason since something was accepted.
    unexplained: usize,
    suspects: Vec<Suspect>,
    /// Records of the present request that may be held behind a later one of their series, because a larger piece
    /// was stored in part.
    shadowed: HashSet<Record>,
    parked: Option<Parked>,
    trouble: Option<String>,
}

impl Shard {
    pub fn new(settings: ShardSettings, symbols: Arc<Symbols>, tally: Tally, seed: u64) -> Self {
        Self {
            settings,
            symbols,
            tally,
            random: StdRng::seed_from_u64(seed),
            batches: HashMap::new(),
            next_key: 0,
            queue: VecDeque::new(),
            queued_samples: 0,
            active: Vec::new(),
            left: Vec::new(),
            in_flight: None,
            not_before: None,
            failures: 0,
            accepted_ever: false,
            unexplained: 0,
            suspects: Vec::new(),
            shadowed: HashSet::new(),
            parked: None,
            trouble: None,
        }
    }

    /// Takes a batch.
    pub fn submit(&mut self, delivery: Delivery, now: Instant) {
        let key = BatchKey(self.next_key);
        self.next_key += 1;
        let batch = Batch::new(delivery, now);
        if let Some(parked) = &mut self.parked
            && !parked.told.contains_key(&batch.session)
        {
            batch.account.tell(Verdict::Parked(parked.reason.clone()));
            parked.told.insert(batch.session, batch.account.reply().clone());
        }
        self.queued_samples += batch.untaken();
        self.tally.queued(batch.untaken() as i64);
        self.batches.insert(key, batch);
        self.queue.push_back(key);
    }

    /// Drops what a session has here. What is in flight goes on, its outcome unheard.
    pub fn forget_session(&mut self, session: u64) {
        let mut gone = HashSet::new();
        self.batches.retain(|key, batch| {
            if batch.session == session {
                gone.insert(*key);
                self.queued_samples -= batch.untaken();
                self.tally.queued(-(batch.untaken() as i64));
            }
            batch.session != session
        });
        if gone.is_empty() {
            return;
        }
        self.queue.retain(|key| !gone.contains(key));
        self.active.retain(|key| !gone.contains(key));
        for piece in self.left.iter_mut().chain(self.suspects.iter_mut().map(|s| &mut s.piece)) {
            piece.retain(|key| !gone.contains(&key));
        }
        self.suspects.retain(|suspect| !suspect.piece.groups.is_empty());
        if let Some(parked) = &mut self.parked {
            parked.told.remove(&session);
        }
    }

    /// Whether nothing is queued or under way.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.batches.is_empty() && self.in_flight.is_none()
    }

    /// What is wrong, if anything is.
    pub fn trouble(&self) -> Option<&str> {
        self.parked.as_ref().map(|p| p.reason.as_str()).or(self.trouble.as_deref())
    }

    /// How often the request at hand has failed.
    pub fn failures(&self) -> u32 {
        self.failures
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
            if let Some(step) = self.send_next() {
                return step;
            }
            if !self.suspects.is_empty() {
                // The request is done, but for records that are held back. Perhaps another agent's are taken.
                self.take_request();
                return match self.send_next() {
                    Some(step) => step,
                    None => self.park_suspects(now),
                };
            }
            self.settle();
            let Some(first) = self.queue.front() else { return Step::Wait(None) };
            let due = self.batches[first].submitted + self.settings.linger;
            if now < due && self.queued_samples < self.settings.max_request_samples as u64 {
                return Step::Wait(Some(due));
            }
            self.take_request();
        }
    }

    /// Takes what the answer to the request in flight means.
    pub fn answered(&mut self, meaning: Meaning, now: Instant) {
        let Some(piece) = self.in_flight.take() else { return };
        let mut piece = Arc::unwrap_or_clone(piece);
        let sent = piece.samples();
        let batches = &self.batches;
        piece.retain(|key| batches.contains_key(&key));
        let whole = piece.samples() == sent;
        match meaning {
            // Of what was refused a part is forgotten, and that may be what was meant: ask about the rest.
            Meaning::Refused { stored, .. } if !whole => {
                self.mark_shadowed(&mut piece, stored);
                self.left.push(piece);
            }
            Meaning::TooLarge { .. } if !whole => self.left.push(piece),
            Meaning::Accepted => self.accepted(&piece),
            Meaning::Retry { after, ambiguous, reason } => {
                piece.sent_before |= ambiguous;
                self.left.push(piece);
                self.tally.retry();
                self.not_before = Some(now + self.backoff(after));
                self.failures = self.failures.saturating_add(1);
                self.in_trouble(reason);
                return;
            }
            Meaning::Downgrade { ambiguous } => {
                piece.sent_before |= ambiguous;
                self.left.push(piece);
            }
            Meaning::TooLarge { reason } => self.too_large(piece, &reason),
            Meaning::Refused { reason, message, stored, known } => {
                self.refused(piece, reason, &message, stored, known);
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

    /// Splits the request in flight, which proved too large before it was sent.
    pub fn too_large_to_send(&mut self, message_bytes: usize) {
        if let Some(piece) = self.in_flight.take() {
            let reason = format!("one record takes {message_bytes} bytes in a request");
            self.too_large(Arc::unwrap_or_clone(piece), &reason);
            self.settle();
        }
    }

    fn send_next(&mut self) -> Option<Step> {
        while let Some(piece) = self.left.pop() {
            if !piece.groups.is_empty() {
                let piece = Arc::new(piece);
                self.in_flight = Some(piece.clone());
                return Some(Step::Send(piece));
            }
        }
        None
    }

    fn take_request(&mut self) {
        let mut builder = PieceBuilder::default();
        let limit = self.settings.max_request_samples;
        let mut passed_over = self.suspected_sessions();
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
            let before = batch.untaken();
            let tally = &self.tally;
            let refuse = |reason| tally.rejected(reason, 1);
            let taken = batch.take_into(key, &mut builder, limit, self.settings.names, refuse);
            let session = batch.session;
            self.queued_samples -= before - batch.untaken();
            self.tally.queued(-((before - batch.untaken()) as i64));
            self.active.push(key);
            if taken == Taken::Some {
                passed_over.insert(session);
                kept.push_back(key);
                if builder.samples() >= limit {
                    break;
                }
            }
        }
        // What was passed over goes back to the front, in its order.
        while let Some(key) = kept.pop_back() {
            self.queue.push_front(key);
        }
        self.left.push(builder.finish(sent_before));
    }

    /// Sessions with records that are held back: their later batches wait.
    fn suspected_sessions(&self) -> HashSet<u64> {
        let parts = self.suspects.iter().flat_map(|s| &s.piece.groups).flat_map(|group| &group.parts);
        parts.filter_map(|part| self.batches.get(&part.batch)).map(|batch| batch.session).collect()
    }

    /// Settles the batches of the present request that are resolved, each session's in order.
    fn settle(&mut self) {
        let mut waiting: HashSet<u64> = HashSet::new();
        let queue_front = &self.queue;
        let batches = &mut self.batches;
        self.active.retain(|key| {
            let Some(batch) = batches.get(key) else { return false };
            if waiting.contains(&batch.session) || !batch.account.is_resolved() {
                waiting.insert(batch.session);
                return true;
            }
            debug_assert!(!queue_front.contains(key), "a resolved batch has no records left to send");
            if let Some(batch) = batches.remove(key) {
                batch.account.settle();
            }
            false
        });
        if self.left.is_empty() && self.in_flight.is_none() && self.suspects.is_empty() {
            // Only batches that go on in the next request are left.
            self.active.clear();
            self.shadowed.clear();
        }
    }
}
