//! One batch on its way: how much of it was put into requests, and what became of its entries.

use super::labels::{LabelFault, stream_text};
use super::limits::Limits;
use super::piece::{PieceBuilder, Source};
use crate::fanout::{Delivery, Payload};
use crate::output::settlement::Settlement;
use pegel_proto::batch::RejectReason;
use pegel_proto::logs::DecodedBlock;
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
    /// None if the batch holds no log entries.
    block: Option<Arc<DecodedBlock>>,
    /// Its streams by their numbers in the block.
    streams: Vec<Result<Arc<str>, LabelFault>>,
    /// What its entries are held against, and the time by which they are too old.
    limits: Limits,
    now_ns: i64,
    /// The next entry to be put into a request.
    next: u32,
    bytes: u64,
}

impl Batch {
    /// `now_ns` is the wall clock's.
    pub fn new(delivery: Delivery, limits: &Limits, now: Instant, now_ns: i64) -> Self {
        // Loki may hold what was sent before, and says so when it is asked.
        let limits = if delivery.sent_before { &Limits::NONE } else { limits };
        let block = match delivery.payload {
            Payload::Logs(block) => Some(block),
            // Sessions submit a batch to an output of its signal only.
            Payload::Metrics(_) => None,
        };
        let streams = block.iter().flat_map(|block| {
            (0..block.stream_count()).map(|stream| {
                stream_text(block.labels(stream), &delivery.agent.identity, limits).map(Arc::from)
            })
        });
        let entries = block.as_ref().map_or(0, |block| block.entries().len() as u64);
        Self {
            session: delivery.agent.session,
            sent_before: delivery.sent_before,
            submitted: now,
            account: Settlement::new(delivery.seq, delivery.reply, entries),
            streams: streams.collect(),
            bytes: block.as_ref().map_or(0, |block| block.resident_bytes() as u64),
            block,
            limits: *limits,
            now_ns,
            next: 0,
        }
    }

    /// Entries that have not been put into a request.
    pub fn untaken(&self) -> u64 {
        self.block.as_ref().map_or(0, |block| block.entries().len() as u64 - u64::from(self.next))
    }

    /// Roughly what it takes in memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Roughly the bytes of what has not been put into a request.
    pub fn untaken_bytes(&self) -> u64 {
        let all = self.block.as_ref().map_or(1, |block| block.entries().len().max(1) as u64);
        self.bytes * self.untaken() / all
    }

    /// Moves entries into a request until it holds `limit` bytes. Those of streams that can't be written, and those
    /// over Loki's limits, are refused here. Says whether all were moved.
    pub fn take_into(
        &mut self,
        key: BatchKey,
        builder: &mut PieceBuilder,
        limit: usize,
        mut refuse: impl FnMut(RejectReason),
    ) -> bool {
        let Some(block) = &self.block else { return true };
        builder.source(Source { batch: key, block: block.clone() });
        for (index, entry) in block.entries().enumerate().skip(self.next as usize) {
            if builder.bytes() >= limit {
                return false;
            }
            let fault = match &self.streams[entry.stream()] {
                Ok(stream) => match self.limits.fault_of(entry, self.now_ns) {
                    None => {
                        builder.add(index as u32, entry, stream, self.session);
                        None
                    }
                    fault => fault,
                },
                Err(fault) => Some((RejectReason::InvalidLabels, fault.to_string())),
            };
            if let Some((reason, told)) = fault {
                refuse(reason);
                self.account.reject(index as u32, reason, &told);
            }
            self.next = index as u32 + 1;
        }
        true
    }
}
