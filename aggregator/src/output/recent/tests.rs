//! Tests of `recent` as a whole, and the fixture that the status' tests share.

use super::*;
use crate::session::ResolvedSet;
use pegel_proto::batch::AgentEpoch;
use pegel_proto::identity::{NodeId, TenantId};
use pegel_proto::metrics::{Family, MetricType, NAME_LABEL, stale_marker};
use std::sync::atomic::AtomicI64;

/// `recent` on a clock of the test's.
pub(crate) struct Bed {
    pub(crate) recent: Arc<Recent>,
    pub(crate) symbols: Arc<Symbols>,
    pub(crate) registry: Registry,
    pub(crate) now_ms: Arc<AtomicI64>,
}

/// When the tests begin.
pub(crate) const START_MS: i64 = 1_700_000_000_000 / STEP_MS * STEP_MS;

impl Bed {
    pub(crate) fn new(settings: Settings) -> Self {
        let (symbols, registry) = (Arc::new(Symbols::new()), Registry::new());
        let now_ms = Arc::new(AtomicI64::new(START_MS));
        let clock = now_ms.clone();
        let clock: WallClock = Box::new(move || clock.load(Ordering::Relaxed));
        let recent = Recent::with_clock(settings, symbols.clone(), &registry, clock);
        Self { recent, symbols, registry, now_ms }
    }

    /// A set of series, each `name a=b c=d`.
    pub(crate) fn set(&self, series: &[&str]) -> Arc<ResolvedSet> {
        let series = series.iter().map(|text| {
            let mut words = text.split(' ');
            let name = words.next().unwrap();
            let mut labels = vec![(NAME_LABEL, name)];
            labels.extend(words.map(|pair| pair.split_once('=').unwrap()));
            labels.sort_unstable();
            let kind = if name.ends_with("_total") { MetricType::Counter } else { MetricType::Gauge };
            let family = Arc::new(Family { name: name.into(), kind, ..Family::default() });
            Arc::new(ResolvedSeries::new(&self.symbols, &labels, family))
        });
        Arc::new(ResolvedSet::new(series.collect::<Vec<_>>(), 0))
    }

    pub(crate) fn observe(&self, node: &str, seq: u64, at_ms: i64, set: &Arc<ResolvedSet>, values: &[f64]) {
        self.recent.observe(&agent(node, 1), BatchSeq(seq), &[block(at_ms, set, values)]);
    }

    fn shown(&self, node: &str) -> Vec<(String, f64)> {
        let mut shown = Vec::new();
        self.recent.visit(Some(&identity(node)), &[], &mut |series, value, _| {
            let mut text = String::new();
            for (_, value) in &series.labels {
                self.symbols.with_text(*value, &mut |value| text.push_str(value));
            }
            shown.push((text, value));
        });
        shown.sort_by(|a, b| a.0.cmp(&b.0));
        shown
    }
}

pub(crate) fn identity(node: &str) -> AgentIdentity {
    AgentIdentity { tenant: TenantId::parse("acme").unwrap(), node: NodeId::parse(node).unwrap() }
}

fn agent(node: &str, epoch: u64) -> AgentInfo {
    AgentInfo {
        identity: identity(node),
        epoch: AgentEpoch(epoch),
        session: 1,
        version: "0.1.0".into(),
        hostname: node.into(),
        peer: "127.0.0.1:9".parse().unwrap(),
    }
}

fn block(at_ms: i64, set: &Arc<ResolvedSet>, values: &[f64]) -> ResolvedBlock {
    ResolvedBlock { at_ms, set: set.clone(), values: values.into(), stamps_ms: None }
}

fn pairs(shown: &[(&str, f64)]) -> Vec<(String, f64)> {
    shown.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[test]
fn the_newest_batch_wins_whatever_order_they_come_in() {
    let bed = Bed::new(Settings::default());
    let set = bed.set(&["a", "b"]);
    bed.observe("n", 2, START_MS + 2, &set, &[2.0, 20.0]);
    bed.observe("n", 1, START_MS + 1, &set, &[1.0, 10.0]);
    assert_eq!(bed.shown("n"), pairs(&[("a", 2.0), ("b", 20.0)]));
    // The agent's clock was set back: the batch is the newer one all the same.
    bed.observe("n", 3, START_MS - 9_000_000, &set, &[3.0, 30.0]);
    assert_eq!(bed.shown("n"), pairs(&[("a", 3.0), ("b", 30.0)]));
    bed.observe("n", 3, START_MS + 3, &set, &[9.0, 90.0]);
    assert_eq!(bed.shown("n"), pairs(&[("a", 3.0), ("b", 30.0)]), "a repeat of batch 3 changes nothing");
}

#[test]
fn a_new_epoch_replaces_what_the_old_one_said() {
    let bed = Bed::new(Settings::default());
    let set = bed.set(&["a"]);
    bed.observe("n", 500, START_MS, &set, &[5.0]);
    bed.recent.observe(&agent("n", 2), BatchSeq(1), &[block(START_MS, &bed.set(&["a"]), &[6.0])]);
    assert_eq!(bed.shown("n"), pairs(&[("a", 6.0)]));
}

#[test]
fn the_streams_of_two_outputs_describe_the_same_set_and_it_is_kept_once() {
    let bed = Bed::new(Settings::default());
    let (one, other) = (bed.set(&["a", "b"]), bed.set(&["a", "b"]));
    for seq in 1..10 {
        let set = if seq % 2 == 0 { &one } else { &other };
        bed.observe("n", seq, START_MS + seq as i64, set, &[seq as f64, 0.0]);
    }
    assert_eq!(bed.shown("n"), pairs(&[("a", 9.0), ("b", 0.0)]));
    assert_eq!(bed.recent.series_count(&identity("n")), 2);
}

#[test]
fn staleness_markers_end_series() {
    let bed = Bed::new(Settings::default());
    let whole = bed.set(&["a", "b", "c"]);
    bed.observe("n", 1, START_MS, &whole, &[1.0, 2.0, 3.0]);
    // The shape changes: `a b` go on in a set of their own, `c` ends in another.
    let (rest, gone) = (bed.set(&["a", "b"]), bed.set(&["c"]));
    bed.recent.observe(
        &agent("n", 1),
        BatchSeq(2),
        &[block(START_MS + 1, &rest, &[1.5, 2.5]), block(START_MS + 1, &gone, &[stale_marker()])],
    );
    assert_eq!(bed.shown("n"), pairs(&[("a", 1.5), ("b", 2.5)]));
    assert_eq!(bed.recent.series_count(&identity("n")), 2);
    bed.observe("n", 3, START_MS + 2, &rest, &[stale_marker(), stale_marker()]);
    assert_eq!(bed.shown("n"), []);
    assert_eq!(bed.recent.series_count(&identity("n")), 0);
}

#[test]
fn a_set_that_comes_back_takes_its_series_from_the_one_between() {
    let bed = Bed::new(Settings::default());
    let (first, second) = (bed.set(&["a", "b"]), bed.set(&["b", "c"]));
    bed.observe("n", 1, START_MS, &first, &[1.0, 1.0]);
    bed.observe("n", 2, START_MS + 1, &second, &[2.0, 2.0]);
    assert_eq!(bed.shown("n"), pairs(&[("a", 1.0), ("b", 2.0), ("c", 2.0)]));
    bed.observe("n", 3, START_MS + 2, &first, &[3.0, 3.0]);
    assert_eq!(bed.shown("n"), pairs(&[("a", 3.0), ("b", 3.0), ("c", 2.0)]));
}

#[test]
fn a_backlog_s_older_shape_does_not_overwrite_what_is_newer() {
    let bed = Bed::new(Settings::default());
    bed.observe("n", 9, START_MS + 9, &bed.set(&["a", "b"]), &[9.0, 9.0]);
    bed.observe("n", 3, START_MS + 3, &bed.set(&["b", "c"]), &[3.0, 3.0]);
    assert_eq!(bed.shown("n"), pairs(&[("a", 9.0), ("b", 9.0), ("c", 3.0)]));
}

#[test]
fn what_exceeds_the_bounds_is_counted_and_not_shown() {
    let settings = Settings { max_series_per_node: 3, max_series: 4, max_nodes: 3, ..Settings::default() };
    let bed = Bed::new(settings);
    bed.observe("n1", 1, START_MS, &bed.set(&["a", "b"]), &[1.0, 1.0]);
    bed.observe("n1", 2, START_MS, &bed.set(&["c", "d"]), &[1.0, 1.0]);
    bed.observe("n2", 1, START_MS, &bed.set(&["a", "b", "c"]), &[1.0; 3]);
    bed.observe("n3", 1, START_MS, &bed.set(&["a", "b"]), &[1.0, 1.0]);
    bed.observe("n4", 1, START_MS, &bed.set(&["a"]), &[1.0]);
    let counts = ["n1", "n2", "n3", "n4"].map(|node| bed.recent.series_count(&identity(node)));
    assert_eq!(counts, [2, 0, 2, 0]);
    let metrics = bed.registry.render();
    assert!(metrics.contains("pegel_recent_unkept_series_total 5"), "{metrics}");
    assert!(metrics.contains("pegel_recent_unkept_batches_total 1"), "{metrics}");
    assert!(metrics.contains("pegel_recent_series 4"), "{metrics}");
}

#[test]
fn silent_nodes_are_forgotten_and_their_room_is_free_again() {
    let bed = Bed::new(Settings::default());
    let set = bed.set(&["a"]);
    bed.observe("old", 1, START_MS, &set, &[1.0]);
    bed.now_ms.fetch_add(3_600_001, Ordering::Relaxed);
    bed.observe("new", 1, START_MS + 3_600_001, &set, &[1.0]);
    bed.recent.sweep();
    assert!(bed.recent.live(&identity("old")).is_none());
    assert_eq!(bed.shown("new"), pairs(&[("a", 1.0)]));
    assert!(bed.registry.render().contains("pegel_recent_series 1"));
}

/// The series of a small machine.
pub(crate) const HOST: [&str; 16] = [
    "node_cpu_seconds_total cpu=0 mode=idle job=node instance=n",
    "node_cpu_seconds_total cpu=0 mode=user job=node instance=n",
    "node_cpu_seconds_total cpu=0 mode=iowait job=node instance=n",
    "node_memory_MemTotal_bytes job=node instance=n",
    "node_memory_MemAvailable_bytes job=node instance=n",
    "node_disk_read_bytes_total device=sda job=node instance=n",
    "node_disk_read_bytes_total device=dm-0 job=node instance=n",
    "node_disk_written_bytes_total device=sda job=node instance=n",
    "node_network_receive_bytes_total device=eth0 job=node instance=n",
    "node_network_receive_bytes_total device=lo job=node instance=n",
    "node_network_transmit_bytes_total device=eth0 job=node instance=n",
    "node_load1 job=node instance=n",
    "node_filesystem_size_bytes device=/dev/sda1 mountpoint=/ fstype=ext4 job=node instance=n",
    "node_filesystem_avail_bytes device=/dev/sda1 mountpoint=/ fstype=ext4 job=node instance=n",
    "node_filesystem_size_bytes device=tmpfs mountpoint=/run fstype=tmpfs job=node instance=n",
    "node_filesystem_avail_bytes device=tmpfs mountpoint=/run fstype=tmpfs job=node instance=n",
];

/// Their values after a number of steps of 15 s: 20 % CPU, 75 % memory, 1 KiB/s everywhere.
pub(crate) fn host_values(step: i64) -> [f64; 16] {
    let n = step as f64;
    let bytes = n * 15.0 * 1024.0;
    [
        11.0 * n,
        3.0 * n,
        n,
        8e9,
        2e9,
        bytes,
        7.0 * bytes,
        2.0 * bytes,
        3.0 * bytes,
        9.0 * bytes,
        4.0 * bytes,
        0.5,
        100.0,
        40.0,
        10.0,
        1.0,
    ]
}

fn track(view: &HistoryView, track: Track) -> Vec<f32> {
    let found = view.tracks.iter().find(|one| one.name == track.name()).unwrap();
    found.values.iter().flatten().map(|v| (v * 1000.0).round() / 1000.0).collect()
}

#[test]
fn main_series_become_rates_and_shares() {
    let bed = Bed::new(Settings::default());
    let set = bed.set(&HOST);
    for step in 0..3 {
        bed.observe("n", step as u64 + 1, START_MS + step * STEP_MS, &set, &host_values(step));
    }
    bed.now_ms.fetch_add(2 * STEP_MS, Ordering::Relaxed);
    let view = bed.recent.history(&identity("n")).unwrap();
    assert_eq!(track(&view, Track::CpuBusy), [0.2, 0.2], "no rate before the second sample");
    assert_eq!(track(&view, Track::MemoryUsed), [0.75; 3]);
    assert_eq!(track(&view, Track::DiskRead), [1024.0; 2], "device mapper repeats its disk");
    assert_eq!(track(&view, Track::DiskWritten), [2048.0; 2]);
    assert_eq!(track(&view, Track::NetworkReceived), [3072.0; 2], "loopback does not count");
    assert_eq!(track(&view, Track::NetworkSent), [4096.0; 2]);
    assert_eq!(track(&view, Track::FilesystemUsed), [0.6; 3], "memory file systems do not count");
    let live = bed.recent.live(&identity("n")).unwrap();
    assert_eq!(live.at_ms, START_MS + 2 * STEP_MS);
    assert!((live.point[Track::CpuBusy as usize] - 0.2).abs() < 1e-6);
    let machine = bed.recent.machine(&identity("n")).unwrap();
    assert_eq!((machine.cpus, machine.memory_total_bytes), (Some(1), Some(8e9)));
    assert_eq!(machine.filesystems.len(), 1);
}

#[test]
fn a_backlog_fills_history_behind_what_is_live() {
    let bed = Bed::new(Settings::default());
    let (fresh, backlog) = (bed.set(&HOST), bed.set(&HOST));
    for step in [8, 9, 2, 3, 4] {
        let set = if step > 7 { &fresh } else { &backlog };
        bed.observe("n", step as u64, START_MS + step * STEP_MS, set, &host_values(step));
    }
    bed.now_ms.fetch_add(9 * STEP_MS, Ordering::Relaxed);
    let view = bed.recent.history(&identity("n")).unwrap();
    assert_eq!(track(&view, Track::CpuBusy), [0.2; 3], "9 after 8, 3 after 2, 4 after 3");
    assert_eq!(bed.recent.live(&identity("n")).unwrap().at_ms, START_MS + 9 * STEP_MS);
}

#[test]
fn another_machine_s_exporter_that_this_node_scrapes_does_not_mix_in() {
    let bed = Bed::new(Settings::default());
    let own = bed.set(&HOST);
    let other =
        bed.set(&HOST.map(|s| s.replace("instance=n", "instance=other")).each_ref().map(String::as_str));
    bed.observe("n", 1, START_MS, &own, &host_values(1));
    let mut values = host_values(1);
    values[11] = 99.0;
    bed.observe("n", 2, START_MS, &other, &values);
    let load = Track::Load1 as usize;
    assert!((bed.recent.live(&identity("n")).unwrap().point[load] - 0.5).abs() < 1e-6);
}

#[test]
fn a_counter_reset_says_nothing_for_one_step() {
    let bed = Bed::new(Settings::default());
    let set = bed.set(&HOST);
    for (i, step) in [5, 6, 0, 1].into_iter().enumerate() {
        bed.observe("n", i as u64 + 1, START_MS + i as i64 * STEP_MS, &set, &host_values(step));
    }
    bed.now_ms.fetch_add(3 * STEP_MS, Ordering::Relaxed);
    let view = bed.recent.history(&identity("n")).unwrap();
    assert_eq!(track(&view, Track::CpuBusy), [0.2, 0.2]);
}

#[test]
fn a_clock_that_is_hours_ahead_does_not_push_true_values_out() {
    let bed = Bed::new(Settings::default());
    let set = bed.set(&["node_load1"]);
    bed.observe("n", 1, START_MS, &set, &[1.0]);
    bed.observe("n", 2, START_MS + 6 * 3_600_000, &set, &[2.0]);
    let view = bed.recent.history(&identity("n")).unwrap();
    assert_eq!(track(&view, Track::Load1), [1.0]);
}

#[test]
fn as_an_output_it_settles_each_batch_with_all_its_samples() {
    let bed = Bed::new(Settings::default());
    let (sender, mut verdicts) = tokio::sync::mpsc::unbounded_channel();
    bed.recent.submit(Delivery {
        agent: Arc::new(agent("n", 1)),
        seq: BatchSeq(4),
        sent_before: false,
        payload: crate::fanout::Payload::Metrics(vec![block(
            START_MS,
            &bed.set(&["a", "b"]),
            &[1.0, stale_marker()],
        )]),
        reply: crate::fanout::Reply(sender),
    });
    let outcome = Outcome { delivered: 2, ..Outcome::default() };
    assert_eq!(verdicts.try_recv(), Ok(Verdict::Settled(BatchSeq(4), outcome)));
    assert_eq!(bed.shown("n"), pairs(&[("a", 1.0)]));
}

#[test]
fn selectors_take_what_promql_would() {
    let bed = Bed::new(Settings::default());
    let set = bed.set(&["up job=a", "up job=b", "load job=a zone=x"]);
    let takes = |text: &str| -> String {
        let selectors = [Selector::parse(text).unwrap_or_else(|e| panic!("{e}"))];
        let mut matching = Matching::new(&selectors, &*bed.symbols);
        set.series.iter().map(|series| if matching.takes(series) { '1' } else { '0' }).collect()
    };
    assert_eq!(takes("up"), "110");
    assert_eq!(takes(r#"up{job="a"}"#), "100");
    assert_eq!(takes(r#"{job="a"}"#), "101");
    assert_eq!(takes(r#"{__name__=~"up|lo.*", job!="a",}"#), "010");
    assert_eq!(takes(r#"{job=~"a|b", zone=""}"#), "110", "a missing label is empty");
    assert_eq!(takes(r#"{job=~".+", zone!~"x"}"#), "110");
    assert_eq!(takes(r#"{job=~"a", job!~"b"}"#), "101");
    assert_eq!(takes(r#"{__name__=~"p"}"#), "000", "regular expressions are anchored");
    assert_eq!(takes(r#"{"up", job='b'}"#), "010");
}

#[test]
fn a_bad_selector_is_told_with_its_place() {
    for (text, reason) in [
        ("", "everything"),
        (r#"{a=~".*"}"#, "everything"),
        (r#"up{job="a""#, "expected `,` or `}`"),
        (r#"up{job="a}"#, "not closed"),
        (r"up{job=a}", "quoted string"),
        (r#"up{job>"a"}"#, "one of ="),
        (r#"up{job=~"("}"#, "bad regular expression"),
        (r#"{a=~"(((a{900}){900}){900})"}"#, "bad regular expression"),
        ("up extra", "expected the end"),
        ("{é=\"x\"}", "label name"),
    ] {
        let error = Selector::parse(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}
