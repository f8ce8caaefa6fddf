//! Which files are behind: what waits unread in them, and for how long.
//!
//! It is found once a second while something is open, among the files that may have something unread, never among all
//! that are known.

use super::FileStatus;
use super::known::{FileId, Generation};
use super::thread::Thread;
use serde::Serialize;
use std::cmp::Reverse;
use std::time::{Duration, Instant};

/// What a line may take from file to delivery without being worth a word; a file is behind beyond it.
const BEHIND_FROM: Duration = Duration::from_secs(1);
/// How many files are named, in metrics and to the aggregator. The others are in the sums.
pub const MOST_NAMED: usize = 10;
/// How often it is measured.
pub(super) const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// What waits in files that have been behind for a second or longer.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Behind {
    /// How many files.
    pub files: usize,
    /// How many bytes of them are not read.
    pub bytes: u64,
    /// For how long the oldest of these has waited.
    pub seconds: f64,
    /// For how long delivery has had no room for a block; none while it takes what it is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_room_seconds: Option<f64>,
    /// The [`MOST_NAMED`] with the most bytes.
    pub worst: Vec<FileStatus>,
}

/// The sums of one input.
#[derive(Clone, Default)]
struct Sums {
    open: usize,
    unreadable: usize,
    bytes: u64,
    waits: Duration,
}

impl Thread {
    /// Measures, if it is time; at once where nothing will be left to be measured later.
    pub(super) fn measure(&mut self, now: Instant) {
        let ended = self.open.is_empty() && self.queue.is_empty() && self.later.is_empty();
        if now < self.measure_at && !ended {
            return;
        }
        self.measure_at = now + MEASURE_EVERY;
        let mut sums = vec![Sums::default(); self.inputs.len()];
        let mut late: Vec<(Reverse<u64>, FileId)> = Vec::new();
        let mut behind = Behind {
            no_room_seconds: self.no_room_since.map(|since| now.duration_since(since).as_secs_f64()),
            ..Behind::default()
        };
        for (id, generation) in self.perhaps_unread() {
            let sums = &mut sums[usize::from(generation.input)];
            let (bytes, waits) = (generation.unread(), generation.waits(now));
            sums.open += usize::from(generation.reading.is_some());
            sums.unreadable += usize::from(generation.trouble.is_some());
            sums.bytes += bytes;
            sums.waits = sums.waits.max(waits);
            if waits >= BEHIND_FROM {
                behind.files += 1;
                behind.bytes += bytes;
                behind.seconds = behind.seconds.max(waits.as_secs_f64());
                late.push((Reverse(bytes), id));
            }
        }
        for (nth, (input, sums)) in self.inputs.iter().zip(sums).enumerate() {
            input.telemetry.files.set(self.known.count(nth) as f64);
            input.telemetry.open.set(sums.open as f64);
            input.telemetry.unreadable.set(sums.unreadable as f64);
            input.telemetry.lag_bytes.set(sums.bytes as f64);
            input.telemetry.lag_seconds.set(sums.waits.as_secs_f64());
        }
        if late.len() > MOST_NAMED {
            late.select_nth_unstable(MOST_NAMED);
            late.truncate(MOST_NAMED);
        }
        late.sort_unstable();
        let worst = late.iter().filter_map(|(_, id)| self.known.generation(*id));
        behind.worst = worst.map(|generation| self.status_of(generation, false, now)).collect();
        self.named.show(&behind.worst);
        *self.shared.behind.lock() = behind;
    }

    /// Generations that are open or wait for their turn: no other has anything unread.
    fn perhaps_unread(&self) -> impl Iterator<Item = (FileId, &Generation)> {
        let queued = self.queue.iter().chain(&self.later).filter(|id| !self.open.contains(id));
        let ids = self.open.iter().chain(queued);
        ids.filter_map(|id| Some((*id, self.known.generation(*id)?)))
    }
}
