//! Buffers of decoded blocks, used again.
//!
//! A block of the usual size is some two hundred pages, which the kernel clears anew for every block if its memory goes
//! back in between; and zstd's context is as large as a small block. So both are kept, within bounds: large buffers only,
//! since small ones cost nothing to make; only for blocks that fill them, since a block may be kept for long and shall
//! not hold more than it says; no more of them than a few megabytes; and what was not needed for a while goes back.

use super::read::{Buffers, DecodedBlock};
use super::BlockError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zstd::bulk::Decompressor;

/// Blocks from this size on get kept buffers, in bytes before compression.
const LARGE_BYTES: usize = 256 << 10;
/// Large buffers have a multiple of this size, so that the next block, which is hardly larger, fits.
const STEP_BYTES: usize = 64 << 10;
/// The same for entries.
const STEP_ENTRIES: usize = 1 << 10;
/// What is kept of buffers that no block uses: as many blocks as a handful of requests give back at once.
const MAX_SPARE_BYTES: usize = 8 << 20;

/// Reads blocks, from whatever stream they come, into buffers of blocks that were dropped.
#[derive(Debug, Clone, Default)]
pub struct BlockPool {
    shelf: Arc<Shelf>,
}

/// Where a block's buffers go back to.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Spare>);

#[derive(Default)]
struct Spare {
    readers: Vec<Decompressor<'static>>,
    /// The last that came back is the last.
    buffers: Vec<Buffers>,
    bytes: usize,
    /// The fewest readers and buffers that there were since the last trim.
    idle: (usize, usize),
}

impl std::fmt::Debug for Spare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spare").field("buffers", &self.buffers.len()).field("bytes", &self.bytes).finish()
    }
}

impl BlockPool {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decompresses and checks a block's bytes.
    pub fn read(&self, bytes: &[u8]) -> Result<DecodedBlock, BlockError> {
        let reader = self.shelf.lock().reader();
        let mut reader = match reader {
            Some(reader) => reader,
            None => Decompressor::new().map_err(|_| BlockError::Zstd)?,
        };
        let block = DecodedBlock::read_with(bytes, &mut reader, Some(&self.shelf));
        self.shelf.lock().readers.push(reader);
        block
    }

    /// Gives back to the system what was not needed since this was called last: call it every few seconds.
    pub fn trim(&self) {
        let mut spare = self.shelf.lock();
        let (readers, buffers) = spare.idle;
        let readers: Vec<_> = spare.readers.drain(..readers).collect();
        let buffers: Vec<_> = spare.buffers.drain(..buffers).collect();
        spare.bytes -= buffers.iter().map(Buffers::bytes).sum::<usize>();
        spare.idle = (spare.readers.len(), spare.buffers.len());
        drop(spare);
        // Freed while nobody waits for the shelf.
        drop((readers, buffers));
    }

    /// What is kept of buffers that no block uses, in bytes.
    pub fn spare_bytes(&self) -> usize {
        self.shelf.lock().bytes
    }
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Spare> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empty buffers for a block; whether they are to come back. `entries` is as the block's header says, and no more
    /// than its bytes allow.
    pub(super) fn take(&self, bytes: usize, entries: usize) -> Option<Buffers> {
        if bytes < LARGE_BYTES {
            return None;
        }
        let mut buffers = self.lock().buffers(bytes, entries).unwrap_or_default();
        if buffers.payload.capacity() < bytes {
            buffers.payload = Vec::with_capacity(bytes.next_multiple_of(STEP_BYTES));
        }
        if buffers.entries.capacity() < entries {
            buffers.entries = Vec::with_capacity(entries.next_multiple_of(STEP_ENTRIES));
        }
        Some(buffers)
    }

    /// Takes the buffers of a block that is dropped.
    pub(super) fn give(&self, mut buffers: Buffers) {
        buffers.payload.clear();
        buffers.entries.clear();
        buffers.pairs.clear();
        let mut spare = self.lock();
        if spare.bytes + buffers.bytes() <= MAX_SPARE_BYTES {
            spare.bytes += buffers.bytes();
            spare.buffers.push(buffers);
        }
    }
}

impl Spare {
    fn reader(&mut self) -> Option<Decompressor<'static>> {
        let reader = self.readers.pop();
        self.idle.0 = self.idle.0.min(self.readers.len());
        reader
    }

    /// The last that came back of those that a block fills at least by half.
    fn buffers(&mut self, bytes: usize, entries: usize) -> Option<Buffers> {
        let fits = |has: usize, needs: usize, step: usize| has <= (2 * needs).max(step) && has >= needs;
        let at = self.buffers.iter().rposition(|spare| {
            fits(spare.payload.capacity(), bytes, STEP_BYTES)
                && fits(spare.entries.capacity(), entries, STEP_ENTRIES)
        });
        let buffers = at.map(|at| self.buffers.remove(at));
        if let Some(buffers) = &buffers {
            self.bytes -= buffers.bytes();
        }
        self.idle.1 = self.idle.1.min(self.buffers.len());
        buffers
    }
}

#[cfg(test)]
mod tests {
    use super::super::BlockBuilder;
    use super::*;

    /// A block of so many lines of 100 bytes.
    fn block(lines: usize) -> bytes::Bytes {
        let mut builder = BlockBuilder::new();
        let stream = builder.stream([("a", "b")].into_iter()).unwrap();
        for i in 0..lines {
            builder.push(stream, i as i64, &format!("{i:0100}"), &[]);
        }
        builder.finish().unwrap().bytes
    }

    #[test]
    fn a_block_is_read_into_what_the_one_before_left() {
        let pool = BlockPool::new();
        let first = pool.read(&block(5_000)).unwrap();
        let at = first.entry(0).unwrap().line().as_ptr();
        assert_eq!(pool.spare_bytes(), 0);
        let bytes = first.resident_bytes();
        drop(first);
        assert!(pool.spare_bytes() > 500_000 && pool.spare_bytes() <= bytes);
        let second = pool.read(&block(4_900)).unwrap();
        assert_eq!(pool.spare_bytes(), 0);
        assert_eq!(second.entry(0).unwrap().line().as_ptr(), at, "the same place");
        assert_eq!(second.entry(4_899).unwrap().line(), format!("{:0100}", 4_899));
        assert_eq!(second.entries().len(), 4_900);
    }

    #[test]
    fn small_blocks_hold_no_large_buffers() {
        let pool = BlockPool::new();
        drop(pool.read(&block(30_000)).unwrap());
        let spare = pool.spare_bytes();
        for lines in [10, 2_000, 6_000] {
            let small = pool.read(&block(lines)).unwrap();
            let least = lines * 100;
            assert!(small.resident_bytes() < 2 * least + 70_000, "{lines} lines: {}", small.resident_bytes());
            assert_eq!(pool.spare_bytes(), spare, "{lines} lines take none of it");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_lies_idle_goes_back() {
        let pool = BlockPool::new();
        let one = block(5_000);
        let blocks: Vec<_> = (0..100).map(|_| pool.read(&one).unwrap()).collect();
        drop(blocks);
        assert!(pool.spare_bytes() > MAX_SPARE_BYTES / 2 && pool.spare_bytes() <= MAX_SPARE_BYTES);
        pool.trim();
        let after_burst = pool.spare_bytes();
        // Two at a time are in use from now on.
        let two = || (pool.read(&one).unwrap(), pool.read(&one).unwrap());
        drop(two());
        assert_eq!(pool.spare_bytes(), after_burst);
        pool.trim();
        assert!(pool.spare_bytes() <= 2 * 700_000, "{}", pool.spare_bytes());
        drop(two());
        pool.trim();
        assert!(pool.spare_bytes() > 0, "what is in use stays");
        pool.trim();
        assert_eq!(pool.spare_bytes(), 0);
    }

    #[test]
    fn a_damaged_block_gives_its_buffers_back() {
        let pool = BlockPool::new();
        let mut bytes = block(5_000).to_vec();
        let end = bytes.len();
        bytes[end / 2] ^= 0x55;
        bytes.truncate(end - 3);
        pool.read(&bytes).unwrap_err();
        assert!(pool.spare_bytes() > 0);
    }
}
