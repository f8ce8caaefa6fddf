//! How a syslog input fares.

use super::message::Flaw;
use parking_lot::Mutex;
use pegel_runtime::metrics::{Counter, Registry};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a listener fares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ListenerStatus {
    /// The listener as it was configured.
    pub listener: String,
    /// Where it listens, once it does.
    pub bound: Option<String>,
    /// How many connections it has.
    pub connections: u64,
    /// Why it does not listen, if so.
    pub trouble: Option<String>,
}

/// How an input fares.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// The input's name.
    pub input: String,
    /// Its listeners.
    pub listeners: Vec<ListenerStatus>,
    /// Messages that were received.
    pub received: u64,
    /// Datagrams that were dropped because delivery had no room.
    pub dropped: u64,
}

/// The listeners of an input.
#[derive(Debug, Default)]
pub struct Statuses {
    listeners: Mutex<Vec<ListenerStatus>>,
    connections: Vec<Arc<AtomicU64>>,
}

/// A connection, as long as it is kept.
pub struct Connection(Arc<AtomicU64>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Statuses {
    /// For listeners of these names.
    pub fn new(names: Vec<String>) -> Self {
        let connections = names.iter().map(|_| Arc::default()).collect();
        let listeners =
            names.into_iter().map(|listener| ListenerStatus { listener, ..ListenerStatus::default() });
        Self { listeners: Mutex::new(listeners.collect()), connections }
    }

    /// A listener listens.
    pub fn bound(&self, nth: usize, address: String) {
        let mut listeners = self.listeners.lock();
        tracing::info!(listener = listeners[nth].listener, address, "syslog is received");
        listeners[nth].bound = Some(address);
        listeners[nth].trouble = None;
    }

    /// A listener does not; whether that is news.
    pub fn trouble(&self, nth: usize, reason: &str) -> bool {
        let listener = &mut self.listeners.lock()[nth];
        listener.bound = None;
        let news = listener.trouble.as_deref() != Some(reason);
        listener.trouble = Some(reason.to_owned());
        news
    }

    /// A listener has one more connection.
    pub fn connection(&self, nth: usize) -> Connection {
        self.connections[nth].fetch_add(1, Ordering::Relaxed);
        Connection(self.connections[nth].clone())
    }

    /// How they fare.
    pub fn all(&self) -> Vec<ListenerStatus> {
        let mut all = self.listeners.lock().clone();
        for (status, connections) in all.iter_mut().zip(&self.connections) {
            status.connections = connections.load(Ordering::Relaxed);
        }
        all
    }
}

/// An input's counters.
pub struct Counters {
    /// Messages.
    pub received: Counter,
    /// Datagrams without room.
    pub dropped: Counter,
    /// Connections beyond the limit.
    pub refused: Counter,
    /// Clients whose TLS handshake failed.
    pub handshakes_failed: Counter,
    /// Messages that were cut.
    pub cut: Counter,
    flaws: Vec<Counter>,
}

impl Counters {
    /// Registers them.
    pub fn new(registry: &Registry, input: &str) -> Self {
        let counter = |name, help| registry.counter(name, help, &[("input", input)]);
        Self {
            received: counter("pegel_log_syslog_messages_total", "Syslog messages that were received."),
            dropped: counter(
                "pegel_log_syslog_dropped_messages_total",
                "Syslog datagrams that were dropped because delivery had no room.",
            ),
            refused: counter(
                "pegel_log_syslog_refused_connections_total",
                "Syslog connections beyond the limit.",
            ),
            handshakes_failed: counter(
                "pegel_log_syslog_failed_handshakes_total",
                "Syslog clients whose TLS handshake failed.",
            ),
            cut: counter("pegel_log_syslog_cut_messages_total", "Syslog messages over the limit, cut."),
            flaws: Flaw::ALL
                .iter()
                .map(|flaw| {
                    registry.counter(
                        "pegel_log_syslog_flawed_messages_total",
                        "Syslog messages that are not well formed; they are kept.",
                        &[("input", input), ("flaw", flaw.name())],
                    )
                })
                .collect(),
        }
    }

    /// Counts a flaw.
    pub fn flaw(&self, flaw: Flaw) {
        if let Some(nth) = Flaw::ALL.iter().position(|one| *one == flaw) {
            self.flaws[nth].inc();
        }
    }
}
