//! logfmt: `key=value key="quoted value" flag`.

use super::event::{Event, Pair};

/// Adds the line's fields; words without `=` are passed over. Whether there was any field.
pub(super) fn parse(text: &str, prefix: &str, event: &mut Event) -> bool {
    let bytes = text.as_bytes();
    let before = event.fields.len();
    let mut at = 0;
    while at < bytes.len() {
        while at < bytes.len() && bytes[at] <= b' ' {
            at += 1;
        }
        let from = at;
        while at < bytes.len() && bytes[at] > b' ' && !matches!(bytes[at], b'=' | b'"') {
            at += 1;
        }
        let name = &text[from..at];
        if bytes.get(at) != Some(&b'=') || name.is_empty() {
            // No key: the word is passed over, with a quoted part as a whole.
            at = match bytes.get(at) {
                Some(b'"') => quoted_end(bytes, at).unwrap_or(bytes.len()),
                Some(b'=') => at + 1,
                _ => at,
            };
            continue;
        }
        at += 1;
        if !event.has_room() {
            break;
        }
        let name = event.keep_written(|buffer| {
            buffer.push_str(prefix);
            buffer.push_str(name);
        });
        let value = if bytes.get(at) == Some(&b'"') {
            let end = quoted_end(bytes, at);
            let inner = &text[at + 1..end.map_or(bytes.len(), |end| end - 1)];
            at = end.unwrap_or(bytes.len());
            event.keep_written(|buffer| unescape(inner, buffer))
        } else {
            let from = at;
            while at < bytes.len() && bytes[at] > b' ' {
                at += 1;
            }
            event.keep(&text[from..at])
        };
        event.fields.push(Pair { name, value });
    }
    event.fields.len() > before
}

/// The byte after the closing quote of what is quoted from `at` on; none if it stays open.
fn quoted_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        let found = memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        at += found + 1;
        if bytes[at - 1] == b'"' {
            return Some(at);
        }
        at += 1;
    }
}

fn unescape(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let mut after = rest[at + 1..].chars();
        match after.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
        rest = after.as_str();
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_their_fields() {
        let table: &[(&str, &[(&str, &str)])] = &[
            ("level=info msg=\"a \\\"b\\\"\\n\" n=1", &[("level", "info"), ("msg", "a \"b\"\n"), ("n", "1")]),
            ("  a=  b=x ", &[("a", ""), ("b", "x")]),
            ("flag a=b=c other", &[("a", "b=c")]),
            ("\"not a key\" a=1", &[("a", "1")]),
            ("a=\"open", &[("a", "open")]),
            ("a=\"x\"b=2", &[("a", "x"), ("b", "2")]),
            ("=1 a=2", &[("a", "2")]),
            ("a=\"tail\\", &[("a", "tail\\")]),
            ("é=ü", &[("é", "ü")]),
        ];
        for (text, expected) in table {
            let mut event = Event::default();
            assert_eq!(parse(text, "", &mut event), !expected.is_empty());
            let found: Vec<_> =
                event.fields.iter().map(|pair| (event.text(pair.name), event.text(pair.value))).collect();
            assert_eq!(found, *expected, "{text}");
        }
        assert!(!parse("nothing here", "", &mut Event::default()));
    }
}
