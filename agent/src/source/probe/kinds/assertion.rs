//! What answers are held against: regular expressions and values in JSON.

use crate::source::probe::record::Gauge;
use std::fmt;

/// For kinds that hold answers against expressions.
pub static FAILED_REGEX: Gauge =
    Gauge::new("probe_failed_due_to_regex", "Whether a regular expression made the run fail.", &[]);

/// A regular expression that is compared by its text.
#[derive(Clone)]
pub struct Pattern(regex_lite::Regex);

impl Pattern {
    /// Compiles one; the error says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        regex_lite::Regex::new(text).map(Self).map_err(|e| e.to_string())
    }

    /// Its text.
    pub fn text(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it matches somewhere.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// Its groups where it first matches.
    pub fn captures<'t>(&self, text: &'t str) -> Option<regex_lite::Captures<'t>> {
        self.0.captures(text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

/// A place in a JSON value: keys and indexes, `status.checks[0].ok`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath {
    text: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl JsonPath {
    /// Reads a path. A leading `$.` may stand for the whole; keys with dots, brackets or quotes in them are written
    /// as `["a.b"]`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut first = rest.len() == text.len();
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix("[\"") {
                let (key, after) = inner.split_once("\"]").ok_or("has a bracket that is not closed")?;
                steps.push(Step::Key(key.to_owned()));
                rest = after;
            } else if let Some(inner) = rest.strip_prefix('[') {
                let (index, after) = inner.split_once(']').ok_or("has a bracket that is not closed")?;
                let index = index.parse().map_err(|_| format!("has `{index}` for an index"))?;
                steps.push(Step::Index(index));
                rest = after;
            } else {
                let from = match rest.strip_prefix('.') {
                    Some(after) => after,
                    None if first => rest,
                    None => return Err("goes on without a dot".to_owned()),
                };
                let end = from.find(['.', '[']).unwrap_or(from.len());
                if end == 0 {
                    return Err("has an empty key".to_owned());
                }
                steps.push(Step::Key(from[..end].to_owned()));
                rest = &from[end..];
            }
            first = false;
        }
        Ok(Self { text: text.to_owned(), steps })
    }

    /// The value there.
    pub fn find<'a>(&self, value: &'a serde_json::Value) -> Option<&'a serde_json::Value> {
        self.steps.iter().try_fold(value, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(index),
        })
    }
}

/// What a value in a JSON body must be.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonAssertion {
    /// Where it is.
    pub path: JsonPath,
    /// What it must be.
    pub wanted: JsonWanted,
}

/// See [`JsonAssertion`].
#[derive(Debug, Clone, PartialEq)]
pub enum JsonWanted {
    /// Anything: it must be there.
    Present,
    /// This: a string as it is, anything else as JSON writes it.
    Equals(String),
    /// Text that this matches; numbers and others as JSON writes them.
    Matches(Pattern),
}

impl JsonAssertion {
    /// Says why a body is not as it should be.
    pub fn check(&self, body: &serde_json::Value) -> Result<(), String> {
        let path = &self.path.text;
        let Some(found) = self.path.find(body) else { return Err(format!("there is no {path}")) };
        let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
        let shown: String = text.chars().take(60).collect();
        match &self.wanted {
            JsonWanted::Present => Ok(()),
            JsonWanted::Equals(wanted) if text == *wanted => Ok(()),
            JsonWanted::Equals(wanted) => Err(format!("{path} is `{shown}` and not `{wanted}`")),
            JsonWanted::Matches(pattern) if pattern.matches(&text) => Ok(()),
            JsonWanted::Matches(pattern) => {
                Err(format!("{path} is `{shown}` and does not match `{}`", pattern.text()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(path: &str, wanted: JsonWanted) -> Result<(), String> {
        let body = serde_json::json!({
            "status": "green", "nodes": [{"up": true, "n": 3}, {"a.b": null}],
        });
        JsonAssertion { path: JsonPath::parse(path).unwrap(), wanted }.check(&body)
    }

    #[test]
    fn values_are_found_and_compared() {
        let equals = |text: &str| JsonWanted::Equals(text.to_owned());
        let matches = |text: &str| JsonWanted::Matches(Pattern::new(text).unwrap());
        for (path, wanted) in [
            ("status", equals("green")),
            ("$.status", matches("^gr")),
            ("nodes[0].up", equals("true")),
            ("$.nodes[0].n", matches("^[1-9]")),
            ("nodes[1][\"a.b\"]", JsonWanted::Present),
        ] {
            assert_eq!(says(path, wanted), Ok(()), "{path}");
        }
        for (path, wanted, words) in [
            ("status", equals("red"), "`green` and not `red`"),
            ("nodes[2]", JsonWanted::Present, "no nodes[2]"),
            ("nodes[0].n", matches("^4"), "does not match `^4`"),
        ] {
            let error = says(path, wanted).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn paths_that_make_no_sense_are_refused() {
        for bad in ["a..b", "a[x]", "a[0", "a[0]b", ".", "a[\"b]"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
        assert!(JsonPath::parse("$").is_ok());
    }
}
