//! What the agent says of itself: the books as metrics, and `/api/v1/status` as JSON.

use crate::logs_line::Running;
use crate::pipeline::driver::Snapshot;
use crate::pipeline::effect::{OutputBooks, StoreFailure};
use crate::source::clock::SampleClock;
use crate::source::container;
use crate::source::host::HostStatus;
use crate::source::probe::ProbeSource;
use crate::source::scrape::ScrapeSource;
use crate::uplink::{UplinkHandle, UplinkState};
use pegel_proto::batch::{AgentEpoch, Signal};
use pegel_runtime::metrics::Registry;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;

/// What the status is read from.
#[derive(Clone)]
pub struct StatusSource {
    /// The agent's epoch.
    pub epoch: AgentEpoch,
    /// Delivery.
    pub delivery: DeliveryWatch,
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
    /// Logs; none if none are collected.
    pub logs: Option<Running>,
    /// Sample times.
    pub clock: SampleClock,
}

/// The state of delivery, by signal.
#[derive(Clone)]
pub struct DeliveryWatch {
    /// Of metrics.
    pub metrics: watch::Receiver<Snapshot>,
    /// Of logs; none where none are delivered.
    pub logs: Option<watch::Receiver<Snapshot>>,
}

impl DeliveryWatch {
    fn snapshots(&self) -> impl Iterator<Item = (Signal, Snapshot)> {
        let logs = self.logs.as_ref().map(|logs| (Signal::Logs, logs.borrow().clone()));
        [(Signal::Metrics, self.metrics.borrow().clone())].into_iter().chain(logs)
    }

    /// Why a spool can't be used, if so.
    pub fn spool_trouble(&self) -> Option<String> {
        self.snapshots().find_map(|(signal, snapshot)| {
            snapshot.spool_trouble.map(|why| format!("the spool for {}: {why}", signal.name()))
        })
    }
}

impl StatusSource {
    /// The status as JSON.
    pub fn json(&self) -> Value {
        let snapshots: Vec<_> = self.delivery.snapshots().collect();
        let books: Vec<_> = snapshots
            .iter()
            .flat_map(|(signal, snapshot)| snapshot.books.iter().map(|books| books_json(*signal, books)))
            .collect();
        let spools = || snapshots.iter().map(|(_, snapshot)| &snapshot.spool);
        let trouble = |of: fn(&Snapshot) -> Option<&String>| {
            snapshots.iter().find_map(|(_, snapshot)| of(snapshot).cloned())
        };
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
            "books": books,
            "front_bytes": snapshots.iter().map(|(_, s)| s.front_bytes).sum::<usize>(),
            "spool": {
                "bytes": spools().map(|s| s.bytes).sum::<u64>(),
                "segments": spools().map(|s| s.segments.len()).sum::<usize>(),
                "quarantined_segments": spools().map(|s| s.quarantined).sum::<usize>(),
                "trouble": trouble(|s| s.spool_trouble.as_ref()),
            },
            "positions_trouble": trouble(|s| s.positions_trouble.as_ref()),
            "sources_wait_for": snapshots.iter().find_map(|(_, s)| s.takes_nothing).map(|why| match why {
                StoreFailure::Full => "the buffer is full",
                StoreFailure::Disk => "the disk takes nothing",
            }),
            "clock": { "offset_seconds": self.clock.offset_seconds(), "steps": self.clock.steps() },
            "collectors": self.host.as_ref().map(HostStatus::json),
            "containers": self.containers.as_ref().map(|status| json!(status.snapshot())),
            "runtimes": self.runtimes.as_ref().map(|discovery| json!(discovery.status())),
            "logs": self.logs.as_ref().map(|logs| json!(logs.status())),
            "targets": self.scrape.status().iter().map(|t| json!(**t)).collect::<Vec<_>>(),
            "checks": self.probes.status().iter().map(|c| json!(**c)).collect::<Vec<_>>(),
            "check_changes": self.probes.told_changes(),
            "hook_runs": self.probes.hook_runs(),
        })
    }

    /// Puts the books on `/metrics`.
    pub fn export(&self, registry: &Registry) {
        let source = self.clone();
        let inner = registry.clone();
        registry.on_render(move || {
            for (signal, snapshot) in source.delivery.snapshots() {
                for books in &snapshot.books {
                    export_books(&inner, signal, books);
                }
                let labels = [("signal", signal.name())];
                inner
                    .gauge("pegel_front_bytes", "Bytes in memory that no disk holds.", &labels)
                    .set(snapshot.front_bytes as f64);
            }
        });
    }
}

fn books_json(signal: Signal, entry: &OutputBooks) -> Value {
    let books = &entry.books;
    let dropped: serde_json::Map<String, Value> =
        books.dropped.iter().map(|(r, n)| (r.name().to_owned(), (*n).into())).collect();
    let rejected: serde_json::Map<String, Value> =
        books.rejected.iter().map(|(r, n)| (r.name().to_owned(), (*n).into())).collect();
    json!({
        "signal": signal.name(),
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

/// The names of one signal's books.
struct BookNames {
    collected: [&'static str; 2],
    delivered: [&'static str; 2],
    held_already: [&'static str; 2],
    lost_in_crash: [&'static str; 2],
    dropped: [&'static str; 2],
    rejected: [&'static str; 2],
    front: [&'static str; 2],
    spooled: [&'static str; 2],
}

/// Each with its help text.
const SAMPLES: BookNames = BookNames {
    collected: ["pegel_collected_samples_total", "Samples collected for an output."],
    delivered: ["pegel_delivered_samples_total", "Samples that the backend accepted."],
    held_already: ["pegel_held_already_samples_total", "Samples that a re-send found there already."],
    lost_in_crash: ["pegel_lost_in_crash_samples_total", "Samples lost by kills and power cuts, at most."],
    dropped: ["pegel_dropped_samples_total", "Samples given up before they were sent."],
    rejected: ["pegel_rejected_samples_total", "Samples that an output refused."],
    front: ["pegel_front_samples", "Unsettled samples in memory that are not on disk."],
    spooled: ["pegel_spooled_samples", "Unsettled samples on disk."],
};

const ENTRIES: BookNames = BookNames {
    collected: ["pegel_collected_entries_total", "Log entries collected for an output."],
    delivered: ["pegel_delivered_entries_total", "Log entries that the backend accepted."],
    held_already: ["pegel_held_already_entries_total", "Log entries that a re-send found there already."],
    lost_in_crash: [
        "pegel_lost_in_crash_entries_total",
        "Log entries lost by kills and power cuts because they could not be read again, at most.",
    ],
    dropped: ["pegel_dropped_entries_total", "Log entries given up before they were sent."],
    rejected: ["pegel_rejected_entries_total", "Log entries that an output refused."],
    front: ["pegel_front_entries", "Unsettled log entries in memory that are not on disk."],
    spooled: ["pegel_spooled_entries", "Unsettled log entries on disk."],
};

fn export_books(registry: &Registry, signal: Signal, entry: &OutputBooks) {
    let output = entry.output.as_ref().map_or("", |o| o.as_str());
    let labels = [("output", output)];
    let books = &entry.books;
    let names = if signal == Signal::Logs { &ENTRIES } else { &SAMPLES };
    let totals = [
        (names.collected, books.collected),
        (names.delivered, books.delivered),
        (names.held_already, books.held_already),
        (names.lost_in_crash, books.lost_in_crash),
    ];
    for ([name, help], value) in totals {
        registry.counter(name, help, &labels).resume_at(value);
    }
    let reasons = books
        .dropped
        .iter()
        .map(|(reason, n)| (names.dropped, reason.name(), *n))
        .chain(books.rejected.iter().map(|(reason, n)| (names.rejected, reason.name(), *n)));
    for ([name, help], reason, n) in reasons {
        registry.counter(name, help, &[("output", output), ("reason", reason)]).resume_at(n);
    }
    for ([name, help], n) in [(names.front, books.in_front), (names.spooled, books.spooled)] {
        registry.gauge(name, help, &labels).set(n as f64);
    }
    registry
        .gauge(
            "pegel_output_parked",
            "Whether the output takes nothing at all at present.",
            &[("output", output), ("signal", signal.name())],
        )
        .set(f64::from(u8::from(entry.parked.is_some())));
}
