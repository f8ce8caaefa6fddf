//! A session that ends while its records are in a request with another's: the answer is about all that was sent, so
//! it says nothing sure of what is left of it.

use super::super::answer::{Meaning, Stored};
use super::super::batch::NameRule;
use super::super::shard::{Shard, ShardSettings, Step};
use super::super::tally::Tally;
use super::{START_MS, agent_info, block, delivery, named};
use crate::fanout::Verdict;
use crate::session::ResolvedSet;
use crate::symbols::Symbols;
use pegel_proto::batch::{Outcome, RejectReason};
use pegel_runtime::metrics::Registry;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The session that stays.
const STAYS: u64 = 1;
/// The session that ends while the request is under way.
const GOES: u64 = 2;

struct Bench {
    shard: Shard,
    now: Instant,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
    /// Keeps the channel of the session that goes open.
    _gone: mpsc::UnboundedReceiver<Verdict>,
}

/// A shard that has sent one request: one record of the session that stays and one of the other, which then ends.
fn with_half_of_a_request_forgotten() -> Bench {
    let symbols = Arc::new(Symbols::new());
    let settings = ShardSettings {
        max_request_samples: 100,
        linger: Duration::ZERO,
        min_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(10),
        max_retry_after: Duration::from_mins(1),
        park_probe: Duration::from_secs(15),
        names: NameRule::Utf8,
        out_of_order_window: Duration::ZERO,
    };
    let tally = Tally::new(&Registry::new(), "o", "t");
    let mut shard = Shard::new(settings, symbols.clone(), tally, 0);
    let now = Instant::now();
    let (sender, verdicts) = mpsc::unbounded_channel();
    let (gone_sender, gone) = mpsc::unbounded_channel();
    for (node, session, reply) in [("a", STAYS, &sender), ("b", GOES, &gone_sender)] {
        let set = Arc::new(ResolvedSet::new(named(&symbols, "m", node, 1), 1));
        shard.submit(delivery(&agent_info(node, session), 1, false, vec![block(&set, START_MS)], reply), now);
    }
    let mut bench = Bench { shard, now, verdicts, _gone: gone };
    assert_eq!(bench.sent(), Some(2), "both share a request");
    bench.shard.forget_session(GOES);
    bench
}

impl Bench {
    /// How many samples are to be sent now.
    fn sent(&mut self) -> Option<usize> {
        match self.shard.poll(self.now) {
            Step::Send(piece) => Some(piece.samples()),
            Step::Wait(_) => None,
        }
    }

    fn answered(&mut self, meaning: Meaning) {
        self.shard.answered(meaning, self.now);
    }

    fn settled(&mut self) -> Option<Outcome> {
        match self.verdicts.try_recv().ok()? {
            Verdict::Settled(_, outcome) => Some(outcome),
            other => panic!("{other:?}"),
        }
    }
}

fn refused(reason: RejectReason, message: &str, stored: Stored) -> Meaning {
    Meaning::Refused { reason, message: message.into(), stored, known: true }
}

#[test]
fn a_refusal_that_may_be_of_a_forgotten_record_is_blamed_on_no_other() {
    for stored in [Stored::Nothing, Stored::MaybeRest, Stored::Count(1)] {
        let mut bench = with_half_of_a_request_forgotten();
        bench.answered(refused(RejectReason::TooOld, "out of bounds", stored));
        assert_eq!(bench.settled(), None, "{stored:?}: which of the two was refused is not known");
        assert_eq!(bench.sent(), Some(1), "{stored:?}: what is left is asked about");
        bench.answered(refused(RejectReason::TenantLimit, "per-user series limit", Stored::Nothing));
        let outcome = bench.settled().unwrap();
        assert_eq!(outcome.rejections[0].reason, RejectReason::TenantLimit, "{stored:?}");
    }
}

#[test]
fn a_count_that_may_be_of_a_forgotten_record_delivers_no_other() {
    let mut bench = with_half_of_a_request_forgotten();
    bench.answered(refused(RejectReason::OutOfOrder, "no such line", Stored::Count(1)));
    assert_eq!(bench.settled(), None, "which of the two was written is not known");
    assert_eq!(bench.sent(), Some(1));
    bench.answered(Meaning::Accepted);
    assert_eq!(bench.settled().unwrap().delivered, 1);
}

#[test]
fn what_is_left_of_a_request_that_was_too_large_may_be_small_enough() {
    let mut bench = with_half_of_a_request_forgotten();
    bench.answered(Meaning::TooLarge { reason: "too large".into() });
    assert_eq!(bench.sent(), Some(1));
    bench.answered(Meaning::Accepted);
    assert_eq!(bench.settled().unwrap().delivered, 1);
}

#[test]
fn a_refusal_of_records_that_are_all_forgotten_holds_nothing_back() {
    let mut bench = with_half_of_a_request_forgotten();
    bench.shard.forget_session(STAYS);
    let message = "the stars are wrong".into();
    let (reason, stored) = (RejectReason::Other, Stored::Nothing);
    bench.answered(Meaning::Refused { reason, message, stored, known: false });
    assert_eq!(bench.sent(), None);
    assert!(bench.shard.is_idle() && bench.shard.trouble().is_none());
}
