//! What the agent says of itself: the books as metrics, and `/api/v1/status` as JSON.

use crate::pipeline::driver::Snapshot;
use crate::pipeline::effect::OutputBooks;
use crate::source::clock::SampleClock;
use crate::source::container;
use crate::source::host::HostStatus;
use crate::source::probe::ProbeSource;
use crate::source::scrape::ScrapeSource;
use crate::spool::inspect::{ListedRecord, ListedSegment, Listing};
use crate::uplink::{UplinkHandle, UplinkState};
use pegel_proto::batch::AgentEpoch;
use pegel_runtime::metrics::Registry;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use tokio::sync::watch;

/// What the status is read from.
#[derive(Clone)]
pub struct StatusSource {
    /// The agent's epoch.
    pub epoch: AgentEpoch,
    /// Delivery.
    pub delivery: watch::Receiver<Snapshot>,
    /// The uplink.
    pub uplink: UplinkHandle,
    /// The host source's collectors; none if it is turned off.
    pub host: Option<HostStatus>,
    /// The scrape source.
    pub scrape: Arc<ScrapeSource>,
    /// Container accounting; none if it is turned off.
    pub containers: Option<container::Status>,
    /// Container runtimes; none if they are not asked.
    pub runtimes: Option<Arc<container::runtime::Discovery>>,
    /// The probe source.
    pub probes: Arc<ProbeSource>,
    /// Sample times.
    pub clock: SampleClock,
}

impl StatusSource {
    /// The status as JSON.
    pub fn json(&self) -> Value {
        let snapshot = self.delivery.borrow().clone();
        let uplink = self.uplink.status();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "epoch": self.epoch.to_string(),
            "uplink": {
                "state": match uplink.state {
                    UplinkState::Connecting => "connecting",
                    UplinkState::Connected => "connected",
                    UplinkState::Waiting => "waiting",
                    UplinkState::Stopped => "stopped",
                },
                "aggregator": uplink.aggregator,
                "address": uplink.address.map(|a| a.to_string()),
                "connected_seconds": uplink.connected_for.map(|d| d.as_secs_f64()),
                "last_error": uplink.last_error,
                "rtt_seconds": uplink.rtt.map(|d| d.as_secs_f64()),
                "clock_skew_ms": uplink.clock_skew_ms,
                "sent_bytes": uplink.sent_bytes,
                "received_bytes": uplink.received_bytes,
            },
            "books": snapshot.books.iter().map(books_json).collect::<Vec<_>>(),
            "front_bytes": snapshot.front_bytes,
            "spool": {
                "bytes": snapshot.spool.bytes,
                "segments": snapshot.spool.segments.len(),
                "quarantined_segments": snapshot.spool.quarantined,
                "trouble": snapshot.spool_trouble,
            },
            "positions_trouble": snapshot.positions_trouble,
            "clock": { "offset_seconds": self.clock.offset_seconds(), "steps": self.clock.steps() },
            "collectors": self.host.as_ref().map(HostStatus::json),
            "containers": self.containers.as_ref().map(|status| json!(status.snapshot())),
            "runtimes": self.runtimes.as_ref().map(|discovery| json!(discovery.status())),
            "targets": self.scrape.status().iter().map(|t| json!(**t)).collect::<Vec<_>>(),
            "checks": self.probes.status().iter().map(|c| json!(**c)).collect::<Vec<_>>(),
        })
    }

    /// Puts the books on `/metrics`.
    pub fn export(&self, registry: &Registry) {
        let source = self.clone();
        let inner = registry.clone();
        registry.on_render(move || {
            let snapshot = source.delivery.borrow().clone();
            for books in &snapshot.books {
                export_books(&inner, books);
            }
            inner
                .gauge("pegel_front_bytes", "Bytes of values in memory that no disk holds.", &[])
                .set(snapshot.front_bytes as f64);
        });
    }
}

fn books_json(entry: &OutputBooks) -> Value {
    let books = &entry.books;
    let dropped: serde_json::Map<String, Value> =
        books.dropped.iter().map(|(r, n)| (r.name().to_owned(), (*n).into())).collect();
    let rejected: serde_json::Map<String, Value> =
        books.rejected.iter().map(|(r, n)| (r.name().to_owned(), (*n).into())).collect();
    json!({
        "signal": "metrics",
        "output": entry.output.as_ref().map(ToString::to_string),
        "announced": entry.announced,
        "parked": entry.parked,
        "oldest_at_ms": entry.oldest_at_ms,
        "collected": books.collected,
        "delivered": books.delivered,
        "held_already": books.held_already,
        "in_front": books.in_front,
        "spooled": books.spooled,
        "dropped": dropped,
        "rejected": rejected,
        "lost_in_crash": books.lost_in_crash,
        "balanced": books.balanced(),
    })
}

/// A spool's listing as JSON, for `pegel-agent buffer inspect --json`.
pub fn listing_json(listing: &Listing) -> Value {
    let segment = |s: &ListedSegment| {
        json!({
            "name": s.name,
            "first": s.records.first().map(|r| r.seq.0),
            "last": s.records.last().map(|r| r.seq.0),
            "batches": s.tally().batches,
            "samples": s.tally().records,
            "oldest_ms": s.records.iter().map(|r| r.oldest_ms).min(),
            "disk_bytes": s.disk_bytes,
            "sealed": s.sealed,
            "words": s.words,
        })
    };
    json!({
        "segments": listing.segments.iter().map(segment).collect::<Vec<_>>(),
        "quarantine": listing.quarantine.iter().map(segment).collect::<Vec<_>>(),
    })
}

/// A spool's listing as a table.
pub fn listing_table(listing: &Listing) -> String {
    let mut out = String::new();
    if listing.segments.is_empty() {
        out.push_str("the buffer is empty: everything was delivered, or nothing had to be written to disk\n");
    } else {
        let _ = writeln!(
            out,
            "{:<24} {:>12} {:>12} {:>9} {:>11} {:>11}",
            "SEGMENT", "FIRST", "LAST", "BATCHES", "SAMPLES", "DISK BYTES"
        );
    }
    for (segments, heading) in
        [(&listing.segments, None), (&listing.quarantine, Some("set aside as damaged:"))]
    {
        if let Some(heading) = heading.filter(|_| !segments.is_empty()) {
            let _ = writeln!(out, "\n{heading}");
        }
        for s in segments {
            let seq = |r: Option<&ListedRecord>| r.map_or_else(String::new, |r| r.seq.to_string());
            let tally = s.tally();
            let _ = writeln!(
                out,
                "{:<24} {:>12} {:>12} {:>9} {:>11} {:>11}{}",
                s.name,
                seq(s.records.first()),
                seq(s.records.last()),
                tally.batches,
                tally.records,
                s.disk_bytes,
                s.words.as_ref().map(|w| format!("  {w}")).unwrap_or_default()
            );
        }
    }
    out
}

fn export_books(registry: &Registry, entry: &OutputBooks) {
    let output = entry.output.as_ref().map_or("", |o| o.as_str());
    let labels = [("output", output)];
    let books = &entry.books;
    let totals = [
        ("pegel_collected_samples_total", "Samples collected for an output.", books.collected),
        ("pegel_delivered_samples_total", "Samples that the backend accepted.", books.delivered),
        (
            "pegel_held_already_samples_total",
            "Samples that a re-send found there already.",
            books.held_already,
        ),
        (
            "pegel_lost_in_crash_samples_total",
            "Samples lost by kills and power cuts, at most.",
            books.lost_in_crash,
        ),
    ];
    for (name, help, value) in totals {
        registry.counter(name, help, &labels).resume_at(value);
    }
    for (reason, n) in &books.dropped {
        registry
            .counter(
                "pegel_dropped_samples_total",
                "Samples given up before they were sent.",
                &[("output", output), ("reason", reason.name())],
            )
            .resume_at(*n);
    }
    for (reason, n) in &books.rejected {
        registry
            .counter(
                "pegel_rejected_samples_total",
                "Samples that an output refused.",
                &[("output", output), ("reason", reason.name())],
            )
            .resume_at(*n);
    }
    registry
        .gauge("pegel_front_samples", "Unsettled samples in memory that are not on disk.", &labels)
        .set(books.in_front as f64);
    registry.gauge("pegel_spooled_samples", "Unsettled samples on disk.", &labels).set(books.spooled as f64);
    registry
        .gauge("pegel_output_parked", "Whether the output takes nothing at all at present.", &labels)
        .set(f64::from(u8::from(entry.parked.is_some())));
}
