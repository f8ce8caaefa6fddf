//! Reading a block that may come from anybody.

use super::{
    BLOCK_VERSION, LogBlock, MAX_BLOCK_ENTRIES, MAX_BLOCK_KEYS, MAX_BLOCK_RAW_BYTES, MAX_BLOCK_STREAMS,
    MAX_ENTRY_METADATA, MAX_LINE_BYTES, varint,
};
use crate::caps::{MAX_LABEL_NAME_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS};
use bytes::Bytes;

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
struct Span {
    at: u32,
    len: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at_ns: i64,
    line: Span,
    stream: u32,
    /// The first of its metadata and how many pairs.
    pairs: (u32, u32),
}

/// A block, decompressed and checked. What it says can be used as it is.
#[derive(Debug)]
pub struct DecodedBlock {
    payload: Vec<u8>,
    /// The first label of each stream, and one more at the end.
    streams: Vec<u32>,
    labels: Vec<Label>,
    keys: Vec<Span>,
    entries: Vec<Entry>,
    pairs: Vec<(u32, Span)>,
}

/// One entry.
#[derive(Debug, Clone, Copy)]
pub struct EntryView<'a> {
    block: &'a DecodedBlock,
    entry: &'a Entry,
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

struct Header {
    entries: u32,
    raw_bytes: u32,
    oldest_ns: i64,
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
    /// Decompresses and checks a block's bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, BlockError> {
        let header = Header::read(bytes)?;
        let raw = header.raw_bytes as usize;
        // A frame that says a larger size than the header is not begun.
        let mut payload = Vec::with_capacity(raw);
        zstd::bulk::Decompressor::new()
            .and_then(|mut zstd| zstd.decompress_to_buffer(&bytes[header.body..], &mut payload))
            .map_err(|_| BlockError::Zstd)?;
        if payload.len() != raw {
            return Err(BlockError::Zstd);
        }
        Columns { rest: &payload, whole: &payload }.read(&header).map(
            |(streams, labels, keys, entries, pairs)| Self { payload, streams, labels, keys, entries, pairs },
        )
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
        self.entries.iter().map(|entry| EntryView { block: self, entry })
    }

    /// One of its entries.
    pub fn entry(&self, index: usize) -> Option<EntryView<'_>> {
        Some(EntryView { block: self, entry: self.entries.get(index)? })
    }

    /// Roughly what it takes in memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        size_of::<Self>()
            + self.payload.len()
            + size_of_val(self.entries.as_slice())
            + size_of_val(self.pairs.as_slice())
            + size_of_val(self.labels.as_slice())
    }

    /// A copy of its last entries: as many as take no more than so many bytes, and no more than `most`. Maybe none.
    #[must_use]
    pub fn last(&self, most: usize, mut bytes: usize) -> Self {
        let cost = |entry: &Entry| {
            let (from, count) = (entry.pairs.0 as usize, entry.pairs.1 as usize);
            let pairs = &self.pairs[from..from + count];
            let values: usize = pairs.iter().map(|(_, value)| value.len as usize).sum();
            size_of::<Entry>() + entry.line.len as usize + values + size_of_val(pairs)
        };
        let mut first = self.entries.len();
        while first > 0 && self.entries.len() - first < most {
            let Some(left) = bytes.checked_sub(cost(&self.entries[first - 1])) else { break };
            (bytes, first) = (left, first - 1);
        }
        let mut out = Self {
            payload: Vec::new(),
            streams: vec![0],
            labels: Vec::new(),
            keys: Vec::new(),
            entries: Vec::new(),
            pairs: Vec::new(),
        };
        out.keys = self.keys.iter().map(|key| out.copy(self, *key)).collect();
        let mut numbers = vec![None; self.stream_count()];
        for entry in &self.entries[first..] {
            let old = entry.stream as usize;
            let stream = *numbers[old].get_or_insert_with(|| {
                for label in self.streams[old]..self.streams[old + 1] {
                    let (name, value) = self.labels[label as usize];
                    let copied = (out.copy(self, name), out.copy(self, value));
                    out.labels.push(copied);
                }
                out.streams.push(out.labels.len() as u32);
                out.streams.len() as u32 - 2
            });
            let (from, count) = (entry.pairs.0 as usize, entry.pairs.1 as usize);
            let pairs = (out.pairs.len() as u32, count as u32);
            for (key, value) in &self.pairs[from..from + count] {
                let value = out.copy(self, *value);
                out.pairs.push((*key, value));
            }
            let line = out.copy(self, entry.line);
            out.entries.push(Entry { at_ns: entry.at_ns, line, stream, pairs });
        }
        out
    }

    fn copy(&mut self, from: &Self, span: Span) -> Span {
        let at = self.payload.len() as u32;
        self.payload.extend_from_slice(&from.payload[span.at as usize..][..span.len as usize]);
        Span { at, len: span.len }
    }

    fn text(&self, span: Span) -> &str {
        let bytes = &self.payload[span.at as usize..][..span.len as usize];
        // Checked when it was read; checking again costs less than carrying a proof.
        std::str::from_utf8(bytes).unwrap_or_default()
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
        &self.block.payload[self.entry.line.at as usize..][..self.entry.line.len as usize]
    }

    /// Its structured metadata.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + use<'a> {
        let (from, count) = (self.entry.pairs.0 as usize, self.entry.pairs.1 as usize);
        let block = self.block;
        block.pairs[from..from + count]
            .iter()
            .map(move |(key, value)| (block.text(block.keys[*key as usize]), block.text(*value)))
    }
}

/// A label's name and value.
type Label = (Span, Span);
type Parts = (Vec<u32>, Vec<Label>, Vec<Span>, Vec<Entry>, Vec<(u32, Span)>);

struct Columns<'a> {
    rest: &'a [u8],
    whole: &'a [u8],
}

impl Columns<'_> {
    fn read(mut self, header: &Header) -> Result<Parts, BlockError> {
        let count = header.entries as usize;
        let (streams, labels) = self.streams()?;
        let keys = self.keys()?;
        let runs = self.number("runs")?;
        if runs > count as u64 {
            return Err(BlockError::TooMuch("runs"));
        }
        let mut entries = Vec::with_capacity(count);
        let empty = Span { at: 0, len: 0 };
        for _ in 0..runs {
            let (stream, run) = (self.number("runs")?, self.number("runs")?);
            if stream >= streams.len() as u64 - 1 {
                return Err(BlockError::Inconsistent("an entry's stream is not described"));
            }
            if run == 0 || run > (count - entries.len()) as u64 {
                return Err(BlockError::Inconsistent("its runs are not its entries"));
            }
            let entry = Entry { at_ns: 0, line: empty, stream: stream as u32, pairs: (0, 0) };
            entries.resize(entries.len() + run as usize, entry);
        }
        if entries.len() != count {
            return Err(BlockError::Inconsistent("its runs are not its entries"));
        }
        let mut at_ns = 0_i64;
        for entry in &mut entries {
            let delta = varint::take_signed(&mut self.rest).ok_or(BlockError::Short("its times"))?;
            at_ns = at_ns.wrapping_add(delta);
            entry.at_ns = at_ns;
        }
        if entries.iter().map(|e| e.at_ns).min() != Some(header.oldest_ns) {
            return Err(BlockError::Inconsistent("its oldest time is another one"));
        }
        let pairs = self.metadata(&mut entries, keys.len())?;
        self.lines(&mut entries)?;
        Ok((streams, labels, keys, entries, pairs))
    }

    fn number(&mut self, what: &'static str) -> Result<u64, BlockError> {
        varint::take(&mut self.rest).ok_or(BlockError::Short(what))
    }

    fn text(&mut self, what: &'static str, most: usize) -> Result<Span, BlockError> {
        let len = self.number(what)?;
        if len > most as u64 {
            return Err(BlockError::TooMuch(what));
        }
        let at = self.whole.len() - self.rest.len();
        let (text, rest) = self.rest.split_at_checked(len as usize).ok_or(BlockError::Short(what))?;
        std::str::from_utf8(text).map_err(|_| BlockError::NotUtf8)?;
        self.rest = rest;
        Ok(Span { at: at as u32, len: len as u32 })
    }

    fn streams(&mut self) -> Result<(Vec<u32>, Vec<Label>), BlockError> {
        let count = self.number("its streams")?;
        if count > MAX_BLOCK_STREAMS as u64 {
            return Err(BlockError::TooMuch("streams"));
        }
        let (mut streams, mut labels) = (vec![0], Vec::new());
        for _ in 0..count {
            let of_stream = self.number("its streams")?;
            if of_stream > MAX_LABELS as u64 {
                return Err(BlockError::TooMuch("labels"));
            }
            for nth in 0..of_stream {
                let name = self.text("bytes in a label's name", MAX_LABEL_NAME_BYTES)?;
                let value = self.text("bytes in a label's value", MAX_LABEL_VALUE_BYTES)?;
                let spelled = |span: Span| &self.whole[span.at as usize..][..span.len as usize];
                let before: Option<&Label> = labels.last().filter(|_| nth > 0);
                if name.len == 0 || before.is_some_and(|(last, _)| spelled(*last) >= spelled(name)) {
                    return Err(BlockError::Inconsistent("labels are not sorted by name"));
                }
                labels.push((name, value));
            }
            streams.push(labels.len() as u32);
        }
        Ok((streams, labels))
    }

    fn keys(&mut self) -> Result<Vec<Span>, BlockError> {
        let count = self.number("its keys")?;
        if count > MAX_BLOCK_KEYS as u64 {
            return Err(BlockError::TooMuch("keys"));
        }
        (0..count).map(|_| self.text("bytes in a key", MAX_LABEL_NAME_BYTES)).collect()
    }

    fn metadata(&mut self, entries: &mut [Entry], keys: usize) -> Result<Vec<(u32, Span)>, BlockError> {
        let rows = self.number("its metadata")?;
        if rows > entries.len() as u64 {
            return Err(BlockError::TooMuch("metadata"));
        }
        let mut pairs = Vec::new();
        let mut next = 0_u64;
        for _ in 0..rows {
            let row =
                next.checked_add(self.number("its metadata")?).filter(|row| *row < entries.len() as u64);
            let row = row.ok_or(BlockError::Inconsistent("metadata of an entry that it does not have"))?;
            next = row + 1;
            let count = self.number("its metadata")?;
            if count > MAX_ENTRY_METADATA as u64 {
                return Err(BlockError::TooMuch("metadata of one entry"));
            }
            entries[row as usize].pairs = (pairs.len() as u32, count as u32);
            for _ in 0..count {
                let key = self.number("its metadata")?;
                if key >= keys as u64 {
                    return Err(BlockError::Inconsistent("a metadata key is not described"));
                }
                pairs.push((key as u32, self.text("bytes in a metadata value", MAX_LINE_BYTES)?));
            }
        }
        Ok(pairs)
    }

    fn lines(&mut self, entries: &mut [Entry]) -> Result<(), BlockError> {
        let mut rows = self.number("its line feeds")?;
        if rows > entries.len() as u64 {
            return Err(BlockError::TooMuch("line feeds"));
        }
        let mut feeds = self.rest;
        for _ in 0..2 * rows {
            self.number("its line feeds")?;
        }
        let text = self.rest;
        std::str::from_utf8(text).map_err(|_| BlockError::NotUtf8)?;
        let base = self.whole.len() - text.len();
        let mut number = || varint::take(&mut feeds).ok_or(BlockError::Short("its line feeds"));
        // The next line with line feeds in it, and how many.
        let mut next = if rows > 0 { Some((number()?, number()?)) } else { None };
        let mut ends = memchr::memchr_iter(b'\n', text);
        let mut at = 0;
        for (row, entry) in entries.iter_mut().enumerate() {
            let mut within = 0;
            if let Some((at_row, feeds)) = next.filter(|(at_row, _)| *at_row == row as u64) {
                within = usize::try_from(feeds).map_err(|_| BlockError::TooMuch("line feeds"))?;
                rows -= 1;
                next = if rows > 0 {
                    Some((at_row.saturating_add(1).saturating_add(number()?), number()?))
                } else {
                    None
                };
            }
            let end = ends.nth(within).ok_or(BlockError::Short("its text"))?;
            if end - at > MAX_LINE_BYTES {
                return Err(BlockError::TooMuch("bytes in a line"));
            }
            // Beside a line feed a text can be divided: each line is UTF-8 as the whole is.
            entry.line = Span { at: (base + at) as u32, len: (end - at) as u32 };
            at = end + 1;
        }
        if at != text.len() || next.is_some() {
            return Err(BlockError::Inconsistent("its lines are not its text"));
        }
        Ok(())
    }
}
