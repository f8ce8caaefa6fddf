//! The bytes of the checkpoints' file: `MAGIC`, then records. Each is a mark, its length, the CRC-32 of its payload and
//! the payload, a protobuf message. A record that is damaged costs itself: reading goes on at the next mark.

use super::super::origin::{Origin, Range};
use prost::Message;

/// The file's first bytes; the digit is the format.
pub(super) const MAGIC: &[u8] = b"pegel log checkpoints 1\n";
const MARK: [u8; 3] = [0xc5, 0x1e, 0xa7];
const HEADER: usize = MARK.len() + 8;
/// No record is longer: an origin has at most as many ranges as the cutter lets it have, each with two cursors.
const MAX_RECORD_BYTES: usize = 4 << 20;

/// One record.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    #[prost(oneof = "What", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub(super) what: Option<What>,
}

/// What a record says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum What {
    /// A source as it is from here on.
    #[prost(message, tag = "1")]
    Source(SourceRecord),
    /// A source's place was put.
    #[prost(message, tag = "2")]
    Place(PlaceRecord),
    /// A block is about to be handed over.
    #[prost(message, tag = "3")]
    Intent(Origin),
    /// A block is safe.
    #[prost(message, tag = "4")]
    Settled(SettledRecord),
    /// A source is gone.
    #[prost(uint64, tag = "5")]
    Forgotten(u64),
    /// An intent will not be followed.
    #[prost(uint64, tag = "6")]
    Withdrawn(u64),
    /// The counters, at the head of a compacted file.
    #[prost(message, tag = "7")]
    Counters(CountersRecord),
    /// What an input keeps of a source beside its place.
    #[prost(message, tag = "8")]
    Note(NoteRecord),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SourceRecord {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(string, tag = "2")]
    pub(super) input: String,
    #[prost(uint32, tag = "3")]
    pub(super) kind: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) path: Vec<u8>,
    #[prost(uint64, tag = "5")]
    pub(super) device: u64,
    #[prost(uint64, tag = "6")]
    pub(super) inode: u64,
    #[prost(sfixed64, tag = "7")]
    pub(super) born_ns: i64,
    #[prost(uint32, tag = "8")]
    pub(super) print_bytes: u32,
    #[prost(fixed64, tag = "9")]
    pub(super) print: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PlaceRecord {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(uint64, tag = "2")]
    pub(super) offset: u64,
    #[prost(string, tag = "3")]
    pub(super) cursor: String,
    #[prost(sfixed64, tag = "4")]
    pub(super) last_ns: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SettledRecord {
    #[prost(uint64, tag = "1")]
    pub(super) seq: u64,
    #[prost(uint64, tag = "2")]
    pub(super) intent: u64,
    /// The ranges, where the file does not have the intent.
    #[prost(message, repeated, tag = "3")]
    pub(super) ranges: Vec<Range>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NoteRecord {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) note: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CountersRecord {
    #[prost(uint64, tag = "1")]
    pub(super) next_source: u64,
    #[prost(uint64, tag = "2")]
    pub(super) next_intent: u64,
    #[prost(uint64, tag = "3")]
    pub(super) settled_up_to: u64,
}

/// Appends a record's bytes.
pub(super) fn write(what: What, out: &mut Vec<u8>) {
    let record = Record { what: Some(what) };
    let len = record.encoded_len();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    let crc_at = out.len();
    out.extend_from_slice(&[0; 4]);
    record.encode(out).expect("a Vec grows");
    let crc = crc32fast::hash(&out[crc_at + 4..]);
    out[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// What was read of a file.
pub(super) struct ReadBack {
    pub(super) records: Vec<What>,
    /// Bytes that are no intact record and stand before one that is: damage, not a torn tail.
    pub(super) damaged_bytes: usize,
}

/// Reads the records after the magic.
pub(super) fn read(mut bytes: &[u8]) -> ReadBack {
    let mut back = ReadBack { records: Vec::new(), damaged_bytes: 0 };
    let mut skipped = 0;
    while !bytes.is_empty() {
        if let Some((what, len)) = first(bytes) {
            back.damaged_bytes += std::mem::take(&mut skipped);
            back.records.extend(what);
            bytes = &bytes[len..];
            continue;
        }
        let next = memchr::memmem::find(&bytes[1..], &MARK).map_or(bytes.len(), |at| at + 1);
        skipped += next;
        bytes = &bytes[next..];
    }
    back
}

/// The record at the front and its length; none if there is no intact one.
fn first(bytes: &[u8]) -> Option<(Option<What>, usize)> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let (mark, numbers) = header.split_at(MARK.len());
    let len = u32::from_le_bytes(numbers[..4].try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(numbers[4..].try_into().ok()?);
    if mark != MARK || len > MAX_RECORD_BYTES {
        return None;
    }
    let payload = rest.get(..len)?;
    if crc32fast::hash(payload) != crc {
        return None;
    }
    Some((Record::decode(payload).ok()?.what, HEADER + len))
}
