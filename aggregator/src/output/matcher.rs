//! What selectors of series and of log streams have in common: matchers of a label, and how they are read.

use regex::{Regex, RegexBuilder};

/// The most bytes that one compiled regular expression may take: a selector comes from whoever reaches the port.
const MAX_REGEX_BYTES: usize = 256 << 10;

/// What is asked of a text.
#[derive(Debug)]
pub(super) enum Test {
    /// It is this.
    Equals(String),
    /// It is not this.
    Differs(String),
    /// The expression matches.
    Matches(Regex),
    /// The expression does not match.
    MatchesNot(Regex),
}

impl Test {
    /// Reads an operator and its value; the expression has to match the whole text, as in PromQL.
    pub(super) fn new(operator: &str, value: String) -> Result<Self, String> {
        let whole = |value: &str| regex(&format!("^(?s:{value})$"));
        Ok(match operator {
            "=" => Self::Equals(value),
            "!=" => Self::Differs(value),
            "=~" => Self::Matches(whole(&value)?),
            _ => Self::MatchesNot(whole(&value)?),
        })
    }

    /// Whether it holds of a text.
    pub(super) fn holds(&self, text: &str) -> bool {
        match self {
            Self::Equals(wanted) => text == wanted,
            Self::Differs(unwanted) => text != unwanted,
            Self::Matches(regex) => regex.is_match(text),
            Self::MatchesNot(regex) => !regex.is_match(text),
        }
    }
}

/// Compiles an expression within its bound.
pub(super) fn regex(expression: &str) -> Result<Regex, String> {
    RegexBuilder::new(expression)
        .size_limit(MAX_REGEX_BYTES)
        .build()
        .map_err(|e| format!("bad regular expression: {e}"))
}

/// Reads a selector's text from left to right.
pub(super) struct Scanner<'a> {
    /// The whole text.
    pub(super) text: &'a str,
    /// The place that is read next, in bytes.
    pub(super) at: usize,
}

impl<'a> Scanner<'a> {
    /// Begins at the beginning.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// What is not read yet.
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Skips white space.
    pub(super) fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Takes a token if it is next.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// Takes a name; empty if none is next. `also` are characters that it may have beside `[a-zA-Z0-9_]`.
    pub(super) fn word(&mut self, also: impl Fn(char) -> bool) -> String {
        let rest = self.rest();
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || also(c))).unwrap_or(rest.len());
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            return String::new();
        }
        self.at += end;
        rest[..end].to_owned()
    }

    /// Takes the operator of a label's matcher.
    pub(super) fn operator(&mut self) -> Option<&'static str> {
        ["=~", "!~", "!=", "="].into_iter().find(|operator| self.eat(operator))
    }

    /// Takes a quoted string.
    pub(super) fn string(&mut self) -> Result<String, String> {
        let quote = self.rest().chars().next().filter(|c| matches!(c, '"' | '\'' | '`'));
        let quote = quote.ok_or("expected a quoted string")?;
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        let mut chars = self.rest().chars();
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
