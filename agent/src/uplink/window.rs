//! How much of each stream is sent and not acknowledged, shared between the pipeline and the streams of one session.

use super::{Attempt, StreamKey};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct Windows {
    limit_bytes: AtomicUsize,
    first_attempt: Attempt,
    streams: Mutex<HashMap<StreamKey, Window>>,
}

#[derive(Debug)]
struct Window {
    attempt: Attempt,
    in_flight_bytes: usize,
}

impl Windows {
    /// The windows of a new session, all empty.
    pub(super) fn new(first_attempt: Attempt, limit_bytes: usize) -> Self {
        Self { limit_bytes: AtomicUsize::new(limit_bytes), first_attempt, streams: Mutex::default() }
    }

    pub(super) fn set_limit(&self, bytes: usize) {
        self.limit_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_current(&self, stream: &StreamKey, attempt: Attempt) -> bool {
        self.streams.lock().get(stream).map_or(self.first_attempt, |w| w.attempt) == attempt
    }

    /// Takes room; false if there is none. An empty window has room for anything.
    pub(super) fn take(&self, stream: &StreamKey, bytes: usize) -> bool {
        let mut streams = self.streams.lock();
        let first_attempt = self.first_attempt;
        let window =
            streams.entry(stream.clone()).or_insert(Window { attempt: first_attempt, in_flight_bytes: 0 });
        let limit = self.limit_bytes.load(Ordering::Relaxed);
        let fits = window.in_flight_bytes == 0 || window.in_flight_bytes + bytes <= limit;
        if fits {
            window.in_flight_bytes += bytes;
        }
        fits
    }

    /// Replaces what was estimated by what it came to; also gives room back (`actual` 0).
    pub(super) fn settle(&self, stream: &StreamKey, attempt: Attempt, estimate: usize, actual: usize) {
        if let Some(window) = self.streams.lock().get_mut(stream)
            && window.attempt == attempt
        {
            window.in_flight_bytes = (window.in_flight_bytes + actual).saturating_sub(estimate);
        }
    }

    /// Empties a stream's window and starts its next attempt.
    pub(super) fn restart(&self, stream: &StreamKey, attempt: Attempt) {
        self.streams.lock().insert(stream.clone(), Window { attempt, in_flight_bytes: 0 });
    }

    pub(super) fn in_flight_bytes(&self, stream: &StreamKey) -> usize {
        self.streams.lock().get(stream).map_or(0, |w| w.in_flight_bytes)
    }

    pub(super) fn total_bytes(&self) -> usize {
        self.streams.lock().values().map(|w| w.in_flight_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegel_proto::identity::OutputName;

    #[test]
    fn a_window_fills_empties_and_forgets_the_attempt_before() {
        let stream = StreamKey::metrics(OutputName::parse("main").unwrap());
        let windows = Windows::new(Attempt(1), 100);
        assert!(windows.take(&stream, 500), "anything fits an empty window");
        assert!(!windows.take(&stream, 1));
        windows.settle(&stream, Attempt(1), 500, 60);
        assert!(windows.take(&stream, 40));
        assert!(!windows.take(&stream, 1));
        windows.restart(&stream, Attempt(2));
        windows.settle(&stream, Attempt(1), 60, 0);
        assert_eq!(windows.in_flight_bytes(&stream), 0);
        assert!(windows.is_current(&stream, Attempt(2)) && !windows.is_current(&stream, Attempt(1)));
    }
}
