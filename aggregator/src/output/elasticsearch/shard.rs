//! The state machine of one shard: one writer of some agents of one tenant, with one request in flight.
//!
//! It takes batches in the order of their submission and sends what an item's answer puts off once more, before it goes
//! on; batches of one session are settled in the order of their numbers.

use super::Settings;
use super::answer::{Fate, Meaning};
use super::document;
use crate::fanout::{Delivery, Payload, Reply, Verdict};
use crate::output::loki::tally::Tally;
use crate::output::settlement::Settlement;
use crate::output::trouble::Trouble;
use pegel_proto::batch::RejectReason;
use pegel_proto::logs::DecodedBlock;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What an entry's action and field names take in a request.
const ENTRY_BYTES: usize = 200;

/// A batch whose entries are in a request.
#[derive(Debug)]
pub(super) struct Source {
    key: u64,
    pub node: String,
    pub block: Arc<DecodedBlock>,
    /// Its streams as text, for identities.
    pub streams: Vec<String>,
}

/// What one request holds: sources and indices of entries.
#[derive(Debug, Clone, Default)]
pub(super) struct Request(Vec<(Arc<Source>, u32)>);

impl Request {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn items(&self) -> impl Iterator<Item = (&Source, u32)> {
        self.0.iter().map(|(source, index)| (&**source, *index))
    }

    /// Roughly the bytes of its entries.
    pub fn bytes(&self) -> usize {
        self.items().map(|(source, index)| entry_bytes(&source.block, index)).sum()
    }
}

fn entry_bytes(block: &DecodedBlock, index: u32) -> usize {
    let Some(entry) = block.entry(index as usize) else { return 0 };
    let metadata: usize = entry.metadata().map(|(name, value)| name.len() + value.len() + 6).sum();
    ENTRY_BYTES + entry.line_bytes().len() + metadata
}

/// What the driver is to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Send this, then tell [`Shard::answered`].
    Send(Request),
    /// Wait for the instant, or for a submission.
    Wait(Option<Instant>),
}

#[derive(Debug)]
struct Batch {
    session: u64,
    submitted: Instant,
    account: Settlement,
    source: Arc<Source>,
    next: u32,
}

impl Batch {
    fn untaken(&self) -> u32 {
        self.source.block.entries().len() as u32 - self.next
    }
}

/// One shard.
pub(super) struct Shard {
    settings: Settings,
    tally: Tally,
    random: StdRng,
    batches: HashMap<u64, Batch>,
    next_key: u64,
    queue: VecDeque<u64>,
    active: Vec<u64>,
    /// What is to be sent before more is taken; the last first.
    left: Vec<Request>,
    in_flight: Option<Request>,
    not_before: Option<Instant>,
    failures: u32,
    parked: Option<(String, HashMap<u64, Reply>)>,
    trouble: Option<Trouble>,
}

impl Shard {
    pub fn new(settings: Settings, tally: Tally, seed: u64) -> Self {
        Self {
            settings,
            tally,
            random: StdRng::seed_from_u64(seed),
            batches: HashMap::new(),
            next_key: 0,
            queue: VecDeque::new(),
            active: Vec::new(),
            left: Vec::new(),
            in_flight: None,
            not_before: None,
            failures: 0,
            parked: None,
            trouble: None,
        }
    }

    /// Takes a batch.
    pub fn submit(&mut self, delivery: Delivery, now: Instant) {
        let Payload::Logs(block) = delivery.payload else {
            // Sessions submit a batch to an output of its signal only.
            return Settlement::new(delivery.seq, delivery.reply, 0).settle();
        };
        let key = self.next_key;
        self.next_key += 1;
        let session = delivery.agent.session;
        let streams = (0..block.stream_count()).map(|i| document::stream(block.labels(i))).collect();
        let account = Settlement::new(delivery.seq, delivery.reply, block.entries().len() as u64);
        if let Some((reason, told)) = &mut self.parked
            && !told.contains_key(&session)
        {
            account.tell(Verdict::Parked(reason.clone()));
            told.insert(session, account.reply().clone());
        }
        self.tally.queued(block.entries().len() as i64);
        let node = delivery.agent.identity.node.as_str().to_owned();
        let source = Arc::new(Source { key, node, block, streams });
        self.batches.insert(key, Batch { session, submitted: now, account, source, next: 0 });
        self.queue.push_back(key);
    }

    /// Drops what a session has here. What is in flight goes on, its outcome unheard.
    pub fn forget_session(&mut self, session: u64) {
        let tally = &self.tally;
        self.batches.retain(|_, batch| {
            if batch.session == session {
                tally.queued(-i64::from(batch.untaken()));
            }
            batch.session != session
        });
        let batches = &self.batches;
        self.queue.retain(|key| batches.contains_key(key));
        self.active.retain(|key| batches.contains_key(key));
        for request in &mut self.left {
            request.0.retain(|(source, _)| batches.contains_key(&source.key));
        }
        if let Some((_, told)) = &mut self.parked {
            told.remove(&session);
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
            while let Some(request) = self.left.pop() {
                if !request.0.is_empty() {
                    self.in_flight = Some(request.clone());
                    return Step::Send(request);
                }
            }
            self.settle();
            let Some(first) = self.queue.front() else { return Step::Wait(None) };
            let due = self.batches[first].submitted + self.settings.linger;
            let waiting: usize =
                self.queue.iter().map(|key| self.batches[key].source.block.resident_bytes()).sum();
            if now < due && waiting < self.settings.max_request_bytes {
                return Step::Wait(Some(due));
            }
            self.take_request();
        }
    }

    fn take_request(&mut self) {
        let mut request = Request::default();
        let mut bytes = 0;
        while let Some(key) = self.queue.front().copied() {
            let Some(batch) = self.batches.get_mut(&key) else {
                self.queue.pop_front();
                continue;
            };
            if !self.active.contains(&key) {
                self.active.push(key);
            }
            while batch.untaken() > 0 && bytes < self.settings.max_request_bytes {
                bytes += entry_bytes(&batch.source.block, batch.next);
                request.0.push((batch.source.clone(), batch.next));
                batch.next += 1;
                self.tally.queued(-1);
            }
            if batch.untaken() > 0 {
                break;
            }
            self.queue.pop_front();
        }
        self.left.push(request);
    }

    /// Takes what the answer to the request in flight means.
    pub fn answered(&mut self, meaning: Meaning, now: Instant) {
        let Some(mut request) = self.in_flight.take() else { return };
        match meaning {
            Meaning::Items(fates) => self.account(request, fates, now),
            Meaning::Retry { after, reason } => {
                self.left.push(request);
                self.wait(after, reason, now);
            }
            Meaning::TooLarge { reason } if request.len() == 1 => {
                let (source, index) = request.0.remove(0);
                self.reject(&source, index, RejectReason::TooLarge, &reason);
            }
            Meaning::TooLarge { .. } => {
                self.tally.split();
                let second = request.0.split_off(request.len() / 2);
                self.left.push(Request(second));
                self.left.push(request);
            }
            Meaning::Park { reason } => {
                self.left.push(request);
                self.park(reason, now);
            }
        }
        self.settle();
    }

    fn account(&mut self, request: Request, fates: Vec<Fate>, now: Instant) {
        let mut again = Request::default();
        let (mut delivered, mut held, mut why) = (0, 0, None);
        for ((source, index), fate) in request.0.into_iter().zip(fates) {
            let Some(batch) = self.batches.get_mut(&source.key) else { continue };
            match fate {
                Fate::Created => {
                    batch.account.deliver(1);
                    delivered += 1;
                }
                Fate::Held => {
                    batch.account.hold();
                    held += 1;
                }
                Fate::Again(reason) => {
                    why = Some(reason);
                    again.0.push((source, index));
                }
                Fate::Refused(reason, message) => self.reject(&source, index, reason, &message),
            }
        }
        self.tally.delivered(delivered);
        self.tally.held(held);
        self.well();
        match why {
            Some(reason) => {
                self.left.push(again);
                self.wait(None, reason, now);
            }
            None => self.failures = 0,
        }
    }

    fn reject(&mut self, source: &Source, index: u32, reason: RejectReason, message: &str) {
        if let Some(batch) = self.batches.get_mut(&source.key) {
            batch.account.reject(index, reason, message);
            self.tally.rejected(reason, 1);
        }
    }

    fn wait(&mut self, after: Option<Duration>, reason: String, now: Instant) {
        self.tally.retry();
        let wait = self.backoff(after);
        self.not_before = Some(now + wait);
        self.failures = self.failures.saturating_add(1);
        let (output, tenant) = (self.tally.output(), self.tally.tenant());
        if self.trouble.is_none() {
            tracing::warn!(output, tenant, reason, "output fails");
        }
        Trouble::befall(&mut self.trouble, reason, now);
    }

    /// Doubles with each failure; half of it is by chance, so that shards do not come back together. What the cluster
    /// asks for is kept to, within the bound.
    fn backoff(&mut self, after: Option<Duration>) -> Duration {
        if let Some(after) = after {
            let wait = after.clamp(self.settings.min_backoff, self.settings.max_retry_after);
            return wait + self.random.random_range(Duration::ZERO..=self.settings.min_backoff);
        }
        let doubled = self.settings.min_backoff.saturating_mul(1 << self.failures.min(20));
        let wait = doubled.min(self.settings.max_backoff);
        wait / 2 + self.random.random_range(Duration::ZERO..=wait / 2)
    }

    fn park(&mut self, reason: String, now: Instant) {
        self.not_before = Some(now + self.settings.park_probe);
        if self.parked.is_some() {
            return;
        }
        tracing::warn!(output = self.tally.output(), tenant = self.tally.tenant(), reason, "output parked");
        let mut told = HashMap::new();
        for batch in self.batches.values() {
            told.entry(batch.session).or_insert_with(|| {
                batch.account.tell(Verdict::Parked(reason.clone()));
                batch.account.reply().clone()
            });
        }
        self.tally.parked(true);
        Trouble::befall(&mut self.trouble, reason.clone(), now);
        self.parked = Some((reason, told));
    }

    fn well(&mut self) {
        self.trouble = None;
        if let Some((_, told)) = self.parked.take() {
            tracing::info!(output = self.tally.output(), tenant = self.tally.tenant(), "output resumed");
            self.tally.parked(false);
            for reply in told.into_values() {
                let _ = reply.0.send(Verdict::Resumed);
            }
        }
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
