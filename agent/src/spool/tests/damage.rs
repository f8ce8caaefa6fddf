//! A real segment, truncated and flipped at every region of every one of its files: never a panic, never a wrong
//! byte, and what is lost is counted to the batch.

use super::*;
use std::collections::BTreeSet;
use std::fs;

/// Regions of a file that are hurt in turn.
const REGIONS: u64 = 24;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), into);
        } else {
            into.push(entry.path());
        }
    }
}

/// Reads everything and counts everything: nothing may be missing, nothing wrong, nothing twice.
fn check(dir: &Path, all: u64, what: &str) -> usize {
    let mut spool = open(dir);
    let read: BTreeSet<u64> = CheckingReader::new(1).all(&mut spool).into_iter().collect();
    let losses = spool.take_losses();
    let lost: BTreeSet<u64> = losses.iter().flat_map(|l| &l.batches).map(|(seq, _)| seq.0).collect();
    assert!(read.is_disjoint(&lost), "{what}: read {read:?}, lost {lost:?}");
    assert_eq!(&read | &lost, (1..=all).collect(), "{what}: read {read:?}, lost {losses:?}");
    for (seq, records) in losses.iter().flat_map(|l| &l.batches) {
        assert_eq!(*records, seq.0 % 5 + 1, "{what}");
    }
    spool.trim(BatchSeq(all)).unwrap();
    assert_eq!(spool.inventory().segments, [], "{what}");
    drop(spool);
    // Nothing is counted again, and nothing was wiped.
    let mut again = open(dir);
    assert_eq!(again.take_losses(), [], "{what}");
    if !lost.is_empty() {
        assert_eq!(again.inventory().quarantined, 1, "{what}");
    }
    lost.len()
}

fn hurt_everywhere(original: &Path, segment: usize, all: u64) {
    let scratch = tempfile::tempdir().unwrap();
    let mut names: Vec<_> = fs::read_dir(original.join("segments")).unwrap().flatten().collect();
    names.sort_by_key(fs::DirEntry::file_name);
    let mut hurt = Vec::new();
    files(&names[segment].path(), &mut hurt);
    let (mut cases, mut with_loss) = (0, 0);
    for file in hurt {
        let relative = file.strip_prefix(original).unwrap();
        let length = fs::metadata(&file).unwrap().len();
        for region in 0..REGIONS.min(length.max(1)) {
            let at = region * length / REGIONS.min(length.max(1)) + region * 7 % (length / REGIONS).max(1);
            for truncate in [true, false] {
                let dir = scratch.path().join(cases.to_string());
                copy(original, &dir);
                let mut bytes = fs::read(dir.join(relative)).unwrap();
                if truncate {
                    bytes.truncate(at as usize);
                } else if let Some(byte) = bytes.get_mut(at as usize) {
                    *byte ^= 1 << (region % 8);
                }
                fs::write(dir.join(relative), bytes).unwrap();
                let how = if truncate { "truncated" } else { "flipped" };
                let what = format!("{} of {length} bytes {how} at {at}", relative.display());
                with_loss += usize::from(check(&dir, all, &what) > 0);
                cases += 1;
                fs::remove_dir_all(&dir).unwrap();
            }
        }
    }
    println!("{cases} damages, {with_loss} of them with a loss, each counted");
    assert!(with_loss > 0);
}

fn filled(dir: &Path) -> SegmentedSpool {
    let mut spool = open(dir);
    let mut encoder = CountingEncoder::default();
    for seq in 1..=24 {
        encoder.append(&mut spool, seq, seq % 5 + 1, 9_000 + seq as usize * 100).unwrap();
        spool.commit().unwrap();
    }
    assert!(spool.inventory().segments.len() >= 3);
    spool
}

#[test]
fn a_sealed_segment_hurt_anywhere_loses_no_more_than_it_counts() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    hurt_everywhere(dir.path(), 1, 24);
}

#[test]
fn the_segment_being_written_at_a_kill_hurt_anywhere_loses_no_more_than_it_counts() {
    let (running, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let spool = filled(running.path());
    let newest = spool.inventory().segments.len() - 1;
    copy(running.path(), killed.path());
    hurt_everywhere(killed.path(), newest, 24);
}

#[test]
fn a_segment_of_a_later_format_is_set_aside_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let spool = filled(dir.path());
    let summary = spool.inventory().segments[1].clone();
    drop(spool);
    let name = store::SegmentName { number: summary.number, first_seq: summary.first.0 };
    let ledger = dir.path().join("segments").join(name.to_string()).join("ledger");
    let mut bytes = fs::read(&ledger).unwrap();
    bytes[..ledger::HEADER_BYTES].copy_from_slice(&ledger::header_of_format(name, 9));
    fs::write(&ledger, bytes).unwrap();
    let mut spool = open(dir.path());
    let losses = spool.take_losses();
    assert_eq!((losses[0].first, losses[0].last), (summary.first, summary.last), "bounded by its neighbours");
    assert!(losses[0].words.contains("format 9"), "{}", losses[0].words);
    let listing = inspect::list(dir.path()).unwrap();
    assert!(listing.quarantine[0].words.as_ref().unwrap().contains("format 9"));
}
