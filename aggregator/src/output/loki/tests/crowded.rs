//! A tenant with its most streams: who waits for one too many, and how long.

use super::super::shard::{Holdings, Step};
use super::directed::{Bench, said};
use super::{SECOND, START_NS, settings};
use crate::fanout::Verdict;
use pegel_proto::batch::RejectReason;
use std::time::Duration;

/// Answers the next request as a Loki that has no room for the streams `z…`: gives the stream if it was one.
fn answer_crowded(bench: &mut Bench) -> Option<String> {
    let piece = bench.sent();
    let shut = piece.groups.iter().find(|group| group.stream.starts_with("{app=\"z"));
    let shut = shut.map(|group| group.stream.to_string());
    assert!(shut.is_none() || piece.groups.len() == 1, "a stream that may be refused travels alone");
    drop(piece);
    match &shut {
        Some(stream) => bench.answer(429, &refusal(stream)),
        None => bench.answer(204, ""),
    }
    shut
}

fn refusal(stream: &str) -> String {
    format!("maximum active stream limit exceeded when trying to create stream {stream}, reduce the number")
}

/// Answers until so many batches are settled; gives how many entries were refused, and how often `z…` was sent.
fn settle(bench: &mut Bench, batches: usize) -> (u64, usize) {
    let (mut settled, mut refused, mut sent) = (0, 0, 0);
    for _ in 0..10_000 {
        while let Ok(Verdict::Settled(_, outcome)) = bench.verdicts.try_recv() {
            settled += 1;
            for rejection in &outcome.rejections {
                assert_eq!(rejection.reason, RejectReason::TenantLimit);
                assert!(rejection.message.contains("maximum active stream limit"), "{rejection:?}");
                refused += rejection.count();
            }
        }
        if settled == batches {
            return (refused, sent);
        }
        sent += usize::from(answer_crowded(bench).is_some());
    }
    panic!("{settled} of {batches} batches are settled");
}

#[test]
fn a_stream_too_many_holds_its_agent_up_once_and_is_tried_now_and_then() {
    let mut bench = Bench::new();
    let patience = settings().stream_patience;
    let begin = bench.now;
    bench.submit(0, &[said("a", 1), said("z", 2)]);
    assert_eq!(settle(&mut bench, 1).0, 1);
    let waited = bench.now - begin;
    assert!(waited >= patience && waited < 2 * patience, "{waited:?}");
    // From now on nobody waits.
    let begin = bench.now;
    for i in 0..20 {
        bench.submit(0, &[said("a", 10 * i), said("z", 10 * i + 1)]);
        let (refused, sent) = settle(&mut bench, 1);
        assert_eq!((refused, sent), (1, 0), "batch {i}");
    }
    assert!(bench.now - begin < Duration::from_secs(1), "{:?}", bench.now - begin);
    // Once a patience it is tried, lest a limit that was raised goes unnoticed.
    let mut tried = 0;
    for i in 20..40 {
        bench.now += patience / 5;
        bench.submit(0, &[said("a", 10 * i), said("z", 10 * i + 1)]);
        let before = bench.now;
        let (refused, sent) = settle(&mut bench, 1);
        assert!(bench.now - before < Duration::from_secs(1), "nor for that");
        assert_eq!(refused, 1);
        tried += sent;
    }
    assert!((3..=4).contains(&tried), "{tried} times in four patiences");
    // Until it is taken.
    bench.now += patience;
    bench.submit(0, &[said("z", 1_001)]);
    let piece = bench.sent();
    assert_eq!(&*piece.groups[0].stream, "{app=\"z\", node=\"n1\", tenant=\"acme\"}");
    drop(piece);
    bench.answer(204, "");
    assert_eq!(bench.outcome().delivered, 1);
    bench.submit(0, &[said("z", 1_002)]);
    drop(bench.sent());
    bench.answer(204, "");
    assert_eq!(bench.outcome().delivered, 1);
    assert!(bench.idle() && bench.shard.trouble().is_none());
    // The next time the limit is met, there is patience again.
    let begin = bench.now;
    bench.submit(0, &[said("z2", 1_003)]);
    assert_eq!(settle(&mut bench, 1).0, 1);
    assert!(bench.now - begin >= patience);
}

#[test]
fn new_streams_of_a_tenant_that_has_its_most_do_not_hold_up_one_after_the_other() {
    let mut bench = Bench::new();
    bench.submit(0, &[said("z", 1)]);
    settle(&mut bench, 1);
    let begin = bench.now;
    // As of pods that come and go, of this agent and another.
    for (i, app) in ["z1", "z2", "z3", "z4"].into_iter().enumerate() {
        bench.submit(i % 2, &[said("a", 2), said(app, 3)]);
        assert_eq!(settle(&mut bench, 1), (1, 1), "{app} is tried once");
    }
    assert!(bench.now - begin < Duration::from_secs(1), "{:?}", bench.now - begin);
}

#[test]
fn a_stream_that_is_taken_within_patience_was_no_loss() {
    let mut bench = Bench::new();
    bench.submit(0, &[said("z", 1)]);
    for _ in 0..3 {
        assert!(answer_crowded(&mut bench).is_some());
    }
    drop(bench.sent());
    bench.answer(204, "");
    assert_eq!(bench.outcome().delivered, 1);
    // Long after, it is refused again: that is another time.
    bench.now += 3 * settings().stream_patience;
    let begin = bench.now;
    bench.submit(0, &[said("z", 2)]);
    assert_eq!(settle(&mut bench, 1).0, 1);
    assert!(bench.now - begin >= settings().stream_patience);
}

#[test]
fn patience_ends_with_what_had_it() {
    let mut bench = Bench::new();
    bench.submit(0, &[said("a", 1), said("a", 2)]);
    // More are counted than were sent: what is stored is not known, so it is asked about each time.
    let limited = "entry with timestamp 2023-11-14 22:13:20.000000001 +0000 UTC ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream '{}' totaling 6B',\nuser 'acme', total ignored: 4 out of 5 for stream: {app=\"a\", node=\"n1\", tenant=\"acme\"}";
    let begin = bench.now;
    let mut held = [false; 2];
    loop {
        match bench.shard.poll(bench.now) {
            Step::Send(piece) => {
                assert_eq!(piece.groups.len(), 1);
                drop(piece);
                bench.answer(429, limited);
            }
            Step::Ask(piece) => {
                let entries = piece.len();
                drop(piece);
                if bench.now - begin > 2 * settings().stream_patience {
                    held.fill(true);
                }
                let told =
                    Holdings { held: vec![held[..entries].to_vec()], blind_before_ns: START_NS - SECOND };
                bench.shard.told(Ok(told), bench.now);
            }
            Step::Wait(Some(instant)) => bench.now = instant,
            Step::Wait(None) => break,
        }
    }
    assert_eq!(bench.outcome().held_already, 2);
    // Another agent's stream is one too many for the first time.
    let begin = bench.now;
    bench.submit(1, &[said("z", 3)]);
    let refused = settle(&mut bench, 1).0;
    assert_eq!(refused, 1);
    assert!(bench.now - begin >= settings().stream_patience, "it waits in its own right");
}

#[test]
fn patience_ends_early_where_what_waits_takes_the_memory_of_others() {
    let mut bench = Bench::new();
    bench.submit(0, &[said("z", 1)]);
    assert!(answer_crowded(&mut bench).is_some());
    let begin = bench.now;
    for i in 0..12 {
        bench.submit(0, &[("a", START_NS + i, "x".repeat(settings().max_waiting_bytes as usize / 10))]);
    }
    assert_eq!(settle(&mut bench, 13).0, 1);
    assert!(bench.now - begin < settings().stream_patience / 10, "{:?}", bench.now - begin);
}
