//! The running kernel, read beside.

use super::*;

fn file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn real() -> HostSource {
    source(Settings::default(), KernelSystem::new())
}

#[test]
fn values_agree_with_proc_read_beside_them() {
    let mut source = real();
    let before = file("/proc/stat");
    let blocks = source.collect_blocking(0);
    let after = file("/proc/stat");
    let all = samples(&blocks[0]);

    let number = |text: &str, key: &str, column: usize| -> f64 {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap();
        line.split_whitespace().nth(column).unwrap().parse().unwrap()
    };
    for (metric, key, unit) in [
        ("node_intr_total", "intr", 1.0),
        ("node_context_switches_total", "ctxt", 1.0),
        ("node_forks_total", "processes", 1.0),
        ("node_boot_time_seconds", "btime", 1.0),
        (r#"node_cpu_seconds_total{cpu="0",mode="user"}"#, "cpu0", 100.0),
    ] {
        let (low, high) = (number(&before, key, 1) / unit, number(&after, key, 1) / unit);
        assert!((low..=high).contains(&all[metric]), "{metric}: {} not in {low}..{high}", all[metric]);
    }
    assert_eq!(all["node_memory_MemTotal_bytes"], number(&file("/proc/meminfo"), "MemTotal:", 1) * 1024.0);
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((wall - all["node_time_seconds"]).abs() < 60.0);
    assert!(all.keys().any(|key| key.starts_with("node_uname_info{")));
    assert!(all.keys().any(|key| key.starts_with("node_network_receive_bytes_total{")));
    // What every kernel has; the others are held against node_exporter.
    for kind in [
        CollectorKind::Cpu,
        CollectorKind::Entropy,
        CollectorKind::Filefd,
        CollectorKind::Filesystem,
        CollectorKind::Loadavg,
        CollectorKind::Meminfo,
        CollectorKind::Netdev,
        CollectorKind::Netstat,
        CollectorKind::Sockstat,
        CollectorKind::Softnet,
        CollectorKind::Stat,
        CollectorKind::Time,
        CollectorKind::Timex,
        CollectorKind::Uname,
        CollectorKind::Vmstat,
    ] {
        assert_eq!(success(&all, kind.name()), 1.0, "{}", kind.name());
    }
}

#[test]
fn netlink_and_proc_agree() {
    let of = |netdev_netlink| {
        let collectors = vec![CollectorKind::Netdev];
        let settings = Settings { collectors, netdev_netlink, ..Settings::default() };
        let block = source(settings, KernelSystem::new()).collect_blocking(0);
        samples(&block[0])
    };
    let (netlink, proc) = (of(true), of(false));
    let quiet = |all: &BTreeMap<String, f64>| -> BTreeMap<String, bool> {
        let network = all.iter().filter(|(key, _)| key.starts_with("node_network_"));
        network.map(|(key, value)| (key.clone(), *value > 0.0)).collect()
    };
    let mut expected = quiet(&netlink);
    expected.retain(|key, _| !key.starts_with("node_network_receive_nohandler_total"));
    assert_eq!(expected, quiet(&proc));
}

#[test]
fn a_summary_has_what_people_ask_first() {
    let summary = machine_summary(&Paths::default(), &KernelSystem::new());
    assert!(summary.cores >= 1 && summary.memory_bytes > 1 << 20, "{summary:?}");
    assert!(!summary.hostname.is_empty() && !summary.os.is_empty() && !summary.kernel.is_empty());
}

#[tokio::test]
async fn the_source_hands_scrapes_over_until_it_is_shut_down() {
    use crate::intake::intake;
    use crate::source::SourceContext;
    let registry = pegel_runtime::metrics::Registry::new();
    let (intake, mut collected) = intake(1 << 20, &registry);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let context = SourceContext {
        intake,
        clock: crate::source::clock::SampleClock::default(),
        registry,
        external_labels: Arc::default(),
        shutdown: shutdown.clone(),
    };
    let settings = Settings {
        interval: Duration::from_millis(200),
        intervals: [(CollectorKind::Loadavg, Duration::from_millis(500))].into(),
        ..Settings::default()
    };
    let run = tokio::spawn(source(settings, KernelSystem::new()).run(context));
    let (mut lead, mut own) = (Vec::new(), Vec::new());
    while lead.len() < 6 || own.len() < 3 {
        let collected = collected.next().await.unwrap();
        let block = collected.blocks.last().unwrap();
        let has = |name| block.set.series().iter().any(|series| series.name() == name);
        assert_ne!(has("node_load1"), has("up"), "a collector with an interval of its own is apart");
        assert!(!block.values.iter().any(|value| is_stale_marker(*value)));
        if has("up") { lead.push(block.at_ms) } else { own.push(block.at_ms) }
    }
    for (instants, interval) in [(lead, 200), (own, 500)] {
        for pair in instants.windows(2) {
            // A scrape that begins late has a later time; the next one is on time all the same.
            assert!(pair[1] > pair[0], "{instants:?}: each scrape has a time of its own");
        }
        let (first, last) = (instants[0], instants[instants.len() - 1]);
        assert!(last - first >= interval * (instants.len() as i64 - 2), "{instants:?}: never a burst");
    }
    shutdown.cancel();
    run.await.unwrap();
}
