//! Writers with real files, rotated in all ways, read by the real code into a collecting intake. The oracle: each
//! numbered line once, in order, with rising times; what is built again after a kill is what it was.

mod behind;
mod labels;
mod unseen;

use super::thread::{Pace, Thread};
use super::*;
use crate::intake::{Inbox, log_intake};
use crate::source::log::checkpoints::Checkpoints;
use crate::source::log::origin::Origin;
use pegel_proto::batch::{BatchSeq, Content, Logs};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

mod across;
mod bounds;
mod copies;
mod followed;
mod unreadable;

thread_local! {
    /// An inode that an agent that is started may not open.
    pub(super) static REFUSED_AT_START: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
    /// What the input makes of its lines, if not what it makes by default.
    static SHAPE: std::cell::RefCell<Option<shape::Settings>> = const { std::cell::RefCell::new(None) };
}

const PATIENCE: Duration = Duration::from_secs(15);

/// An agent's files: the thread's code without the thread, and a delivery that keeps what it was given.
struct Agent {
    thread: Thread,
    inbox: Inbox,
    checkpoints: Arc<Checkpoints>,
    /// Handed over and not safe.
    held: VecDeque<Logs>,
    registry: Registry,
}

fn input(include: &[String], start: Start) -> (Input, Settings) {
    let files = Settings {
        include: include.iter().map(|text| Pattern::parse(text).unwrap()).collect(),
        start,
        ..Settings::default()
    };
    let input = Input {
        name: "app".to_owned(),
        labels: BTreeMap::new(),
        shape: SHAPE.with_borrow(|shape| shape.clone().unwrap_or_default()),
        kind: crate::source::log::settings::InputKind::Files(files.clone()),
    };
    (input, files)
}

impl Agent {
    fn start(state: &Path, include: &[String], start: Start) -> Self {
        let opened = Checkpoints::open(state).unwrap();
        assert!(opened.warning.is_none(), "{:?}", opened.warning);
        let (intake, receiver) = log_intake();
        let registry = Registry::new();
        let parts = Parts {
            inputs: vec![input(include, start)],
            checkpoints: opened.checkpoints.clone(),
            intake,
            configuration: 1,
            registry: registry.clone(),
            shutdown: CancellationToken::new(),
            remade: followed::remade,
        };
        let mut thread = Thread::new(parts, Shared::new());
        thread.pace = Pace {
            linger: Duration::ZERO,
            tick: Duration::from_millis(2),
            idle_after: Duration::from_millis(100),
        };
        Self {
            thread,
            inbox: Inbox::Logs(receiver),
            checkpoints: opened.checkpoints,
            held: VecDeque::new(),
            registry,
        }
    }

    fn counted(&self, name: &str) -> u64 {
        let text = self.registry.render();
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }
}

/// What arrived, by stream and time.
#[derive(Default)]
struct Backend {
    streams: BTreeMap<String, BTreeMap<i64, String>>,
}

impl Backend {
    fn take(&mut self, logs: &Logs) {
        let block = logs.block.decode().unwrap();
        for entry in block.entries() {
            let stream = block.labels(entry.stream()).find(|(name, _)| *name == "filename").unwrap().1;
            let entries = self.streams.entry(stream.to_owned()).or_default();
            if let Some(before) = entries.insert(entry.at_ns(), entry.line().to_owned()) {
                assert_eq!(before, entry.line(), "two lines at {} in {stream}", entry.at_ns());
                assert!(logs.rebuilt, "{before:?} came twice without being marked");
            }
        }
    }

    fn lines(&self, path: &Path) -> Vec<&str> {
        let stream = self.streams.get(path.to_str().unwrap());
        stream.into_iter().flat_map(|entries| entries.values().map(String::as_str)).collect()
    }
}

impl Backend {
    /// Lines of streams whose path goes on where this one ends.
    fn rotated(&self, path: &Path) -> Vec<&str> {
        let beginning = format!("{}.", path.display());
        let streams = self.streams.iter().filter(|(stream, _)| stream.starts_with(&beginning));
        streams.flat_map(|(_, entries)| entries.values().map(String::as_str)).collect()
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    next: u64,
}

fn appending(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Writer {
    fn new(path: PathBuf) -> Self {
        Self { file: appending(&path), path, next: 0 }
    }

    fn write(&mut self, lines: u64, fill: usize) {
        let mut text = String::new();
        for _ in 0..lines {
            text.push_str(&format!("{} {} {}\n", self.path.display(), self.next, "x".repeat(fill)));
            self.next += 1;
        }
        self.file.write_all(text.as_bytes()).unwrap();
    }

    /// A line of which the half was written, and then its rest.
    fn write_halves(&mut self, mut between: impl FnMut()) {
        let text = format!("{} {} in two\n", self.path.display(), self.next);
        self.next += 1;
        let (half, rest) = text.as_bytes().split_at(text.len() - 5);
        self.file.write_all(half).unwrap();
        between();
        self.file.write_all(rest).unwrap();
    }

    /// `.2` to `.3` and so on, so that `.1` is free.
    fn shift(&self) {
        for n in (1..60).rev() {
            for ending in ["", ".gz", ".zst"] {
                let from = suffixed(&self.path, &format!(".{n}{ending}"));
                if from.exists() {
                    fs::rename(from, suffixed(&self.path, &format!(".{}{ending}", n + 1))).unwrap();
                }
            }
        }
    }

    fn rename(&mut self) -> PathBuf {
        self.shift();
        let to = suffixed(&self.path, ".1");
        fs::rename(&self.path, &to).unwrap();
        to
    }

    fn reopen(&mut self) {
        self.file = appending(&self.path);
    }

    fn copytruncate(&mut self) {
        self.copy();
        self.truncate();
    }

    fn copy(&mut self) {
        self.shift();
        fs::copy(&self.path, suffixed(&self.path, ".1")).unwrap();
    }

    fn truncate(&mut self) {
        self.file.set_len(0).unwrap();
    }

    fn compress(&self, zstd: bool) {
        let plain = suffixed(&self.path, ".1");
        let content = fs::read(&plain).unwrap();
        if zstd {
            fs::write(suffixed(&plain, ".zst"), zstd::bulk::compress(&content, 1).unwrap()).unwrap();
        } else {
            let file = File::create(suffixed(&plain, ".gz")).unwrap();
            let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            encoder.write_all(&content).unwrap();
            encoder.finish().unwrap();
        }
        fs::remove_file(plain).unwrap();
    }
}

struct World {
    agent: Option<Agent>,
    backend: Backend,
    writers: Vec<Writer>,
    include: Vec<String>,
    state: tempfile::TempDir,
    logs: tempfile::TempDir,
    rng: StdRng,
    seq: u64,
    truncates: bool,
    story: Vec<String>,
}

impl World {
    fn new(seed: u64, writers: usize, pattern: &str) -> Self {
        let (state, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = logs.path().canonicalize().unwrap();
        let include = vec![format!("{}/{pattern}", root.display())];
        let writers = (0..writers).map(|n| Writer::new(root.join(format!("app{n}.log")))).collect();
        let mut world = Self {
            agent: None,
            backend: Backend::default(),
            writers,
            include,
            state,
            logs,
            rng: StdRng::seed_from_u64(seed),
            seq: 0,
            truncates: false,
            story: vec![format!("seed {seed}")],
        };
        world.start();
        world
    }

    fn start(&mut self) {
        self.agent = Some(Agent::start(self.state.path(), &self.include, Start::Beginning));
    }

    fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("the agent runs")
    }

    fn turn(&mut self) {
        self.agent().thread.turn();
    }

    /// Delivery takes what waits; some of it arrives at once.
    fn deliver(&mut self) {
        let Some(agent) = self.agent.as_mut() else { return };
        while let Some(Content::Logs(logs)) = agent.inbox.take_now() {
            self.backend.take(&logs);
            agent.held.push_back(logs);
        }
    }

    fn settle(&mut self, count: usize) {
        let Some(agent) = self.agent.as_mut() else { return };
        for logs in agent.held.drain(..count.min(agent.held.len())) {
            self.seq += 1;
            agent.checkpoints.safe(BatchSeq(self.seq), &logs);
        }
    }

    /// Everything in memory is gone; of what was in flight some had arrived and some had not.
    fn kill(&mut self) {
        if self.rng.random_bool(0.5) {
            self.deliver();
        }
        self.agent = None;
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.turn();
            self.deliver();
            if done(self) {
                return;
            }
            if Instant::now() > deadline {
                self.check();
                self.fail(&format!("{what} did not come"));
            }
            std::thread::yield_now();
        }
    }

    fn some_turns(&mut self) {
        for _ in 0..20 {
            self.turn();
            self.deliver();
        }
    }

    fn fail(&mut self, why: &str) -> ! {
        let status =
            self.agent.as_ref().map(|agent| serde_json::to_string_pretty(&agent.thread.status()).unwrap());
        let listing: Vec<_> =
            fs::read_dir(self.logs.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        panic!("{why}\n{}\n{listing:?}\n{}", self.story.join("\n"), status.unwrap_or_default());
    }

    fn caught_up(&mut self) -> bool {
        let backend = &self.backend;
        self.writers.iter().all(|writer| {
            (backend.lines(&writer.path).len() + backend.rotated(&writer.path).len()) as u64 >= writer.next
        })
    }

    fn catch_up(&mut self) {
        self.until("the last line", Self::caught_up);
    }

    /// Each line once, in order.
    fn check(&mut self) {
        for nth in 0..self.writers.len() {
            let (path, count) = (self.writers[nth].path.clone(), self.writers[nth].next);
            let mut numbers: Vec<u64> = self
                .backend
                .lines(&path)
                .iter()
                .map(|line| line.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(u64::MAX))
                .collect();
            // What was first seen under a rotated name that matches is a stream of its own.
            let rotated = self.backend.rotated(&path).len();
            if rotated > 0 {
                if !numbers.is_sorted() {
                    let at = numbers.windows(2).position(|w| w[0] > w[1]).unwrap_or(0);
                    let got = numbers[at.saturating_sub(5)..(at + 8).min(numbers.len())].to_vec();
                    self.fail(&format!("{}: not in order {got:?}", path.display()));
                }
                numbers.extend(self.backend.rotated(&path).iter().map(|line| {
                    line.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(u64::MAX)
                }));
                numbers.sort_unstable();
            }
            let expected: Vec<u64> = (0..count).collect();
            if numbers != expected {
                let at = numbers.iter().zip(&expected).position(|(a, b)| a != b);
                let from = at.unwrap_or(numbers.len().min(expected.len())).saturating_sub(2);
                let got = &numbers[from..numbers.len().min(from + 12)];
                self.fail(&format!(
                    "{}: {} lines of {count}; from {from} on {got:?}",
                    path.display(),
                    numbers.len()
                ));
            }
        }
    }

    fn tell(&mut self, what: String) {
        let at: Vec<u64> = self.writers.iter().map(|writer| writer.next).collect();
        self.story.push(format!("{what}, from {at:?}"));
    }

    /// One step of the simulation.
    fn step(&mut self) {
        // A running agent looks within 20 ms of a change.
        self.turn_if_running();
        let nth = self.rng.random_range(0..self.writers.len());
        let lines = self.rng.random_range(1..60);
        let fill = if self.rng.random_bool(0.05) { 9_000 } else { 40 };
        match self.rng.random_range(0..100) {
            0..40 => {
                self.tell(format!("{nth} writes {lines}"));
                self.writers[nth].write(lines, fill);
                if self.rng.random_bool(0.3) {
                    let Self { agent, writers, .. } = self;
                    let look = || agent.iter_mut().for_each(|agent| agent.thread.turn());
                    writers[nth].write_halves(look);
                }
            }
            40..50 => {
                let late = self.rng.random_bool(0.5);
                self.tell(format!("{nth} is renamed, late {late}"));
                let writer = &mut self.writers[nth];
                writer.rename();
                if late {
                    writer.write(3, fill);
                }
                writer.reopen();
                writer.write(2, fill);
            }
            50..57 => {
                // The agent sees each, or does not get to run meanwhile, or does not run at all.
                let (times, looks) = (self.rng.random_range(2..5), self.rng.random_bool(0.3));
                self.tell(format!("{nth} is renamed {times} times, looks {looks}"));
                for _ in 0..times {
                    self.writers[nth].rename();
                    self.writers[nth].reopen();
                    self.writers[nth].write(lines, fill);
                    if looks {
                        self.turn_if_running();
                    }
                }
            }
            57..65 if self.agent.is_some() && self.truncates => {
                self.tell(format!("{nth} is copied and truncated"));
                // Content of which nothing was seen can't be missed, and a copy of less than a KiB is not recognised
                // after a kill if more was seen of its original.
                self.writers[nth].write(lines + 20, fill);
                self.turn();
                if self.rng.random_bool(0.5) {
                    self.writers[nth].write(lines, fill);
                    self.writers[nth].copytruncate();
                } else {
                    self.tell("and written and read between".to_owned());
                    self.writers[nth].copy();
                    self.writers[nth].write(lines, fill);
                    self.catch_up();
                    // What is in memory only and in no copy does not outlive a kill.
                    self.settle(usize::MAX);
                    self.writers[nth].truncate();
                }
                self.turn();
            }
            65..72 if self.agent.is_some() => {
                let zstd = self.rng.random_bool(0.5);
                self.tell(format!("{nth} is renamed and compressed, zstd {zstd}"));
                // What is compressed before anybody has seen it is not recognised.
                self.turn_if_running();
                self.writers[nth].rename();
                self.writers[nth].compress(zstd);
                self.writers[nth].reopen();
                self.writers[nth].write(lines, fill);
            }
            72..78 => {
                // Only what the agent has noticed can it read after the removal.
                if self.agent.is_some() {
                    self.tell(format!("{nth} is removed and made again"));
                    self.agent().thread.turn();
                    fs::remove_file(&self.writers[nth].path).unwrap();
                    self.writers[nth].reopen();
                    // What was removed and is in memory only does not outlive a kill.
                    self.catch_up();
                    self.settle(usize::MAX);
                    self.writers[nth].write(lines, fill);
                }
            }
            78..86 => {
                let count = self.rng.random_range(0..8);
                self.tell(format!("{count} blocks are safe"));
                self.settle(count);
            }
            86..90 => {
                if self.agent.is_some() {
                    self.tell("the agent is killed".to_owned());
                    self.kill();
                }
            }
            _ => {
                let turns = self.rng.random_range(1..6);
                let delivers = self.rng.random_bool(0.7);
                self.tell(format!("{turns} turns, delivers {delivers}"));
                if self.agent.is_none() {
                    self.start();
                }
                for _ in 0..turns {
                    self.turn();
                    if delivers {
                        self.deliver();
                    }
                }
            }
        }
    }

    fn turn_if_running(&mut self) {
        if self.agent.is_some() {
            self.turn();
        }
    }
}

fn simulate(seed: u64, truncates: bool, pattern: &str) {
    let mut world = World::new(seed, 3, pattern);
    world.truncates = truncates;
    for _ in 0..120 {
        world.step();
    }
    if world.agent.is_none() {
        world.start();
    }
    world.tell("the end".to_owned());
    world.catch_up();
    // What would come twice comes now.
    world.agent().thread.rescan = true;
    world.some_turns();
    world.check();
}

fn seeds(most: u64) -> Vec<u64> {
    match std::env::var("PEGEL_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=most).collect(),
    }
}

#[test]
fn each_line_arrives_once_and_in_order_whatever_becomes_of_its_file() {
    for seed in seeds(12) {
        simulate(seed, false, "*.log");
    }
}

#[test]
fn each_line_arrives_once_and_in_order_where_the_pattern_takes_rotated_files_too() {
    for seed in seeds(12) {
        simulate(seed, false, "*");
    }
}

#[test]
fn each_line_arrives_once_and_in_order_with_copytruncate() {
    for seed in seeds(12) {
        simulate(seed, true, "*.log");
    }
}

#[test]
fn each_line_arrives_once_and_in_order_with_copytruncate_where_the_pattern_takes_copies_too() {
    for seed in seeds(12) {
        simulate(seed, true, "*");
    }
}

#[test]
fn generations_that_came_and_were_rotated_while_the_agent_was_stopped_are_read_in_order() {
    for down in [false, true] {
        let mut world = World::new(1, 1, "*.log");
        world.writers[0].write(5, 40);
        world.catch_up();
        if down {
            world.settle(usize::MAX);
            world.agent = None;
        }
        // Written, and then each moved on by one, five times before anybody looks.
        for _ in 0..5 {
            world.writers[0].rename();
            world.writers[0].reopen();
            world.writers[0].write(7, 40);
        }
        if down {
            // Delivery may have recorded something after all that.
            let recorded = |entry: fs::DirEntry| {
                let file = File::options().append(true).open(entry.path()).unwrap();
                file.set_modified(std::time::SystemTime::now() + Duration::from_millis(50)).unwrap();
            };
            fs::read_dir(world.state.path()).unwrap().flatten().for_each(recorded);
            world.start();
        }
        world.catch_up();
        world.check();
    }
}

#[test]
fn what_was_rotated_before_the_first_start_is_not_read() {
    let mut world = World::new(1, 1, "none");
    let root = world.logs.path().canonicalize().unwrap();
    world.include = vec![format!("{}/*.log", root.display())];
    world.agent = None;
    fs::write(suffixed(&world.writers[0].path, ".1"), "old\n").unwrap();
    world.writers[0].write(3, 40);
    // A file's time is kept by a clock that is some milliseconds behind.
    let old = std::time::SystemTime::now() - Duration::from_secs(3_600);
    let rotated = File::options().write(true).open(suffixed(&world.writers[0].path, ".1")).unwrap();
    rotated.set_modified(old).unwrap();
    world.start();
    world.catch_up();
    for _ in 0..3 {
        world.writers[0].rename();
        world.writers[0].reopen();
        world.writers[0].write(3, 40);
    }
    world.catch_up();
    world.settle(usize::MAX);
    world.agent = None;
    world.writers[0].rename();
    world.writers[0].reopen();
    world.writers[0].write(3, 40);
    world.start();
    world.catch_up();
    world.check();
}

#[test]
fn half_a_line_is_no_entry_though_nobody_looked_for_long() {
    let mut world = World::new(1, 1, "*.log");
    world.writers[0].write(1, 40);
    world.catch_up();
    for renamed in [false, true] {
        let writer = &mut world.writers[0];
        if renamed {
            writer.rename();
        }
        let agent = world.agent.as_mut().unwrap();
        writer.write_halves(|| {
            for _ in 0..3 {
                agent.thread.turn();
            }
            // Nobody looks for longer than a half line may stay.
            for id in agent.thread.known.ids() {
                let reading = agent.thread.known.generation_mut(id).unwrap().reading.as_mut();
                let long_ago = |at: Instant| at - Duration::from_secs(20);
                let Some(reading) = reading else { continue };
                reading.partial_since = reading.partial_since.map(long_ago);
            }
        });
        let text = format!("{} {} in", writer.path.display(), writer.next);
        writer.file.write_all(text.as_bytes()).unwrap();
        for _ in 0..3 {
            world.turn();
        }
        world.writers[0].file.write_all(b" two\n").unwrap();
        world.writers[0].next += 1;
        world.catch_up();
        world.check();
    }
    // And one that stays is one.
    let text = format!("{} {} stays", world.writers[0].path.display(), world.writers[0].next);
    world.writers[0].file.write_all(text.as_bytes()).unwrap();
    world.writers[0].next += 1;
    world.catch_up();
    world.check();
}

#[test]
fn what_was_not_safe_at_a_kill_is_built_again_as_it_was() {
    let mut world = World::new(1, 2, "*.log");
    world.writers[0].write(2_000, 400);
    world.writers[1].write(50, 40);
    world.catch_up();
    let before: Vec<(Origin, bytes::Bytes)> = world
        .agent()
        .held
        .iter()
        .map(|logs| (Origin::from_bytes(&logs.origin).unwrap(), logs.block.bytes.clone()))
        .collect();
    assert!(before.len() > 1);
    world.settle(1);
    world.kill();
    world.writers[0].rename();
    world.writers[0].reopen();
    world.writers[0].write(3, 40);
    world.start();
    world.catch_up();
    world.check();
    let again: Vec<_> = world.agent().held.iter().filter(|logs| logs.rebuilt).cloned().collect();
    assert_eq!(again.len(), before.len() - 1);
    for ((origin, bytes), logs) in before[1..].iter().zip(again) {
        assert_eq!((&Origin::from_bytes(&logs.origin).unwrap(), bytes), (origin, &logs.block.bytes));
    }
}

#[test]
fn what_cannot_be_read_again_after_a_kill_is_counted() {
    let mut world = World::new(1, 1, "*.log");
    world.writers[0].write(10, 40);
    world.catch_up();
    world.kill();
    fs::remove_file(&world.writers[0].path).unwrap();
    world.start();
    world.turn();
    world.turn();
    assert_eq!(world.agent().inbox.take_lost(), 10);
    assert!(world.agent().checkpoints.outstanding().is_empty());
}

#[test]
fn reading_at_the_end_is_for_what_is_there_at_the_first_start() {
    let state = tempfile::tempdir().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let root = logs.path().canonicalize().unwrap();
    let include = [format!("{}/*.log", root.display())];
    let mut old = Writer::new(root.join("old.log"));
    old.write(5, 10);
    let agent = Agent::start(state.path(), &include, Start::End);
    let mut world = World::new(1, 1, "none");
    world.agent = Some(agent);
    let mut new = Writer::new(root.join("new.log"));
    new.write(2, 10);
    old.write(1, 10);
    world.until("three lines", |world| world.backend.streams.values().map(BTreeMap::len).sum::<usize>() == 3);
    assert!(world.backend.lines(&old.path)[0].contains(" 5 "));
    assert_eq!(world.backend.lines(&new.path).len(), 2);
}

#[test]
fn a_removed_file_is_read_to_its_end_and_idle_files_are_closed() {
    let mut world = World::new(1, 2, "*.log");
    world.writers[0].write(5_000, 200);
    world.turn();
    fs::remove_file(&world.writers[0].path).unwrap();
    world.catch_up();
    world.check();
    world.until("all to be closed", |world| world.agent().thread.open.is_empty());
    assert_eq!(world.agent().thread.known.len(), 1);
    assert_eq!(world.agent().counted("pegel_log_lost_bytes_total"), 0);
}

#[test]
fn a_flood_keeps_nobody_waiting() {
    let mut world = World::new(1, 2, "*.log");
    world.writers[0].write(20_000, 200);
    world.writers[1].write(1, 10);
    let quiet = world.writers[1].path.clone();
    world.until("the quiet one's line", |world| !world.backend.lines(&quiet).is_empty());
    let flood = world.backend.lines(&world.writers[0].path).len();
    assert!(flood < 10_000, "{flood} lines of the flood came first");
}

#[test]
fn without_room_descriptors_are_kept_and_nothing_is_lost() {
    let mut world = World::new(1, 1, "*.log");
    world.writers[0].write(30_000, 200);
    for _ in 0..40 {
        world.turn();
    }
    assert!(world.agent().thread.status().waiting);
    for _ in 0..3 {
        world.writers[0].write(10, 10);
        world.turn();
        fs::remove_file(&world.writers[0].path).unwrap();
        world.writers[0].reopen();
        world.turn();
    }
    assert!(world.agent().thread.status().files.iter().any(|file| file.lag_bytes > 0));
    world.catch_up();
    world.check();
}
