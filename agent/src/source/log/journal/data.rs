//! A data object: one field with its value, compressed or not.

use super::entry::Entry;
use super::file::{Wanted, object};
use super::header::Header;
use super::pages::{PageError, Pages, ReadAt};
use std::io::Read as _;

const DATA: u8 = 1;
const COMPRESSED_XZ: u8 = 1;
const COMPRESSED_LZ4: u8 = 1 << 1;
const COMPRESSED_ZSTD: u8 = 1 << 2;
/// Where the payload begins; in compact files behind two more numbers.
const PAYLOAD: u64 = 64;
const PAYLOAD_COMPACT: u64 = 72;
/// The longest name of a field that journald takes, with its equals sign.
const NAME_BYTES: usize = 65;
/// The longest value that is read; what is longer is cut. Longer than any line that is sent.
const MAX_VALUE_BYTES: usize = 1 << 20;
/// The longest value that is decompressed in one piece, which LZ4 asks for.
const MAX_LZ4_BYTES: usize = 16 << 20;

/// A field can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataError {
    /// It is longer than what is read.
    TooLong,
    /// It contradicts itself, or what compressed it is not known here.
    Damaged,
}

impl From<PageError> for DataError {
    fn from(_: PageError) -> Self {
        Self::Damaged
    }
}

/// Adds the field at an offset to the entry, if it is wanted; whether it was.
pub fn read<R: ReadAt>(
    pages: &mut Pages<R>,
    header: &Header,
    at: u64,
    wanted: &Wanted,
    entry: &mut Entry,
) -> Result<bool, DataError> {
    let (kind, flags, size) = object(pages, header, at)?.ok_or(DataError::Damaged)?;
    let payload = if header.compact() { PAYLOAD_COMPACT } else { PAYLOAD };
    if kind != DATA || size <= payload {
        return Err(DataError::Damaged);
    }
    let (at, length) = (at + payload, size - payload);
    match flags & (COMPRESSED_XZ | COMPRESSED_LZ4 | COMPRESSED_ZSTD) {
        0 => plain(pages, at, length, wanted, entry),
        COMPRESSED_ZSTD => compressed(pages, at, length, wanted, entry, unzstd),
        COMPRESSED_LZ4 => compressed(pages, at, length, wanted, entry, unlz4),
        _ => Err(DataError::Damaged),
    }
}

fn plain<R: ReadAt>(
    pages: &mut Pages<R>,
    at: u64,
    length: u64,
    wanted: &Wanted,
    entry: &mut Entry,
) -> Result<bool, DataError> {
    let mut start = [0; NAME_BYTES];
    let start = &mut start[..length.min(NAME_BYTES as u64) as usize];
    pages.read(at, start)?;
    let name = memchr::memchr(b'=', start).ok_or(DataError::Damaged)?;
    if !wanted.has(&start[..name]) {
        return Ok(false);
    }
    let kept = length.min((name + 1 + MAX_VALUE_BYTES) as u64);
    let from = entry.buffer().len();
    if let Err(error) = pages.append(at, kept as usize, entry.buffer()) {
        entry.undo(from);
        return Err(error.into());
    }
    if kept < length {
        entry.oversized += 1;
    }
    if entry.take(from) { Ok(true) } else { Err(DataError::Damaged) }
}

fn compressed<R: ReadAt>(
    pages: &mut Pages<R>,
    at: u64,
    length: u64,
    wanted: &Wanted,
    entry: &mut Entry,
    decompress: fn(&[u8], &mut Vec<u8>) -> Result<bool, DataError>,
) -> Result<bool, DataError> {
    if length > MAX_LZ4_BYTES as u64 {
        return Err(DataError::TooLong);
    }
    let mut packed = Vec::new();
    pages.append(at, length as usize, &mut packed)?;
    let from = entry.buffer().len();
    let whole = match decompress(&packed, entry.buffer()) {
        Ok(whole) => whole,
        Err(error) => {
            entry.undo(from);
            return Err(error);
        }
    };
    let start = &entry.buffer()[from..];
    let name = memchr::memchr(b'=', &start[..start.len().min(NAME_BYTES)]);
    if name.is_some_and(|name| !wanted.has(&start[..name])) {
        entry.undo(from);
        return Ok(false);
    }
    if name.is_none() || !entry.take(from) {
        entry.undo(from);
        return Err(DataError::Damaged);
    }
    entry.oversized += u32::from(!whole);
    Ok(true)
}

/// Appends what was compressed; whether that is all of it.
fn unzstd(packed: &[u8], into: &mut Vec<u8>) -> Result<bool, DataError> {
    let most = (NAME_BYTES + MAX_VALUE_BYTES) as u64;
    let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(|_| DataError::Damaged)?;
    let read = decoder.take(most + 1).read_to_end(into).map_err(|_| DataError::Damaged)?;
    let whole = read as u64 <= most;
    into.truncate(into.len() - usize::from(!whole));
    Ok(whole)
}

fn unlz4(packed: &[u8], into: &mut Vec<u8>) -> Result<bool, DataError> {
    let (size, block) = packed.split_first_chunk::<8>().ok_or(DataError::Damaged)?;
    let size = u64::from_le_bytes(*size);
    if size > MAX_LZ4_BYTES as u64 {
        return Err(DataError::TooLong);
    }
    // LZ4 packs 255 bytes into one at best: what is reserved follows what is there.
    if size > 255 * (block.len() as u64 + 1) {
        return Err(DataError::Damaged);
    }
    let from = into.len();
    into.resize(from + size as usize, 0);
    let written =
        lz4_flex::block::decompress_into(block, &mut into[from..]).map_err(|_| DataError::Damaged)?;
    let most = NAME_BYTES + MAX_VALUE_BYTES;
    into.truncate(from + written.min(most));
    Ok(written <= most)
}
