//! `GET /api/v1/tail`: log entries, first of the recent past and then as they arrive.
//!
//! One JSON object a line (NDJSON), or server-sent events for who accepts `text/event-stream`. An entry has `at_ns` (a
//! string: JSON's readers lose digits), `tenant`, `node`, `labels`, `metadata` and `line`; what has `event` is about
//! the stream: `live` ends the past, `left_out` says how many entries were not looked at because the reader was slow,
//! `note` is for a person. Blank lines keep a silent connection alive.
//!
//! A reader is its own task: it filters and writes, and what it can't keep up with is left out before it gets here
//! ([`recent_logs`](crate::output::recent_logs)).

mod query;
mod render;

use super::overview::Caller;
use super::{Refusal, Status};
use crate::output::recent_logs::{Following, Shown};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use query::Asked;
use render::{Format, Reading};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a silent stream says that it is there: well below the minute after which proxies hang up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The least that is looked at or written before another task has its turn, in bytes.
const TURN_BYTES: usize = 256 << 10;

/// Told by a request that its answer has no end, to the one who bounds the time of answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Endless(pub(super) Arc<AtomicBool>);

/// A reader of one stream.
struct Reader {
    asked: Asked,
    format: Format,
    following: Following,
    /// What is still to be written before anything new is looked at.
    queue: VecDeque<Bytes>,
    reading: Option<Reading>,
}

pub(super) async fn tail(
    State(status): State<Arc<Status>>,
    caller: Option<Extension<Caller>>,
    endless: Option<Extension<Endless>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let Some(logs) = status.logs.clone() else {
        return Err(Refusal(StatusCode::NOT_FOUND, "this aggregator keeps no log entries in memory".into()));
    };
    let caller = caller.map_or(Caller::Operator, |Extension(caller)| caller);
    let mut asked = Asked::parse(query.as_deref().unwrap_or_default(), logs.now_ms())?;
    let guest = match caller {
        Caller::Operator => None,
        Caller::Tenant(own) => Some(asked.confine_to(own)?),
    };
    asked.check_node(&status.board.snapshot())?;
    let follows = asked.follow;
    let wants_events = headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/event-stream")));
    let format = if wants_events { Format::Events } else { Format::Lines };
    let following = logs
        .follow(asked.scope.clone(), guest)
        .map_err(|full| Refusal(StatusCode::SERVICE_UNAVAILABLE, full.to_string()))?;
    if let Some(Extension(endless)) = endless.filter(|_| follows) {
        endless.0.store(true, Ordering::Relaxed);
    }
    let mut reader = Reader { asked, format, following, queue: VecDeque::new(), reading: None };
    // The past may be many megabytes to look through.
    let mut reader = tokio::task::spawn_blocking(move || {
        reader.show_past();
        reader
    })
    .await
    .map_err(|_| {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, "looking at the past failed; see the log".into())
    })?;
    if let Some(note) = status.no_output_for("logs") {
        reader.queue.push_back(format.note(&note));
    }
    reader.queue.push_back(format.live());
    let kind = match format {
        Format::Lines => "application/x-ndjson",
        Format::Events => "text/event-stream",
    };
    let stream = futures_util::stream::unfold(reader, |mut reader| async {
        let bytes = reader.next().await?;
        Some((Ok::<_, Infallible>(bytes), reader))
    });
    let caching = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(kind)), caching], Body::from_stream(stream))
        .into_response())
}

impl Reader {
    /// Queues the newest entries of the past that the query takes, by time.
    fn show_past(&mut self) {
        let past = self.following.past();
        if self.asked.limit == 0 {
            return;
        }
        for entries in render::past(&past, &self.asked, self.format) {
            self.queue.push_back(entries);
        }
    }

    /// The next bytes of the answer; none at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.queue.pop_front() {
                return Some(bytes);
            }
            if let Some(reading) = &mut self.reading {
                let bytes = reading.render(&self.asked.query, self.format, TURN_BYTES);
                if reading.is_done() {
                    self.reading = None;
                }
                if !bytes.is_empty() {
                    return Some(bytes);
                }
                tokio::task::yield_now().await;
                continue;
            }
            if !self.asked.follow {
                return None;
            }
            match tokio::time::timeout(KEEP_ALIVE, self.following.next()).await {
                Err(_) => return Some(self.format.alive()),
                Ok(Shown::Gap(entries)) => return Some(self.format.left_out(entries)),
                Ok(Shown::Block(identity, block)) => {
                    self.reading = Some(Reading::new(&identity, block, &self.asked.query));
                }
            }
        }
    }
}
