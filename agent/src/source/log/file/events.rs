//! What becomes of files: they appear, move, vanish, are truncated.

use super::copies::{Copied, Was};
use super::discover::{Found, discover};
use super::identity::{Kind, Stat};
use super::known::FileId;
use super::packed::is_packed;
use super::thread::Thread;
use super::watch::{Event, What};
use crate::source::log::checkpoints::Place;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Thread {
    pub(super) fn happened(&mut self, events: Vec<Event>) {
        let mut moved: HashMap<u32, PathBuf> = HashMap::new();
        for Event { dir, name, what } in events {
            let path = dir.join(&name);
            if !self.missing.is_empty() {
                self.stir(&dir);
            }
            match what {
                What::Modified => self.modified(&path),
                What::Appeared => self.appeared(&path),
                What::Vanished => self.vanished(&path),
                What::MovedFrom(number) => {
                    moved.insert(number, path);
                }
                What::MovedTo(number) => match moved.remove(&number) {
                    Some(from) => self.moved(&from, &path),
                    None => self.appeared(&path),
                },
                What::DirectoryGone | What::Overflow => self.rescan = true,
            }
        }
        // Moved out of sight, or the rest of the story comes with the next events.
        for path in moved.into_values() {
            self.vanished(&path);
        }
    }

    fn modified(&mut self, path: &Path) {
        let listed = self.aliases.listed(path).cloned();
        for input in 0..self.inputs.len() {
            let known = self.known.at(input, path);
            let known = known.or_else(|| listed.as_ref().and_then(|listed| self.known.at(input, listed)));
            if let Some(id) = known {
                self.activate(id);
                self.look(id);
            }
        }
    }

    pub(super) fn appeared(&mut self, path: &Path) {
        let Ok(stat) = Stat::of(path) else { return self.vanished(path) };
        if stat.kind == Kind::Directory {
            for input in 0..self.inputs.len() {
                if self.inputs[input].fed {
                    self.look_at_followed(input);
                    continue;
                }
                // Once more when it is watched: something may have come between.
                for _ in 0..2 {
                    let found = discover(&self.inputs[input].settings, path);
                    self.absorb(input, found, false);
                }
            }
            return;
        }
        if stat.kind == Kind::File {
            for input in 0..self.inputs.len() {
                self.look_at(input, path, &stat, false);
            }
        }
        self.look_at_alias(path);
    }

    fn vanished(&mut self, path: &Path) {
        if Stat::of(path).is_ok() {
            // Another one has taken its place already.
            return self.appeared(path);
        }
        for input in 0..self.inputs.len() {
            if let Some(id) = self.known.at(input, path) {
                self.detach(id);
            }
        }
        self.look_at_alias(path);
    }

    fn moved(&mut self, from: &Path, to: &Path) {
        let stat = Stat::of(to).ok();
        for input in 0..self.inputs.len() {
            let known = self.known.at(input, from);
            let is_it = |id| self.known.generation(id).is_some_and(|g| stat.is_some_and(|stat| g.is(&stat)));
            let Some(id) = known.filter(|id| is_it(*id)) else {
                // More happened since: it came and went before anybody looked, once or several times.
                if let Some(id) = known {
                    let still = |stat: Stat| self.known.generation(id).is_some_and(|g| g.is(&stat));
                    if Stat::of(from).is_ok_and(still) {
                        continue;
                    }
                    self.detach(id);
                }
                self.unseen_since_last_look(input, &from.into());
                continue;
            };
            if let Some(other) = self.known.at(input, to) {
                self.detach(other);
            }
            self.left(id);
            self.known.put(id, Some(to.into()));
            self.activate(id);
        }
        // What is there now may be something else, and so may what is at the old path.
        if let Some(stat) = stat {
            if stat.kind == Kind::File {
                for input in 0..self.inputs.len() {
                    self.look_at(input, to, &stat, false);
                }
            } else {
                self.appeared(to);
            }
        }
        self.look_at_alias(from);
        self.look_at_alias(to);
    }

    /// A real path that a link leads to: what the link leads to now is looked at.
    fn look_at_alias(&mut self, path: &Path) {
        let Some(listed) = self.aliases.listed(path).cloned() else { return };
        match Stat::of(&listed) {
            Ok(stat) => {
                for input in 0..self.inputs.len() {
                    self.look_at(input, &listed, &stat, false);
                }
            }
            Err(_) => {
                for input in 0..self.inputs.len() {
                    if let Some(id) = self.known.at(input, &listed) {
                        self.detach(id);
                    }
                }
            }
        }
    }

    /// A generation leaves its path: the one that takes it comes after.
    pub(super) fn left(&mut self, id: FileId) {
        let Some(generation) = self.known.generation(id) else { return };
        if generation.copy_of.is_some() {
            return;
        }
        let input = &mut self.inputs[usize::from(generation.input)];
        input.telemetry.rotations.inc();
        if generation.path.as_ref() == Some(&generation.label) {
            input.left.insert(generation.label.clone(), id);
        }
    }

    /// A path does not lead to a generation any more.
    pub(super) fn detach(&mut self, id: FileId) {
        self.left(id);
        self.known.put(id, None);
        self.activate(id);
    }

    /// Looks at what a path leads to.
    pub(super) fn look_at(&mut self, input: usize, path: &Path, stat: &Stat, at_start: bool) {
        if let Some(id) = self.known.at(input, path) {
            let Some(generation) = self.known.generation(id) else { return };
            if generation.is(stat) {
                if stat.bytes != generation.bytes || generation.unread() > 0 {
                    self.activate(id);
                }
                return;
            }
            self.detach(id);
        }
        if let Some(id) = self.known.of_inode(input, stat)
            && let Some(generation) = self.known.generation(id)
        {
            if generation.is(stat) {
                let elsewhere = generation.path.as_ref();
                let linked = elsewhere.is_some_and(|path| Stat::of(path).is_ok_and(|s| generation.is(&s)));
                if !linked {
                    if elsewhere.is_some() {
                        self.left(id);
                    }
                    self.known.put(id, Some(path.into()));
                    self.activate(id);
                }
                return;
            }
            // Its inode's number was given to another file.
            if generation.path.is_some() {
                self.detach(id);
            }
        }
        if self.inputs[input].takes(path) && !is_packed(path) {
            self.adopt(input, path, path, stat, at_start);
        }
    }

    /// A file that was not known, by the path that it has or had and the one where it is.
    fn adopt(&mut self, input: usize, label: &Path, path: &Path, stat: &Stat, at_start: bool) {
        if !self.missing.is_empty() {
            // It may be what is missing.
            for nth in (0..self.missing.len()).rev() {
                if self.missing[nth].generation.label.parent() == path.parent() {
                    self.search(nth);
                }
            }
            if self
                .known
                .of_inode(input, stat)
                .and_then(|id| self.known.generation(id))
                .is_some_and(|g| g.is(stat))
            {
                return;
            }
        }
        let label: Arc<Path> = label.into();
        if self.inputs[input].left.contains_key(&label) && !at_start {
            self.unseen_since_last_look(input, &label);
        } else {
            self.before_first_look(input, &label);
        }
        let mut generation = Self::generation(input, &label, stat);
        if *label == *path {
            self.watch_link(&label);
            generation.copy_of = self.original_of(input, &label);
        } else {
            generation.path = Some(path.into());
        }
        generation.after = self.inputs[input].left.remove(&label);
        if let Some(before) = generation.after {
            generation.last_ns = self.last_ns_of(before);
        }
        if generation.copy_of.is_none() {
            generation.source = self.checkpoints.source(generation.described(&self.inputs[input].name));
            if at_start && self.starts_at_end(input) {
                generation.offset = stat.bytes;
                let place = Place { offset: stat.bytes, ..Place::default() };
                self.checkpoints.put(generation.source, place);
            }
        }
        let unread = generation.unread() > 0;
        let moved = generation.path.as_ref() != Some(&label);
        let may_be_copy = generation.copy_of.is_some();
        let id = self.known.add(generation);
        if may_be_copy {
            self.copies.insert(id, Copied::perhaps());
        }
        self.note(id);
        if moved {
            self.inputs[input].left.insert(label, id);
        }
        if unread {
            self.activate(id);
        }
    }

    /// A file that is found by a link changes where the link leads to.
    pub(super) fn watch_link(&mut self, path: &Arc<Path>) {
        if !std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
            return;
        }
        let Ok(real) = path.canonicalize() else { return };
        if let Some(dir) = real.parent() {
            self.watch.add(dir);
        }
        self.aliases.add(real, path);
    }

    /// A file was truncated: the old generation goes on in a copy, if there is one, and a new one begins.
    pub(super) fn truncated(&mut self, id: FileId) {
        self.open.remove(&id);
        let path = self.known.generation(id).and_then(|generation| generation.path.clone());
        let Some(mut old) = self.known.remove(id) else { return };
        let input = usize::from(old.input);
        self.inputs[input].telemetry.truncations.inc();
        // A copy or an earlier generation that is overwritten under a name that nobody asked for ends here: what is
        // written there was in a file that is read for itself.
        let asked_for = path.as_ref().is_none_or(|path| self.inputs[input].takes(path));
        let reading = old.reading.take().filter(|_| asked_for);
        let label = path.clone().unwrap_or_else(|| old.label.clone());
        let stat = match &reading.as_deref() {
            Some(super::known::Reading { content: super::known::Content::Plain(file), .. }) => {
                Stat::of_open(file).ok()
            }
            _ => None,
        };
        let last_ns = old.last_ns;
        if let Some(stat) = stat {
            let mut fresh = Self::generation(input, &label, &stat);
            fresh.path = path;
            fresh.after = Some(id);
            fresh.last_ns = last_ns;
            fresh.source = self.checkpoints.source(fresh.described(&self.inputs[input].name));
            self.checkpoints.put(fresh.source, Place { last_ns, ..Place::default() });
            fresh.reading = reading.map(|mut reading| {
                reading.compared = false;
                reading.partial_since = None;
                reading
            });
            let fresh = self.known.add(fresh);
            self.note(fresh);
            self.open.insert(fresh);
            self.activate(fresh);
        }
        // Not found by its inode any more: that is the new generation's.
        let was = Was::of(id, &old);
        self.look_for(id, old);
        if self.known.generation(id).is_none() {
            self.settle_copies(was);
        }
    }

    /// Takes in what was found.
    pub(super) fn absorb(&mut self, input: usize, found: Found, at_start: bool) {
        for dir in &found.dirs {
            self.watch.add(dir);
        }
        for (path, stat) in found.files {
            self.look_at(input, &path, &stat, at_start);
        }
    }

    /// Looks at everything.
    pub(super) fn scan(&mut self) {
        for id in self.known.ids() {
            let Some(generation) = self.known.generation(id) else { continue };
            let Some(path) = generation.path.clone() else { continue };
            match Stat::of(&path) {
                Ok(stat) if generation.is(&stat) => {
                    if generation.queued {
                        self.look(id);
                    } else if stat.bytes != generation.bytes {
                        self.activate(id);
                    }
                }
                _ => self.detach(id),
            }
        }
        for input in 0..self.inputs.len() {
            if self.inputs[input].fed {
                self.look_at_followed(input);
            } else {
                let found = discover(&self.inputs[input].settings, Path::new("/"));
                self.absorb(input, found, false);
            }
        }
        self.forget_links();
    }
}
