//! Length-prefixed frames on an ordered byte stream.
//!
//! A frame is an unsigned LEB128 length and that many bytes of protobuf. The reader holds only what has arrived:
//! a length is checked against the stream's cap before any of the frame is kept, and memory grows with the bytes
//! received, never with the length announced.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

/// A length of at most this many bytes: five LEB128 digits hold 35 bits, more than any cap.
const MAX_PREFIX_BYTES: usize = 5;

/// Above this capacity an emptied buffer is given back rather than kept for the next frame: steady-state frames
/// have some hundred bytes, and only a stream's first frames or a drain are larger.
const KEEP_BUFFER_BYTES: usize = 16 << 10;

/// Why a byte stream is no sequence of frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// The length does not end within five bytes.
    #[error("a frame's length does not end within {MAX_PREFIX_BYTES} bytes")]
    EndlessLength,
    /// The length is above the cap of the stream.
    #[error("a frame of {length} bytes is larger than the {cap} that are allowed")]
    TooLarge {
        /// The length announced, in bytes.
        length: u64,
        /// The cap, in bytes.
        cap: usize,
    },
    /// The bytes of a frame are not the message expected.
    #[error("a frame is no valid {message}: {reason}")]
    BadMessage {
        /// What was expected.
        message: &'static str,
        /// What protobuf says.
        reason: String,
    },
}

/// Appends a message as a frame.
pub fn write_frame(message: &impl Message, out: &mut Vec<u8>) {
    message.encode_length_delimited(out).expect("a Vec grows as needed");
}

/// Cuts frames out of the bytes that arrive.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    cap: usize,
}

impl FrameReader {
    /// A reader that refuses frames above `cap` bytes.
    pub fn new(cap: usize) -> Self {
        Self { buffer: BytesMut::new(), cap }
    }

    /// Takes bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; none until more bytes arrive. After an error the stream is of no further use.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FramingError> {
        let Some((length, prefix)) = self.length()? else { return Ok(None) };
        if self.buffer.len() - prefix < length {
            return Ok(None);
        }
        self.buffer.advance(prefix);
        let frame = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() && length > KEEP_BUFFER_BYTES {
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }

    /// The next whole frame as a message; `message` names it in errors.
    pub fn next_message<M: Message + Default>(
        &mut self,
        message: &'static str,
    ) -> Result<Option<M>, FramingError> {
        let Some(frame) = self.next_frame()? else { return Ok(None) };
        M::decode(frame).map(Some).map_err(|e| FramingError::BadMessage { message, reason: e.to_string() })
    }

    /// Bytes that arrived and are not a whole frame yet.
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn length(&self) -> Result<Option<(usize, usize)>, FramingError> {
        let mut length = 0_u64;
        for (i, byte) in self.buffer.iter().take(MAX_PREFIX_BYTES).enumerate() {
            length |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                return if length > self.cap as u64 {
                    Err(FramingError::TooLarge { length, cap: self.cap })
                } else {
                    Ok(Some((length as usize, i + 1)))
                };
            }
        }
        if self.buffer.len() >= MAX_PREFIX_BYTES { Err(FramingError::EndlessLength) } else { Ok(None) }
    }
}

/// Bodies of fuzz targets.
#[doc(hidden)]
pub mod fuzz {
    use super::FrameReader;
    use crate::wire;

    const CAP: usize = 1 << 16;

    /// Reads arbitrary bytes as each kind of stream, in pieces whose sizes the first byte chooses. Nothing panics,
    /// and the reader never holds more than one capped frame beside the piece that arrived last.
    pub fn frames(input: &[u8]) {
        let Some((&step, stream)) = input.split_first() else { return };
        let step = usize::from(step).max(1);
        read::<wire::AgentControl>(stream, step);
        read::<wire::AggregatorControl>(stream, step);
        read::<wire::StreamOpen>(stream, step);
        read::<wire::BatchFrame>(stream, step);
        read::<wire::AckFrame>(stream, step);
        let mut reader = wire::AckReader::new();
        let mut frames = FrameReader::new(CAP);
        frames.push(stream);
        while let Ok(Some(frame)) = frames.next_message::<wire::AckFrame>("acknowledgement") {
            if reader.read(frame).is_err() {
                return;
            }
        }
    }

    fn read<M: prost::Message + Default>(stream: &[u8], step: usize) {
        let mut reader = FrameReader::new(CAP);
        for piece in stream.chunks(step) {
            reader.push(piece);
            loop {
                match reader.next_message::<M>("message") {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            assert!(reader.pending_bytes() <= CAP + 5 + step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AgentControl, StreamOpen, WireSignal};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn frames_survive_any_cutting_into_pieces() {
        let open = StreamOpen { signal: WireSignal::Metrics.into(), output: "main".repeat(40), fresh: false };
        let mut bytes = Vec::new();
        for _ in 0..5 {
            write_frame(&open, &mut bytes);
        }
        for step in 1..bytes.len() {
            let mut reader = FrameReader::new(1 << 10);
            let mut read = 0;
            for piece in bytes.chunks(step) {
                reader.push(piece);
                while let Some(got) = reader.next_message::<StreamOpen>("open").unwrap() {
                    assert_eq!(got, open);
                    read += 1;
                }
            }
            assert_eq!((read, reader.pending_bytes()), (5, 0), "pieces of {step}");
        }
    }

    #[test]
    fn a_length_above_the_cap_is_refused_before_the_frame_arrives() {
        let mut reader = FrameReader::new(100);
        reader.push(&[101]);
        assert_eq!(reader.next_frame(), Err(FramingError::TooLarge { length: 101, cap: 100 }));
    }

    #[test]
    fn an_endless_length_is_refused() {
        let mut reader = FrameReader::new(100);
        reader.push(&[0x80; 4]);
        assert_eq!(reader.next_frame(), Ok(None));
        reader.push(&[0x80]);
        assert_eq!(reader.next_frame(), Err(FramingError::EndlessLength));
    }

    #[test]
    fn random_and_damaged_streams_never_panic() {
        let seed = std::env::var("PEGEL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
        println!("PEGEL_SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..2_000 {
            let mut bytes = vec![rng.random::<u8>()];
            for _ in 0..rng.random_range(0..4) {
                let open = StreamOpen { signal: 1, output: "x".repeat(rng.random_range(0..50)), fresh: true };
                write_frame(&open, &mut bytes);
                write_frame(&AgentControl::default(), &mut bytes);
            }
            for _ in 0..rng.random_range(0..6) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            let end = rng.random_range(0..=bytes.len());
            fuzz::frames(&bytes[..end]);
        }
    }
}
