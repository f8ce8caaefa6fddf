//! Loki's refusals, read: which stream and which entries they name.
//!
//! The distributor checks each entry by itself and answers 400 with all complaints, equal ones counted together, for
//! which it has stored nothing, and has stored the rest (`PushWithResolver` in pkg/distributor/distributor.go, texts in
//! pkg/validation/validate.go, `GroupedErrors` in pkg/util/errors.go). An ingester's complaint is of one stream, with
//! the first ten entries and how many of how many (`errorForFailedEntries` in pkg/ingester/stream.go); it replaces
//! those of the distributor. Label sets in a text may hold anything, so they are read by their grammar.

use super::labels::{Labels, parse};
use pegel_proto::batch::RejectReason;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What a refusal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Complaint {
    /// The distributor's: these were left out, the others are stored.
    Entries(Vec<Named>),
    /// An ingester's, of one stream.
    Stream(Ignored),
    /// The stream can't be made: the tenant has its most.
    NoMoreStreams(Labels),
}

/// Entries of one stream that were left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// How many.
    pub count: u64,
    /// The stream, with what Loki added to its labels.
    pub labels: Labels,
    pub fault: Fault,
    /// Loki's words.
    pub text: String,
}

/// What is wrong with entries, and which they are. In the order in which Loki looks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The whole stream is refused for its labels.
    Labels,
    /// Those of a second, in seconds since the Unix epoch, are too old.
    TooOld(i64),
    /// Those of a second are too far ahead.
    TooNew(i64),
    /// Lines of so many bytes are too long.
    LineTooLong(u64),
    /// Structured metadata is not taken at all.
    NoMetadata,
    /// Structured metadata of so many bytes is too much.
    MetadataTooLarge(u64),
    /// So many pairs are too many.
    MetadataTooMany(u64),
}

impl Fault {
    pub fn reason(self) -> RejectReason {
        match self {
            Self::Labels => RejectReason::InvalidLabels,
            Self::TooOld(_) => RejectReason::TooOld,
            Self::TooNew(_) => RejectReason::TooFarInFuture,
            Self::LineTooLong(_) | Self::MetadataTooLarge(_) | Self::MetadataTooMany(_) => {
                RejectReason::TooLarge
            }
            Self::NoMetadata => RejectReason::Other,
        }
    }
}

/// Entries that an ingester did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ignored {
    pub labels: Labels,
    /// Whether it is for the stream's rate, else because they are too far behind its newest entry.
    pub limited: bool,
    /// The times of the first of them, in nanoseconds since the Unix epoch.
    pub named: Vec<i64>,
    /// How many were ignored.
    pub count: u64,
    /// Of how many.
    pub of: u64,
    /// Loki's words for the first.
    pub text: String,
}

/// Reads a refusal. None if any part of it is not understood.
pub(super) fn read(message: &str) -> Option<Complaint> {
    let message = message.trim_end();
    if let Some((_, rest)) =
        message.split_once("maximum active stream limit exceeded when trying to create stream ")
    {
        return Some(Complaint::NoMoreStreams(parse(rest)?.0));
    }
    if message.contains("total ignored: ") {
        return ignored(message).map(Complaint::Stream);
    }
    let mut named = Vec::new();
    let mut rest = message;
    loop {
        let (one, after) = entry(rest)?;
        named.push(one);
        match after.strip_prefix("; ") {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(Complaint::Entries(named)),
        }
    }
}

/// One of the distributor's complaints, and what follows it.
fn entry(text: &str) -> Option<(Named, &str)> {
    let (count, body) = match text.find(" errors like: ") {
        Some(at) if text[..at].bytes().all(|b| b.is_ascii_digit()) => {
            (text[..at].parse().ok()?, &text[at + " errors like: ".len()..])
        }
        _ => (1, text),
    };
    let (labels, fault, rest) = fault(body)?;
    let text = body[..body.len() - rest.len()].to_owned();
    Some((Named { count, labels, fault, text }, rest))
}

fn fault(body: &str) -> Option<(Labels, Fault, &str)> {
    if let Some(rest) = body.strip_prefix("entry for stream '") {
        let (labels, rest) = parse(rest)?;
        let rest = rest.strip_prefix('\'')?;
        if let Some(rest) = rest.strip_prefix(" has timestamp too old: ") {
            let (at, rest) = rest.split_once(", oldest acceptable timestamp is: ")?;
            // Zone and all: no complaint ends within it.
            let rest = &rest[rest.find("; ").unwrap_or(rest.len())..];
            return Some((labels, Fault::TooOld(second(at)?), rest));
        }
        if let Some(rest) = rest.strip_prefix(" has timestamp too new: ") {
            let (at, rest) = rest.split_at(rest.find("; ").unwrap_or(rest.len()));
            return Some((labels, Fault::TooNew(second(at)?), rest));
        }
        let (_, rest) = number(rest.strip_prefix(" has ")?)?;
        let (_, rest) = number(rest.strip_prefix(" label names; limit ")?)?;
        return Some((labels, Fault::Labels, rest));
    }
    if let Some(rest) = body.strip_prefix("max entry size '") {
        let (_, rest) = number(rest)?;
        let (labels, rest) = parse(rest.strip_prefix("' bytes exceeded for stream '")?)?;
        let (bytes, rest) = number(rest.strip_prefix("' while adding an entry with length '")?)?;
        return Some((labels, Fault::LineTooLong(bytes), rest.strip_prefix("' bytes")?));
    }
    if let Some(rest) = body.strip_prefix("stream '") {
        let (labels, rest) = parse(rest)?;
        let rest = rest.strip_prefix('\'')?;
        let administrator = |rest: &'_ str, end: &str| rest.find(end).map(|at| at + end.len());
        if let Some(rest) = rest.strip_prefix(" has structured metadata too large: '") {
            let (bytes, rest) = number(rest)?;
            let end = administrator(rest, "administrator to increase it")?;
            return Some((labels, Fault::MetadataTooLarge(bytes), &rest[end..]));
        }
        if let Some(rest) = rest.strip_prefix(" has too many structured metadata labels: '") {
            let (count, rest) = number(rest)?;
            let end = administrator(rest, "administrator to increase it")?;
            return Some((labels, Fault::MetadataTooMany(count), &rest[end..]));
        }
        if rest.starts_with(" includes structured metadata, but this feature is disallowed") {
            let end = administrator(rest, "administrator to enable it")?;
            return Some((labels, Fault::NoMetadata, &rest[end..]));
        }
        for what in [" has label name too long: '", " has duplicate label name: '"] {
            if let Some(rest) = rest.strip_prefix(what) {
                // A name of ours has no quotation mark.
                return Some((labels, Fault::Labels, &rest[rest.find('\'')? + 1..]));
            }
        }
        if let Some(rest) = rest.strip_prefix(" has label value too long: '") {
            // The value as it is: it is known from the labels.
            let (_, value) = labels.iter().find(|(_, value)| rest.starts_with(&format!("{value}'")))?;
            let rest = &rest[value.len() + 1..];
            return Some((labels, Fault::Labels, rest));
        }
    }
    if body.starts_with("missing required labels '") {
        let (_, rest) = body.split_once(" for stream '")?;
        let (labels, rest) = parse(rest)?;
        let rest = rest.strip_prefix("' (policy: '")?;
        return Some((labels, Fault::Labels, &rest[rest.find("')")? + 2..]));
    }
    None
}

fn ignored(message: &str) -> Option<Ignored> {
    let (_, total) = message.rsplit_once("total ignored: ")?;
    let (count, rest) = number(total)?;
    let (of, rest) = number(rest.strip_prefix(" out of ")?)?;
    let (labels, rest) = parse(rest.strip_prefix(" for stream: ")?)?;
    if !rest.is_empty() {
        return None;
    }
    let mut named = Vec::new();
    let mut text = String::new();
    let mut limited = true;
    for line in message.lines() {
        // Through gRPC, words may stand before the first.
        let Some((_, line)) = line.split_once("entry with timestamp ") else { continue };
        let (at, reason) = line.split_once(" ignored, reason: '")?;
        let mut parts = at.split(' ');
        let (date, time) = (parts.next()?, parts.next()?);
        let at = OffsetDateTime::parse(&format!("{date}T{time}Z"), &Rfc3339).ok()?;
        named.push(i64::try_from(at.unix_timestamp_nanos()).ok()?);
        limited &= reason.starts_with("Per stream rate limit exceeded");
        if text.is_empty() {
            text = reason.trim_end_matches([',', '\'']).to_owned();
        }
    }
    (!named.is_empty()).then_some(Ignored { labels, limited, named, count, of, text })
}

fn second(text: &str) -> Option<i64> {
    Some(OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp())
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    /// What Loki 3.7.8 answered.
    const ANSWER: &str = concat!(
        "2 errors like: entry for stream '{a=\"2\", service_name=\"unknown_service\"}' has timestamp too old: ",
        "2026-11-12T19:02:17Z, oldest acceptable timestamp is: 2026-11-14T19:02:17Z; ",
        "1 errors like: entry for stream '{a=\"2\"}' has timestamp too new: 2026-11-21T20:02:17Z; ",
        "1 errors like: max entry size '262144' bytes exceeded for stream '{a=\"2\"}' while adding an entry with ",
        "length '300000' bytes; ",
        "1 errors like: entry for stream '{a=\"y'}\\\"\\nü; \"}' has timestamp too old: 2026-11-12T19:02:17Z, oldest ",
        "acceptable timestamp is: 2026-11-14T19:02:17Z; ",
        "1 errors like: entry for stream '{l0=\"1\", l1=\"1\"}' has 17 label names; limit 15\n"
    );

    #[test]
    fn all_complaints_of_the_distributor_are_read() {
        let Some(Complaint::Entries(named)) = read(ANSWER) else { panic!() };
        let faults: Vec<_> = named.iter().map(|n| (n.count, n.fault)).collect();
        let (old, new) = (1_794_510_137, 1_795_291_337);
        assert_eq!(
            faults,
            [
                (2, Fault::TooOld(old)),
                (1, Fault::TooNew(new)),
                (1, Fault::LineTooLong(300_000)),
                (1, Fault::TooOld(old)),
                (1, Fault::Labels)
            ]
        );
        assert_eq!(named[3].labels, labels(&[("a", "y'}\"\nü; ")]));
        assert_eq!(named[1].text, "entry for stream '{a=\"2\"}' has timestamp too new: 2026-11-21T20:02:17Z");
    }

    #[test]
    fn a_single_complaint_stands_without_a_count() {
        for (text, fault) in [
            ("stream '{a=\"1\"}' has label value too long: '1'", Fault::Labels),
            ("stream '{a=\"1\"}' has label name too long: 'a'", Fault::Labels),
            (
                "stream '{a=\"1\"}' has structured metadata too large: '70000' bytes, limit: '65536' bytes. Please see `limits_config.max_structured_metadata_size` or contact your Loki administrator to increase it",
                Fault::MetadataTooLarge(70_000),
            ),
            (
                "stream '{a=\"1\"}' has too many structured metadata labels: '129', limit: '128'. Please see `limits_config.max_structured_metadata_entries_count` or contact your Loki administrator to increase it",
                Fault::MetadataTooMany(129),
            ),
            (
                "stream '{a=\"1\"}' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it",
                Fault::NoMetadata,
            ),
            (
                "missing required labels 'env' for user 'acme' for stream '{a=\"1\"}' (policy: '')",
                Fault::Labels,
            ),
        ] {
            let Some(Complaint::Entries(named)) = read(text) else { panic!("{text}") };
            assert_eq!((named.len(), named[0].count, named[0].fault), (1, 1, fault), "{text}");
            assert_eq!(named[0].labels, labels(&[("a", "1")]));
        }
    }

    #[test]
    fn an_ingesters_complaint_names_entries_to_the_nanosecond() {
        let text = "entry with timestamp 2026-11-21 17:02:17.20487 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2026-11-21T17:02:17Z, oldest acceptable timestamp is: 2026-11-21T18:02:17Z',\nuser 'fake', total ignored: 2 out of 3 for stream: {a=\"1\", service_name=\"unknown_service\"}\n";
        let Some(Complaint::Stream(ignored)) = read(text) else { panic!() };
        assert_eq!((ignored.count, ignored.of, ignored.limited), (2, 3, false));
        assert_eq!(ignored.named, [1_795_280_537_204_870_000]);
        let text = text.replace("entry too far behind", "Per stream rate limit exceeded (limit: 3MB/sec)");
        assert!(matches!(read(&text), Some(Complaint::Stream(Ignored { limited: true, .. }))));
    }

    #[test]
    fn what_is_not_understood_is_not_guessed() {
        for text in ["", "no such place", "couldn't parse labels: 1:3: parse error", &ANSWER[..200]] {
            assert_eq!(read(text), None, "{text}");
        }
        for cut in 0..ANSWER.len() {
            if ANSWER.is_char_boundary(cut) {
                let _ = (read(&ANSWER[cut..]), read(&ANSWER[..cut]));
            }
        }
    }
}
