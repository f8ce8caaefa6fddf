//! Targets from files, as Prometheus' `file_sd` has them: lists of groups, JSON or YAML by the file's ending.
//!
//! Files are looked at every few seconds; one whose size and time of change are the same is not read. A file that
//! can't be read or understood keeps the targets that it had, and is named once; one that is gone takes its targets
//! with it.

use super::settings::TargetGroup;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The largest file that is read, in bytes: some 100,000 targets.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Why a file gives no targets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot take targets from `{}`: {reason}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What went wrong.
    pub reason: String,
}

/// The files of one pattern.
#[derive(Debug)]
pub struct FileTargets {
    pattern: PathBuf,
    files: BTreeMap<PathBuf, KnownFile>,
    /// The last error about the pattern's directory.
    directory_error: Option<String>,
}

#[derive(Debug, Default)]
struct KnownFile {
    stamp: Option<(SystemTime, u64)>,
    groups: Vec<TargetGroup>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGroup {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl FileTargets {
    /// The files of a path whose last component may hold `*` and `?`.
    pub fn new(pattern: PathBuf) -> Self {
        Self { pattern, files: BTreeMap::new(), directory_error: None }
    }

    /// All groups of the files, as last understood.
    pub fn groups(&self) -> impl Iterator<Item = &TargetGroup> {
        self.files.values().flat_map(|file| &file.groups)
    }

    /// Looks at the files; says whether groups changed, and which files have an error that they did not have before.
    pub fn refresh(&mut self) -> (bool, Vec<FileError>) {
        let mut errors = Vec::new();
        let paths = match matching(&self.pattern) {
            Ok(paths) => {
                self.directory_error = None;
                paths
            }
            Err(error) => {
                // What is known stays: the directory may be back the next time.
                let reason = error.to_string();
                if self.directory_error.as_ref() != Some(&reason) {
                    errors.push(FileError { path: self.pattern.clone(), reason: reason.clone() });
                    self.directory_error = Some(reason);
                }
                return (false, errors);
            }
        };
        let known = self.files.len();
        self.files.retain(|path, _| paths.contains(path));
        let mut changed = self.files.len() != known;
        for path in paths {
            let file = self.files.entry(path.clone()).or_default();
            match file.look(&path) {
                Ok(different) => {
                    file.error = None;
                    changed |= different;
                }
                Err(reason) => {
                    if file.error.as_ref() != Some(&reason) {
                        errors.push(FileError { path, reason: reason.clone() });
                        file.error = Some(reason);
                    }
                }
            }
        }
        (changed, errors)
    }
}

impl KnownFile {
    /// Reads the file if it seems changed; says whether its groups did.
    fn look(&mut self, path: &Path) -> Result<bool, String> {
        let metadata = std::fs::metadata(path).map_err(|e| e.to_string())?;
        let stamp = Some((metadata.modified().map_err(|e| e.to_string())?, metadata.len()));
        if self.stamp == stamp {
            return self.error.clone().map_or(Ok(false), Err);
        }
        if metadata.len() > MAX_FILE_BYTES {
            return Err(format!("it has {} bytes, more than {MAX_FILE_BYTES}", metadata.len()));
        }
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        self.stamp = stamp;
        let groups = parse(path, &text)?;
        let different = groups != self.groups;
        self.groups = groups;
        Ok(different)
    }
}

fn parse(path: &Path, text: &str) -> Result<Vec<TargetGroup>, String> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let raw: Vec<RawGroup> = match ending.as_str() {
        "json" => serde_json::from_str(text).map_err(|e| e.to_string())?,
        "yml" | "yaml" => {
            serde_saphyr::from_str::<Option<_>>(text).map_err(|e| e.to_string())?.unwrap_or_default()
        }
        _ => return Err("its name ends in none of .json, .yml and .yaml".into()),
    };
    let group =
        |raw: RawGroup| TargetGroup { targets: raw.targets, labels: raw.labels.into_iter().collect() };
    Ok(raw.into_iter().map(group).collect())
}

/// The files that a pattern names, in the order of their names. A plain path names itself, there or not.
fn matching(pattern: &Path) -> std::io::Result<Vec<PathBuf>> {
    let name = pattern.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if !name.contains(['*', '?']) {
        return Ok(vec![pattern.to_owned()]);
    }
    let directory = match pattern.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|file| fits(name.as_bytes(), file.as_bytes())) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a name fits a pattern of `*` (anything), `?` (one byte) and bytes that stand for themselves. As in shells,
/// a leading `*` or `?` does not fit hidden files.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // Where to go on if the last `*` has to take one byte more.
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n + 1));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((after_star, at)) => {
                    p = after_star;
                    n = at;
                    retry = Some((after_star, at + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(files: &FileTargets) -> Vec<&str> {
        files.groups().flat_map(|group| &group.targets).map(String::as_str).collect()
    }

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, name, yes) in [
            ("*.json", "a.json", true),
            ("*.json", ".json", false),
            ("*.json", "a.jso", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXcYb", false),
            ("?.yml", "x.yml", true),
            ("?.yml", "xy.yml", false),
            ("*", "anything", true),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), yes, "{pattern} {name}");
        }
    }

    #[test]
    fn files_come_change_break_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a.json"), directory.path().join("b.yml"));
        let mut files = FileTargets::new(directory.path().join("*"));
        assert_eq!(files.refresh(), (false, vec![]));

        std::fs::write(&a, r#"[{"targets": ["x:1", "y:1"], "labels": {"dc": "n"}}]"#).unwrap();
        std::fs::write(&b, "- targets: ['z:1']\n").unwrap();
        assert_eq!(files.refresh(), (true, vec![]));
        assert_eq!(addresses(&files), ["x:1", "y:1", "z:1"]);
        assert_eq!(files.groups().next().unwrap().labels, [("dc".to_owned(), "n".to_owned())]);
        assert_eq!(files.refresh(), (false, vec![]));

        // Broken: named once, and what it said before stays.
        std::fs::write(&a, "[{").unwrap();
        let (changed, errors) = files.refresh();
        assert!(!changed && errors.len() == 1, "{errors:?}");
        assert!(errors[0].to_string().contains("a.json"), "{}", errors[0]);
        assert_eq!(files.refresh(), (false, vec![]));
        assert_eq!(addresses(&files), ["x:1", "y:1", "z:1"]);

        std::fs::write(&a, r#"[{"targets": ["x:22"]}]"#).unwrap();
        std::fs::remove_file(&b).unwrap();
        assert_eq!(files.refresh(), (true, vec![]));
        assert_eq!(addresses(&files), ["x:22"]);
    }

    #[test]
    fn what_is_no_list_of_groups_is_refused_with_the_reason() {
        for (name, text) in
            [("a.json", r#"[{"target": ["x:1"]}]"#), ("a.yml", "targets: 1"), ("a.txt", "[]"), ("a.json", "")]
        {
            assert!(parse(Path::new(name), text).is_err(), "{name} {text}");
        }
        assert_eq!(parse(Path::new("a.yaml"), ""), Ok(vec![]));
    }
}
