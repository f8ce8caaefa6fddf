//! STRUCTURED-DATA (RFC 5424, 6.3): `-`, or `[ID NAME="VALUE" …]` once or more.

use std::borrow::Cow;

/// Parameters that are kept of a message; Loki takes 128 pairs of metadata with an entry.
const MAX_PARAMETERS: usize = 96;

/// A parameter, named after its element, and its value.
type Parameter<'a> = (String, Cow<'a, str>);

/// Parameters and the text behind them; none if it is not well formed.
pub fn read(text: &str) -> Option<(Vec<Parameter<'_>>, &str)> {
    if let Some(rest) = text.strip_prefix('-') {
        return Some((Vec::new(), end(rest)?));
    }
    let mut parameters = Vec::new();
    let mut rest = text.strip_prefix('[')?;
    loop {
        rest = element(rest, &mut parameters)?;
        match rest.strip_prefix('[') {
            Some(next) => rest = next,
            None => return Some((parameters, end(rest)?)),
        }
    }
}

/// The text begins behind a blank.
fn end(rest: &str) -> Option<&str> {
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(' ') }
}

/// Behind the bracket that opens it: what follows the one that closes it.
fn element<'a>(text: &'a str, parameters: &mut Vec<Parameter<'a>>) -> Option<&'a str> {
    let at = text.find([' ', ']'])?;
    let (id, mut rest) = text.split_at(at);
    if id.is_empty() || id.contains(['=', '"']) {
        return None;
    }
    if let Some(after) = rest.strip_prefix(']') {
        keep(parameters, id.to_owned(), Cow::Borrowed(""));
        return Some(after);
    }
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(after) = rest.strip_prefix(']') {
            return Some(after);
        }
        let (name, after) = rest.split_once("=\"")?;
        if name.is_empty() || name.contains([' ', ']', '"', '=']) {
            return None;
        }
        let (value, after) = quoted(after)?;
        keep(parameters, format!("{id}.{name}"), value);
        rest = after;
    }
}

fn keep<'a>(parameters: &mut Vec<Parameter<'a>>, name: String, value: Cow<'a, str>) {
    if parameters.len() < MAX_PARAMETERS {
        parameters.push((name, value));
    }
}

/// Up to the closing quote. A backslash makes a quote, a backslash or a bracket one of the value; before anything
/// else it is one itself.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut value = Cow::Borrowed("");
    let mut from = 0;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let rest = &text[from..at];
                if value.is_empty() {
                    value = Cow::Borrowed(rest);
                } else {
                    value.to_mut().push_str(rest);
                }
                return Some((value, &text[at + 1..]));
            }
            b'\\' if matches!(bytes.get(at + 1), Some(b'"' | b'\\' | b']')) => {
                value.to_mut().push_str(&text[from..at]);
                from = at + 1;
                at += 2;
            }
            _ => at += 1,
        }
    }
    None
}
