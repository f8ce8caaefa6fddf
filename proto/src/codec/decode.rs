//! The decoder.

use super::describe::{OP_FORGET_SET, OP_SERIES, OP_SET, OP_TARGET, Reader, SeriesReader, read_members};
use super::range::{Coder, RangeDecoder};
use super::tables::{Heading, Tables};
use super::{
    Collector, DecodeError, DecoderLimits, EXPANSION, HAS_DESCRIPTIONS, HAS_SECTIONS, VALUE_CHECK_BITS,
    Visitor, frame_check, next_chain, value_check,
};
use crate::caps;
use crate::metrics::Block;

/// The most sets that may be live.
const MAX_SETS: usize = 65_536;
/// The most targets that may be live.
const MAX_TARGETS: usize = 65_536;
/// The most member entries over all live sets, for each series of the limit.
const MEMBERS_PER_SERIES: usize = 8;
/// The largest chunk of descriptions, unpacked.
const MAX_CHUNK_BYTES: usize = caps::MAX_FRAME_BYTES;
/// A scratch buffer beyond this many entries is given back when frames become small again.
const SCRATCH_KEPT: usize = 4096;

/// Reads frames back. Never panics, never allocates more than its limits allow, whatever the bytes.
#[derive(Debug, Clone)]
pub struct Decoder {
    limits: DecoderLimits,
    tables: Tables,
    member_entries: usize,
    chain: u32,
    poisoned: bool,
    blocks: Vec<Heading>,
    values: Vec<f64>,
    stamps: Vec<i64>,
    collector: Option<Box<Collector>>,
}

impl Decoder {
    /// A fresh decoder, for the first frame of a stream or segment.
    pub fn new(limits: DecoderLimits) -> Self {
        Self {
            limits,
            tables: Tables::new(),
            member_entries: 0,
            chain: 0,
            poisoned: false,
            blocks: Vec::new(),
            values: Vec::new(),
            stamps: Vec::new(),
            collector: None,
        }
    }

    /// Decodes one frame. Descriptions are told as they are read, after the frame's check has proven its bytes;
    /// values only after all of them were decoded and checked. After an error every further frame is refused.
    pub fn decode(&mut self, frame: &[u8], visitor: &mut impl Visitor) -> Result<(), DecodeError> {
        if self.poisoned {
            return Err(DecodeError { at: 0, reason: "a frame before it was damaged" });
        }
        self.poisoned = true;
        self.decode_checked(frame, visitor)?;
        self.poisoned = false;
        Ok(())
    }

    /// Decodes one frame into blocks that share their sets with the frames before. A decoder is used with this or
    /// with [`Self::decode`], not with both.
    pub fn decode_blocks(&mut self, frame: &[u8]) -> Result<Vec<Block>, DecodeError> {
        let mut collector = self.collector.take().unwrap_or_default();
        let result = self.decode(frame, &mut *collector);
        let blocks = std::mem::take(&mut collector.blocks);
        self.collector = Some(collector);
        result.map(|()| blocks)
    }

    /// What the frames so far leave for the check of the next.
    pub(crate) fn chain(&self) -> u32 {
        self.chain
    }

    /// About how much memory the decoder holds, in bytes, without what its visitor keeps.
    pub fn resident_bytes(&self) -> usize {
        size_of::<Self>()
            + self.tables.resident_bytes()
            + self.blocks.capacity() * size_of::<Heading>()
            + 8 * (self.values.capacity() + self.stamps.capacity())
    }

    fn decode_checked(&mut self, frame: &[u8], visitor: &mut impl Visitor) -> Result<(), DecodeError> {
        if frame.len() > caps::MAX_FRAME_BYTES {
            return Err(DecodeError { at: 0, reason: "it is larger than its cap" });
        }
        let Some((bytes, check)) = frame.split_last_chunk::<4>() else {
            return Err(DecodeError { at: 0, reason: "it ends early" });
        };
        let check = u32::from_le_bytes(*check);
        if frame_check(self.chain, bytes) != check {
            return Err(DecodeError { at: bytes.len(), reason: "its check does not hold" });
        }
        let mut from = Reader::new(bytes);
        let flags = from.byte()?;
        if flags & !(HAS_DESCRIPTIONS | HAS_SECTIONS) != 0 {
            return Err(from.error("flags that were not agreed on"));
        }
        if flags & HAS_DESCRIPTIONS != 0 {
            self.read_chunks(&mut from, visitor)?;
        }
        if flags & HAS_SECTIONS != 0 {
            skip_sections(&mut from)?;
        }
        let at = bytes.len() - from.rest().len();
        let error = |reason| DecodeError { at, reason };
        self.read_blocks(from.rest(), error)?;
        self.chain = next_chain(check, self.tables.values.digest);
        self.tell_blocks(visitor);
        Ok(())
    }

    fn read_chunks(&mut self, from: &mut Reader<'_>, visitor: &mut impl Visitor) -> Result<(), DecodeError> {
        loop {
            let head = from.count(2 * MAX_CHUNK_BYTES + 1, "a description is larger than its cap")?;
            let len = head >> 1;
            if head & 1 == 0 {
                if len == 0 {
                    return Ok(());
                }
                self.read_ops(&mut Reader::new(from.slice(len)?), visitor)?;
                continue;
            }
            let packed_len = from.count(caps::MAX_FRAME_BYTES, "a description is larger than its cap")?;
            let packed = from.slice(packed_len)?;
            if len / EXPANSION >= packed.len() {
                return Err(from.error("a description expands too much"));
            }
            let ops = zstd::bulk::decompress(packed, len)
                .map_err(|_| from.error("a description does not unpack"))?;
            if ops.len() != len {
                return Err(from.error("a description does not have its length"));
            }
            self.read_ops(&mut Reader::new(&ops), visitor)?;
        }
    }

    fn read_ops(&mut self, from: &mut Reader<'_>, visitor: &mut impl Visitor) -> Result<(), DecodeError> {
        while !from.is_empty() {
            match from.byte()? {
                OP_TARGET => {
                    if self.tables.live_targets() >= MAX_TARGETS {
                        return Err(from.error("too many targets"));
                    }
                    let labels = from.labels()?;
                    visitor.target(self.tables.add_target(), &labels);
                }
                OP_SERIES => self.read_series(from, visitor)?,
                OP_SET => self.read_set(from, visitor)?,
                OP_FORGET_SET => {
                    let id = from.count(MAX_SETS, "a set that was not described")? as u32;
                    let entries = self.tables.set(id).map_or(0, |s| s.members.len());
                    let freed =
                        self.tables.drop_set(id).ok_or_else(|| from.error("a set that was not described"))?;
                    self.member_entries -= entries;
                    visitor.forget_set(id);
                    for series in freed.series {
                        visitor.forget_series(series);
                    }
                    if let Some(target) = freed.target {
                        visitor.forget_target(target);
                    }
                }
                _ => return Err(from.error("an unknown description")),
            }
        }
        Ok(())
    }

    fn read_series(&mut self, from: &mut Reader<'_>, visitor: &mut impl Visitor) -> Result<(), DecodeError> {
        let target = from.count(MAX_TARGETS, "a target that was not described")? as u32;
        if !self.tables.is_target(target) {
            return Err(from.error("a target that was not described"));
        }
        let room = self.limits.max_series.saturating_sub(self.tables.live_series());
        let count = from.count(room, "more series than allowed")?;
        if count > from.rest().len() {
            return Err(from.error("it ends early"));
        }
        self.tables.reserve_series(count);
        let mut entries = SeriesReader::default();
        for _ in 0..count {
            let (labels, family) = entries.read(from)?;
            visitor.series(self.tables.add_series(target), target, &labels, family);
        }
        Ok(())
    }

    fn read_set(&mut self, from: &mut Reader<'_>, visitor: &mut impl Visitor) -> Result<(), DecodeError> {
        let target = from.count(MAX_TARGETS, "a target that was not described")? as u32;
        if !self.tables.is_target(target) || self.tables.live_sets() >= MAX_SETS {
            return Err(from.error("a set of no target, or too many sets"));
        }
        let base = match from.count(MAX_SETS, "a set that was not described")? {
            0 => &[][..],
            id => match self.tables.set(id as u32 - 1) {
                Some(set) if set.target == target => &set.members,
                _ => return Err(from.error("a set that was not described")),
            },
        };
        let most =
            self.limits.max_series.saturating_mul(MEMBERS_PER_SERIES).saturating_sub(self.member_entries);
        let most = most.min(self.limits.max_samples);
        let members = read_members(from, base, most, |id| self.tables.owner(id) == Some(target))?;
        self.member_entries += members.len();
        let id = self.tables.add_set(target, members);
        let members = self.tables.set(id).map_or(&[][..], |s| &s.members);
        visitor.set(id, target, members);
        Ok(())
    }

    fn read_blocks(
        &mut self,
        body: &[u8],
        error: impl Fn(&'static str) -> DecodeError,
    ) -> Result<(), DecodeError> {
        let mut coder = RangeDecoder::new(body);
        self.blocks.clear();
        self.values.clear();
        self.stamps.clear();
        let count = self.tables.code_count(&mut coder, 0);
        if count as usize > caps::MAX_BATCH_BLOCKS {
            return Err(error("more blocks than allowed"));
        }
        for _ in 0..count {
            let none = Heading { set: 0, at_ms: 0, stamped: false };
            let heading = self
                .tables
                .code_heading(&mut coder, none)
                .ok_or_else(|| error("a block of a set that was not described"))?;
            let len = self.tables.set(heading.set).map_or(0, |s| s.members.len());
            let start = self.values.len();
            if len > self.limits.max_samples.saturating_sub(start) {
                return Err(error("more samples than allowed"));
            }
            if heading.stamped {
                let first = self.stamps.len();
                self.stamps.resize(first + len, 0);
                self.tables.code_stamps(&mut coder, heading.at_ms, &mut self.stamps[first..]);
            }
            self.values.reserve_exact(len);
            self.values.resize(start + len, 0.0);
            self.tables.code_values(&mut coder, heading.set, &mut self.values[start..]);
            if coder.overran() {
                return Err(error("it ends early"));
            }
            self.blocks.push(heading);
        }
        if coder.raw(VALUE_CHECK_BITS, 0) != value_check(self.tables.values.digest) || coder.overran() {
            return Err(error("its values do not have their check"));
        }
        Ok(())
    }

    fn tell_blocks(&mut self, visitor: &mut impl Visitor) {
        let (mut values, mut stamps) = (&self.values[..], &self.stamps[..]);
        for heading in &self.blocks {
            let Some(set) = self.tables.set(heading.set) else { continue };
            let (some, rest) = values.split_at(set.members.len());
            values = rest;
            let own = heading.stamped.then(|| {
                let (some, rest) = stamps.split_at(set.members.len());
                stamps = rest;
                some
            });
            visitor.block(heading.at_ms, heading.set, &set.members, some, own);
        }
        if self.values.capacity() > SCRATCH_KEPT.max(4 * self.values.len()) {
            self.values.shrink_to_fit();
        }
        if self.stamps.capacity() > SCRATCH_KEPT.max(4 * self.stamps.len()) {
            self.stamps.shrink_to_fit();
        }
    }
}

/// Optional sections: an even type may be skipped by who does not know it, an odd one may not.
fn skip_sections(from: &mut Reader<'_>) -> Result<(), DecodeError> {
    loop {
        let kind = from.number()?;
        if kind == 0 {
            return Ok(());
        }
        if kind & 1 == 1 {
            return Err(from.error("a section that was not agreed on"));
        }
        let len = from.count(caps::MAX_FRAME_BYTES, "a section is larger than its cap")?;
        from.slice(len)?;
    }
}
