//! One journal file (systemd's JOURNAL_FILE_FORMAT), read entry by entry.
//!
//! What a file says is not believed: every offset lies between the header's end and the arena's, every length is
//! compared with a limit before it is used, and a chain of arrays only leads forward, so that no file makes a loop
//! without an end. An entry that can't be read is passed over and counted; a chain that is broken ends the file.

use super::cursor::Cursor;
use super::data::{self, DataError};
use super::entry::Entry;
use super::header::{HEADER_BYTES, Header, HeaderError, id, number};
use super::pages::{PageError, Pages, ReadAt};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::io;

const ENTRY: u8 = 3;
const ENTRY_ARRAY: u8 = 6;
/// An object's header.
pub(super) const OBJECT_BYTES: u64 = 16;
/// An entry without its items.
const ENTRY_BYTES: u64 = 64;
/// An array without its items.
const ARRAY_BYTES: u64 = 24;
/// journald takes 1,024 fields from a client and adds some twenty; more is no entry of it.
const MAX_ITEMS: u64 = 4_096;
/// How far an entry's number may be beyond the newest of its file's header while that is written.
const MOST_AHEAD: u64 = 1 << 20;
/// Data objects that are remembered as holding none of the wanted fields, 16 bytes each.
const MAX_UNWANTED: usize = 8_192;

/// Why a file can't be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Its header is no header, or one that is not known here.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It can't be read, or is shorter than it says.
    #[error(transparent)]
    Read(#[from] PageError),
    /// What should tell where its entries are does not.
    #[error("the chain of its entries is broken at byte {0}")]
    Chain(u64),
    /// Another file took its place, or it was rewritten.
    #[error("it is not the file that it was")]
    Replaced,
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Which fields are read; all, without a list.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Option<HashSet<Box<[u8]>>>);

impl Wanted {
    /// All fields.
    pub fn all() -> Self {
        Self(None)
    }

    /// These only.
    pub fn only<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(Some(names.into_iter().map(|name| name.as_bytes().into()).collect()))
    }

    /// Whether a field is.
    pub fn has(&self, name: &[u8]) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(name))
    }
}

/// An array of entries' offsets.
#[derive(Debug, Clone, Copy, Default)]
struct Array {
    at: u64,
    capacity: u64,
    next: u64,
}

/// A file and a place in it.
pub struct JournalFile<R> {
    pages: Pages<R>,
    header: Header,
    array: Array,
    /// The place within the array.
    index: u64,
    /// How many entries lie before the place.
    passed: u64,
    damaged: u64,
    unwanted: HashSet<u64>,
}

impl<R: ReadAt> JournalFile<R> {
    /// Reads the header; the place is before the first entry.
    pub fn open(source: R) -> Result<Self, FileError> {
        let header = read_header(&source)?;
        Ok(Self {
            pages: Pages::new(source),
            header,
            array: Array::default(),
            index: 0,
            passed: 0,
            damaged: 0,
            unwanted: HashSet::new(),
        })
    }

    /// What the header said when it was last looked at.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where the bytes come from.
    pub fn source(&self) -> &R {
        self.pages.source()
    }

    /// Entries that were passed over because they can't be read, since this was last asked.
    pub fn take_damaged(&mut self) -> u64 {
        std::mem::take(&mut self.damaged)
    }

    /// How many entries lie behind the place.
    pub fn remaining(&self) -> u64 {
        self.header.entries.saturating_sub(self.passed)
    }

    /// Gives memory back until the file is read again.
    pub fn rest(&mut self) {
        self.pages.release();
        self.unwanted = HashSet::new();
    }

    /// Looks at the header again; whether anything changed.
    pub fn refresh(&mut self) -> Result<bool, FileError> {
        let header = read_header(self.pages.source())?;
        if header == self.header {
            return Ok(false);
        }
        let same = header.file_id == self.header.file_id && header.compact() == self.header.compact();
        if !same || header.entries < self.header.entries {
            return Err(FileError::Replaced);
        }
        // An array that was full may have a successor now.
        self.pages.forget();
        self.header = header;
        if self.array.at != 0 {
            self.array = self.array(self.array.at)?;
        }
        Ok(true)
    }

    /// The entry at the place, which stays before it; none at the end. What can't be read is passed over.
    pub fn peek(&mut self) -> Result<Option<(u64, Cursor)>, FileError> {
        while let Some(at) = self.offset()? {
            match self.cursor(at) {
                Ok(cursor) => return Ok(Some((at, cursor))),
                Err(_) => {
                    self.damaged += 1;
                    self.pass();
                }
            }
        }
        Ok(None)
    }

    /// Moves the place behind the entry that [`JournalFile::peek`] gave.
    pub fn pass(&mut self) {
        self.index += 1;
        self.passed += 1;
    }

    /// Reads the entry at an offset. Fields that can't be read are counted in it.
    pub fn read(&mut self, at: u64, wanted: &Wanted, entry: &mut Entry) -> Result<(), FileError> {
        entry.clear();
        entry.cursor = self.cursor(at)?;
        let size = self.object(at, ENTRY, ENTRY_BYTES)?;
        let item = if self.header.compact() { 4 } else { 16 };
        let items = ((size - ENTRY_BYTES) / item).min(MAX_ITEMS);
        for nth in 0..items {
            let offset = self.number(at + ENTRY_BYTES + nth * item)?;
            if self.unwanted.contains(&offset) {
                continue;
            }
            match data::read(&mut self.pages, &self.header, offset, wanted, entry) {
                Ok(true) => {}
                Ok(false) => {
                    if self.unwanted.len() >= MAX_UNWANTED {
                        self.unwanted.clear();
                    }
                    self.unwanted.insert(offset);
                }
                Err(DataError::TooLong) => entry.oversized += 1,
                Err(DataError::Damaged) => entry.damaged += 1,
            }
        }
        Ok(())
    }

    /// Moves the place before the first entry.
    pub fn seek_head(&mut self) {
        self.array = Array::default();
        self.index = 0;
        self.passed = 0;
    }

    /// Moves the place before the first entry for which `before` says no, where it says yes of all earlier ones.
    pub fn seek(&mut self, before: impl Fn(&Cursor) -> bool) -> Result<(), FileError> {
        let arrays = self.arrays()?;
        let (mut low, mut high) = (0, self.header.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            // What can't be read tells nothing: its successor is asked.
            let mut asked = middle;
            let mut said = None;
            while asked < high && said.is_none() {
                said = self.nth(&arrays, asked)?.and_then(|at| self.cursor(at).ok());
                asked += 1;
            }
            match said {
                Some(cursor) if before(&cursor) => low = asked,
                _ => high = middle,
            }
        }
        self.place(arrays, low);
        Ok(())
    }

    /// Moves the place before the last entry.
    pub fn seek_newest(&mut self) -> Result<(), FileError> {
        let arrays = self.arrays()?;
        self.place(arrays, self.header.entries.saturating_sub(1));
        Ok(())
    }

    fn place(&mut self, arrays: Vec<(Array, u64)>, nth: u64) {
        self.seek_head();
        if let Some((array, first)) = arrays.into_iter().rfind(|(_, first)| *first <= nth) {
            self.array = array;
            self.index = nth - first;
            self.passed = nth;
        }
    }

    /// Moves the place behind an entry and all that come before it.
    pub fn seek_after(&mut self, cursor: &Cursor) -> Result<(), FileError> {
        self.seek(|entry| entry.order(cursor) != Ordering::Greater)
    }

    /// The arrays that the header's entries need, each with the number of its first entry.
    fn arrays(&mut self) -> Result<Vec<(Array, u64)>, FileError> {
        let mut arrays = Vec::new();
        let (mut at, mut first) = (self.header.entry_array, 0);
        while at != 0 && first < self.header.entries {
            let array = self.array(at)?;
            arrays.push((array, first));
            first += array.capacity;
            at = array.next;
        }
        Ok(arrays)
    }

    fn nth(&mut self, arrays: &[(Array, u64)], nth: u64) -> Result<Option<u64>, FileError> {
        let holds = arrays.partition_point(|(_, first)| *first <= nth);
        let Some((array, first)) = holds.checked_sub(1).map(|at| arrays[at]) else { return Ok(None) };
        if nth - first >= array.capacity {
            return Err(FileError::Chain(array.at));
        }
        self.item(array, nth - first)
    }

    /// The offset of the entry at the place.
    fn offset(&mut self) -> Result<Option<u64>, FileError> {
        if self.passed >= self.header.entries {
            return Ok(None);
        }
        if self.array.at == 0 {
            self.array = self.array(self.header.entry_array)?;
            self.index = 0;
        }
        if self.index >= self.array.capacity {
            if self.array.next == 0 {
                return Err(FileError::Chain(self.array.at));
            }
            self.array = self.array(self.array.next)?;
            self.index = 0;
        }
        match self.item(self.array, self.index)? {
            Some(at) => Ok(Some(at)),
            // The header counts it already, and the array has it soon.
            None if self.header.online => Ok(None),
            None => Err(FileError::Chain(self.array.at)),
        }
    }

    fn item(&mut self, array: Array, index: u64) -> Result<Option<u64>, FileError> {
        let size = if self.header.compact() { 4 } else { 8 };
        Ok(Some(self.number(array.at + ARRAY_BYTES + index * size)?).filter(|at| *at != 0))
    }

    /// An array; its successor, if it has one, lies behind it.
    fn array(&mut self, at: u64) -> Result<Array, FileError> {
        let size = self.object(at, ENTRY_ARRAY, ARRAY_BYTES)?;
        let mut next = [0; 8];
        self.pages.read(at + OBJECT_BYTES, &mut next)?;
        let next = u64::from_le_bytes(next);
        let capacity = (size - ARRAY_BYTES) / if self.header.compact() { 4 } else { 8 };
        if capacity == 0 || (next != 0 && next <= at) {
            return Err(FileError::Chain(at));
        }
        Ok(Array { at, capacity, next })
    }

    fn cursor(&mut self, at: u64) -> Result<Cursor, FileError> {
        self.object(at, ENTRY, ENTRY_BYTES)?;
        let mut bytes = [0; ENTRY_BYTES as usize];
        self.pages.read(at, &mut bytes)?;
        let (seqnum, newest) = (number(&bytes, 16), self.header.tail_seqnum);
        // A number that no entry of the file has, which others would wait for. A file that is being written may be ahead of
        // what was seen of its header.
        if seqnum > newest.saturating_add(if self.header.online { MOST_AHEAD } else { 0 }) {
            return Err(FileError::Chain(at));
        }
        Ok(Cursor {
            seqnum_id: self.header.seqnum_id,
            seqnum,
            realtime_us: number(&bytes, 24),
            monotonic_us: number(&bytes, 32),
            boot_id: id(&bytes, 40),
            xor_hash: number(&bytes, 56),
        })
    }

    /// The size of an object of a kind.
    fn object(&mut self, at: u64, kind: u8, least: u64) -> Result<u64, FileError> {
        let (found, _, size) = object(&mut self.pages, &self.header, at)?.ok_or(FileError::Chain(at))?;
        if found != kind || size < least {
            return Err(FileError::Chain(at));
        }
        Ok(size)
    }

    /// An offset as the file writes them.
    fn number(&mut self, at: u64) -> Result<u64, FileError> {
        let mut bytes = [0; 8];
        let length = if self.header.compact() { 4 } else { 8 };
        self.pages.read(at, &mut bytes[..length])?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Kind, flags and size of the object at an offset; none if no object can be there.
pub(super) fn object<R: ReadAt>(
    pages: &mut Pages<R>,
    header: &Header,
    at: u64,
) -> Result<Option<(u8, u8, u64)>, PageError> {
    let room = header.end.saturating_sub(at);
    if at < header.header_bytes || !at.is_multiple_of(8) || room < OBJECT_BYTES {
        return Ok(None);
    }
    let mut bytes = [0; OBJECT_BYTES as usize];
    pages.read(at, &mut bytes)?;
    let size = number(&bytes, 8);
    Ok((size >= OBJECT_BYTES && size <= room).then_some((bytes[0], bytes[1], size)))
}

fn read_header<R: ReadAt>(source: &R) -> Result<Header, FileError> {
    let mut bytes = [0; HEADER_BYTES];
    let read = source.read_at(&mut bytes, 0)?;
    if read < HEADER_BYTES {
        return Err(PageError::Short(read as u64).into());
    }
    Ok(Header::read(&bytes)?)
}
