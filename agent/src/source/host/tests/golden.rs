//! Recorded trees and what is to come of them.
//!
//! `agent/tests/host_golden/NAME.tree` holds files, each headed `==> path`, links, `==> path -> target`, and empty
//! directories, `==> path/`; `\NNN` (octal) stands for a byte that a text file should not hold. `NAME.expected` is the exposition. `PEGEL_BLESS=1` writes it anew.

use super::*;
use std::path::PathBuf;

fn path(name: &str, extension: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host_golden").join(format!("{name}.{extension}"))
}

/// The files of a recorded tree.
pub(super) fn files(name: &str) -> Vec<(String, Vec<u8>)> {
    let text = std::fs::read_to_string(path(name, "tree")).unwrap();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("==> ") {
            files.push((path.to_owned(), Vec::new()));
        } else if let Some((_, content)) = files.last_mut() {
            content.extend(line.replace("\\000", "\0").replace("\\377", "\u{fffd}").bytes());
            content.push(b'\n');
        }
    }
    files
}

/// What two expositions do not share, `-` for what is missing and `+` for what is new.
fn difference(expected: &str, found: &str) -> String {
    let only = |a: &str, b: &str, sign: &str| {
        let lines: Vec<&str> = b.lines().collect();
        let only = a.lines().filter(|line| !lines.contains(line));
        only.flat_map(|line| [sign, " ", line, "\n"]).collect::<String>()
    };
    only(expected, found, "-") + &only(found, expected, "+")
}

fn check(name: &str) {
    check_with(name, &[]);
}

/// Checks a tree with collectors more than those that are on by default.
fn check_with(name: &str, more: &[CollectorKind]) {
    let tree = Tree::recorded(name);
    let mut settings = tree.settings();
    settings.collectors.extend(more);
    let text = source(settings, FixedSystem::new()).once();
    // Durations differ from run to run, and so does the test's own process.
    let varies = [
        "node_scrape_collector_duration_seconds{",
        "scrape_duration_seconds ",
        "node_exporter_build_info{",
        "process_",
        "# HELP process_",
        "# TYPE process_",
    ];
    let stable = text.lines().filter(|line| !varies.iter().any(|prefix| line.starts_with(prefix)));
    let stable = stable.collect::<Vec<_>>().join("\n").replace('\0', "\\000") + "\n";
    // A label may have the place of a file.
    let stable = stable.replace(&*tree.dir.path().to_string_lossy(), "");
    let path = path(name, "expected");
    if std::env::var_os("PEGEL_BLESS").is_some() {
        std::fs::write(&path, &stable).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = difference(&expected, &stable);
    assert!(difference.is_empty(), "{} differs; PEGEL_BLESS=1 writes it anew:\n{difference}", path.display());
    assert_eq!(expected, stable, "the order of lines differs");
}

#[test]
fn a_machine_with_odd_devices() {
    check("weird");
}

#[test]
fn a_kernel_of_old() {
    check("old");
}

#[test]
fn a_server_with_two_sockets_raid_bonds_and_every_kind_of_storage() {
    check("server");
}

#[test]
fn an_arm64_board_with_two_clusters_and_a_battery() {
    check("arm64");
}

#[test]
fn a_kernel_of_2013() {
    check("kernel310");
}

#[test]
fn a_client_and_server_of_nfs() {
    check("nfs");
}

#[test]
fn a_router_with_many_interfaces() {
    let more = [
        CollectorKind::Buddyinfo,
        CollectorKind::Cgroups,
        CollectorKind::CpuVulnerabilities,
        CollectorKind::Interrupts,
        CollectorKind::Ksmd,
        CollectorKind::Lnstat,
        CollectorKind::Softirqs,
        CollectorKind::Swap,
        CollectorKind::Xfrm,
    ];
    check_with("router", &more);
}
