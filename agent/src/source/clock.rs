//! Sample times: the wall clock at start plus monotonic time, re-anchored on a step of the wall clock.
//!
//! # The rule
//!
//! The *sample clock* is an anchor (a wall time and the monotonic time at which it was read) plus the monotonic
//! time that has passed since. Each reading compares it with the wall clock; the difference is *off* (wall − sample
//! clock). The monotonic clock is `CLOCK_BOOTTIME`, which goes on while the machine is suspended, so waking up is no
//! step; NTP's slewing moves both clocks alike and does not show either. What shows are steps.
//!
//! 1. **Small** (off within ±[`STEP`]): the sample clock approaches the wall by at most [`SLEW`] of the time that
//!    passed. Intervals between samples are wrong by no more than that.
//! 2. **Back a little** (−[`SLEW_BACK_LIMIT`] ≤ off < −[`STEP`]): the same. The sample clock runs slower and stays
//!    ahead meanwhile, far within the ten minutes for which Prometheus takes samples from the future; nothing is
//!    lost, and no instant is used twice.
//! 3. **A step** is any larger difference that two readings in a row agree about (to within [`STEP`]). The reading
//!    that sees it first still answers from the old anchor, so that one torn or fleeting reading moves nothing. A
//!    source reads once a scrape: **sample times follow within two scrapes.**
//!    - *Somebody else's clock is known* ([`SampleClock::note_peer`], not older than [`PEER_TRUST`]): whichever of
//!      the two, wall or sample clock, is nearer to it goes on. A wall clock set wrongly, forth or back, then
//!      changes nothing at all. The peer only picks between two local clocks; it can't impose a third.
//!    - *Forward*: the wall is followed. Steps are corrections far more often than mistakes (no clock chip,
//!      a late NTP, a resumed snapshot), and samples in the past would be refused as too old.
//!    - *Back, to an instant that this process has not used*: the wall is followed. This undoes a forward step, or
//!      corrects a clock that was ahead. Old samples ahead of it exist or were refused; the backend says which: it
//!      takes the new ones, or refuses them as out of order and they are counted as rejected.
//!    - *Back, into time that samples of this process already have*: the sample clock goes on from its anchor. To
//!      follow would put samples between neighbours taken at another moment, which a backend with an out-of-order
//!      window would accept, and every rate over them would be wrong. The difference shows as
//!      `pegel_clock_offset_seconds` and in the log; a peer's clock decides once it is known, and after
//!      [`PATIENCE`] without one the wall is believed after all.
//!
//! What follows from it: between two re-anchorings sample times never go back, and no re-anchoring lands in a
//! stretch of time that was used before (but for the last sentence of the rule, and for a peer's word). No step
//! makes a reading wait or repeat. Every sample is handed over with the time that the rule gives, so it is
//! delivered, or refused by the backend and counted there. [`SampleClock`] reads clocks; [`Anchored`] is the rule
//! as a state machine without any.

use parking_lot::Mutex;
use pegel_runtime::metrics::Registry;
use std::sync::Arc;
use std::time::Duration;

mod rule;
#[cfg(test)]
mod tests;

pub use rule::{Anchored, PATIENCE, PEER_TRUST, Reading, SLEW, SLEW_BACK_LIMIT, STEP, Step};

type WallClock = dyn Fn() -> i64 + Send + Sync;
type MonotonicClock = dyn Fn() -> Duration + Send + Sync;

/// Gives the time of a scrape. Clones share their state.
#[derive(Clone)]
pub struct SampleClock {
    wall_ms: Arc<WallClock>,
    monotonic: Arc<MonotonicClock>,
    state: Arc<Mutex<Anchored>>,
}

impl std::fmt::Debug for SampleClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SampleClock").field("state", &*self.state.lock()).finish_non_exhaustive()
    }
}

impl Default for SampleClock {
    fn default() -> Self {
        Self::with_wall(Arc::new(system_wall_ms))
    }
}

/// The system's wall clock, in milliseconds since the Unix epoch.
pub fn system_wall_ms() -> i64 {
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => since.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    }
}

/// The system's wall clock, in nanoseconds since the Unix epoch: the time of log entries that bring none.
pub fn system_wall_ns() -> i64 {
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i64,
        Err(before) => -(before.duration().as_nanos() as i64),
    }
}

fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.max(0) as u64, now.tv_nsec.clamp(0, 999_999_999) as u32)
}

impl SampleClock {
    /// A clock whose wall is `wall_ms` (milliseconds since the Unix epoch): for tests of clock steps.
    pub fn with_wall(wall_ms: Arc<WallClock>) -> Self {
        Self::with_clocks(wall_ms, Arc::new(boot_time))
    }

    /// A clock of two given clocks: for simulations.
    pub fn with_clocks(wall_ms: Arc<WallClock>, monotonic: Arc<MonotonicClock>) -> Self {
        let state = Arc::new(Mutex::new(Anchored::new(wall_ms(), monotonic())));
        Self { wall_ms, monotonic, state }
    }

    /// The system's wall clock, shifted by the milliseconds that a file holds as text (nothing readable there means
    /// no shift). A hidden setting of the agent for end-to-end tests of clock steps.
    pub fn shifted_by_file(path: std::path::PathBuf) -> Self {
        Self::with_wall(Arc::new(move || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            system_wall_ms().saturating_add(text.trim().parse().unwrap_or(0))
        }))
    }

    /// Now, in milliseconds since the Unix epoch, for a sample. Asked once a scrape.
    pub fn now_ms(&self) -> i64 {
        self.ms_before_now(Duration::ZERO)
    }

    /// The sample time of an instant that was due `late` ago.
    pub fn ms_before_now(&self, late: Duration) -> i64 {
        // The lock comes first: readings reach the rule in the order in which the clocks were read.
        let mut state = self.state.lock();
        let reading = state.read((self.wall_ms)(), (self.monotonic)(), late);
        drop(state);
        if let Some(step) = reading.step {
            step.log();
        }
        reading.at_ms
    }

    /// Tells what time it is elsewhere, as an aggregator's heartbeat does: `peer_ms` was that peer's wall clock a
    /// moment ago. Used for nothing but to judge a step.
    pub fn note_peer(&self, peer_ms: i64) {
        let now = (self.monotonic)();
        self.state.lock().note_peer(peer_ms, now);
    }

    /// Has a registry show this clock: `pegel_clock_offset_seconds` and `pegel_clock_steps_total`.
    pub fn expose(&self, registry: &Registry) {
        let offset = registry.gauge(
            "pegel_clock_offset_seconds",
            "How far the wall clock is ahead of the times that samples get.",
            &[],
        );
        let steps = registry.counter(
            "pegel_clock_steps_total",
            "How often the times of samples followed a step of the wall clock.",
            &[],
        );
        let clock = self.clone();
        registry.on_render(move || {
            offset.set(clock.offset_seconds());
            steps.resume_at(clock.steps());
        });
    }

    /// How far the wall clock is ahead of sample times, as of the last reading; for `pegel_clock_offset_seconds`.
    pub fn offset_seconds(&self) -> f64 {
        self.state.lock().off_ms() as f64 / 1000.0
    }

    /// How often sample times have jumped; for `pegel_clock_steps_total`.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps()
    }
}
