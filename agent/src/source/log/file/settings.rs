//! What a file input is told.

use super::pattern::Pattern;
use std::path::Path;

/// Which files, and from where on.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// A file is read if one of these matches its path,
    pub include: Vec<Pattern>,
    /// and none of these.
    pub exclude: Vec<Pattern>,
    /// Where the first start begins.
    pub start: Start,
}

/// Where reading begins in files that are there when the agent sees the input's files for the first time. Files that
/// come later are always read from their beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With what they hold.
    #[default]
    Beginning,
    /// With what is appended from then on.
    End,
}

impl Settings {
    /// Whether a path is one of the input's.
    pub fn takes(&self, path: &Path) -> bool {
        self.include.iter().any(|pattern| pattern.matches(path)) && !self.leaves_out(path)
    }

    /// Whether a path is excluded.
    pub fn leaves_out(&self, path: &Path) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(path))
    }
}
