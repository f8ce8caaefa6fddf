//! Which lines belong to the one before.
//!
//! The rules look at the lines of one event only, so that it does not matter where reading began, as long as it began at
//! an event.

use regex::Regex;
use std::time::Duration;

/// The most lines of one event by default: a deep stack with its causes.
pub const DEFAULT_MAX_LINES: usize = 500;
/// How long the next line of an event is waited for by default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// How lines are joined.
#[derive(Debug, Clone)]
pub struct Multiline {
    /// The first line of an event matches; what does not match belongs to the one before.
    pub start: Option<Regex>,
    /// A line that belongs to the one before matches.
    pub continues: Option<Regex>,
    /// Stack traces that are known.
    pub traces: Vec<Trace>,
    /// The most lines of one event.
    pub max_lines: usize,
    /// How long the next line is waited for.
    pub timeout: Duration,
    /// Whether private keys over several lines are joined, to be masked as a whole.
    pub keys: bool,
}

impl Default for Multiline {
    fn default() -> Self {
        Self {
            start: None,
            continues: None,
            traces: Vec::new(),
            max_lines: DEFAULT_MAX_LINES,
            timeout: DEFAULT_TIMEOUT,
            keys: false,
        }
    }
}

/// Stack traces of a language. They are joined with the line before, which is the message that they were logged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Java and other languages of its machine.
    Java,
    /// Python.
    Python,
    /// Go's panics and dumps of goroutines.
    Go,
    /// Node.js.
    Node,
    /// .NET.
    Dotnet,
    /// Anything that is indented.
    Indented,
}

/// Where in a trace the last line was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Place {
    /// In none.
    #[default]
    Outside,
    /// In Python's list of frames: the exception is still to come.
    Frames,
    /// After what may be followed by a cause.
    After,
    /// In a dump of Go's or an uncaught error of Node's.
    Dump,
    /// In a private key.
    Key,
}

/// The most lines of a private key.
const MAX_KEY_LINES: usize = 200;

impl Multiline {
    /// Rules by which no line belongs to another.
    pub(super) fn none() -> Self {
        Self { max_lines: 1, ..Self::default() }
    }

    /// How many lines an event may have: a key is not cut through.
    pub(super) fn most_lines(&self, place: Place) -> usize {
        self.max_lines + if place == Place::Key { MAX_KEY_LINES } else { 0 }
    }

    /// Whether a line might follow that belongs to the event.
    pub(super) fn may_go_on(&self, place: Place) -> bool {
        place == Place::Key || self.start.is_some() || self.continues.is_some() || !self.traces.is_empty()
    }

    /// Whether a line that did not fit any more would have belonged to the event.
    pub(super) fn goes_on(&self, line: &str, place: Place) -> bool {
        self.joins(line, &mut { place })
    }

    /// Whether a line belongs to the event before it. `place` is of that event and moves on; a line that begins an
    /// event begins with [`Place::default`] and is told here as well.
    pub(super) fn joins(&self, line: &str, place: &mut Place) -> bool {
        if *place == Place::Key {
            if line.contains("-----END ") {
                *place = Place::Outside;
                return true;
            }
            if in_key(line) {
                return true;
            }
        }
        let mut joins = self.continues.as_ref().is_some_and(|continues| continues.is_match(line));
        if let Some(start) = &self.start {
            joins = joins || (self.continues.is_none() && self.traces.is_empty());
            if start.is_match(line) {
                *place = Place::Outside;
                return false;
            }
        }
        for trace in &self.traces {
            if let Some(next) = trace.joins(line, *place) {
                *place = if self.keys && begins_key(line) { Place::Key } else { next };
                return true;
            }
        }
        *place = if joins && self.keys && begins_key(line) { Place::Key } else { Place::Outside };
        joins
    }

    /// Tells the first line of an event.
    pub(super) fn begins(&self, line: &str, place: &mut Place) {
        *place = self.traces.iter().find_map(|trace| trace.begins(line)).unwrap_or_default();
        if self.keys && begins_key(line) {
            *place = Place::Key;
        }
    }
}

/// A private key's first line, that does not hold its last one too.
fn begins_key(line: &str) -> bool {
    let begin = line.rfind("-----BEGIN ");
    begin.is_some_and(|at| line[at..].contains("PRIVATE KEY") && !line[at..].contains("-----END "))
}

/// What stands between the first and the last line of a key: base64, indented or not, headers, an empty line.
fn in_key(line: &str) -> bool {
    let line = line.trim();
    line.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
        || ["Proc-Type: ", "DEK-Info: ", "Version: ", "Comment: "].iter().any(|head| line.starts_with(head))
}

impl Trace {
    /// Where a line that begins an event leaves its trace.
    fn begins(self, line: &str) -> Option<Place> {
        match self {
            Self::Python if line.starts_with("Traceback (most recent call last):") => Some(Place::Frames),
            Self::Go if go_begins(line) => Some(Place::Dump),
            Self::Node if node_begins(line) => Some(Place::Dump),
            _ => None,
        }
    }

    /// Whether a line belongs to what is before it, and where it leaves the trace.
    fn joins(self, line: &str, place: Place) -> Option<Place> {
        let indented = line.starts_with([' ', '\t']) && !line.trim_start().is_empty();
        match self {
            Self::Indented => indented.then_some(place),
            Self::Java => (indented
                || line.starts_with("Caused by: ")
                || line.starts_with("Suppressed: ")
                || is_exception(line))
            .then_some(Place::Outside),
            Self::Dotnet => {
                (indented || line.starts_with("--- End of ") || is_exception(line)).then_some(Place::Outside)
            }
            Self::Python => match place {
                _ if line.starts_with("Traceback (most recent call last):") => Some(Place::Frames),
                // The exception itself ends the frames.
                Place::Frames if indented => Some(Place::Frames),
                Place::Frames if !line.is_empty() => Some(Place::After),
                Place::After if line.is_empty() => Some(Place::After),
                Place::After
                    if line.starts_with("During handling of the above exception")
                        || line.starts_with("The above exception was the direct cause") =>
                {
                    Some(Place::After)
                }
                _ => None,
            },
            Self::Go => match place {
                Place::Dump => (line.is_empty()
                    || line.starts_with('\t')
                    || line.starts_with("goroutine ")
                    || line.starts_with("created by ")
                    || line.starts_with("[signal ")
                    || line.starts_with("[recovered]")
                    || line.starts_with("panic: ")
                    || line.starts_with("exit status ")
                    || line.starts_with("...")
                    || go_frame(line))
                .then_some(Place::Dump),
                _ => None,
            },
            Self::Node => match place {
                Place::Dump if line.starts_with("Node.js v") => Some(Place::Outside),
                Place::Dump
                    if line.is_empty()
                        || indented
                        || node_error(line)
                        || line == "}"
                        || line.starts_with("Thrown at:") =>
                {
                    Some(Place::Dump)
                }
                _ => (indented || line == "}").then_some(place),
            },
        }
    }
}

/// `some.pkg.SomeException: message` at the beginning of a line.
fn is_exception(line: &str) -> bool {
    let line = line.strip_prefix("Exception in thread ").map_or(line, |rest| {
        rest.strip_prefix('"').and_then(|rest| rest.split_once("\" ")).map_or(rest, |(_, rest)| rest)
    });
    let name = line.split([':', ' ', '\r']).next().unwrap_or_default();
    let known = ["Exception", "Error", "Throwable"].iter().any(|end| name.ends_with(end));
    known && name.contains('.') && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._$".contains(&b))
}

fn go_begins(line: &str) -> bool {
    ["panic: ", "fatal error: ", "goroutine ", "SIGQUIT: quit", "SIGSEGV: segmentation"]
        .iter()
        .any(|begin| line.starts_with(begin))
}

/// `main.(*T).method(0xc000012345, 0x1)`.
fn go_frame(line: &str) -> bool {
    line.ends_with(')')
        && line.contains('(')
        && line.contains('.')
        && !line[..line.find('(').unwrap_or(0)].contains(' ')
}

/// `/app/file.js:12` alone, or an error's own line.
fn node_begins(line: &str) -> bool {
    let at = line.rsplit_once(':').is_some_and(|(file, line)| {
        !line.is_empty()
            && line.bytes().all(|b| b.is_ascii_digit())
            && !file.contains(' ')
            && [".js", ".mjs", ".cjs", ".ts"].iter().any(|end| file.ends_with(end))
    });
    at || node_error(line)
}

fn node_error(line: &str) -> bool {
    let line = line.strip_prefix("Uncaught ").unwrap_or(line);
    let name = line.split([':', ' ']).next().unwrap_or_default();
    (name.ends_with("Error") || name.ends_with("Exception"))
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(rules: &Multiline, text: &str) -> Vec<usize> {
        let (mut events, mut place): (Vec<usize>, Place) = (Vec::new(), Place::default());
        for line in text.lines() {
            if events.is_empty() || !rules.joins(line, &mut place) {
                rules.begins(line, &mut place);
                events.push(0);
            }
            *events.last_mut().unwrap() += 1;
        }
        events
    }

    fn traces(trace: Trace, text: &str) -> Vec<usize> {
        events(&Multiline { traces: vec![trace], ..Multiline::default() }, text)
    }

    #[test]
    fn traces_of_each_language_stay_together() {
        let java = "12:00 INFO fine\n12:01 ERROR failed\njava.lang.IllegalStateException: x\n\tat a.B.c(B.java:1)\n\t... 3 more\nCaused by: java.io.IOException: y\n\tat d.E.f(E.java:2)\n12:02 INFO next\nException in thread \"main\" a.b.CError\n\tat x";
        assert_eq!(traces(Trace::Java, java), [1, 6, 3]);
        let python = "INFO fine\nERROR:root:failed\nTraceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    f()\nKeyError: 'x'\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 3\nValueError: y\nINFO next\nINFO more";
        assert_eq!(traces(Trace::Python, python), [1, 11, 1, 1]);
        let go = "starting\npanic: runtime error: index out of range [1]\n\ngoroutine 1 [running]:\nmain.f(0x1)\n\t/a/main.go:7 +0x1d\nmain.main()\n\t/a/main.go:3 +0x20\nexit status 2\nnext line";
        assert_eq!(traces(Trace::Go, go), [1, 8, 1]);
        let node = "listening\n/app/a.js:3\n  throw new TypeError('x');\n  ^\n\nTypeError: x\n    at f (/app/a.js:3:9)\n    at main {\n  code: 1\n}\n\nNode.js v20.1.0\nlistening again";
        assert_eq!(traces(Trace::Node, node), [1, 11, 1]);
        let dotnet = "info: A[0]\n      Started\nUnhandled exception. System.Exception: x\n ---> System.IO.IOException: y\n   at A.B() in /a.cs:line 3\n   --- End of inner exception stack trace ---\n   at A.C()\ninfo: B[0]\n      Stopped";
        assert_eq!(traces(Trace::Dotnet, dotnet), [2, 5, 2]);
        assert_eq!(traces(Trace::Indented, "a\n b\n\tc\nd\n\ne"), [3, 1, 1, 1]);
    }

    #[test]
    fn patterns_of_ones_own() {
        let regex = |text: &str| Some(Regex::new(text).unwrap());
        let start = Multiline { start: regex(r"^\d{4}-"), ..Multiline::default() };
        assert_eq!(events(&start, "tail\n2024- a\nb\nc\n2024- d"), [1, 3, 1]);
        let continues = Multiline { continues: regex(r"^\s|^\)"), ..Multiline::default() };
        assert_eq!(events(&continues, "a(\n b\n)\nc"), [3, 1]);
        let both = Multiline { start: regex("^S"), continues: regex("^c"), ..Multiline::default() };
        assert_eq!(events(&both, "S\nc\nx\nc\nS"), [2, 2, 1]);
    }
}
