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
    scratch: Vec<u8>,
}

/// An encoded request.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The compressed message.
    pub body: Bytes,
    /// The message's size before compression, in bytes.
    pub message_bytes: usize,
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
            scratch: Vec::new(),
        }
    }

    /// Writes a piece as one request.
    pub(super) fn encode(&mut self, version: Version, piece: &Piece, symbols: &Symbols) -> Encoded {
        self.body.clear();
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
            let mut labels_len = 0;
            for (name, value) in &series.labels {
                let label = label_len(view, *name, *value);
                labels_len += 1 + varint_len(label) + label;
            }
            let samples_len: usize = blocks.iter().map(|block| 2 + sample_len(block, index)).sum();
            self.body.push(V1_TIMESERIES);
            put_varint(&mut self.body, (labels_len + samples_len) as u64);
            for (name, value) in &series.labels {
                self.body.push(V1_LABELS);
                put_varint(&mut self.body, label_len(view, *name, *value) as u64);
                self.body.push(V1_NAME);
                self.body.extend_from_slice(view.encoded(*name));
                self.body.push(V1_VALUE);
                self.body.extend_from_slice(view.encoded(*value));
            }
            for block in &blocks {
                put_sample(&mut self.body, block, index);
            }
        }
    }

    fn group_v2(&mut self, view: &SymbolView<'_>, group: &Group) {
        let blocks: Vec<&ResolvedBlock> = group.parts.iter().map(super::piece::Part::block).collect();
        for index in group.first as usize..(group.first + group.len) as usize {
            let series: &ResolvedSeries = &group.set.series[index];
            self.scratch.clear();
            for (name, value) in &series.labels {
                put_varint(&mut self.scratch, u64::from(self.table.place(view, *name)));
                put_varint(&mut self.scratch, u64::from(self.table.place(view, *value)));
            }
            let refs_len = self.scratch.len();
            let kind = metric_type(series.family.kind);
            let help = self.table.place(view, series.help());
            let unit = self.table.place(view, series.unit());
            for (tag, value) in [(V2_TYPE, kind), (V2_HELP_REF, help), (V2_UNIT_REF, unit)] {
                if value != 0 {
                    self.scratch.push(tag);
                    put_varint(&mut self.scratch, u64::from(value));
                }
            }
            let metadata_len = self.scratch.len() - refs_len;
            let samples_len: usize = blocks.iter().map(|block| 2 + sample_len(block, index)).sum();
            let length = 1 + varint_len(refs_len) + refs_len + samples_len + 2 + metadata_len;
            self.body.push(V2_TIMESERIES);
            put_varint(&mut self.body, length as u64);
            self.body.push(V2_LABELS_REFS);
            put_varint(&mut self.body, refs_len as u64);
            self.body.extend_from_slice(&self.scratch[..refs_len]);
            for block in &blocks {
                put_sample(&mut self.body, block, index);
            }
            // At most 13 bytes: its length takes one.
            self.body.extend_from_slice(&[V2_METADATA, metadata_len as u8]);
            self.body.extend_from_slice(&self.scratch[refs_len..]);
        }
    }
}

fn label_len(view: &SymbolView<'_>, name: Symbol, value: Symbol) -> usize {
    2 + view.encoded(name).len() + view.encoded(value).len()
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

fn put_sample(out: &mut Vec<u8>, block: &ResolvedBlock, index: usize) {
    out.extend_from_slice(&[SAMPLES, sample_len(block, index) as u8]);
    let value = block.values[index].to_bits();
    if value != 0 {
        out.push(SAMPLE_VALUE);
        out.extend_from_slice(&value.to_le_bytes());
    }
    let stamp = block.stamp_ms(index);
    if stamp != 0 {
        out.push(SAMPLE_TIMESTAMP);
        put_varint(out, stamp as u64);
    }
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
