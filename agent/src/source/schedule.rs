//! When a target is scraped: at `offset + k × interval` on the monotonic clock, for whole k.
//!
//! The offset is a hash of the target ([`offset`]), so that targets of one interval spread over it and the same
//! target is due at the same phase after a reload. A scrape that ends late skips the instants that passed
//! meanwhile; it never makes up for them in a burst. Because only the monotonic clock is asked, a step of the wall
//! clock neither delays nor repeats a scrape.

use std::time::Duration;

/// A scrape that begins at most this late (and at most a hundredth of its interval) has the time at which it was
/// due: equal distances between samples cost next to nothing on the wire, and timers wake a millisecond late.
const STAMP_TOLERANCE: Duration = Duration::from_millis(10);

/// How far before now the sample time of a scrape lies that began this `late`.
pub fn stamp_lateness(late: Duration, interval: Duration) -> Duration {
    if late <= STAMP_TOLERANCE.min(interval / 100) { late } else { Duration::ZERO }
}

/// A target's instants, as times since an origin on the monotonic clock that all schedules of a source share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    interval: Duration,
    offset: Duration,
}

impl Schedule {
    /// Every `interval`, `offset` after the origin's multiples of it. An interval of zero is taken as one
    /// millisecond, the finest that timers do; an offset beyond the interval wraps around.
    pub fn new(interval: Duration, offset: Duration) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        let offset = Duration::from_nanos((offset.as_nanos() % interval.as_nanos()) as u64);
        Self { interval, offset }
    }

    /// The first instant after `now`.
    pub fn next_after(&self, now: Duration) -> Duration {
        let Some(since) = now.checked_sub(self.offset) else {
            return self.offset;
        };
        let passed = since.as_nanos() / self.interval.as_nanos() + 1;
        self.offset + Duration::from_nanos((passed * self.interval.as_nanos()) as u64)
    }

    /// How many instants lie after `done` and at or before `now`: those that a scrape due at `done` made pass unused.
    pub fn skipped_between(&self, done: Duration, now: Duration) -> u64 {
        let first = self.next_after(done);
        match now.checked_sub(first) {
            None => 0,
            Some(late) => (late.as_nanos() / self.interval.as_nanos()) as u64 + 1,
        }
    }
}

/// The phase of a target within its interval, from a hash of what identifies it.
pub fn offset(identity_hash: u64, interval: Duration) -> Duration {
    let nanos = interval.as_nanos().max(1);
    Duration::from_nanos((u128::from(identity_hash) % nanos) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Runs scrapes that take `takes(k)` each over simulated time and gives the instants at which they began.
    fn simulate(schedule: Schedule, until: Duration, takes: impl Fn(usize) -> Duration) -> Vec<Duration> {
        let mut began = Vec::new();
        let mut now = Duration::ZERO;
        loop {
            now = schedule.next_after(now);
            if now > until {
                return began;
            }
            began.push(now);
            now += takes(began.len() - 1);
        }
    }

    #[test]
    fn instants_are_aligned_to_the_offset_however_long_scrapes_take() {
        let schedule = Schedule::new(15 * SECOND, Duration::from_millis(4_321));
        let began =
            simulate(schedule, 3_600 * SECOND, |k| Duration::from_millis((k as u64 * 7_919) % 40_000));
        assert!(began.len() > 60);
        for at in &began {
            assert_eq!(at.as_millis() % 15_000, 4_321);
        }
        for pair in began.windows(2) {
            assert!(pair[1] >= pair[0] + 15 * SECOND, "never a burst");
        }
    }

    #[test]
    fn a_late_scrape_skips_and_says_how_many() {
        let schedule = Schedule::new(10 * SECOND, 3 * SECOND);
        let due = schedule.next_after(Duration::ZERO);
        assert_eq!(due, 3 * SECOND);
        assert_eq!(schedule.skipped_between(due, 12 * SECOND), 0);
        assert_eq!(schedule.skipped_between(due, 13 * SECOND), 1);
        assert_eq!(schedule.skipped_between(due, 39 * SECOND), 3);
        assert_eq!(schedule.next_after(39 * SECOND), 43 * SECOND);
    }

    #[test]
    fn the_instant_itself_is_not_repeated() {
        let schedule = Schedule::new(SECOND, Duration::ZERO);
        assert_eq!(schedule.next_after(Duration::ZERO), SECOND);
        assert_eq!(schedule.next_after(SECOND), 2 * SECOND);
    }

    #[test]
    fn offsets_spread_over_the_interval() {
        let mut tenths = [0; 10];
        for target in 0..10_000_u64 {
            let hash = xxhash_rust::xxh3::xxh3_64(&target.to_le_bytes());
            let at = offset(hash, 15 * SECOND);
            assert!(at < 15 * SECOND);
            tenths[(at.as_millis() / 1_500) as usize] += 1;
        }
        assert!(tenths.iter().all(|n| (800..1_200).contains(n)), "{tenths:?}");
    }

    #[test]
    fn a_scrape_that_is_hardly_late_counts_as_on_time() {
        let ms = Duration::from_millis;
        assert_eq!(stamp_lateness(ms(10), 15 * SECOND), ms(10));
        assert_eq!(stamp_lateness(ms(11), 15 * SECOND), Duration::ZERO);
        assert_eq!(stamp_lateness(ms(3), ms(200)), Duration::ZERO);
    }

    #[test]
    fn degenerate_intervals_do_not_divide_by_zero() {
        assert_eq!(Schedule::new(Duration::ZERO, SECOND).next_after(SECOND), Duration::from_millis(1_001));
        assert_eq!(offset(7, Duration::ZERO), Duration::ZERO);
    }
}
