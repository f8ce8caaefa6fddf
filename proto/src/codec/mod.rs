//! The stateful metrics codec: turns blocks into frames and back, bit by bit the same.
//!
//! Labels and metadata are described once; after that a block is the number of its set, its instant and what
//! changed. Both ends keep, for each series, the last value and, if it changes, a model of how: values are coded
//! against that by an adaptive binary range coder. `docs/wire/codec.md` has the bytes.
//!
//! A frame ends with a check over its bytes, the frames before it and the values that both ends hold, so a damaged,
//! missing, repeated or swapped frame is an error before anything of it is believed.
//!
//! `range`, `mix` and `scale` are the tools, `model` foresees a series, `values` codes a block with the `contexts` that
//! its series share, `tables` keeps the numbers: all of that is one code for both ends. `describe` has the
//! descriptions' bytes, `encode` and `decode` are the two ends.

mod collect;
mod contexts;
mod decode;
mod describe;
mod encode;
mod mix;
mod model;
mod range;
mod scale;
mod tables;
#[cfg(test)]
mod tests;
mod values;

use crate::caps;
use crate::metrics::{Labels, MetricType, Series, SeriesSet};
use collect::Collector;
pub use decode::Decoder;
pub use encode::Encoder;

/// A frame's flag: chunks of descriptions follow.
const HAS_DESCRIPTIONS: u8 = 1;
/// A frame's flag: optional sections follow.
const HAS_SECTIONS: u8 = 2;
/// Descriptions that would unpack to more than so many times their size are sent unpacked.
const EXPANSION: usize = 128;
/// How many bits of the values' digest end a frame's values.
const VALUE_CHECK_BITS: u32 = 16;

fn value_check(digest: u64) -> u64 {
    digest >> (64 - VALUE_CHECK_BITS)
}

/// The check of a frame, given what the frames before left.
fn frame_check(chain: u32, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(chain);
    crc.update(bytes);
    crc.finalize()
}

/// Puts the check under bytes as an encoder would whose last frame left `chain`: for fuzzing, so that arbitrary bytes
/// get past it.
pub(crate) fn seal(chain: u32, bytes: &mut Vec<u8>) {
    let check = frame_check(chain, bytes);
    bytes.extend_from_slice(&check.to_le_bytes());
}

/// What a frame leaves for the check of the next: its own check and all values so far.
fn next_chain(check: u32, digest: u64) -> u32 {
    check ^ (digest >> 16) as u32
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

/// What a set has too much of to be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverCap {
    /// The set has more series than a batch may have samples.
    #[error("{0} series at once, at most {most} can be sent", most = caps::MAX_BATCH_SAMPLES)]
    Series(usize),
    /// A series, or the target, has too many labels.
    #[error("{0} labels on `{1}`, at most {most} can be sent", most = caps::MAX_LABELS)]
    Labels(usize, String),
    /// A label's name or value, a family's name or its unit is too long.
    #[error("{0} bytes of {1} on `{2}`, too long to be sent")]
    Text(usize, &'static str, String),
}

/// Whether a decoder would take a set. Sources check each new set once, and leave out what fails.
pub fn check_caps(set: &SeriesSet) -> Result<(), OverCap> {
    if set.len() > caps::MAX_BATCH_SAMPLES {
        return Err(OverCap::Series(set.len()));
    }
    check_labels(set.target(), "the target")?;
    set.series().iter().try_for_each(|series| check_series(series))
}

/// Whether a decoder would take a series.
pub fn check_series(series: &Series) -> Result<(), OverCap> {
    check_labels(series.labels(), series.name())?;
    let family = series.family();
    for (text, what) in [(&family.name, "family name"), (&family.unit, "unit")] {
        check_text(text, caps::MAX_LABEL_VALUE_BYTES, what, series.name())?;
    }
    Ok(())
}

fn check_labels(labels: &Labels, of: &str) -> Result<(), OverCap> {
    if labels.len() > caps::MAX_LABELS {
        return Err(OverCap::Labels(labels.len(), printable(of)));
    }
    labels.iter().try_for_each(|(name, value)| {
        check_text(name, caps::MAX_LABEL_NAME_BYTES, "label name", of)?;
        check_text(value, caps::MAX_LABEL_VALUE_BYTES, "label value", of)
    })
}

fn check_text(text: &str, most: usize, what: &'static str, of: &str) -> Result<(), OverCap> {
    if text.len() > most { Err(OverCap::Text(text.len(), what, printable(of))) } else { Ok(()) }
}

/// A name short enough for a message.
fn printable(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}
