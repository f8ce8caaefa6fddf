//! What a container's runtime writes around a line.

use super::event::Event;
use super::{json, time};
use std::borrow::Cow;
use std::sync::LazyLock;

/// How a container's runtime writes lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// Docker's json-file: an object a line.
    Docker,
    /// Kubernetes' CRI: `TIME STREAM TAGS TEXT`.
    Cri,
}

/// One line of a container's output, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// `stdout`, `stderr`, or what else the runtime calls it.
    pub stream: Cow<'a, str>,
    /// When the runtime read it.
    pub at_ns: Option<i64>,
    pub text: Cow<'a, str>,
    /// The line goes on in the stream's next part.
    pub partial: bool,
}

static RFC3339: LazyLock<time::Format> =
    LazyLock::new(|| time::Format::parse("rfc3339").expect("the format is tested"));

/// Whether a runtime would call an output so: what becomes a label is not anything.
fn is_output(name: &str) -> bool {
    (1..=16).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Reads a line; none if it is not of that format, such as one that a power cut tore.
pub(super) fn read<'a>(container: Container, line: &'a str, scratch: &mut Event) -> Option<Part<'a>> {
    match container {
        Container::Docker => docker(line, scratch),
        Container::Cri => cri(line),
    }
}

/// `2016-10-06T00:17:09.669794202Z stdout F text`; the tags may be several, split by colons.
fn cri(line: &str) -> Option<Part<'_>> {
    let mut words = line.splitn(4, ' ');
    let at = words.next()?;
    let stream = words.next().filter(|stream| is_output(stream))?;
    let tags = words.next()?;
    let text = words.next().unwrap_or_default();
    let partial = match tags.split(':').next()? {
        "P" => true,
        "F" => false,
        _ => return None,
    };
    Some(Part { stream: Cow::Borrowed(stream), at_ns: Some(moment(at)?), text: Cow::Borrowed(text), partial })
}

/// `{"log":"text\n","stream":"stdout","time":"…"}`; a part of a line has no line end.
fn docker<'a>(line: &'a str, scratch: &mut Event) -> Option<Part<'a>> {
    scratch.clear();
    json::parse(line, "", scratch).ok()?;
    let text = scratch.value("log")?;
    let stream = scratch.value("stream").unwrap_or("stdout");
    if !is_output(stream) {
        return None;
    }
    let partial = !text.ends_with('\n');
    let text = text.strip_suffix('\n').unwrap_or(text);
    Some(Part {
        stream: Cow::Owned(stream.to_owned()),
        at_ns: scratch.value("time").and_then(moment),
        text: Cow::Owned(text.strip_suffix('\r').unwrap_or(text).to_owned()),
        partial,
    })
}

fn moment(text: &str) -> Option<i64> {
    RFC3339.read(text, &time::Zone::default(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_each_runtime() {
        let mut scratch = Event::default();
        let mut told = |container, line: &'static str| {
            read(container, line, &mut scratch).map(|part| {
                (part.stream.into_owned(), part.at_ns.unwrap_or(0), part.text.into_owned(), part.partial)
            })
        };
        let some =
            |stream: &str, at, text: &str, partial| Some((stream.to_owned(), at, text.to_owned(), partial));
        let (docker, cri) = (Container::Docker, Container::Cri);
        assert_eq!(
            told(docker, r#"{"log":"a \"b\"\r\n","stream":"stderr","time":"1970-01-01T00:00:01.5Z"}"#),
            some("stderr", 1_500_000_000, "a \"b\"", false)
        );
        assert_eq!(
            told(
                docker,
                r#"{"log":"half","stream":"stdout","attrs":{"x":"y"},"time":"1970-01-01T00:00:01Z"}"#
            ),
            some("stdout", 1_000_000_000, "half", true)
        );
        assert_eq!(told(docker, r#"{"log":"tor"#), None);
        assert_eq!(told(docker, r#"{"stream":"stdout"}"#), None);
        assert_eq!(
            told(cri, "1970-01-01T01:00:01.000000005+01:00 stdout P a  b"),
            some("stdout", 1_000_000_005, "a  b", true)
        );
        assert_eq!(told(cri, "1970-01-01T00:00:01Z stderr F:x "), some("stderr", 1_000_000_000, "", false));
        assert_eq!(told(cri, "1970-01-01T00:00:01Z stderr F"), some("stderr", 1_000_000_000, "", false));
        for bad in ["", "x stdout F a", "1970-01-01T00:00:01Z stdout X a", "1970-01-01T00:00:01Z  F a"] {
            assert_eq!(told(cri, bad), None, "{bad}");
        }
    }
}
