//! What is written is what Loki reads.

use super::super::batch::BatchKey;
use super::super::encode::RequestEncoder;
use super::super::piece::{Doubt, Extent, PieceBuilder, Source};
use super::model::decode;
use pegel_proto::logs::BlockBuilder;
use proptest::prelude::*;
use std::sync::Arc;

type Said = (u8, i64, String, Vec<(String, String)>);

fn entries() -> impl Strategy<Value = Vec<Said>> {
    let metadata = prop::collection::vec(("[k-m]{1,3}", ".{0,300}"), 0..3);
    prop::collection::vec((0..3_u8, any::<i64>(), ".{0,200}", metadata), 1..40)
}

proptest! {
    #[test]
    fn requests_decode_to_the_entries_of_their_streams_in_order(all in prop::collection::vec(entries(), 1..4)) {
        let mut builder = PieceBuilder::default();
        let names: Vec<Arc<str>> = (0..3).map(|i| Arc::from(format!("{{s=\"{i}\"}}"))).collect();
        for (batch, entries) in all.iter().enumerate() {
            let mut block = BlockBuilder::new();
            for (stream, at, line, metadata) in entries {
                let name = stream.to_string();
                let stream = block.stream([("s", name.as_str())].into_iter()).unwrap();
                let pairs: Vec<_> = metadata.iter().map(|(k, v)| (block.key(k).unwrap(), v.as_str())).collect();
                block.push(stream, *at, line, &pairs);
            }
            let block = Arc::new(block.finish().unwrap().decode().unwrap());
            builder.source(Source { batch: BatchKey(batch as u64), block: block.clone() });
            for (index, entry) in block.entries().enumerate() {
                let (_, name) = block.labels(entry.stream()).next().unwrap();
                builder.add(index as u32, entry, &names[name.parse::<usize>().unwrap()], 1);
            }
        }
        let estimate = builder.bytes();
        let piece = builder.finish(Doubt::None);
        for group in &piece.groups {
            // What was added up is what one finds who looks at each entry.
            let mut looked_at = group.clone();
            looked_at.retain(|_| true);
            for before in [i64::MIN, 0, i64::MAX] {
                let mut walked = Extent { furthest_behind_ns: 0, newest_ns: before, bytes: 0 };
                for record in group.records() {
                    let entry = piece.entry(*record);
                    let behind_ns = walked.newest_ns.saturating_sub(entry.at_ns());
                    walked.furthest_behind_ns = walked.furthest_behind_ns.max(behind_ns);
                    walked.newest_ns = walked.newest_ns.max(entry.at_ns());
                    let metadata: usize = entry.metadata().map(|(k, v)| k.len() + v.len()).sum();
                    walked.bytes += (entry.line().len() + metadata) as u64;
                }
                prop_assert_eq!(piece.extent(group, before), walked);
                prop_assert_eq!(piece.extent(&looked_at, before), walked);
            }
        }
        let encoded = RequestEncoder::new().encode(&piece);
        prop_assert!(encoded.message_bytes >= estimate && encoded.message_bytes <= estimate + 3 * 32);
        let request = decode(&encoded.body);
        for stream in &request.streams {
            let number: u8 = stream.labels[4..5].parse().unwrap();
            let expected: Vec<_> = all.iter().flatten().filter(|e| e.0 == number).collect();
            prop_assert_eq!(stream.entries.len(), expected.len());
            for (found, (_, at, line, metadata)) in stream.entries.iter().zip(expected) {
                prop_assert_eq!(found.at_ns(), *at);
                prop_assert_eq!(&found.line, line);
                let pairs: Vec<_> = found.metadata.iter().map(|p| (p.name.clone(), p.value.clone())).collect();
                prop_assert_eq!(&pairs, metadata);
            }
        }
        let total: usize = request.streams.iter().map(|stream| stream.entries.len()).sum();
        prop_assert_eq!(total, all.iter().map(Vec::len).sum::<usize>());
    }
}
