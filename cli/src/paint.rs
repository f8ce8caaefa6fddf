//! Text for terminals: colour where it is wanted, lines of at most 80 columns.

use pegel_aggregator::status::findings::Level;
use std::io::IsTerminal as _;

/// The width that everything fits in.
pub const COLUMNS: usize = 80;

/// Whether and how to colour.
#[derive(Debug, Clone, Copy)]
pub struct Paint(bool);

impl Paint {
    /// Colours on a terminal, unless `NO_COLOR` is set to anything (https://no-color.org).
    pub fn for_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !refused)
    }

    /// Never colours.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self(false)
    }

    fn code(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// For headings.
    pub fn bold(self, text: &str) -> String {
        self.code("1", text)
    }

    /// For what matters less.
    pub fn faint(self, text: &str) -> String {
        self.code("2", text)
    }

    /// In the colour of a level.
    pub fn level(self, level: Level, text: &str) -> String {
        match level {
            Level::Good => self.code("32", text),
            Level::Note => self.code("36", text),
            Level::Warning => self.code("33", text),
            Level::Bad => self.code("1;31", text),
        }
    }
}

/// What came from peers, fit for a terminal: control characters would move its cursor or worse.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Breaks words into lines that begin with `indent` spaces.
pub fn wrap(text: &str, indent: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in printable(text).split_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width <= COLUMNS {
            out.push(' ');
            column += 1;
        } else {
            if column > 0 {
                out.push('\n');
            }
            out.push_str(&" ".repeat(indent));
            column = indent;
        }
        out.push_str(word);
        column += width;
    }
    out
}

/// Cuts or fills a text to a width; what is cut ends in `…`.
pub fn fit(text: &str, width: usize) -> String {
    let text = printable(text);
    let length = text.chars().count();
    if length <= width {
        return text + &" ".repeat(width - length);
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_within_eighty_columns() {
        let wrapped = wrap(&"seven words ".repeat(30), 4);
        assert!(
            wrapped.lines().all(|line| line.chars().count() <= COLUMNS && line.starts_with("    s")
                || line.starts_with("    w"))
        );
        assert_eq!(wrap("a\x1b[31mb", 0), "a\u{fffd}[31mb", "a peer does not colour this terminal");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("ab", 4), "ab  ");
    }
}
