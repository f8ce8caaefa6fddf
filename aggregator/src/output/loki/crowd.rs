//! Streams beyond the tenant's most (`max_global_streams_per_user`), which Loki refuses until others fall idle.
//!
//! That may pass, so a stream is tried for a while before its entries are refused, and its session waits meanwhile. It
//! waits once: what is known of a stream outlives the request, and a stream whose patience is used up is refused without
//! being sent, but for one try a patience. While there are such streams, the limit itself is what patience is used up
//! with: new streams are sent, and refused at once if Loki refuses them. Else each pod that comes would hold its agent up
//! anew, and with it the memory of its tenant.

use crate::output::settlement::cut;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most streams that are remembered. Others are sent each time, and refused at once.
const MOST: usize = 10_000;
/// A refusal this long ago, or two patiences, says nothing of the present.
const STALE_AFTER: Duration = Duration::from_mins(10);
/// The longest message that is kept of a stream, in bytes.
const MAX_MESSAGE_BYTES: usize = 512;

/// The streams of one shard that Loki refused as too many.
#[derive(Debug)]
pub(super) struct Crowd {
    patience: Duration,
    refused: HashMap<Arc<str>, Refused>,
    /// When a stream was last refused for good; none once all that were have been taken.
    met: Option<Instant>,
}

#[derive(Debug)]
struct Refused {
    since: Instant,
    /// When it was last sent and refused.
    last: Instant,
    /// Whether its patience is used up.
    for_good: bool,
    message: String,
}

impl Crowd {
    pub fn new(patience: Duration) -> Self {
        Self { patience, refused: HashMap::new(), met: None }
    }

    /// Loki refused a stream. Says whether its entries are to be refused; else they are to be tried again. `hurried`
    /// says that there is no room to wait.
    pub fn refused(&mut self, stream: &Arc<str>, message: &str, hurried: bool, now: Instant) -> bool {
        let stale_after = STALE_AFTER.max(2 * self.patience);
        let is_stale = |last: Instant| now.saturating_duration_since(last) > stale_after;
        if self.refused.len() >= MOST && !self.refused.contains_key(stream) {
            self.refused.retain(|_, refused| !is_stale(refused.last));
            if self.refused.len() >= MOST {
                self.met = Some(now);
                return true;
            }
        }
        let limit_is_met = self.met.is_some_and(|met| !is_stale(met));
        let refused = self.refused.entry(stream.clone()).or_insert_with(|| Refused {
            since: now,
            last: now,
            for_good: false,
            message: cut(message, MAX_MESSAGE_BYTES),
        });
        if !refused.for_good && is_stale(refused.last) {
            refused.since = now;
        }
        refused.last = now;
        refused.for_good |=
            hurried || limit_is_met || now.saturating_duration_since(refused.since) >= self.patience;
        if refused.for_good {
            self.met = Some(now);
        }
        refused.for_good
    }

    /// Why a stream's entries are refused without being sent, if they are.
    pub fn shut_out(&self, stream: &str, now: Instant) -> Option<&str> {
        let refused = self.refused.get(stream).filter(|refused| refused.for_good)?;
        (now.saturating_duration_since(refused.last) < self.patience).then_some(&*refused.message)
    }

    /// Loki took entries of a stream.
    pub fn accepted(&mut self, stream: &str) {
        if self.refused.is_empty() || self.refused.remove(stream).is_none() {
            return;
        }
        if !self.refused.values().any(|refused| refused.for_good) {
            self.met = None;
        }
    }

    /// Whether no stream is known to be one too many.
    pub fn is_empty(&self) -> bool {
        self.refused.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn stream(i: usize) -> Arc<str> {
        format!("{{i=\"{i}\"}}").into()
    }

    #[test]
    fn where_there_is_no_room_to_wait_nobody_does() {
        let (mut crowd, now) = (Crowd::new(PATIENCE), Instant::now());
        assert!(!crowd.refused(&stream(1), "full", false, now));
        assert_eq!(crowd.shut_out(&stream(1), now), None);
        assert!(crowd.refused(&stream(1), "full", true, now));
        assert_eq!(crowd.shut_out(&stream(1), now), Some("full"));
        assert_eq!(crowd.shut_out(&stream(1), now + PATIENCE), None, "it is tried");
    }

    #[test]
    fn what_was_refused_long_ago_says_nothing_of_the_present() {
        let (mut crowd, now) = (Crowd::new(PATIENCE), Instant::now());
        assert!(!crowd.refused(&stream(1), "full", false, now));
        let later = now + 2 * STALE_AFTER;
        assert!(!crowd.refused(&stream(1), "full", false, later), "its session ended meanwhile");
        assert!(crowd.refused(&stream(1), "full", false, later + PATIENCE));
        assert!(crowd.refused(&stream(2), "full", false, later + PATIENCE), "the limit is met");
        let later = later + 2 * STALE_AFTER;
        assert!(!crowd.refused(&stream(3), "full", false, later));
        assert!(crowd.refused(&stream(1), "full", false, later), "this one was not taken since");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_then_nobody_waits() {
        let (mut crowd, now) = (Crowd::new(PATIENCE), Instant::now());
        for i in 0..MOST {
            assert!(!crowd.refused(&stream(i), "full", false, now));
        }
        assert!(crowd.refused(&stream(MOST), "full", false, now));
        assert_eq!(crowd.refused.len(), MOST);
        let later = now + 2 * STALE_AFTER;
        assert!(!crowd.refused(&stream(MOST), "full", false, later));
        assert_eq!(crowd.refused.len(), 1, "stale ones made room");
    }
}
