//! Who is meant by a 2.0 refusal: finds the refused records in Prometheus' message, without sending anything again.
//!
//! `writeV2` (storage/remote/write_handler.go) stores the good samples and answers 400 with one line for each
//! refused one, `REASON for series LABELS`, in the order of the request. If the lines do not account for exactly
//! the samples that were not written, nothing is concluded.

use super::answer::known_reason;
use super::piece::{Group, Piece, Record};
use crate::session::ResolvedSeries;
use crate::symbols::SymbolView;
use pegel_proto::batch::RejectReason;
use std::fmt::Write as _;

/// A record that the message names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Blamed<'m> {
    pub record: Record,
    pub reason: RejectReason,
    /// What the backend says of it.
    pub message: &'m str,
}

/// The refused records, in the order of the piece, if the message names exactly `refused` of them.
pub(super) fn blamed<'m>(
    piece: &Piece,
    message: &'m str,
    refused: u64,
    view: &SymbolView<'_>,
) -> Option<Vec<Blamed<'m>>> {
    let mut lines: Vec<&str> = message.trim_end_matches('\n').split('\n').collect();
    if lines.len() as u64 != refused {
        return None;
    }
    lines.reverse();
    let mut found = Vec::new();
    let mut labels = String::new();
    for group in &piece.groups {
        for index in group.first..group.first + group.len {
            let Some(next) = lines.last() else { return Some(found) };
            let (_, named) = next.split_once(" for series ")?;
            spell(&mut labels, &group.set.series[index as usize], view);
            if labels != named {
                continue;
            }
            let mut of_series = Vec::new();
            while of_series.len() < group.parts.len()
                && let Some((text, _)) = lines
                    .last()
                    .and_then(|l| l.split_once(" for series "))
                    .filter(|(_, named)| *named == labels)
            {
                of_series.push((known_reason(text)?, text));
                lines.pop();
            }
            assign(group, index, &of_series, &mut found)?;
        }
    }
    lines.is_empty().then_some(found)
}

/// Which samples of one series are meant: a duplicate error has the time; too old and out of order are the oldest,
/// too far ahead are the newest.
fn assign<'m>(
    group: &Group,
    index: u32,
    lines: &[(RejectReason, &'m str)],
    found: &mut Vec<Blamed<'m>>,
) -> Option<()> {
    let mut blame: Vec<Option<(RejectReason, &str)>> = vec![None; group.parts.len()];
    let stamp = |part: usize| group.parts[part].block().stamp_ms(index as usize);
    for (reason, text) in lines {
        if let Some(ms) = duplicate_stamp(text) {
            let at = (0..blame.len()).find(|i| stamp(*i) == ms && blame[*i].is_none())?;
            blame[at] = Some((*reason, text));
        }
    }
    for (reason, text) in lines.iter().filter(|(_, text)| duplicate_stamp(text).is_none()) {
        let mut free = (0..blame.len()).filter(|i| blame[*i].is_none());
        let at = if *reason == RejectReason::TooFarInFuture { free.next_back()? } else { free.next()? };
        blame[at] = Some((*reason, text));
    }
    for (part, blame) in group.parts.iter().zip(blame) {
        if let Some((reason, message)) = blame {
            let record = Record { batch: part.batch, index: part.base + index };
            found.push(Blamed { record, reason, message });
        }
    }
    Some(())
}

fn duplicate_stamp(text: &str) -> Option<i64> {
    let rest = text.split_once("duplicate sample for timestamp ")?.1;
    rest[..rest.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

/// A label set as Prometheus writes it (`stringImpl` in model/labels/labels_common.go).
fn spell(out: &mut String, series: &ResolvedSeries, view: &SymbolView<'_>) {
    out.clear();
    let mut separator = "{";
    for (name, value) in &series.labels {
        let name = view.text(*name);
        out.push_str(separator);
        separator = ", ";
        let legacy = name
            .bytes()
            .enumerate()
            .all(|(i, b)| b == b'_' || b.is_ascii_alphabetic() || (i > 0 && b.is_ascii_digit()));
        if legacy {
            out.push_str(name);
        } else {
            quote(out, name);
        }
        out.push('=');
        quote(out, view.text(*value));
    }
    out.push('}');
}

/// Go's `strconv.AppendQuote`, but that all text beyond ASCII counts as printable; where Go thinks otherwise the
/// message does not match and the records are found by splitting.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
