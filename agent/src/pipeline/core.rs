//! The decisions of delivery: what is sent, stored, read back, dropped and forgotten, and when.

use super::books::{Books, DropReason};
use super::cursor::{Cursor, Held};
use super::effect::{Effect, Memory, OutputBooks, Settings, SpoolLoss, StoreFailure, Stored};
use pegel_proto::batch::{Batch, BatchSeq, Content, Outcome, RejectReason, Rejection};
use pegel_proto::caps::MAX_BATCH_BLOCKS;
use pegel_proto::identity::OutputName;
use pegel_proto::metrics::Block;
use pegel_proto::wire::Acked;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

const STORE_RETRY_MAX_MS: u64 = 30_000;
/// One write to the spool: large enough for its throughput, small enough that a reply comes within a second.
const STORE_BYTES_MAX: usize = 2 << 20;

#[derive(Debug)]
struct FrontBatch {
    batch: Arc<Batch>,
    cut_at_ms: u64,
    storing: bool,
}

/// Hand-overs of more samples than this become several batches: at 20 bytes for a first description a frame stays
/// below half a MiB. A single block is not divided.
const BATCH_SAMPLES: usize = 20_000;

/// How many numbers are reserved at a time, so that a kill never makes one be used twice.
const SEQ_RESERVATION: u64 = 256;

/// The state of delivery. All times are monotonic milliseconds.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    next_seq: BatchSeq,
    front: VecDeque<FrontBatch>,
    front_bytes: usize,
    cursors: BTreeMap<OutputName, Cursor>,
    /// Stands for all outputs until the first are announced.
    unassigned: Option<Cursor>,
    /// The last batch that the spool holds or held.
    spool_last: BatchSeq,
    /// The last batch that the spool was asked to take: it may be there even where that seemed to fail.
    store_tried: BatchSeq,
    /// The spool holds something that was not trimmed.
    spool_in_use: bool,
    storing: bool,
    store_failures: u32,
    /// The last failure was a full quota.
    store_full: bool,
    store_again_at_ms: u64,
    /// The link's window, a stream; none while no link is up.
    window_bytes: Option<usize>,
    trimmed: BatchSeq,
    /// Batches that memory gave up after a write of them failed: should that write have landed all the same, they
    /// are not delivered, because they are counted as dropped.
    gave_way: BTreeSet<BatchSeq>,
    /// What the spool holds is not known yet: nothing of it may be passed over or trimmed.
    spool_unknown: bool,
    /// The books of outputs that were retired.
    retired: BTreeMap<OutputName, Books>,
    ending: bool,
}

impl Core {
    /// Starts from what was remembered. `spool_last` is the last batch on disk, if any; `spooled_above` tells how
    /// many records the spool holds beyond a batch.
    pub fn new(
        settings: Settings,
        memory: Memory,
        spool_last: Option<BatchSeq>,
        spooled_above: impl Fn(BatchSeq) -> u64,
    ) -> Self {
        let cursors: BTreeMap<_, _> = memory
            .cursors
            .into_iter()
            .map(|(output, (acked, sent, books))| {
                let books = books.resumed(spooled_above(acked), settings.rereads);
                (output, Cursor::new(acked, sent, books))
            })
            .collect();
        let unassigned = cursors.is_empty().then(|| {
            let books = memory.unassigned.unwrap_or_default();
            let books = books.resumed(spooled_above(BatchSeq(0)), settings.rereads);
            Cursor::new(BatchSeq(0), BatchSeq(0), books)
        });
        let spool_last = spool_last.unwrap_or(BatchSeq(0));
        Self {
            settings,
            next_seq: BatchSeq(memory.next_seq.max(spool_last.0 + 1).max(1)),
            front: VecDeque::new(),
            front_bytes: 0,
            cursors,
            unassigned,
            spool_last,
            store_tried: spool_last,
            spool_in_use: spool_last.0 > 0,
            storing: false,
            store_failures: 0,
            store_full: false,
            store_again_at_ms: 0,
            window_bytes: None,
            trimmed: BatchSeq(0),
            gave_way: BTreeSet::new(),
            spool_unknown: false,
            retired: BTreeMap::new(),
            ending: false,
        }
    }

    /// Whether another hand-over may be taken: not while memory is far over its budget and the disk is behind. Where
    /// sources wait, not while memory is over its budget at all.
    pub fn wants_input(&self) -> bool {
        if self.settings.sources_wait {
            return self.front_bytes <= self.settings.front_bytes;
        }
        self.front_bytes <= 2 * self.settings.front_bytes || !self.storing
    }

    /// Why sources wait, if it is for the spool and not for the link.
    pub fn takes_nothing(&self) -> Option<StoreFailure> {
        let failed = if self.store_full { StoreFailure::Full } else { StoreFailure::Disk };
        (self.store_failures > 0 && !self.wants_input()).then_some(failed)
    }

    /// Cuts batches of what was collected: one, unless it is more than fits a frame well.
    pub fn collected(&mut self, now_ms: u64, content: Content, effects: &mut Vec<Effect>) {
        match content {
            Content::Metrics(blocks) => self.cut_blocks(now_ms, blocks, effects),
            // A block of entries was cut by its source, to the size of a frame.
            logs @ Content::Logs(_) => self.cut(now_ms, logs, effects),
        }
        if self.store_failures > 0 && !self.storing {
            self.relieve_front(effects);
        }
        self.settle_down(now_ms, effects);
    }

    fn cut_blocks(&mut self, now_ms: u64, blocks: Vec<Block>, effects: &mut Vec<Effect>) {
        let (mut next, mut samples) = (Vec::new(), 0);
        for block in blocks {
            let full = samples + block.values.len() > BATCH_SAMPLES || next.len() >= MAX_BATCH_BLOCKS;
            if full && !next.is_empty() {
                self.cut(now_ms, Content::Metrics(std::mem::take(&mut next)), effects);
                samples = 0;
            }
            samples += block.values.len();
            next.push(block);
        }
        if !next.is_empty() {
            self.cut(now_ms, Content::Metrics(next), effects);
        }
    }

    fn cut(&mut self, now_ms: u64, content: Content, effects: &mut Vec<Effect>) {
        let batch = Arc::new(Batch { seq: self.next_seq, content });
        self.next_seq = self.next_seq.next();
        let records = batch.records();
        for cursor in self.all_cursors() {
            cursor.books.collected += records;
            cursor.books.in_front += records;
        }
        // Before anything can be lost: what a kill takes is counted only if it is known to have been collected.
        effects.push(Effect::Remember);
        self.front_bytes += batch.resident_bytes();
        self.front.push_back(FrontBatch { batch, cut_at_ms: now_ms, storing: false });
    }

    /// Records that the intake dropped before they could be cut.
    pub fn dropped_at_intake(&mut self, records: u64) {
        for cursor in self.all_cursors() {
            cursor.books.collected += records;
            cursor.books.drop_records(DropReason::IntakeFull, records);
        }
    }

    /// Records that a source had handed over before a kill, and cannot read again.
    pub fn lost_in_crash(&mut self, records: u64) {
        for cursor in self.all_cursors() {
            cursor.books.collected += records;
            cursor.books.lost_in_crash += records;
        }
    }

    /// A link is up, with these outputs.
    pub fn link_up(
        &mut self,
        now_ms: u64,
        outputs: &[OutputName],
        window_bytes: usize,
        effects: &mut Vec<Effect>,
    ) {
        self.window_bytes = Some(window_bytes);
        let recent = self.replaced_recent(outputs);
        for output in outputs {
            if !self.cursors.contains_key(output) {
                let newest = BatchSeq(self.next_seq.0 - 1);
                let cursor = match (&self.unassigned, &recent) {
                    (Some(first), _) => first.fork(),
                    (None, Some(recent)) => recent.succeed(),
                    // A further output begins with what is collected from now on.
                    (None, None) => Cursor::new(newest, BatchSeq(0), Books::default()),
                };
                self.cursors.insert(output.clone(), cursor);
                effects.push(Effect::Remember);
            }
        }
        if !self.cursors.is_empty() {
            self.unassigned = None;
        }
        for (output, cursor) in &mut self.cursors {
            cursor.announced = outputs.contains(output);
            cursor.missing_since_ms =
                if cursor.announced { None } else { cursor.missing_since_ms.or(Some(now_ms)) };
        }
        self.settle_down(now_ms, effects);
    }

    /// The aggregator has a backend now: what its memory had not taken is owed to that, and the memory needs nothing.
    fn replaced_recent(&mut self, outputs: &[OutputName]) -> Option<Cursor> {
        let is_recent = |output: &OutputName| output.as_str() == OutputName::RECENT;
        if outputs.is_empty() || outputs.iter().any(is_recent) {
            return None;
        }
        let name = self.cursors.keys().find(|name| is_recent(name))?.clone();
        let mut cursor = self.cursors.remove(&name)?;
        // What was in flight goes first, to whoever comes next.
        cursor.ground();
        tracing::info!(
            "the aggregator has a backend now: what it kept in memory only is not kept for that any longer"
        );
        Some(cursor)
    }

    /// The link ended.
    pub fn link_down(&mut self) {
        self.window_bytes = None;
        for cursor in self.cursors.values_mut() {
            cursor.ground();
        }
    }

    /// The aggregator settled batches.
    pub fn acked(&mut self, now_ms: u64, output: &OutputName, ack: &Acked, effects: &mut Vec<Effect>) {
        let Some(cursor) = self.cursors.get_mut(output) else { return };
        if let Some(parked) = &ack.parked {
            cursor.parked.clone_from(parked);
        }
        cursor.window_full = false;
        cursor.one_by_one &= ack.up_to.is_none();
        let mut held_left = ack.held_already;
        while cursor.in_flight.front().is_some_and(|h| Some(h.batch.seq) <= ack.up_to) {
            let held = cursor.land().expect("there is a first one");
            let rejections: Vec<Rejection> =
                ack.rejections.iter().filter(|r| r.seq == held.batch.seq).cloned().collect();
            let records = held.batch.records();
            let rejected = rejections.iter().map(Rejection::count).sum::<u64>().min(records);
            let held_already = held_left.min(records - rejected);
            held_left -= held_already;
            settle(
                output,
                cursor,
                &held,
                Outcome { delivered: records - rejected - held_already, held_already, rejections },
                effects,
            );
        }
        self.settle_down(now_ms, effects);
    }

    /// The uplink's window for an output is used up: the batches from this one on were not taken.
    pub fn bounced(&mut self, output: &OutputName, from: BatchSeq) {
        if let Some(cursor) = self.cursors.get_mut(output) {
            cursor.bounce_from(from);
        }
    }

    /// An output's stream was reset: what is in flight on it is to be sent again.
    pub fn stream_reset(&mut self, now_ms: u64, output: &OutputName, effects: &mut Vec<Effect>) {
        if let Some(cursor) = self.cursors.get_mut(output) {
            cursor.window_full = false;
            cursor.ground_from(BatchSeq(0));
        }
        self.settle_down(now_ms, effects);
    }

    /// An aggregator cannot take a batch of an output: this one, or, where that is not known, one of those in flight.
    /// The first time they are sent again one at a time; a batch that then is the only one in flight is refused whole,
    /// and the rest goes on.
    pub fn refuse(
        &mut self,
        output: &OutputName,
        seq: Option<BatchSeq>,
        reason: RejectReason,
        message: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(cursor) = self.cursors.get_mut(output) else { return };
        let certain = match (cursor.in_flight.front(), seq) {
            (Some(first), Some(seq)) => first.batch.seq == seq,
            (Some(_), None) => cursor.one_by_one,
            (None, _) => return,
        };
        if !certain {
            cursor.one_by_one = true;
            return;
        }
        let Some(held) = cursor.land() else { return };
        let records = held.batch.records();
        let rejection = Rejection {
            seq: held.batch.seq,
            reason,
            message: message.to_owned(),
            records: vec![(0, records as u32)],
        };
        settle(output, cursor, &held, Outcome { rejections: vec![rejection], ..Outcome::default() }, effects);
    }

    /// The answer to [`Effect::Store`].
    pub fn stored(&mut self, now_ms: u64, result: &Stored, effects: &mut Vec<Effect>) {
        self.storing = false;
        let mut kept = VecDeque::with_capacity(self.front.len());
        for mut entry in std::mem::take(&mut self.front) {
            if entry.storing && result.up_to.is_some_and(|up_to| entry.batch.seq <= up_to) {
                self.front_bytes -= entry.batch.resident_bytes();
                self.spool_last = self.spool_last.max(entry.batch.seq);
                self.spool_in_use = true;
                // What was stored may have been acknowledged while it was written.
                self.trimmed = BatchSeq(0);
                let (seq, records) = (entry.batch.seq, entry.batch.records());
                tell_safe(entry.batch, effects);
                for cursor in self.all_cursors() {
                    cursor.on_stored(seq, records);
                }
            } else {
                entry.storing = false;
                kept.push_back(entry);
            }
        }
        self.front = kept;
        self.spool_lost(&result.losses);
        if let Some(failure) = result.failed {
            let backoff = self.settings.store_retry.as_millis() as u64;
            self.store_again_at_ms = now_ms + (backoff << self.store_failures.min(5)).min(STORE_RETRY_MAX_MS);
            self.store_failures += 1;
            // It may have landed all the same, and then has to go one day.
            self.spool_in_use = true;
            self.trimmed = BatchSeq(0);
            self.store_full = failure == StoreFailure::Full;
            self.relieve_of_absent(effects);
            self.relieve_front(effects);
        } else {
            self.store_failures = 0;
        }
        self.settle_down(now_ms, effects);
    }

    /// The spool lost batches.
    pub fn spool_lost(&mut self, losses: &[SpoolLoss]) {
        for loss in losses {
            // What a write that seemed to fail left there was never counted as being there.
            let known = |seq: &BatchSeq| *seq <= self.spool_last && !self.gave_way.contains(seq);
            let batches = loss.batches.iter().filter(|(seq, _)| known(seq)).copied().collect();
            let loss = SpoolLoss { batches, reason: loss.reason };
            for cursor in self.all_cursors() {
                cursor.on_spool_lost(&loss);
            }
        }
    }

    /// The place up to which an output's batches are taken up; what the spool holds beyond is still to be read.
    pub fn taken(&self, output: Option<&OutputName>) -> Option<BatchSeq> {
        match output {
            Some(output) => self.cursors.get(output).map(|c| c.taken),
            None => self.unassigned.as_ref().map(|c| c.taken),
        }
    }

    /// Sets an output's books right after a loss whose extent the spool does not know: it holds so many records
    /// beyond [`Core::taken`]. Not while a store is under way.
    pub fn recount(&mut self, output: Option<&OutputName>, records_beyond: u64) {
        let cursor = match output {
            Some(output) => self.cursors.get_mut(output),
            None => self.unassigned.as_mut(),
        };
        if let Some(cursor) = cursor {
            cursor.recount(records_beyond);
        }
    }

    /// The answer to [`Effect::Load`]: batches in order, none if the spool has nothing from there on.
    /// `asked_up_to` is the effect's.
    pub fn loaded(
        &mut self,
        now_ms: u64,
        output: &OutputName,
        asked_up_to: BatchSeq,
        batches: Vec<Arc<Batch>>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(cursor) = self.cursors.get_mut(output) {
            cursor.loading = false;
            if batches.is_empty() {
                // Nothing is left from there on: those numbers exist no longer, and losses were told separately.
                cursor.taken = cursor.taken.max(asked_up_to);
            }
            for batch in batches {
                // A write that timed out may have landed: the front still counts what is beyond.
                if batch.seq > self.spool_last {
                    break;
                }
                // A loss that was reported meanwhile has moved the place on.
                if batch.seq > cursor.taken {
                    cursor.taken = batch.seq;
                    if !self.gave_way.contains(&batch.seq) {
                        cursor.waiting.push_back(Held::new(batch, true));
                    }
                }
            }
        }
        self.settle_down(now_ms, effects);
    }

    /// A read failed for now (a stalled disk): it is tried again at the next tick.
    pub fn load_failed(&mut self, output: &OutputName) {
        if let Some(cursor) = self.cursors.get_mut(output) {
            cursor.loading = false;
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let retire_ms = self.settings.retire_output_after.as_millis() as u64;
        let retired: Vec<OutputName> = self
            .cursors
            .iter()
            .filter(|(_, c)| {
                let missing = c.missing_since_ms.filter(|_| self.window_bytes.is_some());
                missing.is_some_and(|since| now_ms.saturating_sub(since) >= retire_ms)
            })
            .map(|(output, _)| output.clone())
            .collect();
        for output in retired {
            self.retire(output);
            effects.push(Effect::Remember);
        }
        self.settle_down(now_ms, effects);
    }

    /// The buffer is full and sources wait for it: an output that the aggregator does not have must not stop the
    /// others, and gives way with what is kept for it.
    fn relieve_of_absent(&mut self, effects: &mut Vec<Effect>) {
        let linked = self.window_bytes.is_some() && self.cursors.values().any(|cursor| cursor.announced);
        if !(self.store_full && self.settings.sources_wait && linked) {
            return;
        }
        let absent: Vec<_> =
            self.cursors.iter().filter(|(_, c)| !c.announced).map(|(name, _)| name.clone()).collect();
        for output in absent {
            self.retire(output);
            effects.push(Effect::Remember);
        }
    }

    /// Closes the books of an output that no aggregator has any more.
    fn retire(&mut self, output: OutputName) {
        let Some(mut cursor) = self.cursors.remove(&output) else { return };
        let left = std::mem::take(&mut cursor.books.in_front) + std::mem::take(&mut cursor.books.spooled);
        cursor.books.drop_records(DropReason::OutputRetired, left);
        tracing::error!(%output, records = left, "no aggregator has this output any more; what it had not taken is dropped");
        self.retired.insert(output, cursor.books);
        if self.cursors.is_empty() {
            let newest = BatchSeq(self.next_seq.0 - 1);
            self.unassigned = Some(Cursor::new(newest, BatchSeq(0), Books::default()));
        }
    }

    /// The spool does not answer yet, and may hold what the books say: cursors wait for it.
    pub fn await_spool(&mut self) {
        self.spool_unknown = true;
    }

    /// Whether [`Core::await_spool`] still holds.
    pub fn awaits_spool(&self) -> bool {
        self.spool_unknown
    }

    /// The spool answers, and holds so many records beyond each output's place.
    pub fn spool_found(&mut self, beyond: &BTreeMap<OutputName, u64>) {
        self.spool_unknown = false;
        for (output, records) in beyond {
            self.recount(Some(output), *records);
        }
    }

    /// Waiting for the spool is given up: what it may hold is left there, and counted as damaged.
    pub fn give_up_spool(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let spool_last = self.spool_last;
        for cursor in self.all_cursors() {
            cursor.taken = cursor.taken.max(spool_last);
            cursor.recount(0);
        }
        self.settle_down(now_ms, effects);
    }

    /// The agent ends: what is in memory is stored without waiting for its linger.
    pub fn end(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.ending = true;
        self.store_again_at_ms = now_ms;
        self.settle_down(now_ms, effects);
    }

    /// Whether nothing is left in memory that the disk does not hold.
    pub fn front_is_safe(&self) -> bool {
        self.front.is_empty() && !self.storing
    }

    /// The end has come and the disk took nothing: what is in memory only is dropped, and counted. Returns how many
    /// records. Sources that read again have lost nothing: to them those were never collected.
    pub fn give_up_front(&mut self) -> u64 {
        self.front.clear();
        self.front_bytes = 0;
        let (mut most, rereads) = (0, self.settings.rereads);
        for cursor in self.all_cursors() {
            let lost = std::mem::take(&mut cursor.books.in_front);
            if rereads {
                cursor.books.collected -= lost;
                continue;
            }
            cursor.books.drop_records(DropReason::Shutdown, lost);
            most = most.max(lost);
        }
        most
    }

    /// Whether every announced output has everything.
    pub fn all_settled(&self) -> bool {
        let newest = BatchSeq(self.next_seq.0 - 1);
        self.unassigned.is_none() && self.cursors.values().all(|c| !c.announced || c.acked >= newest)
    }

    /// When [`Core::tick`] is due at the latest, if nothing happens before.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let oldest = self.front.iter().find(|f| !f.storing)?;
        if self.storing {
            return None;
        }
        let due = oldest.cut_at_ms + self.settings.linger.as_millis() as u64;
        Some(due.max(self.store_again_at_ms))
    }

    /// What to remember.
    pub fn memory(&mut self) -> Memory {
        Memory {
            next_seq: self.next_seq.0 + SEQ_RESERVATION,
            cursors: self
                .cursors
                .iter_mut()
                .map(|(output, c)| (output.clone(), (c.acked, c.reserve_sent(), c.books.clone())))
                .collect(),
            unassigned: self.unassigned.as_ref().map(|c| c.books.clone()),
        }
    }

    /// The books by output; under no name, those of an agent that never met an aggregator.
    pub fn books(&self) -> Vec<OutputBooks> {
        let oldest_ms = |cursor: &Cursor| {
            let in_memory = cursor.in_flight.front().or(cursor.waiting.front()).map(|h| h.batch.clone());
            in_memory
                .or_else(|| self.front.iter().map(|f| f.batch.clone()).find(|b| b.seq > cursor.acked))
                .and_then(|b| b.oldest_ms())
        };
        self.cursors
            .iter()
            .map(|(output, c)| (Some(output.clone()), c))
            .chain(self.unassigned.iter().map(|c| (None, c)))
            .map(|(output, c)| OutputBooks {
                output,
                books: c.books.clone(),
                parked: c.parked.clone(),
                announced: c.announced,
                oldest_at_ms: oldest_ms(c),
            })
            .chain(self.retired.iter().map(|(output, books)| OutputBooks {
                output: Some(output.clone()),
                books: books.clone(),
                parked: Some("retired: no aggregator has this output any more".to_owned()),
                announced: false,
                oldest_at_ms: None,
            }))
            .collect()
    }

    /// Bytes of values in memory.
    pub fn front_bytes(&self) -> usize {
        self.front_bytes
    }

    fn all_cursors(&mut self) -> impl Iterator<Item = &mut Cursor> {
        self.cursors.values_mut().chain(self.unassigned.as_mut())
    }

    /// Sends, forgets, trims and stores what the present state allows.
    fn settle_down(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.pump(effects);
        self.forget(effects);
        self.store(now_ms, effects);
    }

    fn pump(&mut self, effects: &mut Vec<Effect>) {
        let Some(window) = self.window_bytes else { return };
        for (output, cursor) in self.cursors.iter_mut().filter(|(_, c)| c.announced) {
            while !cursor.window_full
                && (cursor.in_flight.is_empty() || (!cursor.one_by_one && cursor.in_flight_bytes < window))
            {
                let held = match cursor.waiting.pop_front() {
                    Some(held) => held,
                    None if self.spool_last > cursor.taken => {
                        if !cursor.loading {
                            cursor.loading = true;
                            let (from, up_to) = (cursor.taken.next(), self.spool_last);
                            effects.push(Effect::Load { output: output.clone(), from, up_to });
                        }
                        break;
                    }
                    None => {
                        let next = self.front.partition_point(|f| f.batch.seq <= cursor.taken);
                        let Some(entry) = self.front.get(next) else { break };
                        Held::new(entry.batch.clone(), false)
                    }
                };
                let batch = held.batch.clone();
                let (sent_before, remember) = cursor.launch(held);
                if remember {
                    effects.push(Effect::Remember);
                }
                effects.push(Effect::Send { output: output.clone(), batch, sent_before });
            }
        }
    }

    fn forget(&mut self, effects: &mut Vec<Effect>) {
        let front_first = self.front.front().map(|f| f.batch.seq);
        let idle_place = match front_first {
            Some(first) => BatchSeq(first.0 - 1),
            None => BatchSeq(self.next_seq.0 - 1),
        };
        for cursor in self.cursors.values_mut() {
            if cursor.taken >= self.spool_last {
                cursor.skip_to(idle_place);
            }
        }
        let Some(passed) = self.cursors.values().map(|c| c.acked).min() else { return };
        while self.front.front().is_some_and(|f| !f.storing && f.batch.seq <= passed) {
            let entry = self.front.pop_front().expect("there is a first one");
            self.front_bytes -= entry.batch.resident_bytes();
            tell_safe(entry.batch, effects);
        }
        if self.spool_in_use && !self.storing && !self.spool_unknown && passed > self.trimmed {
            self.trimmed = passed;
            self.gave_way = self.gave_way.split_off(&passed.next());
            self.spool_in_use = passed < self.spool_last.max(self.store_tried);
            if self.settings.rereads {
                // The books must not speak of what is gone: they could not tell it from what was lost.
                effects.push(Effect::Remember);
            }
            effects.push(Effect::Trim(passed));
        }
    }

    fn store(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.storing || now_ms < self.store_again_at_ms {
            return;
        }
        let linger_ms = self.settings.linger.as_millis() as u64;
        // Sources that wait fill memory to its budget whenever they are faster than the link: as long as there is one,
        // only what is older than the linger is worth the disk.
        let waits_for_link = self.settings.sources_wait && self.window_bytes.is_some();
        let over_budget = self.front_bytes > self.settings.front_bytes && !waits_for_link;
        let due = |entry: &FrontBatch| {
            self.ending || over_budget || now_ms >= entry.cut_at_ms.saturating_add(linger_ms)
        };
        let mut batches = Vec::new();
        let mut bytes = 0;
        // Oldest first and without gaps: the spool's order is the order of the numbers.
        for entry in &mut self.front {
            if bytes >= STORE_BYTES_MAX || !due(entry) {
                break;
            }
            entry.storing = true;
            self.store_tried = entry.batch.seq;
            bytes += entry.batch.resident_bytes();
            batches.push(entry.batch.clone());
        }
        if !batches.is_empty() {
            self.storing = true;
            effects.push(Effect::Store(batches));
        }
    }

    /// The disk takes nothing: memory beyond its budget gives way, counted, unless sources wait for it.
    fn relieve_front(&mut self, effects: &mut Vec<Effect>) {
        if self.settings.sources_wait {
            return;
        }
        while self.front_bytes > self.settings.front_bytes && self.front.len() > 1 {
            let (entry, reason) = if self.store_full && self.settings.keep_oldest {
                (self.front.pop_back(), DropReason::QuotaNewest)
            } else {
                (self.front.pop_front(), DropReason::BufferUnavailable)
            };
            let batch = entry.expect("more than one is left").batch;
            self.front_bytes -= batch.resident_bytes();
            self.gave_way.insert(batch.seq);
            for cursor in self.all_cursors() {
                // What a cursor holds in flight itself is not lost to it.
                let holds = cursor.held_mut().any(|h| h.batch.seq == batch.seq);
                if batch.seq > cursor.acked && !holds {
                    cursor.books.in_front -= batch.records();
                    cursor.books.drop_records(reason, batch.records());
                    // A place moves over it only in order; what is before it is still to come.
                }
            }
            tell_safe(batch, effects);
        }
    }
}

/// Tells a batch's source that it need not keep its place before it any longer.
fn tell_safe(batch: Arc<Batch>, effects: &mut Vec<Effect>) {
    if matches!(&batch.content, Content::Logs(logs) if !logs.origin.is_empty()) {
        effects.push(Effect::Safe(batch));
    }
}

/// Books a batch's outcome and has its refused records kept.
fn settle(
    output: &OutputName,
    cursor: &mut Cursor,
    held: &Held,
    outcome: Outcome,
    effects: &mut Vec<Effect>,
) {
    for rejection in &outcome.rejections {
        effects.push(Effect::Reject {
            output: output.clone(),
            rejection: rejection.clone(),
            batch: held.batch.clone(),
        });
    }
    cursor.books.settle(&outcome);
}

#[cfg(test)]
mod tests;
