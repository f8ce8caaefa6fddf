//! Who is meant by a complaint: finds the refused entries in the piece that was sent. If the complaint does not account
//! for exactly as many entries as it counts, nothing is concluded.

use super::complaint::{Fault, Ignored, Named};
use super::labels::{Labels, parse, spell, without_additions};
use super::piece::{Piece, Record};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

/// A refused entry, and which of the complaints is about it.
pub(super) type Blamed = (Record, usize);

/// The entries that the distributor left out.
pub(super) fn left_out(piece: &Piece, named: &[Named]) -> Option<Vec<Blamed>> {
    let places = places(piece);
    let mut order: Vec<usize> = (0..named.len()).collect();
    // An entry is refused for the first fault that is found.
    order.sort_by_key(|i| named[*i].fault);
    let mut found = Vec::new();
    let mut blamed: HashSet<Record> = HashSet::new();
    // There may be a complaint for each second of a backlog: entries are looked up, not gone through for each.
    let mut marks: HashMap<(usize, Mark), HashMap<i64, Vec<Record>>> = HashMap::new();
    for i in order {
        let Named { count, labels, fault, .. } = &named[i];
        let at = place(&places, labels)?;
        let records = piece.groups[at].records();
        let mut meant = match mark(*fault) {
            None => records.to_vec(),
            Some((mark, value)) => {
                let by_value = marks.entry((at, mark)).or_insert_with(|| marked(piece, records, mark));
                by_value.get(&value).cloned().unwrap_or_default()
            }
        };
        meant.retain(|record| !blamed.contains(record));
        if *fault != Fault::Labels {
            let count = usize::try_from(*count).ok()?;
            // The bound lies within a second: of those in it, the oldest are too old, the newest too new.
            match fault {
                Fault::TooOld(_) => meant.sort_by_key(|record| piece.entry(*record).at_ns()),
                Fault::TooNew(_) => meant.sort_by_key(|record| Reverse(piece.entry(*record).at_ns())),
                _ if meant.len() != count => return None,
                _ => {}
            }
            if meant.len() < count {
                return None;
            }
            meant.truncate(count);
        }
        blamed.extend(&meant);
        found.extend(meant.into_iter().map(|record| (record, i)));
    }
    Some(found)
}

/// What a complaint tells entries by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mark {
    Second,
    LineBytes,
    MetadataBytes,
    MetadataCount,
    HasMetadata,
}

/// The mark of a fault's entries, and its value; none if all of the stream are meant.
fn mark(fault: Fault) -> Option<(Mark, i64)> {
    Some(match fault {
        Fault::Labels => return None,
        Fault::TooOld(second) | Fault::TooNew(second) => (Mark::Second, second),
        Fault::LineTooLong(bytes) => (Mark::LineBytes, i64::try_from(bytes).ok()?),
        Fault::NoMetadata => (Mark::HasMetadata, 1),
        Fault::MetadataTooLarge(bytes) => (Mark::MetadataBytes, i64::try_from(bytes).ok()?),
        Fault::MetadataTooMany(count) => (Mark::MetadataCount, i64::try_from(count).ok()?),
    })
}

fn marked(piece: &Piece, records: &[Record], mark: Mark) -> HashMap<i64, Vec<Record>> {
    let mut by_value: HashMap<i64, Vec<Record>> = HashMap::new();
    for record in records {
        let entry = piece.entry(*record);
        // `detected_level` is Loki's own and does not count (`StructuredMetadataSize` in pkg/util/entry_size.go).
        let metadata = || entry.metadata().filter(|(name, _)| *name != "detected_level");
        let value = match mark {
            Mark::Second => entry.at_ns().div_euclid(1_000_000_000),
            Mark::LineBytes => entry.line_bytes().len() as i64,
            Mark::MetadataBytes => {
                metadata().map(|(name, value)| name.len() + value.len()).sum::<usize>() as i64
            }
            Mark::MetadataCount => entry.metadata().len() as i64,
            Mark::HasMetadata => i64::from(entry.metadata().len() > 0),
        };
        by_value.entry(value).or_default().push(*record);
    }
    by_value
}

/// What an ingester did not take of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// Exactly these.
    These(Vec<Record>),
    /// Not all that was sent came to the ingester, or it does not name all: so many at the front are stored, what
    /// became of the rest is not known.
    After(usize),
}

/// The place of the stream that a complaint is about.
pub(super) fn stream_of(piece: &Piece, labels: &Labels) -> Option<usize> {
    place(&places(piece), labels)
}

/// What a complaint about the group at a place says of its entries.
pub(super) fn not_taken(piece: &Piece, at: usize, ignored: &Ignored) -> NotTaken {
    let records = piece.groups[at].records();
    if ignored.of != records.len() as u64 || ignored.mixed {
        // The distributor left some out, or split the stream: it does not say which these are.
        return NotTaken::After(0);
    }
    if ignored.count == ignored.of {
        return NotTaken::These(records.to_vec());
    }
    let named: BTreeSet<i64> = ignored.named.iter().copied().collect();
    let first = records.iter().position(|record| named.contains(&piece.entry(*record).at_ns())).unwrap_or(0);
    if ignored.named.len() as u64 == ignored.count {
        let mut left = ignored.named.clone();
        let these: Vec<Record> = records
            .iter()
            .copied()
            .filter(|record| {
                let at_ns = piece.entry(*record).at_ns();
                let found = left.iter().position(|named| *named == at_ns);
                found.map(|i| left.swap_remove(i)).is_some()
            })
            .collect();
        return if left.is_empty() { NotTaken::These(these) } else { NotTaken::After(0) };
    }
    if !ignored.limited {
        // Too far behind are the oldest; but the bound moves with the entries, so only in order is that sure.
        let times: Vec<i64> = records.iter().map(|record| piece.entry(*record).at_ns()).collect();
        if times.is_sorted() {
            return NotTaken::These(records[..ignored.count as usize].to_vec());
        }
    }
    NotTaken::After(first)
}

/// The places of streams by their labels as Loki may write them.
fn places(piece: &Piece) -> HashMap<&str, usize> {
    piece.groups.iter().enumerate().map(|(at, group)| (&*group.stream, at)).collect()
}

fn place(places: &HashMap<&str, usize>, labels: &Labels) -> Option<usize> {
    let find = |keep_service| {
        let labels = without_additions(labels.clone(), keep_service);
        places.get(spell(labels.iter().map(|(n, v)| (n.as_str(), v.as_str()))).as_str()).copied()
    };
    find(true).or_else(|| find(false))
}

/// Whether labels that Loki shows are those of a stream of ours.
pub(super) fn is_stream(stream: &str, labels: &Labels) -> bool {
    let Some((own, _)) = parse(stream) else { return false };
    let keep_service = own.iter().any(|(name, _)| name == "service_name");
    without_additions(labels.clone(), keep_service) == own
}
