//! The table of answers.

use super::super::Version;
use super::super::answer::{Exchange, Meaning, Response, Sent, Stored, is_held, known_reason};
use pegel_proto::batch::RejectReason;
use std::time::Duration;

const V1: Sent = Sent { version: Version::V1, may_downgrade: false, confirmed_v2: false, samples: 10 };
const AUTO: Sent = Sent { version: Version::V2, may_downgrade: true, confirmed_v2: false, samples: 10 };
const AUTO_CONFIRMED: Sent = Sent { confirmed_v2: true, ..AUTO };
const V2: Sent = Sent { may_downgrade: false, ..AUTO };

fn meaning(sent: Sent, status: u16, written: Option<u64>, message: &str) -> Meaning {
    let response = Response { status, retry_after: None, written, message: message.into() };
    Meaning::of(Exchange::Answered(response), sent)
}

fn refused(meaning: &Meaning) -> Option<(RejectReason, Stored)> {
    match meaning {
        Meaning::Refused { reason, stored, .. } => Some((*reason, *stored)),
        _ => None,
    }
}

#[test]
fn two_hundreds_count_only_with_the_counts_that_two_zero_demands() {
    assert_eq!(meaning(V1, 204, None, ""), Meaning::Accepted);
    assert_eq!(meaning(AUTO, 204, Some(10), ""), Meaning::Accepted);
    assert_eq!(meaning(AUTO, 204, None, ""), Meaning::Downgrade { ambiguous: true });
    assert!(matches!(meaning(V2, 200, None, ""), Meaning::Park { .. }));
    assert_eq!(refused(&meaning(AUTO, 200, Some(9), "")), Some((RejectReason::Other, Stored::Count(9))));
}

#[test]
fn a_backend_without_two_zero_is_spoken_to_in_one_zero() {
    assert_eq!(meaning(AUTO, 415, None, ""), Meaning::Downgrade { ambiguous: false });
    assert_eq!(meaning(AUTO_CONFIRMED, 415, None, ""), Meaning::Downgrade { ambiguous: false });
    assert_eq!(meaning(AUTO, 400, None, "proto: wrong wireType"), Meaning::Downgrade { ambiguous: false });
    assert!(matches!(meaning(V2, 415, None, ""), Meaning::Park { .. }));
    assert!(matches!(meaning(V1, 415, None, ""), Meaning::Park { .. }));
    assert_eq!(
        refused(&meaning(AUTO_CONFIRMED, 400, None, "what")),
        Some((RejectReason::Other, Stored::MaybeRest))
    );
}

#[test]
fn failures_of_the_moment_are_tried_again() {
    for (status, ambiguous) in
        [(429, false), (408, false), (500, true), (502, true), (503, true), (504, true)]
    {
        match meaning(V1, status, None, "busy") {
            Meaning::Retry { ambiguous: found, after: None, .. } => assert_eq!(found, ambiguous, "{status}"),
            other => panic!("{status}: {other:?}"),
        }
    }
    let wait = Some(Duration::from_secs(7));
    let response = Response { status: 503, retry_after: wait, ..Response::default() };
    assert!(matches!(
        Meaning::of(Exchange::Answered(response), V1),
        Meaning::Retry { after, .. } if after == wait
    ));
}

#[test]
fn what_is_about_everything_parks_and_never_refuses() {
    for status in [301, 401, 403, 404, 405, 410] {
        assert!(matches!(meaning(V1, status, None, "no such tenant"), Meaning::Park { .. }), "{status}");
        assert!(matches!(meaning(AUTO, status, None, ""), Meaning::Park { .. }), "{status}");
    }
}

#[test]
fn too_old_never_loops_whatever_status_it_arrives_with() {
    for status in [400, 409, 422, 500, 503] {
        for text in ["out of bounds", "too old sample", "add 3 samples: out of bounds"] {
            let meaning = meaning(V1, status, None, text);
            assert_eq!(refused(&meaning).map(|r| r.0), Some(RejectReason::TooOld), "{status} {text}");
        }
    }
}

#[test]
fn what_a_refusal_leaves_stored_is_known_for_each_backend() {
    let stored = |sent, status, written, text| refused(&meaning(sent, status, written, text)).unwrap().1;
    assert_eq!(stored(V1, 400, None, "out of order sample"), Stored::Nothing);
    assert_eq!(stored(V1, 409, None, "out of order sample"), Stored::MaybeRest);
    assert_eq!(stored(V1, 400, None, "x (err-mimir-sample-out-of-order)"), Stored::MaybeRest);
    assert_eq!(stored(AUTO, 400, Some(4), "out of order sample for series {}"), Stored::Count(4));
}

#[test]
fn the_reason_is_read_from_the_message() {
    for (text, reason) in [
        ("out of order sample", Some(RejectReason::OutOfOrder)),
        ("duplicate sample for timestamp 1; overrides not allowed", Some(RejectReason::DuplicateTimestamp)),
        ("out of bounds", Some(RejectReason::TooOld)),
        ("out of bounds: timestamp is too far in the future", Some(RejectReason::TooFarInFuture)),
        ("too old sample", Some(RejectReason::TooOld)),
        ("invalid metric name or labels, got {}", Some(RejectReason::InvalidLabels)),
        ("label name too long", Some(RejectReason::InvalidLabels)),
        (
            "per-user series limit of 5 exceeded (err-mimir-max-series-per-user)",
            Some(RejectReason::TenantLimit),
        ),
        ("I'm a teapot", None),
    ] {
        assert_eq!(known_reason(text), reason, "{text}");
    }
}

#[test]
fn another_value_at_the_instant_is_never_ours() {
    let message = |a, b| {
        format!(
            "duplicate sample for timestamp 5; overrides not allowed: existing {a}, new value {b} for series {{}}"
        )
    };
    assert!(is_held(RejectReason::OutOfOrder, "out of order sample"));
    assert!(is_held(RejectReason::DuplicateTimestamp, "duplicate sample for timestamp"));
    assert!(is_held(RejectReason::DuplicateTimestamp, &message("NaN", "NaN")));
    assert!(!is_held(RejectReason::DuplicateTimestamp, &message("1", "2")));
    assert!(!is_held(RejectReason::TooOld, "out of bounds"));
}
