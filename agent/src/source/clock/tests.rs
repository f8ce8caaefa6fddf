//! The rule under simulated clocks: a wall that steps, slews and stops while a monotonic clock goes on.

use super::*;
use std::sync::atomic::{AtomicI64, Ordering};

const HOUR_MS: i64 = 3_600_000;
/// Some day in 2026.
const START_MS: i64 = 1_790_000_000_000;
const INTERVAL: Duration = Duration::from_secs(15);

/// A machine: true time is `START_MS` plus what passed; its wall is off by `wall_error_ms`.
struct Machine {
    clock: Anchored,
    passed: Duration,
    wall_error_ms: i64,
    samples: Vec<i64>,
    decisions: Vec<Step>,
}

impl Machine {
    fn new(wall_error_ms: i64) -> Self {
        Self {
            clock: Anchored::new(START_MS + wall_error_ms, Duration::ZERO),
            passed: Duration::ZERO,
            wall_error_ms,
            samples: Vec::new(),
            decisions: Vec::new(),
        }
    }

    fn true_ms(&self) -> i64 {
        START_MS + self.passed.as_millis() as i64
    }

    /// How far the next sample's time is from the truth.
    fn scrape(&mut self) -> i64 {
        self.passed += INTERVAL;
        let reading = self.clock.read(self.true_ms() + self.wall_error_ms, self.passed, Duration::ZERO);
        self.samples.push(reading.at_ms);
        self.decisions.extend(reading.step);
        reading.at_ms - self.true_ms()
    }

    fn scrapes(&mut self, count: usize) {
        for _ in 0..count {
            self.scrape();
        }
    }

    fn hear_of_peer(&mut self) {
        self.clock.note_peer(self.true_ms(), self.passed);
    }
}

#[test]
fn a_steady_wall_is_followed_to_the_millisecond() {
    let mut machine = Machine::new(0);
    for _ in 0..1_000 {
        assert_eq!(machine.scrape(), 0);
    }
    assert!(machine.decisions.is_empty());
    assert!(machine.samples.windows(2).all(|pair| pair[1] - pair[0] == 15_000));
}

#[test]
fn a_step_forward_is_followed_with_the_second_scrape() {
    let mut machine = Machine::new(-6 * HOUR_MS);
    machine.scrapes(10);
    machine.wall_error_ms = 0;
    assert_eq!(machine.scrape(), -6 * HOUR_MS, "seen once, it may be a fleeting reading");
    assert_eq!(machine.scrape(), 0);
    assert_eq!(machine.decisions, [Step::Followed { by_ms: 6 * HOUR_MS }]);
    machine.scrapes(10);
    assert_eq!(machine.clock.steps(), 1);
}

#[test]
fn six_hours_forth_and_back_end_where_they_began_within_two_scrapes() {
    let mut machine = Machine::new(0);
    machine.scrapes(10);
    machine.wall_error_ms = 6 * HOUR_MS;
    machine.scrapes(10);
    machine.wall_error_ms = 0;
    machine.scrape();
    assert_eq!(machine.scrape(), 0);
    // No instant was given to two samples, so none has a wrong neighbour.
    let mut sorted = machine.samples.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), machine.samples.len());
}

#[test]
fn six_hours_back_into_time_before_the_start_and_forth_again() {
    let mut machine = Machine::new(0);
    machine.scrapes(10);
    machine.wall_error_ms = -6 * HOUR_MS;
    machine.scrape();
    assert_eq!(machine.scrape(), -6 * HOUR_MS, "the wall is believed: nothing says otherwise");
    machine.scrapes(10);
    machine.wall_error_ms = 0;
    machine.scrape();
    assert_eq!(machine.scrape(), 0);
    let mut sorted = machine.samples.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), machine.samples.len());
}

#[test]
fn a_step_back_into_used_time_does_not_put_samples_between_older_ones() {
    let mut machine = Machine::new(0);
    machine.scrapes(8 * 240);
    machine.wall_error_ms = -6 * HOUR_MS;
    for _ in 0..20 {
        assert_eq!(machine.scrape(), 0, "the sample clock goes on");
    }
    assert_eq!(machine.decisions, [Step::Ignored { off_ms: -6 * HOUR_MS, by_peer: false }], "said once");
    assert_eq!(machine.clock.off_ms(), -6 * HOUR_MS);
    machine.wall_error_ms = 0;
    assert_eq!(machine.scrape(), 0);
    assert!(machine.samples.windows(2).all(|pair| pair[1] > pair[0]));
}

#[test]
fn patience_with_a_wall_in_used_time_ends() {
    let mut machine = Machine::new(0);
    machine.scrapes(8 * 240);
    machine.wall_error_ms = -6 * HOUR_MS;
    let until_believed = (0..1_000).find(|_| machine.scrape() != 0).expect("it is believed in the end");
    let waited = INTERVAL * until_believed;
    assert!((PATIENCE..PATIENCE + 3 * INTERVAL).contains(&waited), "{waited:?}");
    assert_eq!(machine.scrape(), -6 * HOUR_MS);
}

#[test]
fn a_peer_decides_who_is_right() {
    // The wall is set wrongly, forth or back: samples do not care.
    for error in [6 * HOUR_MS, -6 * HOUR_MS, 5_000, -90_000] {
        let mut machine = Machine::new(0);
        machine.scrapes(10);
        machine.wall_error_ms = error;
        for _ in 0..20 {
            machine.hear_of_peer();
            assert_eq!(machine.scrape(), 0, "off by {error}");
        }
        assert_eq!(machine.decisions, [Step::Ignored { off_ms: error, by_peer: true }]);
        machine.wall_error_ms = 0;
        assert_eq!(machine.scrape(), 0);
    }
    // A clock that was ahead for long is set right, into used time: followed.
    let mut machine = Machine::new(6 * HOUR_MS);
    machine.scrapes(8 * 240);
    machine.wall_error_ms = 0;
    machine.hear_of_peer();
    machine.scrape();
    assert_eq!(machine.scrape(), 0);
}

#[test]
fn a_peer_that_was_heard_of_long_ago_decides_nothing() {
    let mut machine = Machine::new(0);
    machine.hear_of_peer();
    machine.scrapes(10);
    machine.wall_error_ms = 6 * HOUR_MS;
    machine.scrape();
    assert_eq!(machine.scrape(), 6 * HOUR_MS);
}

#[test]
fn small_steps_are_slewed_and_time_never_stands_still() {
    for step_ms in [-59_000, -10_000, -900, 900] {
        let mut machine = Machine::new(0);
        machine.scrapes(100);
        machine.wall_error_ms = step_ms;
        machine.scrapes(100);
        assert!(machine.decisions.is_empty(), "{step_ms}");
        let settled = machine.scrape() - step_ms;
        assert!(settled.abs() <= 1, "{step_ms}: still off by {settled} ms");
        for pair in machine.samples.windows(2) {
            let distance = pair[1] - pair[0];
            assert!((14_249..=15_751).contains(&distance), "{step_ms}: {distance} ms between samples");
        }
    }
}

#[test]
fn a_fleeting_reading_moves_nothing() {
    let mut machine = Machine::new(0);
    machine.scrapes(10);
    for error in [HOUR_MS, -HOUR_MS, 10 * HOUR_MS] {
        machine.wall_error_ms = error;
        assert_eq!(machine.scrape(), 0);
        machine.wall_error_ms = 0;
        assert_eq!(machine.scrape(), 0);
    }
    assert!(machine.decisions.is_empty());
}

#[test]
fn a_suspended_machine_wakes_with_the_right_time_at_once() {
    // CLOCK_BOOTTIME goes on while suspended, as the wall does.
    let mut machine = Machine::new(0);
    machine.scrapes(10);
    machine.passed += Duration::from_hours(8);
    assert_eq!(machine.scrape(), 0);
    assert!(machine.decisions.is_empty());
}

#[test]
fn what_was_due_a_moment_ago_has_the_time_at_which_it_was_due() {
    let mut clock = Anchored::new(START_MS, Duration::ZERO);
    let late = Duration::from_micros(2_700);
    let reading = clock.read(START_MS + 10_002, Duration::from_micros(10_002_700), late);
    assert_eq!(reading.at_ms, START_MS + 10_000);
}

#[test]
fn random_steps_never_repeat_an_instant_without_a_decision() {
    let seed: u64 =
        std::env::var("PEGEL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    for _ in 0..200 {
        let mut machine = Machine::new(rand::Rng::random_range(&mut random, -HOUR_MS..HOUR_MS));
        for _ in 0..200 {
            if rand::Rng::random_bool(&mut random, 0.05) {
                machine.wall_error_ms = rand::Rng::random_range(&mut random, -7 * HOUR_MS..7 * HOUR_MS);
            }
            let (decided, last) = (machine.clock.steps(), machine.samples.last().copied());
            machine.scrape();
            let at = *machine.samples.last().unwrap();
            if machine.clock.steps() == decided {
                assert!(last.is_none_or(|last| at > last), "PEGEL_SEED={seed}: {last:?} then {at}");
            } else {
                let wall = machine.true_ms() + machine.wall_error_ms;
                assert!((at - wall).abs() <= 1, "PEGEL_SEED={seed}: {at} where the wall says {wall}");
            }
        }
    }
}

#[test]
fn a_clock_of_given_clocks_shares_its_state_with_its_clones() {
    let wall = Arc::new(AtomicI64::new(START_MS));
    let (shown, passed) = (wall.clone(), Arc::new(AtomicI64::new(0)));
    let monotonic = passed.clone();
    let clock = SampleClock::with_clocks(
        Arc::new(move || shown.load(Ordering::Relaxed)),
        Arc::new(move || Duration::from_millis(monotonic.load(Ordering::Relaxed) as u64)),
    );
    let clone = clock.clone();
    wall.store(START_MS + HOUR_MS, Ordering::Relaxed);
    assert_eq!(clock.now_ms(), START_MS);
    assert_eq!(clone.now_ms(), START_MS + HOUR_MS);
    assert_eq!((clock.steps(), clock.offset_seconds()), (1, 0.0));
    let registry = Registry::new();
    clock.expose(&registry);
    assert!(registry.render().contains("pegel_clock_steps_total 1\n"));
}

#[test]
fn a_shift_from_a_file_is_a_step() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shift");
    let clock = SampleClock::shifted_by_file(path.clone());
    assert!((clock.now_ms() - system_wall_ms()).abs() < 1_000);
    std::fs::write(&path, "21600000\n").unwrap();
    clock.now_ms();
    assert!((clock.now_ms() - system_wall_ms() - 6 * HOUR_MS).abs() < 1_000);
}
