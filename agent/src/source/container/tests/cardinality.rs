//! Caps, and trees that hold anything.

use super::*;
use proptest::prelude::*;

fn docker(n: usize) -> String {
    format!("sys/fs/cgroup/docker/{n:064x}")
}

fn with_containers(count: usize) -> Tree {
    let tree = Tree::recorded("v2_linux_6_12");
    for n in 0..count {
        tree.write(&format!("{}/cpu.stat", docker(n)), "usage_usec 5\nuser_usec 3\nsystem_usec 2\n");
    }
    tree
}

fn only_containers(settings: Settings) -> Settings {
    Settings { cgroups: WhichCgroups::Containers, groups: [Group::Cpu].into_iter().collect(), ..settings }
}

#[test]
fn a_cap_on_one_leaves_its_newest_series_out_and_names_it() {
    let tree = with_containers(0);
    let io = |devices: std::ops::Range<u32>| {
        let line = |n: u32| format!("8:{n} rbytes=1 wbytes=1 rios=1 wios=1\n");
        devices.map(line).collect::<String>()
    };
    let settings = Settings {
        max_series_per_container: 60,
        groups: [Group::DiskIo].into_iter().collect(),
        ..tree.settings()
    };
    let file = format!("sys/fs/cgroup/system.slice/docker-{}.scope/io.stat", id("4e"));
    tree.write(&file, &io(8..10));
    for n in 0..30 {
        tree.write(&format!("sys/class/block/d{n}/dev"), &format!("8:{n}\n"));
    }
    let mut node = Node::started(settings);
    let before = node.full(15_000);
    let set = |report: &PassReport| {
        let of =
            |block: &&Block| block.set.target().value("name") == Some(id("4e").as_str()) && !is_stale(block);
        report.blocks.iter().find(of).unwrap().set.clone()
    };
    let old = set(&before);
    assert_eq!(before.series_left_out, 0);
    tree.write(&file, &io(0..30));
    let report = node.full(30_000);
    let now = set(&report);
    assert_eq!(now.len(), 60);
    let has = |series| now.series().iter().any(|one| Arc::ptr_eq(one, series));
    assert!(old.series().iter().all(has), "what was there stays");
    assert_eq!(report.series_left_out, old.len() + 28 * 6 - 60);
    let offender = &report.offenders[0];
    assert_eq!(
        (offender.series, offender.left_out, &*offender.name),
        (60, report.series_left_out, &*format!("/system.slice/docker-{}.scope", id("4e")))
    );
    assert!(Arc::ptr_eq(&set(&node.full(45_000)), &now), "the same are left out at the next pass");
}

#[test]
fn a_cap_on_all_leaves_the_newest_containers_out_until_there_is_room() {
    let tree = with_containers(0);
    let settings = only_containers(tree.settings());
    let each = {
        let tree = with_containers(1);
        let mut node = Node::started(only_containers(tree.settings()));
        let report = node.full(15_000);
        let block =
            report.blocks.iter().find(|b| b.set.target().value("name") == Some(&format!("{:064x}", 0)));
        block.unwrap().set.len()
    };
    let mut node = Node::started(settings.clone());
    let base = node.full(15_000).series;
    node.accounting.settings.max_series = base + 3 * each;
    for n in [5, 6, 7] {
        tree.write(&format!("{}/cpu.stat", docker(n)), "usage_usec 5\nuser_usec 3\nsystem_usec 2\n");
    }
    let full = node.full(30_000);
    assert_eq!((full.series, full.series_left_out), (base + 3 * each, 0));
    // Ones that come before them in order come too late.
    for n in [1, 2] {
        tree.write(&format!("{}/cpu.stat", docker(n)), "usage_usec 5\nuser_usec 3\nsystem_usec 2\n");
    }
    for at_ms in [45_000, 60_000] {
        let over = node.full(at_ms);
        assert_eq!(
            (over.series, over.series_left_out, over.cgroups_left_out),
            (base + 3 * each, 2 * each, 2)
        );
        assert_eq!(over.blocks.iter().filter(|block| is_stale(block)).count(), 0);
        assert_eq!(over.offenders.len(), 2);
    }
    tree.remove(&docker(6));
    node.full(75_000);
    let after = node.full(90_000);
    assert_eq!((after.series, after.series_left_out), (base + 3 * each, each));
}

/// Files that every kind of tree has, for garbage to be put into.
const FILES: [&str; 16] = [
    "proc/self/mountinfo",
    "proc/meminfo",
    "proc/diskstats",
    "proc/1/mountinfo",
    "proc/4711/net/dev",
    "proc/4711/limits",
    "proc/4711/task/4711/stat",
    "cpu.stat",
    "cpu.max",
    "memory.stat",
    "memory.events",
    "memory.current",
    "io.stat",
    "pids.max",
    "cpu.pressure",
    "cgroup.procs",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_content_of_any_file_makes_a_pass_panic(
        at in 0..FILES.len(),
        garbage in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            "[a-z_ :=0-9\n/.-]{0,300}".prop_map(String::into_bytes),
        ],
        keep in 0usize..400,
    ) {
        let tree = Tree::recorded("v2_linux_6_12");
        let file = match FILES[at] {
            path if path.contains('/') => tree.path(path),
            name => tree.path(&format!("sys/fs/cgroup/system.slice/docker-{}.scope/{name}", id("4e"))),
        };
        let mut content = std::fs::read(&file).unwrap_or_default();
        content.truncate(keep);
        content.extend(garbage);
        std::fs::write(&file, &content).unwrap();
        let mut node = Node::new(Settings { groups: Group::ALL.iter().copied().collect(), ..tree.settings() });
        node.accounting.patience_ms = 0;
        node.full(0);
        let report = node.full(15_000);
        let panicked = report.trouble.as_ref().is_some_and(|trouble| trouble.contains("panicked"));
        prop_assert!(!panicked);
        for block in &report.blocks {
            prop_assert_eq!(block.values.len(), block.set.len());
        }
    }
}
