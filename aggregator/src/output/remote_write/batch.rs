//! One batch on its way: how much of it was put into requests, what became of its records, and its settlement.

use super::piece::{Part, PieceBuilder};
use crate::fanout::Delivery;
use crate::output::settlement::Settlement;
use crate::session::{LabelFault, ResolvedBlock};
use pegel_proto::batch::RejectReason;
use std::sync::Arc;
use std::time::Instant;

/// A batch's place in the order of submission to one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BatchKey(pub u64);

/// A batch that is not settled.
#[derive(Debug)]
pub(super) struct Batch {
    pub session: u64,
    pub sent_before: bool,
    pub submitted: Instant,
    pub account: Settlement,
    blocks: Arc<[ResolvedBlock]>,
    bases: Box<[u32]>,
    /// The next record to be put into a request: block and index in it.
    next: (u32, u32),
}

/// What was taken of a batch into a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// All that was left.
    All,
    /// A part; the rest is for the next request.
    Some,
}

/// The rule for metric and label names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameRule {
    /// Any UTF-8, as Prometheus 3 and VictoriaMetrics take.
    #[default]
    Utf8,
    /// Letters, digits and `_` (`:` in metric names), for Prometheus 2 and what is built on it: it skips other
    /// series without a word.
    Legacy,
}

impl Batch {
    pub fn new(delivery: Delivery, now: Instant) -> Self {
        let mut total = 0_u32;
        let blocks = delivery.payload.into_blocks();
        let bases = blocks
            .iter()
            .map(|block| {
                let base = total;
                total += block.values.len() as u32;
                base
            })
            .collect();
        Self {
            session: delivery.agent.session,
            sent_before: delivery.sent_before,
            submitted: now,
            account: Settlement::new(delivery.seq, delivery.reply, u64::from(total)),
            blocks: blocks.into(),
            bases,
            next: (0, 0),
        }
    }

    /// Records that have not been put into a request.
    pub fn untaken(&self) -> u64 {
        let Some(base) = self.bases.get(self.next.0 as usize) else { return 0 };
        let total = self.bases.last().map_or(0, |last| {
            u64::from(*last) + self.blocks.last().map_or(0, |block| block.values.len() as u64)
        });
        total - u64::from(base + self.next.1)
    }

    /// Moves records into a request until it holds `limit` samples. Records with faulty labels are refused here.
    pub fn take_into(
        &mut self,
        key: BatchKey,
        builder: &mut PieceBuilder,
        limit: usize,
        names: NameRule,
        mut refuse: impl FnMut(RejectReason),
    ) -> Taken {
        while let Some(block) = self.blocks.get(self.next.0 as usize).cloned() {
            let (at, from) = self.next;
            let part =
                Part { batch: key, blocks: self.blocks.clone(), block: at, base: self.bases[at as usize] };
            let len = block.values.len() as u32;
            let mut first = from;
            while first < len {
                let room = limit.saturating_sub(builder.samples()) as u32;
                if room == 0 {
                    self.next = (at, first);
                    return Taken::Some;
                }
                let mut end = len.min(first.saturating_add(room));
                if block.set.faulty() {
                    let bad = |i: &u32| fault(&block, *i, names).is_some();
                    if let Some(fault) = fault(&block, first, names) {
                        refuse(RejectReason::InvalidLabels);
                        self.account.reject(
                            part.base + first,
                            RejectReason::InvalidLabels,
                            &fault.to_string(),
                        );
                        first += 1;
                        continue;
                    }
                    end = (first..end).find(bad).unwrap_or(end);
                }
                if !builder.add(self.session, &part, first, end - first) {
                    self.next = (at, first);
                    return Taken::Some;
                }
                first = end;
            }
            self.next = (at + 1, 0);
        }
        Taken::All
    }
}

fn fault(block: &ResolvedBlock, index: u32, names: NameRule) -> Option<LabelFault> {
    let fault = block.set.fault(index as usize)?;
    (fault != LabelFault::NotLegacy || names == NameRule::Legacy).then_some(fault)
}
