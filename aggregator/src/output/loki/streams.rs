//! What is known of streams, so that no refusal is overlooked.
//!
//! An ingester goes through the streams of a request and answers with the result of the last one (`Push` in
//! pkg/ingester/instance.go, 3.7): what it refused of an earlier one is dropped behind a 204. Refused there is what lies
//! too far behind the stream's newest entry, what goes over the stream's rate, and a stream too many. So a stream that
//! may be refused travels alone; those of which nothing of the kind is to be feared share a request.

use super::piece::Extent;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a stream counts as known after its last entry. Loki forgets one that was idle for
/// `chunk_idle_period`, half an hour, and then counts it anew.
const KNOWN_FOR: Duration = Duration::from_mins(10);
/// How far behind its stream's newest an entry may lie without fear: half of what Loki takes by default, which is half
/// of `max_chunk_age`, an hour.
const BEHIND_WITHOUT_FEAR: Duration = Duration::from_mins(30);
/// The most streams that are remembered; others travel alone each time.
const MOST: usize = 100_000;

/// The limits of one stream, as Loki's configuration has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StreamLimits {
    /// `per_stream_rate_limit`, in bytes a second.
    pub rate: u64,
    /// `per_stream_rate_limit_burst`, in bytes.
    pub burst: u64,
}

/// The streams of one shard.
#[derive(Debug)]
pub(super) struct Streams {
    limits: StreamLimits,
    known: HashMap<Arc<str>, Known>,
}

#[derive(Debug)]
struct Known {
    /// The session that it was last accepted from, and when; none if that ended.
    accepted: Option<(u64, Instant)>,
    newest_ns: i64,
    /// Bytes that Loki's bucket may still remember, of whatever was sent, and as of when.
    level: f64,
    level_at: Instant,
}

impl Streams {
    pub fn new(limits: StreamLimits) -> Self {
        Self { limits, known: HashMap::new() }
    }

    /// The time of a stream's newest entry, as far as is known.
    pub fn newest_ns(&self, stream: &str) -> i64 {
        self.known.get(stream).map_or(i64::MIN, |known| known.newest_ns)
    }

    /// Whether entries may share a request with other streams. `extent` was measured from [`Streams::newest_ns`].
    pub fn is_safe(&self, stream: &str, session: u64, extent: &Extent, now: Instant) -> bool {
        self.known.get(stream).is_some_and(|known| {
            let recent = |at| now.saturating_duration_since(at) < KNOWN_FOR;
            known.accepted.is_some_and(|(by, at)| by == session && recent(at))
                && extent.furthest_behind_ns < BEHIND_WITHOUT_FEAR.as_nanos() as i64
                // Half of the limit, as the clocks of two buckets differ.
                && self.level(known, now) + extent.bytes as f64 <= self.limits.burst as f64 / 2.0
        })
    }

    fn level(&self, known: &Known, now: Instant) -> f64 {
        let drained =
            now.saturating_duration_since(known.level_at).as_secs_f64() * self.limits.rate as f64 / 2.0;
        (known.level - drained).max(0.0)
    }

    /// Entries of a stream are sent. They count whatever is answered: the bucket is drained before.
    pub fn sent(&mut self, stream: &Arc<str>, bytes: u64, now: Instant) {
        let level = self.known.get(stream).map_or(0.0, |known| self.level(known, now)) + bytes as f64;
        if let Some(known) = self.known.get_mut(stream) {
            (known.level, known.level_at) = (level, now);
            return;
        }
        if self.known.len() >= MOST {
            self.known.retain(|_, known| now.saturating_duration_since(known.level_at) < KNOWN_FOR);
        }
        if self.known.len() < MOST {
            let known = Known { accepted: None, newest_ns: i64::MIN, level, level_at: now };
            self.known.insert(stream.clone(), known);
        }
    }

    /// Entries of a stream were accepted, after they were sent.
    pub fn accepted(&mut self, stream: &str, session: u64, newest_ns: i64, now: Instant) {
        if let Some(known) = self.known.get_mut(stream) {
            known.accepted = Some((session, now));
            known.newest_ns = known.newest_ns.max(newest_ns);
        }
    }

    /// Loki has no room for a stream, whatever was known of it.
    pub fn refused(&mut self, stream: &str) {
        if let Some(known) = self.known.get_mut(stream) {
            known.accepted = None;
        }
    }

    /// A session ended. Its agent may write elsewhere until it comes back.
    pub fn forget_session(&mut self, session: u64) {
        for known in self.known.values_mut() {
            if known.accepted.is_some_and(|(by, _)| by == session) {
                known.accepted = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: StreamLimits = StreamLimits { rate: 1_000, burst: 10_000 };

    fn extent(newest_ns: i64, bytes: u64) -> Extent {
        Extent { furthest_behind_ns: 0, newest_ns, bytes }
    }

    #[test]
    fn a_stream_travels_alone_until_it_was_accepted_and_when_it_was_idle() {
        let (mut streams, now) = (Streams::new(LIMITS), Instant::now());
        let stream: Arc<str> = "{a=\"1\"}".into();
        let one = extent(5, 10);
        assert!(!streams.is_safe(&stream, 1, &one, now));
        streams.sent(&stream, 10, now);
        assert!(!streams.is_safe(&stream, 1, &one, now));
        streams.accepted(&stream, 1, 5, now);
        assert_eq!(streams.newest_ns(&stream), 5);
        assert!(streams.is_safe(&stream, 1, &one, now));
        assert!(!streams.is_safe(&stream, 2, &one, now), "another session's");
        assert!(!streams.is_safe(&stream, 1, &one, now + KNOWN_FOR));
        streams.forget_session(1);
        assert!(!streams.is_safe(&stream, 1, &one, now));
    }

    #[test]
    fn so_do_entries_far_behind_and_more_than_half_of_the_rate() {
        let (mut streams, now) = (Streams::new(LIMITS), Instant::now());
        let stream: Arc<str> = "{a=\"1\"}".into();
        streams.sent(&stream, 10, now);
        streams.accepted(&stream, 1, 5, now);
        let behind = Extent { furthest_behind_ns: 1_800_000_000_000, ..extent(5, 10) };
        assert!(!streams.is_safe(&stream, 1, &behind, now));
        assert!(!streams.is_safe(&stream, 1, &extent(5, 5_000), now));
        assert!(streams.is_safe(&stream, 1, &extent(5, 4_900), now));
        // Whether it was taken or not.
        streams.sent(&stream, 4_900, now);
        assert!(!streams.is_safe(&stream, 1, &extent(5, 500), now));
        assert!(streams.is_safe(&stream, 1, &extent(5, 500), now + Duration::from_secs(2)));
    }
}
