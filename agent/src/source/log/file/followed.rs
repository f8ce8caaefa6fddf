//! Files that somebody else finds: those of containers. A feed tells of them, with labels and a shape of their own.
//!
//! What was told of a file is noted beside its place in the checkpoints. So after a restart it is read on at once, and
//! also where nobody tells of it any more because its container ended meanwhile.

use super::discover::{Found, discover};
use super::identity::Stat;
use super::known::FileId;
use super::pattern::Pattern;
use super::thread::{FollowedState, InputState, Thread};
use super::{Followed, Told};
use crate::source::log::checkpoints::{Described, SourceId};
use crate::source::log::shape::{Settings as Shape, Shaper};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// More files that may not be read are not named.
pub(super) const MAX_NAMED: usize = 32;

impl Thread {
    pub(super) fn do_told(&mut self, told: Told) {
        match told {
            Told::Follow(input, followed) => self.follow(input, *followed),
            Told::Gone(input, key) => {
                let Some(state) = self.inputs.get_mut(input) else { return };
                for followed in state.followed.values_mut().filter(|f| f.followed.key == key) {
                    followed.gone = true;
                }
            }
            Told::Complete(input) => {
                if let Some(state) = self.inputs.get_mut(input) {
                    state.complete = true;
                }
            }
        }
    }

    fn follow(&mut self, input: usize, followed: Followed) {
        let Some(state) = self.inputs.get_mut(input) else { return };
        let path: Arc<Path> = followed.path.as_path().into();
        state.take_in(&path, followed, &self.registry);
        let found = at(&path);
        if found.files.is_empty()
            && let Err(error) = Stat::of(&path)
        {
            self.unreadable(&path, &error);
        }
        self.absorb(input, found, false);
        let noted: Vec<FileId> = self.known.at(input, &path).into_iter().collect();
        noted.into_iter().for_each(|id| self.note(id));
    }

    /// Looks at the files of a feed.
    pub(super) fn look_at_followed(&mut self, input: usize) {
        let paths: Vec<_> = self.inputs[input].followed.keys().cloned().collect();
        for path in paths {
            let found = at(&path);
            let nothing = found.files.is_empty();
            self.absorb(input, found, false);
            if nothing && !self.has_generation(input, &path) {
                self.let_go(input, &path);
            }
        }
    }

    /// Nothing is left of a file: if it can't come again, it is forgotten.
    pub(super) fn let_go(&mut self, input: usize, path: &Path) {
        let state = &mut self.inputs[input];
        let Some(followed) = state.followed.get(path).filter(|followed| followed.gone) else { return };
        if !followed.seen {
            state.telemetry.unread_files.inc();
            tracing::debug!(path = %path.display(), "a container's file was gone before it could be read");
        }
        state.followed.remove(path);
        self.unreadable.remove(path);
    }

    /// Whether any generation of a path is known or looked for.
    pub(super) fn has_generation(&self, input: usize, label: &Path) -> bool {
        let all = self.known.iter().chain(self.missing.iter().map(|missing| &missing.generation));
        all.into_iter().any(|g| usize::from(g.input) == input && *g.label == *label)
    }

    /// A file of a feed is adopted that nothing was known of: what was rotated from it since anybody looked is read
    /// first.
    pub(super) fn before_first_look(&mut self, input: usize, label: &Arc<Path>) {
        let state = &self.inputs[input];
        if !state.fed || state.left.contains_key(label) {
            return;
        }
        let started = SystemTime::now().checked_sub(self.started_at.elapsed());
        let since = self.checkpoints.written_before().or(started).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut last = HashMap::new();
        self.unseen(input, label, &mut last, since, true);
        if let Some(before) = last.remove(label) {
            self.inputs[input].left.insert(label.clone(), before);
        }
    }

    /// Notes what was told of a generation's file, for the next start.
    pub(super) fn note(&mut self, id: FileId) {
        let Some(generation) = self.known.generation(id) else { return };
        let state = &mut self.inputs[usize::from(generation.input)];
        if let Some(followed) = state.followed.get_mut(&generation.label) {
            followed.seen = true;
            if generation.source != 0 {
                self.checkpoints.put_note(generation.source, &followed.followed.note);
            }
        }
    }

    /// Whether an idle generation stays open: a container's file is deleted with the container, at any time.
    pub(super) fn stays_open(&self, id: FileId) -> bool {
        let Some(generation) = self.known.generation(id) else { return false };
        let state = &self.inputs[usize::from(generation.input)];
        let runs = state.followed.get(&generation.label).is_some_and(|followed| !followed.gone);
        runs && generation.path.as_ref() == Some(&generation.label)
            // Some are for others.
            && self.open.len() < self.max_open / 4 * 3
    }

    /// Takes up what was told before the restart, and says what is there of it.
    pub(super) fn take_up(&mut self, input: usize, sources: &[(SourceId, Described)]) -> Found {
        let Self { inputs, checkpoints, registry, remade, .. } = self;
        let state = &mut inputs[input];
        for (source, described) in sources {
            let note = checkpoints.note(*source);
            let Some(followed) = (!note.is_empty()).then(|| remade(&note, &state.shape)).flatten() else {
                continue;
            };
            if *followed.path == *described.path && !state.followed.contains_key(&described.path) {
                state.take_in(&described.path, followed, registry);
                if let Some(followed) = state.followed.get_mut(&described.path) {
                    // Until somebody tells of it.
                    (followed.gone, followed.seen) = (true, true);
                }
            }
        }
        let mut found = Found::default();
        for path in state.followed.keys() {
            let mut at = at(path);
            found.files.append(&mut at.files);
            found.dirs.append(&mut at.dirs);
        }
        found
    }

    /// A file may not be read: it is named until it may.
    pub(super) fn unreadable(&mut self, path: &Arc<Path>, error: &io::Error) {
        if error.kind() != io::ErrorKind::PermissionDenied || self.unreadable.len() >= MAX_NAMED {
            return;
        }
        if self.unreadable.insert(path.clone()) {
            tracing::warn!(
                path = %path.display(),
                "the agent may not read a log file; it is tried again. Give the agent's user the file's group, or the \
                 agent the capability CAP_DAC_READ_SEARCH (systemd/README.md)"
            );
        }
    }
}

impl InputState {
    fn take_in(&mut self, path: &Arc<Path>, followed: Followed, registry: &pegel_runtime::metrics::Registry) {
        let shape = followed.shape.as_ref();
        let shaper = shape.map(|shape| Shaper::counted(shape, &self.name, registry));
        let flush_after = shape.map_or(self.flush_after, Shape::flush_after);
        let seen = self.followed.get(path).is_some_and(|before| before.seen);
        self.followed
            .insert(path.clone(), FollowedState { followed, shaper, flush_after, gone: false, seen });
    }
}

/// What is at a path.
fn at(path: &Path) -> Found {
    let mut settings = super::Settings::default();
    settings.include.push(Pattern::literal(path));
    discover(&settings, Path::new("/"))
}
