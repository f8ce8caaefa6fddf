//! Limits repeats: the same message from the same place is written [`BURST`] times an interval; then it is counted,
//! and the count is written when the interval has ended.
//!
//! Messages of levels below `info` are never limited: who turns them on wants them all. Nor are those for the
//! [audit](super::AUDIT).

use std::collections::HashMap;
use std::time::{Duration, Instant};
use tracing::{Level, Metadata};

/// How long repeats are counted together.
pub const INTERVAL: Duration = Duration::from_secs(30);
/// How often one message is written in an interval. Twenty targets failing at once are still all named; a failure a
/// second in a loop is not written thirty times.
pub const BURST: u32 = 20;
/// How many different messages are followed. At some 150 bytes each 40 KB; when more occur in one interval (messages
/// with numbers in their text), those share one allowance by the place that they come from.
pub const MAX_FOLLOWED: usize = 256;

/// Whether an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Write it.
    Write,
    /// Count it only.
    LeaveOut,
}

/// Repeats that were not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// How many.
    pub count: u64,
    /// Their level.
    pub level: Level,
    /// Where they came from.
    pub target: &'static str,
    /// Their message, cut to a printable length.
    pub message: String,
}

#[derive(Debug)]
struct Followed {
    since: Instant,
    written: u32,
    left_out: LeftOut,
}

/// What was written lately.
#[derive(Debug, Default)]
pub struct Repeats {
    followed: HashMap<u64, Followed>,
    next_sweep: Option<Instant>,
}

impl Repeats {
    /// Nothing was written yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides on an event with this key (place and message).
    pub fn admit(
        &mut self,
        key: u64,
        metadata: &'static Metadata<'static>,
        message: &str,
        now: Instant,
    ) -> Admission {
        if *metadata.level() > Level::INFO || metadata.target() == super::AUDIT {
            return Admission::Write;
        }
        let full = self.followed.len() >= MAX_FOLLOWED && !self.followed.contains_key(&key);
        // Places are as many as the program has log statements, so these keys are bounded without a check.
        let key = if full { std::ptr::from_ref(metadata) as usize as u64 } else { key };
        let followed = self.followed.entry(key).or_insert_with(|| Followed {
            since: now,
            written: 0,
            left_out: LeftOut {
                count: 0,
                level: *metadata.level(),
                target: metadata.target(),
                message: message.chars().take(120).collect(),
            },
        });
        self.next_sweep.get_or_insert(now + INTERVAL);
        if followed.written < BURST || now.saturating_duration_since(followed.since) >= INTERVAL {
            followed.written += 1;
            Admission::Write
        } else {
            followed.left_out.count += 1;
            Admission::LeaveOut
        }
    }

    /// What was left out in intervals that have ended; they are forgotten.
    pub fn ended(&mut self, now: Instant) -> Vec<LeftOut> {
        if self.next_sweep.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let mut ended = Vec::new();
        self.followed.retain(|_, followed| {
            let over = now.saturating_duration_since(followed.since) >= INTERVAL;
            if over && followed.left_out.count > 0 {
                ended.push(followed.left_out.clone());
            }
            !over
        });
        self.next_sweep = self.followed.values().map(|followed| followed.since + INTERVAL).min();
        ended
    }
}
