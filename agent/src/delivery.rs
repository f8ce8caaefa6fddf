//! Delivery as the agent runs it: a line for each signal (intake, core, spool, positions), over one uplink.
//!
//! Metrics keep their files directly in the state directory, logs in `logs/` below it. A line for logs runs where
//! inputs are configured, and where an earlier configuration left something to deliver.

use crate::config::{BufferSettings, Settings};
use crate::intake::{DEFAULT_INTAKE_BYTES, Inbox, Intake, LogIntake, intake, log_intake};
use crate::pipeline::driver::{Driver, Parts, Safe, Snapshot, lost_since, restore};
use crate::pipeline::effect::Memory;
use crate::positions::Positions;
use crate::rejects::Rejects;
use crate::source::clock::system_wall_ms;
use crate::source::host::{KernelSystem, Paths, machine_summary};
use crate::spool::Loss;
use crate::spool::codec::RecordCodec;
use crate::spool::thread::{CursorId, Settings as SpoolThreadSettings, SpoolThread};
use crate::uplink::{self, UplinkEvent, UplinkHandle};
use anyhow::Context as _;
use parking_lot::Mutex;
use pegel_proto::batch::{AgentEpoch, BatchSeq, Content, Signal};
use pegel_proto::caps::{MAX_BATCH_SAMPLES, MAX_STREAM_SERIES};
use pegel_proto::codec::DecoderLimits;
use pegel_runtime::metrics::Registry;
use pegel_runtime::tls::UplinkTls;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The directory of logs' files below the state directory.
pub const LOGS_DIR: &str = "logs";
/// The reader that looks at a start for batches that checkpoints do not know yet.
const ADVANCING: CursorId = CursorId(u32::MAX);
/// How many entries it reads at a time: the blocks are some megabytes.
const ADVANCE_ENTRIES: u64 = 64 << 10;

/// The running parts of delivery.
pub struct Delivery {
    /// The agent's epoch.
    pub epoch: AgentEpoch,
    /// Where sources of samples hand over.
    pub intake: Intake,
    /// The state of metrics' delivery.
    pub metrics: watch::Receiver<Snapshot>,
    /// The state of logs' delivery; none if it does not run.
    pub logs: Option<watch::Receiver<Snapshot>>,
    /// The uplink.
    pub uplink: UplinkHandle,
    /// What outputs refused.
    pub rejects: Arc<Mutex<Rejects>>,
    lines: Vec<Line>,
    uplink_task: JoinHandle<()>,
    uplink_shutdown: CancellationToken,
}

/// What the log source brings to its delivery.
pub struct LogLine {
    /// The end that the source's entries come from.
    pub inbox: Inbox,
    /// Hears of batches whose source need not keep its place before them.
    pub safe: Safe,
    /// The newest batch that it has heard of in an earlier life.
    pub heard_up_to: BatchSeq,
}

struct Line {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

/// What the lines share.
struct Common<'a> {
    settings: &'a Settings,
    registry: &'a Registry,
    uplink: UplinkHandle,
    rejects: Arc<Mutex<Rejects>>,
}

/// One signal's delivery before it runs.
struct Prepared {
    signal: Signal,
    core: crate::pipeline::core::Core,
    spool: Arc<SpoolThread>,
    positions: Option<Positions>,
}

impl Delivery {
    /// Starts delivery; that of logs where there is a line for them.
    pub async fn start(
        settings: &Settings,
        tls: &Arc<UplinkTls>,
        registry: &Registry,
        logs: Option<LogLine>,
    ) -> anyhow::Result<Self> {
        let (positions, memory, epoch) = open_positions(&settings.state_dir, AgentEpoch(rand::random()));
        let summary = machine_summary(
            &settings.host.as_ref().map_or_else(Paths::default, |host| host.paths.clone()),
            &KernelSystem::new(),
        );
        let (uplink, events, mut uplink_run) = uplink::uplink(uplink::Context {
            settings: settings.uplink.uplink.clone(),
            tls: tls.clone(),
            epoch,
            hostname: summary.hostname,
            registry: registry.clone(),
            wall_clock_ms: Arc::new(system_wall_ms),
        });
        let rejects_dir = settings.state_dir.join("rejects");
        let rejects = Rejects::new(rejects_dir, settings.buffer.rejects_bytes, registry);
        let common =
            Common { settings, registry, uplink: uplink.clone(), rejects: Arc::new(Mutex::new(rejects)) };

        let limits = DecoderLimits { max_series: MAX_STREAM_SERIES, max_samples: MAX_BATCH_SAMPLES };
        let (intake, receiver) = intake(DEFAULT_INTAKE_BYTES, registry);
        let prepared =
            common.prepare(&settings.buffer, RecordCodec::metrics(limits), positions, memory).await?;
        let (line, metrics) = common.run(prepared, Inbox::Metrics(receiver), None, events);
        let mut lines = vec![line];

        let mut logs_snapshot = None;
        if let Some(logs) = logs {
            let dir = settings.state_dir.join(LOGS_DIR);
            let (positions, memory, _) = open_positions(&dir, epoch);
            let mut prepared =
                common.prepare(&settings.logs.buffer, RecordCodec::logs(), positions, memory).await?;
            let losses = advance(&prepared.spool, logs.heard_up_to, &logs.safe).await;
            lost_since(&mut prepared.core, &prepared.spool, losses).await;
            let events = uplink_run.events_of(Signal::Logs);
            let (line, snapshot) = common.run(prepared, logs.inbox, Some(logs.safe), events);
            lines.push(line);
            logs_snapshot = Some(snapshot);
        }
        let uplink_shutdown = CancellationToken::new();
        Ok(Self {
            epoch,
            intake,
            metrics,
            logs: logs_snapshot,
            uplink,
            rejects: common.rejects,
            lines,
            uplink_task: tokio::spawn(uplink_run.run(uplink_shutdown.clone())),
            uplink_shutdown,
        })
    }

    /// Waits for what should never end by itself, and says what did.
    pub async fn broken(&mut self) -> String {
        let lines = self.lines.iter_mut().map(|line| &mut line.task);
        tokio::select! {
            (ended, ..) = futures_util::future::select_all(lines) => format!("delivery ended unexpectedly ({ended:?})"),
            ended = &mut self.uplink_task => format!("the uplink ended unexpectedly ({ended:?})"),
        }
    }

    /// Ends delivery. Sources have ended by then.
    pub async fn end(self) {
        // All of them at once: each has the same time.
        for line in &self.lines {
            line.shutdown.cancel();
        }
        for line in self.lines {
            let _ = line.task.await;
        }
        self.uplink_shutdown.cancel();
        let _ = self.uplink_task.await;
    }
}

/// Whether logs are delivered: there are inputs, or an earlier configuration left something.
pub fn delivers_logs(settings: &Settings) -> bool {
    !settings.logs.source.inputs.is_empty() || settings.state_dir.join(LOGS_DIR).is_dir()
}

/// The log sources' end and what their delivery needs of them.
pub fn log_line(safe: Safe, heard_up_to: BatchSeq) -> (LogIntake, LogLine) {
    let (intake, receiver) = log_intake();
    (intake, LogLine { inbox: Inbox::Logs(receiver), safe, heard_up_to })
}

impl Common<'_> {
    async fn prepare(
        &self,
        buffer: &BufferSettings,
        codec: RecordCodec,
        positions: Option<Positions>,
        memory: Memory,
    ) -> anyhow::Result<Prepared> {
        let signal = codec.signal;
        let settings = SpoolThreadSettings::new(buffer.spool.clone());
        let spool = SpoolThread::start(&settings, codec, self.registry)
            .with_context(|| format!("cannot start the thread of the spool for {}", signal.name()))?;
        let spool = Arc::new(spool);
        let core = restore(buffer.delivery.clone(), memory, &spool).await;
        Ok(Prepared { signal, core, spool, positions })
    }

    fn run(
        &self,
        prepared: Prepared,
        intake: Inbox,
        safe: Option<Safe>,
        events: mpsc::UnboundedReceiver<UplinkEvent>,
    ) -> (Line, watch::Receiver<Snapshot>) {
        let parts = Parts {
            signal: prepared.signal,
            intake,
            safe,
            uplink: self.uplink.clone(),
            events,
            spool: prepared.spool,
            positions: prepared.positions,
            rejects: self.rejects.clone(),
            wall_clock_ms: Arc::new(system_wall_ms),
            shutdown_timeout: self.settings.shutdown_timeout,
        };
        let (driver, snapshot) = Driver::new(prepared.core, parts);
        let shutdown = CancellationToken::new();
        (Line { task: tokio::spawn(driver.run(shutdown.clone())), shutdown }, snapshot)
    }
}

/// Tells of batches on disk that the source has not heard of: a power cut came between the spool's sync and the
/// checkpoint's. Gives what turned out to be lost on the way.
async fn advance(spool: &SpoolThread, heard_up_to: BatchSeq, safe: &Safe) -> Vec<Loss> {
    let mut from = heard_up_to.next();
    let mut losses = Vec::new();
    loop {
        let batches = match spool.read(ADVANCING, from, ADVANCE_ENTRIES).await {
            Ok(read) => {
                losses.extend(read.losses);
                read.batches
            }
            Err(error) => {
                tracing::warn!(%error, "the spool can't tell which lines it holds; some may be sent twice");
                break;
            }
        };
        let Some(last) = batches.last().map(|b| b.seq) else { break };
        for batch in &batches {
            if let Content::Logs(logs) = &batch.content {
                safe(batch.seq, logs);
            }
        }
        from = last.next();
    }
    // The reader's place is of no further use.
    let _ = spool.forget(ADVANCING).await;
    losses
}

/// Opens the positions in a directory. Where that fails the agent runs all the same, as a new epoch: its numbers begin
/// beyond any that an earlier life used, so that nothing on a disk that comes back is taken for its own.
fn open_positions(dir: &Path, fresh: AgentEpoch) -> (Option<Positions>, Memory, AgentEpoch) {
    match Positions::open(dir, fresh) {
        Ok(opened) => {
            if let Some(warning) = opened.warning {
                tracing::error!("{warning}");
            }
            let epoch = opened.positions.epoch();
            let mut memory = opened.memory;
            if let Some(error) = opened.unwritable {
                tracing::error!(
                    %error,
                    "positions can't be written: the agent goes on from the last that could; make room or make the \
                     state directory writable"
                );
                memory.next_seq = memory.next_seq.max(unreserved_seq());
            }
            (Some(opened.positions), memory, epoch)
        }
        Err(error) => {
            tracing::error!(
                %error,
                "positions can't be used: the agent runs, but a restart forgets what was not delivered; \
                 make the state directory writable and restart"
            );
            let memory = Memory { next_seq: unreserved_seq(), ..Memory::default() };
            (None, memory, fresh)
        }
    }
}

/// A number beyond any that an earlier life used, where none can be reserved: no agent cuts 16 batches a millisecond.
fn unreserved_seq() -> u64 {
    system_wall_ms().max(1) as u64 * 16
}
