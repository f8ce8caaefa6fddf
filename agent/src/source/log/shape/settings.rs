//! What is made of an input's bytes.

use super::container::Container;
use super::mask::Mask;
use super::metrics::Derived;
use super::multiline::{DEFAULT_TIMEOUT, Multiline};
use super::step::Step;
use super::text::Encoding;
use super::time::Bounds;
use pegel_proto::metrics::{Block, Labels};
use std::sync::Arc;
use std::time::Duration;

/// The longest line by default: Loki's 256 KiB, less what masking and joining may add.
pub const DEFAULT_MAX_LINE: usize = 252 << 10;
/// The longest line that can be allowed: what a caller's megabyte of bytes certainly decides.
pub const MOST_MAX_LINE: usize = 384 << 10;

/// What is made of an input's bytes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How bytes become characters.
    pub encoding: Encoding,
    /// How a container's runtime wrote the lines; none for plain ones.
    pub container: Option<Container>,
    /// The most bytes of a line or a joined event; what is longer is cut into several entries.
    pub max_line: usize,
    /// Which lines belong together.
    pub multiline: Option<Multiline>,
    /// What is done with each entry, in this order.
    pub steps: Arc<[Step]>,
    /// What is taken out of all text at the end.
    pub mask: Option<Arc<Mask>>,
    /// Whether entries that repeat the one before are counted in it.
    pub repeats: bool,
    /// What a line's own time may be.
    pub times: Bounds,
    /// What fits the backend.
    pub limits: Limits,
    /// The metrics of [`Step::Metric`].
    pub derived: Derived,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            encoding: Encoding::default(),
            container: None,
            max_line: DEFAULT_MAX_LINE,
            multiline: None,
            steps: Arc::default(),
            mask: None,
            repeats: false,
            times: Bounds::default(),
            limits: Limits::default(),
            derived: Derived::default(),
        }
    }
}

impl Settings {
    /// How long a source may be silent with unconsumed bytes until its caller says [`End::Flush`](super::End::Flush).
    pub fn flush_after(&self) -> Duration {
        self.multiline.as_ref().map_or(DEFAULT_TIMEOUT, |multiline| multiline.timeout)
    }

    /// The metrics that are derived from the input's lines, the same for all shapers made of these settings (and of
    /// their clones). Ask for their samples at every interval and hand them to the intake of metrics.
    pub fn derived(&self) -> Derived {
        self.derived.clone()
    }

    /// Samples of the derived metrics: [`Derived::blocks`].
    pub fn samples(&self, target: &Arc<Labels>, at_ms: i64) -> Vec<Block> {
        self.derived.blocks(target, at_ms)
    }
}

/// What a backend takes; the defaults are those of Loki.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Labels of a stream, `node` and `tenant` among them, which the aggregator adds.
    pub labels: usize,
    /// Bytes of a label's name.
    pub label_name: usize,
    /// Bytes of a label's value.
    pub label_value: usize,
    /// Bytes of a line.
    pub line: usize,
    /// Bytes of an entry's structured metadata, names and values.
    pub metadata_bytes: usize,
    /// Pairs of an entry's structured metadata.
    pub metadata_pairs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            labels: 15,
            label_name: 1_024,
            label_value: 2_048,
            line: 256 << 10,
            metadata_bytes: 64 << 10,
            metadata_pairs: 128,
        }
    }
}

/// The labels that the aggregator adds to every stream.
pub(super) const ADDED_LABELS: usize = 2;

/// Whether a name can be a label's, or a key of structured metadata.
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A name as Loki takes it: what is no letter, digit or `_` becomes `_`.
pub(super) fn sanitise(name: &str, most: usize, out: &mut String) {
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        out.push('_');
    }
    let kept = name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' });
    out.extend(kept.take(most.saturating_sub(1)));
}
