//! Writing a block.

use super::{
    BLOCK_VERSION, LogBlock, MAX_BLOCK_ENTRIES, MAX_BLOCK_KEYS, MAX_BLOCK_RAW_BYTES, MAX_BLOCK_STREAMS,
    MAX_ENTRY_METADATA, varint,
};
use bytes::Bytes;
use std::collections::HashMap;
use zstd::bulk::Compressor;

/// zstd's first level: on logs, the third gains nothing and costs half as much again.
const ZSTD_LEVEL: i32 = 1;
/// What ends each line in the text.
const LINE_FEED: u8 = b'\n';
/// What an entry takes in the columns beside its line, at most, without metadata: a run, a time, line feeds.
const ENTRY_BYTES: usize = 32;
/// A block's header, at most: the version and three numbers.
const HEADER_BYTES: usize = 31;

/// A stream's number within the block that is being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamIndex(u32);

/// A metadata key's number within the block that is being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyIndex(u32);

/// Collects entries and writes them as a block. It is emptied by [`BlockBuilder::finish`] and keeps its buffers.
pub struct BlockBuilder {
    compressor: Compressor<'static>,
    streams: Table,
    keys: Table,
    /// Runs of entries of one stream.
    runs: Vec<(u32, u32)>,
    times: Vec<u8>,
    last_ns: i64,
    oldest_ns: i64,
    /// Of lines with line feeds in them: how many lines lie between, and how many line feeds.
    feeds: Vec<u8>,
    feeds_end: u32,
    feeds_rows: u32,
    metadata: Vec<u8>,
    /// The entry after the last one that has metadata.
    metadata_end: u32,
    metadata_rows: u32,
    text: Vec<u8>,
    entries: u32,
    payload: Vec<u8>,
    /// The compressed payload, before it is known how long it is.
    packed: Vec<u8>,
}

/// Spellings with numbers in the order in which they were first used.
#[derive(Default)]
struct Table {
    numbers: HashMap<Box<[u8]>, u32>,
    spelled: Vec<u8>,
}

impl Table {
    fn number(&mut self, spelling: &[u8], most: usize) -> Option<u32> {
        if let Some(number) = self.numbers.get(spelling) {
            return Some(*number);
        }
        let number = self.numbers.len();
        if number == most {
            return None;
        }
        self.spelled.extend_from_slice(spelling);
        self.numbers.insert(spelling.into(), number as u32);
        Some(number as u32)
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(self.numbers.len() as u64, out);
        out.extend_from_slice(&self.spelled);
    }

    fn clear(&mut self) {
        self.numbers.clear();
        self.spelled.clear();
    }
}

impl Default for BlockBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BlockBuilder {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            compressor: Compressor::new(ZSTD_LEVEL).expect("zstd allocates its context"),
            streams: Table::default(),
            keys: Table::default(),
            runs: Vec::new(),
            times: Vec::new(),
            last_ns: 0,
            oldest_ns: i64::MAX,
            feeds: Vec::new(),
            feeds_end: 0,
            feeds_rows: 0,
            metadata: Vec::new(),
            metadata_end: 0,
            metadata_rows: 0,
            text: Vec::new(),
            entries: 0,
            payload: Vec::new(),
            packed: Vec::new(),
        }
    }

    /// The number of a stream, by its labels: sorted by name, each name once, no empty value. None if the block has
    /// its most streams already: finish it and begin another.
    pub fn stream<'a>(
        &mut self,
        labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    ) -> Option<StreamIndex> {
        let mut spelling = Vec::with_capacity(128);
        varint::put(labels.len() as u64, &mut spelling);
        for (name, value) in labels {
            for text in [name, value] {
                varint::put(text.len() as u64, &mut spelling);
                spelling.extend_from_slice(text.as_bytes());
            }
        }
        self.streams.number(&spelling, MAX_BLOCK_STREAMS).map(StreamIndex)
    }

    /// The number of a key of structured metadata; none if the block has its most keys already.
    pub fn key(&mut self, name: &str) -> Option<KeyIndex> {
        let mut spelling = Vec::with_capacity(name.len() + 2);
        varint::put(name.len() as u64, &mut spelling);
        spelling.extend_from_slice(name.as_bytes());
        self.keys.number(&spelling, MAX_BLOCK_KEYS).map(KeyIndex)
    }

    /// Whether another entry with so many bytes of line and metadata fits.
    pub fn fits(&self, bytes: usize) -> bool {
        let tables = self.streams.spelled.len() + self.keys.spelled.len();
        let columns = self.times.len() + self.feeds.len() + self.metadata.len() + 10 * self.runs.len();
        (self.entries as usize) < MAX_BLOCK_ENTRIES
            && tables + columns + self.text.len() + bytes + ENTRY_BYTES + 64 <= MAX_BLOCK_RAW_BYTES
    }

    /// Adds an entry. Metadata beyond [`MAX_ENTRY_METADATA`] pairs is left out: callers count it before.
    pub fn push(&mut self, stream: StreamIndex, at_ns: i64, line: &str, metadata: &[(KeyIndex, &str)]) {
        match self.runs.last_mut() {
            Some((last, run)) if *last == stream.0 => *run += 1,
            _ => self.runs.push((stream.0, 1)),
        }
        varint::put_signed(at_ns.wrapping_sub(self.last_ns), &mut self.times);
        self.last_ns = at_ns;
        self.oldest_ns = self.oldest_ns.min(at_ns);
        let feeds = memchr::memchr_iter(LINE_FEED, line.as_bytes()).count();
        if feeds > 0 {
            varint::put(u64::from(self.entries - self.feeds_end), &mut self.feeds);
            varint::put(feeds as u64, &mut self.feeds);
            self.feeds_end = self.entries + 1;
            self.feeds_rows += 1;
        }
        self.text.extend_from_slice(line.as_bytes());
        self.text.push(LINE_FEED);
        if !metadata.is_empty() {
            let pairs = &metadata[..metadata.len().min(MAX_ENTRY_METADATA)];
            varint::put(u64::from(self.entries - self.metadata_end), &mut self.metadata);
            varint::put(pairs.len() as u64, &mut self.metadata);
            for (key, value) in pairs {
                varint::put(u64::from(key.0), &mut self.metadata);
                varint::put(value.len() as u64, &mut self.metadata);
                self.metadata.extend_from_slice(value.as_bytes());
            }
            self.metadata_end = self.entries + 1;
            self.metadata_rows += 1;
        }
        self.entries += 1;
    }

    /// How many entries wait in the builder.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// The bytes of lines in the builder, each with its end.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// The block of all that was pushed; none if nothing was. The builder is empty afterwards, and the numbers of
    /// streams and keys that it gave are void.
    pub fn finish(&mut self) -> Option<LogBlock> {
        if self.entries == 0 {
            self.clear();
            return None;
        }
        let payload = &mut self.payload;
        self.streams.write(payload);
        self.keys.write(payload);
        varint::put(self.runs.len() as u64, payload);
        for (stream, run) in &self.runs {
            varint::put(u64::from(*stream), payload);
            varint::put(u64::from(*run), payload);
        }
        payload.extend_from_slice(&self.times);
        varint::put(u64::from(self.metadata_rows), payload);
        payload.extend_from_slice(&self.metadata);
        varint::put(u64::from(self.feeds_rows), payload);
        payload.extend_from_slice(&self.feeds);
        payload.extend_from_slice(&self.text);

        // Buffers of this size come fresh from the kernel each time, page by page: the one of the bound's size is kept.
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(payload.len()));
        self.compressor
            .compress_to_buffer(payload, &mut self.packed)
            .expect("the buffer has the bound's size");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.packed.len());
        bytes.push(BLOCK_VERSION);
        varint::put(u64::from(self.entries), &mut bytes);
        varint::put(payload.len() as u64, &mut bytes);
        varint::put_signed(self.oldest_ns, &mut bytes);
        bytes.extend_from_slice(&self.packed);
        let block = LogBlock {
            bytes: Bytes::from(bytes),
            entries: self.entries,
            raw_bytes: payload.len() as u32,
            oldest_ns: self.oldest_ns,
        };
        self.clear();
        Some(block)
    }

    fn clear(&mut self) {
        self.streams.clear();
        self.keys.clear();
        self.runs.clear();
        for column in
            [&mut self.times, &mut self.feeds, &mut self.metadata, &mut self.text, &mut self.payload]
        {
            column.clear();
        }
        self.last_ns = 0;
        self.oldest_ns = i64::MAX;
        self.metadata_end = 0;
        self.metadata_rows = 0;
        self.feeds_end = 0;
        self.feeds_rows = 0;
        self.entries = 0;
    }
}
