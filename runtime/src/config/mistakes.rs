//! Collecting mistakes, so that a person sees all of them at once.

use super::form::FilePath;
use super::path::Path;
use super::tree::{Node, Place};
use super::{BadConfig, Input, Loaded};
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// Something wrong or questionable in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as it was named to us.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// The key, `scrape.jobs[3].interval`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::At { line, column } => write!(f, "{}:{line}:{column}: ", self.file)?,
            Place::Flag(flag) => write!(f, "{flag}: ")?,
            Place::Unknown => write!(f, "{}: ", self.file)?,
        }
        if !self.key.is_empty() && !matches!(self.place, Place::Flag(_)) {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// The mistakes of one configuration.
#[derive(Debug)]
pub struct Mistakes {
    file: String,
    tree: Node,
    errors: Vec<Mistake>,
    warnings: Vec<Mistake>,
    spoken_of: Vec<Path>,
    kept: Vec<(Path, Vec<usize>)>,
    base: PathBuf,
    check_files: bool,
}

impl Mistakes {
    pub(super) fn new(file: String, tree: Node) -> Self {
        Self {
            file,
            tree,
            errors: Vec::new(),
            warnings: Vec::new(),
            spoken_of: Vec::new(),
            kept: Vec::new(),
            base: PathBuf::new(),
            check_files: false,
        }
    }

    /// An empty collection, for tests of what resolves a raw form.
    #[doc(hidden)]
    pub fn for_tests() -> Self {
        Self::new("test.yaml".to_owned(), Node::default())
    }

    /// What is wrong, as it would be printed, without warnings.
    #[doc(hidden)]
    pub fn all(&self) -> Vec<String> {
        self.errors.iter().map(ToString::to_string).collect()
    }

    /// Says what is wrong at a path. What lies in or around something that is already known to be wrong is passed
    /// over: its value is a default, and the mistake would be about that.
    pub fn at(&mut self, path: &Path, reason: impl Into<String>, remedy: impl Into<String>) {
        let path = &path.in_file(&self.kept);
        let lost_elements = self.kept.iter().any(|(list, _)| list == path);
        let spoken_of = self.spoken_of.iter().any(|wrong| wrong.holds(path));
        if !spoken_of && !lost_elements {
            self.add(self.tree.place(path), path, reason, remedy);
        }
    }

    /// Says what is questionable at a path.
    pub fn warn(&mut self, path: &Path, reason: impl Into<String>, remedy: impl Into<String>) {
        let path = &path.in_file(&self.kept);
        let warning = self.mistake(self.tree.place(path), path, reason.into(), remedy.into());
        self.warnings.push(warning);
    }

    /// Whether the configuration says anything at a path.
    pub fn is_said(&self, path: &Path) -> bool {
        self.tree
            .find(&path.in_file(&self.kept))
            .is_some_and(|node| !matches!(node.content, super::tree::Content::Nothing))
    }

    /// Whether something is wrong at a path or around it.
    pub fn is_spoken_of(&self, path: &Path) -> bool {
        let path = path.in_file(&self.kept);
        self.spoken_of.iter().any(|wrong| wrong.holds(&path))
    }

    /// The file that a key names. A relative path in the configuration file is relative to that file, one on the
    /// command line to the working directory.
    pub fn path_of(&self, path: &Path, file: &FilePath) -> PathBuf {
        match self.tree.find(&path.in_file(&self.kept)).map(|node| node.place) {
            Some(Place::At { .. }) => self.base.join(&file.0),
            _ => file.0.clone(),
        }
    }

    /// Like [`Mistakes::path_of`], for a file that must be there already.
    pub fn readable_file(&mut self, path: &Path, file: &FilePath) -> PathBuf {
        let file = self.path_of(path, file);
        if self.check_files {
            let opened = std::fs::File::open(&file).and_then(|opened| opened.metadata());
            match opened {
                Ok(metadata) if metadata.is_dir() => {
                    self.at(path, format!("`{}` is a directory", file.display()), "name the file in it");
                }
                Ok(_) => {}
                Err(error) => {
                    let reason = format!("`{}` cannot be opened: {error}", file.display());
                    self.at(path, reason, "check the path and its permissions");
                }
            }
        }
        file
    }

    /// The first of some paths at which there is a program; the first of all if there is none, or if files are not
    /// looked at.
    pub fn program(&mut self, path: &Path, candidates: &[PathBuf]) -> PathBuf {
        let is_program = |file: &&PathBuf| {
            std::fs::metadata(file)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        let found = candidates.iter().find(is_program).cloned();
        if self.check_files && found.is_none() {
            let shown: Vec<_> = candidates.iter().map(|file| format!("`{}`", file.display())).collect();
            let reason = match &shown[..] {
                [] => "there is no directory in which it could be looked for".to_owned(),
                [one] => format!("{one} is no program that can be run"),
                all => format!("no program that can be run is at {}", all.join(", ")),
            };
            self.at(path, reason, "install it, or write its path from the root");
        }
        found.or_else(|| candidates.first().cloned()).unwrap_or_default()
    }

    pub(super) fn look_at_files(&mut self, input: &Input) {
        self.check_files = input.check_files;
        if let Some(parent) = input.file.as_deref().and_then(std::path::Path::parent) {
            parent.clone_into(&mut self.base);
        }
    }

    pub(super) fn add(
        &mut self,
        place: Place,
        path: &Path,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let mistake = self.mistake(place, path, reason.into(), remedy.into());
        self.errors.push(mistake);
        if !path.is_root() {
            self.spoken_of.push(path.clone());
        }
    }

    /// A key that is missing only because it is misspelt is not missed as well.
    pub(super) fn pass_over(&mut self, path: Path) {
        self.spoken_of.push(path);
    }

    /// Notes which elements of a list are left, by their numbers in the file.
    pub(super) fn elements_left_out(&mut self, list: Path, kept: Vec<usize>) {
        self.kept.push((list, kept));
    }

    pub(super) fn change_tree(&mut self, change: impl FnOnce(&mut Node)) {
        change(&mut self.tree);
    }

    pub(super) fn tree(&self) -> &Node {
        &self.tree
    }

    fn mistake(&self, place: Place, path: &Path, reason: String, remedy: String) -> Mistake {
        Mistake { file: self.file.clone(), place, key: path.to_string(), reason, remedy }
    }

    pub(super) fn into_error(mut self) -> BadConfig {
        self.errors.sort_by_key(|mistake| mistake.place);
        BadConfig { mistakes: self.errors }
    }

    pub(super) fn finish<S>(self, settings: S) -> Result<Loaded<S>, BadConfig> {
        if self.errors.is_empty() {
            Ok(Loaded { settings, warnings: self.warnings })
        } else {
            Err(self.into_error())
        }
    }
}
