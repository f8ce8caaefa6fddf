use super::*;
use proptest::prelude::*;

type Said = (Vec<(String, String)>, i64, String, Vec<(String, String)>);

fn build(builder: &mut BlockBuilder, entries: &[Said]) -> Option<LogBlock> {
    for (labels, at_ns, line, metadata) in entries {
        let stream = builder.stream(labels.iter().map(|(n, v)| (n.as_str(), v.as_str()))).unwrap();
        let pairs: Vec<_> = metadata.iter().map(|(k, v)| (builder.key(k).unwrap(), v.as_str())).collect();
        builder.push(stream, *at_ns, line, &pairs);
    }
    builder.finish()
}

fn said(block: &DecodedBlock) -> Vec<Said> {
    let own = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
    block
        .entries()
        .map(|e| {
            let labels = block.labels(e.stream()).map(own).collect();
            (labels, e.at_ns(), e.line().to_owned(), e.metadata().map(own).collect())
        })
        .collect()
}

fn entries() -> impl Strategy<Value = Vec<Said>> {
    let labels = prop::collection::btree_map("[a-c]{1,2}", "[a-z]{1,3}", 0..3)
        .prop_map(|m| m.into_iter().collect::<Vec<_>>());
    let metadata = prop::collection::vec(("[k-m]", ".{0,5}"), 0..3);
    prop::collection::vec((labels, any::<i64>(), "(?s)(.|\n){0,40}", metadata), 1..40)
}

proptest! {
    #[test]
    fn what_is_read_is_what_was_written(one in entries(), two in entries()) {
        let mut builder = BlockBuilder::new();
        for written in [&one, &two] {
            let block = build(&mut builder, written).unwrap();
            prop_assert_eq!(block.entries as usize, written.len());
            prop_assert_eq!(&LogBlock::from_bytes(block.bytes.clone()).unwrap(), &block);
            prop_assert_eq!(&said(&block.decode().unwrap()), written);
        }
    }

    #[test]
    fn the_last_entries_are_those_at_the_end(written in entries(), most in 0..50_usize, bytes in 0..2_000_usize) {
        let block = build(&mut BlockBuilder::new(), &written).unwrap().decode().unwrap();
        let last = said(&block.last(most, usize::MAX));
        prop_assert_eq!(&last, &written[written.len().saturating_sub(most)..]);
        let few = block.last(usize::MAX, bytes);
        let shown = said(&few);
        prop_assert_eq!(&shown, &written[written.len() - shown.len()..]);
        let text: usize = shown.iter().map(|(_, _, line, metadata)| {
            line.len() + metadata.iter().map(|(_, value)| value.len()).sum::<usize>()
        }).sum();
        prop_assert!(text <= bytes);
        // What it takes is what it holds, not what it was cut from.
        prop_assert!(few.resident_bytes() <= bytes + 2_500);
    }

    #[test]
    fn a_damaged_block_is_refused_or_reads_within_its_caps(written in entries(), at: prop::sample::Index, bit in 0..8_u8) {
        let block = build(&mut BlockBuilder::new(), &written).unwrap();
        let mut bytes = block.bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(decoded) = DecodedBlock::read(&bytes) {
            said(&decoded);
        }
        prop_assert!(DecodedBlock::read(&block.bytes[..at]).is_err());
    }

    #[test]
    fn any_columns_are_refused_or_read(payload in prop::collection::vec(any::<u8>(), 0..200), entries in 1..20_u64) {
        crate::fuzzing::log_columns(&payload, entries);
    }
}

#[test]
fn nothing_pushed_is_no_block() {
    assert!(BlockBuilder::new().finish().is_none());
}

#[test]
fn lines_that_are_not_the_text_are_refused() {
    let entries = [(vec![], 1, "a\nb".into(), vec![]), (vec![], 2, "c".into(), vec![])];
    let block = build(&mut BlockBuilder::new(), &entries).unwrap();
    // Version, entries, raw bytes and the oldest time take one byte each here.
    let (header, body) = block.bytes.split_at(4);
    let payload = zstd::bulk::decompress(body, 1 << 10).unwrap();
    let behind = payload.len() - b"a\nb\nc\n".len();
    assert_eq!(payload[behind - 3..behind], [1, 0, 1], "one line with one line feed, the first");
    let altered = |at: usize, byte: u8| {
        let mut payload = payload.clone();
        payload[at] = byte;
        DecodedBlock::read(&[header, &zstd::bulk::compress(&payload, 1).unwrap()].concat())
    };
    // No line feed within, one too many, of a line too far; text without its last end, and no UTF-8.
    let not_the_text = BlockError::Inconsistent("its lines are not its text");
    assert_eq!(altered(behind - 1, 0).unwrap_err(), not_the_text);
    assert_eq!(altered(behind - 1, 2).unwrap_err(), BlockError::Short("its text"));
    assert_eq!(altered(behind - 2, 2).unwrap_err(), not_the_text);
    assert_eq!(altered(payload.len() - 1, b'x').unwrap_err(), BlockError::Short("its text"));
    assert_eq!(altered(payload.len() - 2, 0xff).unwrap_err(), BlockError::NotUtf8);
    assert!(altered(behind, b'x').is_ok());
}
