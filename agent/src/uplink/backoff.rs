//! How long to wait before the next try: exponential with full jitter, so that a fleet does not come back as one.

use std::time::Duration;

/// The first wait is drawn from this: a thousand agents that lost one aggregator come back within a second, evenly.
pub(super) const BASE: Duration = Duration::from_secs(1);
/// No wait is longer: an aggregator that is back is found within half a minute.
pub(super) const CAP: Duration = Duration::from_secs(30);

/// Counts failures in a row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait; `fraction` is drawn evenly from 0 to 1.
    pub(super) fn next(&mut self, fraction: f64) -> Duration {
        let bound = BASE.saturating_mul(1 << self.failures.min(5)).min(CAP);
        self.failures += 1;
        bound.mul_f64(fraction)
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_over_after_success() {
        let mut backoff = Backoff::default();
        let seconds: Vec<_> = (0..7).map(|_| backoff.next(1.0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        backoff.reset();
        assert_eq!(backoff.next(0.25), Duration::from_millis(250));
    }
}
