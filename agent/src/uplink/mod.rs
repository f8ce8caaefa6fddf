//! The uplink: one QUIC session with one aggregator at a time.
//!
//! ```text
//! pipeline ── UplinkHandle::try_send ──▶ session ─┬─ control: hello/welcome, heartbeats, go-away
//!          ◀── UplinkEvent ──────────────────────┤
//!                                                 └─ stream (one an output and lane): encoder ─▶ frames
//!                                                                        acknowledgements ◀─┘
//! ```
//!
//! The uplink remembers no batch once it is written: what is not acknowledged when a session or stream ends, the
//! pipeline sends again. So that nothing that was sent before an end slips in behind it, each send names the
//! [`Attempt`] that it belongs to, and those of an attempt that is over are dropped.

use crate::uplink::status::StatusCell;
use crate::uplink::window::Windows;
use arc_swap::ArcSwapOption;
use pegel_proto::batch::{AgentEpoch, Batch, BatchSeq, Signal};
use pegel_proto::identity::OutputName;
use pegel_proto::wire;
use pegel_runtime::metrics::Registry;
use pegel_runtime::tls::UplinkTls;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

mod address;
mod backoff;
mod connect;
mod control;
mod counters;
mod liveness;
mod run;
mod session;
mod status;
mod stream;
mod throttle;
mod transport;
mod window;

pub use pegel_proto::wire::Acked;
pub use status::{UplinkState, UplinkStatus};

/// The port of an aggregator's address that names none.
pub const DEFAULT_PORT: u16 = 4433;

/// The uplink's settings.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The aggregators: `host`, `host:port`, `address:port`, `[v6]:port`. A name may have several addresses.
    pub aggregators: Vec<String>,
}

/// What the uplink works with.
#[derive(Clone)]
pub struct Context {
    /// Its settings.
    pub settings: Settings,
    /// Certificates; tenant and node are the certificate's.
    pub tls: Arc<UplinkTls>,
    /// The agent's epoch.
    pub epoch: AgentEpoch,
    /// The host name to tell.
    pub hostname: String,
    /// pegel's own metrics.
    pub registry: Registry,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub wall_clock_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
}

/// Which of an output's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Lane {
    /// Oldest first.
    #[default]
    Order,
    /// Fresh batches that overtake a backlog, where the output accepts samples out of order.
    Fresh,
}

/// One stream's name within a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// The signal.
    pub signal: Signal,
    /// The output.
    pub output: OutputName,
    /// The lane.
    pub lane: Lane,
}

impl StreamKey {
    /// The stream of metrics to an output, oldest first.
    pub fn metrics(output: OutputName) -> Self {
        Self::in_order(Signal::Metrics, output)
    }

    /// The stream of a signal to an output, oldest first.
    pub fn in_order(signal: Signal, output: OutputName) -> Self {
        Self { signal, output, lane: Lane::Order }
    }
}

/// Numbers the lives of streams: it rises with each session and each reset of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// An output that the aggregator wants batches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncedOutput {
    /// Its name.
    pub name: OutputName,
    /// What it takes.
    pub signal: Signal,
    /// Whether fresh samples may overtake a backlog.
    pub accepts_out_of_order: bool,
    /// How far behind a series' newest sample the backend takes one, in seconds; 0 is unknown.
    pub out_of_order_window_seconds: u64,
}

/// What the aggregator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest frame, in bytes.
    pub max_frame_bytes: usize,
    /// Encoded bytes sent and not acknowledged, a stream.
    pub max_in_flight_bytes: usize,
    /// Series of one stream.
    pub max_series: usize,
}

/// What the uplink tells the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkEvent {
    /// A session began. Each output's unacknowledged batches are to be sent, oldest first.
    Up {
        /// The attempt that sends to any stream belong to now.
        attempt: Attempt,
        /// The aggregator's name and address.
        aggregator: String,
        /// The outputs.
        outputs: Vec<AnnouncedOutput>,
        /// The limits.
        limits: Limits,
    },
    /// The aggregator's outputs or limits changed while the session goes on.
    OutputsChanged {
        /// The outputs now.
        outputs: Vec<AnnouncedOutput>,
        /// The limits now.
        limits: Limits,
    },
    /// Batches are done, or an output's state changed.
    Ack {
        /// The stream.
        stream: StreamKey,
        /// What is said.
        acked: Acked,
    },
    /// A stream was reset; what it has not acknowledged is to be sent again, oldest first, under the new attempt.
    StreamReset {
        /// The stream.
        stream: StreamKey,
        /// The attempt that sends to this stream belong to from now on.
        attempt: Attempt,
        /// Why.
        reason: String,
        /// How often in a row it was reset without any acknowledgement. When it rises, the oldest batch may be what
        /// the aggregator cannot read.
        resets_without_progress: u32,
    },
    /// A batch's frame is larger than the aggregator takes. A [`UplinkEvent::StreamReset`] follows.
    Unsendable {
        /// The stream.
        stream: StreamKey,
        /// The batch.
        seq: BatchSeq,
        /// Why.
        reason: String,
    },
    /// The aggregator asks for at most so many bytes a second (0: no limit). The uplink keeps to it by itself.
    Throttle {
        /// Bytes a second.
        bytes_per_second: u64,
    },
    /// The session ended. What is not acknowledged is to be sent again after the next [`UplinkEvent::Up`].
    Down {
        /// Why, for people.
        reason: String,
    },
}

/// What the pipeline tells the aggregator now and then: the whole state; the uplink sends what changed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeartbeatReport {
    /// The balances of all signals and outputs.
    pub books: Vec<wire::Books>,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// Bytes in the memory front.
    pub front_bytes: u64,
    /// Segments set aside.
    pub quarantined_segments: u64,
}

/// The stream's window is used up: try again after its next [`UplinkEvent::Ack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the acknowledgement window is used up")]
pub struct WindowFull;

/// The pipeline's end.
#[derive(Clone)]
pub struct UplinkHandle {
    sends: mpsc::UnboundedSender<QueuedSend>,
    windows: Arc<ArcSwapOption<Windows>>,
    report: Arc<watch::Sender<Reports>>,
    status: Arc<StatusCell>,
}

/// What the next heartbeat tells.
#[derive(Debug, Clone, Default)]
struct Reports {
    /// The last report of each signal's delivery.
    delivery: BTreeMap<Signal, HeartbeatReport>,
    /// Log files that are behind.
    files_behind: Option<wire::FilesBehind>,
}

/// The ends that hear what the uplink tells: one for each signal's delivery.
#[derive(Clone)]
struct EventSink(Vec<(Signal, mpsc::UnboundedSender<UplinkEvent>)>);

impl EventSink {
    /// Tells whom it concerns: what is about a stream, that stream's signal; the rest, all. Who has ended hears nothing.
    fn send(&self, event: UplinkEvent) {
        let about = match &event {
            UplinkEvent::Ack { stream, .. }
            | UplinkEvent::StreamReset { stream, .. }
            | UplinkEvent::Unsendable { stream, .. } => Some(stream.signal),
            _ => None,
        };
        for (signal, listener) in &self.0 {
            if about.is_none_or(|about| about == *signal) {
                let _ = listener.send(event.clone());
            }
        }
    }
}

/// One send on its way to its stream.
struct QueuedSend {
    stream: StreamKey,
    attempt: Attempt,
    batch: Arc<Batch>,
    sent_before: bool,
    estimate: usize,
}

impl UplinkHandle {
    /// Hands a batch over, unless the stream's window is used up. A batch always fits an empty window. Without a
    /// session, or with an attempt that is over, the batch is dropped: an event that says so is on its way.
    pub fn try_send(
        &self,
        stream: &StreamKey,
        attempt: Attempt,
        batch: Arc<Batch>,
        sent_before: bool,
    ) -> Result<(), WindowFull> {
        let Some(windows) = self.windows.load_full() else { return Ok(()) };
        if !windows.is_current(stream, attempt) {
            return Ok(());
        }
        let estimate = stream::estimated_bytes(&batch);
        if !windows.take(stream, estimate) {
            return Err(WindowFull);
        }
        let send = QueuedSend { stream: stream.clone(), attempt, batch, sent_before, estimate };
        // Fails only when the uplink has ended.
        let _ = self.sends.send(send);
        Ok(())
    }

    /// Encoded bytes of a stream that were sent and not acknowledged, those on their way to it estimated.
    pub fn in_flight_bytes(&self, stream: &StreamKey) -> usize {
        self.windows.load().as_ref().map_or(0, |w| w.in_flight_bytes(stream))
    }

    /// Tells the aggregator how the agent is. Cheap, and worth calling every [`HEARTBEAT_INTERVAL`]: each call that
    /// changes anything is one small packet.
    ///
    /// [`HEARTBEAT_INTERVAL`]: crate::uplink::HEARTBEAT_INTERVAL
    pub fn heartbeat(&self, signal: Signal, report: HeartbeatReport) {
        self.report.send_if_modified(|now| {
            let changed = now.delivery.get(&signal) != Some(&report);
            now.delivery.insert(signal, report);
            changed
        });
    }

    /// Tells the aggregator which log files are behind, with the next heartbeat and each further one. A change sends
    /// one at once.
    pub fn files_behind(&self, behind: Option<wire::FilesBehind>) {
        self.report.send_if_modified(|now| {
            let changed = now.files_behind != behind;
            now.files_behind = behind;
            changed
        });
    }

    /// How the uplink is.
    pub fn status(&self) -> UplinkStatus {
        self.status.snapshot()
    }
}

/// How often the pipeline should tell its state: a page that is half a minute old is fresh enough for balances, and
/// 150 bytes (both ways) each 30 s are 4 % of what a 600-series scrape every 5 s sends.
pub const HEARTBEAT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(30);

/// The uplink, not running yet.
pub struct Uplink {
    context: Context,
    sends: mpsc::UnboundedReceiver<QueuedSend>,
    events: EventSink,
    windows: Arc<ArcSwapOption<Windows>>,
    report: watch::Receiver<Reports>,
    status: Arc<StatusCell>,
}

/// Makes an uplink: the ends of metrics' delivery, and what is to be run.
pub fn uplink(context: Context) -> (UplinkHandle, mpsc::UnboundedReceiver<UplinkEvent>, Uplink) {
    let (sends, send_queue) = mpsc::unbounded_channel();
    let (events, event_queue) = mpsc::unbounded_channel();
    let (report, reports) = watch::channel(Reports::default());
    let windows = Arc::new(ArcSwapOption::empty());
    let status = Arc::new(StatusCell::new(&context.registry));
    let handle =
        UplinkHandle { sends, windows: windows.clone(), report: Arc::new(report), status: status.clone() };
    let events = EventSink(vec![(Signal::Metrics, events)]);
    let uplink = Uplink { context, sends: send_queue, events, windows, report: reports, status };
    (handle, event_queue, uplink)
}

impl Uplink {
    /// What is told to the delivery of a further signal.
    pub fn events_of(&mut self, signal: Signal) -> mpsc::UnboundedReceiver<UplinkEvent> {
        let (events, event_queue) = mpsc::unbounded_channel();
        self.events.0.push((signal, events));
        event_queue
    }

    /// Keeps a session until `shutdown`, then closes it.
    pub async fn run(self, shutdown: CancellationToken) {
        run::run(self, shutdown).await;
    }
}
