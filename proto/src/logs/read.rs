//! Reading a block that may come from anybody.

use super::columns::Columns;
use super::pool::Shelf;
use super::{BLOCK_VERSION, LogBlock, MAX_BLOCK_ENTRIES, MAX_BLOCK_RAW_BYTES, varint};
use bytes::Bytes;
use std::sync::Arc;
use zstd::bulk::Decompressor;

/// Why bytes are no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A newer build wrote it.
    #[error("a log block has format {0}, and this build knows {BLOCK_VERSION}")]
    Version(u8),
    /// It ends before its parts do.
    #[error("a log block ends early, in {0}")]
    Short(&'static str),
    /// Something is more than the caps allow.
    #[error("a log block has more {0} than is allowed")]
    TooMuch(&'static str),
    /// The columns contradict each other.
    #[error("a log block contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// zstd can't decompress it, or it has another size than announced.
    #[error("a log block can't be decompressed")]
    Zstd,
    /// A text is no UTF-8.
    #[error("a log block has text that is no UTF-8")]
    NotUtf8,
}

/// A place in the payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) at: u32,
    pub(super) len: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) at_ns: i64,
    pub(super) line: Span,
    pub(super) stream: u32,
    /// The first of its metadata and how many pairs.
    pub(super) pairs: (u32, u32),
}

/// A label's name and value.
pub(super) type Label = (Span, Span);

/// What a block holds its entries in.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) payload: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    /// Metadata: numbers of keys with values.
    pub(super) pairs: Vec<(u32, Span)>,
}

impl Buffers {
    /// What they take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.payload.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.pairs.capacity() * size_of::<(u32, Span)>()
    }
}

/// A block, decompressed and checked. What it says can be used as it is.
///
/// Its payload ends with the lines in the order of the entries, each with a line feed; before them are the values of
/// metadata, in that order too.
#[derive(Debug)]
pub struct DecodedBlock {
    buffers: Buffers,
    /// Where the buffers go when it is dropped.
    shelf: Option<Arc<Shelf>>,
    /// The first label of each stream, and one more at the end.
    streams: Vec<u32>,
    labels: Vec<Label>,
    keys: Vec<Span>,
}

impl Drop for DecodedBlock {
    fn drop(&mut self) {
        if let Some(shelf) = &self.shelf {
            shelf.give(std::mem::take(&mut self.buffers));
        }
    }
}

/// One entry.
#[derive(Debug, Clone, Copy)]
pub struct EntryView<'a> {
    block: &'a DecodedBlock,
    entry: &'a Entry,
}

impl Span {
    fn end(self) -> u32 {
        self.at + self.len
    }
}

impl LogBlock {
    /// Reads a block's header; the columns are not looked at.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, BlockError> {
        let header = Header::read(&bytes)?;
        Ok(Self { entries: header.entries, raw_bytes: header.raw_bytes, oldest_ns: header.oldest_ns, bytes })
    }

    /// Decompresses and checks the block.
    pub fn decode(&self) -> Result<DecodedBlock, BlockError> {
        DecodedBlock::read(&self.bytes)
    }
}

pub(super) struct Header {
    pub(super) entries: u32,
    raw_bytes: u32,
    pub(super) oldest_ns: i64,
    /// Where the zstd frame begins.
    body: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, BlockError> {
        let mut rest = bytes;
        let (&version, after) = rest.split_first().ok_or(BlockError::Short("its header"))?;
        rest = after;
        if version != BLOCK_VERSION {
            return Err(BlockError::Version(version));
        }
        let entries = varint::take(&mut rest).ok_or(BlockError::Short("its header"))?;
        let raw = varint::take(&mut rest).ok_or(BlockError::Short("its header"))?;
        let oldest_ns = varint::take_signed(&mut rest).ok_or(BlockError::Short("its header"))?;
        if entries == 0 {
            return Err(BlockError::Inconsistent("it has no entries"));
        }
        if entries > MAX_BLOCK_ENTRIES as u64 {
            return Err(BlockError::TooMuch("entries"));
        }
        if raw > MAX_BLOCK_RAW_BYTES as u64 {
            return Err(BlockError::TooMuch("bytes"));
        }
        // Each entry takes two bytes at least, a time and the end of its line: what is reserved follows what is there.
        if 2 * entries > raw {
            return Err(BlockError::Short("its columns"));
        }
        Ok(Self { entries: entries as u32, raw_bytes: raw as u32, oldest_ns, body: bytes.len() - rest.len() })
    }
}

impl DecodedBlock {
    /// Decompresses and checks a block's bytes. Those who read many have a [`super::BlockPool`].
    pub fn read(bytes: &[u8]) -> Result<Self, BlockError> {
        Self::read_with(bytes, &mut Decompressor::new().map_err(|_| BlockError::Zstd)?, None)
    }

    /// Reads into buffers of a shelf, if there is one and the block is large enough.
    pub(super) fn read_with(
        bytes: &[u8],
        zstd: &mut Decompressor<'_>,
        shelf: Option<&Arc<Shelf>>,
    ) -> Result<Self, BlockError> {
        let header = Header::read(bytes)?;
        let (raw, entries) = (header.raw_bytes as usize, header.entries as usize);
        let taken = shelf.and_then(|shelf| Some((shelf, shelf.take(raw, entries)?)));
        let (shelf, mut buffers) = match taken {
            Some((shelf, buffers)) => (Some(shelf.clone()), buffers),
            None => (None, Buffers { payload: Vec::with_capacity(raw), ..Buffers::default() }),
        };
        // From here on the buffers go back, whatever is found.
        let mut block = Self {
            buffers: Buffers::default(),
            shelf,
            streams: Vec::new(),
            labels: Vec::new(),
            keys: Vec::new(),
        };
        let read = block.fill(&mut buffers, &bytes[header.body..], &header, zstd);
        block.buffers = buffers;
        read.map(|()| block)
    }

    fn fill(
        &mut self,
        buffers: &mut Buffers,
        body: &[u8],
        header: &Header,
        zstd: &mut Decompressor<'_>,
    ) -> Result<(), BlockError> {
        let Buffers { payload, entries, pairs } = buffers;
        // A frame never gets more than the buffer, which is hardly more than the header's size.
        zstd.decompress_to_buffer(body, payload).map_err(|_| BlockError::Zstd)?;
        if payload.len() != header.raw_bytes as usize {
            return Err(BlockError::Zstd);
        }
        let mut columns = Columns::new(payload);
        (self.streams, self.labels) = columns.streams()?;
        self.keys = columns.keys()?;
        columns.read(header, self.stream_count(), self.keys.len(), entries, pairs)
    }

    /// How many streams it has.
    pub fn stream_count(&self) -> usize {
        self.streams.len() - 1
    }

    /// The labels of a stream, sorted by name.
    pub fn labels(&self, stream: usize) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let (from, to) = (self.streams[stream] as usize, self.streams[stream + 1] as usize);
        self.labels[from..to].iter().map(|(name, value)| (self.text(*name), self.text(*value)))
    }

    /// Its entries, in order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = EntryView<'_>> {
        self.buffers.entries.iter().map(|entry| EntryView { block: self, entry })
    }

    /// One of its entries.
    pub fn entry(&self, index: usize) -> Option<EntryView<'_>> {
        Some(EntryView { block: self, entry: self.buffers.entries.get(index)? })
    }

    /// Roughly what it takes in memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        size_of::<Self>() + self.buffers.bytes() + size_of_val(self.labels.as_slice())
    }

    /// A copy of its last entries: as many as take no more than so many bytes, and no more than `most`. Maybe none.
    #[must_use]
    pub fn last(&self, most: usize, mut bytes: usize) -> Self {
        let Buffers { payload, entries, pairs } = &self.buffers;
        let mut first = entries.len();
        let (mut first_pair, mut values_at) = (pairs.len(), pairs.last().map_or(0, |(_, value)| value.end()));
        let values_end = values_at;
        while first > 0 && entries.len() - first < most {
            let entry = &entries[first - 1];
            let (from, count) = (entry.pairs.0 as usize, entry.pairs.1 as usize);
            // Values are copied with what is between them.
            let at = if count > 0 { pairs[from].1.at } else { values_at };
            let cost = size_of::<Entry>()
                + entry.line.len as usize
                + 1
                + (values_at - at) as usize
                + count * size_of::<(u32, Span)>();
            let Some(left) = bytes.checked_sub(cost) else { break };
            (bytes, first, values_at) = (left, first - 1, at);
            if count > 0 {
                first_pair = from;
            }
        }
        let (kept, pairs) = (&entries[first..], &pairs[first_pair..]);
        let values = &payload[values_at as usize..values_end as usize];
        let lines_at = kept.first().map_or(payload.len(), |entry| entry.line.at as usize);
        let lines = &payload[lines_at..];

        let mut out = Self {
            buffers: Buffers::default(),
            shelf: None,
            streams: vec![0],
            labels: Vec::new(),
            keys: Vec::with_capacity(self.keys.len()),
        };
        let mut text = Vec::new();
        let mut copy = |span: Span| {
            let at = text.len() as u32;
            text.extend_from_slice(&payload[span.at as usize..][..span.len as usize]);
            Span { at, len: span.len }
        };
        out.keys.extend(self.keys.iter().map(|key| copy(*key)));
        let mut numbers = vec![None; self.stream_count()];
        let streams = kept.iter().map(|entry| {
            let old = entry.stream as usize;
            *numbers[old].get_or_insert_with(|| {
                let labels = &self.labels[self.streams[old] as usize..self.streams[old + 1] as usize];
                out.labels.extend(labels.iter().map(|(name, value)| (copy(*name), copy(*value))));
                out.streams.push(out.labels.len() as u32);
                out.streams.len() as u32 - 2
            })
        });
        let streams: Vec<u32> = streams.collect();
        let mut whole = Vec::with_capacity(text.len() + values.len() + lines.len());
        whole.extend_from_slice(&text);
        whole.extend_from_slice(values);
        whole.extend_from_slice(lines);
        let (values_now, lines_now) = (text.len() as u32, (text.len() + values.len()) as u32);
        let moved = |span: Span, from: u32, to: u32| Span { at: span.at - from + to, len: span.len };
        out.buffers.pairs =
            pairs.iter().map(|(key, value)| (*key, moved(*value, values_at, values_now))).collect();
        let entries = kept.iter().zip(streams).map(|(entry, stream)| Entry {
            at_ns: entry.at_ns,
            line: moved(entry.line, lines_at as u32, lines_now),
            stream,
            pairs: if entry.pairs.1 > 0 {
                (entry.pairs.0 - first_pair as u32, entry.pairs.1)
            } else {
                (0, 0)
            },
        });
        out.buffers.entries = entries.collect();
        out.buffers.payload = whole;
        out
    }

    fn bytes(&self, span: Span) -> &[u8] {
        &self.buffers.payload[span.at as usize..][..span.len as usize]
    }

    fn text(&self, span: Span) -> &str {
        // Checked when it was read; checking again costs less than carrying a proof.
        std::str::from_utf8(self.bytes(span)).unwrap_or_default()
    }
}

impl<'a> EntryView<'a> {
    /// Its stream's number.
    pub fn stream(&self) -> usize {
        self.entry.stream as usize
    }

    /// Its time, in nanoseconds since the Unix epoch.
    pub fn at_ns(&self) -> i64 {
        self.entry.at_ns
    }

    /// Its line.
    pub fn line(&self) -> &'a str {
        self.block.text(self.entry.line)
    }

    /// Its line's bytes, which are UTF-8: for those that copy them.
    pub fn line_bytes(&self) -> &'a [u8] {
        self.block.bytes(self.entry.line)
    }

    /// Its structured metadata.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + use<'a> {
        let (from, count) = (self.entry.pairs.0 as usize, self.entry.pairs.1 as usize);
        let block = self.block;
        block.buffers.pairs[from..from + count]
            .iter()
            .map(move |(key, value)| (block.text(block.keys[*key as usize]), block.text(*value)))
    }

    /// Its structured metadata as bytes, which are UTF-8: for those that copy or count them.
    pub fn metadata_bytes(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let (from, count) = (self.entry.pairs.0 as usize, self.entry.pairs.1 as usize);
        let block = self.block;
        block.buffers.pairs[from..from + count]
            .iter()
            .map(move |(key, value)| (block.bytes(block.keys[*key as usize]), block.bytes(*value)))
    }
}
