//! Series selectors: the part of PromQL that `/federate` takes, `name{label="value", other=~"re.*"}`.

use super::SymbolText;
use crate::output::matcher::{Scanner, Test};
use crate::session::ResolvedSeries;
use crate::symbols::Symbol;
use pegel_proto::metrics::NAME_LABEL;
use std::collections::HashMap;

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

/// A parsed selector. A label that a series does not have counts as empty, as in PromQL.
#[derive(Debug)]
pub struct Selector {
    tests: Vec<(String, Test)>,
}

impl Selector {
    /// Reads a selector. As in PromQL, one that would match everything (`{a=~".*"}`) is refused.
    pub fn parse(text: &str) -> Result<Self, BadSelector> {
        let mut scanner = Scanner::new(text);
        selector(&mut scanner).map_err(|reason| BadSelector {
            selector: text.chars().take(200).collect(),
            at: scanner.at,
            reason,
        })
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

fn selector(scanner: &mut Scanner<'_>) -> Result<Selector, String> {
    if scanner.text.len() > MAX_SELECTOR_BYTES {
        return Err(format!("it is longer than {MAX_SELECTOR_BYTES} bytes"));
    }
    let mut tests = Vec::new();
    scanner.skip_space();
    let name = scanner.word(|c| c == ':');
    if !name.is_empty() {
        tests.push((NAME_LABEL.to_owned(), Test::Equals(name)));
    }
    scanner.skip_space();
    if scanner.eat("{") {
        matchers(scanner, &mut tests)?;
    }
    scanner.skip_space();
    if !scanner.rest().is_empty() {
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

fn matchers(scanner: &mut Scanner<'_>, tests: &mut Vec<(String, Test)>) -> Result<(), String> {
    loop {
        scanner.skip_space();
        if scanner.eat("}") {
            return Ok(());
        }
        // Prometheus 3: a quoted metric or label name.
        let quoted = scanner.rest().starts_with(['"', '\'']);
        let label = if quoted { scanner.string()? } else { scanner.word(|_| false) };
        if label.is_empty() {
            return Err("expected a label name or `}`".into());
        }
        scanner.skip_space();
        match scanner.operator() {
            None if quoted => tests.push((NAME_LABEL.to_owned(), Test::Equals(label))),
            None => return Err("expected one of = != =~ !~".into()),
            Some(operator) => {
                scanner.skip_space();
                let value = scanner.string()?;
                tests.push((label, Test::new(operator, value)?));
            }
        }
        scanner.skip_space();
        if !scanner.eat(",") && !scanner.rest().starts_with('}') {
            return Err("expected `,` or `}`".into());
        }
    }
}
