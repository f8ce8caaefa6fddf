//! One agent's session: who it is, and its streams' decoders with the series that they describe.

mod decoder;

use crate::symbols::{Symbol, SymbolView, Symbols};
use pegel_proto::batch::AgentEpoch;
use pegel_proto::caps;
use pegel_proto::identity::AgentIdentity;
use pegel_proto::metrics::{Family, NAME_LABEL};
use std::fmt;
use std::sync::Arc;

pub(crate) use decoder::{NODE_LABEL, TENANT_LABEL};
pub use decoder::{SeriesBudget, StreamDecoder, StreamError};

/// Who an agent is, proven by its certificate, and what it said of itself in hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentInfo {
    /// Tenant and node from the certificate.
    pub identity: AgentIdentity,
    /// The agent's epoch.
    pub epoch: AgentEpoch,
    /// A number that no other session of this aggregator's life has.
    pub session: u64,
    /// Version, as the agent says.
    pub version: String,
    /// Host name, as the agent says.
    pub hostname: String,
    /// The address that the session came from.
    pub peer: std::net::SocketAddr,
}

/// What is wrong with a series' labels. Backends skip or refuse such a series, some of them silently (Prometheus
/// answers 204 to remote write 1.0: `write` in its storage/remote/write_handler.go), so that it is found here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelFault {
    /// There is no metric name.
    NoName,
    /// A label has an empty name.
    EmptyLabelName,
    /// A name has characters that backends without UTF-8 names refuse. Only a fault for those.
    NotLegacy,
    /// A name or value is longer than [`caps`] allow.
    TooLong,
    /// There are more labels than [`caps::MAX_LABELS`].
    TooMany,
    /// Another series of the set has the same labels: setting `tenant` and `node` made two into one.
    Collision,
}

impl fmt::Display for LabelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName => f.write_str("the series has no metric name (`__name__`)"),
            Self::EmptyLabelName => f.write_str("a label has an empty name"),
            Self::NotLegacy => {
                f.write_str("a name has characters outside a-z, A-Z, 0-9, _ (and : in metric names)")
            }
            Self::TooLong => write!(
                f,
                "a label name is longer than {} bytes or a value longer than {}",
                caps::MAX_LABEL_NAME_BYTES,
                caps::MAX_LABEL_VALUE_BYTES
            ),
            Self::TooMany => write!(f, "the series has more than {} labels", caps::MAX_LABELS),
            Self::Collision => f.write_str(
                "another series has the same labels once `tenant` and `node` are the certificate's",
            ),
        }
    }
}

/// A series with its full labels: its own, its target's, and tenant and node from the certificate, sorted by name.
pub struct ResolvedSeries {
    /// Label names and values.
    pub labels: Box<[(Symbol, Symbol)]>,
    /// Name, type, help and unit.
    pub family: Arc<Family>,
    help: Symbol,
    unit: Symbol,
    fault: Option<LabelFault>,
    symbols: Arc<Symbols>,
}

impl ResolvedSeries {
    /// Interns a series. `labels` are sorted by name, without empty values.
    pub fn new(symbols: &Arc<Symbols>, labels: &[(&str, &str)], family: Arc<Family>) -> Self {
        let mut interner = symbols.interner();
        let interned = labels.iter().map(|(n, v)| (interner.intern(n), interner.intern(v))).collect();
        let (help, unit) = (interner.intern(&family.help), interner.intern(&family.unit));
        drop(interner);
        let fault = fault_of(labels);
        Self { labels: interned, family, help, unit, fault, symbols: symbols.clone() }
    }

    /// The help text's symbol.
    pub fn help(&self) -> Symbol {
        self.help
    }

    /// The unit's symbol.
    pub fn unit(&self) -> Symbol {
        self.unit
    }

    /// What is wrong with the labels, if anything is.
    pub fn fault(&self) -> Option<LabelFault> {
        self.fault
    }

    /// The table that spells this series' symbols.
    pub fn symbols(&self) -> &Arc<Symbols> {
        &self.symbols
    }

    /// The value of a label.
    pub fn value<'v>(&self, view: &'v SymbolView<'_>, name: &str) -> Option<&'v str> {
        self.labels.iter().find(|(n, _)| view.text(*n) == name).map(|(_, v)| view.text(*v))
    }

    /// Roughly what the series takes in memory beside its symbols, in bytes.
    pub fn resident_bytes(&self) -> usize {
        // Two allocations, each with the allocator's 8 bytes, and the counts of the `Arc` that it lives in.
        size_of::<Self>() + 16 + size_of_val(&*self.labels) + 16
    }
}

impl Drop for ResolvedSeries {
    fn drop(&mut self) {
        self.symbols.release(std::mem::take(&mut self.labels), [self.help, self.unit]);
    }
}

impl PartialEq for ResolvedSeries {
    fn eq(&self, other: &Self) -> bool {
        self.labels == other.labels && self.family == other.family
    }
}

impl Eq for ResolvedSeries {}

impl fmt::Debug for ResolvedSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.symbols.view();
        f.debug_map().entries(self.labels.iter().map(|(n, v)| (view.text(*n), view.text(*v)))).finish()
    }
}

fn fault_of(labels: &[(&str, &str)]) -> Option<LabelFault> {
    let legacy = |text: &str, colon: bool| {
        !text.as_bytes()[0].is_ascii_digit()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || (colon && b == b':'))
    };
    let mut fault = Some(LabelFault::NoName);
    let mut all_legacy = true;
    for (name, value) in labels {
        if name.is_empty() {
            return Some(LabelFault::EmptyLabelName);
        }
        if name.len() > caps::MAX_LABEL_NAME_BYTES || value.len() > caps::MAX_LABEL_VALUE_BYTES {
            return Some(LabelFault::TooLong);
        }
        if *name == NAME_LABEL && !value.is_empty() {
            fault = None;
            all_legacy &= legacy(value, true);
        }
        all_legacy &= legacy(name, false);
    }
    if labels.len() > caps::MAX_LABELS {
        return Some(LabelFault::TooMany);
    }
    fault.or(if all_legacy { None } else { Some(LabelFault::NotLegacy) })
}

/// The series of a block.
#[derive(Debug, PartialEq, Eq)]
pub struct ResolvedSet {
    /// In the order of a block's values.
    pub series: Box<[Arc<ResolvedSeries>]>,
    lineage: u32,
    target: u64,
    faulty: bool,
    collisions: Box<[u32]>,
}

impl ResolvedSet {
    /// Puts a set together. Sets of one stream that share series have the same `lineage`, so that an output can
    /// keep each series' samples in order without comparing series.
    pub fn new(series: impl Into<Box<[Arc<ResolvedSeries>]>>, lineage: u32) -> Self {
        let series = series.into();
        let mut seen = std::collections::HashSet::with_capacity(series.len());
        let collisions: Box<[u32]> =
            (0..series.len() as u32).filter(|i| !seen.insert(&series[*i as usize].labels)).collect();
        let faulty = !collisions.is_empty() || series.iter().any(|s| s.fault.is_some());
        Self { series, lineage, target: 0, faulty, collisions }
    }

    /// Says whose series these are: a hash of the target labels as the agent sent them, the same in every stream.
    #[must_use]
    pub fn of_target(mut self, target: u64) -> Self {
        self.target = target;
        self
    }

    /// The target's hash; 0 if nobody said.
    pub fn target(&self) -> u64 {
        self.target
    }

    /// Names the sets of one stream that may share series.
    pub fn lineage(&self) -> u32 {
        self.lineage
    }

    /// Whether any member has a fault.
    pub fn faulty(&self) -> bool {
        self.faulty
    }

    /// What is wrong with a member's labels, if anything is.
    pub fn fault(&self, index: usize) -> Option<LabelFault> {
        let collides = self.collisions.binary_search(&(index as u32)).is_ok();
        self.series[index].fault.or(collides.then_some(LabelFault::Collision))
    }
}

/// The values of one set at one instant.
#[derive(Debug, Clone)]
pub struct ResolvedBlock {
    /// The instant, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The series.
    pub set: Arc<ResolvedSet>,
    /// One value a series.
    pub values: Box<[f64]>,
    /// Where samples carry instants of their own.
    pub stamps_ms: Option<Box<[i64]>>,
}

impl ResolvedBlock {
    /// The instant of the sample at an index.
    #[inline]
    pub fn stamp_ms(&self, index: usize) -> i64 {
        self.stamps_ms.as_ref().map_or(self.at_ms, |stamps| stamps[index])
    }

    /// The earliest and the latest instant of its samples.
    pub fn span_ms(&self) -> (i64, i64) {
        match &self.stamps_ms {
            Some(stamps) => stamps
                .iter()
                .fold((i64::MAX, i64::MIN), |(low, high), stamp| (low.min(*stamp), high.max(*stamp))),
            None => (self.at_ms, self.at_ms),
        }
    }
}
