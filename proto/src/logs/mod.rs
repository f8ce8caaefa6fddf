//! Log entries in blocks: cut and compressed once, then spooled and sent as the same bytes.
//!
//! A block is self-contained: a header that says how much is in it, and one zstd frame of columns
//! (`docs/wire/logs.md` has the bytes). [`BlockBuilder`] writes blocks without an allocation an entry;
//! [`DecodedBlock`] reads one with every length checked before it is used, so that a block from a peer may be anything.
//!
//! The order of entries in a block is the order in which they were collected. An entry's index in it is what rejections
//! count by.

mod build;
mod read;
mod varint;

#[cfg(test)]
mod tests;

pub use build::{BlockBuilder, KeyIndex, StreamIndex};
pub use read::{BlockError, DecodedBlock, EntryView};

use bytes::Bytes;

/// The format of blocks that this build writes and the only one that it reads.
pub const BLOCK_VERSION: u8 = 2;
/// The longest line, in bytes; sources cut longer ones before. Loki's default limit is 256 KiB.
pub const MAX_LINE_BYTES: usize = 1 << 20;
/// The largest block before compression, in bytes: what a frame may expand to. Four lines of the longest kind.
pub const MAX_BLOCK_RAW_BYTES: usize = 4 << 20;
/// The most entries in one block; no more than a batch may have records.
pub const MAX_BLOCK_ENTRIES: usize = crate::caps::MAX_BATCH_SAMPLES;
/// The most streams in one block.
pub const MAX_BLOCK_STREAMS: usize = 16 << 10;
/// The most keys of structured metadata in one block.
pub const MAX_BLOCK_KEYS: usize = 1 << 10;
/// The most pairs of structured metadata of one entry. Loki's default limit is 128.
pub const MAX_ENTRY_METADATA: usize = 128;

/// A block, encoded. Its bytes never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBlock {
    /// Header and compressed columns.
    pub bytes: Bytes,
    /// How many entries it holds.
    pub entries: u32,
    /// The bytes of its columns before compression.
    pub raw_bytes: u32,
    /// Its oldest entry's time, in nanoseconds since the Unix epoch.
    pub oldest_ns: i64,
}
