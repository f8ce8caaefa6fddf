//! The wiring of logs: checkpoints before delivery, delivery before inputs.

use crate::config::Settings;
use crate::delivery::{LOGS_DIR, LogLine, delivers_logs, log_line};
use crate::intake::{Intake, LogIntake};
use crate::source::container::Catalogue;
use crate::source::log::checkpoints::Checkpoints;
use crate::source::log::shape::Derived;
use crate::source::log::{LogSource, Status};
use crate::source::{SourceContext, clock::SampleClock};
use pegel_proto::batch::Logs;
use pegel_proto::metrics::Labels;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often metrics that are derived from lines are collected: the interval of a usual scrape.
const DERIVED_EVERY: Duration = Duration::from_secs(15);

/// What logs need before their delivery runs.
pub struct Prepared {
    checkpoints: Arc<Checkpoints>,
    /// The sources' end.
    pub intake: LogIntake,
}

/// The log source as it runs, for status.
#[derive(Clone)]
pub struct Running {
    source: Arc<LogSource>,
}

/// Opens the checkpoints; none if logs are not delivered, or can't be: then the words say why.
pub fn prepare(settings: &Settings) -> Result<Option<(Prepared, LogLine)>, String> {
    if !delivers_logs(settings) {
        return Ok(None);
    }
    let opened = Checkpoints::open(&settings.state_dir.join(LOGS_DIR)).map_err(|error| error.to_string())?;
    if let Some(warning) = opened.warning {
        tracing::error!("{warning}");
    }
    if let Some(error) = opened.unwritable {
        tracing::error!(
            %error,
            "checkpoints of logs can't be written: what can be read later waits until they can; make room or make \
             the state directory writable"
        );
    }
    let checkpoints = opened.checkpoints;
    let told = checkpoints.clone();
    let safe = Arc::new(move |seq, logs: &Logs| told.safe(seq, logs));
    let (intake, line) = log_line(safe, checkpoints.settled_up_to());
    Ok(Some((Prepared { checkpoints, intake }, line)))
}

impl Prepared {
    /// Starts the inputs.
    pub fn start(
        self,
        settings: &Settings,
        catalogue: &Arc<Catalogue>,
        context: &SourceContext,
        shutdown: &CancellationToken,
    ) -> Running {
        let derived = settings.logs.source.inputs.iter().map(|input| {
            let labels = context.external_labels.iter().chain([("job", input.name.as_str())]);
            let target = Labels::new(labels.collect::<std::collections::BTreeMap<_, _>>());
            (Arc::new(target.unwrap_or_default()), input.shape.derived())
        });
        tokio::spawn(collect_derived(
            derived.collect(),
            context.intake.clone(),
            context.clock.clone(),
            shutdown.clone(),
        ));
        let source = LogSource::start(
            settings.logs.source.clone(),
            self.checkpoints,
            self.intake,
            &context.registry,
            Some(catalogue.clone()),
            shutdown.clone(),
        );
        Running { source: Arc::new(source) }
    }
}

impl Running {
    /// How the inputs fare.
    pub fn status(&self) -> Status {
        self.source.status()
    }

    /// Waits for the end of the inputs.
    pub async fn stopped(&self) {
        self.source.stopped().await;
    }
}

/// Hands metrics that are derived from lines over as ordinary samples.
async fn collect_derived(
    derived: Vec<(Arc<Labels>, Derived)>,
    intake: Intake,
    clock: SampleClock,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(DERIVED_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let at_ms = clock.now_ms();
        let blocks: Vec<_> =
            derived.iter().flat_map(|(target, derived)| derived.blocks(target, at_ms)).collect();
        if !blocks.is_empty() {
            intake.offer(blocks);
        }
    }
}
