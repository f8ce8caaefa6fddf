//! Seeded simulations: every order of events, with the books balanced after each.

use super::*;
use pegel_proto::batch::RejectReason;
use pegel_proto::metrics::{Labels, NAME_LABEL, Series, SeriesSet};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;

mod rereading;

fn blocks(at_ms: i64, samples: usize) -> Content {
    let series: Vec<_> = (0..samples)
        .map(|i| {
            let labels = Labels::new([(NAME_LABEL, "x"), ("i", &i.to_string())]).unwrap();
            Arc::new(Series::new(labels, Arc::default()))
        })
        .collect();
    Content::Metrics(vec![Block::new(
        at_ms,
        Arc::new(SeriesSet::new(Arc::default(), series)),
        vec![1.0; samples],
    )])
}

fn output(name: &str) -> OutputName {
    OutputName::parse(name).unwrap()
}

/// What one backend got, and what it was told about it.
#[derive(Default)]
struct Backend {
    received: Vec<(BatchSeq, bool)>,
    settled: BTreeSet<BatchSeq>,
    unacked: VecDeque<Arc<Batch>>,
}

struct World {
    rng: StdRng,
    seed: u64,
    now_ms: u64,
    core: Core,
    disk: BTreeMap<BatchSeq, Arc<Batch>>,
    quota_batches: usize,
    newest_on_disk: Option<BatchSeq>,
    backends: BTreeMap<OutputName, Backend>,
    link: bool,
    storing: Option<Vec<Arc<Batch>>>,
    loading: Vec<(OutputName, BatchSeq, BatchSeq)>,
    remembered: Memory,
    ever_dropped: bool,
    /// After a kill, what may have been sent is known by reservation only.
    killed: bool,
    /// What each number stood for when it was sent first.
    contents: BTreeMap<BatchSeq, Arc<Batch>>,
    /// All samples that were ever handed over.
    collected: u64,
}

const WINDOW: usize = 600;
/// Batches that the simulated uplink takes for an output.
const UPLINK_WINDOW: usize = 3;

impl World {
    fn new(seed: u64, quota_batches: usize) -> Self {
        let settings = Settings { front_bytes: 2_000, ..Settings::default() };
        let mut core = Core::new(settings, Memory::default(), None, |_| 0);
        Self {
            rng: StdRng::seed_from_u64(seed),
            seed,
            now_ms: 0,
            remembered: core.memory(),
            core,
            disk: BTreeMap::new(),
            quota_batches,
            newest_on_disk: None,
            backends: ["a", "b"].map(|n| (output(n), Backend::default())).into(),
            link: false,
            storing: None,
            loading: Vec::new(),
            ever_dropped: false,
            killed: false,
            contents: BTreeMap::new(),
            collected: 0,
        }
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        let mut bounced: BTreeSet<OutputName> = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Send { output, .. } if bounced.contains(&output) => {}
                Effect::Send { output, batch, .. }
                    if self.backends[&output].unacked.len() >= UPLINK_WINDOW =>
                {
                    self.core.bounced(&output, batch.seq);
                    bounced.insert(output);
                }
                Effect::Send { output, batch, sent_before } => {
                    assert!(self.link, "seed {}: nothing is sent without a link", self.seed);
                    let backend = self.backends.get_mut(&output).unwrap();
                    let known = backend.received.iter().any(|(seq, _)| *seq == batch.seq);
                    assert!(
                        !known || sent_before,
                        "seed {}: batch {} is marked as re-sent",
                        self.seed,
                        batch.seq
                    );
                    let content = self.contents.entry(batch.seq).or_insert_with(|| batch.clone());
                    assert_eq!(**content, *batch, "seed {}: number {} is used once", self.seed, batch.seq);
                    backend.received.push((batch.seq, sent_before));
                    backend.unacked.push_back(batch);
                }
                Effect::Store(batches) => {
                    assert!(self.storing.is_none(), "seed {}: one store at a time", self.seed);
                    self.storing = Some(batches);
                }
                Effect::Load { output, from, up_to } => self.loading.push((output, from, up_to)),
                Effect::Trim(up_to) => self.disk.retain(|seq, _| *seq > up_to),
                Effect::Reject { .. } | Effect::Safe(_) => {}
                Effect::Remember => self.remembered = self.core.memory(),
            }
        }
        for books in self.core.books() {
            assert!(books.books.balanced(), "seed {}: {books:?}", self.seed);
        }
    }

    /// As the spool does: what it has already is not stored twice.
    fn write(&mut self, batches: Vec<Arc<Batch>>) {
        for batch in batches {
            if self.newest_on_disk.is_none_or(|newest| batch.seq > newest) {
                self.newest_on_disk = Some(batch.seq);
                self.disk.insert(batch.seq, batch);
            }
        }
    }

    fn answer_store(&mut self, works: bool) {
        let Some(batches) = self.storing.take() else { return };
        let mut effects = Vec::new();
        let result = if works {
            let up_to = batches.last().map(|b| b.seq);
            self.write(batches);
            let mut lost = Vec::new();
            while self.disk.len() > self.quota_batches {
                lost.extend(self.disk.pop_first().map(|(seq, batch)| (seq, batch.records())));
                self.ever_dropped = true;
            }
            let losses = vec![SpoolLoss { batches: lost, reason: DropReason::QuotaOldest }];
            Stored { up_to, failed: None, losses }
        } else {
            if self.rng.random_bool(0.3) {
                // The answer came too late: what was asked for has happened all the same.
                self.write(batches);
            }
            Stored { failed: Some(StoreFailure::Disk), ..Stored::default() }
        };
        self.core.stored(self.now_ms, &result, &mut effects);
        self.apply(effects);
    }

    fn answer_loads(&mut self) {
        for (output, from, up_to) in std::mem::take(&mut self.loading) {
            let batches = self.disk.range(from..).take(3).map(|(_, b)| b.clone()).collect();
            let mut effects = Vec::new();
            self.core.loaded(self.now_ms, &output, up_to, batches, &mut effects);
            self.apply(effects);
        }
    }

    fn ack(&mut self, name: &OutputName, at_most: usize) {
        let backend = self.backends.get_mut(name).unwrap();
        let mut ack = Acked { up_to: None, held_already: 0, rejections: Vec::new(), parked: None };
        for _ in 0..at_most.min(backend.unacked.len()) {
            let batch = backend.unacked.pop_front().unwrap();
            ack.up_to = Some(batch.seq);
            if !backend.settled.insert(batch.seq) {
                ack.held_already += batch.records();
            } else if batch.seq.0.is_multiple_of(7) {
                let message = "too old sample".to_owned();
                let reason = RejectReason::TooOld;
                ack.rejections.push(Rejection { seq: batch.seq, reason, message, records: vec![(0, 1)] });
            }
        }
        let mut effects = Vec::new();
        self.core.acked(self.now_ms, name, &ack, &mut effects);
        self.apply(effects);
    }

    fn link_up(&mut self) {
        let names: Vec<_> = self.backends.keys().cloned().collect();
        self.link = true;
        let mut effects = Vec::new();
        self.core.link_up(self.now_ms, &names, WINDOW, &mut effects);
        self.apply(effects);
    }

    fn link_down(&mut self) {
        self.link = false;
        self.core.link_down();
        for backend in self.backends.values_mut() {
            // The backend may have taken some of it without anybody hearing of it.
            let taken = self.rng.random_range(0..=backend.unacked.len());
            backend.settled.extend(backend.unacked.drain(..).take(taken).map(|b| b.seq));
        }
    }

    fn reset_stream(&mut self) {
        let name = output("a");
        let backend = self.backends.get_mut(&name).unwrap();
        let taken = self.rng.random_range(0..=backend.unacked.len());
        backend.settled.extend(backend.unacked.drain(..).take(taken).map(|b| b.seq));
        let mut effects = Vec::new();
        self.core.stream_reset(self.now_ms, &name, &mut effects);
        self.apply(effects);
    }

    fn collect(&mut self) {
        let samples = self.rng.random_range(1..12);
        self.collected += samples as u64;
        let mut effects = Vec::new();
        self.core.collected(self.now_ms, blocks(self.now_ms as i64, samples), &mut effects);
        self.apply(effects);
    }

    fn tick(&mut self) {
        let mut effects = Vec::new();
        self.core.tick(self.now_ms, &mut effects);
        self.apply(effects);
    }

    fn kill(&mut self) {
        self.link_down();
        self.killed = true;
        self.storing = None;
        self.loading.clear();
        let disk = self.disk.clone();
        let above = move |seq: BatchSeq| disk.range(seq.next()..).map(|(_, b)| b.records()).sum();
        let last = self.disk.last_key_value().map(|(seq, _)| *seq);
        let settings = Settings { front_bytes: 2_000, ..Settings::default() };
        self.core = Core::new(settings, self.remembered.clone(), last, above);
        self.remembered = self.core.memory();
        self.apply(Vec::new());
    }

    fn step(&mut self, disk_works: bool, kills: bool) {
        self.now_ms += self.rng.random_range(0..400);
        match self.rng.random_range(0..if kills { 41 } else { 40 }) {
            0..=11 => self.collect(),
            12..=16 => {
                let works = disk_works || self.rng.random_bool(0.3);
                self.answer_store(works);
            }
            17..=20 => self.answer_loads(),
            21..=23 if !self.link => self.link_up(),
            24 if self.link => self.link_down(),
            36 if self.link => self.reset_stream(),
            25..=34 => {
                let name = output(if self.rng.random_bool(0.7) { "a" } else { "b" });
                let n = self.rng.random_range(0..4);
                if self.link {
                    self.ack(&name, n);
                }
            }
            35 => self.remembered = self.core.memory(),
            40 => self.kill(),
            _ => self.tick(),
        }
    }

    fn drain(&mut self) {
        if !self.link {
            self.link_up();
        }
        for _ in 0..20_000 {
            if self.core.all_settled() && self.core.front_is_safe() && self.disk.is_empty() {
                return;
            }
            self.now_ms += 100;
            self.answer_store(true);
            self.answer_loads();
            for name in ["a", "b"] {
                self.ack(&output(name), 10);
            }
            self.tick();
        }
        panic!("seed {}: does not drain: {:#?}", self.seed, self.core.books());
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("PEGEL_SEED") {
        Ok(seed) => vec![seed.parse().expect("PEGEL_SEED is a number")],
        Err(_) => (0..300).collect(),
    }
}

#[test]
fn with_a_working_disk_every_batch_arrives_in_order_whatever_the_links_do() {
    for seed in seeds() {
        let mut world = World::new(seed, usize::MAX);
        for _ in 0..400 {
            world.step(true, false);
        }
        world.drain();
        for (name, backend) in &world.backends {
            let last = world.core.next_seq.0 - 1;
            let all: BTreeSet<_> = (1..=last).map(BatchSeq).collect();
            assert_eq!(backend.settled, all, "seed {seed}: output {name} has every batch");
            let firsts: Vec<_> =
                backend.received.iter().filter(|(_, again)| !again).map(|(s, _)| *s).collect();
            assert!(firsts.is_sorted(), "seed {seed}: output {name} gets first sends in order");
        }
        for books in world.core.books() {
            assert!(books.books.dropped.is_empty(), "seed {seed}: {books:?}");
        }
    }
}

#[test]
fn a_small_quota_and_a_failing_disk_lose_only_what_is_counted() {
    let mut dropping_worlds = 0;
    for seed in seeds() {
        let mut world = World::new(seed, 12);
        for _ in 0..400 {
            world.step(false, false);
        }
        world.drain();
        dropping_worlds += usize::from(world.ever_dropped);
        for books in world.core.books() {
            assert_eq!(books.books.in_front + books.books.spooled, 0, "seed {seed}: {books:?}");
        }
    }
    assert!(dropping_worlds > 0 || std::env::var("PEGEL_SEED").is_ok(), "the quota was met in some world");
}

#[test]
fn after_kills_no_number_is_used_twice_and_what_the_disk_held_arrives() {
    for seed in seeds() {
        let mut world = World::new(seed, usize::MAX);
        for _ in 0..600 {
            world.step(true, true);
        }
        let on_disk: Vec<BatchSeq> = world.disk.keys().copied().collect();
        world.kill();
        world.drain();
        for (name, backend) in &world.backends {
            let missing: Vec<_> = on_disk.iter().filter(|seq| !backend.settled.contains(seq)).collect();
            assert!(missing.is_empty(), "seed {seed}: output {name} lacks {missing:?}");
            let arrived: u64 = backend.settled.iter().map(|seq| world.contents[seq].records()).sum();
            let books = world.core.books().into_iter().find(|b| b.output.as_ref() == Some(name)).unwrap();
            let (lost, told) = (world.collected - arrived, books.books.lost_in_crash);
            assert!(lost <= told, "seed {seed}: output {name} lacks {lost} samples and says at most {told}");
        }
    }
}

#[test]
fn in_steady_state_nothing_is_written() {
    let mut world = World::new(1, usize::MAX);
    world.link_up();
    for _ in 0..1_000 {
        world.now_ms += 200;
        world.collect();
        for name in ["a", "b"] {
            world.ack(&output(name), 10);
        }
        world.tick();
        assert!(world.storing.is_none() && world.disk.is_empty());
    }
    assert!(world.core.front_is_safe());
}

#[test]
fn a_dead_output_holds_back_only_itself() {
    let mut world = World::new(2, usize::MAX);
    world.link_up();
    for _ in 0..500 {
        world.now_ms += 200;
        world.collect();
        world.ack(&output("a"), 10);
        world.answer_store(true);
        world.answer_loads();
        world.tick();
    }
    let books: BTreeMap<_, _> =
        world.core.books().into_iter().map(|b| (b.output.clone().unwrap(), b.books)).collect();
    assert_eq!(books[&output("a")].in_front + books[&output("a")].spooled, 0);
    assert!(books[&output("b")].delivered == 0 && books[&output("b")].spooled > 0);
    world.drain();
}

#[test]
fn an_output_that_is_announced_no_longer_is_retired_after_its_time() {
    let mut core = Core::new(Settings::default(), Memory::default(), None, |_| 0);
    let mut effects = Vec::new();
    core.link_up(0, &[output("a"), output("b")], WINDOW, &mut effects);
    core.collected(5, blocks(5, 3), &mut effects);
    core.link_down();
    core.link_up(10, &[output("a")], WINDOW, &mut effects);
    core.tick(24 * 3_600_000, &mut effects);
    assert!(core.books().iter().all(|b| b.parked.is_none()), "its day is not over");
    core.tick(24 * 3_600_000 + 10, &mut effects);
    let books: BTreeMap<_, _> = core.books().into_iter().map(|b| (b.output.unwrap(), b.books)).collect();
    assert_eq!(
        books[&output("b")].dropped.get(&DropReason::OutputRetired),
        Some(&3),
        "what it had not is counted"
    );
    assert!(books.values().all(Books::balanced));
}

#[test]
fn the_time_of_an_absent_output_runs_on_while_links_come_and_go() {
    let mut core = Core::new(Settings::default(), Memory::default(), None, |_| 0);
    let mut effects = Vec::new();
    core.link_up(0, &[output("a"), output("b")], WINDOW, &mut effects);
    core.collected(5, blocks(5, 3), &mut effects);
    for hour in 0..26 {
        core.link_down();
        core.tick(hour * 3_600_000, &mut effects);
        core.link_up(hour * 3_600_000 + 10, &[output("a")], WINDOW, &mut effects);
    }
    core.tick(25 * 3_600_000 + 20, &mut effects);
    let retired = core.books().into_iter().find(|b| b.output == Some(output("b"))).unwrap();
    assert_eq!(retired.books.dropped.get(&DropReason::OutputRetired), Some(&3));
}

#[test]
fn the_first_backend_is_owed_what_the_memory_before_it_had_not_taken() {
    let mut core = Core::new(Settings::default(), Memory::default(), None, |_| 0);
    let (recent, loki) = (output(OutputName::RECENT), output("loki"));
    let mut effects = Vec::new();
    core.link_up(0, std::slice::from_ref(&recent), WINDOW, &mut effects);
    core.collected(5, blocks(5, 3), &mut effects);
    core.acked(6, &recent, &Acked { up_to: Some(BatchSeq(1)), ..Acked::default() }, &mut effects);
    // One is in flight when the aggregator restarts, one comes while it is away.
    core.collected(7, blocks(7, 4), &mut effects);
    core.link_down();
    core.collected(8, blocks(8, 5), &mut effects);
    effects.clear();
    core.link_up(10, std::slice::from_ref(&loki), WINDOW, &mut effects);
    let sent: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { output, batch, .. } => Some((output.clone(), batch.seq.0)),
            _ => None,
        })
        .collect();
    assert_eq!(sent, [(loki.clone(), 2), (loki.clone(), 3)]);
    core.acked(11, &loki, &Acked { up_to: Some(BatchSeq(3)), ..Acked::default() }, &mut effects);
    let books = core.books();
    assert_eq!(books.len(), 1, "the memory needs no books: {books:?}");
    assert_eq!((books[0].books.collected, books[0].books.delivered), (9, 9));
    assert!(core.front_is_safe() || core.all_settled());
}

#[test]
fn a_full_buffer_is_not_kept_full_by_an_output_that_the_aggregator_does_not_have() {
    let settings = Settings { sources_wait: true, rereads: true, front_bytes: 10, ..Settings::default() };
    let mut core = Core::new(settings, Memory::default(), None, |_| 0);
    let mut effects = Vec::new();
    core.link_up(0, &[output("a"), output("b")], WINDOW, &mut effects);
    core.link_down();
    core.collected(5, blocks(5, 3), &mut effects);
    core.link_up(6, &[output("a")], WINDOW, &mut effects);
    core.acked(7, &output("a"), &Acked { up_to: Some(BatchSeq(1)), ..Acked::default() }, &mut effects);
    assert!(!core.wants_input(), "it is kept for the other one");
    core.tick(5_000, &mut effects);
    let full = Stored { up_to: None, failed: Some(StoreFailure::Full), losses: Vec::new() };
    core.stored(5_001, &full, &mut effects);
    assert!(core.wants_input());
    let books: BTreeMap<_, _> = core.books().into_iter().map(|b| (b.output.unwrap(), b.books)).collect();
    assert_eq!(books[&output("b")].dropped.get(&DropReason::OutputRetired), Some(&3));
    assert!(books.values().all(Books::balanced));
}

#[test]
fn a_batch_that_nobody_can_read_is_found_one_by_one_and_the_others_arrive() {
    let mut core = Core::new(Settings::default(), Memory::default(), None, |_| 0);
    let (name, mut effects) = (output("a"), Vec::new());
    core.link_up(0, std::slice::from_ref(&name), WINDOW, &mut effects);
    for at in 0..3 {
        core.collected(at, blocks(at as i64, 1), &mut effects);
    }
    let bad = BatchSeq(2);
    for _ in 0..10 {
        let sent: Vec<BatchSeq> = effects
            .drain(..)
            .filter_map(|effect| match effect {
                Effect::Send { batch, .. } => Some(batch.seq),
                _ => None,
            })
            .collect();
        if sent.contains(&bad) {
            core.refuse(&name, None, RejectReason::Other, "unreadable", &mut effects);
            core.stream_reset(1, &name, &mut effects);
        } else if let Some(last) = sent.last() {
            let ack = Acked { up_to: Some(*last), held_already: 0, rejections: Vec::new(), parked: None };
            core.acked(1, &name, &ack, &mut effects);
        }
    }
    let books = core.books().remove(0).books;
    assert_eq!((books.delivered, books.rejected.values().sum::<u64>()), (2, 1), "{books:?}");
}

#[test]
fn a_spool_that_does_not_answer_at_the_start_is_waited_for_and_not_trimmed() {
    let name = output("a");
    let books = Books { collected: 9, delivered: 4, spooled: 5, ..Books::default() };
    let memory = Memory {
        next_seq: 100,
        cursors: [(name.clone(), (BatchSeq(10), BatchSeq(10), books))].into(),
        unassigned: None,
    };
    let mut core = Core::new(Settings::default(), memory, Some(BatchSeq(99)), |_| 5);
    core.await_spool();
    let mut effects = Vec::new();
    core.link_up(0, std::slice::from_ref(&name), WINDOW, &mut effects);
    core.collected(1, blocks(1, 1), &mut effects);
    assert!(effects.iter().any(|e| matches!(e, Effect::Load { from: BatchSeq(11), .. })), "{effects:?}");
    assert!(!effects.iter().any(|e| matches!(e, Effect::Send { .. } | Effect::Trim(_))), "{effects:?}");
    effects.clear();
    core.give_up_spool(60_000, &mut effects);
    assert!(effects.iter().any(|e| matches!(e, Effect::Send { batch, .. } if batch.seq == BatchSeq(100))));
    let books = core.books().remove(0).books;
    assert!(books.balanced() && books.dropped.get(&DropReason::Damaged) == Some(&5), "{books:?}");
}
