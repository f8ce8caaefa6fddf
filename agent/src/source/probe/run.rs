//! The contract between the source and the kinds of probes: one run of one check on one target.

use super::heartbeats::Heartbeats;
use super::net::Network;
use super::outcome::{Failure, Phase};
use super::record::{Gauge, Record};
use super::target::Target;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::Instant;

/// A run that goes on. Boxed, so that the thousands of targets that wait for their next instant hold none.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// A kind of probe with its settings.
///
/// An attempt is dropped where it stands when its time is over; what it put into [`Run::record`] until then is
/// reported all the same, and [`Run::enter`] says which phase took too long. So a probe first sets what it always
/// reports to zero, and puts each thing down as soon as it knows it: certificates before assertions.
pub trait Probe: Send + Sync + fmt::Debug {
    /// One attempt.
    fn attempt<'a>(&'a self, run: &'a mut Run) -> Running<'a>;
}

/// One attempt, as the probe sees it.
#[derive(Debug)]
pub struct Run {
    /// What is checked.
    pub target: Arc<Target>,
    /// What was measured.
    pub record: Record,
    /// The ways to other machines.
    pub network: Arc<Network>,
    /// When the attempt is dropped.
    pub deadline: Instant,
    /// Who called in.
    pub heartbeats: Arc<Heartbeats>,
    /// When the run began, in milliseconds since the Unix epoch.
    pub now_ms: i64,
    phase: Phase,
}

impl Run {
    /// An attempt that begins.
    pub fn new(
        target: Arc<Target>,
        network: Arc<Network>,
        heartbeats: Arc<Heartbeats>,
        deadline: Instant,
        now_ms: i64,
    ) -> Self {
        Self { target, record: Record::default(), network, deadline, heartbeats, now_ms, phase: Phase::Setup }
    }

    /// Says that a phase begins.
    pub fn enter(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// The phase that goes on.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// A failure in the phase that goes on, of an I/O call.
    pub fn io_failure(&self, doing: impl fmt::Display, error: &std::io::Error) -> Failure {
        Failure::of_io(self.phase, doing, error)
    }
}

/// Measures phases into a gauge with the label `phase`.
#[derive(Debug)]
pub struct Stopwatch {
    gauge: &'static Gauge,
    last: Instant,
}

impl Stopwatch {
    /// Begins; each of the phases is zero at first.
    pub fn start(record: &mut Record, gauge: &'static Gauge, phases: &[&'static str]) -> Self {
        for phase in phases {
            record.set_label(gauge, phase, 0.0);
        }
        Self { gauge, last: Instant::now() }
    }

    /// Adds the time since the last lap to a phase.
    pub fn lap(&mut self, record: &mut Record, phase: &'static str) {
        let now = Instant::now();
        record.add_label(self.gauge, phase, (now - self.last).as_secs_f64());
        self.last = now;
    }

    /// Leaves the time since the last lap out.
    pub fn skip(&mut self) {
        self.last = Instant::now();
    }
}
