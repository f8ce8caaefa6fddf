//! How records lie in chunks.
//!
//! A commit's records, each behind a fixed header, form one run of bytes that is cut into chunks. A chunk begins
//! with a CRC that covers the segment's number, its own number and its bytes, so that a chunk at a wrong place is
//! as damaged as one with a wrong bit. No record spans two commits.

use super::RecordHeader;
use pegel_proto::batch::BatchSeq;

/// Bytes of records in a chunk. sled stores a value as a link of its page, and 16 KiB × 9 links stay below the
/// size at which it would move a page into a file of its own (see [`super::sled_segment`]).
pub(crate) const CHUNK_BYTES: usize = 16 << 10;

/// A chunk's CRC.
pub(crate) const CHUNK_HEADER_BYTES: usize = 4;

/// A record's header: length, flags, sequence, records, oldest instant.
pub(crate) const RECORD_HEADER_BYTES: usize = 32;

/// No record is larger: 64 MiB, beyond any batch. A larger length is damage that met its CRC by chance.
pub(crate) const MAX_RECORD_BYTES: usize = 64 << 20;

/// Appends a record whose bytes `encode` writes.
pub(crate) fn put_record(out: &mut Vec<u8>, header: RecordHeader, encode: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
    encode(out);
    let length = (out.len() - at - RECORD_HEADER_BYTES) as u32;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    out[at + 4..at + 8].copy_from_slice(&header.flags.to_le_bytes());
    out[at + 8..at + 16].copy_from_slice(&header.seq.0.to_le_bytes());
    out[at + 16..at + 24].copy_from_slice(&header.records.to_le_bytes());
    out[at + 24..at + 32].copy_from_slice(&header.oldest_ms.to_le_bytes());
}

/// Cuts a commit's bytes into chunks, the first of which has the given number.
pub(crate) fn cut(segment: u64, first: u32, run: &[u8]) -> Vec<Vec<u8>> {
    run.chunks(CHUNK_BYTES)
        .zip(first..)
        .map(|(bytes, number)| {
            let mut value = Vec::with_capacity(CHUNK_HEADER_BYTES + bytes.len());
            value.extend_from_slice(&checksum(segment, number, bytes).to_le_bytes());
            value.extend_from_slice(bytes);
            value
        })
        .collect()
}

/// A chunk's bytes, if they are what was written.
pub(crate) fn verify(segment: u64, number: u32, value: &[u8]) -> Option<&[u8]> {
    let (crc, bytes) = value.split_first_chunk::<CHUNK_HEADER_BYTES>()?;
    (u32::from_le_bytes(*crc) == checksum(segment, number, bytes)).then_some(bytes)
}

fn checksum(segment: u64, number: u32, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&segment.to_le_bytes());
    crc.update(&number.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

/// Puts records together from the chunks of a segment.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    bytes: Vec<u8>,
    at: usize,
}

/// A header that no writer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImpossibleRecord;

impl Assembler {
    /// Adds the next chunk's bytes.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(chunk);
    }

    /// The header of the record that comes next, complete or not.
    fn header(&self) -> Option<(usize, RecordHeader)> {
        let raw = self.bytes[self.at..].first_chunk::<RECORD_HEADER_BYTES>()?;
        let u32_at = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(raw[at..at + 8].try_into().expect("8 bytes"));
        let header = RecordHeader {
            seq: BatchSeq(u64_at(8)),
            records: u64_at(16),
            oldest_ms: u64_at(24) as i64,
            flags: u32_at(4),
        };
        Some((u32_at(0) as usize, header))
    }

    /// The next record, if it is complete.
    pub(crate) fn pop(&mut self) -> Result<Option<(RecordHeader, Vec<u8>)>, ImpossibleRecord> {
        let Some((length, header)) = self.header() else { return Ok(None) };
        if length > MAX_RECORD_BYTES {
            return Err(ImpossibleRecord);
        }
        let from = self.at + RECORD_HEADER_BYTES;
        let Some(bytes) = self.bytes.get(from..from + length) else { return Ok(None) };
        let record = (header, bytes.to_vec());
        self.at = from + length;
        if self.at == self.bytes.len() && self.bytes.capacity() > 4 * CHUNK_BYTES {
            // A large record has passed; its buffer need not stay.
            self.bytes = Vec::new();
            self.at = 0;
        }
        Ok(Some(record))
    }
}
