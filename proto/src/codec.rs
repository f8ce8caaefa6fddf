//! The stateful metrics codec. (Skeleton: the API that its users build against.)

use crate::metrics::{Block, Labels, MetricType};

/// Turns blocks into the bytes of one frame. Its state lives as long as a QUIC stream or a spool segment.
#[derive(Debug, Default)]
pub struct Encoder {}

impl Encoder {
    /// A fresh encoder, whose first frame describes everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the frame of these blocks to `out`. Frames must be decoded in the order of their encoding.
    pub fn encode(&mut self, blocks: &[Block], out: &mut Vec<u8>) {
        let _ = (blocks, out);
        unreachable!("the codec is being written on its own branch");
    }
}

/// Why a frame cannot be decoded. The decoder is of no further use: its stream must be reset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged metrics frame at byte {at}: {reason}")]
pub struct DecodeError {
    /// Where in the frame.
    pub at: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// Bounds of one decoder.
#[derive(Debug, Clone, Copy)]
pub struct DecoderLimits {
    /// The most live series.
    pub max_series: usize,
    /// The most samples in a frame.
    pub max_samples: usize,
}

/// What a decoder tells while it reads a frame. Numbers are the decoder's own and are reused after `forget_*`.
pub trait Visitor {
    /// Target labels are described.
    fn target(&mut self, id: u32, labels: &Labels);
    /// A series is described: its own labels, the target that it belongs to, its family.
    fn series(&mut self, id: u32, target: u32, labels: &Labels, family: FamilyView<'_>);
    /// A set is described: its series in order.
    fn set(&mut self, id: u32, target: u32, members: &[u32]);
    /// A block of values, one for each of the set's members.
    fn block(&mut self, at_ms: i64, set: u32, members: &[u32], values: &[f64], stamps_ms: Option<&[i64]>);
    /// A series number is free again.
    fn forget_series(&mut self, id: u32);
    /// A set number is free again.
    fn forget_set(&mut self, id: u32);
    /// A target number is free again.
    fn forget_target(&mut self, id: u32);
}

/// A family as the frame has it.
#[derive(Debug, Clone, Copy)]
pub struct FamilyView<'a> {
    /// The family's name.
    pub name: &'a str,
    /// The type.
    pub kind: MetricType,
    /// The help text.
    pub help: &'a str,
    /// The unit.
    pub unit: &'a str,
}

/// Reads frames back. Never panics, never allocates more than its limits allow, whatever the bytes.
#[derive(Debug)]
pub struct Decoder {}

impl Decoder {
    /// A fresh decoder, for the first frame of a stream or segment.
    pub fn new(limits: DecoderLimits) -> Self {
        let _ = limits;
        Self {}
    }

    /// Decodes one frame.
    pub fn decode(&mut self, frame: &[u8], visitor: &mut impl Visitor) -> Result<(), DecodeError> {
        let _ = (frame, visitor);
        unreachable!("the codec is being written on its own branch");
    }

    /// Decodes one frame into blocks that share their sets with the frames before.
    pub fn decode_blocks(&mut self, frame: &[u8]) -> Result<Vec<Block>, DecodeError> {
        let _ = frame;
        unreachable!("the codec is being written on its own branch");
    }
}
