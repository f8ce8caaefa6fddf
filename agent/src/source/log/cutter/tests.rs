use super::*;
use crate::intake::{Inbox, log_intake};
use pegel_proto::batch::{BatchSeq, Content};

fn range(source: u64, from: u64, to: u64, entries: u32) -> Range {
    Range { source, from, to, last_ns: to as i64, entries, ..Range::default() }
}

fn push(cutter: &mut Cutter, line: &str) {
    let base = cutter.begin();
    let stream = cutter.builder().stream([("job", "a")].into_iter()).unwrap();
    cutter.builder().push(stream, base, line, &[]);
}

fn taken(inbox: &mut Inbox) -> Logs {
    match inbox.take_now() {
        Some(Content::Logs(logs)) => logs,
        other => panic!("no block waits: {other:?}"),
    }
}

#[test]
fn a_block_is_intended_before_it_is_handed_over_and_neighbouring_ranges_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(dir.path()).unwrap().checkpoints;
    let (intake, receiver) = log_intake();
    let mut inbox = Inbox::Logs(receiver);
    let mut cutter = Cutter::new(checkpoints.clone(), intake, 7);
    push(&mut cutter, "one");
    cutter.cover(range(3, 0, 4, 1));
    cutter.cover(range(3, 4, 8, 0));
    cutter.cover(range(4, 0, 2, 0));
    cutter.cover(range(4, 2, 2, 0));
    let logs = cutter.finish().unwrap();
    cutter.intake().try_offer(logs).unwrap();
    let logs = taken(&mut inbox);
    let origin = Origin::from_bytes(&logs.origin).unwrap();
    assert_eq!(checkpoints.outstanding(), std::slice::from_ref(&origin));
    assert_eq!(origin.ranges, [Range { last_ns: 8, ..range(3, 0, 8, 1) }, range(4, 0, 2, 0)]);
    assert_eq!((origin.configuration, logs.block.entries, logs.rebuilt), (7, 1, false));
    checkpoints.settle(BatchSeq(5), &origin);
    assert!(checkpoints.outstanding().is_empty() && cutter.is_empty());
}

#[test]
fn what_was_shaped_with_the_end_of_another_file_stays_a_range_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(dir.path()).unwrap().checkpoints;
    let mut cutter = Cutter::new(checkpoints, log_intake().0, 7);
    push(&mut cutter, "one");
    let joined = Range { joined: true, ..range(3, 5, 9, 0) };
    let covered = [range(3, 0, 5, 1), joined, range(4, 0, 2, 1), range(4, 2, 6, 1), range(4, 6, 8, 1)];
    covered.into_iter().for_each(|range| cutter.cover(range));
    let origin = Origin::from_bytes(&cutter.finish().unwrap().origin).unwrap();
    let first = Range { joined: true, last_ns: 9, ..range(3, 0, 9, 1) };
    assert_eq!(origin.ranges, [first, range(4, 0, 2, 1), Range { last_ns: 8, ..range(4, 2, 8, 2) }]);
}

#[test]
fn what_is_left_out_moves_its_place_without_a_block() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(dir.path()).unwrap().checkpoints;
    let source = checkpoints.source(crate::source::log::checkpoints::tests::described("a", "/a"));
    let mut cutter = Cutter::new(checkpoints.clone(), log_intake().0, 0);
    cutter.cover(range(source, 0, 9, 0));
    assert!(cutter.finish().is_none());
    assert_eq!(checkpoints.place(source).offset, 9);
    assert!(checkpoints.outstanding().is_empty());
}

#[test]
fn a_block_that_is_built_again_keeps_its_intent_only_if_it_covers_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(dir.path()).unwrap().checkpoints;
    let mut cutter = Cutter::new(checkpoints.clone(), log_intake().0, 0);
    push(&mut cutter, "one");
    cutter.cover(range(3, 0, 4, 1));
    let first = cutter.finish().unwrap();
    let intended = Origin::from_bytes(&first.origin).unwrap();

    cutter.begin_again(intended.base_ns);
    push(&mut cutter, "one");
    cutter.cover(range(3, 0, 4, 1));
    let again = cutter.finish_again(&intended).unwrap();
    assert_eq!(again, Logs { rebuilt: true, ..first });

    cutter.begin_again(intended.base_ns);
    push(&mut cutter, "on");
    cutter.cover(range(3, 0, 3, 1));
    let other = Origin::from_bytes(&cutter.finish_again(&intended).unwrap().origin).unwrap();
    assert_eq!(other.intent, intended.intent + 1);
}

#[test]
fn a_block_is_full_when_it_covers_much_however_little_of_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(dir.path()).unwrap().checkpoints;
    let (intake, _receiver) = log_intake();
    let mut cutter = Cutter::new(checkpoints, intake, 7);
    push(&mut cutter, "one");
    cutter.cover(range(3, 0, BLOCK_COVER_BYTES - 1, 1));
    assert!(!cutter.is_full());
    cutter.cover(range(3, BLOCK_COVER_BYTES - 1, BLOCK_COVER_BYTES, 0));
    assert!(cutter.is_full());
    cutter.finish().unwrap();
    assert!(!cutter.is_full());
}
