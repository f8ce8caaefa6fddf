//! How the uplink is: for `status`, the page and the agent's own metrics.

use parking_lot::Mutex;
use pegel_runtime::metrics::{Counter, Registry};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the uplink is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UplinkState {
    /// It looks for an aggregator.
    #[default]
    Connecting,
    /// It has a session.
    Connected,
    /// It waits before it tries again.
    Waiting,
    /// It has ended.
    Stopped,
}

/// A snapshot of the uplink.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UplinkStatus {
    /// What it is doing.
    pub state: UplinkState,
    /// The aggregator's name, while connected.
    pub aggregator: Option<String>,
    /// Its address, while connected.
    pub address: Option<SocketAddr>,
    /// How long the session has lasted.
    pub connected_for: Option<Duration>,
    /// Why the last session ended or could not be made.
    pub last_error: Option<String>,
    /// The path's round trip.
    pub rtt: Option<Duration>,
    /// How far the aggregator's clock is ahead of this machine's, in milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// UDP payload sent since the agent started, in bytes.
    pub sent_bytes: u64,
    /// UDP payload received since the agent started, in bytes.
    pub received_bytes: u64,
    /// Encoded bytes sent and not acknowledged, all streams.
    pub in_flight_bytes: usize,
    /// Why outputs take nothing, as they say: name and reason.
    pub parked: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Cell {
    status: UplinkStatus,
    since: Option<Instant>,
    connection: Option<quinn::Connection>,
    windows: Option<Arc<super::window::Windows>>,
    ended_sent_bytes: u64,
    ended_received_bytes: u64,
}

#[derive(Debug)]
pub(super) struct StatusCell {
    cell: Arc<Mutex<Cell>>,
    sessions: Counter,
    failures: Counter,
}

impl StatusCell {
    pub(super) fn new(registry: &Registry) -> Self {
        let cell: Arc<Mutex<Cell>> = Arc::default();
        let gauge = |name, help| registry.gauge(name, help, &[]);
        let connected =
            gauge("pegel_uplink_connected", "1 while the agent has a session with an aggregator.");
        let rtt = gauge("pegel_uplink_rtt_seconds", "Round trip to the aggregator.");
        let skew = gauge(
            "pegel_uplink_clock_skew_seconds",
            "How far the aggregator's clock is ahead of this machine's.",
        );
        let in_flight =
            gauge("pegel_uplink_in_flight_bytes", "Encoded bytes sent and not acknowledged by outputs.");
        let sent = registry.counter("pegel_uplink_sent_bytes_total", "UDP payload sent.", &[]);
        let received = registry.counter("pegel_uplink_received_bytes_total", "UDP payload received.", &[]);
        let weak = Arc::downgrade(&cell);
        registry.on_render(move || {
            let Some(cell) = weak.upgrade() else { return };
            let status = cell.lock().snapshot();
            connected.set(f64::from(u8::from(status.state == UplinkState::Connected)));
            rtt.set(status.rtt.map_or(f64::NAN, |rtt| rtt.as_secs_f64()));
            skew.set(status.clock_skew_ms.map_or(f64::NAN, |ms| ms as f64 / 1e3));
            in_flight.set(status.in_flight_bytes as f64);
            sent.resume_at(status.sent_bytes);
            received.resume_at(status.received_bytes);
        });
        Self {
            cell,
            sessions: registry.counter("pegel_uplink_sessions_total", "Sessions opened.", &[]),
            failures: registry.counter(
                "pegel_uplink_failures_total",
                "Sessions that ended, or could not be opened, for an error.",
                &[],
            ),
        }
    }

    pub(super) fn snapshot(&self) -> UplinkStatus {
        self.cell.lock().snapshot()
    }

    pub(super) fn connecting(&self) {
        self.cell.lock().status.state = UplinkState::Connecting;
    }

    pub(super) fn connected(
        &self,
        aggregator: &str,
        connection: &quinn::Connection,
        windows: Arc<super::window::Windows>,
        skew_ms: i64,
        now: Instant,
    ) {
        self.sessions.inc();
        let mut cell = self.cell.lock();
        cell.since = Some(now);
        cell.windows = Some(windows);
        cell.status.state = UplinkState::Connected;
        cell.status.aggregator = Some(aggregator.to_owned());
        cell.status.address = Some(connection.remote_address());
        cell.status.clock_skew_ms = Some(skew_ms);
        cell.connection = Some(connection.clone());
    }

    pub(super) fn skew(&self, skew_ms: i64) {
        self.cell.lock().status.clock_skew_ms = Some(skew_ms);
    }

    pub(super) fn parked(&self, output: &str, reason: Option<&str>) {
        let mut cell = self.cell.lock();
        cell.status.parked.retain(|(name, _)| name != output);
        if let Some(reason) = reason {
            cell.status.parked.push((output.to_owned(), reason.to_owned()));
        }
    }

    /// The session ended, or there is none yet; with an error unless it ended in good order.
    pub(super) fn disconnected(&self, error: Option<&str>) {
        let mut cell = self.cell.lock();
        if let Some(connection) = cell.connection.take() {
            let stats = connection.stats();
            cell.ended_sent_bytes += stats.udp_tx.bytes;
            cell.ended_received_bytes += stats.udp_rx.bytes;
        }
        cell.since = None;
        cell.windows = None;
        cell.status.state = UplinkState::Waiting;
        cell.status.aggregator = None;
        cell.status.address = None;
        cell.status.parked.clear();
        if let Some(error) = error {
            self.failures.inc();
            cell.status.last_error = Some(error.to_owned());
        }
    }

    pub(super) fn stopped(&self) {
        self.disconnected(None);
        self.cell.lock().status.state = UplinkState::Stopped;
    }
}

impl Cell {
    fn snapshot(&self) -> UplinkStatus {
        let mut status = self.status.clone();
        status.connected_for = self.since.map(|since| since.elapsed());
        status.sent_bytes = self.ended_sent_bytes;
        status.received_bytes = self.ended_received_bytes;
        if let Some(connection) = &self.connection {
            let stats = connection.stats();
            status.rtt = Some(connection.rtt());
            status.sent_bytes += stats.udp_tx.bytes;
            status.received_bytes += stats.udp_rx.bytes;
        }
        status.in_flight_bytes = self.windows.as_ref().map_or(0, |w| w.total_bytes());
        status
    }
}
