//! Where a block's entries came from: kept with the block in the spool, and as an intent in the checkpoints.

use bytes::Bytes;
use prost::Message;

/// The origin of one block.
#[derive(Clone, PartialEq, Message)]
pub struct Origin {
    /// Numbers intents; it rises over the life of the checkpoints.
    #[prost(uint64, tag = "1")]
    pub intent: u64,
    /// The time of entries that bring none, nanoseconds since the Unix epoch: when the block was begun.
    #[prost(sfixed64, tag = "2")]
    pub base_ns: i64,
    /// A hash of the configuration of the inputs: another one may make other entries of the same bytes.
    #[prost(fixed64, tag = "3")]
    pub configuration: u64,
    /// The ranges that the block covers, in its order.
    #[prost(message, repeated, tag = "4")]
    pub ranges: Vec<Range>,
}

/// A part of one source.
#[derive(Clone, PartialEq, Message)]
pub struct Range {
    /// The source, as the checkpoints number it; 0 for what was pushed and can't be read again.
    #[prost(uint64, tag = "1")]
    pub source: u64,
    /// The first byte, for files.
    #[prost(uint64, tag = "2")]
    pub from: u64,
    /// The byte after the last, for files.
    #[prost(uint64, tag = "3")]
    pub to: u64,
    /// The journal's cursor before the first entry; empty at the journal's head.
    #[prost(string, tag = "4")]
    pub from_cursor: String,
    /// The journal's cursor of the last entry.
    #[prost(string, tag = "5")]
    pub to_cursor: String,
    /// The timestamp of the source's entry before the range; the range's are all later.
    #[prost(sfixed64, tag = "6")]
    pub floor_ns: i64,
    /// The timestamp of the range's last entry.
    #[prost(sfixed64, tag = "7")]
    pub last_ns: i64,
    /// How many entries it made.
    #[prost(uint32, tag = "8")]
    pub entries: u32,
    /// The range's last entry goes on in the next range: one that was being written when its file was rotated. Both are
    /// shaped as if they were one.
    #[prost(bool, tag = "9")]
    pub joined: bool,
}

impl Origin {
    /// The origin as it is kept beside its block.
    pub fn to_bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// Reads an origin back; none if the bytes are of another format.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes).ok()
    }

    /// How many entries the block has.
    pub fn entries(&self) -> u64 {
        self.ranges.iter().map(|r| u64::from(r.entries)).sum()
    }

    /// How many of them can't be read again.
    pub fn pushed_entries(&self) -> u64 {
        self.ranges.iter().filter(|r| r.source == 0).map(|r| u64::from(r.entries)).sum()
    }
}
