//! How many events a runtime may send before we stop reading and look at everything once instead.

use std::time::{Duration, Instant};

/// Events at once: 200 containers that start, turn healthy, die and are removed within a second are 800.
const BURST: u32 = 1_000;
/// Events a second after that: each costs some 50 µs, so that a flood takes about 1 % of a core.
const PER_SECOND: u32 = 200;
/// While a flood lasts, everything is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A bucket of events.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    filled_at: Instant,
    /// Since when events may have been lost and not been made up for.
    behind_since: Option<Instant>,
}

impl Allowance {
    /// A full one.
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, filled_at: now, behind_since: None }
    }

    /// Whether an event may be read.
    pub(super) fn open(&self) -> bool {
        self.left > 0
    }

    /// An event was read.
    pub(super) fn take(&mut self, now: Instant) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 && self.behind_since.is_none() {
            self.behind_since = Some(now);
        }
    }

    /// Fills up by the time that passed. Says whether to look at everything now: the flood is over, or it lasts.
    pub(super) fn fill(&mut self, now: Instant) -> bool {
        let millis = now.saturating_duration_since(self.filled_at).as_millis() as u64;
        let more = (millis * u64::from(PER_SECOND) / 1_000).min(u64::from(BURST)) as u32;
        if more == 0 {
            return false;
        }
        self.filled_at = now;
        self.left = (self.left + more).min(BURST);
        let Some(since) = self.behind_since else { return false };
        if self.left > BURST / 2 {
            self.behind_since = None;
            return true;
        }
        let lasts = now.saturating_duration_since(since) >= LOOK_EVERY;
        if lasts {
            self.behind_since = Some(now);
        }
        lasts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_storm_of_real_containers_passes() {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(now);
        for _ in 0..800 {
            assert!(allowance.open());
            allowance.take(now);
        }
        now += SECOND;
        assert!(!allowance.fill(now) && allowance.behind_since.is_none());
    }

    #[test]
    fn a_flood_is_read_slowly_and_everything_looked_at_while_it_lasts_and_once_after() {
        let begin = Instant::now();
        let mut allowance = Allowance::new(begin);
        let (mut read, mut looks) = (0, Vec::new());
        for second in 0..40_u32 {
            let now = begin + second * SECOND;
            if allowance.fill(now) {
                looks.push(second);
            }
            // 10,000 events a second for 25 s.
            for _ in 0..if second < 25 { 10_000 } else { 0 } {
                if allowance.open() {
                    allowance.take(now);
                    read += 1;
                }
            }
        }
        assert_eq!(read, BURST + 24 * PER_SECOND);
        assert_eq!(looks, [10, 20, 27]);
        assert!(allowance.behind_since.is_none());
    }
}
