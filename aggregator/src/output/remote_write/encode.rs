//! Remote-write requests, protocol 1.0 and 2.0, written straight from symbols.
//!
//! 1.0 is `prometheus.WriteRequest` (prompb/remote.proto, types.proto), 2.0 is `io.prometheus.write.v2.Request`
//! (prompb/io/prometheus/write/v2/types.proto); both are compressed as one snappy block. A request's buffers are
//! kept for the next one.

use super::Version;
use super::piece::{Group, Piece};
use crate::session::{ResolvedBlock, ResolvedSeries};
use crate::symbols::{Symbol, SymbolView, Symbols, put_varint};
use bytes::Bytes;
use pegel_proto::metrics::MetricType;

/// Writes requests. Its buffers grow to the largest request and stay.
pub struct RequestEncoder {
    /// The message, or the time series of a 2.0 message until its symbols are known.
    body: Vec<u8>,
    table: SymbolTable,
    message: Vec<u8>,
    compressed: Vec<u8>,
    snappy: snap::raw::Encoder,
    labels: EncodedLabels,
}

/// An encoded request.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The compressed message.
    pub body: Bytes,
    /// The message's size before compression, in bytes.
    pub message_bytes: usize,
}

/// The labels of one series as its request has them: label messages in 1.0, references in 2.0.
///
/// The series of a set follow each other by name, and most have all labels but one or two in common with the one
/// before: what is common at the front and at the back is copied, only the middle is written anew.
#[derive(Default)]
struct EncodedLabels {
    of: Vec<(Symbol, Symbol)>,
    /// Where each label ends.
    ends: Vec<u32>,
    bytes: Vec<u8>,
    next_ends: Vec<u32>,
    next_bytes: Vec<u8>,
}

impl EncodedLabels {
    /// Forgets the series before: another request has other references.
    fn clear(&mut self) {
        self.of.clear();
        self.ends.clear();
        self.bytes.clear();
    }

    /// Turns to the next series. `write` appends one label.
    #[inline]
    fn set(&mut self, labels: &[(Symbol, Symbol)], mut write: impl FnMut(&mut Vec<u8>, Symbol, Symbol)) {
        let front = self.of.iter().zip(labels).take_while(|(a, b)| a == b).count();
        let rest = labels.len().min(self.of.len()) - front;
        let back =
            self.of.iter().rev().zip(labels.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
        let end = |n: usize| if n == 0 { 0 } else { self.ends[n - 1] as usize };
        self.next_bytes.clear();
        self.next_bytes.extend_from_slice(&self.bytes[..end(front)]);
        self.next_ends.clear();
        self.next_ends.extend_from_slice(&self.ends[..front]);
        for (name, value) in &labels[front..labels.len() - back] {
            write(&mut self.next_bytes, *name, *value);
            self.next_ends.push(self.next_bytes.len() as u32);
        }
        let kept = self.of.len() - back;
        let (from, to) = (end(kept) as u32, self.next_bytes.len() as u32);
        self.next_bytes.extend_from_slice(&self.bytes[from as usize..]);
        self.next_ends.extend(self.ends[kept..].iter().map(|end| end - from + to));
        std::mem::swap(&mut self.bytes, &mut self.next_bytes);
        std::mem::swap(&mut self.ends, &mut self.next_ends);
        self.of.clear();
        self.of.extend_from_slice(labels);
    }
}

/// The symbols of one 2.0 request. A symbol's place is found by indexing with its number: an entry is valid if it
/// has the request's stamp.
#[derive(Default)]
struct SymbolTable {
    places: Vec<(u32, u32)>,
    stamp: u32,
    count: u32,
    encoded: Vec<u8>,
}

impl SymbolTable {
    fn begin(&mut self, bound: usize) {
        if self.stamp == u32::MAX {
            self.places.clear();
            self.stamp = 0;
        }
        self.stamp += 1;
        if self.places.len() < bound {
            self.places.resize(bound, (0, 0));
        }
        self.encoded.clear();
        // The first symbol is the empty string, by the specification.
        self.encoded.extend_from_slice(&[SYMBOLS, 0]);
        self.count = 1;
    }

    #[inline]
    fn place(&mut self, view: &SymbolView<'_>, symbol: Symbol) -> u32 {
        let entry = &mut self.places[symbol.0 as usize];
        if entry.0 == self.stamp {
            return entry.1;
        }
        let text = view.encoded(symbol);
        let place = if text.len() <= 1 {
            0
        } else {
            self.encoded.push(SYMBOLS);
            self.encoded.extend_from_slice(text);
            self.count += 1;
            self.count - 1
        };
        *entry = (self.stamp, place);
        place
    }
}

// Tags: field number << 3 | wire type (0 varint, 1 eight bytes, 2 length-delimited).
const V1_TIMESERIES: u8 = 1 << 3 | 2;
const V1_LABELS: u8 = 1 << 3 | 2;
const V1_NAME: u8 = 1 << 3 | 2;
const V1_VALUE: u8 = 2 << 3 | 2;
const SAMPLES: u8 = 2 << 3 | 2; // in both protocols
const SAMPLE_VALUE: u8 = 1 << 3 | 1;
const SAMPLE_TIMESTAMP: u8 = 2 << 3;
const SYMBOLS: u8 = 4 << 3 | 2;
const V2_TIMESERIES: u8 = 5 << 3 | 2;
const V2_LABELS_REFS: u8 = 1 << 3 | 2;
const V2_METADATA: u8 = 5 << 3 | 2;
const V2_TYPE: u8 = 1 << 3;
const V2_HELP_REF: u8 = 3 << 3;
const V2_UNIT_REF: u8 = 4 << 3;

impl RequestEncoder {
    /// An encoder with empty buffers.
    pub fn new() -> Self {
        Self {
            body: Vec::new(),
            table: SymbolTable::default(),
            message: Vec::new(),
            compressed: Vec::new(),
            snappy: snap::raw::Encoder::new(),
            labels: EncodedLabels::default(),
        }
    }

    /// Writes a piece as one request.
    pub(super) fn encode(&mut self, version: Version, piece: &Piece, symbols: &Symbols) -> Encoded {
        self.body.clear();
        self.labels.clear();
        let view = symbols.view();
        match version {
            Version::V1 => piece.groups.iter().for_each(|group| self.group_v1(&view, group)),
            Version::V2 => {
                self.table.begin(view.bound());
                piece.groups.iter().for_each(|group| self.group_v2(&view, group));
            }
        }
        drop(view);
        let message = match version {
            Version::V1 => &self.body,
            Version::V2 => {
                self.message.clear();
                self.message.extend_from_slice(&self.table.encoded);
                self.message.extend_from_slice(&self.body);
                &self.message
            }
        };
        let room = snap::raw::max_compress_len(message.len());
        if self.compressed.len() < room {
            self.compressed.resize(room, 0);
        }
        // It fails only for too small an output or an input above 4 GiB; requests are bounded far below.
        let length = self.snappy.compress(message, &mut self.compressed).unwrap_or(0);
        Encoded { body: Bytes::copy_from_slice(&self.compressed[..length]), message_bytes: message.len() }
    }

    fn group_v1(&mut self, view: &SymbolView<'_>, group: &Group) {
        let blocks: Vec<&ResolvedBlock> = group.parts.iter().map(super::piece::Part::block).collect();
        for index in group.first as usize..(group.first + group.len) as usize {
            let series = &group.set.series[index];
            self.labels.set(&series.labels, |out, name, value| {
                let (name, value) = (view.encoded(name), view.encoded(value));
                out.push(V1_LABELS);
                put_varint(out, (2 + name.len() + value.len()) as u64);
                out.push(V1_NAME);
                out.extend_from_slice(name);
                out.push(V1_VALUE);
                out.extend_from_slice(value);
            });
            let labels = &self.labels.bytes;
            let samples_len: usize = blocks.iter().map(|block| 2 + sample_len(block, index)).sum();
            self.body.push(V1_TIMESERIES);
            put_varint(&mut self.body, (labels.len() + samples_len) as u64);
            self.body.extend_from_slice(labels);
            for block in &blocks {
                put_sample(&mut self.body, block, index);
            }
        }
    }

    fn group_v2(&mut self, view: &SymbolView<'_>, group: &Group) {
        let blocks: Vec<&ResolvedBlock> = group.parts.iter().map(super::piece::Part::block).collect();
        for index in group.first as usize..(group.first + group.len) as usize {
            let series: &ResolvedSeries = &group.set.series[index];
            let table = &mut self.table;
            self.labels.set(&series.labels, |out, name, value| {
                put_varint(out, u64::from(table.place(view, name)));
                put_varint(out, u64::from(table.place(view, value)));
            });
            let refs = &self.labels.bytes;
            // At most 13 bytes.
            let mut metadata = [0; 16];
            let mut metadata_len = 0;
            let kind = metric_type(series.family.kind);
            let help = table.place(view, series.help());
            let unit = table.place(view, series.unit());
            for (tag, value) in [(V2_TYPE, kind), (V2_HELP_REF, help), (V2_UNIT_REF, unit)] {
                if value != 0 {
                    metadata[metadata_len] = tag;
                    metadata_len = put_ref(&mut metadata, metadata_len + 1, value);
                }
            }
            let metadata = &metadata[..metadata_len];
            let samples_len: usize = blocks.iter().map(|block| 2 + sample_len(block, index)).sum();
            let length = 1 + varint_len(refs.len()) + refs.len() + samples_len + 2 + metadata_len;
            self.body.push(V2_TIMESERIES);
            put_varint(&mut self.body, length as u64);
            self.body.push(V2_LABELS_REFS);
            put_varint(&mut self.body, refs.len() as u64);
            self.body.extend_from_slice(refs);
            for block in &blocks {
                put_sample(&mut self.body, block, index);
            }
            self.body.extend_from_slice(&[V2_METADATA, metadata_len as u8]);
            self.body.extend_from_slice(metadata);
        }
    }
}

fn varint_len(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// A negative time takes ten bytes, as any int64 in protobuf. A sample is never longer than 20 bytes.
fn sample_len(block: &ResolvedBlock, index: usize) -> usize {
    let value = if block.values[index].to_bits() == 0 { 0 } else { 9 };
    let stamp = match block.stamp_ms(index) {
        0 => 0,
        stamp => 1 + varint_len(stamp as usize),
    };
    value + stamp
}

/// One sample; the usual one, with a value and a time of today, in a single copy of 18 bytes.
#[inline]
fn put_sample(out: &mut Vec<u8>, block: &ResolvedBlock, index: usize) {
    let length = sample_len(block, index);
    let mut sample = [0; 24];
    sample[..2].copy_from_slice(&[SAMPLES, length as u8]);
    let mut at = 2;
    let value = block.values[index].to_bits();
    if value != 0 {
        sample[at] = SAMPLE_VALUE;
        sample[at + 1..at + 9].copy_from_slice(&value.to_le_bytes());
        at += 9;
    }
    let mut stamp = block.stamp_ms(index) as u64;
    if stamp != 0 {
        sample[at] = SAMPLE_TIMESTAMP;
        at += 1;
        while stamp >= 0x80 {
            sample[at] = stamp as u8 | 0x80;
            stamp >>= 7;
            at += 1;
        }
        sample[at] = stamp as u8;
    }
    out.extend_from_slice(&sample[..2 + length]);
}

/// Puts a varint at a place and gives the place behind it.
#[inline]
fn put_ref(out: &mut [u8; 16], mut at: usize, mut value: u32) -> usize {
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

/// The number of a type in `Metadata.MetricType`.
fn metric_type(kind: MetricType) -> u32 {
    match kind {
        MetricType::Unknown => 0,
        MetricType::Counter => 1,
        MetricType::Gauge => 2,
        MetricType::Histogram => 3,
        MetricType::GaugeHistogram => 4,
        MetricType::Summary => 5,
        MetricType::Info => 6,
        MetricType::StateSet => 7,
    }
}

impl Default for RequestEncoder {
    fn default() -> Self {
        Self::new()
    }
}
