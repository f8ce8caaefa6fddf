//! Bodies and the blocks that they come to, without a network.

use super::*;
use crate::source::scrape::assembly::{Assembled, Assembly, Reading, Scratch};
use crate::source::scrape::exposition::Format;
use crate::source::scrape::own_labels::Rules;
use pegel_proto::metrics::MetricType;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::fmt::Write as _;

/// An assembly with its target.
struct Target {
    assembly: Assembly,
    scratch: Scratch,
    labels: Labels,
    shared: Arc<Labels>,
    track: bool,
    now_ms: i64,
}

impl Target {
    fn new() -> Self {
        let labels = Labels::new([("job", "j"), ("instance", "i")]).unwrap();
        let shared = Arc::new(labels.clone());
        Self {
            assembly: Assembly::default(),
            scratch: Scratch::default(),
            labels,
            shared,
            track: false,
            now_ms: 0,
        }
    }

    fn read(&mut self, body: &str) -> Assembled {
        self.read_as(body, Format::Text)
    }

    fn read_as(&mut self, body: &str, format: Format) -> Assembled {
        self.now_ms += 1_000;
        let reading = Reading {
            rules: Rules { target: &self.labels, honor_labels: false, limits: LabelLimits::default() },
            shared: &self.shared,
            honor_timestamps: true,
            track_timestamps_staleness: self.track,
            sample_limit: 0,
            reserved: &[],
        };
        self.assembly.read(body.as_bytes(), format, reading, self.now_ms, &mut self.scratch).unwrap()
    }
}

fn values(assembled: &Assembled) -> BTreeMap<String, String> {
    Scrape(assembled.blocks.clone()).values()
}

#[test]
fn an_unchanged_body_uses_everything_again() {
    let mut target = Target::new();
    let first = target.read("# TYPE a gauge\na{x=\"1\"} 1\na{x=\"2\"} 2\nb 3\n");
    let second = target.read("# TYPE a gauge\na{x=\"1\"} 4\na{x=\"2\"} 5\nb 6\n");
    assert!(Arc::ptr_eq(&first.blocks[0].set, &second.blocks[0].set));
    assert_eq!(*second.blocks[0].values, [4.0, 5.0, 6.0]);
    assert_eq!((first.counts.added, second.counts.added), (3, 0));
}

#[test]
fn a_series_in_between_leaves_the_order_of_the_others() {
    let mut target = Target::new();
    let first = target.read("a 1\nb 2\nc 3\n");
    let more = target.read("a 1\nnew 9\nb 2\nc 3\n");
    let names = |assembled: &Assembled| -> Vec<String> {
        assembled.blocks[0].set.series().iter().map(|s| s.name().to_owned()).collect()
    };
    assert_eq!(names(&more), ["a", "b", "c", "new"]);
    assert_eq!(*more.blocks[0].values, [1.0, 2.0, 3.0, 9.0]);
    for (old, new) in first.blocks[0].set.series().iter().zip(more.blocks[0].set.series()) {
        assert!(Arc::ptr_eq(old, new), "a known series is not made anew");
    }
    assert_eq!(more.counts.added, 1);
}

#[test]
fn metadata_that_changes_makes_series_anew_without_ending_them() {
    let mut target = Target::new();
    target.read("# TYPE a gauge\na 1\n");
    let changed = target.read("# TYPE a counter\na 1\n");
    assert_eq!(changed.blocks.len(), 1, "no staleness marker");
    assert_eq!(changed.counts.added, 0);
    assert_eq!(changed.blocks[0].set.series()[0].family().kind, MetricType::Counter);
    // A type that normalises labels makes another series of the same text.
    let histogram = target.read("# TYPE a histogram\na_bucket{le=\"1\"} 1\n");
    assert_eq!(values(&histogram)["a_bucket le=1.0"], "1");
    let untyped = target.read("# TYPE a untyped\na_bucket{le=\"1\"} 1\n");
    assert_eq!(values(&untyped)["a_bucket le=1"], "1");
    assert_eq!(values(&untyped)["a_bucket le=1.0"], "stale");
}

#[test]
fn metadata_that_grows_is_read_whole() {
    let mut target = Target::new();
    target.read("# HELP a A.\na 1\n# HELP b B.\nb 1\n");
    let grown = target.read("# HELP a A.\n# TYPE a gauge\na 1\n# HELP b B.\n\n# TYPE b counter\nb 1\n");
    for (series, kind) in grown.blocks[0].set.series().iter().zip([MetricType::Gauge, MetricType::Counter]) {
        assert_eq!((series.family().kind, series.family().help.len()), (kind, 2));
    }
    // Cut off within what was known, or followed by nothing: read as ever.
    assert_eq!(values(&target.read("# HELP a A.")).len(), 2);
    assert_eq!(target.read("# HELP a A.\n# TYPE a gauge\na 1\n").counts.scraped, 1);
}

#[test]
fn several_samples_of_a_series_are_kept_if_they_have_instants_of_their_own() {
    let mut target = Target::new();
    let read = target.read("a 1 1000\na 2 2000\nb 3\na 4 3000\n");
    let stamped: Vec<_> = read
        .blocks
        .iter()
        .filter(|block| block.stamps_ms.is_some())
        .map(|block| (block.stamp_ms(0), block.values[0]))
        .collect();
    assert_eq!(stamped, [(1_000, 1.0), (2_000, 2.0), (3_000, 4.0)]);
    assert_eq!(read.counts.duplicates, 0);
    let again = target.read("a 1 4000\na 2 5000\nb 3\na 4 6000\n");
    assert!(read.blocks.iter().zip(&again.blocks).all(|(a, b)| Arc::ptr_eq(&a.set, &b.set)));
}

#[test]
fn a_series_with_timestamps_ends_only_if_they_are_tracked() {
    for track in [false, true] {
        let mut target = Target::new();
        target.track = track;
        target.read("a 1 1000\nb 2\n");
        let gone = target.read("b 2\n");
        assert_eq!(values(&gone).get("a").map(String::as_str), track.then_some("stale"));
    }
    // One that loses its timestamp goes on; one that gets one ends at the scrape's instant, as in Prometheus.
    let mut target = Target::new();
    target.read("a 1 1000\nb 2\n");
    let swapped = target.read("a 1\nb 2 1000\n");
    let markers: Vec<_> = swapped
        .blocks
        .iter()
        .filter(|block| is_stale_marker(block.values[0]))
        .map(|b| b.set.clone())
        .collect();
    assert_eq!(markers.len(), 1);
    assert_eq!(markers[0].series()[0].name(), "b");
}

#[test]
fn the_same_body_in_the_other_format_goes_on() {
    let mut target = Target::new();
    target.read("a{x=\"1\"} 1\n");
    let other = target.read_as("a{x=\"1\"} 2\n# EOF\n", Format::OpenMetrics);
    assert_eq!(values(&other), BTreeMap::from([("a x=1".into(), "2".into())]));
}

/// Any sequence of scrapes: the values are those of the body, and exactly the series that vanished get markers.
#[test]
fn random_scrapes_say_what_their_bodies_say() {
    let seed: u64 =
        std::env::var("PEGEL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    for _ in 0..50 {
        let mut target = Target::new();
        let mut alive: BTreeMap<String, String> = BTreeMap::new();
        let mut series: Vec<u32> = Vec::new();
        for _ in 0..40 {
            match random.random_range(0..5) {
                0 => series.retain(|_| random.random_bool(0.8)),
                1 => series.shuffle(&mut random),
                2 => {
                    let at = random.random_range(0..=series.len());
                    series.insert(at, random.random_range(0..30));
                }
                _ => {}
            }
            let mut body = String::new();
            let mut expected = BTreeMap::new();
            for one in &series {
                if random.random_bool(0.02) {
                    let _ =
                        writeln!(body, "# TYPE s{one} {}", ["gauge", "counter"][random.random_range(0..2)]);
                }
                let value = random.random_range(0..1_000);
                let _ = writeln!(body, "s{}{{n=\"{one}\"}} {value}", one % 3);
                // Of a series that is there twice the first value counts.
                expected.entry(format!("s{} n={one}", one % 3)).or_insert_with(|| value.to_string());
            }
            for gone in alive.keys().filter(|gone| !expected.contains_key(*gone)).cloned().collect::<Vec<_>>()
            {
                expected.insert(gone, "stale".into());
            }
            let read = target.read(&body);
            assert_eq!(values(&read), expected, "PEGEL_SEED={seed}: {body}");
            assert!(read.blocks.iter().all(|block| block.at_ms == target.now_ms));
            alive = expected.into_iter().filter(|(_, value)| value != "stale").collect();
        }
    }
}
