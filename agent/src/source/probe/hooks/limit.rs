//! How often a hook may run: so many times in a window of time, for a target and in all. No clock, no I/O.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// How often a hook runs for one target, unless told otherwise: a restart that did not help three times won't the
/// fourth time.
pub const DEFAULT_PER_TARGET: u32 = 3;
/// How often it runs in all: an outage of a site is nothing that a restart of everything mends.
pub const DEFAULT_IN_ALL: u32 = 20;
/// The time in which it does.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(3_600);

/// The bounds of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// For one target; at least 1.
    pub per_target: u32,
    /// In all; at least 1.
    pub in_all: u32,
    /// In this time.
    pub window: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { per_target: DEFAULT_PER_TARGET, in_all: DEFAULT_IN_ALL, window: DEFAULT_WINDOW }
    }
}

/// The runs of a hook in the last window, at most as many as its bounds allow.
#[derive(Debug, Default)]
pub struct Limit {
    runs: VecDeque<(Instant, u64)>,
}

impl Limit {
    /// Whether the hook may run for a target, told by a hash, now; if so, that is counted.
    pub fn admit(&mut self, bounds: &Bounds, target: u64, now: Instant) -> bool {
        while self.runs.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= bounds.window) {
            self.runs.pop_front();
        }
        let of_target = self.runs.iter().filter(|(_, of)| *of == target).count();
        let room = self.runs.len() < bounds.in_all as usize && of_target < bounds.per_target as usize;
        if room {
            self.runs.push_back((now, target));
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_target_and_all_of_them_have_their_bounds() {
        let bounds = Bounds { per_target: 2, in_all: 3, window: Duration::from_secs(10) };
        let (mut limit, begin) = (Limit::default(), Instant::now());
        let mut at = |seconds, target| limit.admit(&bounds, target, begin + Duration::from_secs(seconds));
        assert!(at(0, 1) && at(1, 1) && !at(2, 1));
        assert!(at(3, 2) && !at(4, 3), "three in all");
        assert!(at(10, 1), "the first is over");
        assert!(!at(10, 3) && at(11, 3));
    }

    proptest! {
        #[test]
        fn no_window_has_more_than_its_bounds(
            calls in proptest::collection::vec((0_u64..5, 0_u64..4), 1..100), per_target in 1_u32..4, in_all in 1_u32..6,
        ) {
            let window = Duration::from_secs(7);
            let bounds = Bounds { per_target, in_all, window };
            let (mut limit, mut now) = (Limit::default(), Instant::now());
            let mut admitted: Vec<(Instant, u64)> = Vec::new();
            for (after, target) in calls {
                now += Duration::from_secs(after);
                if limit.admit(&bounds, target, now) {
                    admitted.push((now, target));
                }
                let lately: Vec<_> = admitted.iter().filter(|(at, _)| now - *at < window).collect();
                prop_assert!(lately.len() <= in_all as usize);
                prop_assert!(lately.iter().filter(|(_, of)| *of == target).count() <= per_target as usize);
            }
        }
    }
}
