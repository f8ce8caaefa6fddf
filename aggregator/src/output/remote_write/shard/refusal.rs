//! Accounting for the records of a request: accepted, refused, split to find out, held back as suspects.

use super::super::answer::{Stored, is_held};
use super::super::blame::blamed;
use super::super::piece::{Piece, Record};
use super::{MAX_SUSPECTS, Shard, Suspect};
use pegel_proto::batch::RejectReason;
use std::time::Duration;

impl Shard {
    pub(super) fn accepted(&mut self, piece: &Piece) {
        self.accepted_ever = true;
        self.unexplained = 0;
        let delivered = self.deliver(piece);
        self.tally.delivered(delivered);
        // The output works: whether what it refused is at fault itself shows when it is asked once more.
        for suspect in std::mem::take(&mut self.suspects).into_iter().rev() {
            self.left.push(Piece { asked_again: true, ..suspect.piece });
        }
        self.well();
    }

    /// Accounts for all of a piece as delivered. Gives the count, of batches that somebody still waits for.
    fn deliver(&mut self, piece: &Piece) -> u64 {
        let mut delivered = 0;
        for group in &piece.groups {
            for part in &group.parts {
                if let Some(batch) = self.batches.get_mut(&part.batch) {
                    batch.account.deliver(u64::from(group.len));
                    delivered += u64::from(group.len);
                }
            }
        }
        delivered
    }

    pub(super) fn reject(&mut self, record: Record, reason: RejectReason, message: &str) {
        if let Some(batch) = self.batches.get_mut(&record.batch) {
            batch.account.reject(record.index, reason, message);
            self.tally.rejected(reason, 1);
        }
    }

    fn reject_all(&mut self, piece: &Piece, reason: RejectReason, message: &str) {
        for group in &piece.groups {
            for part in &group.parts {
                for index in group.first..group.first + group.len {
                    self.reject(Record { batch: part.batch, index: part.base + index }, reason, message);
                }
            }
        }
    }

    pub(super) fn too_large(&mut self, piece: Piece, reason: &str) {
        match piece.only_record() {
            Some((record, _)) => self.reject(record, RejectReason::TooLarge, reason),
            None => self.split(piece),
        }
    }

    fn split(&mut self, piece: Piece) {
        if piece.samples() < 2 {
            return;
        }
        self.tally.split();
        let (first, second) = piece.split();
        self.left.push(second);
        self.left.push(first);
    }

    pub(super) fn refused(
        &mut self,
        mut piece: Piece,
        reason: RejectReason,
        message: &str,
        stored: Stored,
        known: bool,
    ) {
        let samples = piece.samples() as u64;
        if known || matches!(stored, Stored::Count(_)) {
            // It looks at records: it is not misconfigured.
            self.well();
        }
        if let Some((record, stamp_ms)) = piece.only_record() {
            if stored == Stored::Count(1) {
                return self.accepted(&piece);
            }
            self.refused_alone(piece, record, stamp_ms, reason, message, known);
            return;
        }
        if let Stored::Count(written) = stored
            && let Some(refused) = samples.checked_sub(written)
            && self.blame(&piece, message, refused)
        {
            self.accepted_ever |= written > 0;
            return;
        }
        self.mark_shadowed(&mut piece, stored);
        self.split(piece);
    }

    /// Remembers which records may be held behind a later one, if a part of the piece may be stored.
    pub(super) fn mark_shadowed(&mut self, piece: &mut Piece, stored: Stored) {
        if !piece.partly_stored && !matches!(stored, Stored::Nothing | Stored::Count(0)) {
            piece.partly_stored = true;
            self.shadowed.extend(piece.followed());
        }
    }

    fn refused_alone(
        &mut self,
        piece: Piece,
        record: Record,
        stamp_ms: i64,
        reason: RejectReason,
        message: &str,
        known: bool,
    ) {
        if (piece.sent_before || self.shadowed.contains(&record)) && is_held(reason, message) {
            if let Some(batch) = self.batches.get_mut(&record.batch) {
                batch.account.hold();
                self.tally.held();
            }
            return;
        }
        if !known && !piece.asked_again {
            if !self.accepted_ever || self.unexplained >= MAX_SUSPECTS {
                self.suspect(piece, message);
                return;
            }
            self.unexplained += 1;
        }
        self.reject(record, reason, message);
        if self.covers_older(message) {
            for i in 0..self.left.len() {
                let old = self.left[i].drain_up_to(stamp_ms);
                self.reject_all(&old, reason, message);
            }
        }
    }

    /// Holds a record back, with what follows it of its series.
    fn suspect(&mut self, mut piece: Piece, message: &str) {
        let group = &piece.groups[0];
        let set = group.set.clone();
        let labels = &set.series[group.first as usize].labels;
        for left in self.left.iter_mut().rev() {
            left.move_series(labels, &mut piece);
        }
        self.suspects.push(Suspect { piece, message: message.to_owned() });
    }

    /// Whether the refusal of one record as too old is one of all that are as old.
    ///
    /// Prometheus' "out of bounds" is a bound of its head, the same for all series and never falling (`Append` in
    /// tsdb/head_append.go). "Too old sample" depends on the series where the out-of-order window is shorter than
    /// the hour that any series is given; above that it is such a bound as well.
    fn covers_older(&self, message: &str) -> bool {
        let message = message.trim();
        message == "out of bounds"
            || (message == "too old sample" && self.settings.out_of_order_window >= Duration::from_hours(1))
    }

    /// Accounts for a piece by a message that names the refused records.
    fn blame(&mut self, piece: &Piece, message: &str, refused: u64) -> bool {
        let symbols = self.symbols.clone();
        let Some(found) = blamed(piece, message, refused, &symbols.view()) else { return false };
        let mut delivered = self.deliver(piece);
        for blame in found {
            let Some(batch) = self.batches.get_mut(&blame.record.batch) else { continue };
            batch.account.take_back_delivered();
            delivered -= 1;
            let maybe_held = piece.sent_before || self.shadowed.contains(&blame.record);
            if maybe_held && is_held(blame.reason, blame.message) {
                batch.account.hold();
                self.tally.held();
            } else {
                batch.account.reject(blame.record.index, blame.reason, blame.message);
                self.tally.rejected(blame.reason, 1);
            }
        }
        self.tally.delivered(delivered);
        true
    }
}
