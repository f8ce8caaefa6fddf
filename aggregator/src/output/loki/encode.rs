//! Push requests, written straight from decoded blocks.
//!
//! The message is `logproto.PushRequest` (pkg/push/push.proto), compressed as one snappy block. It is written in one
//! pass: a stream's length is not known before its entries are, so five bytes are kept free for it. A request's buffers
//! are kept for the next one.

use super::piece::{Group, Piece};
use crate::symbols::put_varint;
use bytes::Bytes;
use parking_lot::Mutex;
use pegel_proto::logs::EntryView;
use std::sync::Arc;

/// Writes requests. Its buffers grow to the largest request and stay.
pub(super) struct RequestEncoder {
    message: Vec<u8>,
    compressed: Vec<u8>,
    snappy: snap::raw::Encoder,
    /// What the last body that was dropped leaves for the next.
    spare: Arc<Mutex<Option<Vec<u8>>>>,
}

/// A compressed message. Its buffer goes back to the encoder, unless that has one already.
struct Body {
    bytes: Vec<u8>,
    spare: Arc<Mutex<Option<Vec<u8>>>>,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.spare.lock().get_or_insert_with(|| std::mem::take(&mut self.bytes));
    }
}

/// An encoded request.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    /// The compressed message.
    pub body: Bytes,
    /// The message's size before compression, in bytes.
    pub message_bytes: usize,
}

// Tags: field number << 3 | wire type (0 varint, 2 length-delimited).
const STREAMS: u8 = 1 << 3 | 2;
const STREAM_LABELS: u8 = 1 << 3 | 2;
const STREAM_ENTRIES: u8 = 2 << 3 | 2;
const ENTRY_TIMESTAMP: u8 = 1 << 3 | 2;
const ENTRY_LINE: u8 = 2 << 3 | 2;
const ENTRY_METADATA: u8 = 3 << 3 | 2;
const TIMESTAMP_SECONDS: u8 = 1 << 3;
const TIMESTAMP_NANOS: u8 = 2 << 3;
const PAIR_NAME: u8 = 1 << 3 | 2;
const PAIR_VALUE: u8 = 2 << 3 | 2;

/// A varint of five bytes holds any length of a request.
const LENGTH_BYTES: usize = 5;
const NANOS: i64 = 1_000_000_000;

impl RequestEncoder {
    /// An encoder with empty buffers.
    pub fn new() -> Self {
        Self {
            message: Vec::new(),
            compressed: Vec::new(),
            snappy: snap::raw::Encoder::new(),
            spare: Arc::default(),
        }
    }

    /// Writes a piece as one request.
    pub fn encode(&mut self, piece: &Piece) -> Encoded {
        self.message.clear();
        for group in piece.groups.iter().filter(|group| !Group::is_empty(group)) {
            let out = &mut self.message;
            out.push(STREAMS);
            let length_at = out.len();
            out.extend_from_slice(&[0; LENGTH_BYTES]);
            out.push(STREAM_LABELS);
            put_varint(out, group.stream.len() as u64);
            out.extend_from_slice(group.stream.as_bytes());
            for record in group.records() {
                put_entry(out, piece.entry(*record));
            }
            let length = out.len() - length_at - LENGTH_BYTES;
            out[length_at..length_at + LENGTH_BYTES].copy_from_slice(&padded_varint(length));
        }
        let room = snap::raw::max_compress_len(self.message.len());
        if self.compressed.len() < room {
            self.compressed.resize(room, 0);
        }
        // It fails only for too small an output or an input above 4 GiB; requests are bounded far below.
        let length = self.snappy.compress(&self.message, &mut self.compressed).unwrap_or(0);
        let mut bytes = self.spare.lock().take().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(&self.compressed[..length]);
        let body = Bytes::from_owner(Body { bytes, spare: self.spare.clone() });
        Encoded { body, message_bytes: self.message.len() }
    }
}

/// A varint that is longer than it must be, which every protobuf reader takes.
fn padded_varint(value: usize) -> [u8; LENGTH_BYTES] {
    std::array::from_fn(|i| {
        let low = (value >> (7 * i) & 0x7f) as u8;
        if i + 1 < LENGTH_BYTES { low | 0x80 } else { low }
    })
}

/// How large an entry is.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntrySize {
    /// What it takes in a request, with its tag and length.
    pub written: usize,
    /// As Loki counts it for its limits: the line and its structured metadata (`EntryTotalSize` in
    /// pkg/util/entry_size.go).
    pub counted: u64,
}

/// Measures an entry.
pub(super) fn entry_size(entry: EntryView<'_>) -> EntrySize {
    let (body, counted) = body_size(entry);
    EntrySize { written: 1 + varint_len(body as u64) + body, counted: counted as u64 }
}

/// An entry's bytes in a request without tag and length, and as Loki counts them.
#[inline]
fn body_size(entry: EntryView<'_>) -> (usize, usize) {
    let line = entry.line_bytes().len();
    let mut counted = line;
    let mut metadata = 0;
    for (name, value) in entry.metadata_bytes() {
        counted += name.len() + value.len();
        let pair = pair_size(name, value);
        metadata += 1 + varint_len(pair as u64) + pair;
    }
    (2 + timestamp_size(entry.at_ns()) + 1 + varint_len(line as u64) + line + metadata, counted)
}

fn pair_size(name: &[u8], value: &[u8]) -> usize {
    2 + varint_len(name.len() as u64) + name.len() + varint_len(value.len() as u64) + value.len()
}

fn timestamp_size(at_ns: i64) -> usize {
    let (seconds, nanos) = (at_ns.div_euclid(NANOS), at_ns.rem_euclid(NANOS));
    2 + varint_len(seconds as u64) + varint_len(nanos as u64)
}

fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[inline]
fn put_entry(out: &mut Vec<u8>, entry: EntryView<'_>) {
    let (seconds, nanos) = (entry.at_ns().div_euclid(NANOS), entry.at_ns().rem_euclid(NANOS));
    out.push(STREAM_ENTRIES);
    put_varint(out, body_size(entry).0 as u64);
    out.extend_from_slice(&[ENTRY_TIMESTAMP, timestamp_size(entry.at_ns()) as u8, TIMESTAMP_SECONDS]);
    put_varint(out, seconds as u64);
    out.push(TIMESTAMP_NANOS);
    put_varint(out, nanos as u64);
    let line = entry.line_bytes();
    out.push(ENTRY_LINE);
    put_varint(out, line.len() as u64);
    out.extend_from_slice(line);
    for (name, value) in entry.metadata_bytes() {
        out.push(ENTRY_METADATA);
        put_varint(out, pair_size(name, value) as u64);
        for (tag, text) in [(PAIR_NAME, name), (PAIR_VALUE, value)] {
            out.push(tag);
            put_varint(out, text.len() as u64);
            out.extend_from_slice(text);
        }
    }
}
