//! pegel's own metrics about scrapes.

use pegel_runtime::metrics::{Counter, Gauge, Histogram, Registry};

/// From a local exporter's milliseconds to the usual timeout.
const SECONDS_BOUNDS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0];

#[derive(Debug)]
pub(super) struct ScrapeMetrics {
    pub(super) targets: Gauge,
    pub(super) succeeded: Counter,
    pub(super) failed: Counter,
    pub(super) skipped: Counter,
    pub(super) exemplars: Counter,
    pub(super) invalid: Counter,
    pub(super) duplicates: Counter,
    pub(super) body_bytes: Counter,
    pub(super) seconds: Histogram,
}

impl ScrapeMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let scrapes = |result| {
            registry.counter("pegel_scrapes_total", "Scrapes of targets, by result.", &[("result", result)])
        };
        let left_out = |reason| {
            registry.counter(
                "pegel_scrape_left_out_samples_total",
                "Samples that targets exposed and that were left out: their labels cannot be stored, or their series \
                 was there before in the same body.",
                &[("reason", reason)],
            )
        };
        Self {
            targets: registry.gauge("pegel_scrape_targets", "Targets that are scraped.", &[]),
            succeeded: scrapes("success"),
            failed: scrapes("failure"),
            skipped: registry.counter(
                "pegel_scrape_skipped_total",
                "Scrapes that were due while the one before still ran.",
                &[],
            ),
            exemplars: registry.counter(
                "pegel_scrape_left_out_exemplars_total",
                "Exemplars that targets exposed; they are not delivered yet.",
                &[],
            ),
            invalid: left_out("invalid_labels"),
            duplicates: left_out("duplicate"),
            body_bytes: registry.counter("pegel_scrape_body_bytes_total", "Bytes of scraped bodies.", &[]),
            seconds: registry.histogram(
                "pegel_scrape_duration_seconds",
                "How long scrapes took, reading the body included.",
                &[],
                SECONDS_BOUNDS,
            ),
        }
    }
}
