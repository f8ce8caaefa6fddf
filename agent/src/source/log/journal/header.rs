//! The header of a journal file (systemd's JOURNAL_FILE_FORMAT, "Header").

use super::id::Id;

/// The length of the header as systemd 187 wrote it, which is all that is used here.
pub const HEADER_BYTES: usize = 208;

const SIGNATURE: &[u8] = b"LPKSHHRH";

const COMPRESSED_XZ: u32 = 1;
const COMPRESSED_LZ4: u32 = 1 << 1;
const KEYED_HASH: u32 = 1 << 2;
const COMPRESSED_ZSTD: u32 = 1 << 3;
const COMPACT: u32 = 1 << 4;
const KNOWN: u32 = COMPRESSED_XZ | COMPRESSED_LZ4 | KEYED_HASH | COMPRESSED_ZSTD | COMPACT;

/// Why bytes are no header of a file that can be read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is not a journal file.
    #[error("it has not the signature of a journal file")]
    Signature,
    /// It was written in a format that is not known here.
    #[error("it has features that are not known here (incompatible flags {0:#x})")]
    Unknown(u32),
    /// Its sizes contradict each other.
    #[error("its header contradicts itself")]
    Inconsistent,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    incompatible: u32,
    /// Whether it is being written, or was when its writer was killed.
    pub online: bool,
    /// Whether it was rotated away: nothing is written to it any more.
    pub archived: bool,
    /// Names the file.
    pub file_id: Id,
    /// Who numbers its entries.
    pub seqnum_id: Id,
    /// Where objects begin.
    pub header_bytes: u64,
    /// Where objects end; the file is at least as long once they are written.
    pub end: u64,
    /// How many entries it has.
    pub entries: u64,
    /// The last number that was given; its entry may not be there yet.
    pub tail_seqnum: u64,
    /// The first array of entries; 0 without entries.
    pub entry_array: u64,
}

/// A little-endian number at an offset that is within the bytes.
pub fn number(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// An id at an offset that is within the bytes.
pub fn id(bytes: &[u8], at: usize) -> Id {
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[at..at + 16]);
    Id(id)
}

impl Header {
    /// Reads a header.
    pub fn read(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        if !bytes.starts_with(SIGNATURE) {
            return Err(HeaderError::Signature);
        }
        let incompatible = (number(bytes, 8) >> 32) as u32;
        if incompatible & !KNOWN != 0 {
            return Err(HeaderError::Unknown(incompatible));
        }
        let header_bytes = number(bytes, 88);
        let end = header_bytes.checked_add(number(bytes, 96)).ok_or(HeaderError::Inconsistent)?;
        let header = Self {
            incompatible,
            online: bytes[16] == 1,
            archived: bytes[16] == 2,
            file_id: id(bytes, 24),
            seqnum_id: id(bytes, 72),
            header_bytes,
            end,
            entries: number(bytes, 152),
            tail_seqnum: number(bytes, 160),
            entry_array: number(bytes, 176),
        };
        // No entry takes less than an object's header.
        let impossible = header.entries > end / 16 || (header.entries > 0 && header.entry_array == 0);
        if header_bytes < HEADER_BYTES as u64 || header_bytes > 1 << 20 || impossible {
            return Err(HeaderError::Inconsistent);
        }
        Ok(header)
    }

    /// Whether offsets within it are four bytes long.
    pub fn compact(&self) -> bool {
        self.incompatible & COMPACT != 0
    }

    /// The features that a reader must know.
    pub fn flags(&self) -> u32 {
        self.incompatible
    }

    /// Whether it may hold objects that only systemd's own reader decompresses here.
    pub fn has_xz(&self) -> bool {
        self.incompatible & COMPRESSED_XZ != 0
    }
}
