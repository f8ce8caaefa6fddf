//! Bodies of fuzz targets: plain functions that panic on what must not happen.

use super::entry::Entry;
use super::export::Parser;
use super::file::{JournalFile, Wanted};

/// A journal file of any bytes: reading it ends, without a panic, and gives no more entries than the header says.
pub fn journal_file(input: &[u8]) {
    let Ok(mut file) = JournalFile::open(input.to_vec()) else { return };
    let announced = file.header().entries;
    let mut entry = Entry::default();
    let mut entries = 0;
    let mut last = None;
    while let Ok(Some((at, cursor))) = file.peek() {
        let _ = file.read(at, &Wanted::all(), &mut entry);
        for (name, _) in entry.fields() {
            assert!(!name.is_empty() && !name.contains(&b'='));
        }
        entries += 1;
        last = Some(cursor);
        file.pass();
    }
    assert!(entries <= announced);
    if let Some(last) = last {
        let _ = file.seek_after(&last);
        let _ = file.seek_newest();
    }
}

/// The export format: what is read does not depend on the pieces in which it comes.
pub fn journal_export(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    let whole = parse(bytes, bytes.len().max(1));
    assert_eq!(parse(bytes, usize::from(*first % 7) + 1), whole);
}

type Read = Vec<(String, Vec<(Vec<u8>, Vec<u8>)>)>;

fn parse(bytes: &[u8], pieces: usize) -> Read {
    let mut parser = Parser::default();
    let mut entry = Entry::default();
    let mut read = Vec::new();
    for piece in bytes.chunks(pieces) {
        parser.push(piece);
        while parser.next(&mut entry) {
            let fields = entry.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            read.push((entry.cursor.to_string(), fields));
        }
    }
    read
}
