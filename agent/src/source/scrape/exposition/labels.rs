//! A series' text and the labels in it.

use super::cursor::{Cursor, Located};
use super::{Fault, Format, float, openmetrics, text};
use pegel_proto::metrics::{MetricType, NAME_LABEL};
use std::borrow::Cow;

/// Where a walk over a series' text reports what it finds, escapes unresolved.
pub(super) trait Sink<'a> {
    /// The metric's name.
    fn name(&mut self, raw: &'a [u8]);
    /// A label.
    fn label(&mut self, name: &'a [u8], value: &'a [u8]);
}

/// For a walk that only checks.
pub(super) struct Ignore;

impl<'a> Sink<'a> for Ignore {
    fn name(&mut self, _: &'a [u8]) {}
    fn label(&mut self, _: &'a [u8], _: &'a [u8]) {}
}

/// A label's name and value.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

struct Collect<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> Sink<'a> for Collect<'a> {
    fn name(&mut self, raw: &'a [u8]) {
        self.label(NAME_LABEL.as_bytes(), raw);
    }

    fn label(&mut self, name: &'a [u8], value: &'a [u8]) {
        self.0.push((name, value));
    }
}

/// The labels of a series' text in the order in which they are written, the name as `__name__`, escapes resolved.
/// `kind` is the type that the last `# TYPE` named: under a histogram `le`, under a summary `quantile` is written
/// as OpenMetrics writes floats (`1` becomes `1.0`), as Prometheus does, so that one bucket is one series whatever
/// the format was. None if the text is not one that [`super::Exposition`] lent.
pub fn decode(series: &[u8], format: Format, kind: MetricType) -> Option<Vec<Pair<'_>>> {
    let mut cursor = Cursor::new(series);
    let mut found = Collect(Vec::with_capacity(8));
    let text = match format {
        Format::Text => text::series_text(&mut cursor, &mut found),
        Format::OpenMetrics => openmetrics::series_text(&mut cursor, &mut found),
    };
    if text.ok()?.len() != series.len() {
        return None;
    }
    let normalised = match kind {
        MetricType::Histogram => Some("le"),
        MetricType::Summary => Some("quantile"),
        _ => None,
    };
    found
        .0
        .into_iter()
        .map(|(name, value)| {
            let name = unescape(std::str::from_utf8(name).ok()?);
            let mut value = unescape(std::str::from_utf8(value).ok()?);
            if normalised.is_some_and(|normalised| name == normalised)
                && let Some(number) = float::parse(value.as_bytes())
            {
                value = Cow::Owned(float::openmetrics(number));
            }
            Some((name, value))
        })
        .collect()
}

/// Goes past a label's name; says whether it was quoted.
pub(super) fn take_name<'a>(c: &mut Cursor<'a>) -> Located<(&'a [u8], bool)> {
    let start = c.at;
    match c.peek() {
        Some(b'"') => {
            let name = c.take_quoted()?;
            match std::str::from_utf8(name) {
                Ok(name) if !name.contains('\0') => Ok((name.as_bytes(), true)),
                _ => Err((start, Fault::NotUtf8("the name"))),
            }
        }
        Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' => {
            Ok((c.take_while(|b| b.is_ascii_alphanumeric() || b == b'_'), false))
        }
        _ => c.fail(Fault::LabelName(c.found())),
    }
}

/// Goes past a label's quoted value.
pub(super) fn take_value<'a>(c: &mut Cursor<'a>) -> Located<&'a [u8]> {
    if c.peek() != Some(b'"') {
        return c.fail(Fault::LabelValue(c.found()));
    }
    let start = c.at;
    let value = c.take_quoted()?;
    if value.is_ascii() || std::str::from_utf8(value).is_ok() {
        Ok(value)
    } else {
        Err((start, Fault::NotUtf8("the label's value")))
    }
}

/// Resolves the escapes of names and label values: `\\`, `\"` and `\n`; any other backslash stands for itself.
pub fn unescape(text: &str) -> Cow<'_, str> {
    resolve(text, true)
}

/// Resolves the escapes of the text format's help: `\\` and `\n`.
pub(super) fn unescape_help(text: &str) -> Cow<'_, str> {
    resolve(text, false)
}

fn resolve(text: &str, quotes: bool) -> Cow<'_, str> {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(one) = rest.next() {
        let escaped = match rest.clone().next() {
            Some('n') => Some('\n'),
            Some('\\') => Some('\\'),
            Some('"') if quotes => Some('"'),
            _ => None,
        };
        match escaped.filter(|_| one == '\\') {
            Some(escaped) => {
                rest.next();
                out.push(escaped);
            }
            None => out.push(one),
        }
    }
    Cow::Owned(out)
}

/// Writes `text` so that [`unescape`] gives it back: for a name or value between quotes.
pub fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}
