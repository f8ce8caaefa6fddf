//! What a file input is told.

use super::super::shape::Capture;
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
    /// Labels that are taken out of paths: the named groups.
    pub labels_from_path: Vec<Capture>,
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

    /// The labels that a path gives. Of two expressions that name the same one, the later wins.
    pub fn labels_of<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.labels_from_path.iter().flat_map(|capture| capture.pairs(path))
    }

    /// Whether a path is excluded.
    pub fn leaves_out(&self, path: &Path) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_gives_the_labels_that_its_expressions_name() {
        let captures = ["^/srv/(?<service>[^/]+)/", "/(?<env>prod|test)/", r"(?<service>[a-z]+)\.special$"];
        let settings = Settings {
            labels_from_path: captures.map(|text| Capture::new(text).unwrap()).to_vec(),
            ..Settings::default()
        };
        let labels = |path| settings.labels_of(path).collect::<Vec<_>>();
        assert_eq!(labels("/srv/shop/prod/a.log"), [("service", "shop"), ("env", "prod")]);
        assert_eq!(labels("/srv/shop/x.special"), [("service", "shop"), ("service", "x")]);
        assert_eq!(labels("/var/log/a.log"), []);
    }
}
