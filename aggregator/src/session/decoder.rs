//! From the frames of one stream to blocks with full labels.

use super::{ResolvedBlock, ResolvedSeries, ResolvedSet};
use crate::symbols::Symbols;
use pegel_proto::codec::{DecodeError, Decoder, DecoderLimits, FamilyView, Visitor};
use pegel_proto::identity::AgentIdentity;
use pegel_proto::metrics::{Family, Labels, full_labels};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The label that holds the tenant.
pub const TENANT_LABEL: &str = "tenant";
/// The label that holds the node.
pub const NODE_LABEL: &str = "node";

/// How many series a session's streams may have described and not forgotten, together.
#[derive(Debug)]
pub struct SeriesBudget {
    limit: usize,
    used: AtomicUsize,
}

impl SeriesBudget {
    /// A budget of so many series.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// How many series are described at present.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        if self.used.fetch_add(1, Ordering::Relaxed) < self.limit {
            return true;
        }
        self.used.fetch_sub(1, Ordering::Relaxed);
        false
    }

    fn give_back(&self, n: usize) {
        self.used.fetch_sub(n, Ordering::Relaxed);
    }
}

/// Why a frame was not taken. The stream must be reset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The frame is damaged or breaks a cap.
    #[error(transparent)]
    Damaged(#[from] DecodeError),
    /// The session describes more series than one session may have.
    #[error(
        "the session describes more than {limit} series: drop series at the agent, or raise the aggregator's limit of series per session"
    )]
    TooManySeries {
        /// The limit.
        limit: usize,
    },
}

/// Decodes the frames of one stream. Holds the stream's state: drop it with the stream.
#[derive(Debug)]
pub struct StreamDecoder {
    decoder: Decoder,
    resolver: Resolver,
}

impl StreamDecoder {
    /// A decoder for a fresh stream of this agent. The streams of one session share a budget.
    pub fn new(
        symbols: Arc<Symbols>,
        identity: &AgentIdentity,
        budget: Arc<SeriesBudget>,
        limits: DecoderLimits,
    ) -> Self {
        Self { decoder: Decoder::new(limits), resolver: Resolver::new(symbols, identity, budget) }
    }

    /// Decodes one frame. After an error the decoder is of no further use.
    pub fn decode(&mut self, frame: &[u8]) -> Result<Vec<ResolvedBlock>, StreamError> {
        self.decoder.decode(frame, &mut self.resolver)?;
        if self.resolver.over_budget {
            return Err(StreamError::TooManySeries { limit: self.resolver.budget.limit });
        }
        Ok(std::mem::take(&mut self.resolver.blocks))
    }

    /// How many series the stream has described and not forgotten.
    pub fn series(&self) -> usize {
        self.resolver.live
    }

    /// Roughly what the stream's series take in memory beside the shared strings, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let resolver = &self.resolver;
        resolver.series_bytes
            + resolver.series.capacity() * size_of::<Option<Described>>()
            + resolver
                .sets
                .iter()
                .flatten()
                .map(|set| size_of::<ResolvedSet>() + 16 + size_of_val(&*set.series))
                .sum::<usize>()
    }
}

#[derive(Debug)]
struct Described {
    series: Arc<ResolvedSeries>,
    lineage: u32,
    target: u64,
}

/// Turns what the codec tells into series with full labels.
#[derive(Debug)]
struct Resolver {
    symbols: Arc<Symbols>,
    tenant: Box<str>,
    node: Box<str>,
    budget: Arc<SeriesBudget>,
    targets: Vec<Option<(Labels, u64)>>,
    series: Vec<Option<Described>>,
    sets: Vec<Option<Arc<ResolvedSet>>>,
    blocks: Vec<ResolvedBlock>,
    last_family: Option<Arc<Family>>,
    live: usize,
    series_bytes: usize,
    lineages: u32,
    over_budget: bool,
}

impl Resolver {
    fn new(symbols: Arc<Symbols>, identity: &AgentIdentity, budget: Arc<SeriesBudget>) -> Self {
        Self {
            symbols,
            tenant: identity.tenant.as_str().into(),
            node: identity.node.as_str().into(),
            budget,
            targets: Vec::new(),
            series: Vec::new(),
            sets: Vec::new(),
            blocks: Vec::new(),
            last_family: None,
            live: 0,
            series_bytes: 0,
            lineages: 0,
            over_budget: false,
        }
    }

    /// Series of one family follow each other, so that most look-ups are a comparison with the last.
    fn family(&mut self, view: FamilyView<'_>) -> Arc<Family> {
        if let Some(last) = &self.last_family
            && *last.name == *view.name
            && last.kind == view.kind
            && *last.help == *view.help
            && *last.unit == *view.unit
        {
            return last.clone();
        }
        let family = self.symbols.family(view);
        self.last_family = Some(family.clone());
        family
    }

    fn resolve_set(&mut self, members: &[u32]) -> Arc<ResolvedSet> {
        let known = members.iter().filter_map(|id| self.described(*id)).map(|d| d.lineage).find(|l| *l > 0);
        let lineage = known.unwrap_or_else(|| {
            self.lineages += 1;
            self.lineages
        });
        let target = members.iter().find_map(|id| self.described(*id)).map_or(0, |d| d.target);
        let mut series = Vec::with_capacity(members.len());
        for id in members {
            if let Some(Some(described)) = self.series.get_mut(*id as usize) {
                described.lineage = lineage;
                series.push(described.series.clone());
            }
        }
        Arc::new(ResolvedSet::new(series, lineage).of_target(target))
    }

    fn described(&self, id: u32) -> Option<&Described> {
        self.series.get(id as usize)?.as_ref()
    }
}

/// A series may have labels `tenant` and `node` of its own (`node` names a NUMA node in node_exporter's metrics, and a
/// Kubernetes node in those of kube-state-metrics): they are kept under the names that Prometheus gives to what a
/// scraped series brings along beside a target's label.
fn set_aside(full: &mut Vec<(&str, &str)>) {
    for (own, exported) in [(TENANT_LABEL, "exported_tenant"), (NODE_LABEL, "exported_node")] {
        let Some(at) = full.iter().position(|(name, _)| *name == own) else { continue };
        let (_, value) = full.remove(at);
        if full.iter().all(|(name, _)| *name != exported) {
            full.push((exported, value));
        }
    }
}

/// Puts a thing at its number. The codec's caps bound the numbers.
fn put<T>(slots: &mut Vec<Option<T>>, id: u32, thing: T) -> Option<T> {
    let id = id as usize;
    if slots.len() <= id {
        slots.resize_with(id + 1, || None);
    }
    slots[id].replace(thing)
}

fn take<T>(slots: &mut [Option<T>], id: u32) -> Option<T> {
    slots.get_mut(id as usize)?.take()
}

impl Visitor for Resolver {
    fn target(&mut self, id: u32, labels: &Labels) {
        put(&mut self.targets, id, (labels.clone(), labels.fingerprint()));
    }

    fn series(&mut self, id: u32, target: u32, labels: &Labels, family: FamilyView<'_>) {
        if self.over_budget || !self.budget.take() {
            self.over_budget = true;
            return;
        }
        let family = self.family(family);
        let none = (Labels::default(), 0);
        let (target, fingerprint) =
            self.targets.get(target as usize).and_then(Option::as_ref).unwrap_or(&none);
        let mut full = full_labels(target, labels);
        set_aside(&mut full);
        full.push((TENANT_LABEL, &self.tenant));
        full.push((NODE_LABEL, &self.node));
        full.sort_unstable();
        let series = Arc::new(ResolvedSeries::new(&self.symbols, &full, family));
        let target = *fingerprint;
        self.live += 1;
        self.series_bytes += series.resident_bytes();
        if let Some(old) = put(&mut self.series, id, Described { series, lineage: 0, target }) {
            self.gone(&old);
        }
    }

    fn set(&mut self, id: u32, _target: u32, members: &[u32]) {
        if !self.over_budget {
            let set = self.resolve_set(members);
            put(&mut self.sets, id, set);
        }
    }

    fn block(&mut self, at_ms: i64, set: u32, members: &[u32], values: &[f64], stamps_ms: Option<&[i64]>) {
        if self.over_budget {
            return;
        }
        let set = match self.sets.get(set as usize) {
            Some(Some(known)) => known.clone(),
            _ => self.resolve_set(members),
        };
        self.blocks.push(ResolvedBlock {
            at_ms,
            set,
            values: values.into(),
            stamps_ms: stamps_ms.map(Into::into),
        });
    }

    fn forget_series(&mut self, id: u32) {
        if let Some(old) = take(&mut self.series, id) {
            self.gone(&old);
        }
    }

    fn forget_set(&mut self, id: u32) {
        take(&mut self.sets, id);
    }

    fn forget_target(&mut self, id: u32) {
        take(&mut self.targets, id);
    }
}

impl Resolver {
    fn gone(&mut self, old: &Described) {
        self.live -= 1;
        self.series_bytes -= old.series.resident_bytes();
        self.budget.give_back(1);
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.budget.give_back(self.live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::LabelFault;
    use pegel_proto::identity::{NodeId, TenantId};
    use pegel_proto::metrics::MetricType;

    fn resolver(symbols: &Arc<Symbols>, limit: usize) -> Resolver {
        let identity =
            AgentIdentity { tenant: TenantId::parse("acme").unwrap(), node: NodeId::parse("n1").unwrap() };
        Resolver::new(symbols.clone(), &identity, SeriesBudget::new(limit))
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::new(pairs.iter().copied()).unwrap()
    }

    const FAMILY: FamilyView<'static> =
        FamilyView { name: "up", kind: MetricType::Gauge, help: "Whether.", unit: "" };

    #[test]
    fn tenant_and_node_are_the_certificates_whatever_the_payload_says() {
        let symbols = Arc::new(Symbols::new());
        let mut resolver = resolver(&symbols, 10);
        resolver.target(0, &labels(&[("job", "j"), ("node", "claimed"), ("zone", "z")]));
        resolver.series(0, 0, &labels(&[("__name__", "up"), ("tenant", "other"), ("zone", "")]), FAMILY);
        resolver.set(0, 0, &[0]);
        resolver.block(7, 0, &[0], &[1.0], None);
        let block = resolver.blocks.pop().unwrap();
        let view = symbols.view();
        let text: Vec<_> =
            block.set.series[0].labels.iter().map(|(n, v)| (view.text(*n), view.text(*v))).collect();
        let kept = [("exported_node", "claimed"), ("exported_tenant", "other")];
        let expected =
            [("__name__", "up"), kept[0], kept[1], ("job", "j"), ("node", "n1"), ("tenant", "acme")];
        assert_eq!(text, expected);
        assert_eq!(block.stamp_ms(0), 7);
    }

    #[test]
    fn series_over_the_budget_are_refused_and_forgotten_ones_make_room() {
        let symbols = Arc::new(Symbols::new());
        let mut resolver = resolver(&symbols, 2);
        for i in 0..2 {
            resolver.series(i, 0, &labels(&[("__name__", "up"), ("i", &i.to_string())]), FAMILY);
        }
        resolver.forget_series(0);
        resolver.series(0, 0, &labels(&[("__name__", "up"), ("i", "9")]), FAMILY);
        assert!(!resolver.over_budget);
        assert_eq!(resolver.budget.used(), 2);
        resolver.series(7, 0, &labels(&[("__name__", "up"), ("i", "10")]), FAMILY);
        assert!(resolver.over_budget);
        let budget = resolver.budget.clone();
        drop(resolver);
        assert_eq!(budget.used(), 0);
        drop(symbols.interner());
        assert!(symbols.is_empty(), "nothing is left of the session");
    }

    #[test]
    fn queued_blocks_keep_their_symbols_after_the_session() {
        let symbols = Arc::new(Symbols::new());
        let mut resolver = resolver(&symbols, 10);
        resolver.series(0, 0, &labels(&[("__name__", "kept")]), FAMILY);
        resolver.set(0, 0, &[0]);
        resolver.block(7, 0, &[0], &[1.0], None);
        let block = resolver.blocks.pop().unwrap();
        drop(resolver);
        drop(symbols.interner());
        assert_eq!(block.set.series[0].value(&symbols.view(), "__name__"), Some("kept"));
        drop(block);
        drop(symbols.interner());
        assert!(symbols.is_empty());
    }

    #[test]
    fn two_series_that_become_one_are_a_fault_of_the_second() {
        let symbols = Arc::new(Symbols::new());
        let mut resolver = resolver(&symbols, 10);
        resolver.series(0, 0, &labels(&[("__name__", "x"), ("exported_node", "1"), ("node", "a")]), FAMILY);
        resolver.series(1, 0, &labels(&[("__name__", "x"), ("exported_node", "1"), ("node", "b")]), FAMILY);
        resolver.series(2, 0, &labels(&[("a", "x")]), FAMILY);
        let set = resolver.resolve_set(&[0, 1, 2]);
        assert!(set.faulty());
        assert_eq!(set.fault(0), None);
        assert_eq!(set.fault(1), Some(LabelFault::Collision));
        assert_eq!(set.fault(2), Some(LabelFault::NoName));
    }

    #[test]
    fn series_that_differ_by_a_node_of_their_own_stay_two() {
        let symbols = Arc::new(Symbols::new());
        let mut resolver = resolver(&symbols, 10);
        for (id, node) in [(0, "0"), (1, "1")] {
            resolver.series(
                id,
                0,
                &labels(&[("__name__", "node_zoneinfo_spanned_pages"), ("node", node)]),
                FAMILY,
            );
        }
        assert!(!resolver.resolve_set(&[0, 1]).faulty());
    }

    #[test]
    fn sets_that_share_series_are_of_one_lineage() {
        let symbols = Arc::new(Symbols::new());
        let mut resolver = resolver(&symbols, 10);
        for i in 0..4 {
            resolver.series(i, 0, &labels(&[("__name__", "x"), ("i", &i.to_string())]), FAMILY);
        }
        let a = resolver.resolve_set(&[0, 1]);
        let b = resolver.resolve_set(&[2]);
        let c = resolver.resolve_set(&[3, 1]);
        assert_ne!(a.lineage(), b.lineage());
        assert_eq!(a.lineage(), c.lineage());
    }

    #[test]
    fn a_series_takes_at_most_two_hundred_bytes() {
        let symbols = Arc::new(Symbols::new());
        let mut resolver = resolver(&symbols, 10_000);
        resolver.target(0, &labels(&[("job", "node"), ("instance", "n1:9100"), ("zone", "z")]));
        for i in 0..1_000 {
            let own =
                labels(&[("__name__", "node_cpu_seconds_total"), ("cpu", &i.to_string()), ("mode", "idle")]);
            resolver.series(i, 0, &own, FAMILY);
        }
        let each =
            resolver.series_bytes / 1_000 + size_of::<Option<Described>>() + size_of::<Arc<ResolvedSeries>>();
        assert!(each <= 200, "{each} bytes a series");
    }
}
