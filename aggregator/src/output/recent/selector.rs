//! Series selectors: the part of PromQL that `/federate` takes, `name{label="value", other=~"re.*"}`.

use super::SymbolText;
use crate::session::ResolvedSeries;
use crate::symbols::Symbol;
use pegel_proto::metrics::NAME_LABEL;
use regex::{Regex, RegexBuilder};
use std::collections::HashMap;

/// The most bytes that one compiled regular expression may take: a selector comes from whoever reaches the port.
const MAX_REGEX_BYTES: usize = 256 << 10;
/// The longest selector, in bytes.
const MAX_SELECTOR_BYTES: usize = 8 << 10;

/// Why a selector can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the selector `{selector}` at character {at}: {reason}")]
pub struct BadSelector {
    /// The selector as given.
    pub selector: String,
    /// Where, in bytes from its beginning.
    pub at: usize,
    /// What is wrong.
    pub reason: String,
}

#[derive(Debug)]
enum Test {
    Equals(String),
    Differs(String),
    Matches(Regex),
    MatchesNot(Regex),
}

impl Test {
    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Equals(wanted) => value == wanted,
            Self::Differs(unwanted) => value != unwanted,
            Self::Matches(regex) => regex.is_match(value),
            Self::MatchesNot(regex) => !regex.is_match(value),
        }
    }
}

/// A parsed selector. A label that a series does not have counts as empty, as in PromQL.
#[derive(Debug)]
pub struct Selector {
    tests: Vec<(String, Test)>,
}

impl Selector {
    /// Reads a selector. As in PromQL, one that would match everything (`{a=~".*"}`) is refused.
    pub fn parse(text: &str) -> Result<Self, BadSelector> {
        let mut parser = Parser { text, at: 0 };
        let selector = parser.selector().map_err(|reason| BadSelector {
            selector: text.chars().take(200).collect(),
            at: parser.at,
            reason,
        })?;
        Ok(selector)
    }
}

/// Several selectors, any of which may match, and what they said of each symbol so far: a value that occurs in a
/// thousand series is looked at once.
pub(super) struct Matching<'a> {
    selectors: &'a [Selector],
    text: &'a dyn SymbolText,
    /// For each test, by (selector, test): what it says of a symbol.
    verdicts: Vec<Vec<HashMap<Symbol, bool>>>,
    names: HashMap<Symbol, Vec<(usize, usize)>>,
}

impl<'a> Matching<'a> {
    /// Begins a pass over series.
    pub(super) fn new(selectors: &'a [Selector], text: &'a dyn SymbolText) -> Self {
        let verdicts = selectors.iter().map(|s| s.tests.iter().map(|_| HashMap::new()).collect()).collect();
        Self { selectors, text, verdicts, names: HashMap::new() }
    }

    /// Whether any selector takes the series.
    pub(super) fn takes(&mut self, series: &ResolvedSeries) -> bool {
        let mut passed: Vec<u64> = vec![0; self.selectors.len()];
        let mut seen: Vec<u64> = vec![0; self.selectors.len()];
        for (label, value) in &series.labels {
            let tests =
                self.names.entry(*label).or_insert_with(|| tests_of(self.selectors, self.text, *label));
            for &(selector, test) in tests.iter() {
                seen[selector] |= 1 << test;
                let verdict = self.verdicts[selector][test].entry(*value).or_insert_with(|| {
                    let mut holds = false;
                    self.text.with_text(*value, &mut |value| {
                        holds = self.selectors[selector].tests[test].1.holds(value);
                    });
                    holds
                });
                passed[selector] |= u64::from(*verdict) << test;
            }
        }
        self.selectors.iter().enumerate().any(|(i, selector)| {
            selector.tests.iter().enumerate().all(|(t, (_, test))| {
                if seen[i] & 1 << t == 0 { test.holds("") } else { passed[i] & 1 << t != 0 }
            })
        })
    }
}

fn tests_of(selectors: &[Selector], text: &dyn SymbolText, label: Symbol) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    text.with_text(label, &mut |label| {
        for (s, selector) in selectors.iter().enumerate() {
            let tests = selector.tests.iter().enumerate();
            found.extend(tests.filter(|(_, (name, _))| name == label).map(|(t, _)| (s, t)));
        }
    });
    found
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn selector(&mut self) -> Result<Selector, String> {
        if self.text.len() > MAX_SELECTOR_BYTES {
            return Err(format!("it is longer than {MAX_SELECTOR_BYTES} bytes"));
        }
        let mut tests = Vec::new();
        self.skip_space();
        let name = self.word(|c| c == ':');
        if !name.is_empty() {
            tests.push((NAME_LABEL.to_owned(), Test::Equals(name)));
        }
        self.skip_space();
        if self.eat("{") {
            self.matchers(&mut tests)?;
        }
        self.skip_space();
        if self.at < self.text.len() {
            return Err("expected the end, or `{`".into());
        }
        // One bit a test in `Matching`.
        if tests.len() > 64 {
            return Err("it has more than 64 matchers".into());
        }
        if tests.iter().all(|(_, test)| test.holds("")) {
            return Err(
                "at least one matcher must not match the empty string, or it would take everything".into()
            );
        }
        Ok(Selector { tests })
    }

    fn matchers(&mut self, tests: &mut Vec<(String, Test)>) -> Result<(), String> {
        loop {
            self.skip_space();
            if self.eat("}") {
                return Ok(());
            }
            // Prometheus 3: a quoted metric or label name.
            let quoted = self.text[self.at..].starts_with(['"', '\'']);
            let label = if quoted { self.string()? } else { self.word(|_| false) };
            if label.is_empty() {
                return Err("expected a label name or `}`".into());
            }
            self.skip_space();
            let operator = ["=~", "!~", "!=", "="].into_iter().find(|o| self.eat(o));
            match operator {
                None if quoted => tests.push((NAME_LABEL.to_owned(), Test::Equals(label))),
                None => return Err("expected one of = != =~ !~".into()),
                Some(operator) => {
                    self.skip_space();
                    let value = self.string()?;
                    tests.push((label, test(operator, value)?));
                }
            }
            self.skip_space();
            if !self.eat(",") && !self.text[self.at..].starts_with('}') {
                return Err("expected `,` or `}`".into());
            }
        }
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.text[self.at..].trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.text[self.at..].starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn word(&mut self, also: impl Fn(char) -> bool) -> String {
        let rest = &self.text[self.at..];
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || also(c))).unwrap_or(rest.len());
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            return String::new();
        }
        self.at += end;
        rest[..end].to_owned()
    }

    fn string(&mut self) -> Result<String, String> {
        let quote = self.text[self.at..].chars().next().filter(|c| matches!(c, '"' | '\'' | '`'));
        let quote = quote.ok_or("expected a quoted string")?;
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        let mut chars = self.text[self.at..].chars();
        while let Some(c) = chars.next() {
            self.at = self.text.len() - chars.as_str().len();
            match c {
                c if c == quote => return Ok(out),
                '\\' if quote != '`' => {
                    let escaped = match chars.next() {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some('r') => '\r',
                        Some(c @ ('\\' | '"' | '\'')) => c,
                        _ => return Err(r#"unknown escape: use \\ \" \' \n \t \r"#.into()),
                    };
                    out.push(escaped);
                }
                c => out.push(c),
            }
        }
        self.at = start;
        Err("the string is not closed".into())
    }
}

fn test(operator: &str, value: String) -> Result<Test, String> {
    let regex = |value: &str| {
        RegexBuilder::new(&format!("^(?s:{value})$"))
            .size_limit(MAX_REGEX_BYTES)
            .build()
            .map_err(|e| format!("bad regular expression: {e}"))
    };
    Ok(match operator {
        "=" => Test::Equals(value),
        "!=" => Test::Differs(value),
        "=~" => Test::Matches(regex(&value)?),
        _ => Test::MatchesNot(regex(&value)?),
    })
}
