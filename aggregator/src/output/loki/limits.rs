//! Loki's limits of streams and entries, checked before anything is sent.
//!
//! What is over one would be refused by Loki as well, if pegel's settings say what Loki's do; here it costs no request
//! and spoils none. Only what is certain is checked: nothing that Loki may have stored already, and of times only the
//! age, with room for clocks that differ. How far ahead a time may be is Loki's to say: by an aggregator's clock that
//! is behind, all that is new would be too far ahead.
//!
//! Source: `ValidateLabels` and `ValidateEntry` in pkg/distributor/validator.go (3.7).

use super::labels::LabelFault;
use pegel_proto::batch::RejectReason;
use pegel_proto::logs::EntryView;
use std::time::Duration;

/// The clocks of an aggregator and of Loki may differ by so much.
const CLOCKS_DIFFER: Duration = Duration::from_mins(1);
/// The label that Loki does not count: it mostly adds it itself.
const SERVICE_NAME: &str = "service_name";

/// What Loki takes. 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `max_label_names_per_series`, with `node` and `tenant`.
    pub labels: usize,
    /// `max_label_name_length`, in bytes.
    pub label_name: usize,
    /// `max_label_value_length`, in bytes.
    pub label_value: usize,
    /// `max_line_size`, in bytes.
    pub line: usize,
    /// `max_structured_metadata_size`, names and values in bytes.
    pub metadata: usize,
    /// `max_structured_metadata_entries_count`.
    pub metadata_pairs: usize,
    /// `reject_old_samples_max_age`.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            labels: 15,
            label_name: 1_024,
            label_value: 2_048,
            line: 256 << 10,
            metadata: 64 << 10,
            metadata_pairs: 128,
            age: Duration::ZERO,
        }
    }
}

impl Limits {
    /// No limit at all.
    pub(super) const NONE: Self = Self {
        labels: 0,
        label_name: 0,
        label_value: 0,
        line: 0,
        metadata: 0,
        metadata_pairs: 0,
        age: Duration::ZERO,
    };

    /// Whether a stream's labels, `node` and `tenant` among them, are within the limits.
    pub(super) fn check_labels(&self, labels: &[(&str, &str)]) -> Result<(), LabelFault> {
        let count = labels.iter().filter(|(name, _)| *name != SERVICE_NAME).count();
        if is_over(count, self.labels) {
            return Err(LabelFault::TooMany { count, most: self.labels });
        }
        for (name, value) in labels {
            if is_over(name.len(), self.label_name) {
                return Err(LabelFault::LongName { name: cut(name), most: self.label_name });
            }
            if is_over(value.len(), self.label_value) {
                return Err(LabelFault::LongValue {
                    name: cut(name),
                    bytes: value.len(),
                    most: self.label_value,
                });
            }
        }
        Ok(())
    }

    /// What an entry is over, in words with the setting's name; none if it is within the limits.
    pub(super) fn fault_of(&self, entry: EntryView<'_>, now_ns: i64) -> Option<(RejectReason, String)> {
        let line = entry.line_bytes().len();
        if is_over(line, self.line) {
            let told = format!("a line of {line} bytes is over limits.line, {}", self.line);
            return Some((RejectReason::TooLarge, told));
        }
        let (mut pairs, mut bytes) = (0, 0);
        for (name, value) in entry.metadata() {
            pairs += 1;
            bytes += name.len() + value.len();
        }
        if is_over(bytes, self.metadata) {
            let told =
                format!("{bytes} bytes of structured metadata are over limits.metadata, {}", self.metadata);
            return Some((RejectReason::TooLarge, told));
        }
        if is_over(pairs, self.metadata_pairs) {
            let most = self.metadata_pairs;
            let told = format!("{pairs} pairs of structured metadata are over limits.metadata_pairs, {most}");
            return Some((RejectReason::TooLarge, told));
        }
        let oldest = now_ns.saturating_sub(self.age.saturating_add(CLOCKS_DIFFER).as_nanos() as i64);
        (!self.age.is_zero() && entry.at_ns() < oldest).then(|| {
            (RejectReason::TooOld, format!("the entry is older than limits.max_age, {:?}", self.age))
        })
    }
}

fn is_over(value: usize, most: usize) -> bool {
    most > 0 && value > most
}

/// A name for people: names may be very long.
fn cut(name: &str) -> String {
    const MOST: usize = 40;
    crate::output::settlement::cut(name, MOST)
}
