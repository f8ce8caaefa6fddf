use super::*;
use proptest::prelude::*;

fn output(name: &str) -> OutputKey {
    (Signal::Metrics, name.to_owned())
}

fn drawn() -> AgentEpoch {
    AgentEpoch(42)
}

fn any_record() -> impl Strategy<Value = Record> {
    let output = prop_oneof![Just(output("a")), Just((Signal::Logs, "ö".to_owned()))];
    let reasons = proptest::collection::btree_map("[a-z]{1,8}", any::<u64>(), 0..3);
    let totals = (any::<[u64; 4]>(), reasons.clone(), reasons).prop_map(|(t, dropped, rejected)| Totals {
        collected: t[0],
        delivered: t[1],
        held_already: t[2],
        lost_in_crash: t[3],
        dropped,
        rejected,
    });
    prop_oneof![
        (0..1_u64 << 40).prop_map(|n| Record::Reserved(Signal::Traces, BatchSeq(n))),
        (output.clone(), any::<u64>()).prop_map(|(o, n)| Record::Cursor(o, BatchSeq(n))),
        (output.clone(), totals).prop_map(|(o, t)| Record::Books(o, t)),
        output.prop_map(Record::OutputGone),
        ("[a-c]", proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(k, v)| Record::Checkpoint(k, v)),
        "[a-c]".prop_map(Record::CheckpointGone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn truncated_at_every_byte_the_file_gives_the_state_of_its_whole_records(
        records in proptest::collection::vec(any_record(), 1..10),
    ) {
        let mut bytes = HEADER.to_vec();
        let mut states = vec![(bytes.len(), State::default())];
        for record in records {
            put_frame(&mut bytes, 0, &record);
            let mut state = states[states.len() - 1].1.clone();
            state.apply(record);
            states.push((bytes.len(), state));
        }
        for cut in 0..=bytes.len() {
            let whole = states.iter().rev().find(|(length, _)| *length <= cut);
            let read = read(&bytes[..cut]);
            let (length, state) = whole.cloned().unwrap_or_default();
            prop_assert!(!read.damaged);
            prop_assert_eq!(read.torn_bytes, (cut - length) as u64);
            prop_assert_eq!(read.state, state);
        }
    }

    #[test]
    fn a_flipped_bit_keeps_what_lies_before_it_and_never_a_number_twice(
        records in proptest::collection::vec(any_record(), 2..10),
        place in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut bytes = HEADER.to_vec();
        let mut before = State::default();
        let mut reserved = BatchSeq(1);
        let mut ends = vec![];
        for record in &records {
            put_frame(&mut bytes, 0, record);
            ends.push(bytes.len());
        }
        let byte = place.index(bytes.len());
        bytes[byte] ^= 1_u8 << bit;
        for (end, record) in ends.iter().zip(&records) {
            if *end <= byte && byte >= HEADER.len() {
                before.apply(record.clone());
            } else if let Record::Reserved(_, below) = record {
                // What the damaged record itself reserved is made up for, as long as numbers rise by reservations.
                let start = ends.iter().rev().find(|e| *e < end).copied().unwrap_or(HEADER.len());
                if !(start..*end).contains(&byte) {
                    reserved = reserved.max(*below);
                }
            }
        }
        let last = ends[ends.len() - 2];
        let read = read(&bytes);
        prop_assert_eq!(read.damaged, byte < last);
        prop_assert_eq!(&read.state.cursors, &before.cursors);
        prop_assert_eq!(&read.state.books, &before.books);
        prop_assert_eq!(&read.state.checkpoints, &before.checkpoints);
        let kept = read.state.reserved.get(&Signal::Traces).copied().unwrap_or(BatchSeq(1));
        prop_assert!(kept >= reserved);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut headed = HEADER.to_vec();
        headed.extend(&bytes);
        read(&bytes);
        read(&headed);
        Record::decode(&bytes);
    }
}

#[test]
fn everything_comes_back_after_a_crash_and_after_an_orderly_end() {
    let dir = tempfile::tempdir().unwrap();
    let totals = Totals { collected: 9, delivered: 5, ..Totals::default() };
    {
        let mut positions = Positions::open(dir.path(), drawn).unwrap();
        assert!(positions.found().new);
        positions.reserve(Signal::Metrics, BatchSeq(1)).unwrap();
        positions.put(Record::Cursor(output("prom"), BatchSeq(7)));
        positions.put(Record::Books(output("prom"), totals.clone()));
        positions.flush(false).unwrap();
        positions.put(Record::Cursor(output("prom"), BatchSeq(8)));
    }
    let positions = Positions::open(dir.path(), || unreachable!("the epoch is known")).unwrap();
    assert_eq!(*positions.found(), Found { crashed: true, ..Found::default() });
    assert_eq!(positions.epoch(), drawn());
    assert_eq!(positions.state().cursors[&output("prom")], BatchSeq(7), "the last one was never flushed");
    assert_eq!(positions.state().books[&output("prom")], totals);
    assert_eq!(positions.next_seq(Signal::Metrics), BatchSeq(1 + SEQ_RESERVATION));
    positions.end().unwrap();
    let positions = Positions::open(dir.path(), drawn).unwrap();
    assert_eq!(*positions.found(), Found::default());
}

#[test]
fn sequence_numbers_never_go_backwards() {
    let dir = tempfile::tempdir().unwrap();
    let mut used = BatchSeq(0);
    for _ in 0..4 {
        let mut positions = Positions::open(dir.path(), drawn).unwrap();
        let mut seq = positions.next_seq(Signal::Metrics);
        assert!(seq > used);
        for _ in 0..SEQ_RESERVATION + 10 {
            positions.reserve(Signal::Metrics, seq).unwrap();
            used = seq;
            seq = seq.next();
        }
    }
}

#[test]
fn the_file_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let mut positions = Positions::open(dir.path(), drawn).unwrap();
    for n in 0..40_000 {
        positions.put(Record::Cursor(output("prometheus"), BatchSeq(n)));
        if n % 50 == 0 {
            positions.flush(false).unwrap();
        }
    }
    positions.flush(false).unwrap();
    assert!(fs::metadata(dir.path().join(FILE)).unwrap().len() <= COMPACT_ABOVE_BYTES + 10_000);
    drop(positions);
    let positions = Positions::open(dir.path(), drawn).unwrap();
    assert_eq!(positions.state().cursors[&output("prometheus")], BatchSeq(39_999));
}

#[test]
fn a_damaged_middle_is_set_aside_and_a_torn_end_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut positions = Positions::open(dir.path(), drawn).unwrap();
    for n in 1..=20 {
        positions.put(Record::Cursor(output("o"), BatchSeq(n)));
    }
    positions.reserve(Signal::Metrics, BatchSeq(1000)).unwrap();
    drop(positions);
    let path = dir.path().join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&path, &bytes).unwrap();
    let positions = Positions::open(dir.path(), drawn).unwrap();
    let aside = positions.found().set_aside.clone().expect("set aside");
    assert_eq!(fs::read(aside).unwrap(), bytes);
    assert!((1..20).contains(&positions.state().cursors[&output("o")].0));
    assert!(positions.next_seq(Signal::Metrics) >= BatchSeq(1000 + SEQ_RESERVATION));
    drop(positions);

    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let positions = Positions::open(dir.path(), drawn).unwrap();
    assert!(positions.found().torn_bytes > 0);
    assert_eq!(positions.found().set_aside, None);
}

#[test]
fn two_agents_do_not_share_positions() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Positions::open(dir.path(), drawn).unwrap();
    assert!(matches!(Positions::open(dir.path(), drawn), Err(PositionsError::InUse { .. })));
}
