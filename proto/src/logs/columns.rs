//! The columns of a decompressed block, each length checked before it is used.

use super::read::{BlockError, Entry, Header, Label, Span};
use super::{MAX_BLOCK_KEYS, MAX_BLOCK_STREAMS, MAX_ENTRY_METADATA, MAX_LINE_BYTES, varint};
use crate::caps::{MAX_LABEL_NAME_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS};

/// Reads them from the front of a payload.
pub(super) struct Columns<'a> {
    rest: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Columns<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload, whole: payload }
    }

    /// What comes after labels and keys. `entries` and `pairs` are empty.
    pub(super) fn read(
        mut self,
        header: &Header,
        streams: usize,
        keys: usize,
        entries: &mut Vec<Entry>,
        pairs: &mut Vec<(u32, Span)>,
    ) -> Result<(), BlockError> {
        let count = header.entries as usize;
        let runs = self.number("runs")?;
        if runs > count as u64 {
            return Err(BlockError::TooMuch("runs"));
        }
        entries.reserve_exact(count);
        let empty = Span { at: 0, len: 0 };
        for _ in 0..runs {
            let (stream, run) = (self.number("runs")?, self.number("runs")?);
            if stream >= streams as u64 {
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
        let (mut at_ns, mut oldest_ns) = (0_i64, i64::MAX);
        for entry in &mut *entries {
            let delta = varint::take_signed(&mut self.rest).ok_or(BlockError::Short("its times"))?;
            at_ns = at_ns.wrapping_add(delta);
            oldest_ns = oldest_ns.min(at_ns);
            entry.at_ns = at_ns;
        }
        if oldest_ns != header.oldest_ns {
            return Err(BlockError::Inconsistent("its oldest time is another one"));
        }
        self.metadata(entries, pairs, keys)?;
        self.lines(entries)
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

    /// The first label of each stream, with one more at the end, and all labels.
    pub(super) fn streams(&mut self) -> Result<(Vec<u32>, Vec<Label>), BlockError> {
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

    /// The keys of metadata.
    pub(super) fn keys(&mut self) -> Result<Vec<Span>, BlockError> {
        let count = self.number("its keys")?;
        if count > MAX_BLOCK_KEYS as u64 {
            return Err(BlockError::TooMuch("keys"));
        }
        (0..count).map(|_| self.text("bytes in a key", MAX_LABEL_NAME_BYTES)).collect()
    }

    fn metadata(
        &mut self,
        entries: &mut [Entry],
        pairs: &mut Vec<(u32, Span)>,
        keys: usize,
    ) -> Result<(), BlockError> {
        let rows = self.number("its metadata")?;
        if rows > entries.len() as u64 {
            return Err(BlockError::TooMuch("metadata"));
        }
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
        Ok(())
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
