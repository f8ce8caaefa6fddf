//! What became of one batch's records, and how its session is told.

use crate::fanout::{Reply, Verdict};
use pegel_proto::batch::{BatchSeq, Outcome, RejectReason, Rejection};
use pegel_proto::caps::MAX_REJECT_MESSAGE_BYTES;
use std::collections::BTreeMap;

/// The account of a batch that is not settled.
#[derive(Debug)]
pub(super) struct Settlement {
    seq: BatchSeq,
    reply: Reply,
    unresolved: u64,
    delivered: u64,
    held_already: u64,
    rejected: BTreeMap<RejectReason, (String, Vec<u32>)>,
}

impl Settlement {
    pub fn new(seq: BatchSeq, reply: Reply, records: u64) -> Self {
        Self { seq, reply, unresolved: records, delivered: 0, held_already: 0, rejected: BTreeMap::new() }
    }

    pub fn deliver(&mut self, n: u64) {
        self.delivered += n;
        self.unresolved -= n;
    }

    /// One of the records delivered turns out not to be.
    pub fn take_back_delivered(&mut self) {
        self.delivered -= 1;
        self.unresolved += 1;
    }

    pub fn hold(&mut self) {
        self.held_already += 1;
        self.unresolved -= 1;
    }

    pub fn reject(&mut self, index: u32, reason: RejectReason, message: &str) {
        let (_, records) = self
            .rejected
            .entry(reason)
            .or_insert_with(|| (cut(message, MAX_REJECT_MESSAGE_BYTES), Vec::new()));
        records.push(index);
        self.unresolved -= 1;
    }

    /// Whether every record is accounted for.
    pub fn is_resolved(&self) -> bool {
        self.unresolved == 0
    }

    /// Tells the session the outcome. If it is gone nobody listens.
    pub fn settle(self) {
        let rejections = self
            .rejected
            .into_iter()
            .map(|(reason, (message, records))| Rejection {
                seq: self.seq,
                reason,
                message,
                records: ranges(records),
            })
            .collect();
        let outcome = Outcome { delivered: self.delivered, held_already: self.held_already, rejections };
        let _ = self.reply.0.send(Verdict::Settled(self.seq, outcome));
    }

    /// Tells the session something that is not about one batch.
    pub fn tell(&self, verdict: Verdict) {
        let _ = self.reply.0.send(verdict);
    }

    pub fn reply(&self) -> &Reply {
        &self.reply
    }
}

/// Ascending ranges `(first, count)` of these indices.
fn ranges(mut indices: Vec<u32>) -> Vec<(u32, u32)> {
    indices.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for index in indices {
        match ranges.last_mut() {
            Some((first, count)) if *first + *count == index => *count += 1,
            _ => ranges.push((index, 1)),
        }
    }
    ranges
}

/// A text cut to so many bytes at a character's border.
pub(super) fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}
