//! The metrics of one output and tenant.

use pegel_proto::batch::RejectReason;
use pegel_runtime::metrics::{Counter, Gauge, Registry};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// What is counted for one output and tenant. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tally(Arc<Counters>);

struct Counters {
    registry: Registry,
    output: String,
    tenant: String,
    delivered: Counter,
    held: Counter,
    repeated: Counter,
    retries: Counter,
    splits: Counter,
    queued: AtomicI64,
    parked: AtomicI64,
    queue_gauge: Gauge,
    parked_gauge: Gauge,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tally({}, {})", self.0.output, self.0.tenant)
    }
}

impl Tally {
    pub fn new(registry: &Registry, output: &str, tenant: &str) -> Self {
        let labels = [("output", output), ("tenant", tenant)];
        let counter = |name, help| registry.counter(name, help, &labels);
        Self(Arc::new(Counters {
            registry: registry.clone(),
            output: output.into(),
            tenant: tenant.into(),
            delivered: counter(
                "pegel_output_entries_delivered_total",
                "Log entries that the backend accepted.",
            ),
            held: counter(
                "pegel_output_entries_held_already_total",
                "Log entries sent again that the backend had already.",
            ),
            repeated: counter(
                "pegel_output_entries_possibly_repeated_total",
                "Log entries sent again after an answer that left open whether they were stored.",
            ),
            retries: counter("pegel_output_retries_total", "Requests to be sent again after a failure."),
            splits: counter(
                "pegel_output_splits_total",
                "Requests split in two to find refused samples, or because they were too large.",
            ),
            queued: AtomicI64::new(0),
            parked: AtomicI64::new(0),
            queue_gauge: registry.gauge(
                "pegel_output_queued_entries",
                "Log entries that wait for a request.",
                &labels,
            ),
            parked_gauge: registry.gauge(
                "pegel_output_parked_shards",
                "Shards that take nothing at present: a wrong URL, credentials or tenant.",
                &labels,
            ),
        }))
    }

    pub fn output(&self) -> &str {
        &self.0.output
    }

    pub fn tenant(&self) -> &str {
        &self.0.tenant
    }

    pub fn delivered(&self, n: u64) {
        self.0.delivered.add(n);
    }

    pub fn held(&self, n: u64) {
        self.0.held.add(n);
    }

    pub fn possibly_repeated(&self, n: u64) {
        self.0.repeated.add(n);
    }

    pub fn retry(&self) {
        self.0.retries.inc();
    }

    pub fn split(&self) {
        self.0.splits.inc();
    }

    pub fn rejected(&self, reason: RejectReason, n: u64) {
        let labels = [
            ("output", self.0.output.as_str()),
            ("tenant", self.0.tenant.as_str()),
            ("reason", reason.name()),
        ];
        self.0
            .registry
            .counter("pegel_output_entries_rejected_total", "Log entries refused, by reason.", &labels)
            .add(n);
    }

    pub fn request(&self, code: &str) {
        let labels = [("output", self.0.output.as_str()), ("code", code)];
        self.0
            .registry
            .counter("pegel_output_requests_total", "Requests, by status or kind of failure.", &labels)
            .inc();
    }

    pub fn sent(&self, message: usize, compressed: usize) {
        for (what, bytes) in [("raw", message), ("sent", compressed)] {
            let labels = [("output", self.0.output.as_str()), ("size", what)];
            self.0
                .registry
                .counter(
                    "pegel_output_request_bytes_total",
                    "Bytes of requests, before and after compression.",
                    &labels,
                )
                .add(bytes as u64);
        }
    }

    pub fn question(&self, result: &str) {
        let labels = [("output", self.0.output.as_str()), ("result", result)];
        self.0
            .registry
            .counter(
                "pegel_output_questions_total",
                "Questions what the backend holds, after answers that left it open.",
                &labels,
            )
            .inc();
    }

    pub fn queued(&self, change: i64) {
        let now = self.0.queued.fetch_add(change, Ordering::Relaxed) + change;
        self.0.queue_gauge.set(now as f64);
    }

    pub fn parked(&self, parked: bool) {
        let change = if parked { 1 } else { -1 };
        let now = self.0.parked.fetch_add(change, Ordering::Relaxed) + change;
        self.0.parked_gauge.set(now as f64);
    }
}
