//! The body of an answer: read to its end, decompressed, counted, and kept if it is to be matched.

use super::exchange::Answer;
use crate::source::probe::outcome::{Failure, Phase, Reason};
use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use std::io::Write;
use tokio::time::{Instant, timeout_at};

/// The largest body that is matched, in bytes: it is in memory at once, and the agent has little.
pub const MAX_MATCHED_BYTES: u64 = 8 << 20;

/// What a decompressor's window may take; brotli's default.
const BROTLI_BUFFER_BYTES: usize = 4_096;

/// How a body must be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip (RFC 1952).
    Gzip,
    /// deflate, with zlib's frame (RFC 1950) as HTTP says, or without it as some servers send it.
    Deflate,
    /// brotli (RFC 7932).
    Brotli,
    /// Not at all.
    Identity,
}

/// What became of a body.
pub(super) struct Taken {
    /// How many bytes it has, after decompression, as far as it was read.
    pub(super) length: u64,
    /// The bytes, if they were to be kept.
    pub(super) kept: Vec<u8>,
    /// Why it was not read to its end.
    pub(super) failure: Option<Failure>,
}

/// Where decompressed bytes go.
struct Sink {
    length: u64,
    limit: u64,
    kept: Option<Vec<u8>>,
    over: bool,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = self.limit - self.length;
        let taken = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        self.length += taken as u64;
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(&bytes[..taken]);
        }
        if taken < bytes.len() {
            self.over = true;
            return Err(std::io::Error::other("the body is too large"));
        }
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The way of a body's bytes into the sink.
enum Inflow {
    Plain(Sink),
    Gzip(Box<MultiGzDecoder<Sink>>),
    /// Before the first two bytes say which of the two forms it is.
    Deflate(Vec<u8>, Sink),
    Zlib(Box<ZlibDecoder<Sink>>),
    Raw(Box<DeflateDecoder<Sink>>),
    Brotli(Box<DecompressorWriter<Sink>>),
}

impl Inflow {
    fn new(compression: Option<Compression>, sink: Sink) -> Self {
        match compression {
            None | Some(Compression::Identity) => Self::Plain(sink),
            Some(Compression::Gzip) => Self::Gzip(Box::new(MultiGzDecoder::new(sink))),
            Some(Compression::Deflate) => Self::Deflate(Vec::new(), sink),
            Some(Compression::Brotli) => {
                Self::Brotli(Box::new(DecompressorWriter::new(sink, BROTLI_BUFFER_BYTES)))
            }
        }
    }

    fn sink(&mut self) -> &mut Sink {
        match self {
            Self::Plain(sink) | Self::Deflate(_, sink) => sink,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zlib(decoder) => decoder.get_mut(),
            Self::Raw(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
        }
    }

    /// Takes a piece; for deflate, decides on the form with its first bytes.
    fn take(self, piece: &[u8]) -> (Self, std::io::Result<()>) {
        let mut inflow = match self {
            Self::Deflate(mut begin, sink) => {
                begin.extend_from_slice(piece);
                let [first, second, ..] = begin[..] else { return (Self::Deflate(begin, sink), Ok(())) };
                // RFC 1950, section 2.2: the method is 8, and the two bytes are a multiple of 31.
                let zlib = first & 0xf == 8 && (u16::from(first) << 8 | u16::from(second)).is_multiple_of(31);
                let inflow = if zlib {
                    Self::Zlib(Box::new(ZlibDecoder::new(sink)))
                } else {
                    Self::Raw(Box::new(DeflateDecoder::new(sink)))
                };
                return inflow.take(&begin);
            }
            other => other,
        };
        let written = match &mut inflow {
            Self::Plain(sink) => sink.write_all(piece),
            Self::Gzip(decoder) => decoder.write_all(piece),
            Self::Zlib(decoder) => decoder.write_all(piece),
            Self::Raw(decoder) => decoder.write_all(piece),
            Self::Brotli(decoder) => decoder.write_all(piece),
            Self::Deflate(..) => Ok(()),
        };
        (inflow, written)
    }

    /// The end of the body: whether it was complete.
    fn finish(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Zlib(decoder) => decoder.try_finish(),
            Self::Raw(decoder) => decoder.try_finish(),
            Self::Brotli(decoder) => decoder.close(),
            Self::Deflate(..) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// How a body is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// How it must be compressed.
    pub(super) compression: Option<Compression>,
    /// How many bytes are read at most; zero is no limit, but for a body that is kept.
    pub(super) limit: u64,
    /// Whether the bytes are kept.
    pub(super) keep: bool,
    /// When reading ends, wherever it is: what came until then is reported.
    pub(super) deadline: Instant,
}

/// Reads a body.
pub(super) async fn take(mut answer: Answer, reading: Reading) -> Taken {
    let Reading { compression, limit, keep, deadline } = reading;
    let most = match (limit, keep) {
        (0, false) => u64::MAX,
        (0, true) => MAX_MATCHED_BYTES,
        (limit, true) => limit.min(MAX_MATCHED_BYTES),
        (limit, false) => limit,
    };
    let sink = Sink { length: 0, limit: most, kept: keep.then(Vec::new), over: false };
    let mut inflow = Inflow::new(compression, sink);
    let mut failure = None;
    loop {
        let written = match timeout_at(deadline, answer.piece()).await {
            Ok(Some(Ok(piece))) => {
                let (next, written) = inflow.take(&piece);
                inflow = next;
                written
            }
            Ok(None) => break,
            Ok(Some(Err(broken))) => {
                failure = Some(broken);
                break;
            }
            Err(_) => {
                let words =
                    format!("the body did not end in time, {} bytes of it came", inflow.sink().length);
                failure = Some(Failure::new(Phase::Transfer, Reason::Timeout, words));
                break;
            }
        };
        if let Err(error) = written {
            failure = Some(not_taken(&mut inflow, &error, most));
            break;
        }
    }
    if failure.is_none()
        && let Err(error) = inflow.finish()
    {
        failure = Some(not_taken(&mut inflow, &error, most));
    }
    let sink = inflow.sink();
    Taken { length: sink.length, kept: sink.kept.take().unwrap_or_default(), failure }
}

fn not_taken(inflow: &mut Inflow, error: &std::io::Error, limit: u64) -> Failure {
    if inflow.sink().over {
        let words = format!("the body has more than {limit} bytes, which is what is read of one");
        return Failure::new(Phase::Transfer, Reason::TooLarge, words);
    }
    Failure::new(Phase::Transfer, Reason::Compression, format!("the body cannot be decompressed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    fn inflate(compression: Compression, bytes: &[u8], limit: u64) -> (Vec<u8>, std::io::Result<()>, bool) {
        let sink = Sink { length: 0, limit, kept: Some(Vec::new()), over: false };
        let mut inflow = Inflow::new(Some(compression), sink);
        let mut result = Ok(());
        // A byte at a time, as the network may have it.
        for byte in bytes {
            let (next, written) = inflow.take(&[*byte]);
            inflow = next;
            if written.is_err() {
                result = written;
                break;
            }
        }
        let result = result.and_then(|()| inflow.finish());
        let sink = inflow.sink();
        (sink.kept.take().unwrap(), result, sink.over)
    }

    fn packed(compression: Compression, text: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::default();
        let mut out = Vec::new();
        match compression {
            Compression::Gzip => GzEncoder::new(&mut out, level).write_all(text).unwrap(),
            Compression::Deflate => ZlibEncoder::new(&mut out, level).write_all(text).unwrap(),
            // `hello` in brotli, uncompressed: RFC 7932, section 9.
            Compression::Brotli => out = b"\x0b\x02\x80hello\x03".to_vec(),
            Compression::Identity => out = text.to_vec(),
        }
        out
    }

    #[test]
    fn bodies_of_every_compression_are_read() {
        for compression in
            [Compression::Gzip, Compression::Deflate, Compression::Brotli, Compression::Identity]
        {
            let bytes = packed(compression, b"hello");
            let (text, result, _) = inflate(compression, &bytes, 100);
            assert!(result.is_ok() && text == b"hello", "{compression:?}: {text:?} {result:?}");
        }
        let mut raw = Vec::new();
        DeflateEncoder::new(&mut raw, flate2::Compression::default()).write_all(b"hello").unwrap();
        assert_eq!(inflate(Compression::Deflate, &raw, 100).0, b"hello");
    }

    #[test]
    fn what_is_cut_or_not_compressed_at_all_is_an_error() {
        for compression in [Compression::Gzip, Compression::Deflate, Compression::Brotli] {
            let bytes = packed(compression, b"hello");
            for bad in [&bytes[..bytes.len() - 2], b"plain text, not compressed", b""] {
                assert!(inflate(compression, bad, 100).1.is_err(), "{compression:?} {bad:?}");
            }
        }
    }

    #[test]
    fn the_limit_holds_after_decompression() {
        let bomb = packed(Compression::Gzip, &vec![0; 1 << 20]);
        let (kept, result, over) = inflate(Compression::Gzip, &bomb, 1_000);
        assert!(result.is_err() && over && kept.len() == 1_000, "{}", kept.len());
        let exact = inflate(Compression::Identity, b"12345", 5);
        assert!(exact.1.is_ok() && !exact.2);
    }
}
