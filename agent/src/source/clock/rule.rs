//! The rule of the sample clock as a state machine; the parent module says what it is and why.

use std::time::Duration;

/// The largest difference that is no step. Machines whose clocks are kept at all agree to well under a second, and
/// a sample that is off by one is still in the right interval.
pub const STEP: Duration = Duration::from_secs(1);

/// The part of the passed time by which sample times approach the wall: a twentieth. Rates computed over a stretch
/// that is slewed are wrong by at most 5 %, and a minute is absorbed in 20.
pub const SLEW: f64 = 0.05;

/// The largest step back that is slewed. Prometheus takes samples up to ten minutes ahead of its clock; this stays
/// far below, and covers what NTP corrects on machines that run.
pub const SLEW_BACK_LIMIT: Duration = Duration::from_mins(1);

/// How long a peer's clock is believed: four heartbeats of 30 s.
pub const PEER_TRUST: Duration = Duration::from_mins(2);

/// How long the sample clock goes on against a wall that stepped back into used time, with no peer to ask.
pub const PATIENCE: Duration = Duration::from_hours(1);

/// The most stretches of used time that are remembered; older ones are forgotten first. A clock that steps more
/// often than this has no neighbours worth keeping apart.
const MAX_ERAS: usize = 32;

/// What a reading gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The sample time, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// What was decided, if this reading decided something.
    pub step: Option<Step>,
}

/// What was decided about a step of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Sample times jumped to the wall, by so many milliseconds.
    Followed {
        /// Positive: forward.
        by_ms: i64,
    },
    /// The wall differs by so many milliseconds and sample times go on without it.
    Ignored {
        /// Positive: the wall is ahead.
        off_ms: i64,
        /// Whether a peer's clock said so.
        by_peer: bool,
    },
}

impl Step {
    pub(super) fn log(self) {
        match self {
            Self::Followed { by_ms } => tracing::warn!(
                by_seconds = by_ms as f64 / 1000.0,
                "the wall clock was stepped; the times of samples follow it"
            ),
            Self::Ignored { off_ms, by_peer } => tracing::warn!(
                off_seconds = off_ms as f64 / 1000.0,
                judged_by = if by_peer { "the aggregator's clock" } else { "time already used" },
                "the wall clock was stepped; the times of samples go on without it. Check this machine's clock"
            ),
        }
    }
}

/// A wall time and the monotonic time at which it was right.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    wall_ms: f64,
    monotonic: Duration,
}

/// A stretch of sample times that were given out under one anchor.
#[derive(Debug, Clone, Copy)]
struct Era {
    first_ms: i64,
    last_ms: i64,
}

/// A difference that one reading saw and the next has to confirm, or one that was decided to be ignored.
#[derive(Debug, Clone, Copy)]
struct Suspicion {
    off_ms: i64,
    since: Duration,
    ignored: bool,
}

/// The sample clock without clocks.
#[derive(Debug, Clone)]
pub struct Anchored {
    anchor: Anchor,
    last_read: Duration,
    eras: Vec<Era>,
    suspicion: Option<Suspicion>,
    peer: Option<(i64, Duration)>,
    off_ms: i64,
    steps: u64,
}

impl Anchored {
    /// Anchors at a reading of both clocks.
    pub fn new(wall_ms: i64, monotonic: Duration) -> Self {
        Self {
            anchor: Anchor { wall_ms: wall_ms as f64, monotonic },
            last_read: monotonic,
            eras: Vec::new(),
            suspicion: None,
            peer: None,
            off_ms: 0,
            steps: 0,
        }
    }

    /// How far the wall is ahead of sample times, in milliseconds, as of the last reading.
    pub fn off_ms(&self) -> i64 {
        self.off_ms
    }

    /// How often sample times have jumped.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// A peer's wall clock at a monotonic instant.
    pub fn note_peer(&mut self, peer_ms: i64, monotonic: Duration) {
        self.peer = Some((peer_ms, monotonic));
    }

    /// The sample time of what was due `late` before a reading of both clocks.
    pub fn read(&mut self, wall_ms: i64, monotonic: Duration, late: Duration) -> Reading {
        self.approach(wall_ms, monotonic);
        self.last_read = monotonic;
        let step = self.judge(wall_ms, monotonic);
        self.off_ms = wall_ms.saturating_sub(self.clock_ms(monotonic) as i64);
        let at_ms = (self.clock_ms(monotonic) - late.as_secs_f64() * 1000.0).floor() as i64;
        Reading { at_ms: self.use_time(at_ms), step }
    }

    /// What the sample clock shows.
    fn clock_ms(&self, monotonic: Duration) -> f64 {
        let passed = monotonic.saturating_sub(self.anchor.monotonic);
        self.anchor.wall_ms + passed.as_secs_f64() * 1000.0
    }

    /// Slews: moves the anchor to now and towards the wall, by a part of what passed since the last reading.
    fn approach(&mut self, wall_ms: i64, monotonic: Duration) {
        let clock_ms = self.clock_ms(monotonic);
        let off = wall_ms as f64 - clock_ms;
        let slewed = (-(SLEW_BACK_LIMIT.as_millis() as f64)..=STEP.as_millis() as f64).contains(&off);
        // A wall in whole milliseconds is behind by half a one on average; chasing that would be noise.
        if !slewed || off.abs() <= 1.0 {
            return;
        }
        let passed_ms = monotonic.saturating_sub(self.last_read).as_secs_f64() * 1000.0;
        let most = passed_ms * SLEW;
        self.anchor = Anchor { wall_ms: clock_ms + off.clamp(-most, most), monotonic };
    }

    /// Decides about a difference too large to be slewed.
    fn judge(&mut self, wall_ms: i64, monotonic: Duration) -> Option<Step> {
        let clock_ms = self.clock_ms(monotonic) as i64;
        let off_ms = wall_ms.saturating_sub(clock_ms);
        let step_ms = STEP.as_millis() as i64;
        if (-(SLEW_BACK_LIMIT.as_millis() as i64)..=step_ms).contains(&off_ms) {
            self.suspicion = None;
            return None;
        }
        let seen = self.suspicion.filter(|s| (s.off_ms.saturating_sub(off_ms)).abs() <= step_ms);
        let Some(seen) = seen else {
            self.suspicion = Some(Suspicion { off_ms, since: monotonic, ignored: false });
            return None;
        };
        let peer_ms = self.peer_now(monotonic);
        let follow = match peer_ms {
            Some(peer) => peer.abs_diff(wall_ms) <= peer.abs_diff(clock_ms),
            None => off_ms > 0 || !self.used(wall_ms) || monotonic.saturating_sub(seen.since) >= PATIENCE,
        };
        if follow {
            self.suspicion = None;
            self.steps += 1;
            self.anchor = Anchor { wall_ms: wall_ms as f64, monotonic };
            self.begin_era();
            return Some(Step::Followed { by_ms: off_ms });
        }
        let news = !seen.ignored;
        self.suspicion = Some(Suspicion { ignored: true, ..seen });
        news.then_some(Step::Ignored { off_ms, by_peer: peer_ms.is_some() })
    }

    /// What a peer's clock shows by now, if it was heard of lately.
    fn peer_now(&self, monotonic: Duration) -> Option<i64> {
        let (peer_ms, heard) = self.peer?;
        let since = monotonic.saturating_sub(heard);
        (since <= PEER_TRUST).then(|| peer_ms.saturating_add(since.as_millis() as i64))
    }

    fn used(&self, at_ms: i64) -> bool {
        self.eras.iter().any(|era| (era.first_ms..=era.last_ms).contains(&at_ms))
    }

    fn begin_era(&mut self) {
        if self.eras.len() == MAX_ERAS {
            self.eras.remove(0);
        }
        self.eras.push(Era { first_ms: i64::MAX, last_ms: i64::MIN });
    }

    /// Notes a sample time as used, and holds it at the era's newest if rounding or lateness put it before.
    fn use_time(&mut self, at_ms: i64) -> i64 {
        if self.eras.is_empty() {
            self.begin_era();
        }
        let era = self.eras.last_mut().expect("begun above");
        let at_ms = at_ms.max(era.last_ms);
        era.first_ms = era.first_ms.min(at_ms);
        era.last_ms = at_ms;
        at_ms
    }
}
