//! Recorded trees and what is to come of them; `PEGEL_BLESS=1` writes it anew.

use super::*;

/// A file of `agent/tests/container_golden`.
pub(super) fn path(name: &str, extension: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container_golden").join(format!("{name}.{extension}"))
}

fn check(name: &str, settings: impl FnOnce(Settings) -> Settings, containers: &[Container]) {
    let tree = Tree::recorded(name);
    let mut node = Node::new(settings(tree.settings()));
    node.accounting.patience_ms = 0;
    for container in containers {
        node.catalogue.put(Arc::new(container.clone()));
        node.catalogue.put_writable_bytes(&container.id, 4_096);
    }
    node.full(1_700_000_100_000);
    let report = node.full(1_700_000_115_250);
    assert_eq!((report.trouble, report.first_unreadable), (None, None));
    // When a file of a tree was made differs from run to run, and so do durations.
    let is_stable = |line: &&str| {
        let is_time = line.starts_with("container_creation_time") || line.starts_with("container_start_time");
        !(is_time && !line.contains("image=") || line.starts_with("scrape_duration_seconds{"))
    };
    let text = text(&report.blocks);
    let found = text.lines().filter(is_stable).flat_map(|line| [line, "\n"]).collect::<String>();
    let path = path(name, "expected");
    if std::env::var_os("PEGEL_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let only = |a: &str, b: &str, sign: &str| {
        let lines: Vec<&str> = b.lines().collect();
        let only = a.lines().filter(|line| !lines.contains(line));
        only.flat_map(|line| [sign, " ", line, "\n"]).collect::<String>()
    };
    let difference = only(&expected, &found, "-") + &only(&found, &expected, "+");
    assert!(difference.is_empty(), "{} differs; PEGEL_BLESS=1 writes it anew:\n{difference}", path.display());
    assert_eq!(expected, found, "the order of lines differs");
}

fn all_groups(settings: Settings) -> Settings {
    Settings { groups: Group::ALL.iter().copied().collect(), ..settings }
}

#[test]
fn version_1_with_cfq_and_docker() {
    check("v1_linux_4_19", all_groups, &[container(&id("4e"), "web")]);
}

#[test]
fn version_2_on_a_node_of_kubernetes() {
    let pod = |container: &str| PodIdentity {
        namespace: "shop".into(),
        pod: "web-0".into(),
        uid: "12ab-34".into(),
        container: container.into(),
    };
    let of_pod = |id: &str, name: &str| Container {
        runtime: RuntimeKind::Containerd,
        pod: Some(pod(name)),
        ..container(id, name)
    };
    let kubelet = |settings| Settings { scheme: Scheme::Kubelet, groups: Groups::kubelet(), ..settings };
    check("v2_linux_5_10", kubelet, &[of_pod(&id("4e"), "nginx"), of_pod(&id("b7"), "POD")]);
}

#[test]
fn version_2_with_systemd_docker_and_podman() {
    check("v2_linux_6_12", all_groups, &[container(&id("4e"), "web")]);
}
