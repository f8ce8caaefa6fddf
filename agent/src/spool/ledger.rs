//! A segment's ledger: which batches were committed, apart from the database that holds them.
//!
//! sled recovers a damaged log by silently ending it at the damage, so what a segment *should* hold must be written
//! elsewhere. The ledger is a small append-only file: a header, then one frame a commit, then a seal. A frame is
//! appended after the commit's fsync and not fsynced itself, so it never claims more than is stored; after a kill
//! it is complete; after a power cut it may miss its end, and the database is asked. The seal is fsynced: a sealed
//! ledger is complete, and starting needs to open no database.

use super::store::SegmentName;
use pegel_proto::batch::BatchSeq;

/// The format that this version writes: of ledger, chunks and records alike. It reads this one and the one before.
pub(crate) const FORMAT: u16 = 1;

const MAGIC: &[u8; 8] = b"pegelspl";
pub(crate) const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 8;
const ENTRY_BYTES: usize = 32;

const COMMIT: u8 = 1;
const SEAL: u8 = 2;
const DAMAGE: u8 = 3;

/// A committed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub seq: BatchSeq,
    pub records: u64,
    pub oldest_ms: i64,
    /// Bytes of the encoded record, without its header.
    pub bytes: u64,
}

/// A ledger as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ledger {
    pub entries: Vec<Entry>,
    /// Chunks that the committed batches take.
    pub chunks: u32,
    /// Bytes of header and intact frames.
    pub length: u64,
    /// Whether the ledger is complete.
    pub sealed: bool,
    /// Whether batches behind the last entry were found damaged and reported.
    pub damaged: bool,
    /// Whether this was recovered from the database and the file says less.
    pub ahead_of_file: bool,
}

/// Why a ledger can't be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LedgerError {
    /// The header is not one, or is of another segment.
    #[error("the ledger's header is damaged")]
    Header,
    /// The segment was written by a version that this one does not know.
    #[error(
        "the segment has format {0}; this version reads {FORMAT}: run the version that wrote it, or a later one, to drain it"
    )]
    Format(u16),
}

/// A new segment's ledger.
pub(crate) fn header(name: SegmentName) -> Vec<u8> {
    header_of_format(name, FORMAT)
}

pub(crate) fn header_of_format(name: SegmentName, format: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&format.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&name.number.to_le_bytes());
    out.extend_from_slice(&name.first_seq.to_le_bytes());
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The frame, at a place of the ledger, of a commit after which the segment has `chunks` chunks.
pub(crate) fn commit(name: SegmentName, at: u64, entries: &[Entry], chunks: u32) -> Vec<u8> {
    let mut body = Vec::with_capacity(5 + entries.len() * ENTRY_BYTES);
    body.push(COMMIT);
    body.extend_from_slice(&chunks.to_le_bytes());
    for entry in entries {
        body.extend_from_slice(&entry.seq.0.to_le_bytes());
        body.extend_from_slice(&entry.records.to_le_bytes());
        body.extend_from_slice(&entry.oldest_ms.to_le_bytes());
        body.extend_from_slice(&entry.bytes.to_le_bytes());
    }
    frame(name, at, &body)
}

/// The frame that completes a ledger.
pub(crate) fn seal(name: SegmentName, at: u64) -> Vec<u8> {
    frame(name, at, &[SEAL])
}

/// The frame that takes away every batch behind `intact` (all, if none), because it was found damaged.
pub(crate) fn damage(name: SegmentName, at: u64, intact: Option<BatchSeq>) -> Vec<u8> {
    let mut body = vec![DAMAGE];
    body.extend_from_slice(&intact.map_or(0, |seq| seq.0).to_le_bytes());
    frame(name, at, &body)
}

/// A whole ledger anew.
pub(crate) fn rewrite(name: SegmentName, ledger: &Ledger) -> Vec<u8> {
    let mut out = header(name);
    out.extend_from_slice(&commit(name, out.len() as u64, &ledger.entries, ledger.chunks));
    if ledger.sealed {
        out.extend_from_slice(&seal(name, out.len() as u64));
    }
    if ledger.damaged {
        out.extend_from_slice(&damage(name, out.len() as u64, ledger.entries.last().map(|e| e.seq)));
    }
    out
}

/// A frame's CRC covers the segment's number and the frame's place: a frame behind a hole is not intact.
fn frame(name: SegmentName, at: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&checksum(name, at, body).to_le_bytes());
    out.extend_from_slice(body);
    out
}

fn checksum(name: SegmentName, at: u64, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&name.number.to_le_bytes());
    crc.update(&at.to_le_bytes());
    crc.update(body);
    crc.finalize()
}

/// Reads a ledger up to its end or to the first frame that is not intact.
pub(crate) fn parse(name: SegmentName, bytes: &[u8]) -> Result<Ledger, LedgerError> {
    let (head, mut rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(LedgerError::Header)?;
    if !head.starts_with(MAGIC) || crc32fast::hash(&head[..28]).to_le_bytes() != head[28..] {
        return Err(LedgerError::Header);
    }
    let format = u16::from_le_bytes([head[8], head[9]]);
    if format != FORMAT {
        return Err(LedgerError::Format(format));
    }
    if *head != *header(name) {
        return Err(LedgerError::Header);
    }
    let mut ledger = Ledger::default();
    while let Some((body, after)) = intact_frame(name, (bytes.len() - rest.len()) as u64, rest) {
        apply(&mut ledger, body);
        rest = after;
    }
    ledger.length = (bytes.len() - rest.len()) as u64;
    // A frame that is not intact behind the seal can only be a damage mark that was torn.
    Ok(ledger)
}

fn intact_frame(name: SegmentName, at: u64, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let length = u32::from_le_bytes(head[..4].try_into().expect("4 bytes")) as usize;
    let (body, after) = rest.split_at_checked(length)?;
    (checksum(name, at, body).to_le_bytes() == head[4..]).then_some((body, after))
}

fn apply(ledger: &mut Ledger, body: &[u8]) {
    let u64_at = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("8 bytes"));
    match body.first() {
        Some(&COMMIT) if body.len() >= 5 => {
            ledger.chunks = u32::from_le_bytes(body[1..5].try_into().expect("4 bytes"));
            ledger.entries.extend((5..).step_by(ENTRY_BYTES).take((body.len() - 5) / ENTRY_BYTES).map(
                |at| Entry {
                    seq: BatchSeq(u64_at(at)),
                    records: u64_at(at + 8),
                    oldest_ms: u64_at(at + 16) as i64,
                    bytes: u64_at(at + 24),
                },
            ));
        }
        Some(&SEAL) => ledger.sealed = true,
        Some(&DAMAGE) if body.len() == 9 => {
            let intact = u64_at(1);
            ledger.entries.retain(|entry| entry.seq.0 <= intact);
            ledger.damaged = true;
        }
        // Frames of a kind that a later minor version adds are passed over.
        _ => {}
    }
}
