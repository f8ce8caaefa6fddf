use super::file::JournalFile;
use super::input::{Parts, run};
use super::{
    Cursor, Directory, Entry, Fields, Id, Journal, Reader, Settings, Start, Status, Wanted, fuzzing,
};
use crate::intake::{Inbox, log_intake};
use crate::source::log::checkpoints::Checkpoints;
use crate::source::log::cutter::Cutter;
use crate::source::log::origin::Origin;
use crate::source::log::shape::{self, Shaper};
use parking_lot::Mutex;
use pegel_proto::batch::{BatchSeq, Content, Logs};
use pegel_runtime::metrics::Registry;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How a writer stores a field.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Packed {
    Plain,
    Zstd,
    Lz4,
}

/// Writes journal files as journald does, as far as readers look.
#[derive(Clone)]
struct Writer {
    compact: bool,
    packed: Packed,
    file_id: u8,
    seqnum_id: u8,
    state: u8,
    entries: Vec<(u64, Vec<(String, String)>)>,
}

const BOOT: Id = Id([7; 16]);
const FIRST_US: u64 = 1_795_275_276_000_000;

impl Writer {
    fn new(file_id: u8) -> Self {
        Self { compact: true, packed: Packed::Plain, file_id, seqnum_id: 3, state: 1, entries: Vec::new() }
    }

    fn entry(mut self, seqnum: u64, message: &str) -> Self {
        let fields = [("MESSAGE", message), ("PRIORITY", "6"), ("_SYSTEMD_UNIT", "a.service"), ("_PID", "1")];
        let fields = fields.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
        self.entries.push((seqnum, fields));
        self
    }

    fn entries(self, seqnums: impl IntoIterator<Item = u64>) -> Self {
        seqnums.into_iter().fold(self, |writer, n| writer.entry(n, &format!("message {n}")))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0; 272];
        let (mut first, mut array) = (0, 0);
        let item = if self.compact { 4 } else { 8 };
        for (nth, (seqnum, fields)) in self.entries.iter().enumerate() {
            // As journald does, so that a longer file begins with the shorter one's bytes.
            if nth % 4 == 0 {
                let before = array;
                array = object(&mut out, 6, 0, &vec![0; 8 + 4 * item]);
                if nth == 0 {
                    first = array;
                } else {
                    put(&mut out, before as usize + 16, array);
                }
            }
            let mut items = Vec::new();
            for (name, value) in fields {
                items.push(self.data(&mut out, format!("{name}={value}").as_bytes()));
            }
            let mut body = Vec::new();
            for number in [*seqnum, FIRST_US + seqnum, 1_000 + seqnum] {
                body.extend_from_slice(&number.to_le_bytes());
            }
            body.extend_from_slice(&BOOT.0);
            body.extend_from_slice(&(seqnum * 77).to_le_bytes());
            for item in items {
                self.offset(&mut body, item);
                if !self.compact {
                    body.extend_from_slice(&[0; 8]);
                }
            }
            let at = object(&mut out, 3, 0, &body);
            let place = array as usize + 24 + (nth % 4) * item;
            out[place..place + item].copy_from_slice(&at.to_le_bytes()[..item]);
        }
        out[..8].copy_from_slice(b"LPKSHHRH");
        let flags: u32 = if self.compact { 0x1c } else { 0x0c } | 2;
        out[12..16].copy_from_slice(&flags.to_le_bytes());
        out[16] = self.state;
        out[24..40].copy_from_slice(&[self.file_id; 16]);
        out[72..88].copy_from_slice(&[self.seqnum_id; 16]);
        put(&mut out, 88, 272);
        let arena = out.len() as u64 - 272;
        put(&mut out, 96, arena);
        put(&mut out, 152, self.entries.len() as u64);
        put(&mut out, 160, self.entries.last().map_or(0, |(seqnum, _)| *seqnum));
        put(&mut out, 168, self.entries.first().map_or(0, |(seqnum, _)| *seqnum));
        put(&mut out, 176, first);
        out
    }

    fn offset(&self, body: &mut Vec<u8>, at: u64) {
        let bytes = at.to_le_bytes();
        body.extend_from_slice(&bytes[..if self.compact { 4 } else { 8 }]);
    }

    fn data(&self, out: &mut Vec<u8>, payload: &[u8]) -> u64 {
        let mut body = vec![0; if self.compact { 56 } else { 48 }];
        let flags = match self.packed {
            Packed::Plain => 0,
            Packed::Lz4 => 2,
            Packed::Zstd => 4,
        };
        match self.packed {
            Packed::Plain => body.extend_from_slice(payload),
            Packed::Zstd => body.extend_from_slice(&zstd::bulk::compress(payload, 1).unwrap()),
            Packed::Lz4 => {
                body.extend_from_slice(&(payload.len() as u64).to_le_bytes());
                body.extend_from_slice(&lz4_flex::block::compress(payload));
            }
        }
        object(out, 1, flags, &body)
    }

    fn write(&self, path: &Path) {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
        let bytes = self.bytes();
        // The header comes last: what it speaks of is there.
        file.write_all_at(&bytes[272..], 272).unwrap();
        file.write_all_at(&bytes[..272], 0).unwrap();
    }
}

fn put(out: &mut [u8], at: usize, number: u64) {
    out[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn object(out: &mut Vec<u8>, kind: u8, flags: u8, body: &[u8]) -> u64 {
    out.resize(out.len().next_multiple_of(8), 0);
    let at = out.len() as u64;
    out.extend_from_slice(&[kind, flags, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&(16 + body.len() as u64).to_le_bytes());
    out.extend_from_slice(body);
    at
}

fn messages(file: &mut JournalFile<Vec<u8>>) -> Vec<String> {
    let mut entry = Entry::default();
    let mut read = Vec::new();
    while let Some((at, _)) = file.peek().unwrap() {
        file.read(at, &Wanted::all(), &mut entry).unwrap();
        assert_eq!((entry.damaged, entry.fields().count()), (0, 4));
        read.push(String::from_utf8(entry.field("MESSAGE").unwrap().to_vec()).unwrap());
        file.pass();
    }
    read
}

#[test]
fn all_forms_of_files_are_read_and_sought_in() {
    for compact in [false, true] {
        for packed in [Packed::Plain, Packed::Zstd, Packed::Lz4] {
            let writer = Writer { compact, packed, ..Writer::new(1).entries(10..30) };
            let mut file = JournalFile::open(writer.bytes()).unwrap();
            let all = messages(&mut file);
            let expected: Vec<String> = (10..30).map(|n| format!("message {n}")).collect();
            assert_eq!(all, expected, "{compact} {packed:?}");
            for after in 9..31 {
                let cursor = Cursor {
                    seqnum_id: Id([3; 16]),
                    seqnum: after,
                    boot_id: BOOT,
                    monotonic_us: 1_000 + after,
                    realtime_us: FIRST_US + after,
                    xor_hash: after * 77,
                };
                file.seek_after(&cursor).unwrap();
                let from = (after.max(9) - 9).min(20) as usize;
                assert_eq!(messages(&mut file), expected[from..], "after {after}");
            }
            file.seek_newest().unwrap();
            assert_eq!(messages(&mut file), expected[19..]);
            file.seek(|entry| entry.boot_id != BOOT).unwrap();
            assert_eq!(messages(&mut file), expected);
        }
    }
}

#[test]
fn only_wanted_fields_are_read_and_long_ones_are_cut() {
    let long = "x".repeat(3 << 20);
    for packed in [Packed::Plain, Packed::Zstd, Packed::Lz4] {
        let writer = Writer { packed, ..Writer::new(1).entry(1, &long) };
        let mut file = JournalFile::open(writer.bytes()).unwrap();
        let (at, _) = file.peek().unwrap().unwrap();
        let mut entry = Entry::default();
        file.read(at, &Wanted::only(["_PID"]), &mut entry).unwrap();
        assert_eq!(entry.fields().collect::<Vec<_>>(), [(&b"_PID"[..], &b"1"[..])]);
        let mut file = JournalFile::open(writer.bytes()).unwrap();
        file.read(at, &Wanted::only(["MESSAGE"]), &mut entry).unwrap();
        assert_eq!(entry.oversized, 1, "{packed:?}");
        let kept = entry.field("MESSAGE").unwrap().len();
        assert!((1 << 20..(1 << 20) + 100).contains(&kept), "{kept}");
    }
}

#[test]
fn damage_anywhere_neither_panics_nor_loops() {
    for compact in [false, true] {
        let packed = if compact { Packed::Zstd } else { Packed::Lz4 };
        let bytes = Writer { compact, packed, ..Writer::new(1).entries(1..7) }.bytes();
        for cut in (0..bytes.len()).step_by(7) {
            fuzzing::journal_file(&bytes[..cut]);
        }
        for at in (0..bytes.len()).step_by(if compact { 3 } else { 2 }) {
            for value in [0xff, bytes[at] ^ 0x10] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                fuzzing::journal_file(&damaged);
            }
        }
    }
}

#[test]
fn the_export_format_is_read_from_any_pieces() {
    let mut seed = vec![3];
    seed.extend_from_slice(b"__CURSOR=s=1;x\nMESSAGE=a = b\nB\n");
    seed.extend_from_slice(&5_u64.to_le_bytes());
    seed.extend_from_slice(b"\n\n=\x00x\n__REALTIME_TIMESTAMP=5\nbad line\n\n\n_PID=1\n\n");
    for pieces in 0..7 {
        seed[0] = pieces;
        fuzzing::journal_export(&seed);
    }
    let mut parser = super::Parser::default();
    parser.push(&seed[1..]);
    let mut entry = Entry::default();
    assert!(parser.next(&mut entry));
    assert_eq!((entry.field("MESSAGE"), entry.field("B")), (Some(&b"a = b"[..]), Some(&b"\n\n=\x00x"[..])));
    assert_eq!(entry.damaged, 2, "a cursor that is none, and a line that is no field");
    assert!(parser.next(&mut entry));
    assert_eq!((entry.field("MESSAGE"), entry.field("_PID")), (None, Some(&b"1"[..])));
    assert!(!parser.next(&mut entry));
}

fn open(dir: &Path, start: Start) -> Directory {
    Directory::open(vec![dir.to_owned()], Wanted::all(), start).unwrap()
}

fn drain(journal: &mut Directory) -> Vec<String> {
    let mut entry = Entry::default();
    let mut read = Vec::new();
    while journal.next(&mut entry).unwrap() {
        read.push(String::from_utf8_lossy(entry.field("MESSAGE").unwrap()).into_owned());
    }
    read
}

fn numbered(seqnums: impl IntoIterator<Item = u64>) -> Vec<String> {
    seqnums.into_iter().map(|n| format!("message {n}")).collect()
}

#[test]
fn files_are_one_journal_across_rotation_and_growth() {
    let dir = tempfile::tempdir().unwrap();
    let (system, user) = (dir.path().join("system.journal"), dir.path().join("user-1000.journal"));
    let written = Writer::new(1).entries((1..40).filter(|n| n % 3 != 0));
    written.write(&system);
    Writer::new(2).entries((1..40).filter(|n| n % 3 == 0)).write(&user);
    let mut journal = open(dir.path(), Start::Beginning);
    assert_eq!(drain(&mut journal), numbered(1..40));

    // It grows, is rotated, and a new one takes its place.
    let written = written.entries(40..43);
    Writer { state: 2, ..written }.write(&system);
    std::fs::rename(&system, dir.path().join("system@x.journal")).unwrap();
    Writer::new(4).entries(43..50).write(&system);
    let mut all = drain(&mut journal);
    let deadline = Instant::now() + Duration::from_secs(5);
    while all.len() < 10 && Instant::now() < deadline {
        journal.wait(Duration::from_millis(20));
        all.extend(drain(&mut journal));
    }
    assert_eq!(all, numbered(40..50));
    assert_eq!(journal.trouble(), super::Trouble::default());

    // From a cursor, from the end, and from the boot.
    let mut entry = Entry::default();
    let mut again = open(dir.path(), Start::Beginning);
    for _ in 0..20 {
        assert!(again.next(&mut entry).unwrap());
    }
    assert_eq!(drain(&mut open(dir.path(), Start::After(entry.cursor))), numbered(21..50));
    assert_eq!(drain(&mut open(dir.path(), Start::Boot(BOOT))), numbered(1..50));
    let mut end = open(dir.path(), Start::End);
    assert!(drain(&mut end).is_empty());
    assert_eq!(end.place().map(|cursor| cursor.seqnum), Some(49));
}

#[test]
fn an_entry_in_two_files_is_given_once() {
    let dir = tempfile::tempdir().unwrap();
    Writer { seqnum_id: 9, ..Writer::new(1).entries(1..10) }.write(&dir.path().join("a.journal"));
    Writer::new(2).entries(1..20).write(&dir.path().join("b.journal"));
    assert_eq!(drain(&mut open(dir.path(), Start::Beginning)), numbered(1..20));
}

#[test]
fn a_damaged_file_is_set_aside_with_a_count_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let damaged = Writer { state: 2, ..Writer::new(1).entries((1..40).step_by(2)) };
    let mut bytes = damaged.bytes();
    // The chain of arrays ends behind four entries.
    let first = super::header::number(&bytes, 176) as usize;
    put(&mut bytes, first + 16, 0);
    std::fs::write(dir.path().join("damaged.journal"), bytes).unwrap();
    Writer::new(2).entries((2..40).step_by(2)).write(&dir.path().join("whole.journal"));
    std::fs::write(dir.path().join("nothing.journal"), b"not a journal").unwrap();
    let mut journal = open(dir.path(), Start::Beginning);
    let read = drain(&mut journal);
    let expected: Vec<u64> = (1..40).filter(|n| n % 2 == 0 || *n <= 7).collect();
    assert_eq!(read, numbered(expected));
    let trouble = journal.trouble();
    assert_eq!((trouble.damaged_files, trouble.damaged_entries), (1, 16));
}

#[test]
fn an_unknown_format_is_for_journalctl() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Writer::new(1).entries(1..3).bytes();
    bytes[12] |= 0x80;
    std::fs::write(dir.path().join("a.journal"), bytes).unwrap();
    let opened = Directory::open(vec![dir.path().to_owned()], Wanted::all(), Start::Beginning);
    assert!(matches!(opened.err(), Some(super::JournalError::Format { .. })));
}

/// An input on a thread of its own, as the agent runs it.
struct Running {
    inbox: Inbox,
    checkpoints: Arc<Checkpoints>,
    shutdown: CancellationToken,
    thread: std::thread::JoinHandle<()>,
    registry: Registry,
}

fn start(state: &Path, settings: Settings) -> Running {
    let checkpoints = Checkpoints::open(state).unwrap().checkpoints;
    let (intake, receiver) = log_intake();
    let shutdown = CancellationToken::new();
    let registry = Registry::new();
    let labels = BTreeMap::from([("job".to_owned(), "journal".to_owned())]);
    let parts = Parts {
        name: "journal".to_owned(),
        fields: Fields::new(&settings, &labels),
        settings,
        shaper: Shaper::new(&shape::Settings::default()),
        cutter: Cutter::new(checkpoints.clone(), intake, 1),
        registry: registry.clone(),
        shutdown: shutdown.clone(),
        status: Arc::new(Mutex::new(Status::default())),
    };
    let thread = std::thread::spawn(move || run(parts));
    Running { inbox: Inbox::Logs(receiver), checkpoints, shutdown, thread, registry }
}

impl Running {
    /// Blocks until so many entries are there.
    fn blocks(&mut self, entries: u32) -> Vec<Logs> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut blocks: Vec<Logs> = Vec::new();
        while blocks.iter().map(|logs| logs.block.entries).sum::<u32>() < entries {
            assert!(Instant::now() < deadline, "{entries} entries within 10 s, but {blocks:?}");
            match self.inbox.take_now() {
                Some(Content::Logs(logs)) => blocks.push(logs),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        blocks
    }

    fn stop(self) {
        self.shutdown.cancel();
        self.thread.join().unwrap();
    }
}

fn lines(blocks: &[Logs]) -> Vec<String> {
    blocks
        .iter()
        .flat_map(|logs| {
            let block = logs.block.decode().unwrap();
            block.entries().map(|entry| entry.line().to_owned()).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_killed_input_builds_the_same_blocks_again_and_goes_on_behind_them() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("system.journal");
    let settings =
        Settings { directory: Some(dir.path().to_owned()), reader: Reader::Files, ..Settings::default() };
    let settings = Settings { begin: super::Begin::Beginning, ..settings };
    Writer::new(1).entries(1..20).write(&path);
    let mut first = start(state.path(), settings.clone());
    let settled = first.blocks(19);
    for (nth, logs) in settled.iter().enumerate() {
        first.checkpoints.safe(BatchSeq(nth as u64), logs);
    }
    assert_eq!(lines(&settled), numbered(1..20));
    let block = settled[0].block.decode().unwrap();
    let entry = block.entries().next().unwrap();
    let labels: Vec<_> = block.labels(entry.stream()).collect();
    let expected = [("job", "journal"), ("level", "info"), ("unit", "a.service")];
    assert_eq!(labels, expected);
    assert_eq!(entry.at_ns(), (FIRST_US as i64 + 1) * 1_000);
    assert_eq!(entry.metadata().collect::<Vec<_>>(), [("pid", "1")]);

    // These were handed over and nobody says that they are safe.
    Writer::new(1).entries(1..40).write(&path);
    let unsettled = first.blocks(20);
    first.stop();
    Writer::new(1).entries(1..45).write(&path);
    let mut second = start(state.path(), settings.clone());
    let again = second.blocks(25);
    let (rebuilt, fresh): (Vec<_>, Vec<_>) = again.into_iter().partition(|logs| logs.rebuilt);
    assert_eq!(lines(&rebuilt), numbered(20..40));
    assert_eq!(lines(&fresh), numbered(40..45));
    for (before, after) in unsettled.iter().zip(&rebuilt) {
        assert_eq!(before.block, after.block);
        assert_eq!(Origin::from_bytes(&before.origin), Origin::from_bytes(&after.origin));
    }
    for (nth, logs) in rebuilt.iter().chain(&fresh).enumerate() {
        second.checkpoints.safe(BatchSeq(100 + nth as u64), logs);
    }
    second.stop();

    // Nothing is left to be built again, and what was vacuumed is counted as lost.
    Writer::new(1).entries(1..50).write(&path);
    let mut third = start(state.path(), settings.clone());
    assert_eq!(lines(&third.blocks(5)), numbered(45..50));
    third.stop();
    std::fs::remove_file(&path).unwrap();
    Writer { file_id: 5, ..Writer::new(1).entries(60..65) }.write(&path);
    let mut fourth = start(state.path(), settings);
    assert_eq!(lines(&fourth.blocks(5)), numbered(60..65));
    assert_eq!(fourth.inbox.take_lost(), 5);
    // And what nobody had seen before it was deleted.
    let metrics = fourth.registry.render();
    assert!(metrics.contains("pegel_log_journal_vacuumed_entries_total{input=\"journal\"} 10"), "{metrics}");
    fourth.stop();
}

#[test]
fn filters_leave_out_and_count_and_the_place_moves_on() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut writer = Writer::new(1).entries(1..10);
    for (seqnum, fields) in &mut writer.entries {
        if *seqnum % 2 == 0 {
            fields[2].1 = "b@1.service".to_owned();
        }
        if *seqnum == 4 {
            fields[1].1 = "7".to_owned();
        }
        if *seqnum == 6 {
            fields[0].0 = "NO_MESSAGE".to_owned();
        }
    }
    writer.write(&dir.path().join("a.journal"));
    let glob = globset::GlobSet::builder().add(globset::Glob::new("b@*").unwrap()).build().unwrap();
    let settings = Settings {
        directory: Some(dir.path().to_owned()),
        begin: super::Begin::Beginning,
        units: Some(glob),
        priority: 6,
        ..Settings::default()
    };
    let mut running = start(state.path(), settings);
    assert_eq!(lines(&running.blocks(2)), numbered([2, 8]));
    let metrics = running.registry.render();
    assert!(metrics.contains("pegel_log_journal_filtered_entries_total{input=\"journal\"} 6"), "{metrics}");
    assert!(
        metrics.contains("pegel_log_journal_without_message_entries_total{input=\"journal\"} 1"),
        "{metrics}"
    );
    running.stop();
}
