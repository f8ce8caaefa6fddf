//! Whatever stands in the kernel's files: a collector says what is wrong, and none panics or holds the others up.

use super::*;

/// What happens to each file of a tree.
type Damage = (&'static str, fn(&[u8]) -> Vec<u8>);

const DAMAGES: [Damage; 7] = [
    ("empty", |_| Vec::new()),
    ("cut in half", |content| content[..content.len() / 2].to_vec()),
    ("cut before its last byte", |content| content[..content.len().saturating_sub(1)].to_vec()),
    ("without blanks", |content| content.iter().copied().filter(|b| !b" \t".contains(b)).collect()),
    ("not text", |content| content.iter().map(|b| b | 0x80).collect()),
    ("too large numbers", |content| replaced_digits(content, b"99999999999999999999999")),
    ("negative numbers", |content| replaced_digits(content, b"-1")),
];

fn replaced_digits(content: &[u8], by: &[u8]) -> Vec<u8> {
    content.iter().flat_map(|b| if b.is_ascii_digit() { by.to_vec() } else { vec![*b] }).collect()
}

/// The files of a recorded tree, without links and directories.
fn plain_files(name: &str) -> impl Iterator<Item = (String, Vec<u8>)> {
    golden::files(name).into_iter().filter(|(path, _)| !path.contains(" -> ") && !path.ends_with('/'))
}

/// Runs all collectors that read files on a tree twice; none may panic, hang, or fail without words.
fn survives(tree: &Tree, what: &str) {
    let mut settings = tree.settings();
    // These ask a running system over D-Bus, whatever the tree says.
    settings.collectors = CollectorKind::ALL
        .iter()
        .copied()
        .filter(|kind| !matches!(kind, CollectorKind::Logind | CollectorKind::Systemd))
        .collect();
    // A busy machine delays threads; a hang is one whatever the limit.
    settings.interval = Duration::from_mins(10);
    settings.collector_timeout = Duration::from_mins(1);
    let mut source = source(settings, FixedSystem::new());
    let status = source.status();
    for at in 0..2 {
        assert!(!source.collect_blocking(at).is_empty());
        for one in status.json().as_array().unwrap() {
            let reason = one["reason"].as_str().unwrap_or_default();
            let sound = match one["state"].as_str().unwrap() {
                "works" => true,
                "no data" | "fails" => !reason.is_empty() && !reason.contains("panicked"),
                _ => false,
            };
            assert!(sound, "{what}: {one}");
        }
    }
}

#[test]
fn damage_in_every_file_at_once_makes_no_collector_panic() {
    for name in ["weird", "server", "arm64", "router", "tasks"] {
        for (what, damage) in DAMAGES {
            let tree = Tree::recorded(name);
            for (path, content) in plain_files(name) {
                tree.write(&path, &damage(&content));
            }
            survives(&tree, &format!("{name}, {what}"));
        }
    }
}

#[test]
fn files_that_cannot_be_opened_make_no_collector_panic() {
    for name in ["weird", "server"] {
        let tree = Tree::recorded(name);
        for (path, _) in plain_files(name) {
            // A link to itself cannot be opened even by root, whom permissions do not stop.
            let path = tree.dir.path().join(path);
            if path.is_file() {
                std::fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink(&path, &path).unwrap();
            }
        }
        survives(&tree, &format!("{name}, unreadable"));
    }
}
