//! The grammar of Prometheus text 0.0.4, with the quoted names of 1.0.0.

use super::cursor::{Cursor, Located, begins_name, carriage_return, continues_name, printable};
use super::labels::{self, Sink};
use super::{Entry, Fault, Sample};
use pegel_proto::metrics::MetricType;

pub(super) fn next<'a>(c: &mut Cursor<'a>, expected: Option<&[u8]>) -> Located<Option<Entry<'a>>> {
    loop {
        c.skip_blanks();
        match c.peek() {
            None => return Ok(None),
            Some(b'\n') => c.at += 1,
            Some(b'#') => {
                if let Some(entry) = comment(c)? {
                    return Ok(Some(entry));
                }
            }
            Some(_) => return sample(c, expected).map(|s| Some(Entry::Sample(s))),
        }
    }
}

/// A line that begins with `#`: HELP, TYPE or nothing of interest.
fn comment<'a>(c: &mut Cursor<'a>) -> Located<Option<Entry<'a>>> {
    c.at += 1;
    let blank = matches!(c.peek(), Some(b' ' | b'\t'));
    c.skip_blanks();
    if blank && take_keyword(c, b"HELP") {
        let family = c.take_family("HELP")?;
        let start = c.at;
        let text = metadata_text(c);
        let text = std::str::from_utf8(text).map_err(|_| (start, Fault::NotUtf8("the help text")))?;
        return Ok(Some(Entry::Help { family, text: labels::unescape_help(text) }));
    }
    if blank && take_keyword(c, b"TYPE") {
        let family = c.take_family("TYPE")?;
        let start = c.at;
        let kind = match metadata_text(c) {
            b"counter" => MetricType::Counter,
            b"gauge" => MetricType::Gauge,
            b"histogram" => MetricType::Histogram,
            b"summary" => MetricType::Summary,
            b"untyped" => MetricType::Unknown,
            other => return Err((start, Fault::BadType(printable(other), carriage_return(other)))),
        };
        return Ok(Some(Entry::Type { family, kind }));
    }
    c.take_line();
    Ok(None)
}

/// Goes past a keyword and the blanks behind it; without blanks it is no keyword.
fn take_keyword(c: &mut Cursor<'_>, keyword: &[u8]) -> bool {
    let rest = c.rest();
    let there =
        rest.starts_with(keyword) && rest.get(keyword.len()).is_some_and(|b| matches!(b, b' ' | b'\t'));
    if there {
        c.at += keyword.len();
        c.skip_blanks();
    }
    there
}

/// What follows a family's name: all but the one byte that parts them, which is a blank where people write it. A
/// line of nothing but blanks is empty.
fn metadata_text<'a>(c: &mut Cursor<'a>) -> &'a [u8] {
    let line = c.take_line();
    if line.iter().all(|b| matches!(b, b' ' | b'\t')) { &[] } else { &line[1..] }
}

fn sample<'a>(c: &mut Cursor<'a>, expected: Option<&[u8]>) -> Located<Sample<'a>> {
    let at = c.at;
    let taken = c.take_expected(expected);
    let series = match taken {
        Some(series) => series,
        None => series_text(c, &mut labels::Ignore)?,
    };
    c.skip_blanks();
    let start = c.at;
    let value = c.take_while(|b| !matches!(b, b'{' | b' ' | b'\t' | b'\n' | 0));
    if value.is_empty() {
        return c.fail(Fault::Value(c.found()));
    }
    let mut sample = Cursor::sample(series, at, taken.is_some(), Cursor::number(value, start)?);
    c.skip_blanks();
    if c.peek().is_some_and(|b| b.is_ascii_digit()) {
        let start = c.at;
        let digits = c.take_while(|b| b.is_ascii_digit());
        let stamp = std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
        sample.stamp_ms = Some(stamp.ok_or_else(|| (start, Fault::BadStamp(printable(digits))))?);
        c.skip_blanks();
    }
    match c.peek() {
        None => Ok(sample),
        Some(b'\n') => {
            c.at += 1;
            Ok(sample)
        }
        Some(_) => c.fail(Fault::LineEnd(c.found())),
    }
}

/// Goes past a series' name and labels, tells `sink` of them and lends the text.
pub(super) fn series_text<'a>(c: &mut Cursor<'a>, sink: &mut impl Sink<'a>) -> Located<&'a [u8]> {
    let start = c.at;
    let named = c.peek().is_some_and(begins_name);
    if named {
        sink.name(c.take_while(continues_name));
        let end = c.at;
        c.skip_blanks();
        if c.peek() != Some(b'{') {
            c.at = end;
            return Ok(&c.body[start..end]);
        }
    } else if c.peek() != Some(b'{') {
        return c.fail(Fault::LineStart(c.found()));
    }
    c.at += 1;
    let named = label_list(c, named, sink)?;
    if !named {
        return Err((start, Fault::NoName));
    }
    Ok(&c.body[start..c.at])
}

/// Goes past labels and the closing brace; says whether the series has a name by then.
fn label_list<'a>(c: &mut Cursor<'a>, mut named: bool, sink: &mut impl Sink<'a>) -> Located<bool> {
    loop {
        c.skip_blanks();
        if c.take(b'}') {
            return Ok(named);
        }
        let (name, quoted) = labels::take_name(c)?;
        c.skip_blanks();
        if quoted && matches!(c.peek(), Some(b',' | b'}')) {
            if named {
                return c.fail(Fault::TwoNames);
            }
            named = true;
            sink.name(name);
            c.take(b',');
            continue;
        }
        if !c.take(b'=') {
            return c.fail(Fault::Equals(c.found()));
        }
        c.skip_blanks();
        sink.label(name, labels::take_value(c)?);
        // Commas between labels are optional here, and one may follow the last.
        c.skip_blanks();
        c.take(b',');
    }
}

#[cfg(test)]
mod quirks {
    use super::super::{Exposition, Format};

    #[test]
    fn a_comment_that_only_looks_like_metadata_is_a_comment() {
        for line in ["#HELP", "# HELPX a b", "# TYPE", "#", "# ", "# TYPO a counter", "#TYPE a counter"] {
            assert_eq!(Exposition::new(line.as_bytes(), Format::Text).next(), None, "{line}");
        }
    }
}
