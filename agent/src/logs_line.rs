//! The wiring of logs: checkpoints before delivery, delivery before inputs.

use crate::config::Settings;
use crate::delivery::{LOGS_DIR, LogLine, delivers_logs, log_line};
use crate::intake::{Intake, LogIntake};
use crate::pipeline::driver::Snapshot;
use crate::pipeline::effect::StoreFailure;
use crate::source::container::Catalogue;
use crate::source::log::checkpoints::Checkpoints;
use crate::source::log::file::Behind;
use crate::source::log::shape::Derived;
use crate::source::log::{LogSource, Status};
use crate::source::{SourceContext, clock::SampleClock};
use crate::uplink::UplinkHandle;
use pegel_proto::batch::Logs;
use pegel_proto::metrics::Labels;
use pegel_proto::{caps, wire};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often metrics that are derived from lines are collected: the interval of a usual scrape.
const DERIVED_EVERY: Duration = Duration::from_secs(15);

/// How often the aggregator hears of files that are behind.
const BEHIND_EVERY: Duration = Duration::from_secs(5);
/// From what on it does: long enough that a burst, or a moment's failure of the backend, is not worth it.
const BEHIND_FROM_SECONDS: f64 = 10.0;

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

    /// Tells the aggregator of files that are behind, until `shutdown`.
    pub async fn tell_behind(
        self,
        uplink: UplinkHandle,
        delivery: watch::Receiver<Snapshot>,
        shutdown: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(BEHIND_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let behind = self.source.behind();
            let takes_nothing = delivery.borrow().takes_nothing;
            uplink.files_behind(wire_behind(&behind, takes_nothing));
        }
    }

    /// Waits for the end of the inputs.
    pub async fn stopped(&self) {
        self.source.stopped().await;
    }
}

/// What is told of files that are behind; nothing where they are not behind enough.
fn wire_behind(behind: &Behind, takes_nothing: Option<StoreFailure>) -> Option<wire::FilesBehind> {
    let ms = |seconds: f64| (seconds * 1e3) as u64;
    let worst = behind.worst.iter().take(caps::MAX_FILES_BEHIND).map(|file| wire::FileBehind {
        path: wire::cut(&file.path, caps::MAX_TOLD_PATH_BYTES),
        bytes: file.lag_bytes,
        waits_ms: ms(file.lag_seconds),
    });
    let no_room = match takes_nothing.filter(|_| behind.no_room_seconds.is_some()) {
        Some(StoreFailure::Full) => wire::NoRoom::BufferFull,
        Some(StoreFailure::Disk) => wire::NoRoom::Disk,
        None => wire::NoRoom::Unspecified,
    };
    (behind.seconds >= BEHIND_FROM_SECONDS).then(|| wire::FilesBehind {
        files: behind.files as u64,
        bytes: behind.bytes,
        waits_ms: ms(behind.seconds),
        no_room_ms: ms(behind.no_room_seconds.unwrap_or_default()),
        no_room: no_room.into(),
        worst: worst.collect(),
    })
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
