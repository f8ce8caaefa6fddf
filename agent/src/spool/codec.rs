//! What turns batches into the spool's opaque records and back.

use bytes::Bytes;
use pegel_proto::batch::{Batch, BatchSeq, Content, Logs, Signal};
use pegel_proto::codec::{Decoder, DecoderLimits, Encoder};
use pegel_proto::logs::LogBlock;

/// Writes batches. Its state begins afresh at each segment's head.
pub trait RecordEncoder: Send {
    /// Forgets everything: the next record is the first of a segment.
    fn reset(&mut self);
    /// Appends a batch's record to `out`.
    fn encode(&mut self, batch: &Batch, out: &mut Vec<u8>);
}

/// Reads batches back. Its state begins afresh at each segment's head.
pub trait RecordDecoder: Send {
    /// Forgets everything: the next record is the first of a segment.
    fn reset(&mut self);
    /// Decodes a record, or says why it can't be.
    fn decode(&mut self, seq: BatchSeq, bytes: &[u8]) -> Result<Batch, String>;
}

/// A spool's codec: one encoder, and a decoder for each cursor.
pub struct RecordCodec {
    /// The writer's.
    pub encoder: Box<dyn RecordEncoder>,
    /// What the batches hold.
    pub signal: Signal,
    /// Makes a cursor's.
    pub decoder: Box<dyn Fn() -> Box<dyn RecordDecoder> + Send>,
}

impl RecordCodec {
    /// Blocks of log entries as they are sent, each with its origin.
    pub fn logs() -> Self {
        Self {
            encoder: Box::new(LogsRecords),
            signal: Signal::Logs,
            decoder: Box::new(|| Box::new(LogsRecords)),
        }
    }

    /// The metrics codec of `proto`: the same frames as on the wire.
    pub fn metrics(limits: DecoderLimits) -> Self {
        Self {
            encoder: Box::new(MetricsEncoder(Encoder::new())),
            signal: Signal::Metrics,
            decoder: Box::new(move || Box::new(MetricsDecoder { decoder: Decoder::new(limits), limits })),
        }
    }
}

/// Logs: the origin's length in four bytes, of which the highest bit says that the block was built again after a
/// restart, the origin, the block. Nothing depends on what came before.
struct LogsRecords;

const ORIGIN_LENGTH_BYTES: usize = 4;
/// A block that may have been sent before under another number stays one on the disk.
const REBUILT: u32 = 1 << 31;

impl RecordEncoder for LogsRecords {
    fn reset(&mut self) {}

    fn encode(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        let Content::Logs(logs) = &batch.content else { return };
        let rebuilt = if logs.rebuilt { REBUILT } else { 0 };
        out.extend((logs.origin.len() as u32 | rebuilt).to_le_bytes());
        out.extend_from_slice(&logs.origin);
        out.extend_from_slice(&logs.block.bytes);
    }
}

impl RecordDecoder for LogsRecords {
    fn reset(&mut self) {}

    fn decode(&mut self, seq: BatchSeq, bytes: &[u8]) -> Result<Batch, String> {
        let short = || "a record of logs ends early".to_owned();
        let (length, rest) = bytes.split_first_chunk::<ORIGIN_LENGTH_BYTES>().ok_or_else(short)?;
        let length = u32::from_le_bytes(*length);
        let (origin, block) = rest.split_at_checked((length & !REBUILT) as usize).ok_or_else(short)?;
        let block = LogBlock::from_bytes(Bytes::copy_from_slice(block)).map_err(|e| e.to_string())?;
        let origin = Bytes::copy_from_slice(origin);
        Ok(Batch { seq, content: Content::Logs(Logs { block, origin, rebuilt: length & REBUILT != 0 }) })
    }
}

struct MetricsEncoder(Encoder);

impl RecordEncoder for MetricsEncoder {
    fn reset(&mut self) {
        self.0 = Encoder::new();
    }

    fn encode(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        self.0.encode(batch.blocks(), out);
    }
}

struct MetricsDecoder {
    decoder: Decoder,
    limits: DecoderLimits,
}

impl RecordDecoder for MetricsDecoder {
    fn reset(&mut self) {
        self.decoder = Decoder::new(self.limits);
    }

    fn decode(&mut self, seq: BatchSeq, bytes: &[u8]) -> Result<Batch, String> {
        let blocks = self.decoder.decode_blocks(bytes).map_err(|error| error.to_string())?;
        Ok(Batch::metrics(seq, blocks))
    }
}
