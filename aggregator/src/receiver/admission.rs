//! Which handshakes are let through: a token bucket, and address validation once it runs low.

use std::time::Instant;

/// What becomes of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It goes on.
    Accept,
    /// The client must first show that its address is its own (one more round trip).
    Retry,
    /// It is not answered; the client tries again by itself.
    Ignore,
    /// There are too many sessions: the client is told to go elsewhere.
    Refuse,
}

impl Decision {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Accept => "accepted",
            Self::Retry => "retry",
            Self::Ignore => "ignored",
            Self::Refuse => "refused",
        }
    }
}

#[derive(Debug)]
pub(super) struct Admission {
    per_second: f64,
    max_pending: usize,
    max_sessions: usize,
    tokens: f64,
    at: Instant,
}

impl Admission {
    /// A full bucket, which holds one second's handshakes.
    pub(super) fn new(per_second: u32, max_pending: usize, max_sessions: usize, now: Instant) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, max_pending, max_sessions, tokens: per_second, at: now }
    }

    pub(super) fn decide(
        &mut self,
        now: Instant,
        pending: usize,
        sessions: usize,
        validated: bool,
    ) -> Decision {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + since * self.per_second).min(self.per_second);
        self.at = now;
        if sessions >= self.max_sessions {
            return Decision::Refuse;
        }
        if pending >= self.max_pending {
            return Decision::Ignore;
        }
        // Half a bucket spent is load that forged addresses could make: from here on addresses are proven first,
        // which costs nothing but the answer.
        if !validated && (self.tokens < self.per_second / 2.0 || pending >= self.max_pending / 4) {
            return Decision::Retry;
        }
        if self.tokens < 1.0 {
            return Decision::Ignore;
        }
        self.tokens -= 1.0;
        Decision::Accept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_is_asked_for_its_address_then_held_to_the_rate() {
        let start = Instant::now();
        let mut admission = Admission::new(10, 100, 1_000, start);
        let unproven: Vec<_> = (0..8).map(|_| admission.decide(start, 0, 0, false)).collect();
        assert_eq!(unproven[..5], [Decision::Accept; 5]);
        assert_eq!(unproven[6..], [Decision::Retry; 2]);
        let proven: Vec<_> = (0..6).map(|_| admission.decide(start, 0, 0, true)).collect();
        assert_eq!(proven.iter().filter(|d| **d == Decision::Accept).count(), 4);
        assert_eq!(proven[5], Decision::Ignore);
        assert_eq!(admission.decide(start + Duration::from_millis(100), 0, 0, true), Decision::Accept);
    }

    #[test]
    fn full_tables_turn_handshakes_away() {
        let now = Instant::now();
        let mut admission = Admission::new(10, 100, 1_000, now);
        assert_eq!(admission.decide(now, 100, 0, true), Decision::Ignore);
        assert_eq!(admission.decide(now, 25, 0, false), Decision::Retry);
        assert_eq!(admission.decide(now, 0, 1_000, true), Decision::Refuse);
    }
}
