//! What the spool tells of itself.

use super::{Loss, LossReason, Spool, Tally};
use pegel_proto::batch::Signal;
use pegel_runtime::metrics::{Counter, Gauge, Histogram, Registry};

/// Upper bounds of `pegel_spool_commit_duration_seconds`, from a disk with a write cache to one in trouble.
const COMMIT_BOUNDS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

pub(super) struct Telemetry {
    bytes: Gauge,
    segments: Gauge,
    records: Gauge,
    quarantined: Gauge,
    dropped: Counter,
    damaged: Counter,
    pub(super) commits: Histogram,
}

impl Telemetry {
    pub(super) fn new(registry: &Registry, signal: Signal) -> Self {
        let labels = [("signal", signal.name())];
        let lost = |reason: LossReason| {
            registry.counter(
                "pegel_spool_lost_records_total",
                "Samples or log entries that were stored and are gone undelivered, as far as they could be counted.",
                &[("reason", reason.name()), ("signal", signal.name())],
            )
        };
        Self {
            bytes: registry.gauge(
                "pegel_spool_bytes",
                "Bytes that the spool takes on disk, by its own accounting.",
                &labels,
            ),
            segments: registry.gauge("pegel_spool_segments", "Segments in the spool.", &labels),
            records: registry.gauge("pegel_spool_records", "Samples or log entries in the spool.", &labels),
            quarantined: registry.gauge(
                "pegel_spool_quarantined_segments",
                "Damaged segments in quarantine/.",
                &labels,
            ),
            dropped: lost(LossReason::QuotaFull),
            damaged: lost(LossReason::Damaged),
            commits: registry.histogram(
                "pegel_spool_commit_duration_seconds",
                "How long it took to store batches durably.",
                &labels,
                COMMIT_BOUNDS,
            ),
        }
    }

    pub(super) fn observe(&self, spool: Option<&dyn Spool>) {
        let Some(spool) = spool else { return };
        let inventory = spool.inventory();
        self.bytes.set(inventory.bytes as f64);
        self.segments.set(inventory.segments.len() as f64);
        self.records.set(inventory.total().records as f64);
        self.quarantined.set(inventory.quarantined as f64);
    }

    pub(super) fn count(&self, loss: &Loss) {
        let samples = loss.total.unwrap_or_else(|| Tally::of(&loss.batches)).records;
        match loss.reason {
            LossReason::QuotaFull => self.dropped.add(samples),
            LossReason::Damaged => self.damaged.add(samples),
        }
    }
}
