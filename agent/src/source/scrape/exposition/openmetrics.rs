//! The grammar of OpenMetrics text 1.0, which leaves no choice of blanks.

use super::cursor::{Cursor, Located, begins_name, carriage_return, continues_name, printable};
use super::labels::{self, Sink};
use super::{Entry, Fault, Sample, float};
use pegel_proto::metrics::MetricType;
use std::borrow::Cow;

/// What begins an exemplar after a value or a timestamp.
const EXEMPLAR: &[u8] = b" # {";

pub(super) fn next<'a>(c: &mut Cursor<'a>, expected: Option<&[u8]>) -> Located<Option<Entry<'a>>> {
    match c.peek() {
        None => c.fail(Fault::NoEof),
        Some(b'#') => metadata(c),
        Some(_) => sample(c, expected).map(|s| Some(Entry::Sample(s))),
    }
}

fn metadata<'a>(c: &mut Cursor<'a>) -> Located<Option<Entry<'a>>> {
    if c.take_text(b"# EOF") {
        c.take(b'\n');
        return if c.at == c.body.len() { Ok(None) } else { c.fail(Fault::AfterEof) };
    }
    if c.take_text(b"# HELP ") {
        let family = c.take_family("HELP")?;
        let (start, text) = metadata_text(c)?;
        let text = std::str::from_utf8(text).map_err(|_| (start, Fault::NotUtf8("the help text")))?;
        // OpenMetrics escapes quotes in help texts as well, so its escapes are those of label values.
        return Ok(Some(Entry::Help { family, text: labels::unescape(text) }));
    }
    if c.take_text(b"# TYPE ") {
        let family = c.take_family("TYPE")?;
        let (start, text) = metadata_text(c)?;
        let kind = match text {
            b"counter" => MetricType::Counter,
            b"gauge" => MetricType::Gauge,
            b"histogram" => MetricType::Histogram,
            b"gaugehistogram" => MetricType::GaugeHistogram,
            b"summary" => MetricType::Summary,
            b"info" => MetricType::Info,
            b"stateset" => MetricType::StateSet,
            b"unknown" => MetricType::Unknown,
            other => return Err((start, Fault::BadType(printable(other), carriage_return(other)))),
        };
        return Ok(Some(Entry::Type { family, kind }));
    }
    if c.take_text(b"# UNIT ") {
        let family = c.take_family("UNIT")?;
        let (start, text) = metadata_text(c)?;
        let unit = std::str::from_utf8(text).map_err(|_| (start, Fault::NotUtf8("the unit")))?;
        let ends_in_it = || family.strip_suffix(unit).is_some_and(|stem| stem.ends_with('_'));
        if !unit.is_empty() && !ends_in_it() {
            return Err((start, Fault::BadUnit(printable(text))));
        }
        return Ok(Some(Entry::Unit { family, unit: Cow::Borrowed(unit) }));
    }
    c.fail(Fault::Comment)
}

/// The text behind a family's name: a blank, anything, a line feed.
fn metadata_text<'a>(c: &mut Cursor<'a>) -> Located<(usize, &'a [u8])> {
    if !c.take(b' ') {
        return c.fail(Fault::MetadataText);
    }
    let start = c.at;
    let text = c.take_line();
    if c.take(b'\n') { Ok((start, text)) } else { c.fail(Fault::NoEof) }
}

fn sample<'a>(c: &mut Cursor<'a>, expected: Option<&[u8]>) -> Located<Sample<'a>> {
    let at = c.at;
    let taken = c.take_expected(expected);
    let series = match taken {
        Some(series) => series,
        None => series_text(c, &mut labels::Ignore)?,
    };
    let (start, value) = field(c)?;
    let mut sample = Cursor::sample(series, at, taken.is_some(), Cursor::number(value, start)?);
    if c.peek() == Some(b' ') && !c.rest().starts_with(EXEMPLAR) {
        let (start, text, seconds) = seconds(c)?;
        // Cut, not rounded, to milliseconds, as Prometheus does.
        let stamp_ms = seconds * 1000.0;
        if stamp_ms.abs() >= i64::MAX as f64 {
            return Err((start, Fault::BadStamp(printable(text))));
        }
        sample.stamp_ms = Some(stamp_ms as i64);
    }
    if c.take_text(EXEMPLAR) {
        exemplar(c)?;
        sample.exemplar = true;
    }
    end_of_line(c)?;
    Ok(sample)
}

fn exemplar(c: &mut Cursor<'_>) -> Located<()> {
    label_list(c, None, &mut labels::Ignore)?;
    let (start, value) = field(c)?;
    Cursor::number(value, start)?;
    if c.peek() == Some(b' ') {
        seconds(c)?;
    }
    Ok(())
}

fn end_of_line(c: &mut Cursor<'_>) -> Located<()> {
    match c.peek() {
        Some(b'\n') => {
            c.at += 1;
            Ok(())
        }
        None => c.fail(Fault::NoEof),
        Some(_) => c.fail(Fault::LineEnd(c.found())),
    }
}

/// One blank and what follows it up to the next.
fn field<'a>(c: &mut Cursor<'a>) -> Located<(usize, &'a [u8])> {
    if !c.take(b' ') {
        return c.fail(Fault::Value(c.found()));
    }
    let start = c.at;
    let text = c.take_while(|b| !matches!(b, b' ' | b'\n' | 0));
    if text.is_empty() { c.fail(Fault::Value(c.found())) } else { Ok((start, text)) }
}

/// A timestamp in seconds, where it begins and how it is written.
fn seconds<'a>(c: &mut Cursor<'a>) -> Located<(usize, &'a [u8], f64)> {
    let (start, text) = field(c)?;
    match float::parse(text) {
        Some(seconds) if seconds.is_finite() => Ok((start, text, seconds)),
        _ => Err((start, Fault::BadStamp(printable(text)))),
    }
}

/// Goes past a series' name and labels, tells `sink` of them and lends the text.
pub(super) fn series_text<'a>(c: &mut Cursor<'a>, sink: &mut impl Sink<'a>) -> Located<&'a [u8]> {
    let start = c.at;
    let named = c.peek().is_some_and(begins_name);
    if named {
        sink.name(c.take_while(continues_name));
        if c.peek() != Some(b'{') {
            return Ok(&c.body[start..c.at]);
        }
    } else if c.peek() != Some(b'{') {
        return c.fail(Fault::LineStart(c.found()));
    }
    c.at += 1;
    if !label_list(c, Some(named), sink)? {
        return Err((start, Fault::NoName));
    }
    Ok(&c.body[start..c.at])
}

/// Goes past labels and the closing brace; says whether the series has a name by then. `named` is none for an
/// exemplar, whose labels hold no name.
fn label_list<'a>(c: &mut Cursor<'a>, mut named: Option<bool>, sink: &mut impl Sink<'a>) -> Located<bool> {
    loop {
        if c.take(b'}') {
            return Ok(named.unwrap_or_default());
        }
        let (name, quoted) = match named {
            // Prometheus does not look into the names of an exemplar's labels, but they end on their line.
            None if c.peek() == Some(b'"') => {
                let start = c.at;
                let name = c.take_quoted()?;
                if name.contains(&b'\n') {
                    return Err((start, Fault::OpenString));
                }
                (name, true)
            }
            _ => labels::take_name(c)?,
        };
        if quoted && matches!(c.peek(), Some(b',' | b'}')) {
            match named {
                None => return c.fail(Fault::Equals(c.found())),
                Some(true) => return c.fail(Fault::TwoNames),
                Some(false) => named = Some(true),
            }
            sink.name(name);
            c.take(b',');
            continue;
        }
        if !c.take(b'=') {
            return c.fail(Fault::Equals(c.found()));
        }
        let start = c.at;
        let value = labels::take_value(c)?;
        if memchr::memchr(b'\n', value).is_some() {
            return Err((start, Fault::OpenString));
        }
        sink.label(name, value);
        // One comma may follow the last label.
        if !c.take(b',') && c.peek() != Some(b'}') {
            return c.fail(Fault::LabelEnd(c.found()));
        }
    }
}
