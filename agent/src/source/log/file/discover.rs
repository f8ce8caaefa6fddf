//! Which files patterns lead to, and which directories have to be watched for more.

use super::identity::{Kind, Stat};
use super::packed::is_packed;
use super::pattern::{Pattern, Progress};
use super::settings::Settings;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<(PathBuf, Stat)>,
    /// Directories in which something can come that matches.
    pub(super) dirs: Vec<PathBuf>,
}

/// A walk goes no deeper: links may lead in a circle.
const MAX_DEPTH: usize = 64;

/// Looks for an input's files, from the root or within one directory.
pub(super) fn discover(settings: &Settings, within: &Path) -> Found {
    let mut found = Found::default();
    for pattern in &settings.include {
        let mut walk = Walk { pattern, settings, found: &mut found };
        let progress = pattern.after(within);
        if pattern.leads_on(progress) {
            walk.directory(within, progress, 0);
        }
    }
    found.dirs.sort();
    found.dirs.dedup();
    found.files.sort_by(|a, b| a.0.cmp(&b.0));
    found.files.dedup_by(|a, b| a.0 == b.0);
    found
}

struct Walk<'a> {
    pattern: &'a Pattern,
    settings: &'a Settings,
    found: &'a mut Found,
}

impl Walk<'_> {
    fn directory(&mut self, dir: &Path, progress: Progress, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        if let Some(name) = self.pattern.only_name(progress) {
            let path = dir.join(name);
            let next = self.pattern.step(progress, name);
            match Stat::of(&path) {
                Ok(stat) if stat.kind == Kind::Directory && self.pattern.leads_on(next) => {
                    return self.directory(&path, next, depth + 1);
                }
                Ok(stat) => self.file(path, stat, next),
                Err(_) => {}
            }
            self.found.dirs.push(dir.to_owned());
            return;
        }
        self.found.dirs.push(dir.to_owned());
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let next = self.pattern.step(progress, &name);
            if !self.pattern.leads_on(next) && !self.pattern.accepts(next) {
                continue;
            }
            let path = dir.join(&name);
            let link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let Ok(stat) = Stat::of(&path) else { continue };
            match stat.kind {
                Kind::Directory => {
                    let circle = link && self.pattern.is_any_depth(next);
                    if self.pattern.leads_on(next) && !circle && !self.settings.leaves_out(&path) {
                        self.directory(&path, next, depth + 1);
                    }
                }
                _ => self.file(path, stat, next),
            }
        }
    }

    fn file(&mut self, path: PathBuf, stat: Stat, progress: Progress) {
        let wanted = stat.kind == Kind::File && self.pattern.accepts(progress);
        if wanted && !is_packed(&path) && !self.settings.leaves_out(&path) {
            self.found.files.push((path, stat));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_the_directories_to_watch() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for path in ["a/x.log", "a/x.log.gz", "b/c/y.log", "b/skip/z.log"] {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::write(root.join(path), "x").unwrap();
        }
        std::os::unix::fs::symlink(&root, root.join("b/circle")).unwrap();
        let pattern = |text: String| Pattern::parse(&text).unwrap();
        let settings = Settings {
            include: vec![
                pattern(format!("{}/**/*.log*", root.display())),
                pattern(format!("{}/later/d/*", root.display())),
            ],
            exclude: vec![pattern(format!("{}/b/skip", root.display()))],
            ..Settings::default()
        };
        let found = discover(&settings, Path::new("/"));
        let files: Vec<_> = found.files.iter().map(|(path, _)| path.strip_prefix(&root).unwrap()).collect();
        assert_eq!(files, [Path::new("a/x.log"), Path::new("b/c/y.log")]);
        let dirs: Vec<_> = found.dirs.iter().map(|path| path.strip_prefix(&root).unwrap()).collect();
        assert_eq!(dirs, ["", "a", "b", "b/c"].map(Path::new));
        let within = discover(&settings, &root.join("b/c"));
        assert_eq!(within.files.len(), 1);
    }
}
