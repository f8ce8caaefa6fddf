//! Whether the aggregator still answers.
//!
//! An idle limit of 30 s is too long to wait for an aggregator that died: so when batches stay unacknowledged, the agent
//! asks with a heartbeat, and leaves when neither an acknowledgement nor an answer came for five seconds. A backend
//! that is slow or away does not make it leave: the aggregator still answers heartbeats.

use std::time::{Duration, Instant};

/// Unacknowledged batches without progress for this long make the agent ask. Backends answer within some 100 ms.
const ASK_AFTER: Duration = Duration::from_secs(1);
/// While batches stay unacknowledged and the aggregator answers, it is asked this often.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Silence after which the agent leaves: three probe time-outs of QUIC on a path of a second.
const LEAVE_AFTER: Duration = Duration::from_secs(5);
/// Without anything to send the aggregator is told that the agent is there this often, so that the page's "last contact"
/// means something; QUIC's own keep-alive does not reach it.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(30);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing before then.
    WaitUntil(Instant),
    /// Send a heartbeat.
    Ask,
    /// Leave this aggregator.
    Leave,
}

#[derive(Debug)]
pub(super) struct Liveness {
    heard: Instant,
    asked: Option<Instant>,
    last_asked: Instant,
    waiting_since: Option<Instant>,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: now, asked: None, last_asked: now, waiting_since: None }
    }

    /// A batch was sent.
    pub(super) fn sent(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// Something was acknowledged; whether more is in flight.
    pub(super) fn progress(&mut self, now: Instant, more_in_flight: bool) {
        self.heard = now;
        self.asked = None;
        self.waiting_since = more_in_flight.then_some(now);
    }

    /// A heartbeat was sent.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
        self.last_asked = now;
    }

    /// A heartbeat was answered.
    pub(super) fn answered(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }

    pub(super) fn poll(&self, now: Instant) -> Action {
        if let Some(asked) = self.asked {
            // The silence counts from when something was expected, not from when something was last heard.
            let expected = self.waiting_since.map_or(asked, |since| since.min(asked)).max(self.heard);
            let leave = (expected + LEAVE_AFTER).max(asked + ASK_AFTER);
            return if now >= leave { Action::Leave } else { Action::WaitUntil(leave) };
        }
        let idle = self.last_asked + IDLE_HEARTBEAT;
        let ask = match self.waiting_since {
            None => idle,
            Some(since) if since >= self.last_asked => (since + ASK_AFTER).min(idle),
            Some(_) => (self.last_asked + ASK_EVERY).min(idle),
        };
        if now >= ask { Action::Ask } else { Action::WaitUntil(ask) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_silent_aggregator_is_left_five_seconds_after_it_owed_an_answer() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        liveness.sent(start + SECOND);
        assert_eq!(liveness.poll(start + SECOND), Action::WaitUntil(start + 2 * SECOND));
        assert_eq!(liveness.poll(start + 2 * SECOND), Action::Ask);
        liveness.asked(start + 2 * SECOND);
        assert_eq!(liveness.poll(start + 2 * SECOND), Action::WaitUntil(start + 6 * SECOND));
        assert_eq!(liveness.poll(start + 6 * SECOND), Action::Leave);
    }

    #[test]
    fn a_dead_backend_behind_a_living_aggregator_makes_nobody_leave() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        liveness.sent(start);
        let mut asked = 0;
        for second in 1..60 {
            let now = start + second * SECOND;
            match liveness.poll(now) {
                Action::Ask => {
                    liveness.asked(now);
                    liveness.answered(now + SECOND / 10);
                    asked += 1;
                }
                Action::WaitUntil(_) => {}
                Action::Leave => panic!("left after {second} s"),
            }
        }
        assert_eq!(asked, 12);
    }

    #[test]
    fn an_idle_agent_says_that_it_is_there_and_notices_when_nobody_answers() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        assert_eq!(liveness.poll(start), Action::WaitUntil(start + IDLE_HEARTBEAT));
        let asked = start + IDLE_HEARTBEAT;
        assert_eq!(liveness.poll(asked), Action::Ask);
        liveness.asked(asked);
        assert_eq!(liveness.poll(asked + LEAVE_AFTER), Action::Leave);
    }

    #[test]
    fn progress_of_steady_state_asks_nothing() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        for i in 0..25 {
            liveness.sent(start + i * SECOND);
            liveness.progress(start + i * SECOND + SECOND / 10, false);
            assert!(matches!(liveness.poll(start + (i + 1) * SECOND), Action::WaitUntil(_)));
        }
    }
}
