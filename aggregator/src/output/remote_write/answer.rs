//! What a backend's answer means: the one place that decides it.
//!
//! Sources: Prometheus storage/remote/{client,write_handler,stats}.go and storage/interface.go; the remote-write
//! specifications 1.0 and 2.0; Thanos pkg/receive/handler.go; Mimir pkg/util/globalerror; VictoriaMetrics
//! app/vminsert. Everything else branches on [`Meaning`], never on status or text.

use super::Version;
use pegel_proto::batch::RejectReason;
use std::time::Duration;

/// What came of sending one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// The backend, or something before it, answered.
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
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// How long the backend asks to wait, from either form of Retry-After.
    pub retry_after: Option<Duration>,
    /// `X-Prometheus-Remote-Write-Samples-Written`; 0 if only another of the written headers is there.
    pub written: Option<u64>,
    /// The body.
    pub message: String,
}

/// The request that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The protocol.
    pub version: Version,
    /// Whether 1.0 may be used instead.
    pub may_downgrade: bool,
    /// Whether this backend has shown before that it speaks 2.0.
    pub confirmed_v2: bool,
    /// How many samples were sent.
    pub samples: u64,
}

/// What of a refused request the backend may have stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Nothing.
    Nothing,
    /// The rest may be stored; nobody said how much.
    MaybeRest,
    /// So many samples.
    Count(u64),
}

/// What an answer means for what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// All of it is stored.
    Accepted,
    /// None of it is known to be stored: send it again later.
    Retry {
        /// How long the backend asks to wait.
        after: Option<Duration>,
        /// Whether it may be stored nevertheless.
        ambiguous: bool,
        /// For people.
        reason: String,
    },
    /// The backend does not speak 2.0: send it as 1.0, now and from now on.
    Downgrade {
        /// Whether a backend that does speak it may have stored this.
        ambiguous: bool,
    },
    /// Too large at once: send it in halves.
    TooLarge {
        /// For people.
        reason: String,
    },
    /// Some or all of it is refused for good: find out which records, deliver the others.
    Refused {
        /// Why, as far as the message tells.
        reason: RejectReason,
        /// The message, not cut.
        message: String,
        /// What happened to the others.
        stored: Stored,
        /// Whether the message names a fault of records, not just any fault.
        known: bool,
    },
    /// The output takes nothing at present: a wrong URL, credentials or tenant.
    Park {
        /// For people.
        reason: String,
    },
}

impl Meaning {
    /// Decides.
    pub fn of(exchange: Exchange, sent: Sent) -> Self {
        let response = match exchange {
            Exchange::Answered(response) => response,
            // Refused connections, resets, time-outs. Whether bytes had left decides if it may be stored.
            Exchange::Failed { reason, ambiguous } => return Self::Retry { after: None, ambiguous, reason },
        };
        let v2 = sent.version == Version::V2;
        let named = known_reason(&response.message);
        let reason = || words(&response);
        match response.status {
            200..300 if !v2 => Self::Accepted,
            200..300 => match response.written {
                Some(written) if written >= sent.samples => Self::Accepted,
                // The specification allows only full acceptance here; a lower count is never taken for it.
                Some(written) => Self::Refused {
                    reason: RejectReason::Other,
                    message: format!("the backend answered {} but wrote only a part", response.status),
                    stored: Stored::Count(written),
                    known: false,
                },
                // A receiver that ignores the content type decodes a 2.0 message as an empty 1.0 one and is content
                // (VictoriaMetrics, Prometheus before 2.50). If a proxy drops the headers it is stored.
                None if sent.may_downgrade => Self::Downgrade { ambiguous: true },
                None => Self::Park {
                    reason: "the backend does not say what it wrote, so it does not take remote write 2.0: set the output's protocol to auto or 1.0".into(),
                },
            },
            // The specification's way to say so.
            415 if v2 && sent.may_downgrade => Self::Downgrade { ambiguous: false },
            // Before any sign of 2.0: a receiver that trips over the message (older Cortex and Thanos answer 400).
            400 | 422 if v2 && sent.may_downgrade && !sent.confirmed_v2 && response.written.is_none() => {
                Self::Downgrade { ambiguous: false }
            }
            // About everything: credentials, tenant, URL (404: Prometheus' receiver is not enabled), protocol.
            401 | 403 | 404 | 405 | 415 => Self::Park { reason: reason() },
            413 => Self::TooLarge { reason: reason() },
            // 408 and 425 are about the connection, 429 about now. Nothing is stored.
            408 | 425 | 429 => {
                Self::Retry { after: response.retry_after, ambiguous: false, reason: reason() }
            }
            // A fault of records, whatever status it arrives with: Prometheus 400, Thanos 409 (500 in old ones),
            // Mimir 400 or 422. "Too old" would else be sent for ever.
            400.. if let Some(why) = named => Self::Refused {
                reason: why,
                stored: stored(&response, v2),
                message: response.message,
                known: true,
            },
            // Unnamed faults of records, and all that says "bad request".
            400 | 409 | 422 => Self::Refused {
                reason: RejectReason::Other,
                stored: stored(&response, v2),
                message: reason(),
                known: false,
            },
            // Prometheus rolls back, but a proxy (502, 504) or a quorum (Thanos) may have stored it.
            500.. => Self::Retry { after: response.retry_after, ambiguous: true, reason: reason() },
            // 1xx can't be final, 3xx is a wrong URL, and the other 4xx are about everything: 402, 410, 451…
            _ => Self::Park { reason: reason() },
        }
    }
}

/// What a refusal leaves stored of the other records.
fn stored(response: &Response, v2: bool) -> Stored {
    match response.written {
        // 2.0 commits the good ones and counts them (`writeV2`).
        Some(written) if v2 => Stored::Count(written),
        // Thanos writes what it can before 409; Mimir's messages carry their identifiers and it does likewise.
        _ if v2 || response.status != 400 || response.message.contains("err-mimir-") => Stored::MaybeRest,
        // Prometheus' 1.0 rolls the whole request back at the first bad sample (`write`).
        _ => Stored::Nothing,
    }
}

/// The reason that a message names, if it names one. The texts are Prometheus' (storage/interface.go), which Thanos
/// and Cortex pass on, and Mimir's identifiers.
pub(super) fn known_reason(message: &str) -> Option<RejectReason> {
    let has = |text: &str| message.contains(text);
    // "out of bounds: timestamp is too far in the future" has the text for too old in it as well.
    if has("too far in the future") || has("err-mimir-too-far-in-future") {
        Some(RejectReason::TooFarInFuture)
    } else if has("out of bounds")
        || has("too old sample")
        || has("timestamp-too-old")
        || has("sample too old")
    {
        Some(RejectReason::TooOld)
    } else if has("duplicate sample for timestamp") || has("duplicate-timestamp") {
        Some(RejectReason::DuplicateTimestamp)
    } else if has("out of order sample") || has("sample-out-of-order") {
        Some(RejectReason::OutOfOrder)
    } else if has("invalid metric name or labels")
        || has("invalid labels for series")
        || has("parsing labels for series")
        || has("label name")
        || has("label value")
        || has("label-invalid")
        || has("label-name-too-long")
        || has("label-value-too-long")
        || has("max-label-names-per-series")
        || has("out of order labels")
        || has("duplicate label")
    {
        Some(RejectReason::InvalidLabels)
    } else if has("err-mimir-max-series") || has("per-user series limit") || has("per-metric series limit") {
        Some(RejectReason::TenantLimit)
    } else {
        None
    }
}

/// Whether a refused record that was sent before is there already. Only an order or duplicate error can be about
/// ourselves, and only if the message does not say that another value is there: a batch's content never changes.
pub(super) fn is_held(reason: RejectReason, message: &str) -> bool {
    match reason {
        RejectReason::OutOfOrder => true,
        RejectReason::DuplicateTimestamp => !names_another_value(message),
        _ => false,
    }
}

/// `duplicate sample for timestamp 1; overrides not allowed: existing 1, new value 2`
/// (`errDuplicateSampleForTimestamp` in storage/interface.go).
fn names_another_value(message: &str) -> bool {
    let values = message
        .split_once("existing ")
        .and_then(|(_, rest)| rest.split_once(", new value "))
        .map(|(existing, new)| (existing, new.split([' ', '\n']).next().unwrap_or_default()));
    values.is_some_and(|(existing, new)| existing != new)
}

/// An answer in words for people: one line, cut.
fn words(response: &Response) -> String {
    let line = response.message.trim().lines().next().unwrap_or_default();
    let line = crate::output::settlement::cut(line, 300);
    if line.is_empty() {
        format!("the backend answered {}", response.status)
    } else {
        format!("the backend answered {}: {line}", response.status)
    }
}
