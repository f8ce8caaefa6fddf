//! Fuzz bodies: plain functions of bytes, for tests on stable and for cargo-fuzz alike. They panic on a broken promise.

use crate::codec::{Decoder, DecoderLimits, Encoder, FamilyView, Visitor, seal};
use crate::metrics::{Block, Family, Labels, MetricType, NAME_LABEL, Series, SeriesSet};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

const LIMITS: DecoderLimits = DecoderLimits { max_series: 2_000, max_samples: 10_000 };

/// Checks that a decoder tells of nothing that it did not describe, and stays within its limits.
#[derive(Debug, Default)]
pub struct Witness {
    targets: HashSet<u32>,
    /// The target of each live series.
    pub series: HashMap<u32, u32>,
    /// The target and the members of each live set.
    pub sets: HashMap<u32, (u32, Vec<u32>)>,
}

impl Visitor for Witness {
    fn target(&mut self, id: u32, _: &Labels) {
        assert!(self.targets.insert(id), "target {id} described twice");
    }

    fn series(&mut self, id: u32, target: u32, _: &Labels, _: FamilyView<'_>) {
        assert!(self.targets.contains(&target), "series of an unknown target");
        assert!(self.series.insert(id, target).is_none(), "series {id} described twice");
        assert!(self.series.len() <= LIMITS.max_series, "more series than allowed");
    }

    fn set(&mut self, id: u32, target: u32, members: &[u32]) {
        assert!(members.iter().all(|m| self.series.get(m) == Some(&target)), "set of unknown series");
        assert!(self.sets.insert(id, (target, members.to_vec())).is_none(), "set {id} described twice");
    }

    fn block(&mut self, _: i64, set: u32, members: &[u32], values: &[f64], stamps_ms: Option<&[i64]>) {
        assert_eq!(self.sets[&set].1, members, "members differ from the set's");
        assert_eq!(values.len(), members.len());
        assert!(stamps_ms.is_none_or(|s| s.len() == members.len()));
        assert!(values.len() <= LIMITS.max_samples, "more samples than allowed");
    }

    fn forget_series(&mut self, id: u32) {
        assert!(self.series.remove(&id).is_some(), "unknown series {id} forgotten");
    }

    fn forget_set(&mut self, id: u32) {
        assert!(self.sets.remove(&id).is_some(), "unknown set {id} forgotten");
    }

    fn forget_target(&mut self, id: u32) {
        assert!(self.targets.remove(&id), "unknown target {id} forgotten");
    }
}

/// Arbitrary bytes as frames. The first byte's lowest bit says whether the frames get a valid check; then each frame
/// is a length of two bytes and so many bytes.
pub fn codec_decode(bytes: &[u8]) {
    let Some((mode, mut rest)) = bytes.split_first() else { return };
    let mut decoder = Decoder::new(LIMITS);
    let mut witness = Witness::default();
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let (frame, after) = after.split_at(usize::from(u16::from_le_bytes(*len)).min(after.len()));
        rest = after;
        let mut frame = frame.to_vec();
        if mode & 1 == 1 {
            seal(decoder.chain(), &mut frame);
        }
        if decoder.decode(&frame, &mut witness).is_err() {
            assert!(decoder.decode(&frame, &mut witness).is_err(), "a decoder went on after an error");
            return;
        }
    }
}

/// Inputs for [`codec_decode`] to begin from: valid frames without their checks, one input for each count of them.
pub fn codec_decode_seeds() -> Vec<Vec<u8>> {
    let script: Vec<u8> = (0..3_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
    let mut from = Script { bytes: &script, at: 0 };
    let (mut world, mut encoder) = (World::default(), Encoder::new());
    let mut input = vec![1];
    (0..8)
        .map(|_| {
            let mut frame = Vec::new();
            encoder.encode(&[world.block(&mut from)], &mut frame);
            frame.truncate(frame.len() - 4);
            input.extend_from_slice(&(frame.len() as u16).to_le_bytes());
            input.extend_from_slice(&frame);
            input.clone()
        })
        .collect()
}

/// Arbitrary bytes as a scenario of blocks: what is encoded is decoded the same.
pub fn codec_round_trip(bytes: &[u8]) {
    let mut from = Script { bytes, at: 0 };
    let mut world = World::default();
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new(LIMITS);
    let mut watched = Decoder::new(LIMITS);
    let mut witness = Witness::default();
    let mut frame = Vec::new();
    while !from.is_empty() {
        let blocks: Vec<Block> = (0..from.byte() % 5).map(|_| world.block(&mut from)).collect();
        frame.clear();
        encoder.encode(&blocks, &mut frame);
        let arrived = decoder.decode_blocks(&frame).expect("an encoder's frame is decoded");
        assert_eq!(arrived, blocks);
        watched.decode(&frame, &mut witness).expect("an encoder's frame is decoded");
        assert!(witness.sets.len() <= 4 * TARGETS, "old sets are not forgotten");
    }
}

const TARGETS: usize = 3;

/// Bytes as choices.
struct Script<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Script<'_> {
    fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn byte(&mut self) -> u8 {
        self.at += 1;
        self.bytes.get(self.at - 1).copied().unwrap_or(0)
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }
}

/// What a scenario's sources look like.
#[derive(Default)]
struct World {
    sets: [Option<Arc<SeriesSet>>; TARGETS],
    values: HashMap<(usize, u64), f64>,
    at_ms: i64,
}

impl World {
    fn block(&mut self, from: &mut Script<'_>) -> Block {
        let how = from.byte();
        let target = usize::from(how) % TARGETS;
        if how & 0x40 != 0 || self.sets[target].is_none() {
            self.sets[target] = Some(new_set(target, from));
        }
        let set = self.sets[target].clone().expect("it was just made");
        self.at_ms = match how >> 4 & 3 {
            0 | 1 => self.at_ms.wrapping_add(5000),
            2 => self.at_ms.wrapping_add(i64::from(from.byte())),
            _ => from.word() as i64,
        };
        let mut last = 0.0;
        let values: Vec<f64> = set
            .series()
            .iter()
            .map(|series| {
                let value = self.values.entry((target, series.fingerprint())).or_default();
                *value = step(*value, last, from);
                last = *value;
                *value
            })
            .collect();
        let mut block = Block::new(self.at_ms, set, values);
        if how & 0x80 != 0 && how & 8 != 0 {
            let stamps: Vec<i64> =
                block.values.iter().map(|_| self.at_ms.wrapping_sub(i64::from(from.byte() >> 4))).collect();
            block.stamps_ms = Some(stamps.into());
        }
        block
    }
}

/// A target's new shape: some of 64 series, some twice.
fn new_set(target: usize, from: &mut Script<'_>) -> Arc<SeriesSet> {
    let labels = Labels::new([("job", format!("job-{target}"))]).expect("one label");
    let (which, shift) = (from.word(), from.byte());
    let mut series = Vec::new();
    for i in (0..64u64).filter(|i| which >> i & 1 == 1) {
        let number = i + u64::from(shift & 3) * 8;
        let family = Family {
            name: format!("family_{}", number / 8).into(),
            kind: [MetricType::Counter, MetricType::Gauge, MetricType::Histogram][number as usize % 3],
            help: if shift & 4 == 0 { "What it is.".into() } else { "".into() },
            unit: "".into(),
        };
        let name = match number % 4 {
            0 => family.name.to_string(),
            1 => format!("{}_total", family.name),
            2 => "another".to_owned(),
            _ => String::new(),
        };
        let mut pairs = vec![("number".to_owned(), number.to_string())];
        if !name.is_empty() {
            pairs.push((NAME_LABEL.to_owned(), name));
        }
        let one = Arc::new(Series::new(Labels::new(pairs).expect("two names"), Arc::new(family)));
        if i == u64::from(shift >> 2) {
            series.push(one.clone());
        }
        series.push(one);
    }
    Arc::new(SeriesSet::new(Arc::new(labels), series))
}

fn step(value: f64, neighbour: f64, from: &mut Script<'_>) -> f64 {
    let how = from.byte();
    match how {
        0..128 => value,
        128..160 => value + f64::from(how - 128),
        160..176 => value + f64::from(how) / 100.0,
        176..192 => (value * 1000.0).round() * 0.001 + 0.001,
        192..208 => value + f64::from(how - 192) * 4096.0,
        208..224 => neighbour,
        224..232 => value - f64::from(from.byte()),
        232..240 => f64::from(from.byte()) / f64::from(from.byte()),
        240..244 => f64::from_bits(crate::metrics::STALE_NAN_BITS),
        244..248 => [-0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN][usize::from(how - 244)],
        _ => f64::from_bits(from.word()),
    }
}

/// Arbitrary bytes as a log block: it is refused, or everything in it can be read.
pub fn log_block(bytes: &[u8]) {
    let Ok(block) = crate::logs::DecodedBlock::read(bytes) else { return };
    for entry in block.entries() {
        assert_eq!(entry.line().len(), entry.line_bytes().len(), "a line that is no UTF-8");
        let labels: Vec<_> = block.labels(entry.stream()).collect();
        assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "labels that are not sorted");
        assert!(entry.metadata().all(|(key, _)| key.len() <= crate::caps::MAX_LABEL_NAME_BYTES));
    }
}

/// Arbitrary columns in a valid frame: what a fuzzer that does not know zstd would never reach.
pub fn log_columns(payload: &[u8], entries: u64) {
    let mut bytes = vec![crate::logs::BLOCK_VERSION];
    for number in [entries, payload.len() as u64] {
        let mut left = number;
        while left >= 0x80 {
            bytes.push(left as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
    }
    bytes.push(0);
    bytes.extend(zstd::bulk::compress(payload, 1).unwrap_or_default());
    log_block(&bytes);
}
