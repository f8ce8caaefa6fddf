//! The host source against recorded trees, against the running kernel, and with calls that hang.

#![allow(clippy::float_cmp, reason = "the same numbers are expected to the last bit")]

use super::system::Zone;
use super::*;
use crate::source::render;
use crate::source::vanished;
use pegel_proto::metrics::{Block, Labels, is_stale_marker};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

mod bad_input;
mod damage;
mod devices;
mod golden;
mod live;
mod netlink;
mod oracle;
mod sockets_and_tasks;

/// A host whose calls answer what the test says.
#[derive(Clone)]
pub(super) struct FixedSystem {
    /// Paths whose `statfs` waits until the test lets go.
    hanging: Arc<parking_lot::Mutex<BTreeMap<PathBuf, Receiver<()>>>>,
    /// What netlink answers.
    answers: Arc<Recorded>,
    clock: Result<ClockState, i32>,
}

impl FixedSystem {
    pub(super) fn new() -> Self {
        Self { hanging: Arc::default(), answers: Arc::default(), clock: Ok(DISCIPLINED) }
    }

    /// Has `statfs` of a path hang until the returned end is dropped.
    fn hang(&self, path: &str) -> Sender<()> {
        let (release, until) = channel();
        self.hanging.lock().insert(path.into(), until);
        release
    }
}

impl System for FixedSystem {
    fn statfs(&self, path: &Path) -> Result<FsUsage, i32> {
        // A tree's files stand under its own root.
        let path = path.to_str().and_then(|path| path.rsplit_once("/root/"));
        let path = PathBuf::from(format!("/{}", path.map_or("", |(_, inside)| inside)));
        let waits = self.hanging.lock().remove(&path);
        if let Some(until) = waits {
            let _ = until.recv();
        }
        match path.to_str() {
            Some("/secret") => Err(13),
            Some("/gone") => Err(107),
            _ => Ok(FsUsage {
                size_bytes: 1e9,
                free_bytes: 6e8,
                avail_bytes: 5e8,
                files: 1000.0,
                files_free: 900.0,
            }),
        }
    }

    fn uname(&self) -> UnameInfo {
        UnameInfo {
            sysname: "Linux".into(),
            nodename: "golden".into(),
            release: "6.12.0".into(),
            version: "#1 SMP".into(),
            machine: "x86_64".into(),
            domainname: "(none)".into(),
        }
    }

    fn now(&self) -> Duration {
        Duration::from_millis(1_700_000_000_250)
    }

    fn zone(&self, _: i64) -> Zone {
        Zone { name: "CET".into(), offset_seconds: 3600 }
    }

    fn clock_state(&self) -> Result<ClockState, i32> {
        self.clock
    }

    fn netlink(&self, _: NetlinkProtocol) -> io::Result<Box<dyn Netlink>> {
        Ok(Box::new(Answers(self.answers.clone())))
    }
}

/// A clock that is synchronised.
const DISCIPLINED: ClockState = ClockState {
    state: 0,
    offset: -125_500,
    freq: -3_276_800,
    maxerror: 250_000,
    esterror: 1_500,
    status: 0x2001,
    constant: 7,
    tick: 10_000,
    ppsfreq: 65_536,
    jitter: 900,
    shift: 4,
    stabil: 131_072,
    jitcnt: 5,
    calcnt: 6,
    errcnt: 7,
    stbcnt: 8,
    tai: 37,
};

/// What netlink answers: by the kind of the question, the messages.
type Recorded = BTreeMap<u16, Vec<(u16, Vec<u8>)>>;

struct Answers(Arc<Recorded>);

impl Netlink for Answers {
    fn dump(&mut self, kind: u16, _: &[u8], each: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        for (kind, body) in self.0.get(&kind).into_iter().flatten() {
            each(*kind, body);
        }
        Ok(())
    }
}

/// A tree of files that stands in for the kernel's.
struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    /// The recorded tree of `agent/tests/host_golden/NAME.tree`.
    fn recorded(name: &str) -> Self {
        let tree = Self { dir: tempfile::tempdir().unwrap() };
        for (path, content) in golden::files(name) {
            match path.split_once(" -> ") {
                Some((link, target)) => tree.link(link, target),
                None if path.ends_with('/') => std::fs::create_dir_all(tree.dir.path().join(path)).unwrap(),
                None => tree.write(&path, &content),
            }
        }
        tree
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.dir.path().join(path)).unwrap();
    }

    fn settings(&self) -> Settings {
        let at = |name: &str| self.dir.path().join(name);
        Settings {
            paths: Paths {
                procfs: at("proc"),
                sysfs: at("sys"),
                rootfs: at("root"),
                udev_data: at("udev"),
                system_bus: at("run/bus"),
            },
            netdev_netlink: false,
            arp_netlink: false,
            ..Settings::default()
        }
    }

    fn source(&self) -> HostSource {
        source(self.settings(), FixedSystem::new())
    }
}

pub(super) fn source(settings: Settings, system: impl System) -> HostSource {
    let system: Arc<dyn System> = Arc::new(system);
    HostSource::new(settings, &Labels::default(), &system)
}

/// A block's samples by their text form, as `name{a="b"}`.
pub(super) fn samples(block: &Block) -> BTreeMap<String, f64> {
    let text = render::text(std::slice::from_ref(block), render::WhichLabels::Own);
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((series.to_owned(), value.parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

/// Whether each collector has all its samples of an undamaged tree.
fn healthy(tree: &Tree) -> BTreeMap<&'static str, f64> {
    let all = samples(tree.source().collect_blocking(0).last().unwrap());
    CollectorKind::ALL
        .iter()
        .filter(|kind| all.contains_key(&success_of(kind.name())))
        .map(|kind| (kind.name(), success(&all, kind.name())))
        .collect()
}

pub(super) fn success_of(collector: &str) -> String {
    format!("node_scrape_collector_success{{collector=\"{collector}\"}}")
}

pub(super) fn success(samples: &BTreeMap<String, f64>, collector: &str) -> f64 {
    samples[&success_of(collector)]
}

#[test]
fn an_unchanged_host_keeps_its_set_and_a_changed_one_ends_what_vanished() {
    let tree = Tree::recorded("weird");
    let mut source = tree.source();
    let first = source.collect_blocking(1000);
    let second = source.collect_blocking(2000);
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(Arc::ptr_eq(&first[0].set, &second[0].set));
    assert_eq!(second[0].at_ms, 2000);

    tree.remove("proc/loadavg");
    // The descriptor is kept open, as in the real /proc: only an empty file says that it is gone.
    tree.write("proc/meminfo", b"MemTotal: 1 kB\n");
    let third = source.collect_blocking(3000);
    assert_eq!(third.len(), 2, "markers and samples");
    let (markers, now) = (&third[0], &third[1]);
    assert_eq!((markers.at_ms, now.at_ms), (3000, 3000));
    assert!(markers.values.iter().all(|value| is_stale_marker(*value)));
    assert!(samples(now).contains_key("node_memory_MemTotal_bytes"));
    let names: Vec<&str> = markers.set.series().iter().map(|series| series.name()).collect();
    assert!(names.contains(&"node_memory_MemFree_bytes"), "{names:?}");
    assert!(!names.contains(&"node_memory_MemTotal_bytes"), "{names:?}");
    assert!(vanished(&third[1].set, Some(&source.collect_blocking(4000)[0].set)).is_none());
}

#[test]
fn the_target_has_job_instance_and_external_labels() {
    let tree = Tree::recorded("weird");
    let external = Labels::new([("dc", "x"), ("job", "not this")]).unwrap();
    let system: Arc<dyn System> = Arc::new(FixedSystem::new());
    let mut source = HostSource::new(tree.settings(), &external, &system);
    let blocks = source.collect_blocking(0);
    let target: Vec<(&str, &str)> = blocks[0].set.target().iter().collect();
    assert_eq!(target, [("dc", "x"), ("instance", "golden"), ("job", "node")]);
    let all = samples(&blocks[0]);
    assert_eq!(all["up"], 1.0);
    assert_eq!(all["scrape_samples_scraped"], (all.len() - 3) as f64);
}

#[test]
fn damage_in_one_file_is_named_and_costs_one_collector() {
    let damages: &[(&str, &[u8], &str)] = &[
        ("stat", b"cpu  1\ncpu0 1 x\n", "cpu"),
        ("stat", b"cpu  1\ncpu0 1 2 3 4\nintr \n", "stat"),
        ("diskstats", b"   8       0 sda 1 2 3 x 5 6 7 8 9 10 11\n", "diskstats"),
        ("diskstats", b"sda\n", "diskstats"),
        ("sys/fs/file-nr", b"1\t0\n", "filefd"),
        ("1/mountinfo", b"1 2 3\n", "filesystem"),
        ("loadavg", b"0.1 0.2\n", "loadavg"),
        ("meminfo", b"MemTotal: 1 kB\nMemFree: 99999999999999999999 kB\n", "meminfo"),
        ("net/dev", b"a\nb\n lo: 1 2 3\n", "netdev"),
        ("net/snmp", b"Tcp: InSegs OutSegs\nTcp: 1\n", "netstat"),
        ("pressure/io", b"some avg10=0.00 total=\xff\n", "pressure"),
        ("vmstat", b"pgfault\n", "vmstat"),
        ("net/sockstat", b"TCP: inuse\n", "sockstat"),
        ("net/sockstat6", b"TCP6: inuse x\n", "sockstat"),
        ("net/softnet_stat", b"0 1 2 3\n", "softnet"),
        ("net/softnet_stat", b"0 1 2 3 4 5 6 7 100000000\n", "softnet"),
        ("schedstat", b"cpu0 1 2 3 4 5 6 7 x 9\n", "schedstat"),
        ("sys/kernel/random/poolsize", b"many\n", "entropy"),
        ("sys/kernel/hung_task_detect_count", b"-1\n", "kernel_hung"),
        ("net/arp", b"1.2.3.4 eth0\n", "arp"),
        ("net/udp6", b"sl\n 1: 0:0 0:0 07 00000000 0\n", "udp_queues"),
    ];
    for &(file, content, collector) in damages {
        let tree = Tree::recorded("weird");
        let healthy = healthy(&tree);
        assert_eq!(healthy[collector], 1.0, "{collector}");
        tree.write(&format!("proc/{file}"), content);
        let all = samples(tree.source().collect_blocking(0).last().unwrap());
        for (kind, before) in healthy {
            let expected = if kind == collector { 0.0 } else { before };
            assert_eq!(success(&all, kind), expected, "{kind} with damaged {file}");
        }
        let setup_error = first_error(&tree, collector);
        assert!(setup_error.contains(file), "{setup_error}");
    }
}

/// The words with which a collector fails.
fn first_error(tree: &Tree, collector: &str) -> String {
    let settings = tree.settings();
    let system: Arc<dyn System> = Arc::new(FixedSystem::new());
    let setup = Setup::new(&settings, &system);
    let mut segment = emit::Segment::default();
    let mut out = segment.emitter(1);
    let kind = *CollectorKind::ALL.iter().find(|kind| kind.name() == collector).unwrap();
    kind.build(&setup).collect(&mut out).unwrap_err().to_string()
}

#[test]
fn a_hung_mount_is_reported_holds_up_nobody_and_comes_back() {
    let tree = Tree::recorded("weird");
    let system = FixedSystem::new();
    let settings = Settings { mount_timeout: Duration::from_millis(500), ..tree.settings() };
    let mut source = source(settings, system.clone());
    let with = |error: &str| {
        format!(
            r#"node_filesystem_device_error{{device="nfs:/a",device_error="{error}",fstype="nfs4",mountpoint="/net/a b"}}"#
        )
    };
    let all = samples(&source.collect_blocking(0)[0]);
    assert_eq!(all[&with("")], 0.0);

    let healthy = healthy(&tree);
    let release = system.hang("/net/a b");
    for at in 1..4 {
        let all = samples(source.collect_blocking(at).last().unwrap());
        assert_eq!(all[&with("mountpoint timeout")], 1.0);
        for (kind, before) in &healthy {
            assert_eq!(success(&all, kind), *before, "{kind}");
        }
        assert!(all.contains_key(
            r#"node_filesystem_size_bytes{device="/dev/sda1",device_error="",fstype="ext4",mountpoint="/"}"#
        ));
    }
    drop(release);
    eventually(|| samples(source.collect_blocking(9).last().unwrap()).get(&with("")) == Some(&0.0));
}

#[test]
fn many_mounts_that_hang_from_the_start_do_not_take_the_others_time() {
    let tree = Tree::recorded("weird");
    let mut table: Vec<_> =
        (0..6).map(|n| format!("{n} 1 0:9{n} / /dead{n} rw - nfs dead:/{n} rw")).collect();
    table.push("27 1 8:1 / / rw - ext4 /dev/sda1 rw".into());
    tree.write("proc/1/mountinfo", table.join("\n").as_bytes());
    let system = FixedSystem::new();
    let _held: Vec<_> = (0..6).map(|n| system.hang(&format!("/dead{n}"))).collect();
    let settings = Settings { mount_timeout: Duration::from_millis(500), ..tree.settings() };
    let mut source = source(settings, system);
    let hung =
        |all: &BTreeMap<String, f64>| all.keys().filter(|key| key.contains("mountpoint timeout")).count() / 2;
    let mut reported = 0;
    eventually(|| {
        let all = samples(source.collect_blocking(0).last().unwrap());
        assert_eq!(success(&all, "filesystem"), 1.0);
        let root = r#"node_filesystem_device_error{device="/dev/sda1",device_error="",fstype="ext4",mountpoint="/"}"#;
        assert_eq!(all[root], 0.0);
        assert!(hung(&all) > reported || reported == 6, "each scrape finds more of them");
        reported = hung(&all);
        reported == 6
    });
}

#[test]
fn a_collector_that_hangs_is_reported_and_the_rest_goes_out() {
    let tree = Tree::recorded("weird");
    let healthy = healthy(&tree);
    let fifo = tree.dir.path().join("proc/loadavg");
    std::fs::remove_file(&fifo).unwrap();
    // Opening a pipe that nobody writes to hangs, as a call into a sick kernel does.
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let settings = Settings { collector_timeout: Duration::from_secs(1), ..tree.settings() };
    let mut source = source(settings, FixedSystem::new());
    let status = source.status();
    let registry = pegel_runtime::metrics::Registry::new();
    status.expose(&registry);
    let of = |name: &str| {
        let all = status.json();
        all.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone()
    };
    assert_eq!(of("loadavg")["state"], "not run yet");
    for at in 7..10 {
        let all = samples(source.collect_blocking(at).last().unwrap());
        for (kind, before) in &healthy {
            let expected = if *kind == "loadavg" { 0.0 } else { *before };
            assert_eq!(success(&all, kind), expected, "{kind}");
        }
        assert!(all[r#"node_scrape_collector_duration_seconds{collector="loadavg"}"#] >= 1.0);
        let loadavg = of("loadavg");
        assert_eq!(
            (&loadavg["state"], &loadavg["hangs_since_ms"]),
            (&"hangs".into(), &7.into()),
            "{loadavg}"
        );
        assert_eq!((&of("stat")["state"], &of("stat")["at_ms"]), (&"works".into(), &at.into()));
    }
    let page = registry.render();
    assert!(page.contains("pegel_host_hung_collectors 1"), "{page}");
    assert!(page.contains(r#"pegel_host_collector_failures_total{collector="loadavg"} 3"#), "{page}");
    assert!(page.contains(r#"pegel_host_collector_failures_total{collector="stat"} 0"#), "{page}");
    // A writer comes and goes: the call returns, with an error, and the collector resumes on a sound file.
    drop(std::fs::OpenOptions::new().write(true).open(&fifo).unwrap());
    std::fs::remove_file(&fifo).unwrap();
    tree.write("proc/loadavg", b"0.1 0.2 0.3 1/2 3\n");
    eventually(|| {
        let all = samples(source.collect_blocking(9).last().unwrap());
        success(&all, "loadavg") == 1.0 && all["node_load5"] == 0.2
    });
    assert_eq!((&of("loadavg")["state"], &of("loadavg")["hangs_since_ms"]), (&"works".into(), &().into()));
    assert!(registry.render().contains("pegel_host_hung_collectors 0"));
}

#[test]
fn dead_mounts_cost_a_thread_a_device_and_only_so_many_altogether() {
    let tree = Tree::recorded("weird");
    // Two mounts of each of sixty devices, and the root's.
    let mut table: Vec<_> =
        (0..120).map(|n| format!("{n} 1 0:{} / /dead{n} rw - nfs dead:/{n} rw", 100 + n / 2)).collect();
    table.push("27 1 8:1 / / rw - ext4 /dev/sda1 rw".into());
    tree.write("proc/1/mountinfo", table.join("\n").as_bytes());
    let system = FixedSystem::new();
    let held: Vec<_> = (0..120).map(|n| system.hang(&format!("/dead{n}"))).collect();
    let mut settings = tree.settings();
    settings.collectors = vec![CollectorKind::Filesystem];
    settings.mount_timeout = Duration::from_millis(20);
    let mut source = source(settings, system.clone());
    let asked = || 120 - system.hanging.lock().len();
    let errors = |all: &BTreeMap<String, f64>, words: &str| {
        let error = format!("device_error=\"{words}\"");
        let all = all.iter().filter(|(key, value)| key.contains(&error) && **value == 1.0);
        all.filter(|(key, _)| key.starts_with("node_filesystem_device_error")).count()
    };
    let mut last = BTreeMap::new();
    eventually(|| {
        last = samples(source.collect_blocking(0).last().unwrap());
        errors(&last, "not asked: too many mounts hang") + errors(&last, "mountpoint timeout") == 120
    });
    let most = asked();
    assert!((16..60).contains(&most), "{most} calls hang");
    assert_eq!(errors(&last, "mountpoint timeout"), 2 * most, "a device's second mount is not asked");
    for at in 1..20 {
        let all = samples(source.collect_blocking(at).last().unwrap());
        let root =
            r#"node_filesystem_size_bytes{device="/dev/sda1",device_error="",fstype="ext4",mountpoint="/"}"#;
        assert_eq!(all[root], 1e9, "what is alive is asked");
        assert_eq!(asked(), most, "no call more hangs");
    }
    drop(held);
    eventually(|| errors(&samples(source.collect_blocking(99).last().unwrap()), "") == 0 && asked() == 120);
}

#[test]
fn an_interval_of_its_own_makes_blocks_of_its_own_without_markers_in_between() {
    let tree = Tree::recorded("weird");
    let mut settings = tree.settings();
    settings.intervals = [(CollectorKind::Loadavg, Duration::from_hours(1))].into();
    settings.collectors = vec![CollectorKind::Filefd, CollectorKind::Loadavg];
    let mut source = source(settings, FixedSystem::new());
    let blocks = source.collect_blocking(1000);
    let [lead, own] = blocks.as_slice() else { panic!("{} groups", blocks.len()) };
    let names = |block: &Block| {
        let names: std::collections::BTreeSet<_> =
            block.set.series().iter().map(|series| series.name().to_owned()).collect();
        names.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        names(own),
        "node_load1 node_load15 node_load5 node_scrape_collector_duration_seconds node_scrape_collector_success"
    );
    assert!(names(lead).contains("node_filefd_allocated") && names(lead).contains("up"));
    assert!(!names(lead).contains("node_load"));
    assert_eq!(own.set.target(), lead.set.target());
    assert!(samples(own).contains_key(&success_of("loadavg")));
    assert!(!samples(lead).contains_key(&success_of("loadavg")));
    let text = source.once();
    assert!(text.contains("node_load1 ") && text.contains("node_filefd_allocated "), "{text}");
}

/// Polls a condition against a deadline.
fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "it does not come true");
        std::thread::yield_now();
    }
}

#[test]
fn filters_decide_what_is_collected() {
    let tree = Tree::recorded("weird");
    let pattern = |text| Pattern::parse(text).unwrap();
    let settings = Settings {
        netdev_devices: Filter::including(pattern("^eth")),
        disk_devices: Filter::including(pattern("^sda1$")),
        fs_types: Filter::including(pattern("^nfs")),
        netstat_fields: pattern("^Tcp_MaxConn$"),
        vmstat_fields: pattern("^nr_free_pages$"),
        stat_softirq: true,
        cpu_guest: false,
        collectors: CollectorKind::ALL.iter().copied().filter(|kind| *kind != CollectorKind::Cpu).collect(),
        ..tree.settings()
    };
    let all = samples(&source(settings, FixedSystem::new()).collect_blocking(0)[0]);
    let named = |prefix: &str| all.keys().filter(|key| key.starts_with(prefix)).cloned().collect::<Vec<_>>();
    assert_eq!(named("node_netstat_"), ["node_netstat_Tcp_MaxConn"]);
    assert_eq!(named("node_vmstat_"), ["node_vmstat_nr_free_pages"]);
    assert!(named("node_network_").iter().all(|key| key.contains("\"eth")), "{:?}", named("node_network_"));
    assert_eq!(named("node_disk_io_now"), [r#"node_disk_io_now{device="sda1"}"#]);
    assert!(named("node_filesystem_size").iter().all(|key| key.contains("nfs4")));
    assert_eq!(named("node_softirqs_total").len(), 10);
    assert!(named("node_cpu_").is_empty());
}
