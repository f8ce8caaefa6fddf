//! The last value of every series of one node.
//!
//! Kept as the newest values of each *set*, in the set's order, beside the set itself, which the session's decoder
//! shares. Arithmetic: 8 bytes a series for the value, and 8 for the set's pointer, which is shared; a map from
//! series to value would take some 50. 1,000 agents × 1,000 series take 8 MB this way.
//!
//! The price: a series may stand in two sets when an agent's shape changes. So whenever a set arrives that is not
//! known, it is compared with the others of its target: what both hold stays with the newer one, the older one's value
//! is struck out (written over with the staleness marker), and a set without any live value is dropped. Sets of
//! different targets are not compared (a node with 200 containers and 2,000 checks has as many): a series that two
//! targets both expose under equal labels is shown twice.

use super::SymbolText;
use super::history::Point;
use super::main_series::{Plan, Target};
use crate::session::{ResolvedBlock, ResolvedSeries, ResolvedSet};
use crate::symbols::Symbol;
use pegel_proto::metrics::{is_stale_marker, stale_marker};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A set and its newest values.
#[derive(Debug)]
struct Kept {
    set: Arc<ResolvedSet>,
    values: Box<[f64]>,
    /// The batch that the values came in.
    seq: u64,
    at_ms: i64,
    stamps_ms: Option<Box<[i64]>>,
    /// Some values were struck out because a newer set holds their series.
    struck: bool,
    plan: Option<Box<Plan>>,
}

impl Kept {
    fn is_live(&self) -> bool {
        self.values.iter().any(|v| !is_stale_marker(*v))
    }

    fn take(&mut self, seq: u64, block: &ResolvedBlock) {
        self.values.copy_from_slice(&block.values);
        self.stamps_ms.clone_from(&block.stamps_ms);
        self.seq = seq;
        self.at_ms = block.at_ms;
    }
}

/// The last values of one node.
#[derive(Debug, Default)]
pub(super) struct LastValues {
    /// By the target's hash.
    targets: BTreeMap<u64, TargetValues>,
    /// Series in all kept sets.
    series: usize,
}

/// The last values of one target: one set as a rule, two while its shape changes.
#[derive(Debug, Default)]
struct TargetValues(Vec<Kept>);

/// What a block says of a node's main series.
#[derive(Debug, Clone)]
pub(super) struct MainPoint {
    pub(super) target: Arc<Target>,
    pub(super) point: Point,
    /// Nothing newer was seen of this set.
    pub(super) fresh: bool,
}

/// What became of a block.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken {
    pub(super) main: Option<MainPoint>,
    /// Series that were not kept because the bound is reached.
    pub(super) unkept: usize,
}

impl LastValues {
    /// How many series are kept, struck-out and ended ones in live sets included.
    pub(super) fn series(&self) -> usize {
        self.series
    }

    /// The batch numbers begin anew: everything kept is older than what comes.
    pub(super) fn begin_epoch(&mut self) {
        self.targets.values_mut().flat_map(|target| &mut target.0).for_each(|kept| kept.seq = 0);
    }

    /// Takes a block. A set that would lead beyond `room` more series is not kept.
    pub(super) fn take(
        &mut self,
        seq: u64,
        block: &ResolvedBlock,
        room: usize,
        text: &dyn SymbolText,
    ) -> Taken {
        debug_assert_eq!(block.set.series.len(), block.values.len());
        let target = self.targets.entry(block.set.target()).or_default();
        let had = target.series();
        let taken = target.take(seq, block, room, text);
        self.series = self.series - had + target.series();
        if target.0.is_empty() {
            self.targets.remove(&block.set.target());
        }
        taken
    }

    /// Forgets sets that nothing was heard of since an instant.
    pub(super) fn forget_before(&mut self, at_ms: i64) {
        self.targets.retain(|_, target| {
            target.0.retain(|kept| kept.at_ms >= at_ms);
            !target.0.is_empty()
        });
        self.series = self.targets.values().map(TargetValues::series).sum();
    }

    /// Shows every live series with its value and instant.
    pub(super) fn visit(&self, visit: &mut dyn FnMut(&ResolvedSeries, f64, i64)) {
        self.visit_targets(|_| true, visit);
    }

    /// The same, of the sets that `wanted` takes by their first series.
    pub(super) fn visit_targets(
        &self,
        wanted: impl Fn(&ResolvedSeries) -> bool,
        visit: &mut dyn FnMut(&ResolvedSeries, f64, i64),
    ) {
        for kept in self.targets.values().flat_map(|target| &target.0) {
            if !kept.set.series.first().is_some_and(|first| wanted(first)) {
                continue;
            }
            for (i, (series, value)) in kept.set.series.iter().zip(&kept.values).enumerate() {
                if !is_stale_marker(*value) {
                    let at_ms = kept.stamps_ms.as_ref().map_or(kept.at_ms, |stamps| stamps[i]);
                    visit(series, *value, at_ms);
                }
            }
        }
    }
}

impl TargetValues {
    fn series(&self) -> usize {
        self.0.iter().map(|kept| kept.values.len()).sum()
    }

    fn take(&mut self, seq: u64, block: &ResolvedBlock, room: usize, text: &dyn SymbolText) -> Taken {
        let known = self.0.iter().position(|kept| Arc::ptr_eq(&kept.set, &block.set)).or_else(|| {
            let same = self.0.iter().position(|kept| same_series(&kept.set, &block.set))?;
            self.0[same].set = block.set.clone();
            Some(same)
        });
        let Some(known) = known else { return self.take_unknown(seq, block, room, text) };
        let kept = &mut self.0[known];
        let fresh = seq >= kept.seq;
        let main = kept.plan.as_deref_mut().map(|plan| MainPoint {
            target: plan.target.clone(),
            point: plan.read(block.at_ms, &block.values, fresh),
            fresh,
        });
        if fresh {
            let was_struck = std::mem::take(&mut kept.struck);
            kept.take(seq, block);
            if was_struck {
                // A set came back whose series another one had taken over.
                let mut back = self.0.swap_remove(known);
                self.settle_overlap(&mut back);
                if back.is_live() {
                    self.0.push(back);
                }
            } else if !kept.is_live() {
                self.0.swap_remove(known);
            }
        }
        Taken { main, unkept: 0 }
    }

    fn take_unknown(&mut self, seq: u64, block: &ResolvedBlock, room: usize, text: &dyn SymbolText) -> Taken {
        let mut new = Kept {
            set: block.set.clone(),
            values: block.values.clone(),
            seq,
            at_ms: block.at_ms,
            stamps_ms: block.stamps_ms.clone(),
            struck: false,
            plan: None,
        };
        let had = self.series();
        self.settle_overlap(&mut new);
        if !new.is_live() {
            return Taken::default();
        }
        // What its predecessors gave up makes room for it.
        if new.values.len() > room + (had - self.series()) {
            return Taken { main: None, unkept: new.values.len() };
        }
        new.plan = Plan::of(&new.set, text).map(Box::new);
        let fresh = self.0.iter().all(|kept| kept.seq <= seq);
        let main = new.plan.as_deref_mut().map(|plan| MainPoint {
            target: plan.target.clone(),
            point: plan.read(block.at_ms, &block.values, fresh),
            fresh,
        });
        self.0.push(new);
        Taken { main, unkept: 0 }
    }

    /// Strikes out, in `new` or in the kept sets, the older value of each series that stands in both, and drops
    /// kept sets without a live value.
    fn settle_overlap(&mut self, new: &mut Kept) {
        if self.0.is_empty() {
            return;
        }
        let set = new.set.clone();
        let places: HashMap<&[(Symbol, Symbol)], usize> =
            set.series.iter().enumerate().map(|(i, series)| (series.labels.as_ref(), i)).collect();
        self.0.retain_mut(|kept| {
            for (i, series) in kept.set.series.iter().enumerate() {
                let Some(&place) = places.get(series.labels.as_ref()) else { continue };
                if kept.seq <= new.seq {
                    kept.struck |= !is_stale_marker(kept.values[i]);
                    kept.values[i] = stale_marker();
                } else {
                    new.struck |= !is_stale_marker(new.values[place]);
                    new.values[place] = stale_marker();
                }
            }
            kept.is_live()
        });
    }
}

/// Whether two sets hold the same series in the same order: each stream of an agent describes its sets anew.
fn same_series(a: &ResolvedSet, b: &ResolvedSet) -> bool {
    a.series.len() == b.series.len()
        && a.series.iter().zip(&b.series).all(|(a, b)| Arc::ptr_eq(a, b) || a.labels == b.labels)
}
