//! Ways to nodes.

use std::fmt;

/// One step of a way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The way to a node: `scrape.jobs[3].interval`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(Vec<Step>);

impl Path {
    /// The whole document.
    pub fn root() -> Self {
        Self::default()
    }

    pub(super) fn of(steps: &[Step]) -> Self {
        Self(steps.to_vec())
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Reads keys with dots between them.
    pub fn parse(text: &str) -> Self {
        Self(text.split('.').filter(|key| !key.is_empty()).map(|key| Step::Key(key.to_owned())).collect())
    }

    /// The way on to a key.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// The way on to an element.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }

    /// The path with the numbers that elements have in the file, where `kept` lists, for lists that lost elements, the
    /// numbers of those that are left.
    pub(super) fn in_file(&self, kept: &[(Self, Vec<usize>)]) -> Self {
        let mut path = Self::root();
        for step in &self.0 {
            let step = match step {
                Step::Index(index) => {
                    let numbers = kept.iter().find(|(list, _)| *list == path).map(|(_, numbers)| numbers);
                    Step::Index(numbers.and_then(|numbers| numbers.get(*index)).copied().unwrap_or(*index))
                }
                Step::Key(_) => step.clone(),
            };
            path.0.push(step);
        }
        path
    }

    /// Whether this path leads to `other` or to something around it.
    pub fn holds(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// Whether this is the whole document.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => write!(f, "{}", key.escape_debug())?,
                Step::Key(key) => write!(f, ".{}", key.escape_debug())?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
