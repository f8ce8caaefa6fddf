//! A cgroup from pass to pass: its series, its limits, what it is called.

use super::Container;
use super::account::{Load, Spec};
use super::cgroup::Seen;
use crate::source::reading::emit::{Segment, SeriesPool};
use crate::source::vanished;
use pegel_proto::metrics::{Block, Labels, SeriesSet, stale_marker};
use std::collections::HashSet;
use std::sync::Arc;

/// A cgroup that is reported, or about to be.
#[derive(Debug)]
pub(super) struct Tracked {
    /// The pass that saw it last.
    pub(super) pass: u64,
    /// When it was first seen, in milliseconds since the Unix epoch.
    pub(super) first_seen_ms: i64,
    /// When it was made, in seconds since the Unix epoch.
    pub(super) created_seconds: Option<i64>,
    /// The container's id, if it is one's.
    pub(super) id: Option<Box<str>>,
    /// What its runtime says of it.
    pub(super) container: Option<Arc<Container>>,
    /// The labels of its series; none before they are needed.
    pub(super) target: Option<Arc<Labels>>,
    /// Which files it has.
    pub(super) seen: Seen,
    /// Its limits, and when they were read.
    pub(super) spec: Option<(Spec, i64)>,
    /// A process in it.
    pub(super) pid: Option<u32>,
    /// Whether its network is reported.
    pub(super) reports_network: bool,
    /// Its load.
    pub(super) load: Load,
    /// Processes killed for want of memory, as of the last pass.
    pub(super) oom_kills: Option<u64>,
    /// Its samples.
    pub(super) segment: Segment,
    set: Option<Arc<SeriesSet>>,
    /// Series that a cap left out in the last pass.
    pub(super) left_out: usize,
}

impl Tracked {
    /// One that was not seen before.
    pub(super) fn new(now_ms: i64, id: Option<&str>) -> Self {
        Self {
            pass: 0,
            first_seen_ms: now_ms,
            created_seconds: None,
            id: id.map(Into::into),
            container: None,
            target: None,
            seen: Seen::default(),
            spec: None,
            pid: None,
            reports_network: false,
            load: Load::default(),
            oom_kills: None,
            segment: Segment::default(),
            set: None,
            left_out: 0,
        }
    }

    /// How many series it has.
    pub(super) fn series(&self) -> usize {
        self.set.as_ref().map_or(0, |set| set.len())
    }

    /// What people call it: its name, or the cgroup's path.
    pub(super) fn name<'a>(&'a self, path: &'a str) -> &'a str {
        self.container.as_ref().map_or(path, |container| &container.name)
    }

    /// The series that it had and no longer has are ended at `at_ms`.
    pub(super) fn end(&mut self, at_ms: i64) -> Option<Block> {
        let set = self.set.take()?;
        let markers = vec![stale_marker(); set.len()];
        (!set.is_empty()).then(|| Block::new(at_ms, set, markers))
    }

    /// Leaves the newest series out, those that the last pass did not have before others, until `most` are left.
    /// Gives how many were left out.
    pub(super) fn cap(&mut self, most: usize) -> usize {
        let all = self.segment.series().len();
        if all <= most {
            return 0;
        }
        let before: HashSet<*const _> =
            self.set.iter().flat_map(|set| set.series()).map(Arc::as_ptr).collect();
        let series = self.segment.series();
        let known = series.iter().filter(|series| before.contains(&Arc::as_ptr(series)));
        let new = series.iter().filter(|series| !before.contains(&Arc::as_ptr(series)));
        let kept: HashSet<*const _> = known.chain(new).take(most).map(Arc::as_ptr).collect();
        self.segment.retain(|series| kept.contains(&Arc::as_ptr(series)));
        all - most
    }

    /// Puts the samples of a pass into blocks: the markers of what vanished, if anything, then the samples.
    pub(super) fn blocks(&mut self, at_ms: i64, pool: &mut SeriesPool, blocks: &mut Vec<Block>) {
        let Some(target) = &self.target else { return };
        let series = self.segment.series();
        let same = |set: &&Arc<SeriesSet>| {
            Arc::ptr_eq(set.target(), target)
                && set.len() == series.len()
                && set.series().iter().zip(series).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if let Some(set) = self.set.as_ref().filter(same) {
            blocks.push(Block::new(at_ms, set.clone(), self.segment.values()));
            return;
        }
        self.segment.share(pool);
        let set = Arc::new(SeriesSet::new(target.clone(), self.segment.series()));
        let gone = self.set.replace(set.clone()).and_then(|before| vanished(&before, Some(&set)));
        if let Some(gone) = gone {
            let markers = vec![stale_marker(); gone.len()];
            blocks.push(Block::new(at_ms, gone, markers));
        }
        if !set.is_empty() {
            blocks.push(Block::new(at_ms, set, self.segment.values()));
        }
    }
}
