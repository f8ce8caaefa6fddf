//! The shard against the model, with faults by chance: whatever happens, every entry that can be stored is stored,
//! once where Loki could be asked; every other is refused with its reason, and each batch is settled once, in order.

use super::super::answer::{Exchange, Meaning, Response};
use super::super::encode::RequestEncoder;
use super::super::shard::{Shard, ShardSettings, Step};
use super::super::tally::Tally;
use super::model::{MAX_LINE, Model};
use super::{HOUR, SECOND, START_NS, Said, agent_info, delivery, settings};
use crate::fanout::Verdict;
use crate::session::AgentInfo;
use pegel_proto::batch::{Outcome, RejectReason, Rejection};
use pegel_runtime::metrics::Registry;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// So many runs by default: each kind of outcome comes up many times over.
const ROUNDS: u64 = 200;

#[derive(Debug, Clone, PartialEq)]
enum Fate {
    Stored,
    Refused(RejectReason),
    /// Of a stream that Loki may have no room for.
    StoredOrTooMany,
}

struct Batch {
    seq: u64,
    entries: Vec<Said>,
    fates: Vec<Fate>,
}

struct Agent {
    node: String,
    info: Arc<AgentInfo>,
    seq: u64,
    now_ns: i64,
    /// Whether the stream `late` has its newest entry.
    late: bool,
    unsettled: VecDeque<Batch>,
    sender: mpsc::UnboundedSender<Verdict>,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
}

struct World {
    random: StdRng,
    shard: Shard,
    registry: Registry,
    model: Model,
    encoder: RequestEncoder,
    now: Instant,
    agents: Vec<Agent>,
    sessions: u64,
    /// Requests that are answered with an error that says nothing.
    misrouted: u32,
    /// Whether Loki always answers questions.
    sure: bool,
    settled: BTreeMap<&'static str, u64>,
    expected: HashSet<(String, i64, String)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let registry = Registry::new();
        let can_ask = random.random_bool(0.7);
        let shard_settings =
            ShardSettings { max_request_bytes: random.random_range(100..20_000), can_ask, ..settings() };
        let limits = shard_settings.stream_limits;
        let model = Model {
            now_ns: START_NS,
            max_message: if random.random_bool(0.3) { random.random_range(2_000..8_000) } else { usize::MAX },
            rate: limits.rate as f64,
            burst: limits.burst as f64,
            whole_streams: random.random_bool(0.5),
            streams: HashMap::new(),
            room: random.random_range(0..4),
            silently_dropped: 0,
        };
        let shard = Shard::new(shard_settings, Tally::new(&registry, "o", "t"), seed);
        let mut world = Self {
            shard,
            registry,
            model,
            encoder: RequestEncoder::new(),
            now: Instant::now(),
            agents: Vec::new(),
            sessions: 0,
            misrouted: if random.random_bool(0.2) { random.random_range(1..100) } else { 0 },
            sure: can_ask && random.random_bool(0.5),
            settled: BTreeMap::new(),
            expected: HashSet::new(),
            random,
        };
        for i in 0..world.random.random_range(1..5) {
            let node = format!("n{i}");
            let (sender, verdicts) = mpsc::unbounded_channel();
            world.sessions += 1;
            let info = agent_info(&node, world.sessions);
            world.agents.push(Agent {
                node,
                info,
                seq: 0,
                now_ns: START_NS,
                late: false,
                unsettled: VecDeque::new(),
                sender,
                verdicts,
            });
        }
        world
    }

    fn collect(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        let random = &mut self.random;
        let (mut entries, mut fates): (Vec<Said>, Vec<Fate>) = (Vec::new(), Vec::new());
        for _ in 0..random.random_range(1..30) {
            agent.now_ns += random.random_range(1..SECOND / 50);
            let now = agent.now_ns;
            let line = |len| format!("{now} {}", "x".repeat(len));
            let (entry, fate): (Said, Fate) = match random.random_range(0..40) {
                0 => (("old", now - 8 * 24 * HOUR, line(1)), Fate::Refused(RejectReason::TooOld)),
                1 => (("future", now + 2 * HOUR, line(1)), Fate::Refused(RejectReason::TooFarInFuture)),
                2 => (("hot", now, line(MAX_LINE)), Fate::Refused(RejectReason::TooLarge)),
                3 => (("too-many-labels", now, line(1)), Fate::Refused(RejectReason::InvalidLabels)),
                4 => (("bad-name", now, line(1)), Fate::Refused(RejectReason::InvalidLabels)),
                5 if agent.late => {
                    (("late", now - 3 * HOUR, line(1)), Fate::Refused(RejectReason::OutOfOrder))
                }
                6 => {
                    agent.late = true;
                    (("late", now, line(1)), Fate::Stored)
                }
                n @ 14..17 => ((["x1", "x2", "x3"][n - 14], now, line(1)), Fate::StoredOrTooMany),
                7..14 => (("hot", now, line(random.random_range(1..400))), Fate::Stored),
                n => ((["a", "b", "c", "d"][n % 4], now, line(random.random_range(1..60))), Fate::Stored),
            };
            if fate == Fate::Stored {
                let stream = format!("{{app=\"{}\", node=\"{}\", tenant=\"acme\"}}", entry.0, agent.node);
                self.expected.insert((stream, entry.1, entry.2.clone()));
            }
            entries.push(entry);
            fates.push(fate);
        }
        self.model.now_ns = self.model.now_ns.max(agent.now_ns);
        agent.seq += 1;
        self.shard.submit(
            delivery(&agent.info, agent.seq, false, &entries, &agent.sender),
            self.now,
            START_NS,
        );
        agent.unsettled.push_back(Batch { seq: agent.seq, entries, fates });
    }

    /// The session ends; the agent comes back and sends again what was not settled.
    fn reconnect(&mut self, at: usize) {
        self.hear();
        self.sessions += 1;
        let agent = &mut self.agents[at];
        self.shard.forget_session(agent.info.session);
        (agent.sender, agent.verdicts) = mpsc::unbounded_channel();
        agent.info = agent_info(&agent.node, self.sessions);
        for batch in &agent.unsettled {
            let delivery = delivery(&agent.info, batch.seq, true, &batch.entries, &agent.sender);
            self.shard.submit(delivery, self.now, START_NS);
        }
    }

    fn hear(&mut self) {
        for agent in &mut self.agents {
            while let Ok(verdict) = agent.verdicts.try_recv() {
                let Verdict::Settled(seq, outcome) = verdict else { continue };
                let batch = agent.unsettled.pop_front().expect("only what was submitted is settled");
                assert_eq!(seq.0, batch.seq, "in the order of the numbers, once");
                check(&batch, &outcome, &self.model, &agent.node);
                *self.settled.entry("delivered").or_default() += outcome.delivered;
                *self.settled.entry("held").or_default() += outcome.held_already;
                for rejection in &outcome.rejections {
                    *self.settled.entry(rejection.reason.name()).or_default() += rejection.count();
                }
            }
        }
    }

    /// One request and its answer, with faults if wanted. Says whether there was anything to do.
    fn step(&mut self, faults: bool) -> bool {
        let piece = match self.shard.poll(self.now) {
            Step::Send(piece) => piece,
            Step::Ask(piece) => {
                let fails = faults && !self.sure && self.random.random_bool(0.3);
                let holdings = if fails { Err("fault".to_owned()) } else { Ok(self.model.holdings(&piece)) };
                drop(piece);
                if faults && self.random.random_bool(0.05) {
                    let at = self.random.random_range(0..self.agents.len());
                    self.reconnect(at);
                }
                self.shard.told(holdings, self.now);
                return true;
            }
            Step::Wait(Some(instant)) => {
                self.model.now_ns += instant.saturating_duration_since(self.now).as_nanos() as i64;
                self.now = self.now.max(instant);
                return true;
            }
            Step::Wait(None) => return false,
        };
        let encoded = self.encoder.encode(&piece);
        drop(piece);
        if faults && self.random.random_bool(0.05) {
            // The session ends while its request is under way.
            let at = self.random.random_range(0..self.agents.len());
            self.reconnect(at);
        }
        let failed = |ambiguous| Exchange::Failed { reason: "fault".into(), ambiguous };
        let answer = |status, message: &str| {
            let retry_after = (status == 429).then_some(Duration::from_secs(2));
            Exchange::Answered(Response { status, message: message.into(), retry_after })
        };
        let exchange = if self.misrouted > 0 {
            self.misrouted -= 1;
            answer(400, "no such place")
        } else {
            match if faults { self.random.random_range(0..20) } else { 99 } {
                0 => failed(false),
                1 => failed(true),
                2 => {
                    self.model.receive(&encoded.body, self.now);
                    failed(true)
                }
                3 => {
                    self.model.receive(&encoded.body, self.now);
                    answer(502, "")
                }
                4 => answer(503, ""),
                5 => answer(429, "ingestion rate limit exceeded for user acme (limit: 4194304 bytes/sec)"),
                6 => answer(401, "no org id"),
                _ => Exchange::Answered(self.model.receive(&encoded.body, self.now)),
            }
        };
        self.shard.answered(Meaning::of(exchange), self.now);
        self.now += Duration::from_millis(1);
        true
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            let at = self.random.random_range(0..self.agents.len());
            match self.random.random_range(0..20) {
                0..8 => self.collect(at),
                8 => self.reconnect(at),
                9 if self.random.random_bool(0.05) => self.model.room += 1,
                _ => {
                    self.step(true);
                }
            }
            self.hear();
        }
        let mut left = 200_000;
        while self.step(false) {
            self.hear();
            left -= 1;
            assert!(left > 0, "it comes to an end");
        }
        self.hear();
        for agent in &self.agents {
            assert!(agent.unsettled.is_empty(), "every batch is settled");
        }
        assert_eq!(self.model.silently_dropped, 0, "no refusal is overlooked");
        self.check_store();
    }

    fn check_store(&mut self) {
        let mut repeated = 0;
        for (stream, at, line) in &self.expected {
            let copies = self.model.copies(stream, *at, line);
            assert!(copies > 0, "{stream} {line} is stored");
            repeated += copies - 1;
        }
        let text = self.registry.render();
        let counter = text.lines().find(|l| l.starts_with("pegel_output_entries_possibly_repeated_total{"));
        let counted: u64 = counter.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        assert!(repeated <= counted, "{repeated} are repeated, {counted} counted as possibly so");
        if self.sure {
            assert_eq!(repeated, 0, "Loki could be asked");
        }
        *self.settled.entry("repeated").or_default() += repeated;
    }
}

fn check(batch: &Batch, outcome: &Outcome, model: &Model, node: &str) {
    let rejected: u64 = outcome.rejections.iter().map(Rejection::count).sum();
    assert_eq!(outcome.delivered + outcome.held_already + rejected, batch.fates.len() as u64);
    let mut reasons = vec![None; batch.fates.len()];
    for rejection in &outcome.rejections {
        for (first, count) in &rejection.records {
            for index in *first..first + count {
                assert_eq!(reasons[index as usize].replace(rejection.reason), None, "refused once");
            }
        }
    }
    for ((fate, reason), (app, at, line)) in batch.fates.iter().zip(reasons).zip(&batch.entries) {
        match fate {
            Fate::StoredOrTooMany if reason.is_some() => {
                assert_eq!(reason, Some(RejectReason::TenantLimit), "{app} at {at}");
            }
            Fate::Stored | Fate::StoredOrTooMany => {
                let stream = format!("{{app=\"{app}\", node=\"{node}\", tenant=\"acme\"}}");
                assert_eq!(reason, None, "{app} at {at} is good: {outcome:?}");
                assert!(model.copies(&stream, *at, line) > 0, "{app} at {at} is stored");
            }
            Fate::Refused(why) => assert_eq!(reason, Some(*why), "{app} at {at}"),
        }
    }
}

/// The seeds: the same `ROUNDS` each time, so that a change is judged by what it changes. `PEGEL_ROUNDS` asks for more
/// of them, `PEGEL_SEED` for one other, both for so many from another on.
fn seeds() -> std::ops::Range<u64> {
    let number = |name| {
        let text: Option<String> = std::env::var(name).ok();
        text.map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    };
    let (first, asked) = (number("PEGEL_SEED"), number("PEGEL_ROUNDS"));
    let rounds = asked.unwrap_or(if first.is_some() { 1 } else { ROUNDS });
    let first = first.unwrap_or(0);
    first..first.saturating_add(rounds)
}

#[test]
fn whatever_fails_every_entry_is_stored_or_refused_with_its_reason() {
    let seeds = seeds();
    let enough_to_reach_all = seeds.end - seeds.start >= ROUNDS;
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds {
        let failed = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run(150);
            world.settled
        });
        match failed {
            Ok(settled) => settled.into_iter().for_each(|(what, n)| *seen.entry(what).or_default() += n),
            Err(panic) => {
                eprintln!("repeat with PEGEL_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    if enough_to_reach_all {
        for what in [
            "delivered",
            "held",
            "too_old",
            "too_far_in_future",
            "too_large",
            "out_of_order",
            "invalid_labels",
            "tenant_limit",
            "repeated",
        ] {
            assert!(seen.get(what).is_some_and(|n| *n > 0), "the runs reach `{what}`: {seen:?}");
        }
    }
}
