//! Cuts one input's entries into blocks: the base time, the ranges, the intent, the hand-over.
//!
//! Owned by one thread or task. Entries are shaped into [`Cutter::builder`] with the base time of [`Cutter::begin`],
//! and each stretch that was shaped is told by [`Cutter::cover`]; [`Cutter::finish`] makes the block, remembers its
//! intent and gives what delivery takes.

use super::checkpoints::Checkpoints;
use super::origin::{Origin, Range};
use crate::intake::LogIntake;
use crate::source::clock::system_wall_ns;
use pegel_proto::batch::Logs;
use pegel_proto::logs::BlockBuilder;
use std::sync::Arc;
use std::time::Duration;

/// The text after which a block counts as full: Loki's and zstd's windows are served well by it, and four blocks in
/// the intake and some in the front stay within the budget of memory.
pub const BLOCK_TEXT_BYTES: usize = 768 << 10;
/// How long a block waits for more from its first entry on, where entries come slowly. Half of what one line of a
/// hundred may take to the sink; each block costs the same wake-ups, packets and positions, whatever its size.
pub const BLOCK_LINGER: Duration = Duration::from_millis(40);
/// What one block's ranges cover at most, with what shaping left out: a restart reads it all again at once.
pub const BLOCK_COVER_BYTES: u64 = 4 << 20;
/// The most ranges of one block: at some 50 bytes each, a twentieth of the block's text.
const MAX_RANGES: usize = 1_024;

/// Cuts blocks.
pub struct Cutter {
    checkpoints: Arc<Checkpoints>,
    intake: LogIntake,
    builder: BlockBuilder,
    configuration: u64,
    base_ns: Option<i64>,
    ranges: Vec<Range>,
    covered_bytes: u64,
    finished: u64,
}

impl Cutter {
    /// A cutter that hands over to `intake`. `configuration` is a hash of what entries depend on beside their bytes.
    pub fn new(checkpoints: Arc<Checkpoints>, intake: LogIntake, configuration: u64) -> Self {
        Self {
            checkpoints,
            intake,
            builder: BlockBuilder::new(),
            configuration,
            base_ns: None,
            ranges: Vec::new(),
            covered_bytes: 0,
            finished: 0,
        }
    }

    /// The base time of the block that is being built; it begins one if there is none.
    pub fn begin(&mut self) -> i64 {
        *self.base_ns.get_or_insert_with(system_wall_ns)
    }

    /// Begins a block with the base time that it had before a restart. What was being built must have been finished.
    pub fn begin_again(&mut self, base_ns: i64) {
        debug_assert!(self.is_empty(), "a block is rebuilt by itself");
        self.base_ns = Some(base_ns);
    }

    /// Where entries go.
    pub fn builder(&mut self) -> &mut BlockBuilder {
        &mut self.builder
    }

    /// Says what was shaped into the builder, or left out of it, since the last call. Ranges of nothing are ignored.
    pub fn cover(&mut self, range: Range) {
        if range.entries == 0 && range.to <= range.from && range.from_cursor == range.to_cursor {
            return;
        }
        self.covered_bytes += range.to.saturating_sub(range.from);
        // What was shaped together with the range before it is shaped again with that and nothing else: places of
        // entries are counted from the first one's beginning.
        let is_alone = self.ranges.iter().rev().nth(1).is_none_or(|before| !before.joined);
        match self.ranges.last_mut() {
            Some(last) if is_alone && continues(last, &range) => {
                last.to = range.to;
                last.to_cursor = range.to_cursor;
                last.last_ns = range.last_ns;
                last.entries += range.entries;
                last.joined |= range.joined;
            }
            _ => self.ranges.push(range),
        }
    }

    /// Whether nothing was covered since the last block.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.builder.entries() == 0
    }

    /// How many blocks were finished, empty ones too.
    pub fn finished(&self) -> u64 {
        self.finished
    }

    /// Whether the block should be finished before more is added.
    pub fn is_full(&self) -> bool {
        self.builder.text_bytes() >= BLOCK_TEXT_BYTES
            || self.ranges.len() >= MAX_RANGES
            || self.covered_bytes >= BLOCK_COVER_BYTES
    }

    /// Ends the block; its intent is remembered. None if it has no entries: what was left out needs no block, the
    /// places move over it.
    pub fn finish(&mut self) -> Option<Logs> {
        self.finished += 1;
        self.covered_bytes = 0;
        let base_ns = self.base_ns.take().unwrap_or_else(system_wall_ns);
        let ranges = std::mem::take(&mut self.ranges);
        let Some(block) = self.builder.finish() else {
            if !ranges.is_empty() {
                self.checkpoints.pass(ranges);
            }
            return None;
        };
        let mut origin = Origin { intent: 0, base_ns, configuration: self.configuration, ranges };
        self.checkpoints.intend(&mut origin);
        Some(Logs { block, origin: origin.to_bytes(), rebuilt: false })
    }

    /// Ends a block that was begun again. Where it covers exactly what `intended` says, it is that intent's; else the
    /// intent is replaced by the one of the block.
    pub fn finish_again(&mut self, intended: &Origin) -> Option<Logs> {
        if self.ranges != intended.ranges || self.builder.entries() == 0 {
            return self.finish().map(|logs| Logs { rebuilt: true, ..logs });
        }
        self.base_ns = None;
        self.ranges.clear();
        self.covered_bytes = 0;
        let block = self.builder.finish().expect("it has entries");
        Some(Logs { block, origin: intended.to_bytes(), rebuilt: true })
    }

    /// The configuration's hash.
    pub fn configuration(&self) -> u64 {
        self.configuration
    }

    /// Where blocks go.
    pub fn intake(&self) -> &LogIntake {
        &self.intake
    }

    /// The checkpoints.
    pub fn checkpoints(&self) -> &Arc<Checkpoints> {
        &self.checkpoints
    }
}

/// Whether a range goes on where the one before ended. What can't be read again has no places.
fn continues(last: &Range, range: &Range) -> bool {
    last.source == range.source && last.to == range.from && last.to_cursor == range.from_cursor
}

#[cfg(test)]
mod tests;
