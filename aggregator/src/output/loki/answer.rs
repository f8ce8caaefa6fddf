//! What Loki's answer means: the one place that decides it.
//!
//! Sources (Loki 3.7): pkg/distributor/{http,distributor,validator}.go, pkg/ingester/{instance,stream}.go,
//! pkg/loghttp/push/push.go. Everything else branches on [`Meaning`], never on status or text.

use super::complaint::{self, Complaint};
use crate::output::settlement::cut;
use pegel_proto::batch::RejectReason;
use std::time::Duration;

/// What came of sending one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Exchange {
    /// Loki, or something before it, answered.
    Answered(Response),
    /// Nothing was answered.
    Failed {
        /// Why, for people.
        reason: String,
        /// Whether the request may have arrived.
        ambiguous: bool,
    },
}

/// An answer, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Response {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub message: String,
}

/// What an answer means for what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// All of it is stored.
    Accepted,
    /// None of it is known to be stored: send it again later.
    Retry {
        after: Option<Duration>,
        /// Whether it may be stored nevertheless.
        ambiguous: bool,
        reason: String,
    },
    /// The tenant's rate is used up, nothing is stored. A request above the tenant's burst never passes: smaller ones
    /// do.
    RateLimited { after: Option<Duration>, reason: String },
    /// Too large at once: send it in halves.
    TooLarge { reason: String },
    /// What the text names is refused; [`Complaint`] says what became of the rest.
    Complained { complaint: Complaint, message: String },
    /// Some or all of it is refused for good and nobody said which: find out, deliver the others.
    Refused {
        reason: RejectReason,
        message: String,
        /// Whether the others may be stored.
        partly_stored: bool,
        /// Whether the message names a fault of entries, not just any fault.
        known: bool,
    },
    /// The output takes nothing at present: a wrong URL, credentials or tenant.
    Park { reason: String },
}

impl Meaning {
    /// Decides.
    pub fn of(exchange: Exchange) -> Self {
        let response = match exchange {
            Exchange::Answered(response) => response,
            // Refused connections, resets, time-outs. Whether bytes had left decides if it may be stored.
            Exchange::Failed { reason, ambiguous } => return Self::Retry { after: None, ambiguous, reason },
        };
        let has = |text: &str| response.message.contains(text);
        let after = response.retry_after;
        let reason = words(&response);
        match response.status {
            // 260 says that ingestion is blocked: what was sent is dropped (`block_ingestion_status_code`).
            200..300 if has("ingestion blocked for user") => Self::Park { reason },
            200..300 => Self::Accepted,
            // Beside the proxy's and Loki's own 413: the distributor hands a request on by gRPC, which has a limit of
            // its own, 4 MiB by default, and answers 500.
            413 => Self::TooLarge { reason },
            400 | 500 if has("message size too large") || has("message larger than max") => {
                Self::TooLarge { reason }
            }
            400 | 422 | 429 | 500 if let Some(complaint) = complaint::read(&response.message) => {
                Self::Complained { complaint, message: response.message }
            }
            429 => Self::RateLimited { after, reason },
            400 | 401 | 403 | 404 | 405 | 415 if has("no org id") || response.status != 400 => {
                Self::Park { reason }
            }
            // One set of labels that the parser does not know spoils all, before anything is stored.
            400 if has("couldn't parse labels") => Self::Refused {
                reason: RejectReason::InvalidLabels,
                message: reason,
                partly_stored: false,
                known: true,
            },
            400 | 409 | 422 => {
                let named = named_reason(&response.message);
                Self::Refused {
                    reason: named.unwrap_or(RejectReason::Other),
                    message: reason,
                    partly_stored: named.is_some(),
                    known: named.is_some(),
                }
            }
            408 | 425 => Self::Retry { after, ambiguous: false, reason },
            // No ingester: said before anything is sent to one.
            500.. if has("live replicas required") || has("empty ring") => {
                Self::Retry { after, ambiguous: false, reason }
            }
            500.. => Self::Retry { after, ambiguous: true, reason },
            // 1xx can't be final, 3xx is a wrong URL, and the other 4xx are about everything.
            _ => Self::Park { reason },
        }
    }
}

/// The reason that a message names which could not be read as a whole.
fn named_reason(message: &str) -> Option<RejectReason> {
    let has = |text: &str| message.contains(text);
    if has("has timestamp too old") {
        Some(RejectReason::TooOld)
    } else if has("has timestamp too new") {
        Some(RejectReason::TooFarInFuture)
    } else if has("entry too far behind") || has("entry out of order") {
        Some(RejectReason::OutOfOrder)
    } else if has("max entry size")
        || has("structured metadata too large")
        || has("too many structured metadata")
    {
        Some(RejectReason::TooLarge)
    } else if has("label names; limit")
        || has("has label name too long")
        || has("has label value too long")
        || has("has duplicate label name")
        || has("missing required labels")
        || has("error parsing labels")
        || has("at least one label pair is required")
    {
        Some(RejectReason::InvalidLabels)
    } else {
        None
    }
}

/// An answer in words for people: one line, cut.
fn words(response: &Response) -> String {
    let line = cut(response.message.trim().lines().next().unwrap_or_default(), 300);
    if line.is_empty() {
        format!("Loki answered {}", response.status)
    } else {
        format!("Loki answered {}: {line}", response.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(status: u16, message: &str) -> Meaning {
        let after = (status == 429).then_some(Duration::from_secs(2));
        Meaning::of(Exchange::Answered(Response { status, retry_after: after, message: message.into() }))
    }

    #[test]
    fn statuses_and_texts() {
        use Meaning as M;
        assert_eq!(meaning(204, ""), M::Accepted);
        assert!(matches!(
            meaning(260, "ingestion blocked for user 'a' until '…' with status code '260'"),
            M::Park { .. }
        ));
        assert!(matches!(meaning(413, "<html>"), M::TooLarge { .. }));
        let grpc = "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5001258 vs. 4194304)";
        assert!(matches!(meaning(500, grpc), M::TooLarge { .. }));
        let limit = "ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec) while attempting to ingest '35' lines totaling '7000000' bytes, reduce log volume or contact";
        assert!(matches!(meaning(429, limit), M::RateLimited { after: Some(_), .. }));
        for status in [401, 403, 404, 405, 302, 410] {
            assert!(matches!(meaning(status, "x"), M::Park { .. }), "{status}");
        }
        assert!(matches!(meaning(400, "no org id"), M::Park { .. }));
        assert!(matches!(
            meaning(400, "couldn't parse labels: 1:3: parse error"),
            M::Refused { reason: RejectReason::InvalidLabels, partly_stored: false, known: true, .. }
        ));
        assert!(matches!(meaning(400, "bad day"), M::Refused { known: false, partly_stored: false, .. }));
        assert!(matches!(
            meaning(500, "at least 1 live replicas required, could only find 0"),
            M::Retry { ambiguous: false, .. }
        ));
        for status in [500, 502, 503, 504] {
            assert!(matches!(meaning(status, "x"), M::Retry { ambiguous: true, .. }), "{status}");
        }
        let streams = "maximum active stream limit exceeded when trying to create stream {a=\"1\"}, reduce the number of active streams";
        assert!(matches!(
            meaning(429, streams),
            M::Complained { complaint: Complaint::NoMoreStreams(_), .. }
        ));
        let failed = Exchange::Failed { reason: "reset".into(), ambiguous: true };
        assert!(matches!(Meaning::of(failed), M::Retry { ambiguous: true, .. }));
    }
}
