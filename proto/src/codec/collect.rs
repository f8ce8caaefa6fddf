//! A visitor that puts blocks together.

use super::{FamilyView, Visitor};
use crate::metrics::{Block, Family, Labels, Series, SeriesSet};
use std::sync::Arc;

/// Keeps what was described, and the blocks of one frame.
#[derive(Debug, Clone, Default)]
pub(super) struct Collector {
    targets: Vec<Option<Arc<Labels>>>,
    series: Vec<Option<Arc<Series>>>,
    sets: Vec<Option<Arc<SeriesSet>>>,
    family: Arc<Family>,
    pub(super) blocks: Vec<Block>,
}

fn put<T: Clone>(table: &mut Vec<Option<T>>, id: u32, entry: T) {
    let id = id as usize;
    if table.len() <= id {
        table.resize(id + 1, None);
    }
    table[id] = Some(entry);
}

impl Visitor for Collector {
    fn target(&mut self, id: u32, labels: &Labels) {
        put(&mut self.targets, id, Arc::new(labels.clone()));
    }

    fn series(&mut self, id: u32, _: u32, labels: &Labels, family: FamilyView<'_>) {
        let last = &self.family;
        let same = *last.name == *family.name
            && last.kind == family.kind
            && *last.help == *family.help
            && *last.unit == *family.unit;
        if !same {
            self.family = Arc::new(Family {
                name: family.name.into(),
                kind: family.kind,
                help: family.help.into(),
                unit: family.unit.into(),
            });
        }
        put(&mut self.series, id, Arc::new(Series::new(labels.clone(), self.family.clone())));
    }

    fn set(&mut self, id: u32, target: u32, members: &[u32]) {
        let target = self.targets[target as usize].clone().expect("the decoder names only live targets");
        let series: Vec<_> = members
            .iter()
            .map(|m| self.series[*m as usize].clone().expect("the decoder names only live series"))
            .collect();
        put(&mut self.sets, id, Arc::new(SeriesSet::new(target, series)));
    }

    fn block(&mut self, at_ms: i64, set: u32, _: &[u32], values: &[f64], stamps_ms: Option<&[i64]>) {
        let set = self.sets[set as usize].clone().expect("the decoder names only live sets");
        let mut block = Block::new(at_ms, set, values);
        block.stamps_ms = stamps_ms.map(Into::into);
        self.blocks.push(block);
    }

    fn forget_series(&mut self, id: u32) {
        self.series[id as usize] = None;
    }

    fn forget_set(&mut self, id: u32) {
        self.sets[id as usize] = None;
    }

    fn forget_target(&mut self, id: u32) {
        self.targets[id as usize] = None;
    }
}
