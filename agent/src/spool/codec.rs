//! What turns batches into the spool's opaque records and back.

use pegel_proto::batch::{BatchSeq, MetricsBatch};
use pegel_proto::codec::{Decoder, DecoderLimits, Encoder};

/// Writes batches. Its state begins afresh at each segment's head.
pub trait RecordEncoder: Send {
    /// Forgets everything: the next record is the first of a segment.
    fn reset(&mut self);
    /// Appends a batch's record to `out`.
    fn encode(&mut self, batch: &MetricsBatch, out: &mut Vec<u8>);
}

/// Reads batches back. Its state begins afresh at each segment's head.
pub trait RecordDecoder: Send {
    /// Forgets everything: the next record is the first of a segment.
    fn reset(&mut self);
    /// Decodes a record, or says why it can't be.
    fn decode(&mut self, seq: BatchSeq, bytes: &[u8]) -> Result<MetricsBatch, String>;
}

/// A spool's codec: one encoder, and a decoder for each cursor.
pub struct RecordCodec {
    /// The writer's.
    pub encoder: Box<dyn RecordEncoder>,
    /// Makes a cursor's.
    pub decoder: Box<dyn Fn() -> Box<dyn RecordDecoder> + Send>,
}

impl RecordCodec {
    /// The metrics codec of `proto`: the same frames as on the wire.
    pub fn metrics(limits: DecoderLimits) -> Self {
        Self {
            encoder: Box::new(MetricsEncoder(Encoder::new())),
            decoder: Box::new(move || Box::new(MetricsDecoder { decoder: Decoder::new(limits), limits })),
        }
    }
}

struct MetricsEncoder(Encoder);

impl RecordEncoder for MetricsEncoder {
    fn reset(&mut self) {
        self.0 = Encoder::new();
    }

    fn encode(&mut self, batch: &MetricsBatch, out: &mut Vec<u8>) {
        self.0.encode(&batch.blocks, out);
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

    fn decode(&mut self, seq: BatchSeq, bytes: &[u8]) -> Result<MetricsBatch, String> {
        let blocks = self.decoder.decode_blocks(bytes).map_err(|error| error.to_string())?;
        Ok(MetricsBatch { seq, blocks })
    }
}
