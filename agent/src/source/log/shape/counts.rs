//! What happens to lines on the way from source to record.

use super::step::Step;
use pegel_runtime::metrics::{Counter, Registry};

/// The most steps of an input: a word of bits says where one failed.
pub const MAX_STEPS: usize = 64;

/// Counted for one call, then added to the metrics at once: no atomic a line.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub lines: u64,
    pub joined: u64,
    pub entries: u64,
    pub repeats: u64,
    pub empty: u64,
    pub cut: u64,
    pub bad_text: u64,
    pub moved_labels: u64,
    pub lost_metadata: u64,
    pub masked: u64,
    pub clamped: u64,
    pub unfitting: u64,
    pub pieces: u64,
    pub unseries: u64,
    /// By step.
    pub dropped: Vec<u64>,
    /// By step.
    pub failed: Vec<u64>,
}

/// An input's counters. Lines read + pieces = entries + joined + dropped.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    lines: Counter,
    joined: Counter,
    entries: Counter,
    repeats: Counter,
    empty: Counter,
    cut: Counter,
    bad_text: Counter,
    moved_labels: Counter,
    lost_metadata: Counter,
    masked: Counter,
    clamped: Counter,
    unfitting: Counter,
    pieces: Counter,
    unseries: Counter,
    dropped: Vec<Option<Counter>>,
    failed: Vec<Option<Counter>>,
}

impl Tally {
    pub(super) fn new(steps: usize) -> Self {
        Self { dropped: vec![0; steps], failed: vec![0; steps], ..Self::default() }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (own, other) in [
            (&mut self.lines, other.lines),
            (&mut self.joined, other.joined),
            (&mut self.entries, other.entries),
            (&mut self.repeats, other.repeats),
            (&mut self.empty, other.empty),
            (&mut self.cut, other.cut),
            (&mut self.bad_text, other.bad_text),
            (&mut self.moved_labels, other.moved_labels),
            (&mut self.lost_metadata, other.lost_metadata),
            (&mut self.masked, other.masked),
            (&mut self.clamped, other.clamped),
            (&mut self.unfitting, other.unfitting),
            (&mut self.pieces, other.pieces),
            (&mut self.unseries, other.unseries),
        ] {
            *own += other;
        }
        for (own, other) in [(&mut self.dropped, &other.dropped), (&mut self.failed, &other.failed)] {
            own.iter_mut().zip(other).for_each(|(own, other)| *own += other);
        }
    }
}

const DROPPED: (&str, &str) =
    ("pegel_log_lines_dropped_total", "Lines that a step of their input left out, by reason.");
const FAILED: (&str, &str) =
    ("pegel_log_step_failures_total", "Lines that a step could make nothing of; they went on without it.");

impl Counts {
    pub(super) fn new(registry: &Registry, input: &str, steps: &[Step]) -> Self {
        let counter = |name, help| registry.counter(name, help, &[("input", input)]);
        let dropped = |reason: &str, step: &str| {
            registry.counter(DROPPED.0, DROPPED.1, &[("input", input), ("reason", reason), ("step", step)])
        };
        let of_step = |(nth, step): (usize, &Step)| {
            step.drops_as().map(|reason| dropped(reason, &format!("{nth}:{}", step.name())))
        };
        let fails = |(nth, step): (usize, &Step)| {
            let name = format!("{nth}:{}", step.name());
            step.may_fail()
                .then(|| registry.counter(FAILED.0, FAILED.1, &[("input", input), ("step", &name)]))
        };
        Self {
            lines: counter("pegel_log_lines_total", "Lines and messages read."),
            joined: counter(
                "pegel_log_lines_joined_total",
                "Lines that became part of the entry of an earlier line.",
            ),
            entries: counter("pegel_log_entries_total", "Entries made."),
            repeats: dropped("repeat", ""),
            empty: dropped("nul", ""),
            unfitting: dropped("too_large", ""),
            pieces: counter(
                "pegel_log_line_pieces_total",
                "Entries beyond the first of an event that was cut into several.",
            ),
            unseries: counter(
                "pegel_log_metric_observations_dropped_total",
                "Values for derived metrics that had their most series already.",
            ),
            cut: counter("pegel_log_lines_cut_total", "Entries that ended at a limit of size."),
            bad_text: counter(
                "pegel_log_bad_text_total",
                "Lines with bytes that are no text in the input's encoding; they were replaced.",
            ),
            moved_labels: counter(
                "pegel_log_labels_moved_total",
                "Labels beyond the limits that were moved to structured metadata.",
            ),
            lost_metadata: counter(
                "pegel_log_metadata_cut_total",
                "Pairs of structured metadata beyond the limits that were cut or left out.",
            ),
            masked: counter("pegel_log_masked_total", "Texts that were masked."),
            clamped: counter(
                "pegel_log_timestamps_replaced_total",
                "Timestamps of lines that were too old or too far ahead, so that the time of reading was taken.",
            ),
            dropped: steps.iter().enumerate().map(of_step).collect(),
            failed: steps.iter().enumerate().map(fails).collect(),
        }
    }

    /// Adds what was counted and empties it.
    pub(super) fn take(&self, tally: &mut Tally) {
        for (counter, counted) in [
            (&self.lines, &mut tally.lines),
            (&self.joined, &mut tally.joined),
            (&self.entries, &mut tally.entries),
            (&self.repeats, &mut tally.repeats),
            (&self.empty, &mut tally.empty),
            (&self.cut, &mut tally.cut),
            (&self.bad_text, &mut tally.bad_text),
            (&self.moved_labels, &mut tally.moved_labels),
            (&self.lost_metadata, &mut tally.lost_metadata),
            (&self.masked, &mut tally.masked),
            (&self.clamped, &mut tally.clamped),
            (&self.unfitting, &mut tally.unfitting),
            (&self.pieces, &mut tally.pieces),
            (&self.unseries, &mut tally.unseries),
        ] {
            add(counter, counted);
        }
        for (counters, counted) in [(&self.dropped, &mut tally.dropped), (&self.failed, &mut tally.failed)] {
            for (counter, counted) in counters.iter().zip(counted) {
                if let Some(counter) = counter {
                    add(counter, counted);
                }
            }
        }
    }
}

fn add(counter: &Counter, counted: &mut u64) {
    if *counted > 0 {
        counter.add(std::mem::take(counted));
    }
}
