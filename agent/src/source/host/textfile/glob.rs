//! Directories by pattern, with the signs of Go's `path/filepath.Glob`: `*`, `?`, `[a-z]`, `[^a-z]` and `\`.

use std::path::PathBuf;

/// The paths that a pattern stands for, sorted. A pattern that nothing matches stands for itself, so that what is
/// wrong with it shows when it is read.
pub(super) fn expand(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from(if pattern.starts_with('/') { "/" } else { "" })];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        if !part.contains(['*', '?', '[', '\\']) {
            for path in &mut found {
                path.push(part);
            }
            continue;
        }
        let wanted: Vec<char> = part.chars().collect();
        let mut next = Vec::new();
        for path in &found {
            let dir = if path.as_os_str().is_empty() { ".".as_ref() } else { path.as_path() };
            let Ok(entries) = std::fs::read_dir(dir) else { continue };
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let fits = |name: &String| matches(&wanted, &name.chars().collect::<Vec<_>>());
            next.extend(names.filter(fits).map(|name| path.join(name)));
        }
        next.sort();
        found = next;
    }
    found.retain(|path| path.exists());
    if found.is_empty() { vec![pattern.into()] } else { found }
}

/// Whether a name fits a pattern as a whole. A class that does not end fits nothing.
fn matches(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', rest @ ..] => (0..=name.len()).any(|taken| matches(rest, &name[taken..])),
        ['?', rest @ ..] => !name.is_empty() && matches(rest, &name[1..]),
        ['[', class @ ..] => {
            let Some((letter, after)) = name.split_first() else { return false };
            class_takes(class, *letter).is_some_and(|rest| matches(rest, after))
        }
        ['\\', wanted, rest @ ..] | [wanted, rest @ ..] => {
            name.first() == Some(wanted) && matches(rest, &name[1..])
        }
    }
}

/// What follows a class that takes the letter.
fn class_takes(class: &[char], letter: char) -> Option<&[char]> {
    let (negated, mut rest) = match class {
        ['^', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let mut inside = false;
    loop {
        rest = match rest {
            [']', after @ ..] => return (inside != negated).then_some(after),
            [low, '-', high, after @ ..] if *high != ']' => {
                inside |= (*low..=*high).contains(&letter);
                after
            }
            [one, after @ ..] => {
                inside |= *one == letter;
                after
            }
            [] => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        let fits = |pattern: &str, name: &str| {
            matches(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
        };
        for (pattern, name) in [
            ("a*c", "abbc"),
            ("*", ""),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("[^a-c]x", "dx"),
            ("\\*", "*"),
            ("é*", "éa"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("a*c", "abb"), ("?", ""), ("[a-c]", "d"), ("[^a-c]", "a"), ("\\*", "a"), ("[a", "a")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn any_part_of_a_path_may_be_a_pattern() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b1/metrics", "b2/metrics", "b2/other", "c/metrics"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let at = |text: &str| format!("{}/{text}", dir.path().display());
        let paths =
            |text: &str| expand(&at(text)).into_iter().map(|p| p.display().to_string()).collect::<Vec<_>>();
        assert_eq!(paths("b*/metrics"), [at("b1/metrics"), at("b2/metrics")]);
        assert_eq!(paths("c/metrics"), [at("c/metrics")]);
        assert_eq!(paths("x*/metrics"), [at("x*/metrics")]);
    }
}
