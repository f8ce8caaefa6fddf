//! The encoder: recognises what was described before, describes what was not, and codes values.

use super::describe::{
    OP_FORGET_SET, OP_SERIES, OP_SET, OP_TARGET, put_labels, put_members, put_number, put_series,
};
use super::range::{Coder, RangeEncoder};
use super::tables::{Heading, Tables};
use super::{EXPANSION, HAS_DESCRIPTIONS, VALUE_CHECK_BITS, next_chain, value_check};
use crate::metrics::{Block, Labels, Series, SeriesSet};
use std::collections::HashMap;
use std::sync::Arc;

/// The most sets of one target that are kept: a target whose shape swings between a few pays once for each.
const SETS_PER_TARGET: usize = 4;
/// A set that had no block for so long is forgotten: longer than the slowest usual scrape interval.
const IDLE_MS: i64 = 15 * 60 * 1000;
/// Idle sets are looked for every so many frames.
const SWEEP_EVERY: u32 = 64;
/// Descriptions are cut into chunks of about this size, so that the decoder unpacks little at a time.
const CHUNK_BYTES: usize = 128 << 10;
/// Shorter descriptions are not worth compressing.
const COMPRESS_FROM_BYTES: usize = 64;
/// zstd's level for descriptions: a set-up of 600 series takes about 2 ms once a connection.
const ZSTD_LEVEL: i32 = 12;

#[derive(Debug)]
struct KnownSet {
    set: Arc<SeriesSet>,
    used: u32,
}

/// Turns blocks into the bytes of one frame. Its state lives as long as a QUIC stream or a spool segment.
#[derive(Debug)]
pub struct Encoder {
    tables: Tables,
    targets: HashMap<Arc<Labels>, u32>,
    target_labels: Vec<Option<Arc<Labels>>>,
    series: HashMap<SeriesKey, u32>,
    series_keys: Vec<Option<(SeriesKey, Arc<Series>)>>,
    sets: HashMap<u64, u32>,
    known: Vec<Option<KnownSet>>,
    frame: u32,
    newest_ms: i64,
    chain: u32,
    coder: RangeEncoder,
    values: Vec<f64>,
    stamps: Vec<i64>,
    chosen: Vec<u32>,
    ops: Vec<u8>,
    chunks: Vec<u8>,
    place: Vec<u32>,
    marks: Vec<u32>,
    mark: u32,
}

/// Target, fingerprint, and how many others with both there are before it.
type SeriesKey = (u32, u64, u32);

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// A fresh encoder, whose first frame describes everything.
    pub fn new() -> Self {
        Self {
            tables: Tables::new(),
            targets: HashMap::new(),
            target_labels: Vec::new(),
            series: HashMap::new(),
            series_keys: Vec::new(),
            sets: HashMap::new(),
            known: Vec::new(),
            frame: 0,
            newest_ms: i64::MIN,
            chain: 0,
            coder: RangeEncoder::default(),
            values: Vec::new(),
            stamps: Vec::new(),
            chosen: Vec::new(),
            ops: Vec::new(),
            chunks: Vec::new(),
            place: Vec::new(),
            marks: Vec::new(),
            mark: 0,
        }
    }

    /// Appends the frame of these blocks to `out`. Frames must be decoded in the order of their encoding.
    ///
    /// The sets are within the caps ([`super::check_caps`]), and so is the batch; otherwise the decoder will refuse
    /// the frame. A help text beyond its cap is cut. In steady state nothing is allocated.
    pub fn encode(&mut self, blocks: &[Block], out: &mut Vec<u8>) {
        let start = out.len();
        self.frame = self.frame.wrapping_add(1);
        self.describe(blocks);
        if self.chunks.is_empty() {
            out.push(0);
        } else {
            out.push(HAS_DESCRIPTIONS);
            self.chunks.push(0);
            out.append(&mut self.chunks);
        }
        self.coder.start();
        let mut coder = std::mem::take(&mut self.coder);
        self.tables.code_count(&mut coder, blocks.len() as u32);
        for (block, &set) in blocks.iter().zip(&self.chosen) {
            let heading = Heading { set, at_ms: block.at_ms, stamped: block.stamps_ms.is_some() };
            let known = self.tables.code_heading(&mut coder, heading);
            debug_assert!(known.is_some(), "the set was described");
            if let Some(stamps) = &block.stamps_ms {
                self.stamps.clear();
                self.stamps.extend_from_slice(stamps);
                self.tables.code_stamps(&mut coder, block.at_ms, &mut self.stamps);
            }
            self.values.clear();
            self.values.extend_from_slice(&block.values);
            self.tables.code_values(&mut coder, set, &mut self.values);
        }
        coder.raw(VALUE_CHECK_BITS, value_check(self.tables.values.digest));
        coder.finish(out);
        self.coder = coder;
        let check = super::frame_check(self.chain, &out[start..]);
        self.chain = next_chain(check, self.tables.values.digest);
        out.extend_from_slice(&check.to_le_bytes());
    }

    /// Chooses the number of each block's set, and describes what the decoder does not know yet.
    fn describe(&mut self, blocks: &[Block]) {
        self.chosen.clear();
        let mut expected = self.tables.expected_set();
        for block in blocks {
            self.newest_ms = self.newest_ms.max(block.at_ms);
            let hit = self.known.get(expected as usize).and_then(Option::as_ref);
            let id = if hit.is_some_and(|k| Arc::ptr_eq(&k.set, &block.set)) {
                expected
            } else {
                self.find_or_add(&block.set)
            };
            if let Some(Some(known)) = self.known.get_mut(id as usize) {
                known.used = self.frame;
            }
            self.chosen.push(id);
            expected = self.tables.set_after(id);
        }
        if self.frame.is_multiple_of(SWEEP_EVERY) {
            self.forget_idle();
        }
        self.close_chunk(0);
    }

    fn find_or_add(&mut self, set: &Arc<SeriesSet>) -> u32 {
        if let Some(&id) = self.sets.get(&set.fingerprint())
            && let Some(Some(known)) = self.known.get_mut(id as usize)
            && (Arc::ptr_eq(&known.set, set) || known.set == *set)
        {
            known.set = set.clone();
            return id;
        }
        self.add(set)
    }

    fn add(&mut self, set: &Arc<SeriesSet>) -> u32 {
        let target = self.target(set.target());
        let members = self.members(target, set);
        // The set of that target that was used last is the likeliest to be like this one.
        let siblings = || self.known.iter().enumerate().filter_map(|(i, k)| Some((i as u32, k.as_ref()?)));
        let of_target: Vec<(u32, u32)> = siblings()
            .filter(|(i, _)| self.tables.set(*i).is_some_and(|s| s.target == target))
            .map(|(i, k)| (self.frame.wrapping_sub(k.used), i))
            .collect();
        let base = of_target.iter().min().map(|(_, i)| *i);
        self.ops.push(OP_SET);
        put_number(&mut self.ops, u64::from(target));
        put_number(&mut self.ops, base.map_or(0, |b| u64::from(b) + 1));
        let base_members = base.and_then(|b| self.tables.set(b)).map_or(&[][..], |s| &s.members);
        put_members(&mut self.ops, &members, base_members, &mut self.place);
        let id = self.tables.add_set(target, members);
        self.close_chunk(CHUNK_BYTES);
        if self.known.len() <= id as usize {
            self.known.resize_with(id as usize + 1, || None);
        }
        self.known[id as usize] = Some(KnownSet { set: set.clone(), used: self.frame });
        self.sets.insert(set.fingerprint(), id);
        if of_target.len() >= SETS_PER_TARGET
            && let Some(&(idle, oldest)) = of_target.iter().max()
            && idle > 0
        {
            self.forget(oldest);
        }
        id
    }

    fn target(&mut self, labels: &Arc<Labels>) -> u32 {
        if let Some(&id) = self.targets.get(labels) {
            return id;
        }
        let id = self.tables.add_target();
        self.ops.push(OP_TARGET);
        put_labels(&mut self.ops, labels);
        self.targets.insert(labels.clone(), id);
        if self.target_labels.len() <= id as usize {
            self.target_labels.resize(id as usize + 1, None);
        }
        self.target_labels[id as usize] = Some(labels.clone());
        id
    }

    /// The numbers of a set's series; describes those that are new.
    fn members(&mut self, target: u32, set: &SeriesSet) -> Box<[u32]> {
        self.mark = self.mark.wrapping_add(1);
        let mut fresh: Vec<Arc<Series>> = Vec::new();
        let mut members = Vec::with_capacity(set.len());
        for series in set.series() {
            let mut nth = 0;
            let id = loop {
                let key = (target, series.fingerprint(), nth);
                if let Some(&id) = self.series.get(&key) {
                    // A series that occurs twice in a set gets two numbers; so does one whose family changed.
                    let free = self.marks[id as usize] != self.mark;
                    let same =
                        |known: &Series| std::ptr::eq(known, &raw const **series) || *known == **series;
                    if free && self.series_keys[id as usize].as_ref().is_some_and(|(_, s)| same(s)) {
                        break id;
                    }
                    nth += 1;
                    continue;
                }
                let id = self.tables.add_series(target);
                self.series.insert(key, id);
                if self.series_keys.len() <= id as usize {
                    self.series_keys.resize(id as usize + 1, None);
                    self.marks.resize(id as usize + 1, 0);
                }
                self.series_keys[id as usize] = Some((key, series.clone()));
                fresh.push(series.clone());
                break id;
            };
            self.marks[id as usize] = self.mark;
            members.push(id);
        }
        let mut rest = &fresh[..];
        while !rest.is_empty() {
            let (some, after) = rest.split_at(one_op(rest));
            rest = after;
            self.ops.push(OP_SERIES);
            put_number(&mut self.ops, u64::from(target));
            put_number(&mut self.ops, some.len() as u64);
            let mut before = None;
            for series in some {
                put_series(&mut self.ops, series, before);
                before = Some(&**series);
            }
            self.close_chunk(CHUNK_BYTES);
        }
        members.into_boxed_slice()
    }

    fn forget_idle(&mut self) {
        let idle: Vec<u32> = self
            .known
            .iter()
            .enumerate()
            .filter(|(_, known)| known.as_ref().is_some_and(|k| self.frame.wrapping_sub(k.used) > 1))
            .map(|(id, _)| id as u32)
            .filter(|id| {
                let at_ms = self.tables.set(*id).map_or(i64::MAX, |s| s.clock.at_ms);
                self.newest_ms.saturating_sub(at_ms) > IDLE_MS
            })
            .collect();
        for id in idle {
            self.forget(id);
        }
    }

    fn forget(&mut self, set: u32) {
        let Some(freed) = self.tables.drop_set(set) else { return };
        self.ops.push(OP_FORGET_SET);
        put_number(&mut self.ops, u64::from(set));
        if let Some(known) = self.known[set as usize].take()
            && self.sets.get(&known.set.fingerprint()) == Some(&set)
        {
            self.sets.remove(&known.set.fingerprint());
        }
        for series in freed.series {
            if let Some((key, _)) = self.series_keys[series as usize].take() {
                self.series.remove(&key);
            }
        }
        if let Some(target) = freed.target
            && let Some(labels) = self.target_labels[target as usize].take()
        {
            self.targets.remove(&labels);
        }
    }

    /// Moves the ops written so far to the frame's chunks, if they are more than so many bytes.
    fn close_chunk(&mut self, beyond: usize) {
        if self.ops.len() <= beyond {
            return;
        }
        let packed = (self.ops.len() >= COMPRESS_FROM_BYTES)
            .then(|| zstd::bulk::compress(&self.ops, ZSTD_LEVEL).ok())
            .flatten()
            .filter(|p| p.len() < self.ops.len() && self.ops.len() / EXPANSION < p.len());
        put_number(&mut self.chunks, (self.ops.len() as u64) << 1 | u64::from(packed.is_some()));
        match packed {
            Some(packed) => {
                put_number(&mut self.chunks, packed.len() as u64);
                self.chunks.extend_from_slice(&packed);
            }
            None => self.chunks.extend_from_slice(&self.ops),
        }
        self.ops.clear();
    }
}

/// How many of the series one op describes, so that chunks stay small: at least one.
fn one_op(series: &[Arc<Series>]) -> usize {
    let mut bytes = 0;
    for (count, one) in series.iter().enumerate() {
        let labels: usize = one.labels().iter().map(|(name, value)| name.len() + value.len()).sum();
        bytes += labels + one.family().name.len() + one.family().help.len() + one.family().unit.len();
        if bytes > CHUNK_BYTES {
            return count.max(1);
        }
    }
    series.len()
}
