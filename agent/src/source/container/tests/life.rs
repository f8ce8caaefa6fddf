//! Containers that start, stop, get names, vanish.

use super::*;

const V2: &str = "v2_linux_6_12";

fn docker(id: &str) -> String {
    format!("sys/fs/cgroup/system.slice/docker-{id}.scope")
}

/// Puts another container's cgroup into a tree.
fn start(tree: &Tree, id: &str) {
    tree.write(&format!("{}/cpu.stat", docker(id)), "usage_usec 5\nuser_usec 3\nsystem_usec 2\n");
    tree.write(&format!("{}/memory.current", docker(id)), "1000\n");
    tree.write(&format!("{}/memory.events", docker(id)), "high 0\nmax 0\noom_kill 0\n");
}

#[test]
fn nothing_is_sent_as_long_as_there_is_no_container() {
    let tree = Tree::recorded(V2);
    tree.remove("sys/fs/cgroup/machine.slice");
    tree.remove(&docker(&id("4e")));
    let mut node = Node::new(tree.settings());
    assert!(node.full(0).blocks.is_empty() && node.full(15_000).blocks.is_empty());
    start(&tree, &id("11"));
    node.full(30_000);
    let names = names(&node.full(45_000).blocks, false);
    assert_eq!(names, ["/".to_owned(), "/system.slice".to_owned(), id("11")]);
    let mut always = Node::new(Settings { only_with_containers: false, ..tree.settings() });
    assert!(always.full(0).blocks.len() > 2);
}

#[test]
fn a_new_container_waits_a_moment_for_its_name() {
    let tree = Tree::recorded(V2);
    let mut node = Node::started(tree.settings());
    node.accounting.patience_ms = PATIENCE_MS;
    start(&tree, &id("11"));
    let report = node.full(10_000);
    assert_eq!((report.waiting, value(&report.blocks, &id("11"), "container_memory_usage_bytes")), (1, None));
    let report = node.urgent(&[], &[], 11_050);
    assert_eq!(value(&report.blocks, &id("11"), "container_memory_usage_bytes"), Some(1000.0));
    assert_eq!(names(&report.blocks, false), [id("11")], "others are read on schedule");
}

#[test]
fn a_container_that_starts_is_read_at_once_and_one_that_stops_is_ended_at_once() {
    let tree = Tree::recorded(V2);
    let mut node = Node::started(tree.settings());
    let (new, old) = (id("11"), id("4e"));
    start(&tree, &new);
    node.catalogue.put(Arc::new(container(&new, "fresh")));
    let report = node.urgent(&[&new], &[], 1_000);
    assert_eq!(names(&report.blocks, false), ["fresh"]);
    assert_eq!(value(&report.blocks, "fresh", "container_cpu_user_seconds_total"), Some(3e-6));
    // The last values come before the markers, and after them nothing, though the cgroup is still there.
    let report = node.urgent(&[], &[&new, &old], 2_000);
    assert_eq!(
        names(&report.blocks, false),
        [new.clone(), old.clone()].map(|id| if id == new { "fresh".into() } else { id })
    );
    assert_eq!(names(&report.blocks, true).len(), 2);
    assert!(report.blocks.iter().all(|block| block.at_ms == if is_stale(block) { 2_001 } else { 2_000 }));
    let report = node.full(15_000);
    assert!(!names(&report.blocks, false).contains(&"fresh".to_owned()));
    // Begun anew, it is read anew.
    let report = node.urgent(&[&new], &[], 16_000);
    assert_eq!(names(&report.blocks, false), ["fresh"]);
    assert!(names(&node.full(30_000).blocks, false).contains(&"fresh".to_owned()));
}

#[test]
fn a_container_whose_runtime_comes_back_gets_its_name_back() {
    let tree = Tree::recorded(V2);
    let mut node = Node::started(tree.settings());
    let nameless = node.full(15_000);
    assert!(names(&nameless.blocks, false).contains(&id("4e")));
    node.catalogue.put(Arc::new(container(&id("4e"), "web")));
    let report = node.full(30_000);
    assert_eq!(names(&report.blocks, true), [id("4e")], "the old series end");
    assert!(names(&report.blocks, false).contains(&"web".to_owned()));
    let labels = report.blocks.iter().find(|b| b.set.target().value("name") == Some("web")).unwrap();
    assert_eq!(labels.set.target().value("image"), Some("nginx:1"));
    assert_eq!(labels.set.target().value("container_label_com_docker_compose_service"), Some("web"));
    assert_eq!(labels.set.target().value("container_label_build"), None);
}

#[test]
fn what_stays_keeps_its_set_and_equal_series_are_shared() {
    let tree = Tree::recorded(V2);
    start(&tree, &id("11"));
    start(&tree, &id("22"));
    let mut node = Node::started(tree.settings());
    let (first, second) = (node.full(15_000), node.full(30_000));
    for (a, b) in first.blocks.iter().zip(&second.blocks) {
        assert!(Arc::ptr_eq(&a.set, &b.set), "{:?}", a.set.target());
    }
    let set = |name: &str| {
        let of = |block: &&Block| block.set.target().value("name") == Some(name);
        second.blocks.iter().find(of).unwrap().set.clone()
    };
    let (one, other) = (set(&id("11")), set(&id("22")));
    assert!(one.series().iter().zip(other.series()).all(|(a, b)| Arc::ptr_eq(a, b)));
}

#[test]
fn a_cgroup_that_vanishes_is_ended_and_no_error() {
    let tree = Tree::recorded(V2);
    let mut node = Node::started(tree.settings());
    tree.remove(&docker(&id("4e")));
    let report = node.full(15_000);
    assert_eq!(names(&report.blocks, true), [id("4e")]);
    assert_eq!((report.trouble, report.unreadable), (None, 0));
    // In the middle of being read: its directory is there, what it had is not.
    std::fs::remove_file(tree.path("sys/fs/cgroup/system.slice/cpu.stat")).unwrap();
    let report = node.full(30_000);
    assert_eq!(names(&report.blocks, true), ["/system.slice"]);
    assert_eq!(report.unreadable, 0);
}

#[test]
fn kills_are_noticed_by_the_kernels_count() {
    let tree = Tree::recorded(V2);
    let mut node = Node::started(tree.settings());
    assert!(node.full(15_000).oom_kills.is_empty());
    let events = format!("{}/memory.events", docker(&id("4e")));
    tree.write(&events, "low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\n");
    let report = node.full(30_000);
    assert_eq!(report.oom_kills.len(), 1);
    assert_eq!((report.oom_kills[0].count, report.oom_kills[0].id.as_deref()), (2, Some(id("4e").as_str())));
    assert_eq!(value(&report.blocks, &id("4e"), "container_oom_events_total"), Some(2.0));
}

#[test]
fn limits_that_change_are_seen_within_a_minute() {
    let tree = Tree::recorded(V2);
    let mut node = Node::started(tree.settings());
    let period = |report: &PassReport| value(&report.blocks, &id("4e"), "container_spec_cpu_quota");
    assert_eq!(period(&node.full(15_000)), Some(150_000.0));
    tree.write(&format!("{}/cpu.max", docker(&id("4e"))), "max 100000\n");
    assert_eq!(period(&node.full(30_000)), Some(150_000.0));
    let report = node.full(75_000);
    assert_eq!(period(&report), None);
    assert_eq!(value(&report.blocks, &id("4e"), "container_cpu_cfs_periods_total"), None);
    assert_eq!(names(&report.blocks, true), [id("4e")]);
}

#[test]
fn containers_that_share_a_network_report_it_once() {
    let tree = Tree::recorded(V2);
    start(&tree, &id("11"));
    start(&tree, &id("22"));
    start(&tree, &id("33"));
    for (pid, namespace) in [("1", "net:[1]"), ("5", "net:[5]"), ("6", "net:[5]"), ("7", "net:[1]")] {
        std::fs::create_dir_all(tree.path(&format!("proc/{pid}/ns"))).unwrap();
        std::os::unix::fs::symlink(namespace, tree.path(&format!("proc/{pid}/ns/net"))).unwrap();
        tree.write(&format!("proc/{pid}/net/dev"), "a\nb\n eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n");
    }
    let mut node = Node::new(tree.settings());
    for (two, pid) in [("11", 5), ("22", 6), ("33", 7)] {
        let known = Container { pid: Some(pid), ..container(&id(two), two) };
        node.catalogue.put(Arc::new(known));
    }
    node.full(0);
    let received = |report: &PassReport| {
        ["11", "22", "33"]
            .map(|name| value(&report.blocks, name, "container_network_receive_bytes_total").is_some())
    };
    assert_eq!(received(&node.full(15_000)), [true, false, true]);
    // The second takes over when the first is gone.
    tree.remove(&docker(&id("11")));
    node.full(30_000);
    assert_eq!(received(&node.full(90_000)), [false, true, true]);
}
