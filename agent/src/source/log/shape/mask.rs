//! Taking personal data and secrets out of text before it leaves the agent's memory.
//!
//! Kinds with a check digit are only masked where it is right, so that identifiers stay. What is found in a line as it
//! was read is also taken out of everything that was parsed from it: a field may have lost the words by which a secret
//! was known. Of doubtful cases more is masked rather than less.

mod number;

use regex::Regex;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// E-mail addresses.
    Email,
    /// Numbers of payment cards: issuer, length and Luhn's digit are right.
    Card,
    /// International bank account numbers: country, length and check digits are right.
    Iban,
    /// Tokens that are known by their form (AWS, GitHub, GitLab, Slack, Stripe, Google, JWT), what follows `Bearer` and
    /// `Basic`, passwords in URLs, private keys.
    Token,
    /// Values of keys such as `password`, `secret`, `api_key`.
    Secret,
    /// IP addresses.
    Ip,
}

impl Kind {
    /// All, in the order in which they are applied.
    pub const ALL: [Self; 6] = [Self::Token, Self::Secret, Self::Email, Self::Iban, Self::Card, Self::Ip];

    fn replacement(self) -> &'static str {
        match self {
            Self::Email => "<email>",
            Self::Card => "<card>",
            Self::Iban => "<iban>",
            Self::Token => "<token>",
            Self::Secret => "<secret>",
            Self::Ip => "<ip>",
        }
    }
}

/// A pattern of one's own and what is written in its place.
#[derive(Debug, Clone)]
pub struct Own {
    /// The pattern.
    pub pattern: Regex,
    /// What its match becomes; `$1` and `${name}` are its groups.
    pub replacement: String,
}

/// What is masked.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    kinds: Vec<Kind>,
    own: Vec<Own>,
}

/// The shortest piece that is also looked for elsewhere in its entry: shorter ones would hit anything.
const SHORTEST_PIECE: usize = 4;
/// The shortest part of a piece that is.
const SHORTEST_PART: usize = 6;
/// The most pieces that are remembered of one entry.
const MAX_PIECES: usize = 256;

/// How much of what was found is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// What is masked.
    Itself,
    /// That and the words by which it is known.
    WithWords,
}

/// Addresses; in JSON and URLs the sign may be escaped.
static EMAIL: LazyLock<Regex> =
    LazyLock::new(|| built(r"[\w.!#$%*+^~'-]+(?:@|\\u0040|%40)\w[\w-]*(?:\.[\w-]+)+"));
static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    built(concat!(
        r"(?s:-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----|\z))",
        r"|(?:AKIA|ASIA|AROA|AIDA|AGPA|ANPA|ABIA|ACCA)[A-Z0-9]{16,}",
        r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|npm_[A-Za-z0-9]{30,}",
        r"|xox[abeoprs]-[A-Za-z0-9-]{8,}|[srp]k_(?:live|test)_[A-Za-z0-9]{8,}|AIza[\w-]{30,}|ya29\.[\w-]{16,}",
        r"|eyJ[\w-]{4,}\.[\w-]{2,}(?:\.[\w-]*)?",
    ))
});
/// What stands before a token; the token is group 1.
static AFTER_WORD: LazyLock<Regex> = LazyLock::new(|| {
    built(concat!(
        r"(?i)(?:\b|_|\\[nrt])bearer(?:\s|%20|\+|\\t|:)+([\w.~+/=\\%-]{6,})",
        r#"|authorization[\\"'\s:=\[]{1,8}[\w-]+\s+([\w.~+/=\\%-]{6,})"#,
        r#"|authorization[\\"'\s:=\[]{1,8}([\w.~+/=\\%-]{16,})"#,
        r"|://[^\s/:@]*:([^\s/@]+)@",
    ))
});
const SECRET_KEYS: &str = r"(?:passw(?:or)?d|passphrase|pwd|secret|api[_-]?key|access[_-]?key|private[_-]?key|auth[_-]?token|access[_-]?token|refresh[_-]?token|session[_-]?token|credentials?)[\w.-]*";
/// A key and its value; the value is group 1 (in quotes that may be escaped), 2 or 3.
static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    built(&format!(
        r#"(?i){SECRET_KEYS}(?:\\*["'])?\s*(?::|=>?|%3D)\s*(?:\\+"((?s:.*?))(?:\\+"|\z)|"((?:[^"\\]|\\(?s:.))*)|'((?:[^'\\]|\\(?s:.))*)|([^\s"'&,;{{}}\[\]\\][^\s"'&,;}}\]]*))"#
    ))
});
static SECRET_NAME: LazyLock<Regex> = LazyLock::new(|| built(&format!("(?i){SECRET_KEYS}$")));
static IPV4: LazyLock<Regex> = LazyLock::new(|| built(r"\d{1,3}(?:\.\d{1,3}){3}"));
static IPV6: LazyLock<Regex> =
    LazyLock::new(|| built(r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?:\.\d{1,3}){3})?"));

fn built(text: &str) -> Regex {
    Regex::new(text).expect("the patterns are tested")
}

impl Mask {
    /// A mask of these kinds and patterns.
    pub fn new(kinds: Vec<Kind>, own: Vec<Own>) -> Self {
        let kinds = Kind::ALL.into_iter().filter(|kind| kinds.contains(kind)).collect();
        Self { kinds, own }
    }

    /// Whether private keys over several lines have to be seen as one text.
    pub(super) fn joins_keys(&self) -> bool {
        self.kinds.contains(&Kind::Token)
    }

    /// The text without what is to be masked; borrowed if there was nothing. What was taken out is added to `pieces`.
    pub(super) fn text<'a>(&self, text: &'a str, pieces: &mut Vec<String>) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for own in &self.own {
            if let Some(masked) = own.apply(&text, pieces) {
                text = Cow::Owned(masked);
            }
        }
        for kind in &self.kinds {
            if let Some(masked) = apply(*kind, &text, pieces) {
                text = Cow::Owned(masked);
            }
        }
        text
    }

    /// The value of a pair without what is to be masked: all of it, if the name says that it is secret.
    pub(super) fn value<'a>(&self, name: &str, value: &'a str, pieces: &mut Vec<String>) -> Cow<'a, str> {
        if self.kinds.contains(&Kind::Secret) && !value.is_empty() && SECRET_NAME.is_match(name) {
            return Cow::Borrowed(Kind::Secret.replacement());
        }
        let masked = self.text(value, pieces);
        without(masked, pieces)
    }

    /// Where to cut a text that is to be cut at a place: before what is masked there, with the words by which it is
    /// known.
    pub(super) fn before_cut(&self, text: &str, at: usize) -> usize {
        let mut cut = at;
        loop {
            let before = cut;
            let mut look = |found: Range<usize>| {
                if found.start < cut && found.end > cut {
                    cut = found.start;
                }
            };
            for kind in &self.kinds {
                ranges(*kind, text, Extent::WithWords, &mut look);
            }
            for own in &self.own {
                own.pattern.find_iter(text).for_each(|found| look(found.range()));
            }
            if cut == before {
                return cut;
            }
        }
    }
}

/// The text without the pieces that were masked elsewhere in its entry.
pub(super) fn without<'a>(mut text: Cow<'a, str>, pieces: &[String]) -> Cow<'a, str> {
    for piece in pieces {
        if memchr::memmem::find(text.as_bytes(), piece.as_bytes()).is_some() {
            text = Cow::Owned(text.replace(piece.as_str(), "<masked>"));
        }
    }
    text
}

fn remember(piece: &str, pieces: &mut Vec<String>) {
    let known = pieces.iter().any(|known| known == piece);
    if piece.len() >= SHORTEST_PIECE && pieces.len() < MAX_PIECES && !known {
        pieces.push(piece.to_owned());
    }
}

impl Own {
    fn apply(&self, text: &str, pieces: &mut Vec<String>) -> Option<String> {
        let (mut out, mut done) = (None::<String>, 0);
        for found in self.pattern.captures_iter(text) {
            let whole = found.get(0).expect("a match has its text").range();
            if whole.is_empty() {
                continue;
            }
            remember(&text[whole.clone()], pieces);
            let out = out.get_or_insert_with(|| String::with_capacity(text.len()));
            out.push_str(&text[done..whole.start]);
            found.expand(&self.replacement, out);
            done = whole.end;
        }
        let mut out = out?;
        out.push_str(&text[done..]);
        Some(out)
    }
}

fn apply(kind: Kind, text: &str, pieces: &mut Vec<String>) -> Option<String> {
    let (mut out, mut done) = (None::<String>, 0);
    ranges(kind, text, Extent::Itself, &mut |found| {
        if found.is_empty() || found.start < done || &text[found.clone()] == kind.replacement() {
            return;
        }
        let piece = &text[found.clone()];
        remember(piece, pieces);
        if matches!(kind, Kind::Token | Kind::Secret) {
            // Another parser may see its end elsewhere.
            let parts = piece.split(|char: char| !char.is_ascii_alphanumeric() && !"_-+/~".contains(char));
            parts.filter(|part| part.len() >= SHORTEST_PART).for_each(|part| remember(part, pieces));
        }
        let out = out.get_or_insert_with(|| String::with_capacity(text.len()));
        out.push_str(&text[done..found.start]);
        out.push_str(kind.replacement());
        done = found.end;
    });
    let mut out = out?;
    out.push_str(&text[done..]);
    // Two expressions of one kind may each find something of their own.
    Some(match kind {
        Kind::Token | Kind::Ip => apply(kind, &out, pieces).unwrap_or(out),
        _ => out,
    })
}

/// Tells where something of a kind is, from the text's beginning on.
fn ranges(kind: Kind, text: &str, extent: Extent, tell: &mut impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let has = |part: &str| memchr::memmem::find(bytes, part.as_bytes()).is_some();
    match kind {
        Kind::Email => {
            if memchr::memchr(b'@', bytes).is_some() || has("\\u0040") || has("%40") {
                for found in EMAIL.find_iter(text) {
                    tell(found.start() + escape_rest(&bytes[..found.start()], found.as_str())..found.end());
                }
            }
        }
        Kind::Token => {
            let mut found: Vec<_> = TOKEN.find_iter(text).map(|found| found.range()).collect();
            groups(&AFTER_WORD, text, extent, &mut |range| found.push(range));
            found.sort_by_key(|range| range.start);
            found.into_iter().for_each(tell);
        }
        Kind::Secret => groups(&SECRET, text, extent, tell),
        Kind::Card => number::cards(bytes, tell),
        Kind::Iban => number::ibans(bytes, tell),
        Kind::Ip => {
            let mut found: Vec<_> = IPV4
                .find_iter(text)
                .filter(|found| found.as_str().parse::<std::net::Ipv4Addr>().is_ok())
                .map(|found| found.range())
                .collect();
            let v6 = IPV6.find_iter(text).filter_map(|found| {
                let trimmed =
                    found.as_str().trim_end_matches(|c| c == ':' && !found.as_str().ends_with("::"));
                let address = trimmed.parse::<std::net::Ipv6Addr>().is_ok();
                address.then(|| found.start()..found.start() + trimmed.len())
            });
            found.extend(v6);
            found.sort_by_key(|range| range.start);
            found.into_iter().for_each(tell);
        }
    }
}

/// How much at a text's beginning belongs to an escape that begins before it: `n` of `\n`, `u000a` of `\u000a`.
fn escape_rest(before: &[u8], text: &str) -> usize {
    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
    match text.as_bytes() {
        _ if backslashes % 2 == 0 => 0,
        [b'u', digits @ ..] if digits.len() > 4 && digits[..4].iter().all(u8::is_ascii_hexdigit) => 5,
        [b'n' | b'r' | b't' | b'b' | b'f', ..] => 1,
        _ => 0,
    }
}

/// Tells the first group that took part of each match.
fn groups(regex: &Regex, text: &str, extent: Extent, tell: &mut impl FnMut(Range<usize>)) {
    if extent == Extent::WithWords {
        return regex.find_iter(text).for_each(|found| tell(found.range()));
    }
    for found in regex.captures_iter(text) {
        if let Some(group) = found.iter().skip(1).flatten().next() {
            tell(group.range());
        }
    }
}

#[cfg(test)]
mod tests;
