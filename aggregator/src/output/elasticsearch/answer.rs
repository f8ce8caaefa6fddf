//! What the bulk API's answers mean, as a whole and item by item.
//!
//! Source: the documentation of the bulk API. 200 says nothing of the items: each has a status of its own.

use crate::output::settlement::cut;
use pegel_proto::batch::RejectReason;
use serde::Deserialize;
use std::time::Duration;

/// What an answer means for what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Each item has its own fate, in the order in which they were sent.
    Items(Vec<Fate>),
    /// Send all of it again later.
    Retry { after: Option<Duration>, reason: String },
    /// Too large at once: send it in halves.
    TooLarge { reason: String },
    /// The output takes nothing at present: a wrong URL, credentials or index.
    Park { reason: String },
}

/// What became of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is stored.
    Created,
    /// It was there already.
    Held,
    /// It is to be sent again later.
    Again(String),
    /// It is refused for good.
    Refused(RejectReason, String),
}

#[derive(Deserialize)]
struct Answer {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: Done,
}

#[derive(Deserialize)]
struct Done {
    status: u16,
    #[serde(default)]
    error: Option<Error>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    reason: String,
}

impl Meaning {
    /// Decides.
    pub fn of(status: u16, after: Option<Duration>, body: &[u8], items: usize) -> Self {
        let words = || {
            let text = String::from_utf8_lossy(body);
            let line = cut(text.trim().lines().next().unwrap_or_default(), 300);
            format!("Elasticsearch answered {status}: {line}")
        };
        match status {
            200..300 => match serde_json::from_slice::<Answer>(body) {
                Ok(answer) if answer.items.len() == items => {
                    Self::Items(answer.items.into_iter().map(|item| fate(item.create)).collect())
                }
                // Documents have identities: sending again does no harm.
                Ok(answer) => Self::Retry {
                    after,
                    reason: format!("Elasticsearch answered for {} of {items} entries", answer.items.len()),
                },
                Err(error) => {
                    Self::Retry { after, reason: format!("Elasticsearch's answer can't be read: {error}") }
                }
            },
            413 => Self::TooLarge { reason: words() },
            408 | 425 | 429 | 500.. => Self::Retry { after, reason: words() },
            _ => Self::Park { reason: words() },
        }
    }
}

fn fate(done: Done) -> Fate {
    let words = || {
        let error = done.error.as_ref();
        error.map_or_else(|| format!("status {}", done.status), |e| format!("{}: {}", e.kind, e.reason))
    };
    match done.status {
        200..300 => Fate::Created,
        // The same `_id` is the same entry (`version_conflict_engine_exception`).
        409 => Fate::Held,
        // `es_rejected_execution_exception`, a shard that is away; a full disk (`cluster_block_exception`), or no index
        // that may be made: about the output, not the entry.
        403 | 404 | 429 | 500.. => Fate::Again(words()),
        // `document_parsing_exception` and the like.
        _ => Fate::Refused(RejectReason::Other, words()),
    }
}
