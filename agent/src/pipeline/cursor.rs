//! One output's place in the sequence of batches, and its books.

use super::books::{Books, DropReason};
use super::effect::SpoolLoss;
use pegel_proto::batch::{Batch, BatchSeq, Content};
use std::collections::VecDeque;
use std::sync::Arc;

/// Batches whose sending is remembered ahead of time, so that a restart knows what may have been sent without a
/// write for every send. After a kill at most this many unsent batches are taken for sent before.
const SENT_RESERVATION: u64 = 64;

/// A batch that a cursor holds in memory.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub batch: Arc<Batch>,
    /// Whether the spool holds it too.
    pub stored: bool,
    /// Whether its present flight is its first.
    pub first_flight: bool,
}

impl Held {
    pub fn new(batch: Arc<Batch>, stored: bool) -> Self {
        Self { batch, stored, first_flight: false }
    }
}

#[derive(Debug)]
pub(super) struct Cursor {
    /// All batches up to here are settled.
    pub acked: BatchSeq,
    /// The last batch that was taken up: it is in flight, waits to be sent again, or was read ahead.
    pub taken: BatchSeq,
    /// The last batch that any link may have sent.
    pub ever_sent: BatchSeq,
    /// What is remembered as possibly sent.
    pub sent_reserved: BatchSeq,
    /// Sent on this link, unacknowledged, in order.
    pub in_flight: VecDeque<Held>,
    pub in_flight_bytes: usize,
    /// The uplink took no more; the next acknowledgement makes room.
    pub window_full: bool,
    /// One of the batches cannot be read on the other side: they are sent one at a time until one is acknowledged.
    pub one_by_one: bool,
    /// To be sent before anything else, in order: in flight when a link ended, or read from the spool.
    pub waiting: VecDeque<Held>,
    /// A read from the spool is under way.
    pub loading: bool,
    /// The present link's aggregator announces this output.
    pub announced: bool,
    /// Since when no link announced it, though links were up.
    pub missing_since_ms: Option<u64>,
    pub parked: Option<String>,
    pub books: Books,
}

impl Cursor {
    pub fn new(acked: BatchSeq, ever_sent: BatchSeq, books: Books) -> Self {
        Self {
            acked,
            taken: acked,
            ever_sent,
            sent_reserved: ever_sent,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            window_full: false,
            one_by_one: false,
            waiting: VecDeque::new(),
            loading: false,
            announced: false,
            missing_since_ms: None,
            parked: None,
            books,
        }
    }

    /// A cursor for another output at the same place: nothing of this one was sent.
    pub fn fork(&self) -> Self {
        Self::new(self.acked, BatchSeq(0), self.books.clone())
    }

    /// A cursor for the output that takes this one's place: it owes what this one had not taken, and nothing else.
    pub fn succeed(&self) -> Self {
        let (in_front, spooled) = (self.books.in_front, self.books.spooled);
        let books = Books { collected: in_front + spooled, in_front, spooled, ..Books::default() };
        let waiting = self.waiting.clone();
        Self { taken: self.taken, waiting, ..Self::new(self.acked, BatchSeq(0), books) }
    }

    /// Moves a batch into flight; returns whether it may have been sent before, and whether the reservation of
    /// what was sent moved (which is worth remembering).
    pub fn launch(&mut self, mut held: Held) -> (bool, bool) {
        let seq = held.batch.seq;
        let sent_before = seq <= self.ever_sent;
        held.first_flight = !sent_before;
        self.ever_sent = self.ever_sent.max(seq);
        self.taken = self.taken.max(seq);
        self.in_flight_bytes += held.batch.resident_bytes();
        let rebuilt = matches!(&held.batch.content, Content::Logs(logs) if logs.rebuilt);
        self.in_flight.push_back(held);
        (sent_before || rebuilt, seq > self.sent_reserved)
    }

    /// What a restart must assume was sent; to be remembered.
    pub fn reserve_sent(&mut self) -> BatchSeq {
        if self.ever_sent > self.sent_reserved {
            self.sent_reserved = BatchSeq(self.ever_sent.0 + SENT_RESERVATION);
        }
        self.sent_reserved
    }

    /// The link ended: what was in flight goes first on the next one.
    pub fn ground(&mut self) {
        self.announced = false;
        self.parked = None;
        self.window_full = false;
        self.ground_from(BatchSeq(0));
    }

    /// What is in flight from a batch on is to be sent again, before anything else.
    pub fn ground_from(&mut self, from: BatchSeq) {
        while self.in_flight.back().is_some_and(|h| h.batch.seq >= from) {
            let held = self.in_flight.pop_back().expect("there is a last one");
            self.in_flight_bytes -= held.batch.resident_bytes();
            self.waiting.push_front(held);
        }
    }

    /// What is in flight from a batch on was not taken by the uplink, so it was not sent.
    pub fn bounce_from(&mut self, from: BatchSeq) {
        self.window_full = true;
        let first =
            self.in_flight.iter().find(|h| h.batch.seq >= from && h.first_flight).map(|h| h.batch.seq);
        if let Some(first) = first {
            self.ever_sent = BatchSeq(first.0 - 1);
        }
        self.ground_from(from);
    }

    pub fn held_mut(&mut self) -> impl Iterator<Item = &mut Held> {
        self.in_flight.iter_mut().chain(self.waiting.iter_mut())
    }

    /// The spool holds `seq` now.
    pub fn on_stored(&mut self, seq: BatchSeq, records: u64) {
        if seq <= self.acked {
            return;
        }
        self.books.in_front -= records;
        self.books.spooled += records;
        if let Some(held) = self.held_mut().find(|h| h.batch.seq == seq) {
            held.stored = true;
        }
    }

    /// The spool lost batches. What this cursor holds in memory itself is not lost to it.
    pub fn on_spool_lost(&mut self, loss: &SpoolLoss) {
        let acked = self.acked;
        for &(seq, records) in loss.batches.iter().filter(|(seq, _)| *seq > acked) {
            self.books.spooled -= records.min(self.books.spooled);
            let in_memory = self.held_mut().find(|h| h.batch.seq == seq).map(|h| h.stored = false).is_some();
            if in_memory {
                self.books.in_front += records;
            } else {
                self.books.drop_records(loss.reason, records);
            }
        }
    }

    /// The spool holds so many records beyond what was taken up: the books follow.
    pub fn recount(&mut self, records_beyond: u64) {
        let in_memory: u64 = self.held_mut().filter(|h| h.stored).map(|h| h.batch.records()).sum();
        let holds = in_memory + records_beyond;
        let lost = self.books.spooled.saturating_sub(holds);
        self.books.collected += holds.saturating_sub(self.books.spooled);
        self.books.spooled = holds;
        self.books.drop_records(DropReason::Damaged, lost);
    }

    /// Takes a settled batch out of flight.
    pub fn land(&mut self) -> Option<Held> {
        let held = self.in_flight.pop_front()?;
        self.in_flight_bytes -= held.batch.resident_bytes();
        self.acked = held.batch.seq;
        let records = held.batch.records();
        if held.stored {
            self.books.spooled -= records;
        } else {
            self.books.in_front -= records;
        }
        Some(held)
    }

    /// With nothing in memory or on disk before it, the place moves over numbers that no longer exist.
    pub fn skip_to(&mut self, seq: BatchSeq) {
        if self.in_flight.is_empty() && self.waiting.is_empty() && !self.loading {
            self.acked = self.acked.max(seq);
            self.taken = self.taken.max(seq);
        }
    }
}
