//! The receiver's own metrics.

use super::SessionTable;
use pegel_runtime::metrics::{Counter, Registry};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) struct Counters {
    registry: Registry,
    pending: Arc<AtomicUsize>,
    pub(super) batches: Counter,
    pub(super) samples: Counter,
    pub(super) entries: Counter,
    pub(super) frame_bytes: Counter,
    pub(super) ack_frames: Counter,
    pub(super) decode_errors: Counter,
    pub(super) protocol_errors: Counter,
    pub(super) superseded: Counter,
    pub(super) conflicts: Counter,
}

impl Counters {
    pub(super) fn new(registry: &Registry, sessions: &Arc<SessionTable>) -> Self {
        let gauge = registry.gauge("pegel_receiver_sessions", "Sessions of agents that are open.", &[]);
        let table = Arc::downgrade(sessions);
        registry.on_render(move || {
            if let Some(table) = table.upgrade() {
                gauge.set(table.live_count() as f64);
            }
        });
        let counter = |name, help| registry.counter(name, help, &[]);
        Self {
            registry: registry.clone(),
            pending: Arc::default(),
            batches: counter("pegel_receiver_batches_total", "Batches decoded, re-sends included."),
            samples: counter("pegel_receiver_samples_total", "Samples decoded, re-sends included."),
            entries: counter("pegel_receiver_entries_total", "Log entries decoded, re-sends included."),
            frame_bytes: counter("pegel_receiver_frame_bytes_total", "Bytes of batch frames received."),
            ack_frames: counter("pegel_receiver_ack_frames_total", "Acknowledgement frames sent."),
            decode_errors: counter(
                "pegel_receiver_decode_errors_total",
                "Streams reset because a frame could not be decoded.",
            ),
            protocol_errors: counter(
                "pegel_receiver_protocol_errors_total",
                "Sessions closed because an agent broke the protocol.",
            ),
            superseded: counter(
                "pegel_receiver_sessions_superseded_total",
                "Sessions closed because their agent opened a newer one.",
            ),
            conflicts: counter(
                "pegel_receiver_identity_conflicts_total",
                "Times that two live agents with different state directories showed certificates of one identity.",
            ),
        }
    }

    pub(super) fn handshake(&self, result: &str) {
        let help = "Handshakes by what became of them.";
        self.registry.counter("pegel_receiver_handshakes_total", help, &[("result", result)]).inc();
    }

    pub(super) fn closed_certificate(&self, reason: &str) {
        let help = "Live sessions closed because their certificate expired or is no longer accepted.";
        self.registry.counter("pegel_receiver_certificate_closes_total", help, &[("reason", reason)]).inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        let help = "Sessions refused after the handshake, by reason.";
        self.registry.counter("pegel_receiver_refused_total", help, &[("reason", reason)]).inc();
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Counts a handshake as under way until what it gives is dropped.
    pub(super) fn begin_handshake(&self) -> PendingHandshake {
        self.pending.fetch_add(1, Ordering::Relaxed);
        PendingHandshake(self.pending.clone())
    }
}

pub(super) struct PendingHandshake(Arc<AtomicUsize>);

impl Drop for PendingHandshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
