//! What is remembered of paths whose generations are gone: bounded, so that names that never come again cost nothing.
//!
//! Which generation left a path last, and its stream's last timestamp, are of use to the one that takes the path next.
//! They are kept for [`KEEP`] after the last generation of that path was forgotten, for [`MOST`] paths of an input.

use super::missing::LOOK_FOR;
use super::thread::Thread;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A path that nobody took for so long begins anew.
const KEEP: Duration = LOOK_FOR;
/// The most paths without a generation of which something is remembered, an input: some 300 bytes each.
pub(super) const MOST: usize = 1_024;
/// Where a link led to before is looked at as well, for so many places back.
const MOST_REAL: usize = 4;

/// The real paths of files that are found by a link.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    listed: HashMap<PathBuf, Arc<Path>>,
    /// Where each link leads and led to, that at last.
    real: HashMap<Arc<Path>, Vec<PathBuf>>,
}

impl Aliases {
    /// A link leads to a real path.
    pub(super) fn add(&mut self, real: PathBuf, listed: &Arc<Path>) {
        let led_to = self.real.entry(listed.clone()).or_default();
        led_to.retain(|before| *before != real);
        led_to.push(real.clone());
        if led_to.len() > MOST_REAL {
            let oldest = led_to.remove(0);
            if self.listed.get(&oldest) == Some(listed) {
                self.listed.remove(&oldest);
            }
        }
        self.listed.insert(real, listed.clone());
    }

    /// The link that leads to a real path.
    pub(super) fn listed(&self, real: &Path) -> Option<&Arc<Path>> {
        self.listed.get(real)
    }

    /// Where a link leads and led to.
    pub(super) fn real(&self, listed: &Path) -> &[PathBuf] {
        self.real.get(listed).map_or(&[], Vec::as_slice)
    }

    fn retain(&mut self, keep: impl Fn(&Arc<Path>) -> bool) {
        self.real.retain(|listed, _| keep(listed));
        self.listed.retain(|_, listed| self.real.contains_key(listed));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.listed.len().max(self.real.len())
    }
}

impl Thread {
    /// A generation of a path was forgotten.
    pub(super) fn departs(&mut self, input: usize, label: &Arc<Path>) {
        let departed = &mut self.inputs[input].departed;
        departed.push_back((Instant::now(), label.clone()));
        if departed.len() > MOST
            && let Some((_, oldest)) = departed.pop_front()
        {
            self.forget_path(input, &oldest);
        }
    }

    /// Forgets what departed long ago.
    pub(super) fn forget_departed(&mut self, now: Instant) {
        for input in 0..self.inputs.len() {
            let departed = &mut self.inputs[input].departed;
            let old = departed.partition_point(|(at, _)| now.saturating_duration_since(*at) >= KEEP);
            for (_, label) in departed.drain(..old).collect::<Vec<_>>() {
                self.forget_path(input, &label);
            }
        }
    }

    /// Forgets a path, unless a generation of it is there or looked for: when that is forgotten the path's turn comes
    /// again.
    fn forget_path(&mut self, input: usize, label: &Arc<Path>) {
        let left = self.inputs[input].left.get(label).copied();
        let is_alive =
            |id| self.known.generation(id).is_some() || self.missing.iter().any(|missing| missing.id == id);
        if self.known.at(input, label).is_some() || left.is_some_and(is_alive) {
            return;
        }
        let input = &mut self.inputs[input];
        input.left.remove(label);
        input.floors.remove(label);
    }

    /// Forgets links that are not there any more and of whose files nothing is remembered.
    pub(super) fn forget_links(&mut self) {
        let inputs = &self.inputs;
        self.aliases.retain(|listed| {
            inputs.iter().any(|input| input.floors.contains_key(listed))
                || std::fs::symlink_metadata(listed).is_ok()
        });
    }
}
