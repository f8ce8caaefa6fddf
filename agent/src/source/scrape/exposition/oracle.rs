//! A second parser, slow and written another way: the rules of Prometheus' two lexers as a table of (state, pattern,
//! token, next state) with the longest match winning, and the parsers on top of their tokens. It says what a body
//! means as text, in the form that `agent/oracle/textparse` prints for Prometheus' own parser.

use super::labels::{escape, unescape};
use pegel_proto::metrics::MetricType;
use std::fmt::Write as _;

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Init,
    Comment,
    Meta1,
    Meta2,
    Labels,
    LabelValue,
    Value,
    Timestamp,
    Exemplar,
    ExemplarValue,
    ExemplarTimestamp,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Invalid,
    End,
    LineFeed,
    Blank,
    Help,
    Type,
    Unit,
    Eof,
    Text,
    Comment,
    Name,
    Quoted,
    Open,
    Close,
    LabelName,
    LabelValue,
    Comma,
    Equals,
    Timestamp,
    Value,
}

/// How long a match of a pattern at the text's beginning is, if there is one.
type Pattern = fn(&[u8]) -> Option<usize>;

fn run(text: &[u8], fits: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|b| fits(**b)).count()
}

fn some(length: usize) -> Option<usize> {
    (length > 0).then_some(length)
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn blanks(text: &[u8]) -> Option<usize> {
    some(run(text, is_blank))
}

fn literal(text: &[u8], literal: &[u8]) -> Option<usize> {
    text.starts_with(literal).then_some(literal.len())
}

fn name(text: &[u8]) -> Option<usize> {
    let first = *text.first()?;
    (first.is_ascii_alphabetic() || first == b'_' || first == b':')
        .then(|| run(text, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b':'))
}

fn label_name(text: &[u8]) -> Option<usize> {
    let first = *text.first()?;
    (first.is_ascii_alphabetic() || first == b'_')
        .then(|| run(text, |b| b.is_ascii_alphanumeric() || b == b'_'))
}

fn quoted_with(text: &[u8], line_feeds: bool) -> Option<usize> {
    if text.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        match *text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' if *text.get(at + 1)? == b'\n' => return None,
            b'\\' => at += 2,
            b'\n' if !line_feeds => return None,
            _ => at += 1,
        }
    }
}

fn quoted(text: &[u8]) -> Option<usize> {
    quoted_with(text, true)
}

fn quoted_on_line(text: &[u8]) -> Option<usize> {
    quoted_with(text, false)
}

fn keyword(text: &[u8], word: &[u8]) -> Option<usize> {
    let length = literal(text, word)?;
    Some(length + blanks(&text[length..])?)
}

fn blank_and_word(text: &[u8]) -> Option<usize> {
    literal(text, b" ")?;
    Some(1 + some(run(&text[1..], |b| b != b' ' && b != b'\n'))?)
}

type Rule = (State, Pattern, Option<State>, Token);

const TEXT_RULES: &[Rule] = {
    use State as S;
    use Token as T;
    &[
        (S::Init, |t| literal(t, b"\n"), None, T::LineFeed),
        (S::Init, blanks, None, T::Blank),
        (S::Comment, blanks, None, T::Blank),
        (S::Meta1, blanks, None, T::Blank),
        (S::Meta2, blanks, None, T::Blank),
        (S::Labels, blanks, None, T::Blank),
        (S::LabelValue, blanks, None, T::Blank),
        (S::Value, blanks, None, T::Blank),
        (S::Timestamp, blanks, None, T::Blank),
        (S::Comment, |t| keyword(t, b"HELP"), Some(S::Meta1), T::Help),
        (S::Comment, |t| keyword(t, b"TYPE"), Some(S::Meta1), T::Type),
        (S::Meta1, quoted, Some(S::Meta2), T::Name),
        (S::Meta1, name, Some(S::Meta2), T::Name),
        (S::Meta2, |t| Some(run(t, |b| b != b'\n')), Some(S::Init), T::Text),
        (S::Init, name, Some(S::Value), T::Name),
        (S::Init, |t| literal(t, b"{"), Some(S::Labels), T::Open),
        (S::Value, |t| literal(t, b"{"), Some(S::Labels), T::Open),
        (S::Labels, label_name, None, T::LabelName),
        (S::Labels, quoted, None, T::Quoted),
        (S::Labels, |t| literal(t, b"}"), Some(S::Value), T::Close),
        (S::Labels, |t| literal(t, b"="), Some(S::LabelValue), T::Equals),
        (S::Labels, |t| literal(t, b","), None, T::Comma),
        (S::LabelValue, quoted, Some(S::Labels), T::LabelValue),
        (S::Value, |t| some(run(t, |b| !b"{ \t\n".contains(&b))), Some(S::Timestamp), T::Value),
        (S::Timestamp, |t| some(run(t, |b| b.is_ascii_digit())), None, T::Timestamp),
        (S::Timestamp, |t| literal(t, b"\n"), Some(S::Init), T::LineFeed),
    ]
};

const OPENMETRICS_RULES: &[Rule] = {
    use State as S;
    use Token as T;
    &[
        (S::Comment, |t| literal(t, b"HELP "), Some(S::Meta1), T::Help),
        (S::Comment, |t| literal(t, b"TYPE "), Some(S::Meta1), T::Type),
        (S::Comment, |t| literal(t, b"UNIT "), Some(S::Meta1), T::Unit),
        (S::Comment, |t| literal(t, b"EOF\n").or_else(|| literal(t, b"EOF")), Some(S::Init), T::Eof),
        (S::Meta1, quoted, Some(S::Meta2), T::Name),
        (S::Meta1, name, Some(S::Meta2), T::Name),
        (
            S::Meta2,
            |t| {
                let line = literal(t, b" ")? + run(&t[1..], |b| b != b'\n');
                (line < t.len()).then_some(line + 1)
            },
            Some(S::Init),
            T::Text,
        ),
        (S::Init, name, Some(S::Value), T::Name),
        (S::Init, |t| literal(t, b"{"), Some(S::Labels), T::Open),
        (S::Value, |t| literal(t, b"{"), Some(S::Labels), T::Open),
        (S::Labels, label_name, None, T::LabelName),
        (S::Labels, quoted, None, T::Quoted),
        (S::Labels, |t| literal(t, b"}"), Some(S::Value), T::Close),
        (S::Labels, |t| literal(t, b"="), Some(S::LabelValue), T::Equals),
        (S::Labels, |t| literal(t, b","), None, T::Comma),
        (S::LabelValue, quoted_on_line, Some(S::Labels), T::LabelValue),
        (S::Value, blank_and_word, Some(S::Timestamp), T::Value),
        (S::Timestamp, blank_and_word, None, T::Timestamp),
        (S::Timestamp, |t| literal(t, b"\n"), Some(S::Init), T::LineFeed),
        (S::Timestamp, |t| literal(t, b" # {"), Some(S::Exemplar), T::Comment),
        (S::Exemplar, label_name, None, T::LabelName),
        (S::Exemplar, quoted_on_line, None, T::Quoted),
        (S::Exemplar, |t| literal(t, b"}"), Some(S::ExemplarValue), T::Close),
        (S::Exemplar, |t| literal(t, b"="), Some(S::ExemplarValue), T::Equals),
        (S::ExemplarValue, quoted_on_line, Some(S::Exemplar), T::LabelValue),
        (S::Exemplar, |t| literal(t, b","), None, T::Comma),
        (S::ExemplarValue, blank_and_word, Some(S::ExemplarTimestamp), T::Value),
        (S::ExemplarTimestamp, blank_and_word, None, T::Timestamp),
        (S::ExemplarTimestamp, |t| literal(t, b"\n"), Some(S::Init), T::LineFeed),
    ]
};

struct Oracle<'a> {
    body: &'a [u8],
    at: usize,
    state: State,
    openmetrics: bool,
    kind: MetricType,
    out: String,
}

/// What a body means; none if it is refused. NUL bytes are not provided for.
pub(super) fn read(body: &[u8], openmetrics: bool) -> Option<String> {
    let mut owned = body.to_vec();
    if !openmetrics {
        owned.push(b'\n');
    }
    let mut oracle = Oracle {
        body: &owned,
        at: 0,
        state: State::Init,
        openmetrics,
        kind: MetricType::Unknown,
        out: String::new(),
    };
    while oracle.entry()? {}
    Some(oracle.out)
}

impl<'a> Oracle<'a> {
    /// The next token, blanks of the text format left out, and its text.
    fn token(&mut self) -> (Token, &'a [u8]) {
        loop {
            let (token, text) = self.lex();
            if token != Token::Blank {
                return (token, text);
            }
        }
    }

    fn lex(&mut self) -> (Token, &'a [u8]) {
        let rest = &self.body[self.at..];
        if rest.is_empty() {
            return (Token::End, rest);
        }
        if self.state == State::Init && rest[0] == b'#' {
            let after = &rest[1..];
            if self.openmetrics {
                if after.first() != Some(&b' ') {
                    return (Token::Invalid, rest);
                }
                self.at += 2;
            } else if let Some(length) = blanks(after) {
                self.at += 1 + length;
            } else {
                return self.comment();
            }
            self.state = State::Comment;
            return if self.at == self.body.len() { (Token::Invalid, rest) } else { self.lex() };
        }
        let rules = if self.openmetrics { OPENMETRICS_RULES } else { TEXT_RULES };
        let mut best: Option<(usize, &Rule)> = None;
        for rule in rules.iter().filter(|rule| rule.0 == self.state) {
            if let Some(length) = (rule.1)(rest)
                && best.is_none_or(|(longest, _)| length > longest)
            {
                best = Some((length, rule));
            }
        }
        match best {
            Some((length, (_, _, next, token))) => {
                self.at += length;
                self.state = next.unwrap_or(self.state);
                (*token, &rest[..length])
            }
            None if self.state == State::Comment && !self.openmetrics => self.comment(),
            None => (Token::Invalid, rest),
        }
    }

    fn comment(&mut self) -> (Token, &'a [u8]) {
        self.at += run(&self.body[self.at..], |b| b != b'\n');
        self.state = State::Init;
        (Token::Comment, &[])
    }

    fn expect(&mut self, wanted: Token) -> Option<&'a [u8]> {
        let (token, text) = self.token();
        (token == wanted).then_some(text)
    }

    /// One entry; false at the end, none if there is an error.
    fn entry(&mut self) -> Option<bool> {
        let (token, text) = self.token();
        match token {
            Token::End => return (!self.openmetrics).then_some(false),
            Token::LineFeed if !self.openmetrics => {}
            Token::Eof => return (self.token().0 == Token::End).then_some(false),
            Token::Comment if !self.openmetrics => {
                self.expect(Token::LineFeed)?;
            }
            Token::Help | Token::Type | Token::Unit => self.metadata(token)?,
            Token::Open | Token::Name => {
                let start = self.at - text.len();
                let mut labels = Vec::new();
                if token == Token::Name {
                    labels.push((b"__name__".as_slice(), text));
                }
                let mut end = self.at;
                let mut next = if token == Token::Name { self.token() } else { (Token::Open, text) };
                if next.0 == Token::Open {
                    self.labels(&mut labels, token == Token::Name, false)?;
                    end = self.at;
                    next = self.token();
                }
                self.series(&self.body[start..end], &labels, next)?;
            }
            _ => return None,
        }
        Some(true)
    }

    fn metadata(&mut self, keyword: Token) -> Option<()> {
        let name = self.expect(Token::Name)?;
        let name = if name[0] == b'"' { &name[1..name.len() - 1] } else { name };
        let text = self.expect(Token::Text)?;
        let text = if self.openmetrics { &text[..text.len() - 1] } else { text };
        let text = if text.is_empty() { text } else { &text[1..] };
        let name = std::str::from_utf8(name).ok()?;
        // UNIT and TYPE are compared with known words, so that this asks nothing new of them.
        let text = std::str::from_utf8(text).ok()?;
        match keyword {
            Token::Help => {
                // The text format's help does not resolve escaped quotes.
                let text = if self.openmetrics { text.into() } else { text.replace("\\\"", "\\\\\"") };
                self.say('H', name, &hex(unescape(&text).as_bytes()));
            }
            Token::Type => {
                self.kind = match (text, self.openmetrics) {
                    ("counter", _) => MetricType::Counter,
                    ("gauge", _) => MetricType::Gauge,
                    ("histogram", _) => MetricType::Histogram,
                    ("summary", _) => MetricType::Summary,
                    ("untyped", false) | ("unknown", true) => MetricType::Unknown,
                    ("gaugehistogram", true) => MetricType::GaugeHistogram,
                    ("info", true) => MetricType::Info,
                    ("stateset", true) => MetricType::StateSet,
                    _ => return None,
                };
                self.say('Y', name, if text == "untyped" { "unknown" } else { text });
            }
            _ => {
                if !text.is_empty() && !name.ends_with(&format!("_{text}")) {
                    return None;
                }
                self.say('U', name, &hex(text.as_bytes()));
            }
        }
        if !self.openmetrics {
            self.expect(Token::LineFeed)?;
        }
        Some(())
    }

    fn say(&mut self, what: char, name: &str, text: &str) {
        let _ = write!(self.out, "{what}{}|{text};", hex(unescape(name).as_bytes()));
    }

    fn labels(
        &mut self,
        labels: &mut Vec<(&'a [u8], &'a [u8])>,
        mut named: bool,
        exemplar: bool,
    ) -> Option<()> {
        let mut next = self.token();
        loop {
            let is_quoted = match next.0 {
                Token::Close if named || exemplar => return Some(()),
                Token::LabelName => false,
                Token::Quoted => true,
                _ => return None,
            };
            let name = if is_quoted { &next.1[1..next.1.len() - 1] } else { next.1 };
            if !exemplar {
                std::str::from_utf8(name).ok()?;
            }
            next = self.token();
            if is_quoted && !exemplar && matches!(next.0, Token::Comma | Token::Close) {
                if std::mem::replace(&mut named, true) {
                    return None;
                }
                labels.insert(0, (b"__name__", name));
                if next.0 == Token::Close {
                    return Some(());
                }
                next = self.token();
                continue;
            }
            if next.0 != Token::Equals {
                return None;
            }
            let value = self.expect(Token::LabelValue)?;
            std::str::from_utf8(value).ok()?;
            labels.push((name, &value[1..value.len() - 1]));
            next = self.token();
            if next.0 == Token::Comma {
                next = self.token();
            } else if self.openmetrics && next.0 != Token::Close {
                return None;
            }
        }
    }

    fn series(&mut self, text: &[u8], labels: &[(&[u8], &[u8])], value: (Token, &[u8])) -> Option<()> {
        let value = self.number(value)?;
        let mut stamp = String::new();
        let mut next = self.token();
        if next.0 == Token::Timestamp {
            stamp = if self.openmetrics {
                let seconds = self.number((Token::Value, next.1)).filter(|s| s.is_finite())?;
                let stamp = seconds * 1000.0;
                (stamp.abs() < 2_f64.powi(63)).then(|| (stamp as i64).to_string())?
            } else {
                std::str::from_utf8(next.1).ok()?.parse::<i64>().ok()?.to_string()
            };
            next = self.token();
        }
        if next.0 == Token::Comment && self.openmetrics {
            self.labels(&mut Vec::new(), true, true)?;
            let value = self.token();
            self.number(value)?;
            next = self.token();
            if next.0 == Token::Timestamp {
                self.number((Token::Value, next.1)).filter(|s| s.is_finite())?;
                next = self.token();
            }
        }
        if next.0 != Token::LineFeed {
            return None;
        }
        let _ = write!(self.out, "S{}|", hex(text));
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in labels {
            let name = unescape(std::str::from_utf8(name).ok()?).into_owned();
            let mut value = unescape(std::str::from_utf8(value).ok()?).into_owned();
            let normalised = (self.kind == MetricType::Histogram && name == "le")
                || (self.kind == MetricType::Summary && name == "quantile");
            if normalised && let Some(number) = go_float(&value) {
                value = super::float::openmetrics(number);
            }
            pairs.push((name, value));
        }
        pairs.sort();
        for (name, value) in pairs {
            let _ = write!(self.out, "{}={},", hex(name.as_bytes()), hex(value.as_bytes()));
        }
        let bits = if value.is_nan() { 0x7ff8_0000_0000_0001 } else { value.to_bits() };
        let _ = write!(self.out, "|{bits:016x}|{stamp};");
        Some(())
    }

    fn number(&self, (token, text): (Token, &[u8])) -> Option<f64> {
        let text = std::str::from_utf8(text).ok().filter(|_| token == Token::Value)?;
        go_float(if self.openmetrics { &text[1..] } else { text })
    }
}

/// Go's `ParseFloat` without hexadecimal numbers and underscores, by its documentation.
fn go_float(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    let unsigned = lower.strip_prefix(['+', '-']).unwrap_or(&lower);
    match unsigned {
        "inf" | "infinity" => {
            return Some(if lower.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        "nan" => return (unsigned == lower).then_some(f64::NAN),
        _ => {}
    }
    let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((unsigned, "0"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let well_formed = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && digits(exponent)
        && !exponent.is_empty();
    let value: f64 = well_formed.then(|| lower.parse().ok())??;
    value.is_finite().then_some(value)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[test]
fn escaping_is_undone() {
    for text in ["", "\\", "\"", "\n", "a\\nb", "\\\\n", "ü\\\"\n"] {
        assert_eq!(unescape(&escape(text)), text);
    }
}
