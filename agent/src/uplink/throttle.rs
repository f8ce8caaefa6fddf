//! The bytes a second that the aggregator asked for, over all streams of a session.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct Throttle {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes_per_second: u64,
    free_at: Option<Instant>,
}

impl Throttle {
    /// 0 lifts it.
    pub(super) fn set(&self, bytes_per_second: u64) {
        *self.state.lock() = State { bytes_per_second, free_at: None };
    }

    /// Books a write and gives how long to wait before it.
    pub(super) fn reserve(&self, bytes: usize, now: Instant) -> Duration {
        let mut state = self.state.lock();
        if state.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let at = state.free_at.unwrap_or(now).max(now);
        state.free_at = Some(at + Duration::from_secs_f64(bytes as f64 / state.bytes_per_second as f64));
        at - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_spaced_by_what_they_weigh() {
        let throttle = Throttle::default();
        let now = Instant::now();
        assert_eq!(throttle.reserve(1 << 30, now), Duration::ZERO);
        throttle.set(1_000);
        assert_eq!(throttle.reserve(500, now), Duration::ZERO);
        assert_eq!(throttle.reserve(500, now), Duration::from_millis(500));
        assert_eq!(throttle.reserve(1, now + Duration::from_secs(9)), Duration::ZERO);
        throttle.set(0);
        assert_eq!(throttle.reserve(500, now), Duration::ZERO);
    }
}
