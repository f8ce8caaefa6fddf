//! Tests that compare with files, shared by the programs. `PEGEL_BLESS=1` rewrites what does not match.

use super::reference::{markdown, schema_file};
use super::{BadConfig, Input, Loaded, Raw};
use std::path::Path;

/// Loads every `*.yaml` in a directory and compares its mistakes (or warnings, if it has no mistake) with the
/// `.expected` file beside it. Panics with all differences.
pub fn compare_mistakes<S>(directory: &Path, load: impl Fn(&Input) -> Result<Loaded<S>, BadConfig>) {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap_or_else(|e| panic!("cannot list {}: {e}", directory.display()))
        .map(|entry| entry.expect("the directory can be listed").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no .yaml file", directory.display());
    let mut differences = String::new();
    for file in files {
        let input =
            Input { file: Some(file.clone()), flags: Vec::new(), check_files: false, environment: |_| None };
        let found: Vec<String> = match load(&input) {
            Err(bad) => bad.mistakes.iter().map(ToString::to_string).collect(),
            Ok(loaded) => loaded.warnings.iter().map(|warning| format!("warning: {warning}")).collect(),
        };
        assert!(!found.is_empty(), "{} has neither mistake nor warning", file.display());
        // The directory differs from machine to machine.
        let prefix = format!("{}/", directory.display());
        let found = found.iter().map(|line| line.replace(&prefix, "") + "\n").collect::<String>();
        differences.push_str(&compare(&file.with_extension("expected"), &found));
    }
    assert!(differences.is_empty(), "{differences}");
}

/// Compares the schema and the reference of a raw form with `docs/reference/NAME.schema.json` and `NAME.md`.
pub fn compare_reference<R: Raw>(directory: &Path, name: &str, program: &str) {
    let title = format!("Configuration of {program}");
    let mut differences = compare(&directory.join(format!("{name}.schema.json")), &schema_file::<R>(&title));
    differences.push_str(&compare(&directory.join(format!("{name}.md")), &markdown::<R>(program)));
    assert!(differences.is_empty(), "{differences}");
}

fn compare(file: &Path, found: &str) -> String {
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    if expected == found {
        return String::new();
    }
    if std::env::var_os("PEGEL_BLESS").is_some() {
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)
                .unwrap_or_else(|e| panic!("cannot make {}: {e}", parent.display()));
        }
        std::fs::write(file, found).unwrap_or_else(|e| panic!("cannot write {}: {e}", file.display()));
        return String::new();
    }
    let first = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    let (found, expected) = first.unwrap_or((found, &expected));
    format!(
        "{} is stale; PEGEL_BLESS=1 rewrites it. First difference:\n  found:    {found}\n  expected: {expected}\n",
        file.display()
    )
}
