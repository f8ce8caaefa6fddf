//! A lane: jobs one after another on a thread of their own, none of which can hold up the others.
//!
//! A call into the kernel that hangs cannot be interrupted. So a job that overruns its limit is left alone with
//! the thread it hangs on, and a new thread takes the jobs behind it. When the call returns at last, the job comes
//! back and the old thread ends. What hangs costs one thread; as long as nothing hangs, the lane has one.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The stack of a lane's threads, in bytes: collectors call no deeper than a few KiB; what is not touched costs
/// nothing.
const STACK_BYTES: usize = 256 << 10;

/// What a lane runs. It does not panic.
pub(in crate::source) trait Job: Send + 'static {
    /// Does the job.
    fn run(&mut self);

    /// How long it may take; none for what the round's limits say.
    fn limit(&self) -> Option<Duration> {
        None
    }
}

#[derive(Debug)]
struct State<J> {
    queue: VecDeque<(usize, J)>,
    running: Option<Running>,
    finished: Vec<(usize, J)>,
    /// The thread that may take jobs; older ones end when their job returns.
    generation: u64,
    has_worker: bool,
    closed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    key: usize,
    since: Instant,
    limit: Option<Duration>,
}

#[derive(Debug)]
struct Shared<J> {
    state: Mutex<State<J>>,
    work: Condvar,
    done: Condvar,
    done_async: Notify,
}

/// See the module.
#[derive(Debug)]
pub(in crate::source) struct Lane<J: Job> {
    name: &'static str,
    shared: Arc<Shared<J>>,
}

/// How far a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) enum Round {
    /// Every job has returned or was given up.
    Over,
    /// Ask again at this instant, or when woken.
    WaitUntil(Instant),
}

/// How long jobs may take.
#[derive(Debug, Clone, Copy)]
pub(in crate::source) struct Limits {
    /// One job that has no limit of its own.
    pub(in crate::source) job: Duration,
    /// The instant at which the round ends, whatever still runs.
    pub(in crate::source) deadline: Instant,
}

impl<J: Job> Lane<J> {
    /// A lane whose threads have this name (at most 15 bytes show). It has no thread before it has work.
    pub(in crate::source) fn new(name: &'static str) -> Self {
        let state = State {
            queue: VecDeque::new(),
            running: None,
            finished: Vec::new(),
            generation: 0,
            has_worker: false,
            closed: false,
        };
        let shared = Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
            done_async: Notify::new(),
        };
        Self { name, shared: Arc::new(shared) }
    }

    /// Begins a round with these jobs.
    pub(in crate::source) fn begin(&self, jobs: impl Iterator<Item = (usize, J)>) {
        let mut state = self.shared.state.lock();
        state.queue.extend(jobs);
        if state.queue.is_empty() {
            return;
        }
        if state.has_worker {
            self.shared.work.notify_one();
        } else {
            self.spawn(&mut state);
        }
    }

    /// Gives up what has overrun and says whether the round is over. Keys of given-up jobs go to `given_up`; they
    /// and those that were never begun come back through [`Lane::take`] when they can.
    pub(in crate::source) fn check(
        &self,
        now: Instant,
        limits: Limits,
        mut given_up: impl FnMut(usize),
    ) -> Round {
        let mut state = self.shared.state.lock();
        let past = now >= limits.deadline;
        if let Some(Running { key, since, limit }) = state.running {
            let until = (since + limit.unwrap_or(limits.job)).min(limits.deadline);
            if now < until {
                return Round::WaitUntil(until);
            }
            given_up(key);
            state.running = None;
            state.generation += 1;
            state.has_worker = false;
            if !past && !state.queue.is_empty() {
                self.spawn(&mut state);
            }
        }
        if past {
            let State { queue, finished, .. } = &mut *state;
            finished.extend(queue.drain(..));
        }
        match state.queue.front() {
            None => Round::Over,
            Some((_, next)) => {
                Round::WaitUntil(limits.deadline.min(now + next.limit().unwrap_or(limits.job)))
            }
        }
    }

    /// Waits until the round may be over or `until` has come.
    pub(in crate::source) fn wait(&self, until: Instant) {
        let mut state = self.shared.state.lock();
        if !(state.queue.is_empty() && state.running.is_none()) {
            self.shared.done.wait_until(&mut state, until);
        }
    }

    /// As [`Lane::wait`], for tasks.
    pub(in crate::source) async fn wait_async(&self, until: Instant) {
        // A permit from an earlier round wakes once too often, which does no harm.
        let _ = tokio::time::timeout_at(until.into(), self.shared.done_async.notified()).await;
    }

    /// Gives back the jobs that have returned, late ones of earlier rounds among them.
    pub(in crate::source) fn take(&self, mut give: impl FnMut(usize, J)) {
        for (key, job) in self.shared.state.lock().finished.drain(..) {
            give(key, job);
        }
    }

    fn spawn(&self, state: &mut State<J>) {
        state.generation += 1;
        let generation = state.generation;
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(self.name.into()).stack_size(STACK_BYTES);
        match thread.spawn(move || work(&shared, generation)) {
            Ok(_) => state.has_worker = true,
            Err(error) => {
                tracing::error!(lane = self.name, %error, "cannot start a thread; nothing is collected");
            }
        }
    }
}

impl<J: Job> Drop for Lane<J> {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.work.notify_all();
    }
}

fn work<J: Job>(shared: &Shared<J>, generation: u64) {
    let mut state = shared.state.lock();
    while !state.closed && state.generation == generation {
        let Some((key, mut job)) = state.queue.pop_front() else {
            shared.work.wait(&mut state);
            continue;
        };
        state.running = Some(Running { key, since: Instant::now(), limit: job.limit() });
        MutexGuard::unlocked(&mut state, || job.run());
        state.finished.push((key, job));
        if state.generation != generation {
            break;
        }
        state.running = None;
        if state.queue.is_empty() {
            shared.done.notify_all();
            shared.done_async.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    enum Step {
        Quick,
        Waits(mpsc::Receiver<()>),
        /// Waits longer than others may.
        Patient(mpsc::Receiver<()>),
    }

    impl Job for Step {
        fn run(&mut self) {
            if let Self::Waits(until) | Self::Patient(until) = self {
                let _ = until.recv();
            }
        }

        fn limit(&self) -> Option<Duration> {
            matches!(self, Self::Patient(_)).then_some(Duration::from_mins(1))
        }
    }

    fn round(lane: &Lane<Step>, jobs: Vec<(usize, Step)>) -> (Vec<usize>, Vec<usize>) {
        let limits =
            Limits { job: Duration::from_secs(1), deadline: Instant::now() + Duration::from_mins(1) };
        let (mut stuck, mut back) = (Vec::new(), Vec::new());
        lane.begin(jobs.into_iter());
        while let Round::WaitUntil(until) = lane.check(Instant::now(), limits, |key| stuck.push(key)) {
            lane.wait(until);
        }
        lane.take(|key, _| back.push(key));
        (stuck, back)
    }

    #[test]
    fn a_job_that_hangs_costs_its_limit_and_comes_back_when_it_returns() {
        let lane = Lane::new("test");
        let (release, until) = mpsc::channel();
        let jobs = vec![(0, Step::Quick), (1, Step::Waits(until)), (2, Step::Quick), (3, Step::Quick)];
        assert_eq!(round(&lane, jobs), (vec![1], vec![0, 2, 3]));
        assert_eq!(round(&lane, vec![(0, Step::Quick)]), (vec![], vec![0]));
        drop(release);
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut late = Vec::new();
        while late.is_empty() && Instant::now() < deadline {
            lane.take(|key, _| late.push(key));
            std::thread::yield_now();
        }
        assert_eq!(late, [1]);
    }

    #[test]
    fn a_job_with_a_longer_limit_is_waited_for() {
        let lane = Lane::new("test");
        let (release, until) = mpsc::channel();
        let limits = Limits { job: Duration::ZERO, deadline: Instant::now() + Duration::from_mins(1) };
        lane.begin([(0, Step::Patient(until)), (1, Step::Quick)].into_iter());
        let mut stuck = Vec::new();
        // However often it is looked at, the time of a job without a limit of its own does not count.
        while lane.shared.state.lock().running.is_none() {
            std::thread::yield_now();
        }
        let looked = lane.check(Instant::now(), limits, |key| stuck.push(key));
        assert!(
            matches!(looked, Round::WaitUntil(until) if until > Instant::now() + Duration::from_secs(30))
        );
        drop(release);
        let generous = Limits { job: Duration::from_mins(1), ..limits };
        while let Round::WaitUntil(until) = lane.check(Instant::now(), generous, |key| stuck.push(key)) {
            lane.wait(until);
        }
        assert!(stuck.is_empty());
    }

    #[test]
    fn rounds_after_a_hang_do_not_pile_up_threads() {
        let lane = Lane::new("lane-pile");
        let (release, until) = mpsc::channel();
        let (release_more, until_more) = mpsc::channel();
        let deadline = Instant::now() + Duration::from_mins(1);
        let hang = |key, until| {
            let limits = Limits { job: Duration::from_millis(50), deadline };
            lane.begin([(key, Step::Waits(until)), (9, Step::Quick)].into_iter());
            let mut stuck = 0;
            while let Round::WaitUntil(until) = lane.check(Instant::now(), limits, |_| stuck += 1) {
                lane.wait(until);
            }
            stuck
        };
        assert_eq!(hang(0, until) + hang(1, until_more), 2);
        for _ in 0..100 {
            assert!(round(&lane, vec![(2, Step::Quick), (3, Step::Quick)]).0.is_empty());
        }
        let threads = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
            let named = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
            named.filter(|name| name.trim() == "lane-pile").count()
        };
        assert_eq!(threads(), 3, "one for each call that hangs, and one that works");
        drop((release, release_more));
        while threads() > 1 {
            assert!(Instant::now() < deadline, "threads that hung end when their call returns");
            std::thread::yield_now();
        }
    }

    #[test]
    fn at_the_deadline_what_was_not_begun_comes_back_at_once() {
        let lane = Lane::new("test");
        let (release, until) = mpsc::channel();
        lane.begin([(0, Step::Waits(until)), (1, Step::Quick)].into_iter());
        let limits = Limits { job: Duration::from_mins(1), deadline: Instant::now() };
        let mut stuck = Vec::new();
        assert_eq!(lane.check(Instant::now(), limits, |key| stuck.push(key)), Round::Over);
        drop(release);
        assert!(stuck.is_empty() || stuck == [0]);
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut back = Vec::new();
        while back.len() < 2 && Instant::now() < deadline {
            lane.take(|key, _| back.push(key));
            std::thread::yield_now();
        }
        back.sort_unstable();
        assert_eq!(back, [0, 1]);
    }
}
