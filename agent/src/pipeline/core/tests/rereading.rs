//! Sources that wait and read again: seeded worlds of one reader, one disk and one backend, with kills.

use super::super::*;
use super::{output, seeds};
use crate::spool::codec::RecordCodec;
use pegel_proto::batch::Logs;
use pegel_proto::logs::BlockBuilder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const WINDOW: usize = 4_000;

/// What survives a kill.
#[derive(Default)]
struct Durable {
    /// All lines before this one are safe.
    place: u64,
    /// Ranges that were handed over and are not known to be safe.
    intents: Vec<(u64, u64)>,
    heard_up_to: u64,
    disk: BTreeMap<BatchSeq, Arc<Batch>>,
    remembered: Memory,
}

struct World {
    rng: StdRng,
    seed: u64,
    now_ms: u64,
    core: Core,
    kept: Durable,
    /// The next line to be read.
    next: u64,
    rebuild: VecDeque<(u64, u64)>,
    link: bool,
    unacked: VecDeque<(Arc<Batch>, bool)>,
    storing: Option<Vec<Arc<Batch>>>,
    loading: Option<(BatchSeq, BatchSeq)>,
    /// How often the backend got each line, and whether it was warned each further time.
    arrived: BTreeMap<u64, u32>,
    waited: u64,
}

fn settings() -> Settings {
    Settings {
        front_bytes: 3_000,
        sources_wait: true,
        rereads: true,
        keep_oldest: true,
        ..Settings::default()
    }
}

fn lines_of(batch: &Batch) -> (u64, u64) {
    let Content::Logs(logs) = &batch.content else { panic!("a batch of logs") };
    let number = |at: usize| u64::from_le_bytes(logs.origin[at..at + 8].try_into().unwrap());
    (number(0), number(8))
}

fn block_of((from, to): (u64, u64), rebuilt: bool) -> Content {
    let mut builder = BlockBuilder::new();
    let stream = builder.stream([("job", "x")].into_iter()).unwrap();
    for line in from..to {
        builder.push(stream, line as i64, &format!("line {line}"), &[]);
    }
    let origin = [from.to_le_bytes(), to.to_le_bytes()].concat();
    Content::Logs(Logs { block: builder.finish().unwrap(), origin: origin.into(), rebuilt })
}

/// A batch as the spool gives it back.
fn through_the_disk(batch: &Batch) -> Arc<Batch> {
    let mut codec = RecordCodec::logs();
    let mut bytes = Vec::new();
    codec.encoder.encode(batch, &mut bytes);
    Arc::new((codec.decoder)().decode(batch.seq, &bytes).unwrap())
}

impl World {
    fn new(seed: u64) -> Self {
        let mut core = Core::new(settings(), Memory::default(), None, |_| 0);
        Self {
            rng: StdRng::seed_from_u64(seed),
            seed,
            now_ms: 0,
            kept: Durable { remembered: core.memory(), ..Durable::default() },
            core,
            next: 0,
            rebuild: VecDeque::new(),
            link: false,
            unacked: VecDeque::new(),
            storing: None,
            loading: None,
            arrived: BTreeMap::new(),
            waited: 0,
        }
    }

    fn safe(&mut self, batch: &Batch) {
        let (from, to) = lines_of(batch);
        assert!(from <= self.kept.place, "seed {}: the place moves without gaps", self.seed);
        self.kept.place = self.kept.place.max(to);
        self.kept.intents.retain(|intent| *intent != (from, to));
        self.kept.heard_up_to = self.kept.heard_up_to.max(batch.seq.0);
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { batch, sent_before, .. } => self.unacked.push_back((batch, sent_before)),
                Effect::Store(batches) => self.storing = Some(batches),
                Effect::Load { from, up_to, .. } => self.loading = Some((from, up_to)),
                Effect::Trim(up_to) => self.kept.disk.retain(|seq, _| *seq > up_to),
                Effect::Safe(batch) => self.safe(&batch),
                Effect::Reject { .. } => {}
                Effect::Remember => self.kept.remembered = self.core.memory(),
            }
        }
        for books in self.core.books() {
            assert!(books.books.balanced(), "seed {}: {books:?}", self.seed);
        }
    }

    /// The backend takes a batch; whether anybody hears of it is another matter.
    fn arrive(&mut self, batch: &Batch, sent_before: bool) {
        let (from, to) = lines_of(batch);
        for line in from..to {
            let times = self.arrived.entry(line).or_default();
            assert!(*times == 0 || sent_before, "seed {}: line {line} comes again unmarked", self.seed);
            *times += 1;
        }
    }

    fn read(&mut self) {
        if !self.core.wants_input() {
            self.waited += 1;
            return;
        }
        let (range, rebuilt) = match self.rebuild.pop_front() {
            Some(range) => (range, true),
            None => ((self.next, self.next + self.rng.random_range(1..6)), false),
        };
        self.next = self.next.max(range.1);
        if !self.kept.intents.contains(&range) {
            self.kept.intents.push(range);
        }
        let mut effects = Vec::new();
        self.core.collected(self.now_ms, block_of(range, rebuilt), &mut effects);
        self.apply(effects);
    }

    fn store(&mut self, works: bool) {
        let Some(batches) = self.storing.take() else { return };
        let lands = works || self.rng.random_bool(0.3);
        let up_to = batches.last().map(|b| b.seq).filter(|_| works);
        if lands {
            self.kept.disk.extend(batches.into_iter().map(|b| (b.seq, through_the_disk(&b))));
        }
        let failure = if self.rng.random_bool(0.5) { StoreFailure::Full } else { StoreFailure::Disk };
        let stored = Stored { up_to, failed: (!works).then_some(failure), losses: Vec::new() };
        let mut effects = Vec::new();
        self.core.stored(self.now_ms, &stored, &mut effects);
        self.apply(effects);
    }

    fn load(&mut self) {
        let Some((from, up_to)) = self.loading.take() else { return };
        let batches = self.kept.disk.range(from..).take(3).map(|(_, b)| b.clone()).collect();
        let mut effects = Vec::new();
        self.core.loaded(self.now_ms, &output("a"), up_to, batches, &mut effects);
        self.apply(effects);
    }

    fn ack(&mut self, at_most: usize) {
        let mut ack = Acked::default();
        for _ in 0..at_most.min(self.unacked.len()) {
            let (batch, sent_before) = self.unacked.pop_front().unwrap();
            self.arrive(&batch, sent_before);
            ack.up_to = Some(batch.seq);
        }
        let mut effects = Vec::new();
        self.core.acked(self.now_ms, &output("a"), &ack, &mut effects);
        self.apply(effects);
    }

    fn link(&mut self, up: bool) {
        self.link = up;
        let mut effects = Vec::new();
        if up {
            self.core.link_up(self.now_ms, &[output("a")], WINDOW, &mut effects);
        } else {
            let taken = self.rng.random_range(0..=self.unacked.len());
            for (batch, sent_before) in std::mem::take(&mut self.unacked).into_iter().take(taken) {
                self.arrive(&batch, sent_before);
            }
            self.core.link_down();
        }
        self.apply(effects);
    }

    fn kill(&mut self) {
        self.link(false);
        (self.storing, self.loading) = (None, None);
        let disk = self.kept.disk.clone();
        let above = move |seq: BatchSeq| disk.range(seq.next()..).map(|(_, b)| b.records()).sum();
        let last = self.kept.disk.last_key_value().map(|(seq, _)| *seq);
        self.core = Core::new(settings(), self.kept.remembered.clone(), last, above);
        self.kept.remembered = self.core.memory();
        // As delivery does on start: what the disk holds is safe, whoever was told.
        let unheard: Vec<_> =
            self.kept.disk.range(BatchSeq(self.kept.heard_up_to + 1)..).map(|(_, b)| b.clone()).collect();
        for batch in unheard {
            self.safe(&batch);
        }
        let place = self.kept.place;
        self.kept.intents.retain(|(_, to)| *to > place);
        self.kept.intents.sort_unstable();
        self.rebuild = self.kept.intents.iter().copied().collect();
        self.next = place;
        self.apply(Vec::new());
    }

    fn step(&mut self) {
        self.now_ms += self.rng.random_range(0..400);
        match self.rng.random_range(0..41) {
            0..=11 => self.read(),
            12..=16 => {
                let works = self.rng.random_bool(0.5);
                self.store(works);
            }
            17..=20 => self.load(),
            21..=23 if !self.link => self.link(true),
            24 if self.link => self.link(false),
            25..=30 if self.link => {
                let n = self.rng.random_range(0..4);
                self.ack(n);
            }
            40 => self.kill(),
            _ => {
                let mut effects = Vec::new();
                self.core.tick(self.now_ms, &mut effects);
                self.apply(effects);
            }
        }
    }
}

#[test]
fn every_line_arrives_in_order_and_a_repeated_one_is_marked_whatever_is_killed() {
    let mut waited = 0;
    for seed in seeds() {
        let mut world = World::new(seed);
        for _ in 0..800 {
            world.step();
        }
        waited += world.waited;
        for _ in 0..10_000 {
            if !world.link {
                world.link(true);
            }
            if world.rebuild.is_empty() && world.core.all_settled() && world.core.front_is_safe() {
                break;
            }
            if !world.rebuild.is_empty() {
                world.read();
            }
            world.now_ms += 500;
            world.store(true);
            world.load();
            world.ack(10);
            let mut effects = Vec::new();
            world.core.tick(world.now_ms, &mut effects);
            world.apply(effects);
        }
        let arrived: Vec<u64> = world.arrived.keys().copied().collect();
        let all: Vec<u64> = (0..world.next).collect();
        assert_eq!(arrived, all, "seed {seed}: every line arrived");
        assert_eq!(world.kept.place, world.next, "seed {seed}: the place is behind the last line");
        assert!(world.kept.intents.is_empty(), "seed {seed}: {:?}", world.kept.intents);
        for books in world.core.books() {
            assert!(
                books.books.dropped.is_empty() && books.books.lost_in_crash == 0,
                "seed {seed}: {books:?}"
            );
        }
    }
    assert!(waited > 0 || std::env::var("PEGEL_SEED").is_ok(), "the source waited in some world");
}

#[test]
fn entries_that_nobody_can_read_again_are_told_as_lost() {
    let mut core = Core::new(settings(), Memory::default(), None, |_| 0);
    core.lost_in_crash(7);
    let books = core.books().remove(0).books;
    assert_eq!((books.collected, books.lost_in_crash), (7, 7));
}

#[test]
fn at_the_end_what_no_disk_took_was_never_collected() {
    let mut core = Core::new(settings(), Memory::default(), None, |_| 0);
    let mut effects = Vec::new();
    core.collected(1, block_of((0, 5), false), &mut effects);
    assert_eq!(core.give_up_front(), 0, "nothing is lost");
    assert_eq!(core.books().remove(0).books, Books::default());
}
