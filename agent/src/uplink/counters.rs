//! The uplink's own counters.

use pegel_runtime::metrics::{Counter, Registry};

#[derive(Debug, Clone)]
pub(super) struct Counters {
    pub(super) batches: Counter,
    pub(super) resent: Counter,
    pub(super) frame_bytes: Counter,
    pub(super) acks: Counter,
    pub(super) resets: Counter,
    pub(super) heartbeats: Counter,
}

impl Counters {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name, help| registry.counter(name, help, &[]);
        Self {
            batches: counter("pegel_uplink_batches_total", "Batches written to streams, re-sends included."),
            resent: counter("pegel_uplink_resent_batches_total", "Batches that may have been sent before."),
            frame_bytes: counter(
                "pegel_uplink_frame_bytes_total",
                "Bytes of frames written to data streams.",
            ),
            acks: counter("pegel_uplink_ack_frames_total", "Acknowledgement frames received."),
            resets: counter("pegel_uplink_stream_resets_total", "Data streams that were reset."),
            heartbeats: counter("pegel_uplink_heartbeats_total", "Heartbeats sent."),
        }
    }
}
