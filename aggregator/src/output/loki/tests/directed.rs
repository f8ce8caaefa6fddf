//! Decisions of the shard, one at a time.

use super::super::answer::{Exchange, Meaning, Response};
use super::super::limits::Limits;
use super::super::piece::{Group, Piece};
use super::super::shard::{Holdings, Shard, ShardSettings, Step};
use super::super::tally::Tally;
use super::{SECOND, START_NS, Said, agent_info, delivery, settings};
use crate::fanout::Verdict;
use crate::session::AgentInfo;
use pegel_proto::batch::{Outcome, RejectReason};
use pegel_runtime::metrics::Registry;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

pub(super) struct Bench {
    pub(super) shard: Shard,
    pub(super) now: Instant,
    agents: [Arc<AgentInfo>; 2],
    seq: u64,
    sender: mpsc::UnboundedSender<Verdict>,
    pub(super) verdicts: mpsc::UnboundedReceiver<Verdict>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: ShardSettings) -> Self {
        let (sender, verdicts) = mpsc::unbounded_channel();
        let shard = Shard::new(settings, Tally::new(&Registry::new(), "o", "t"), 1);
        let agents = [agent_info("n1", 1), agent_info("n2", 2)];
        Self { shard, now: Instant::now(), agents, seq: 0, sender, verdicts }
    }

    pub(super) fn submit(&mut self, agent: usize, entries: &[Said]) {
        self.seq += 1;
        self.shard.submit(
            delivery(&self.agents[agent], self.seq, false, entries, &self.sender),
            self.now,
            START_NS,
        );
    }

    /// The next request; waits until it is due.
    pub(super) fn sent(&mut self) -> Arc<Piece> {
        loop {
            match self.shard.poll(self.now) {
                Step::Send(piece) => return piece,
                Step::Wait(Some(instant)) => self.now = instant,
                other => panic!("{other:?} where a request was to be sent"),
            }
        }
    }

    pub(super) fn answer(&mut self, status: u16, message: &str) {
        let response = Response { status, message: message.into(), retry_after: None };
        self.shard.answered(Meaning::of(Exchange::Answered(response)), self.now);
    }

    pub(super) fn idle(&mut self) -> bool {
        matches!(self.shard.poll(self.now), Step::Wait(None))
    }

    pub(super) fn outcome(&mut self) -> Outcome {
        match self.verdicts.try_recv() {
            Ok(Verdict::Settled(_, outcome)) => outcome,
            other => panic!("{other:?} where a batch was to be settled"),
        }
    }
}

pub(super) fn said(app: &'static str, i: i64) -> Said {
    (app, START_NS + i, format!("line {i}"))
}

fn streams(piece: &Piece) -> Vec<&str> {
    piece.groups.iter().map(|group| &group.stream[6..7]).collect()
}

#[test]
fn streams_travel_alone_first_and_together_once_they_are_known() {
    let mut bench = Bench::new();
    bench.submit(0, &[said("a", 1), said("b", 2), said("a", 3)]);
    let piece = bench.sent();
    assert_eq!((streams(&piece), piece.len()), (vec!["a"], 2));
    drop(piece);
    bench.answer(204, "");
    assert_eq!(streams(&bench.sent()), ["b"]);
    bench.answer(204, "");
    assert_eq!(bench.outcome().delivered, 3);
    bench.submit(0, &[said("a", 4), said("b", 5), said("c", 6)]);
    assert_eq!(streams(&bench.sent()), ["a", "b"]);
    bench.answer(204, "");
    assert_eq!(streams(&bench.sent()), ["c"]);
    bench.answer(204, "");
    // Another session of the agent may have written elsewhere meanwhile.
    bench.shard.forget_session(1);
    bench.agents[0] = agent_info("n1", 3);
    bench.submit(0, &[said("a", 7), said("b", 8)]);
    assert_eq!(streams(&bench.sent()), ["a"]);
    bench.answer(204, "");
    assert_eq!(streams(&bench.sent()), ["b"]);
}

#[test]
fn an_agents_stream_over_its_rate_holds_up_no_other_agent() {
    let mut bench = Bench::new();
    bench.submit(0, &[said("a", 1)]);
    let refusal = "entry with timestamp 2023-11-14 22:13:20.000000001 +0000 UTC ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream '{}' totaling 6B',\nuser 'acme', total ignored: 1 out of 1 for stream: {app=\"a\", node=\"n1\", tenant=\"acme\"}";
    drop(bench.sent());
    bench.answer(429, refusal);
    bench.submit(0, &[said("b", 2)]);
    bench.submit(1, &[said("c", 3)]);
    let before = bench.now;
    bench.now += Duration::from_millis(6);
    assert_eq!(streams(&bench.sent()), ["c"], "the other agent's");
    bench.answer(204, "");
    assert_eq!(bench.outcome().delivered, 1);
    assert_eq!(streams(&bench.sent()), ["a"], "then what was put aside, before its session goes on");
    assert!(bench.now >= before + Duration::from_millis(50));
    bench.answer(204, "");
    assert_eq!(streams(&bench.sent()), ["b"]);
    bench.answer(204, "");
    assert_eq!((bench.outcome().delivered, bench.outcome().delivered), (1, 1));
    assert!(bench.idle() && bench.shard.trouble().is_none());
}

#[test]
fn a_request_above_the_tenants_burst_is_made_smaller() {
    let mut bench = Bench::new();
    let entries: Vec<_> = (0..64).map(|i| said("a", i)).collect();
    bench.submit(0, &entries);
    let mut requests = 0;
    let mut delivered = 0;
    while delivered < 64 {
        requests += 1;
        assert!(requests < 100, "it comes to an end");
        let sent = bench.sent().len();
        if sent > 10 {
            bench.answer(429, "ingestion rate limit exceeded for user acme (limit: 1 bytes/sec)");
        } else {
            delivered += sent;
            bench.answer(204, "");
        }
    }
    assert_eq!(bench.outcome().delivered, 64);
}

#[test]
fn a_stream_too_many_is_refused_when_patience_ends() {
    let mut bench = Bench::new();
    bench.submit(0, &[said("a", 1)]);
    let refusal = "maximum active stream limit exceeded when trying to create stream {app=\"a\", node=\"n1\", tenant=\"acme\"}, reduce the number";
    let begin = bench.now;
    for _ in 0..100 {
        if bench.idle() {
            break;
        }
        drop(bench.sent());
        bench.answer(429, refusal);
    }
    let outcome = bench.outcome();
    assert_eq!(outcome.rejections[0].reason, RejectReason::TenantLimit);
    assert!(bench.now >= begin + settings().stream_patience);
}

#[test]
fn an_answer_about_more_than_is_left_is_not_taken_for_an_answer_about_the_rest() {
    let mut bench = Bench::new();
    for (agent, app) in [(0, "a"), (1, "a")] {
        bench.submit(agent, &[said(app, 1)]);
        drop(bench.sent());
        bench.answer(204, "");
        bench.outcome();
    }
    bench.submit(0, &[said("a", 2)]);
    bench.submit(1, &[said("a", 3)]);
    assert_eq!(bench.sent().groups.len(), 2);
    bench.shard.forget_session(1);
    bench.answer(400, "entry for stream '{app=\"a\", node=\"n1\", tenant=\"acme\"}' has timestamp too new: 2023-11-14T22:13:20Z");
    // Nobody knows whether the other's was stored: Loki is asked.
    let Step::Ask(piece) = bench.shard.poll(bench.now) else { panic!() };
    assert_eq!(piece.len(), 1);
    drop(piece);
    bench.shard.told(Ok(Holdings { held: vec![vec![true]], blind_before_ns: START_NS - SECOND }), bench.now);
    assert_eq!(bench.outcome().held_already, 1);
    assert!(bench.idle());
}

#[test]
fn refusals_without_a_reason_park_an_output_that_never_took_anything() {
    let mut bench = Bench::new();
    bench.submit(0, &[said("a", 1), said("a", 2)]);
    for _ in 0..3 {
        drop(bench.sent());
        bench.answer(400, "no such place");
    }
    assert!(matches!(bench.shard.poll(bench.now), Step::Wait(Some(_))));
    assert!(matches!(bench.verdicts.try_recv(), Ok(Verdict::Parked(_))));
    for _ in 0..2 {
        drop(bench.sent());
        bench.answer(204, "");
    }
    assert_eq!(bench.verdicts.try_recv(), Ok(Verdict::Resumed));
    assert_eq!(bench.outcome().delivered, 2);
}

#[test]
fn what_is_over_a_limit_is_refused_unsent_and_the_rest_goes() {
    let limits = Limits { line: 20, label_value: 4, age: Duration::from_hours(1), ..Limits::default() };
    let mut bench = Bench::with(ShardSettings { limits, ..settings() });
    let minutes = |n: i64| n * 60 * SECOND;
    let entries = [
        ("a", START_NS - minutes(62), "too old".to_owned()),
        // The clocks may differ: Loki has the say.
        ("a", START_NS - minutes(60) - SECOND, "old".to_owned()),
        ("a", START_NS, "l".repeat(21)),
        ("long-value", START_NS, "x".to_owned()),
        ("a", START_NS + minutes(600), "ahead".to_owned()),
    ];
    bench.submit(0, &entries);
    let piece = bench.sent();
    let sent: Vec<_> = piece.groups.iter().flat_map(Group::records).map(|record| record.index).collect();
    assert_eq!(sent, [1, 4]);
    bench.answer(204, "");
    let outcome = bench.outcome();
    assert_eq!(outcome.delivered, 2);
    let refused: Vec<_> =
        outcome.rejections.iter().map(|r| (r.reason, r.records.clone(), r.message.as_str())).collect();
    assert_eq!(
        refused,
        [
            (RejectReason::TooOld, vec![(0, 1)], "the entry is older than limits.max_age, 3600s"),
            (
                RejectReason::InvalidLabels,
                vec![(3, 1)],
                "the value of the label `app` has 10 bytes, over limits.label_value, 4"
            ),
            (RejectReason::TooLarge, vec![(2, 1)], "a line of 21 bytes is over limits.line, 20"),
        ]
    );
}

#[test]
fn labels_are_counted_as_loki_counts_them() {
    let limits = Limits { labels: 3, label_name: 8, ..Limits::default() };
    let check = |labels: &[(&str, &str)]| limits.check_labels(labels).err().map(|fault| fault.to_string());
    assert_eq!(check(&[("a", "1"), ("node", "n"), ("tenant", "t")]), None);
    assert_eq!(
        check(&[("a", "1"), ("node", "n"), ("service_name", "s"), ("tenant", "t")]),
        Some("the label name `service_name…` is longer than limits.label_name, 8 bytes".to_owned())
    );
    let four = [("a", "1"), ("b", "1"), ("node", "n"), ("tenant", "t")];
    assert_eq!(check(&four), Some("the stream has 4 labels, over limits.labels, 3".to_owned()));
    assert_eq!(Limits::NONE.check_labels(&four), Ok(()));
}

#[test]
fn what_loki_may_hold_already_is_held_against_no_limit() {
    let limits = Limits { line: 3, ..Limits::default() };
    let mut bench = Bench::with(ShardSettings { limits, can_ask: false, ..settings() });
    bench.seq += 1;
    let delivery = delivery(&bench.agents[0], bench.seq, true, &[said("a", 1)], &bench.sender);
    bench.shard.submit(delivery, bench.now, START_NS);
    assert_eq!(bench.sent().len(), 1);
    bench.answer(204, "");
    assert_eq!(bench.outcome().delivered, 1);
}
