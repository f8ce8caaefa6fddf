//! Generations that were compressed before they were read: offsets are those of what was compressed.

use super::super::checkpoints::SourceKind;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The endings of names of compressed files. They are never read as they are.
const ENDINGS: [&str; 7] = [".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip", ".Z"];
/// zstd's windows beyond this are refused: a file of another program decides on our memory.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Whether a file's name says that it is compressed.
pub(super) fn is_packed(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    ENDINGS.iter().any(|ending| name.ends_with(ending.as_bytes()))
}

/// How a compressed file can be read, by its name; none if it can't.
pub(super) fn kind_of(path: &Path) -> Option<SourceKind> {
    match path.extension()?.to_str()? {
        "gz" => Some(SourceKind::Gzip),
        "zst" => Some(SourceKind::Zstd),
        _ => None,
    }
}

/// A file that is decompressed as it is read, forwards.
pub(super) struct Packed {
    decoder: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// Where the buffer begins.
    at: u64,
    ended: bool,
    /// What came before an error was given from here on.
    failed_at: Option<u64>,
}

impl Packed {
    pub(super) fn new(file: File, kind: SourceKind) -> io::Result<Self> {
        let decoder: Box<dyn Read + Send> = match kind {
            SourceKind::Gzip => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(file))),
            _ => {
                let mut decoder = zstd::stream::read::Decoder::new(file)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        };
        Ok(Self { decoder, buffer: Vec::new(), at: 0, ended: false, failed_at: None })
    }

    /// The bytes from an offset on, `want` of them or as many as there are before the end, and whether that is the
    /// end. Offsets only rise. What is broken is an error, after the whole lines before it were given once.
    pub(super) fn read(&mut self, offset: u64, want: usize) -> io::Result<(&[u8], bool)> {
        let mut piece = [0; 16 << 10];
        loop {
            let passed = offset.saturating_sub(self.at).min(self.buffer.len() as u64);
            self.buffer.drain(..passed as usize);
            self.at += passed;
            if self.ended || (self.at == offset && self.buffer.len() >= want) {
                break;
            }
            match self.decoder.read(&mut piece) {
                Ok(0) => self.ended = true,
                Ok(read) => self.buffer.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let lines = self.buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                    if self.at != offset || lines == 0 || self.failed_at == Some(offset) {
                        return Err(error);
                    }
                    self.failed_at = Some(offset);
                    return Ok((&self.buffer[..lines.min(want)], false));
                }
            }
        }
        if self.at != offset {
            // It ends before the offset.
            return Ok((&[], true));
        }
        let bytes = &self.buffer[..self.buffer.len().min(want)];
        Ok((bytes, self.ended && bytes.len() == self.buffer.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn both_formats_are_read_from_an_offset_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..100_000_u32).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        let (gz, zst) = (dir.path().join("a.gz"), dir.path().join("a.zst"));
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&gz).unwrap(), flate2::Compression::fast());
        encoder.write_all(&content).unwrap();
        encoder.finish().unwrap();
        std::fs::write(&zst, zstd::bulk::compress(&content, 1).unwrap()).unwrap();
        for path in [&gz, &zst] {
            let mut packed = Packed::new(File::open(path).unwrap(), kind_of(path).unwrap()).unwrap();
            assert_eq!(packed.read(0, 6).unwrap(), (&content[..6], false));
            let mut read = Vec::new();
            let mut offset = 1_000;
            loop {
                let (bytes, end) = packed.read(offset, 30_000).unwrap();
                read.extend_from_slice(bytes);
                offset += bytes.len() as u64;
                if end {
                    break;
                }
            }
            assert!(read == content[1_000..], "{}", path.display());
            assert_eq!(packed.read(offset + 5, 10).unwrap(), (&[][..], true));
        }
    }

    #[test]
    fn a_file_that_is_still_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gz");
        std::fs::write(&path, [0x1f, 0x8b, 8, 0]).unwrap();
        let packed = Packed::new(File::open(&path).unwrap(), SourceKind::Gzip);
        assert!(packed.and_then(|mut packed| packed.read(0, 10).map(|_| ())).is_err());
    }
}
