//! When a check counts as up or down: the state machine behind `pegel_probe_up`. No clock, no I/O.

/// What a check is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It did not run, or not often enough to say.
    Pending,
    /// It works.
    Up,
    /// It does not.
    Down,
    /// It is worked on: whatever it says is nobody's alarm.
    Maintenance,
}

impl State {
    /// As the status API and label values write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Up => "up",
            Self::Down => "down",
            Self::Maintenance => "maintenance",
        }
    }
}

/// How many runs in a row it takes to believe them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures until it is down; at least 1.
    pub down_after: u32,
    /// Successes until a check that is down is up; at least 1.
    pub up_after: u32,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// What it was taken for.
    pub from: State,
    /// What it is taken for now.
    pub to: State,
    /// Whether it was up when it last was up or down, maintenance left out; none if it never was either.
    pub was_up: Option<bool>,
}

/// Follows the runs of one target.
#[derive(Debug, Clone)]
pub struct Tracker {
    thresholds: Thresholds,
    /// What the runs say, whether or not it is maintained.
    runs_say: State,
    /// Runs in a row that contradict it.
    against: u32,
    in_maintenance: bool,
    since_ms: i64,
    /// What it last was taken for of up and down.
    told_up: Option<bool>,
}

impl Tracker {
    /// A check that begins at an instant, in milliseconds since the Unix epoch.
    pub fn new(thresholds: Thresholds, at_ms: i64) -> Self {
        Self {
            thresholds,
            runs_say: State::Pending,
            against: 0,
            in_maintenance: false,
            since_ms: at_ms,
            told_up: None,
        }
    }

    /// What the check is taken for.
    pub fn state(&self) -> State {
        if self.in_maintenance { State::Maintenance } else { self.runs_say }
    }

    /// Whether runs say that it is up, in maintenance too; none while they do not say anything.
    pub fn up(&self) -> Option<bool> {
        match self.runs_say {
            State::Up => Some(true),
            State::Down => Some(false),
            State::Pending | State::Maintenance => None,
        }
    }

    /// Since when, in milliseconds since the Unix epoch.
    pub fn since_ms(&self) -> i64 {
        self.since_ms
    }

    /// Uses other thresholds from the next run on.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// Takes a run in. What was never up is up with its first success, and down after as many failures as one that
    /// was up.
    pub fn note(&mut self, success: bool, in_maintenance: bool, at_ms: i64) -> Option<Transition> {
        let from = self.state();
        let says = if success { State::Up } else { State::Down };
        if says == self.runs_say {
            self.against = 0;
        } else {
            self.against += 1;
            let needed = match (self.runs_say, says) {
                (State::Pending, State::Up) => 1,
                (_, State::Up) => self.thresholds.up_after,
                _ => self.thresholds.down_after,
            };
            if self.against >= needed {
                self.runs_say = says;
                self.against = 0;
            }
        }
        self.in_maintenance = in_maintenance;
        let to = self.state();
        let was_up = self.told_up;
        match to {
            State::Up => self.told_up = Some(true),
            State::Down => self.told_up = Some(false),
            State::Pending | State::Maintenance => {}
        }
        (from != to).then(|| {
            self.since_ms = at_ms;
            Transition { from, to, was_up }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(down_after: u32, up_after: u32, runs: &str) -> String {
        let mut tracker = Tracker::new(Thresholds { down_after, up_after }, 0);
        let state = |tracker: &Tracker| match tracker.state() {
            State::Pending => '?',
            State::Up => '+',
            State::Down => '-',
            State::Maintenance => 'm',
        };
        // Capitals are runs in maintenance.
        let take = |(at, run): (usize, char)| {
            let before = tracker.state();
            let changed = tracker.note(run.eq_ignore_ascii_case(&'s'), run.is_uppercase(), at as i64);
            assert_eq!(changed.is_some(), before != tracker.state());
            assert_eq!(changed.is_some(), tracker.since_ms() == at as i64 && before != tracker.state());
            state(&tracker)
        };
        runs.chars().enumerate().map(take).collect()
    }

    #[test]
    fn the_first_success_is_up_and_one_failure_is_not_down() {
        assert_eq!(run(2, 1, "sfsff"), "++++-");
        assert_eq!(run(3, 2, "sffsfffsfss"), "++++++----+");
        assert_eq!(run(2, 3, "fs"), "?+");
        assert_eq!(run(2, 1, "ff"), "?-");
        assert_eq!(run(1, 1, "fsfs"), "-+-+");
    }

    #[test]
    fn maintenance_hides_what_runs_say_and_does_not_forget_it() {
        assert_eq!(run(2, 1, "sFFf"), "+mm-");
        assert_eq!(run(2, 1, "sFSs"), "+mm+");
        assert_eq!(run(2, 1, "ffSs"), "?-m+");
        assert_eq!(run(2, 1, "F"), "m");
    }

    #[test]
    fn what_it_was_before_maintenance_is_remembered() {
        let mut tracker = Tracker::new(Thresholds { down_after: 1, up_after: 1 }, 0);
        let mut was = |success, maintained| tracker.note(success, maintained, 1).map(|t| (t.to, t.was_up));
        assert_eq!(was(true, false), Some((State::Up, None)));
        assert_eq!(was(false, false), Some((State::Down, Some(true))));
        assert_eq!(was(false, true), Some((State::Maintenance, Some(false))));
        assert_eq!(was(true, true), None);
        assert_eq!(was(true, false), Some((State::Up, Some(false))), "it recovered in maintenance");
        assert_eq!(was(true, true), Some((State::Maintenance, Some(true))));
        assert_eq!(was(true, false), Some((State::Up, Some(true))), "nothing happened to it");
    }

    proptest! {
        #[test]
        fn nothing_flaps_faster_than_its_thresholds(
            runs in proptest::collection::vec(any::<bool>(), 1..200), down_after in 1_u32..5, up_after in 1_u32..5,
        ) {
            let mut tracker = Tracker::new(Thresholds { down_after, up_after }, 0);
            let mut last = None;
            for (i, success) in runs.iter().enumerate() {
                if let Some(change) = tracker.note(*success, false, i as i64) {
                    let needed = if change.to == State::Up { up_after } else { down_after } as usize;
                    if change.from != State::Pending {
                        let row = &runs[i + 1 - needed..=i];
                        prop_assert!(row.iter().all(|run| run == success));
                        prop_assert!(last.is_none_or(|last| i - last >= needed));
                    }
                    last = Some(i);
                }
            }
        }
    }
}
