//! What all series of a stream have in common: the adaptive probabilities, and the numbers outside the values.

use super::mix::{Mixer, Prob};
use super::model::PREDICTORS;
use super::range::Coder;

/// Usual classes in half bits: 0 to 64.
pub(super) const USUAL_STEPS: usize = 130;
/// The decisions on a class: 0 whether it is above the usual one, 1 to 7 how far above, 8 to 15 how far below.
pub(super) const STEPS: usize = 16;
/// Slots of the table in which twins are found; a power of two.
pub(super) const TWIN_SLOTS: usize = 512;

/// What all series of a stream have in common.
#[derive(Debug, Clone)]
pub(super) struct Contexts {
    pub(super) quiet_group: [Prob; 8],
    pub(super) quiet: [Prob; 2],
    pub(super) fresh: [Prob; 2],
    pub(super) change_history: Vec<Prob>,
    pub(super) change_around: Vec<Prob>,
    pub(super) change_mixers: [Mixer; 16],
    pub(super) escape: [Prob; 4],
    pub(super) escape_kind: [Prob; 4],
    pub(super) twin: [Prob; 16],
    pub(super) multiple: [Prob; 32],
    pub(super) class_usual: Vec<Prob>,
    pub(super) class_around: Vec<Prob>,
    pub(super) class_mixers: Vec<Mixer>,
    pub(super) sign: [Prob; PREDICTORS * 32],
    pub(super) leading: Vec<Prob>,
    pub(super) first_scale: [Prob; 32],
    pub(super) numbers: Vec<Prob>,
    pub(super) twins: Vec<(u32, u32)>,
    pub(super) tick: u32,
    /// The step of the series that changed last.
    pub(super) neighbour: i64,
}

impl Contexts {
    pub(super) fn new() -> Self {
        Self {
            quiet_group: [Prob::at(6000); 8],
            quiet: [Prob::at(1500); 2],
            fresh: [Prob::default(); 2],
            change_history: vec![Prob::default(); 128 * 4],
            change_around: vec![Prob::default(); 256],
            change_mixers: [Mixer::default(); 16],
            escape: [Prob::at(1000); 4],
            escape_kind: [Prob::default(); 4],
            twin: [Prob::default(); 16],
            multiple: [Prob::at(60000); 32],
            class_usual: vec![Prob::default(); USUAL_STEPS * STEPS],
            class_around: vec![Prob::default(); 8 * STEPS],
            class_mixers: vec![Mixer::default(); STEPS],
            sign: [Prob::default(); PREDICTORS * 32],
            leading: vec![Prob::default(); 64 * 4],
            first_scale: [Prob::default(); 32],
            numbers: vec![Prob::default(); NUMBER_KINDS * 64],
            twins: vec![(0, 0); TWIN_SLOTS],
            tick: 0,
            neighbour: 0,
        }
    }

    /// Heap bytes.
    pub(super) fn resident_bytes(&self) -> usize {
        size_of::<Self>()
            + size_of::<Prob>()
                * (self.change_history.len()
                    + self.change_around.len()
                    + self.class_usual.len()
                    + self.class_around.len()
                    + self.leading.len()
                    + self.numbers.len())
            + size_of::<Mixer>() * self.class_mixers.len()
            + 8 * self.twins.len()
    }
}

const NUMBER_KINDS: usize = 8;

/// What a small number outside the values is. Each kind has its own probabilities.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// Blocks in the frame.
    Blocks,
    /// A set that is not the expected one.
    Set,
    /// The change of the interval between two blocks of a set, in milliseconds.
    Time,
    /// A sample's own stamp less the one before it in the block.
    Stamp,
    /// A first value.
    First,
}

/// Codes a signed number of any size, small ones in few bits.
pub(super) fn code_number<C: Coder>(ctx: &mut Contexts, c: &mut C, kind: Number, n: i64) -> i64 {
    let probs = &mut ctx.numbers[kind as usize * 64..][..64];
    let zigzag = (n.wrapping_shl(1) ^ (n >> 63)) as u64;
    let class = 64 - zigzag.leading_zeros() as usize;
    let mut got = 0;
    while got < 64 && !probs[got.min(63)].code(c, class == got) {
        got += 1;
    }
    let zigzag = if got < 2 {
        got as u64
    } else {
        let bits = got as u32 - 1;
        1 << bits | c.raw(bits, zigzag & ((1 << bits) - 1))
    };
    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
}
