//! The text formats of metrics: Prometheus 0.0.4 and OpenMetrics 1.0, read without copying.
//!
//! [`Exposition`] walks a body line by line and lends slices of it. A sample comes as its raw *series text* (name
//! and labels as written) with its value; [`labels::decode`] turns such a text into labels, which a scraper does
//! once a series and not once a scrape. For the same reason the caller may pass the text that it expects next
//! ([`Exposition::next_entry`]): if the body goes on with exactly that text, the labels are not looked at again.
//!
//! The meaning is that of Prometheus' own parser (`model/textparse`: the lexers `promlex.l` and `openmetricslex.l`
//! with the parsers around them, read at v3.13), oddities included where they decide whether a body is accepted:
//! the text format wants no blank between name and value (`a-1` is `a` = -1), takes labels without commas between
//! them, quoted strings that span lines, no negative timestamp and no carriage return; OpenMetrics wants exactly
//! one blank between fields and `# EOF` at the end; numbers are those of Go's `ParseFloat` without `p` and `_`,
//! which leaves no hexadecimal ones; any NaN becomes the ordinary NaN. Where we differ on purpose:
//!
//! - Blanks before a name in the text format are not part of the name (Prometheus makes ` a` a metric of its own).
//! - A NUL byte outside label values and help texts is an error (Prometheus takes one at a line's start for the
//!   end of the body, and so loses the rest silently).
//! - A quoted name that is not UTF-8 is an error here and not only when the sample is stored.
//! - A timestamp whose milliseconds need more than 64 bits is an error (Go leaves open what it becomes).
//!
//! Exemplars are checked and kept out ([`Sample::exemplar`] says that one was there). Native histograms exist in
//! neither format; they need the protobuf exposition, which is not asked for.

mod cursor;
pub mod float;
pub mod labels;
mod openmetrics;
mod text;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use cursor::Cursor;
use pegel_proto::metrics::MetricType;
use std::borrow::Cow;

/// Which of the text formats a body is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus text, version 0.0.4 (and 1.0.0, which adds quoted names).
    Text,
    /// OpenMetrics text, version 0.0.1 or 1.0.0.
    OpenMetrics,
}

/// One line that says something.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry<'a> {
    /// A value of a series.
    Sample(Sample<'a>),
    /// `# HELP`: what a family means.
    Help {
        /// The family.
        family: Cow<'a, str>,
        /// The text, escapes resolved.
        text: Cow<'a, str>,
    },
    /// `# TYPE`: what kind of metric a family is.
    Type {
        /// The family.
        family: Cow<'a, str>,
        /// The type.
        kind: MetricType,
    },
    /// `# UNIT` (OpenMetrics): what a family is measured in.
    Unit {
        /// The family.
        family: Cow<'a, str>,
        /// The unit, which the family's name ends in; may be empty.
        unit: Cow<'a, str>,
    },
}

/// A value of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// Name and labels as written; [`labels::decode`] reads them.
    pub series: &'a [u8],
    /// Where in the body `series` begins, in bytes.
    pub at: usize,
    /// Whether `series` is the text that the caller expected.
    pub expected: bool,
    /// The value; any NaN is the ordinary one.
    pub value: f64,
    /// The sample's own instant in milliseconds since the Unix epoch, if it has one.
    pub stamp_ms: Option<i64>,
    /// Whether an exemplar came with it.
    pub exemplar: bool,
}

/// Why a body is refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// The byte within the line, from 1.
    pub column: usize,
    /// What is wrong there.
    pub reason: Fault,
}

/// What can be wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A line begins with nothing that a line can begin with.
    #[error("expected a metric name, `{{` or a comment, found {0}")]
    LineStart(Found),
    /// `# HELP`, `# TYPE` or `# UNIT` without a name.
    #[error("expected a metric name after # {0}")]
    MetadataName(&'static str),
    /// Metadata without the blank and the text that OpenMetrics wants.
    #[error("expected a blank and a text after the metric's name")]
    MetadataText,
    /// A word that is no type.
    #[error("`{0}` is no metric type{1}")]
    BadType(String, &'static str),
    /// A unit that the name does not end in.
    #[error("the unit `{0}` is not the end of the metric's name")]
    BadUnit(String),
    /// A label name was expected.
    #[error("expected a label name, found {0}")]
    LabelName(Found),
    /// An equals sign was expected.
    #[error("expected `=` after the label's name, found {0}")]
    Equals(Found),
    /// A quoted value was expected.
    #[error("expected a quoted label value, found {0}")]
    LabelValue(Found),
    /// A string without its closing quote.
    #[error("the quoted string does not end")]
    OpenString,
    /// OpenMetrics wants a comma between labels.
    #[error("expected `,` or `}}` after the label, found {0}")]
    LabelEnd(Found),
    /// Braces with labels but without a name.
    #[error("the series has no metric name")]
    NoName,
    /// A name before the braces and another in them, or two in them.
    #[error("the series has two metric names")]
    TwoNames,
    /// A name, value or help text that is not UTF-8.
    #[error("{0} is not valid UTF-8")]
    NotUtf8(&'static str),
    /// The value is missing.
    #[error("expected a value, found {0}")]
    Value(Found),
    /// The value, or an exemplar's, is no number.
    #[error("`{0}` is no number that fits a 64-bit float{1}")]
    BadNumber(String, &'static str),
    /// The timestamp is no number.
    #[error("`{0}` is no timestamp")]
    BadStamp(String),
    /// Something follows the sample.
    #[error("expected the end of the line, found {0}")]
    LineEnd(Found),
    /// The body of an OpenMetrics exposition ends without `# EOF`.
    #[error("the body does not end with `# EOF`: it is cut off, or its exporter is not OpenMetrics")]
    NoEof,
    /// Something follows `# EOF`.
    #[error("something follows `# EOF`")]
    AfterEof,
    /// An OpenMetrics line that begins with `#` but is none of the four kinds.
    #[error("OpenMetrics has no comments: expected HELP, TYPE, UNIT or EOF")]
    Comment,
}

/// What was found instead of what was expected, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A byte.
    Byte(u8),
    /// The end of the body.
    End,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Byte(b'\n') => f.write_str("the end of the line"),
            Self::Byte(b'\r') => f.write_str("a carriage return (lines end in a line feed alone)"),
            Self::Byte(byte) if byte.is_ascii_graphic() => write!(f, "`{}`", char::from(*byte)),
            Self::Byte(b' ') => f.write_str("a blank"),
            Self::Byte(byte) => write!(f, "the byte 0x{byte:02x}"),
            Self::End => f.write_str("the end of the body"),
        }
    }
}

/// A body being read.
#[derive(Debug, Clone)]
pub struct Exposition<'a> {
    cursor: Cursor<'a>,
    format: Format,
    kind: MetricType,
    ended: bool,
}

impl<'a> Exposition<'a> {
    /// Begins to read a body.
    pub fn new(body: &'a [u8], format: Format) -> Self {
        Self { cursor: Cursor::new(body), format, kind: MetricType::Unknown, ended: false }
    }

    /// The type that the last `# TYPE` named: what decides whether `le` and `quantile` are normalised.
    pub fn kind(&self) -> MetricType {
        self.kind
    }

    /// How far the body is read, in bytes.
    pub fn position(&self) -> usize {
        self.cursor.at
    }

    /// Goes past metadata that was read in this format before, `length` bytes after which `kind` is in force.
    pub(super) fn skip_metadata(&mut self, length: usize, kind: MetricType) {
        self.cursor.at += length;
        self.kind = kind;
    }

    /// The next line that says something; none at the end. After an error there is nothing more.
    ///
    /// `expected` is the series text that the caller thinks comes next, one that was read in this format before.
    pub fn next_entry(&mut self, expected: Option<&[u8]>) -> Option<Result<Entry<'a>, ParseError>> {
        if self.ended {
            return None;
        }
        let next = match self.format {
            Format::Text => text::next(&mut self.cursor, expected),
            Format::OpenMetrics => openmetrics::next(&mut self.cursor, expected),
        };
        match next {
            Ok(Some(entry)) => {
                if let Entry::Type { kind, .. } = entry {
                    self.kind = kind;
                }
                Some(Ok(entry))
            }
            Ok(None) => {
                self.ended = true;
                None
            }
            Err((at, reason)) => {
                self.ended = true;
                let (line, column) = self.cursor.line_and_column(at);
                Some(Err(ParseError { line, column, reason }))
            }
        }
    }
}

impl<'a> Iterator for Exposition<'a> {
    type Item = Result<Entry<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry(None)
    }
}
