//! What collects. A source knows its targets and the [`Intake`]; it knows nothing of spool or network.

use crate::intake::Intake;
use pegel_proto::metrics::{Labels, Series, SeriesSet};
use pegel_runtime::metrics::Registry;
use std::collections::HashSet;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub mod clock;
pub mod container;
pub mod host;
pub mod labels;
pub mod log;
pub mod probe;
mod reading;
pub mod render;
pub mod schedule;
pub mod scrape;

use clock::SampleClock;

/// What every source is given.
#[derive(Clone)]
pub struct SourceContext {
    /// Where blocks go.
    pub intake: Intake,
    /// Where sample times come from.
    pub clock: SampleClock,
    /// pegel's own metrics.
    pub registry: Registry,
    /// Labels that every series of this agent carries (`external_labels`).
    pub external_labels: Arc<Labels>,
    /// Ends the source: it stops collecting and returns.
    pub shutdown: CancellationToken,
}

/// The series of `before` that `now` no longer has, as a set to write staleness markers with; none if nothing
/// vanished.
pub fn vanished(before: &SeriesSet, now: Option<&SeriesSet>) -> Option<Arc<SeriesSet>> {
    let same_target = now.filter(|now| now.target() == before.target());
    let alive: HashSet<&Labels> =
        same_target.iter().flat_map(|set| set.series()).map(|s| s.labels()).collect();
    let gone: Vec<Arc<Series>> =
        before.series().iter().filter(|s| !alive.contains(s.labels())).cloned().collect();
    (!gone.is_empty()).then(|| Arc::new(SeriesSet::new(before.target().clone(), gone)))
}
