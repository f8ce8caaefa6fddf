//! What the codec promises. `PEGEL_SEED` repeats a random test's run.

use super::*;
use crate::fuzzing::{Witness, codec_decode, codec_decode_seeds, codec_round_trip};
use crate::metrics::{Block, Family, NAME_LABEL, Series, SeriesSet, stale_marker};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;

const LIMITS: DecoderLimits = DecoderLimits { max_series: 10_000, max_samples: 50_000 };

fn series(name: &str, number: usize) -> Arc<Series> {
    let family =
        Family { name: name.into(), kind: MetricType::Counter, help: "Some help.".into(), unit: "".into() };
    let labels = Labels::new([(NAME_LABEL, name.to_owned()), ("number", number.to_string())]).unwrap();
    Arc::new(Series::new(labels, Arc::new(family)))
}

fn set_of(target: &str, numbers: impl Iterator<Item = usize>) -> Arc<SeriesSet> {
    let target = Arc::new(Labels::new([("job", target)]).unwrap());
    Arc::new(SeriesSet::new(
        target,
        numbers.map(|n| series(&format!("metric_{}", n % 7), n)).collect::<Vec<_>>(),
    ))
}

fn encode(encoder: &mut Encoder, blocks: &[Block]) -> Vec<u8> {
    let mut frame = Vec::new();
    encoder.encode(blocks, &mut frame);
    frame
}

/// Counters, gauges, decimals and floats that partly stand still.
fn ordinary(set: &Arc<SeriesSet>, frame: usize, random: &mut StdRng) -> Block {
    let values: Vec<f64> = (0..set.len())
        .map(|i| match i % 6 {
            0 => i as f64,
            1 => (frame * i) as f64,
            2 => (frame * 37 % (i + 1)) as f64 / 100.0,
            3 => f64::from(random.random_range(0..100u32)) * 0.001,
            4 => random.random(),
            _ => ((frame / 20) * 4096) as f64,
        })
        .collect();
    Block::new(1_700_000_000_000 + 5000 * frame as i64, set.clone(), values)
}

fn stream(frames: usize, size: usize) -> (Vec<Block>, Vec<Vec<u8>>) {
    let mut random = StdRng::seed_from_u64(7);
    let mut encoder = Encoder::new();
    let set = set_of("a", 0..size);
    let blocks: Vec<Block> = (0..frames).map(|i| ordinary(&set, i, &mut random)).collect();
    let frames = blocks.iter().map(|b| encode(&mut encoder, std::slice::from_ref(b))).collect();
    (blocks, frames)
}

fn seed() -> u64 {
    let seed =
        std::env::var("PEGEL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| rand::rng().random());
    println!("repeat with PEGEL_SEED={seed}");
    seed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_blocks_arrives_bit_by_bit(script in prop::collection::vec(any::<u8>(), 0..4000)) {
        codec_round_trip(&script);
    }

    #[test]
    fn any_values_arrive_bit_by_bit(
        values in prop::collection::vec(prop::collection::vec(prop::num::f64::ANY, 5), 1..40),
        at_ms in prop::collection::vec(any::<i64>(), 40),
    ) {
        let set = set_of("a", 0..5);
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(LIMITS));
        for (values, at_ms) in values.into_iter().zip(at_ms) {
            let block = Block::new(at_ms, set.clone(), values);
            let frame = encode(&mut encoder, std::slice::from_ref(&block));
            prop_assert_eq!(decoder.decode_blocks(&frame), Ok(vec![block]));
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        codec_decode(&bytes);
    }
}

/// Frames of an encoder with some bytes changed and the check made right again: what a hostile agent could send.
#[test]
fn damaged_frames_with_a_valid_check_do_no_harm() {
    let mut random = StdRng::seed_from_u64(seed());
    let (_, frames) = stream(12, 40);
    for _ in 0..4000 {
        let mut input = vec![1];
        let victim = random.random_range(0..frames.len());
        for (i, frame) in frames.iter().enumerate().take(victim + 3) {
            let mut frame = frame[..frame.len() - 4].to_vec();
            if i >= victim {
                for _ in 0..random.random_range(1..4) {
                    let at = random.random_range(0..frame.len());
                    match random.random_range(0..4) {
                        0 => frame[at] ^= 1 << random.random_range(0..8),
                        1 => frame[at] = random.random(),
                        2 => frame.truncate(at.max(1)),
                        _ => frame.insert(at, random.random()),
                    }
                }
            }
            input.extend_from_slice(&(frame.len() as u16).to_le_bytes());
            input.extend_from_slice(&frame);
        }
        codec_decode(&input);
    }
}

#[test]
fn seeds_with_every_byte_changed_do_no_harm() {
    let mut random = StdRng::seed_from_u64(seed());
    for seed in codec_decode_seeds().into_iter().take(4) {
        codec_decode(&seed);
        for at in 1..seed.len() {
            let mut changed = seed.clone();
            changed[at] ^= random.random_range(1..=255u8);
            codec_decode(&changed);
        }
    }
}

#[test]
fn what_is_beyond_its_cap_is_named_before_it_is_sent() {
    assert_eq!(check_caps(&set_of("a", 0..10)), Ok(()));
    let long = "x".repeat(caps::MAX_LABEL_VALUE_BYTES + 1);
    let labels = Labels::new([(NAME_LABEL, "m"), ("path", &long)]).unwrap();
    let error = check_series(&Series::new(labels, Arc::default())).unwrap_err();
    assert_eq!(error.to_string(), "16385 bytes of label value on `m`, too long to be sent");
    let many = Labels::new((0..129).map(|i| (format!("l{i:03}"), "v"))).unwrap();
    assert!(matches!(check_series(&Series::new(many, Arc::default())), Err(OverCap::Labels(129, _))));
}

#[test]
fn every_flipped_byte_and_every_truncation_is_an_error() {
    let (_, frames) = stream(5, 30);
    let mut decoder = Decoder::new(LIMITS);
    for frame in &frames {
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut damaged = frame.clone();
                damaged[at] ^= 1 << bit;
                assert!(decoder.clone().decode_blocks(&damaged).is_err(), "byte {at}, bit {bit}");
            }
            assert!(decoder.clone().decode_blocks(&frame[..at]).is_err(), "cut at {at}");
        }
        let longer = [&frame[..], &[0]].concat();
        assert!(decoder.clone().decode_blocks(&longer).is_err());
        decoder.decode_blocks(frame).unwrap();
    }
}

#[test]
fn a_missing_repeated_or_swapped_frame_is_an_error() {
    let (_, frames) = stream(6, 30);
    for order in [&[0, 2][..], &[0, 1, 1], &[0, 2, 1], &[1], &[0, 1, 2, 0]] {
        let mut decoder = Decoder::new(LIMITS);
        let results: Vec<_> = order.iter().map(|i| decoder.decode_blocks(&frames[*i])).collect();
        assert!(results.iter().any(Result::is_err), "{order:?}");
    }
}

#[test]
fn a_decoder_refuses_everything_after_an_error() {
    let (_, frames) = stream(3, 10);
    let mut decoder = Decoder::new(LIMITS);
    decoder.decode_blocks(&frames[0]).unwrap();
    decoder.decode_blocks(&frames[2]).unwrap_err();
    assert_eq!(decoder.decode_blocks(&frames[1]).unwrap_err().reason, "a frame before it was damaged");
}

#[test]
fn limits_hold() {
    let (_, frames) = stream(1, 30);
    for (max_series, max_samples, fine) in [(30, 30, true), (29, 30, false), (30, 29, false)] {
        let mut decoder = Decoder::new(DecoderLimits { max_series, max_samples });
        assert_eq!(
            decoder.decode_blocks(&frames[0]).is_ok(),
            fine,
            "{max_series} series, {max_samples} samples"
        );
    }
}

#[test]
fn a_description_that_would_expand_without_measure_is_refused() {
    let packed = zstd::bulk::compress(&vec![0; 1 << 20], 19).unwrap();
    let mut frame = vec![HAS_DESCRIPTIONS];
    describe::put_number(&mut frame, (1 << 20) << 1 | 1);
    describe::put_number(&mut frame, packed.len() as u64);
    frame.extend_from_slice(&packed);
    seal(0, &mut frame);
    let error = Decoder::new(LIMITS).decode_blocks(&frame).unwrap_err();
    assert_eq!(error.reason, "a description expands too much");
}

#[test]
fn an_even_section_is_skipped_and_an_odd_one_refused() {
    let (blocks, frames) = stream(1, 3);
    let (bytes, _) = frames[0].split_last_chunk::<4>().unwrap();
    let mut from = describe::Reader::new(&bytes[1..]);
    let len = from.number().unwrap() as usize;
    let len = if len & 1 == 1 { from.number().unwrap() as usize } else { len >> 1 };
    from.slice(len).unwrap();
    from.byte().unwrap();
    let body_at = bytes.len() - from.rest().len();
    for (kind, fine) in [(2, true), (3, false)] {
        let mut frame = bytes[..body_at].to_vec();
        frame[0] |= HAS_SECTIONS;
        frame.extend_from_slice(&[kind, 3, b'a', b'b', b'c', 0]);
        frame.extend_from_slice(&bytes[body_at..]);
        seal(0, &mut frame);
        assert_eq!(Decoder::new(LIMITS).decode_blocks(&frame).ok(), fine.then(|| blocks.clone()));
    }
}

#[test]
fn a_repeated_set_costs_next_to_nothing() {
    let set = set_of("a", 0..600);
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(LIMITS));
    for i in 0..40i64 {
        let block = Block::new(1_700_000_000_000 + 5000 * i, set.clone(), vec![1.5; 600]);
        let frame = encode(&mut encoder, std::slice::from_ref(&block));
        assert_eq!(decoder.decode_blocks(&frame), Ok(vec![block]));
        if i > 20 {
            assert!(frame.len() <= 11, "{} bytes", frame.len());
        }
    }
}

#[test]
fn a_set_that_comes_again_in_other_memory_is_recognised() {
    let mut encoder = Encoder::new();
    let blocks: Vec<Block> =
        (0..3).map(|i| Block::new(5000 * i, set_of("a", 0..50), vec![0.0; 50])).collect();
    let sizes: Vec<usize> =
        blocks.iter().map(|b| encode(&mut encoder, std::slice::from_ref(b)).len()).collect();
    assert!(sizes[1] < 16 && sizes[2] < 16, "{sizes:?}");
}

#[test]
fn an_edited_set_names_only_what_is_new() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(LIMITS));
    let all = Block::new(0, set_of("a", 0..500), vec![1.0; 500]);
    let edited = set_of("a", (0..500).filter(|i| *i != 77).chain([1000]));
    let edited = Block::new(5000, edited, vec![1.0; 500]);
    for (block, most) in [(&all, 3000), (&edited, 80), (&all, 20)] {
        let frame = encode(&mut encoder, std::slice::from_ref(block));
        assert!(frame.len() <= most, "{} bytes", frame.len());
        assert_eq!(&decoder.decode_blocks(&frame).unwrap()[0], block);
    }
}

#[test]
fn churn_leaves_the_tables_bounded_and_numbers_are_used_again() {
    let (mut encoder, mut decoder, mut witness) = (Encoder::new(), Decoder::new(LIMITS), Witness::default());
    for round in 0..300 {
        let set = set_of("a", (0..20).chain(1000 + 10 * round..1010 + 10 * round));
        let block = Block::new(5000 * round as i64, set, vec![round as f64; 30]);
        decoder.decode(&encode(&mut encoder, &[block]), &mut witness).unwrap();
        assert!(witness.sets.len() <= 4 && witness.series.len() <= 60, "round {round}");
        assert!(witness.series.keys().all(|id| *id < 80), "round {round}");
    }
}

#[test]
fn a_target_that_vanished_is_forgotten() {
    let (mut encoder, mut decoder, mut witness) = (Encoder::new(), Decoder::new(LIMITS), Witness::default());
    let (gone, stays) = (set_of("gone", 0..20), set_of("stays", 0..20));
    for frame in 0..400i64 {
        let mut blocks = vec![Block::new(5000 * frame, stays.clone(), vec![1.0; 20])];
        if frame < 10 {
            blocks.push(Block::new(5000 * frame, gone.clone(), vec![1.0; 20]));
        }
        decoder.decode(&encode(&mut encoder, &blocks), &mut witness).unwrap();
    }
    assert_eq!((witness.sets.len(), witness.series.len()), (1, 20));
}

#[test]
fn staleness_markers_do_not_disturb_what_was_learnt() {
    let set = set_of("a", 0..1);
    let sizes = |gap: bool| -> usize {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(LIMITS));
        let mut bytes = 0;
        for i in 0..100i64 {
            let value = if gap && i % 30 == 29 { stale_marker() } else { i as f64 / 100.0 };
            let block = Block::new(5000 * i, set.clone(), vec![value]);
            let frame = encode(&mut encoder, std::slice::from_ref(&block));
            bytes += frame.len();
            assert_eq!(decoder.decode_blocks(&frame), Ok(vec![block]));
        }
        bytes
    };
    assert!(sizes(true) < sizes(false) + 12, "{} and {}", sizes(true), sizes(false));
}

#[test]
fn several_targets_on_one_stream_keep_their_own_state() {
    let mut random = StdRng::seed_from_u64(3);
    let sets: Vec<_> = ["a", "b", "c"].map(|t| set_of(t, 0..60)).into();
    let together: usize = {
        let mut encoder = Encoder::new();
        (0..50)
            .flat_map(|i| sets.iter().map(move |s| (i, s)))
            .map(|(i, s)| encode(&mut encoder, &[ordinary(s, i, &mut random)]).len())
            .sum()
    };
    let apart: usize = sets
        .iter()
        .map(|s| {
            let mut encoder = Encoder::new();
            (0..50).map(|i| encode(&mut encoder, &[ordinary(s, i, &mut random)]).len()).sum::<usize>()
        })
        .sum();
    assert!(together <= apart, "{together} bytes together, {apart} apart");
}

#[test]
fn the_decoder_of_six_hundred_series_stays_small() {
    let (_, frames) = stream(100, 600);
    let mut decoder = Decoder::new(LIMITS);
    let mut witness = Witness::default();
    for frame in &frames {
        decoder.decode(frame, &mut witness).unwrap();
    }
    assert!(decoder.resident_bytes() <= 96 << 10, "{} bytes", decoder.resident_bytes());
}
