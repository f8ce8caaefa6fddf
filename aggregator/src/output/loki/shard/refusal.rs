//! Accounting for the entries of a request: accepted, held already, refused, split to find out, put aside.

use super::super::batch::Batch;
use super::super::blame::{NotTaken, left_out, not_taken, stream_of};
use super::super::complaint::{Complaint, Ignored, Named};
use super::super::piece::{Doubt, Group, Piece, Record};
use super::{Holdings, MAX_SUSPECTS, Shard, Suspect};
use pegel_proto::batch::RejectReason;
use std::collections::HashSet;
use std::time::Instant;

impl Shard {
    pub(super) fn accepted(&mut self, piece: &Piece, now: Instant) {
        self.accepted_ever = true;
        self.unexplained = 0;
        self.deliver(piece, now);
        // The output works: whether what it refused is at fault itself shows when it is asked once more.
        for suspect in std::mem::take(&mut self.suspects).into_iter().rev() {
            self.left.push(Piece { asked_again: true, ..suspect.piece });
        }
        self.well();
    }

    /// Accounts for all of a piece as delivered.
    fn deliver(&mut self, piece: &Piece, now: Instant) {
        let mut counts = vec![0_u64; piece.sources.len()];
        for group in &piece.groups {
            for record in &group.records {
                counts[record.source as usize] += 1;
            }
            let newest = group.records.iter().map(|record| piece.entry(*record).at_ns()).max();
            if let Some(newest) = newest {
                self.streams.accepted(&group.stream, group.session, newest, now);
                self.crowd.accepted(&group.stream);
            }
        }
        let mut delivered = 0;
        for (source, count) in piece.sources.iter().zip(counts) {
            if count > 0
                && let Some(batch) = self.batches.get_mut(&source.batch)
            {
                batch.account.deliver(count);
                delivered += count;
            }
        }
        self.tally.delivered(delivered);
        if piece.doubt != Doubt::None {
            self.tally.possibly_repeated(delivered);
        }
    }

    /// Takes out what Loki holds already.
    pub(super) fn hold(&mut self, piece: &mut Piece, holdings: &Holdings) {
        let mut held = 0;
        let mut blind = false;
        let mut groups = std::mem::take(&mut piece.groups);
        for (group, flags) in groups.iter_mut().zip(&holdings.held) {
            let mut flags = flags.iter();
            group.records.retain(|record| {
                if !flags.next().is_some_and(|held| *held) {
                    blind |= piece.entry(*record).at_ns() < holdings.blind_before_ns;
                    return true;
                }
                if let Some(batch) = self.batches.get_mut(&piece.batch(*record)) {
                    batch.account.hold();
                    held += 1;
                }
                false
            });
        }
        groups.retain(|group| !group.records.is_empty());
        piece.groups = groups;
        piece.doubt = if blind { Doubt::Open } else { Doubt::None };
        self.tally.held(held);
    }

    /// A piece may be stored: ask, where that is possible.
    pub(super) fn doubt(&self, piece: &mut Piece) {
        piece.doubt = if self.settings.can_ask { Doubt::Ask } else { Doubt::Open };
    }

    fn reject(&mut self, piece: &Piece, record: Record, reason: RejectReason, message: &str) {
        if let Some(batch) = self.batches.get_mut(&piece.batch(record)) {
            batch.account.reject(record.index, reason, message);
            self.tally.rejected(reason, 1);
        }
    }

    fn reject_all(&mut self, piece: &Piece, reason: RejectReason, message: &str) {
        for group in &piece.groups {
            for record in &group.records {
                self.reject(piece, *record, reason, message);
            }
        }
    }

    pub(super) fn too_large(&mut self, piece: Piece, reason: &str) {
        match piece.only_record() {
            Some(record) => self.reject(&piece, record, RejectReason::TooLarge, reason),
            None => self.split(piece),
        }
    }

    pub(super) fn split(&mut self, piece: Piece) {
        if piece.len() < 2 {
            self.left.push(piece);
            return;
        }
        self.tally.split();
        let (first, second) = piece.split();
        self.left.push(second);
        self.left.push(first);
    }

    pub(super) fn complained(&mut self, piece: Piece, complaint: Complaint, message: &str, now: Instant) {
        // It looks at entries: it is not misconfigured.
        self.accepted_ever = true;
        self.unexplained = 0;
        self.well();
        let understood = match complaint {
            Complaint::Entries(named) => self.left_out(&piece, &named, now),
            Complaint::Stream(ignored) => self.ignored(piece.clone(), &ignored, now),
            Complaint::NoMoreStreams(labels) => match stream_of(&piece, &labels) {
                Some(at) => {
                    let alone = self.alone(piece.clone(), at);
                    self.one_too_many(alone, message.trim(), now);
                    true
                }
                None => false,
            },
        };
        if !understood {
            self.refused(piece, RejectReason::Other, message, true, true);
        }
    }

    /// The distributor left entries out and stored the rest.
    fn left_out(&mut self, piece: &Piece, named: &[Named], now: Instant) -> bool {
        let Some(blamed) = left_out(piece, named) else { return false };
        let records: HashSet<Record> = blamed.iter().map(|(record, _)| *record).collect();
        for (record, by) in blamed {
            let named = &named[by];
            self.reject(piece, record, named.fault.reason(), &named.text);
        }
        self.deliver(&without(piece, &records), now);
        true
    }

    /// Separates the stream that an answer is about. What was sent beside it may be stored, or not: the answer hides
    /// what else was wrong.
    fn alone(&mut self, mut piece: Piece, at: usize) -> Piece {
        let alone = piece.take_group(at);
        if !piece.is_empty() {
            self.doubt(&mut piece);
            self.left.push(piece);
        }
        alone
    }

    /// An ingester did not take all of one stream.
    fn ignored(&mut self, piece: Piece, ignored: &Ignored, now: Instant) -> bool {
        let Some(at) = stream_of(&piece, &ignored.labels) else { return false };
        let mut piece = self.alone(piece, at);
        let records = match not_taken(&piece, 0, ignored) {
            NotTaken::These(records) => records,
            NotTaken::After(stored) => {
                let rest = piece.groups[0].records.split_off(stored);
                let mut rest = piece.with(vec![Group { records: rest, ..piece.groups[0].clone() }]);
                self.deliver(&piece, now);
                self.doubt(&mut rest);
                if ignored.limited || ignored.mixed {
                    self.put_aside_for_rate(rest, ignored.text.clone(), now);
                } else if let Some(record) = rest.only_record() {
                    self.reject(&rest, record, RejectReason::OutOfOrder, &ignored.text);
                } else {
                    self.split(rest);
                }
                return true;
            }
        };
        let refused: HashSet<Record> = records.iter().copied().collect();
        self.deliver(&without(&piece, &refused), now);
        piece.groups[0].records = records;
        if ignored.limited {
            piece.doubt = Doubt::None;
            self.put_aside_for_rate(piece, ignored.text.clone(), now);
        } else {
            self.reject_all(&piece, RejectReason::OutOfOrder, &ignored.text);
        }
        true
    }

    /// The tenant has its most streams. That may pass, when others fall idle; it must hold up neither an agent for good
    /// nor the others of the tenant, whose batches need memory too.
    fn one_too_many(&mut self, piece: Piece, message: &str, now: Instant) {
        let stream = piece.groups[0].stream.clone();
        self.streams.refused(&stream);
        let mut waiting = self.held_up_sessions();
        waiting.insert(piece.groups[0].session);
        let waiting = self.batches.values().filter(|batch| waiting.contains(&batch.session));
        let hurried = waiting.map(Batch::bytes).sum::<u64>() > self.settings.max_waiting_bytes;
        if self.crowd.refused(&stream, message, hurried, now) {
            self.reject_all(&piece, RejectReason::TenantLimit, message);
        } else {
            self.put_aside(piece, message.to_owned(), now);
        }
    }

    /// Refuses what is of streams that Loki is known to have no room for.
    pub(super) fn without_shut_out(&mut self, mut piece: Piece, now: Instant) -> Piece {
        if self.crowd.is_empty() {
            return piece;
        }
        for group in std::mem::take(&mut piece.groups) {
            match self.crowd.shut_out(&group.stream, now).map(str::to_owned) {
                Some(why) => self.reject_all(&piece.with(vec![group]), RejectReason::TenantLimit, &why),
                None => piece.groups.push(group),
            }
        }
        piece
    }

    pub(super) fn refused(
        &mut self,
        mut piece: Piece,
        reason: RejectReason,
        message: &str,
        partly_stored: bool,
        known: bool,
    ) {
        if known {
            self.well();
        }
        let whole_stream = known && reason == RejectReason::InvalidLabels && piece.groups.len() == 1;
        let only = piece.only_record();
        if only.is_none() && !whole_stream {
            if partly_stored {
                self.doubt(&mut piece);
            }
            self.split(piece);
            return;
        }
        if !known && !piece.asked_again {
            if !self.accepted_ever || self.unexplained >= MAX_SUSPECTS {
                self.suspects.push(Suspect { piece, message: message.to_owned() });
                return;
            }
            self.unexplained += 1;
        }
        self.reject_all(&piece, reason, message);
    }
}

/// A piece without some of its entries.
fn without(piece: &Piece, records: &HashSet<Record>) -> Piece {
    let mut rest = piece.clone();
    for group in &mut rest.groups {
        group.records.retain(|record| !records.contains(record));
    }
    rest.groups.retain(|group| !group.records.is_empty());
    rest
}
