//! An hour of a node's main series, in a ring whose size never changes.
//!
//! Arithmetic: one hour in steps of 15 s (the agent's default interval) is 240 steps; 8 tracks of `f32` make
//! 240 × 8 × 4 = 7,680 bytes a node, so 1,000 nodes take 7.7 MB. `f32` keeps seven digits, more than a chart shows.

use serde::Serialize;

/// The step, in milliseconds. Of several values within one step the last one is kept.
pub const STEP_MS: i64 = 15_000;
/// How many steps are kept: one hour.
pub const STEPS: usize = 240;

/// A main series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Track {
    /// Share of CPU time that was not idle and not waiting for a disk, 0 to 1.
    CpuBusy,
    /// Share of memory that is not available, 0 to 1.
    MemoryUsed,
    /// Bytes a second read from disks.
    DiskRead,
    /// Bytes a second written to disks.
    DiskWritten,
    /// Bytes a second received from the network.
    NetworkReceived,
    /// Bytes a second sent to the network.
    NetworkSent,
    /// Load average over one minute.
    Load1,
    /// Share of the fullest file system that is used, 0 to 1.
    FilesystemUsed,
}

/// How many tracks there are.
pub const TRACKS: usize = 8;

impl Track {
    /// All tracks, in the order of their numbers.
    pub const ALL: [Self; TRACKS] = [
        Self::CpuBusy,
        Self::MemoryUsed,
        Self::DiskRead,
        Self::DiskWritten,
        Self::NetworkReceived,
        Self::NetworkSent,
        Self::Load1,
        Self::FilesystemUsed,
    ];

    /// The track's name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuBusy => "cpu_busy_ratio",
            Self::MemoryUsed => "memory_used_ratio",
            Self::DiskRead => "disk_read_bytes_per_second",
            Self::DiskWritten => "disk_written_bytes_per_second",
            Self::NetworkReceived => "network_received_bytes_per_second",
            Self::NetworkSent => "network_sent_bytes_per_second",
            Self::Load1 => "load1",
            Self::FilesystemUsed => "filesystem_used_ratio",
        }
    }
}

/// One value a track; NaN where there is none.
pub type Point = [f32; TRACKS];

/// A point that says nothing.
pub const EMPTY_POINT: Point = [f32::NAN; TRACKS];

/// The ring.
#[derive(Debug)]
pub(super) struct History {
    ring: Box<[Point]>,
    newest_step: Option<i64>,
}

impl History {
    pub(super) fn new() -> Self {
        Self { ring: vec![EMPTY_POINT; STEPS].into(), newest_step: None }
    }

    /// Puts a value at an instant. What is older than the ring is not kept.
    pub(super) fn put(&mut self, at_ms: i64, track: Track, value: f32) {
        let step = at_ms.div_euclid(STEP_MS);
        let newest = *self.newest_step.get_or_insert(step);
        if step > newest {
            for between in (newest + 1..=step).rev().take(STEPS) {
                self.ring[index(between)] = EMPTY_POINT;
            }
            self.newest_step = Some(step);
        } else if newest - step >= STEPS as i64 {
            return;
        }
        self.ring[index(step)][track as usize] = value;
    }

    /// All that is kept within the hour that ends at `now_ms`, oldest first.
    pub(super) fn view(&self, now_ms: i64) -> HistoryView {
        let newest = self.newest_step.map_or(i64::MIN, |s| s.min(now_ms.div_euclid(STEP_MS)));
        let last = now_ms.div_euclid(STEP_MS);
        let first = last - STEPS as i64 + 1;
        let kept_from = self.newest_step.unwrap_or_default() - STEPS as i64 + 1;
        let tracks = Track::ALL.map(|track| {
            let values = (first..=last)
                .map(|step| {
                    let kept = step <= newest && step >= kept_from;
                    kept.then(|| self.ring[index(step)][track as usize]).filter(|v| v.is_finite())
                })
                .collect();
            TrackView { name: track.name(), values }
        });
        HistoryView { from_ms: first * STEP_MS, step_ms: STEP_MS, tracks: tracks.into() }
    }
}

fn index(step: i64) -> usize {
    step.rem_euclid(STEPS as i64) as usize
}

/// The history of a node as the API gives it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryView {
    /// The instant at which the first step begins, in milliseconds since the Unix epoch.
    pub from_ms: i64,
    /// The length of a step.
    pub step_ms: i64,
    /// The tracks, each with [`STEPS`] values.
    pub tracks: Vec<TrackView>,
}

/// One track of a history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrackView {
    /// See [`Track::name`].
    pub name: &'static str,
    /// One value a step; none where nothing is known.
    pub values: Vec<Option<f32>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(history: &History, now_ms: i64) -> Vec<(i64, f32)> {
        let view = history.view(now_ms);
        assert_eq!(view.tracks[0].values.len(), STEPS);
        let with_time = view.tracks[0].values.iter().enumerate();
        with_time.filter_map(|(i, v)| v.map(|v| (view.from_ms + i as i64 * STEP_MS, v))).collect()
    }

    #[test]
    fn the_ring_keeps_an_hour_and_forgets_what_is_older() {
        let mut history = History::new();
        let hour = STEP_MS * STEPS as i64;
        history.put(0, Track::CpuBusy, 0.1);
        history.put(STEP_MS, Track::CpuBusy, 0.2);
        assert_eq!(known(&history, STEP_MS), [(0, 0.1), (STEP_MS, 0.2)]);
        history.put(hour, Track::CpuBusy, 0.3);
        assert_eq!(known(&history, hour), [(STEP_MS, 0.2), (hour, 0.3)]);
        history.put(0, Track::CpuBusy, 0.9);
        assert_eq!(known(&history, hour), [(STEP_MS, 0.2), (hour, 0.3)], "too old to be kept");
        history.put(5 * hour, Track::CpuBusy, 0.4);
        assert_eq!(known(&history, 5 * hour), [(5 * hour, 0.4)]);
    }

    #[test]
    fn a_backlog_fills_the_gap_that_it_left() {
        let mut history = History::new();
        for step in [0, 4, 2] {
            history.put(step * STEP_MS, Track::CpuBusy, step as f32);
        }
        assert_eq!(known(&history, 4 * STEP_MS), [(0, 0.0), (2 * STEP_MS, 2.0), (4 * STEP_MS, 4.0)]);
    }

    #[test]
    fn a_silent_node_s_values_move_out_of_the_window_with_time() {
        let mut history = History::new();
        history.put(0, Track::CpuBusy, 1.0);
        assert_eq!(known(&history, STEP_MS * (STEPS as i64 - 1)).len(), 1);
        assert_eq!(known(&history, STEP_MS * STEPS as i64).len(), 0);
    }
}
