//! What is written is what a receiver reads, bit by bit.

use super::super::Version;
use super::super::batch::BatchKey;
use super::super::encode::RequestEncoder;
use super::super::piece::{Part, Piece, PieceBuilder};
use super::model::{V2Request, decode, spell};
use super::{block, named, seeds, series};
use crate::session::{ResolvedBlock, ResolvedSet};
use crate::symbols::Symbols;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::sync::Arc;

fn piece(blocks: Vec<ResolvedBlock>) -> Piece {
    let blocks: Arc<[ResolvedBlock]> = blocks.into();
    let mut builder = PieceBuilder::default();
    let mut base = 0;
    for at in 0..blocks.len() as u32 {
        let part = Part { batch: BatchKey(0), blocks: blocks.clone(), block: at, base };
        let len = part.block().values.len() as u32;
        assert!(builder.add(1, &part, 0, len));
        base += len;
    }
    builder.finish(false)
}

const SPECIAL: [f64; 8] =
    [0.0, -0.0, 1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, f64::MAX];

fn special_piece(symbols: &Arc<Symbols>) -> (Piece, Vec<u64>) {
    let mut values = SPECIAL.to_vec();
    values.push(pegel_proto::metrics::stale_marker());
    let bits = values.iter().map(|v| v.to_bits()).collect();
    let long = "v".repeat(300);
    let members: Vec<_> = (0..values.len())
        .map(|i| {
            series(symbols, &[("__name__", "x"), ("i", &i.to_string()), ("long", &long), ("ütf", "8 \"\n")])
        })
        .collect();
    let stamps = [0, -1, 1, 127, 128, i64::MAX, i64::MIN, 1_700_000_000_000, 5];
    let set = Arc::new(ResolvedSet::new(members, 1));
    let block = ResolvedBlock { at_ms: 9, set, values: values.into(), stamps_ms: Some(Box::new(stamps)) };
    (piece(vec![block]), bits)
}

#[test]
fn special_values_times_and_texts_survive_both_protocols() {
    let symbols = Arc::new(Symbols::new());
    let (piece, bits) = special_piece(&symbols);
    let mut encoder = RequestEncoder::new();
    let first = decode(Version::V1, &encoder.encode(Version::V1, &piece, &symbols).body);
    assert_eq!(first.iter().map(|(_, s)| s[0].1).collect::<Vec<_>>(), bits);
    assert_eq!(first[6].1[0].0, i64::MIN);
    assert!(first[0].0.contains("ütf=\"8 \\\"\\n\""), "{}", first[0].0);
    // Again with used buffers, and by the other protocol.
    for version in [Version::V1, Version::V2, Version::V2] {
        assert_eq!(decode(version, &encoder.encode(version, &piece, &symbols).body), first);
    }
}

#[test]
fn blocks_of_one_set_become_time_series_with_several_samples() {
    let symbols = Arc::new(Symbols::new());
    let set = Arc::new(ResolvedSet::new(named(&symbols, "a", "n", 3), 1));
    let other = Arc::new(ResolvedSet::new(named(&symbols, "b", "n", 2), 2));
    let piece =
        piece(vec![block(&set, 1_000), block(&other, 1_000), block(&set, 2_000), block(&other, 2_000)]);
    for version in [Version::V1, Version::V2] {
        let read = decode(version, &RequestEncoder::new().encode(version, &piece, &symbols).body);
        assert_eq!(read.len(), 5);
        for (_, samples) in read {
            assert_eq!(samples.iter().map(|s| s.0).collect::<Vec<_>>(), [1_000, 2_000]);
        }
    }
}

#[test]
fn metadata_names_type_and_help_and_symbols_are_not_repeated() {
    let symbols = Arc::new(Symbols::new());
    let set = Arc::new(ResolvedSet::new(named(&symbols, "a", "n", 3), 1));
    let body = RequestEncoder::new().encode(Version::V2, &piece(vec![block(&set, 1_000)]), &symbols).body;
    let message = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let request = V2Request::decode(&*message).unwrap();
    let mut texts = request.symbols.clone();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), request.symbols.len());
    let metadata = request.timeseries[2].metadata.as_ref().unwrap();
    assert_eq!(metadata.kind, 2, "a gauge");
    assert_eq!(request.symbols[metadata.help_ref as usize], "Help.");
    assert_eq!(metadata.unit_ref, 0);
}

#[test]
fn a_block_that_is_not_after_the_one_before_waits_for_the_next_request() {
    let symbols = Arc::new(Symbols::new());
    let set = Arc::new(ResolvedSet::new(named(&symbols, "a", "n", 3), 1));
    let changed = Arc::new(ResolvedSet::new(named(&symbols, "a", "n", 2), 1));
    let other = Arc::new(ResolvedSet::new(named(&symbols, "b", "n", 2), 2));
    let blocks: Arc<[ResolvedBlock]> =
        [block(&set, 2_000), block(&other, 1_000), block(&set, 2_000), block(&changed, 1_000)].into();
    let mut builder = PieceBuilder::default();
    let part = |i| Part { batch: BatchKey(0), blocks: blocks.clone(), block: i, base: 0 };
    assert!(builder.add(1, &part(0), 0, 3));
    assert!(builder.add(1, &part(1), 0, 2), "other series may be older");
    assert!(!builder.add(1, &part(2), 0, 3), "the same instant twice");
    assert!(!builder.add(1, &part(3), 0, 2), "a set that shares series, and is older");
    assert!(builder.add(2, &part(2), 0, 3), "another agent's series are others");
}

#[test]
fn splitting_keeps_every_sample_and_each_series_order() {
    let symbols = Arc::new(Symbols::new());
    let set = Arc::new(ResolvedSet::new(named(&symbols, "a", "n", 5), 1));
    let other = Arc::new(ResolvedSet::new(named(&symbols, "b", "n", 1), 2));
    let whole =
        piece(vec![block(&set, 1), block(&other, 1), block(&set, 2), block(&other, 2), block(&set, 3)]);
    let mut expected = decode(Version::V1, &RequestEncoder::new().encode(Version::V1, &whole, &symbols).body)
        .into_iter()
        .flat_map(|(name, samples)| samples.into_iter().map(move |s| (name.clone(), s)))
        .collect::<Vec<_>>();
    let mut left = vec![whole];
    let mut found = Vec::new();
    while let Some(piece) = left.pop() {
        if piece.only_record().is_some() {
            let read = decode(Version::V1, &RequestEncoder::new().encode(Version::V1, &piece, &symbols).body);
            found.push((read[0].0.clone(), read[0].1[0]));
        } else {
            let (first, second) = piece.split();
            left.extend([second, first]);
        }
    }
    for (name, _) in &expected {
        let stamps: Vec<_> = found.iter().filter(|(n, _)| n == name).map(|(_, s)| s.0).collect();
        assert!(stamps.is_sorted(), "{name}: {stamps:?}");
    }
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn labels_in_common_with_the_series_before_are_written_as_if_alone() {
    let symbols = Arc::new(Symbols::new());
    for seed in seeds(50) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut texts = Vec::new();
        let members: Vec<_> = (0..30)
            .map(|_| {
                let labels: Vec<(&str, &str)> = ["__name__", "a", "b", "c", "d", "e"]
                    .into_iter()
                    .filter(|_| random.random_bool(0.7))
                    .zip(["1", "22", "1", "22", "1", "333"])
                    .collect();
                texts.push(spell(labels.iter().copied()));
                series(&symbols, &labels)
            })
            .collect();
        let piece = piece(vec![block(&Arc::new(ResolvedSet::new(members, 1)), 1_000)]);
        for version in [Version::V1, Version::V2] {
            let read = decode(version, &RequestEncoder::new().encode(version, &piece, &symbols).body);
            let read: Vec<_> = read.into_iter().map(|(labels, _)| labels).collect();
            assert_eq!(read, texts, "PEGEL_SEED={seed}");
        }
    }
}
