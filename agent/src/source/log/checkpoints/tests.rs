use super::*;
use proptest::prelude::*;

pub(in crate::source::log) fn described(input: &str, path: &str) -> Described {
    Described {
        input: input.into(),
        kind: SourceKind::File,
        path: Path::new(path).into(),
        device: 1,
        inode: 2,
        born_ns: 3,
        print: Print { bytes: 4, hash: 5 },
    }
}

fn range(source: u64, from: u64, to: u64) -> Range {
    Range { source, from, to, floor_ns: from as i64, last_ns: to as i64, entries: 1, ..Range::default() }
}

fn origin(ranges: Vec<Range>) -> Origin {
    Origin { intent: 0, base_ns: 9, configuration: 8, ranges }
}

fn reopened(dir: &Path) -> Arc<Checkpoints> {
    let opened = Checkpoints::open(dir).unwrap();
    assert!(opened.unwritable.is_none(), "{:?}", opened.unwritable);
    opened.checkpoints
}

#[test]
fn a_place_moves_when_its_block_is_safe_and_never_over_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = reopened(dir.path());
    let id = checkpoints.source(described("a", "/a"));
    let mut one = origin(vec![range(id, 0, 10)]);
    let mut two = origin(vec![range(id, 10, 20)]);
    checkpoints.intend(&mut one);
    checkpoints.intend(&mut two);
    assert_eq!((checkpoints.place(id).offset, checkpoints.resume(id).offset), (0, 20));
    checkpoints.settle(BatchSeq(2), &two);
    assert_eq!((checkpoints.place(id).offset, checkpoints.resume(id).offset), (0, 20));

    drop(checkpoints);
    let checkpoints = reopened(dir.path());
    assert_eq!((checkpoints.place(id).offset, checkpoints.resume(id).offset), (0, 20));
    assert_eq!(checkpoints.outstanding(), [one.clone()]);
    checkpoints.settle(BatchSeq(1), &one);
    assert_eq!(checkpoints.place(id), Place { offset: 20, cursor: "".into(), last_ns: 20 });
    assert_eq!(checkpoints.settled_up_to(), BatchSeq(2));
}

#[test]
fn an_intent_behind_a_gap_is_withdrawn_on_opening() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = reopened(dir.path());
    let id = checkpoints.source(described("a", "/a"));
    let mut two = origin(vec![range(id, 10, 20)]);
    checkpoints.intend(&mut two);
    assert_eq!(checkpoints.resume(id).offset, 0);
    let checkpoints = reopened(dir.path());
    assert!(checkpoints.outstanding().is_empty());
}

#[test]
fn cursors_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = reopened(dir.path());
    let journal = Described { kind: SourceKind::Journal, ..described("j", "/var/log/journal") };
    let id = checkpoints.source(journal.clone());
    let step = |from: &str, to: &str| Range {
        from_cursor: from.to_owned(),
        to_cursor: to.to_owned(),
        ..Range { from: 0, to: 0, ..range(id, 0, 7) }
    };
    let mut origins = [origin(vec![step("", "b")]), origin(vec![step("b", "a")])];
    origins.iter_mut().for_each(|origin| checkpoints.intend(origin));
    assert_eq!(&*checkpoints.resume(id).cursor, "a");
    checkpoints.settle(BatchSeq(1), &origins[0]);
    assert_eq!((&*checkpoints.place(id).cursor, &*checkpoints.resume(id).cursor), ("b", "a"));
    let checkpoints = reopened(dir.path());
    assert_eq!((&*checkpoints.place(id).cursor, &*checkpoints.resume(id).cursor), ("b", "a"));
    assert_eq!(checkpoints.sources("j"), [(id, journal)]);
}

#[test]
fn a_forgotten_source_stays_until_its_last_intent_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = reopened(dir.path());
    let id = checkpoints.source(described("a", "/a"));
    let mut one = origin(vec![range(id, 0, 10)]);
    checkpoints.intend(&mut one);
    checkpoints.forget(id);
    assert!(checkpoints.described(id).is_some() && checkpoints.sources("a").is_empty());
    let checkpoints = reopened(dir.path());
    assert!(checkpoints.described(id).is_some() && checkpoints.sources("a").is_empty());
    checkpoints.settle(BatchSeq(1), &one);
    assert!(checkpoints.described(id).is_none());
    assert!(checkpoints.source(described("a", "/b")) > id);
}

/// What a caller may do, in a form that can be drawn.
#[derive(Debug, Clone)]
enum Step {
    Source,
    Intend { source: usize, bytes: u64 },
    Settle { nth: usize },
    Forget { source: usize },
    Compact,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => Just(Step::Source),
        6 => (0..4_usize, 1..9_u64).prop_map(|(source, bytes)| Step::Intend { source, bytes }),
        4 => (0..5_usize).prop_map(|nth| Step::Settle { nth }),
        1 => (0..4_usize).prop_map(|source| Step::Forget { source }),
        1 => Just(Step::Compact),
    ];
    prop::collection::vec(step, 1..40)
}

/// Each source's place and where reading would go on.
type Seen = Vec<(SourceId, u64, u64)>;

fn seen(checkpoints: &Checkpoints, ids: &[SourceId]) -> Seen {
    ids.iter().map(|id| (*id, checkpoints.place(*id).offset, checkpoints.resume(*id).offset)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Wherever the file is cut, what is read back is what was known after some step, and nothing is ahead of it.
    #[test]
    fn cut_anywhere_the_file_says_what_was_so_after_some_step(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = reopened(dir.path());
        let path = dir.path().join(FILE_NAME);
        let mut ids: Vec<SourceId> = Vec::new();
        let mut ends: Vec<u64> = Vec::new();
        let mut waiting: Vec<Origin> = Vec::new();
        let mut history: Vec<(u64, Seen)> = Vec::new();
        let mut compacted = 0;
        let mut seq = 0;
        for step in steps {
            match step {
                Step::Source => {
                    ids.push(checkpoints.source(described("a", "/a")));
                    ends.push(0);
                }
                Step::Intend { source, bytes } if source < ids.len() => {
                    let mut made = origin(vec![range(ids[source], ends[source], ends[source] + bytes)]);
                    ends[source] += bytes;
                    checkpoints.intend(&mut made);
                    waiting.push(made);
                }
                Step::Settle { nth } if nth < waiting.len() => {
                    seq += 1;
                    checkpoints.settle(BatchSeq(seq), &waiting.remove(nth));
                }
                Step::Forget { source } if source < ids.len() && waiting.is_empty() => {
                    checkpoints.forget(ids.remove(source));
                    ends.remove(source);
                }
                Step::Compact => {
                    checkpoints.compact_now().unwrap();
                    compacted = fs::metadata(&path).unwrap().len();
                    history.clear();
                }
                _ => {}
            }
            let all: Vec<SourceId> = (1..=ids.iter().copied().max().unwrap_or(0)).collect();
            history.push((fs::metadata(&path).unwrap().len(), seen(&checkpoints, &all)));
        }
        prop_assert_eq!(&checkpoints.outstanding(), &waiting);
        let whole = fs::read(&path).unwrap();
        for cut in (compacted as usize).max(record::MAGIC.len())..=whole.len() {
            let mut again = State::default();
            let back = record::read(&whole[record::MAGIC.len()..cut]);
            prop_assert_eq!(back.damaged_bytes, 0);
            back.records.into_iter().for_each(|what| again.apply(what));
            again.withdraw_unreachable();
            if let Some((_, was)) = history.iter().rev().find(|(len, _)| *len <= cut as u64) {
                for (id, place, resume) in was {
                    let now = (again.place(*id).offset, again.resume(*id).offset);
                    prop_assert_eq!(now, (*place, *resume), "source {} cut at {}", id, cut);
                }
            }
        }
    }

    #[test]
    fn a_flipped_bit_never_puts_a_place_ahead_of_what_was_settled(at: prop::sample::Index, bit in 0..8_u8) {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = reopened(dir.path());
        let id = checkpoints.source(described("a", "/a"));
        for n in 0..6 {
            let mut made = origin(vec![range(id, 10 * n, 10 * n + 10)]);
            checkpoints.intend(&mut made);
            if n < 4 {
                checkpoints.settle(BatchSeq(n), &made);
            }
        }
        let path = dir.path().join(FILE_NAME);
        let mut bytes = fs::read(&path).unwrap();
        let at = record::MAGIC.len() + at.index(bytes.len() - record::MAGIC.len());
        bytes[at] ^= 1 << bit;
        fs::write(&path, bytes).unwrap();
        let again = reopened(dir.path());
        let (place, resume) = (again.place(id).offset, again.resume(id).offset);
        prop_assert!(place <= 40 && resume <= 60);
        let covered: u64 = again.outstanding().iter().flat_map(|o| &o.ranges).map(|r| r.to - r.from).sum();
        prop_assert!(resume - place <= covered + 40, "{} {} {}", place, resume, covered);
    }
}

#[test]
fn damage_within_is_told_and_a_torn_tail_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = reopened(dir.path());
    checkpoints.source(described("a", "/a"));
    let first_end = fs::metadata(dir.path().join(FILE_NAME)).unwrap().len() as usize;
    checkpoints.source(described("a", "/b"));
    let path = dir.path().join(FILE_NAME);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let opened = Checkpoints::open(dir.path()).unwrap();
    assert!(opened.warning.is_none() && opened.checkpoints.sources("a").len() == 1);
    let mut damaged = whole;
    damaged[first_end - 2] ^= 1;
    fs::write(&path, damaged).unwrap();
    let opened = Checkpoints::open(dir.path()).unwrap();
    assert!(opened.warning.unwrap().contains("damaged"));
    assert_eq!(&*opened.checkpoints.sources("a")[0].1.path, Path::new("/b"));
}

#[test]
fn the_file_stays_in_proportion_and_what_comes_while_it_is_compacted_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = reopened(dir.path());
    let id = checkpoints.source(described("a", "/a"));
    for n in 0..40_000 {
        let mut made = origin(vec![range(id, n, n + 1)]);
        checkpoints.intend(&mut made);
        checkpoints.settle(BatchSeq(n), &made);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while checkpoints.kept.lock().meanwhile.is_some() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let bytes = fs::metadata(dir.path().join(FILE_NAME)).unwrap().len();
    assert!(bytes < 6 << 20, "{bytes}");
    drop(checkpoints);
    assert_eq!(reopened(dir.path()).place(id).offset, 40_000);
}

#[test]
fn where_no_new_file_can_be_made_the_old_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = reopened(dir.path());
    let id = checkpoints.source(described("a", "/a"));
    let mut one = origin(vec![range(id, 0, 10)]);
    checkpoints.intend(&mut one);
    drop(checkpoints);
    // Root writes where it may not: a directory in the way of the new file fails for everybody.
    let in_the_way = dir.path().join(FILE_NAME).with_extension("new");
    fs::create_dir(&in_the_way).unwrap();
    let opened = Checkpoints::open(dir.path()).unwrap();
    assert!(opened.unwritable.is_none() && opened.checkpoints.trouble().is_none());
    assert!(opened.checkpoints.take_records(), "the old file has room");
    opened.checkpoints.settle(BatchSeq(1), &one);
    assert_eq!(opened.checkpoints.place(id).offset, 10);
    assert_eq!(Checkpoints::open(dir.path()).unwrap().checkpoints.place(id).offset, 10, "after a kill");
    fs::remove_dir(&in_the_way).unwrap();
    opened.checkpoints.sync().unwrap();
    assert!(opened.checkpoints.trouble().is_none());
    assert_eq!(reopened(dir.path()).place(id).offset, 10);
}

#[test]
fn where_nothing_can_be_written_nothing_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let opened = Checkpoints::open(&dir.path().join("file/logs")).unwrap();
    assert!(opened.unwritable.is_some() && !opened.checkpoints.take_records());
    fs::remove_file(dir.path().join("file")).unwrap();
    fs::create_dir_all(dir.path().join("file/logs")).unwrap();
    opened.checkpoints.sync().unwrap();
    assert!(opened.checkpoints.take_records());
}

#[test]
fn another_format_is_refused_with_words_and_rubbish_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    fs::write(&path, "pegel log checkpoints 2\nx").unwrap();
    assert!(Checkpoints::open(dir.path()).unwrap_err().to_string().contains("newer version"));
    fs::write(&path, "rubbish").unwrap();
    assert!(Checkpoints::open(dir.path()).unwrap().warning.unwrap().contains("set aside"));
    assert!(path.with_extension("damaged").exists());
}

#[test]
fn a_source_s_note_is_kept_and_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = reopened(dir.path());
    let id = checkpoints.source(described("a", "/a"));
    checkpoints.put_note(id, b"one");
    checkpoints.put_note(id, b"two");
    for _ in 0..2 {
        // From its own record, and from the compacted file.
        assert_eq!(reopened(dir.path()).note(id), b"two");
    }
    let checkpoints = reopened(dir.path());
    checkpoints.forget(id);
    assert_eq!(checkpoints.note(id), b"");
    assert_eq!(reopened(dir.path()).note(id), b"");
}
