//! Globs over absolute paths, matched a component at a time, so that only directories are read in which something can
//! match: `*`, `?`, `[…]` and `{a,b}` within a component, `**` for any number of directories.
//!
//! A pattern is a small automaton. Its state is a set of positions in its components, a bit each.

use globset::{GlobBuilder, GlobMatcher};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path};

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It does not begin at the root.
    #[error("`{0}` is not an absolute path")]
    Relative(String),
    /// It has `..` in it.
    #[error("`{0}` leads upwards with `..`")]
    Upwards(String),
    /// A component can't be read as a glob.
    #[error("`{pattern}` is not a pattern: {reason}")]
    Glob {
        /// The whole pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There are more components than a state has bits.
    #[error("`{0}` has more than 60 directories")]
    TooDeep(String),
}

#[derive(Debug, Clone)]
enum Part {
    Literal(OsString),
    Glob(GlobMatcher),
    AnyDepth,
}

/// One pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    parts: Vec<Part>,
}

/// How far a path has come in a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress(u64);

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if !text.starts_with('/') {
            return Err(PatternError::Relative(text.to_owned()));
        }
        let mut parts = Vec::new();
        for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
            parts.push(match part {
                ".." => return Err(PatternError::Upwards(text.to_owned())),
                "**" if matches!(parts.last(), Some(Part::AnyDepth)) => continue,
                "**" => Part::AnyDepth,
                literal if !literal.contains(['*', '?', '[', '{', '\\']) => Part::Literal(literal.into()),
                glob => {
                    let built = GlobBuilder::new(glob).literal_separator(true).build();
                    let matcher = built.map_err(|error| PatternError::Glob {
                        pattern: text.to_owned(),
                        reason: error.kind().to_string(),
                    })?;
                    Part::Glob(matcher.compile_matcher())
                }
            });
        }
        if parts.len() > 60 {
            return Err(PatternError::TooDeep(text.to_owned()));
        }
        Ok(Self { parts })
    }

    /// A pattern that is matched by one path only.
    pub fn literal(path: &Path) -> Self {
        let names = path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(Part::Literal(name.to_owned())),
            _ => None,
        });
        Self { parts: names.take(60).collect() }
    }

    /// At the root directory.
    pub fn root(&self) -> Progress {
        self.closed(1)
    }

    /// After another component.
    pub fn step(&self, from: Progress, name: &OsStr) -> Progress {
        let mut to = 0;
        for (at, part) in self.parts.iter().enumerate().filter(|(at, _)| from.0 & (1 << at) != 0) {
            to |= match part {
                Part::Literal(literal) if literal == name => 1 << (at + 1),
                // `*` leaves hidden directories out only where a shell would: not at all here.
                Part::Glob(glob) if glob.is_match(name) => 1 << (at + 1),
                Part::AnyDepth => 1 << at,
                _ => 0,
            };
        }
        self.closed(to)
    }

    /// `**` may be no directory at all.
    fn closed(&self, mut set: u64) -> Progress {
        for (at, part) in self.parts.iter().enumerate() {
            if set & (1 << at) != 0 && matches!(part, Part::AnyDepth) {
                set |= 1 << (at + 1);
            }
        }
        Progress(set)
    }

    /// After all components of a path.
    pub fn after(&self, path: &Path) -> Progress {
        path.components().fold(self.root(), |progress, part| match part {
            Component::Normal(name) => self.step(progress, name),
            _ => progress,
        })
    }

    /// Whether a file that has come so far is one of the pattern's.
    pub fn accepts(&self, progress: Progress) -> bool {
        progress.0 & (1 << self.parts.len()) != 0
    }

    /// Whether something within a directory that has come so far can be one of the pattern's.
    pub fn leads_on(&self, progress: Progress) -> bool {
        progress.0 & !(1 << self.parts.len()) != 0
    }

    /// Whether directories of any name lead on: links to directories are not followed there, they may lead in a circle.
    pub fn is_any_depth(&self, progress: Progress) -> bool {
        self.positions(progress).any(|part| matches!(part, Part::AnyDepth))
    }

    /// The one name that can lead on from here; none if there may be several.
    pub fn only_name(&self, progress: Progress) -> Option<&OsStr> {
        let mut parts = self.positions(progress);
        match (parts.next(), parts.next()) {
            (Some(Part::Literal(name)), None) => Some(name),
            _ => None,
        }
    }

    fn positions(&self, progress: Progress) -> impl Iterator<Item = &Part> {
        self.parts.iter().enumerate().filter(move |(at, _)| progress.0 & (1 << at) != 0).map(|(_, part)| part)
    }

    /// Whether a path is one of the pattern's.
    pub fn matches(&self, path: &Path) -> bool {
        self.accepts(self.after(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(Path::new(path))
    }

    #[test]
    fn a_component_at_a_time() {
        for (pattern, path, expected) in [
            ("/var/log/*.log", "/var/log/a.log", true),
            ("/var/log/*.log", "/var/log/b/a.log", false),
            ("/var/log/**/*.log", "/var/log/a.log", true),
            ("/var/log/**/*.log", "/var/log/b/c/a.log", true),
            ("/var/log/**/*.log", "/var/log/b/c/a.txt", false),
            ("/var/log/**", "/var/log/b/c", true),
            ("/**/x/**/y", "/x/x/a/y", true),
            ("/**/x/**/y", "/a/y", false),
            ("/a/{b,c}/[0-9]", "/a/c/7", true),
            ("/a/b", "/a/b", true),
            ("//a/./b", "/a/b", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for (text, expected) in [
            ("var/log", "not an absolute path"),
            ("/var/../log", "upwards"),
            ("/var/[", "not a pattern"),
            (&"/a".repeat(61), "more than 60"),
        ] {
            assert!(Pattern::parse(text).unwrap_err().to_string().contains(expected), "{text}");
        }
    }

    #[test]
    fn a_directory_is_read_only_where_something_can_match() {
        let pattern = Pattern::parse("/var/log/*/a.log").unwrap();
        let at = |path: &str| pattern.after(Path::new(path));
        assert_eq!(pattern.only_name(at("/var")), Some(OsStr::new("log")));
        assert_eq!(pattern.only_name(at("/var/log")), None);
        assert_eq!(pattern.only_name(at("/var/log/x")), Some(OsStr::new("a.log")));
        assert!(pattern.leads_on(at("/var/log/x")) && !pattern.leads_on(at("/var/lib")));
    }
}
