use super::*;

fn fill(
    spool: &mut dyn Spool,
    encoder: &mut CountingEncoder,
    range: std::ops::RangeInclusive<u64>,
    bytes: usize,
) {
    for seq in range {
        encoder.append(spool, seq, seq % 7 + 1, bytes).unwrap();
        if seq % 3 == 0 {
            spool.commit().unwrap();
        }
    }
    spool.commit().unwrap();
}

#[test]
fn what_was_committed_is_read_in_order_before_and_after_a_restart_and_leaves_nothing_once_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    fill(&mut spool, &mut CountingEncoder::default(), 1..=60, 5000);
    assert!(spool.inventory().segments.len() > 3);
    assert_eq!(CheckingReader::new(1).all(&mut spool), (1..=60).collect::<Vec<_>>());
    drop(spool);

    let mut spool = open(dir.path());
    assert_eq!(spool.take_losses(), []);
    assert_eq!(spool.inventory().total(), Tally { batches: 60, records: (1..=60).map(|s| s % 7 + 1).sum() });
    assert_eq!(CheckingReader::new(1).all(&mut spool), (1..=60).collect::<Vec<_>>());
    assert_eq!(CheckingReader::new(31).all(&mut spool), (31..=60).collect::<Vec<_>>());
    fill(&mut spool, &mut CountingEncoder::default(), 61..=70, 100_000);
    assert_eq!(CheckingReader::new(55).all(&mut spool), (55..=70).collect::<Vec<_>>());
    assert_eq!(spool.held_above(BatchSeq(68)).unwrap(), Tally { batches: 2, records: 69 % 7 + 1 + 1 });

    spool.trim(BatchSeq(70)).unwrap();
    assert_eq!(spool.inventory().segments, []);
    assert_eq!(std::fs::read_dir(dir.path().join("segments")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(dir.path().join("trash")).unwrap().count(), 0);
}

#[test]
fn a_reader_follows_the_segment_that_is_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    let (mut encoder, mut reader) = (CountingEncoder::default(), CheckingReader::new(1));
    for seq in 1..=40 {
        encoder.append(&mut spool, seq, 1, 3000).unwrap();
        assert_eq!(reader.next(&mut spool).unwrap(), None, "not committed yet");
        spool.commit().unwrap();
        assert_eq!(reader.next(&mut spool).unwrap(), Some((seq, 1)));
        if seq % 9 == 0 {
            spool.trim(BatchSeq(seq)).unwrap();
        }
    }
}

#[test]
fn a_batch_that_is_stored_is_not_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    let mut encoder = CountingEncoder::default();
    fill(&mut spool, &mut encoder, 1..=5, 100);
    fill(&mut spool, &mut encoder, 3..=8, 100);
    assert_eq!(CheckingReader::new(1).all(&mut spool), (1..=8).collect::<Vec<_>>());
}

#[test]
fn two_agents_do_not_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    assert!(matches!(SegmentedSpool::open(settings(dir.path())), Err(SpoolError::InUse { .. })));
    drop(first);
    open(dir.path());
}

#[test]
fn a_full_spool_waits_or_drops_its_oldest_segments_and_counts_them() {
    for when_full in [WhenFull::Wait, WhenFull::DropOldest] {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { quota_bytes: 4 << 20, when_full, ..settings(dir.path()) };
        let mut spool = SegmentedSpool::open(settings).unwrap();
        let mut encoder = CountingEncoder::default();
        let mut refused_at = None;
        for seq in 1..=400 {
            match encoder.append(&mut spool, seq, 2, 20_000) {
                Ok(()) => drop(spool.commit().unwrap()),
                Err(SpoolError::Full { .. }) => {
                    refused_at = Some(seq);
                    break;
                }
                Err(other) => panic!("{other}"),
            }
            assert!(spool.inventory().bytes <= 4 << 20);
        }
        let losses = spool.take_losses();
        let lost: Vec<u64> = losses.iter().flat_map(|l| &l.batches).map(|(seq, _)| seq.0).collect();
        let read = CheckingReader::new(1).all(&mut spool);
        if when_full == WhenFull::Wait {
            let refused = refused_at.expect("refused at the quota");
            assert_eq!(read, (1..refused).collect::<Vec<_>>());
            assert_eq!(losses, []);
            // Room is made by trimming, and the encoder, which was ahead, is told to start afresh.
            spool.trim(BatchSeq(refused / 2)).unwrap();
            encoder.append(&mut spool, refused, 2, 20_000).unwrap();
            spool.commit().unwrap();
            assert_eq!(CheckingReader::new(refused).all(&mut spool), [refused]);
        } else {
            assert_eq!([lost, read].concat(), (1..=400).collect::<Vec<_>>());
            assert!(losses.iter().all(|l| l.exact && l.reason == LossReason::QuotaFull));
        }
    }
}

#[test]
fn a_listing_changes_nothing_and_tells_what_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    fill(&mut spool, &mut CountingEncoder::default(), 1..=30, 5000);
    let held = spool.inventory();
    drop(spool);
    let listing = inspect::list(dir.path()).unwrap();
    assert_eq!(listing, inspect::list(dir.path()).unwrap());
    assert_eq!(listing.segments.len(), held.segments.len());
    let records: u64 = listing.segments.iter().map(|s| s.tally().records).sum();
    assert_eq!(records, held.total().records);
}
