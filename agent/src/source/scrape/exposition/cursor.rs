//! A place in a body, and the lexical elements that both formats share.

use super::{Fault, Found, Sample, float, labels};
use memchr::{memchr, memchr2};
use std::borrow::Cow;

/// What went wrong and at which byte.
pub(super) type Located<T> = Result<T, (usize, Fault)>;

#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) body: &'a [u8],
    pub(super) at: usize,
}

/// The first byte of a metric name (without quotes).
pub(super) fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte == b':'
}

/// A later byte of a metric name.
pub(super) fn continues_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'
}

impl<'a> Cursor<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0 }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.body[self.at..]
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    pub(super) fn found(&self) -> Found {
        self.peek().map_or(Found::End, Found::Byte)
    }

    pub(super) fn fail<T>(&self, fault: Fault) -> Located<T> {
        Err((self.at, fault))
    }

    /// Goes past `byte` if it is next.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// Goes past `text` if it is next.
    pub(super) fn take_text(&mut self, text: &[u8]) -> bool {
        let there = self.rest().starts_with(text);
        self.at += if there { text.len() } else { 0 };
        there
    }

    /// Goes past all bytes that fit and lends them.
    pub(super) fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let length = rest.iter().position(|b| !fits(*b)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    pub(super) fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// Lends what is left of the line, the line feed not included; the cursor is at the line feed or the end.
    pub(super) fn take_line(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let length = memchr(b'\n', rest).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Goes past a quoted string and lends what is between the quotes. A backslash hides any byte but a line feed.
    pub(super) fn take_quoted(&mut self) -> Located<&'a [u8]> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            let Some(length) = memchr2(b'"', b'\\', &self.body[at.min(self.body.len())..]) else {
                return self.fail(Fault::OpenString);
            };
            at += length;
            if self.body[at] == b'"' {
                self.at = at + 1;
                return Ok(&self.body[start..at]);
            }
            match self.body.get(at + 1) {
                None | Some(b'\n') => return self.fail(Fault::OpenString),
                Some(_) => at += 2,
            }
        }
    }

    /// Goes past the name of a family in a metadata line, quoted or not.
    pub(super) fn take_family(&mut self, keyword: &'static str) -> Located<Cow<'a, str>> {
        let start = self.at;
        let name = match self.peek() {
            Some(b'"') => self.take_quoted()?,
            Some(byte) if begins_name(byte) => self.take_while(continues_name),
            _ => return self.fail(Fault::MetadataName(keyword)),
        };
        match std::str::from_utf8(name) {
            Ok(name) if self.body[start] != b'"' => Ok(Cow::Borrowed(name)),
            Ok(name) if !name.contains('\0') => Ok(labels::unescape(name)),
            _ => Err((start, Fault::NotUtf8("the metric's name"))),
        }
    }

    /// Goes past `expected` if that is the next series text, whole: what follows can't belong to it.
    pub(super) fn take_expected(&mut self, expected: Option<&[u8]>) -> Option<&'a [u8]> {
        let expected = expected?;
        let rest = self.rest();
        if !rest.starts_with(expected) {
            return None;
        }
        // Braces end a series. A bare name ends where a blank and then neither a brace nor a blank follows.
        let whole = expected.last() == Some(&b'}')
            || (rest.get(expected.len()) == Some(&b' ')
                && !matches!(rest.get(expected.len() + 1), None | Some(b'{' | b' ' | b'\t')));
        whole.then(|| {
            self.at += expected.len();
            &rest[..expected.len()]
        })
    }

    /// Reads `text`, which begins at `start`, as a sample's or an exemplar's value.
    pub(super) fn number(text: &[u8], start: usize) -> Located<f64> {
        match float::parse(text) {
            Some(value) if value.is_nan() => Ok(f64::from_bits(NORMAL_NAN_BITS)),
            Some(value) => Ok(value),
            None => Err((start, Fault::BadNumber(printable(text), carriage_return(text)))),
        }
    }

    pub(super) fn sample(series: &'a [u8], at: usize, expected: bool, value: f64) -> Sample<'a> {
        Sample { series, at, expected, value, stamp_ms: None, exemplar: false }
    }

    /// Line and column of a byte, both from 1. Counts lines: for errors only.
    pub(super) fn line_and_column(&self, at: usize) -> (usize, usize) {
        let before = &self.body[..at.min(self.body.len())];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let column = 1 + before.iter().rev().take_while(|b| **b != b'\n').count();
        (line, column)
    }
}

/// The bits of the NaN that Prometheus stores for every NaN of an exposition (`value.NormalNaN`).
pub(super) const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// A piece of the body as a message shows it: cut, and with control characters escaped.
pub(super) fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(60)]).chars().flat_map(char::escape_debug).collect()
}

/// A hint for the most frequent reason why a word at a line's end is not understood.
pub(super) fn carriage_return(text: &[u8]) -> &'static str {
    if text.ends_with(b"\r") { " (lines end in a line feed alone, without carriage return)" } else { "" }
}
