//! Generations that went out of sight, and where they are found again: under another name, in a copy, compressed.

use super::copies::Was;
use super::identity::{Kind, Stat, Tail, beginning, begins_as};
use super::known::{FileId, Generation};
use super::packed::{Packed, is_packed, kind_of};
use super::restart::plain_bytes;
use super::thread::Thread;
use super::trouble::{HOLD_BACK, Trouble, may_not};
use crate::source::log::checkpoints::SourceKind;
use crate::source::log::origin::Range;
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::{DirEntryExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is known to be unread is looked for so long: the compression of a large file takes minutes.
pub(super) const LOOK_FOR: Duration = Duration::from_secs(600);
/// And what may have been written after the last look, so long.
const LOOK_FOR_MAYBE: Duration = Duration::from_secs(60);
/// At first it is looked for at each tick, later every ten seconds or when something happens in the directory.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_OFTEN_FOR: Duration = Duration::from_secs(2);

/// A generation that is looked for.
pub(super) struct Missing {
    pub(super) id: FileId,
    pub(super) generation: Generation,
    pub(super) since: Instant,
    /// How much of it is known to be unread.
    pub(super) unread: u64,
    pub(super) looked_at: Instant,
    /// Something happened in its directory.
    pub(super) stirred: bool,
}

/// Where a generation goes on.
struct Place {
    path: PathBuf,
    stat: Stat,
    kind: SourceKind,
}

impl Thread {
    /// Where a generation's inode is, if it is in its directory.
    pub(super) fn locate(&self, id: FileId) -> Option<PathBuf> {
        let generation = self.known.generation(id)?;
        self.directories(generation).into_iter().find_map(|dir| inode_in(&dir, generation))
    }

    /// The directory in which a generation was first seen, where it was last, and that of its link's target.
    fn directories(&self, generation: &Generation) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = generation.label.parent().map(Path::to_owned).into_iter().collect();
        dirs.extend(generation.path.as_deref().and_then(Path::parent).map(Path::to_owned));
        let real = self.aliases.real(&generation.label);
        dirs.extend(real.iter().filter_map(|real| real.parent()).map(Path::to_owned));
        let mut seen = HashSet::new();
        dirs.retain(|dir| seen.insert(dir.clone()));
        dirs
    }

    /// A generation can't be opened any more: it is looked for.
    pub(super) fn lose_sight(&mut self, id: FileId) {
        self.open.remove(&id);
        let Some(generation) = self.known.remove(id) else { return };
        self.look_for(id, generation);
    }

    pub(super) fn look_for(&mut self, id: FileId, generation: Generation) {
        if generation.source == 0 || (generation.print.bytes == 0 && generation.unread() == 0) {
            if generation.source != 0 {
                self.checkpoints.forget(generation.source);
            }
            self.pass_over(id, &generation);
            self.departs(usize::from(generation.input), &generation.label);
            return;
        }
        let now = Instant::now();
        let unread = generation.unread();
        self.missing.push(Missing { id, generation, since: now, unread, looked_at: now, stirred: false });
        self.search(self.missing.len() - 1);
    }

    /// Whether a generation that others come after is not read yet.
    pub(super) fn holds_back(&self, id: FileId) -> bool {
        if let Some(generation) = self.known.generation(id) {
            let packed = generation.kind != SourceKind::File
                && generation.reading.as_ref().is_none_or(|reading| !reading.ended);
            // Nothing may be in it, and much in the one before.
            let later = || generation.after.is_some_and(|before| self.holds_back(before));
            let stuck = generation.trouble.as_ref().is_some_and(Trouble::is_old);
            let unread = !stuck && (generation.queued || packed || generation.unread() > 0);
            return generation.copy_of.is_none() && (unread || later());
        }
        let missing = self.missing.iter().find(|missing| missing.id == id);
        missing.is_some_and(|missing| {
            (missing.unread > 0 && missing.since.elapsed() < HOLD_BACK)
                || missing.generation.after.is_some_and(|before| self.holds_back(before))
        })
    }

    /// A generation is forgotten: what comes after it comes after the one before it.
    fn pass_over(&mut self, id: FileId, generation: &Generation) {
        let (nth, before) = (usize::from(generation.input), generation.after);
        for later in self.known.ids() {
            if let Some(later) = self.known.generation_mut(later).filter(|later| later.after == Some(id)) {
                later.after = before;
            }
        }
        let left = &mut self.inputs[nth].left;
        if let Some(before) = before
            && left.get(&generation.label) == Some(&id)
        {
            left.insert(generation.label.clone(), before);
        }
    }

    pub(super) fn last_ns_of(&self, id: FileId) -> i64 {
        let missing = || self.missing.iter().find(|missing| missing.id == id).map(|m| m.generation.last_ns);
        self.known.generation(id).map(|generation| generation.last_ns).or_else(missing).unwrap_or(0)
    }

    /// Something happened in a directory: what is missing from it may be there.
    pub(super) fn stir(&mut self, dir: &Path) {
        for missing in &mut self.missing {
            missing.stirred |= missing.generation.label.parent() == Some(dir);
        }
    }

    /// Looks for what is missing, and gives up what was looked for long enough.
    pub(super) fn search_missing(&mut self, now: Instant) {
        let mut nth = 0;
        while nth < self.missing.len() {
            let missing = &self.missing[nth];
            let age = now.saturating_duration_since(missing.since);
            let due = missing.stirred
                || age < LOOK_OFTEN_FOR
                || now.saturating_duration_since(missing.looked_at) >= LOOK_EVERY;
            if due && self.search(nth) {
                continue;
            }
            let missing = &self.missing[nth];
            // Removed with all that was beside it, as a container's files are.
            let nowhere = due && self.directories(&missing.generation).iter().all(|dir| !dir.exists());
            if nowhere || age >= if missing.unread > 0 { LOOK_FOR } else { LOOK_FOR_MAYBE } {
                let given_up = self.missing.swap_remove(nth);
                self.give_up(&given_up);
                continue;
            }
            nth += 1;
        }
    }

    fn give_up(&mut self, missing: &Missing) {
        let input = &self.inputs[usize::from(missing.generation.input)];
        if missing.unread > 0 {
            input.telemetry.lost_bytes.add(missing.unread);
            input.telemetry.lost_files.inc();
            tracing::warn!(
                path = %missing.generation.label.display(),
                unread_bytes = missing.unread,
                "a log file went away before it was read, and no copy of it is there: these bytes are lost"
            );
        }
        self.checkpoints.forget(missing.generation.source);
        if missing.generation.trouble.is_some() {
            self.unreadable.remove(&missing.generation.label);
        }
        self.settle_copies(Was::of(missing.id, &missing.generation));
        self.departs(usize::from(missing.generation.input), &missing.generation.label);
    }

    /// Looks for one; whether it was found and is known again.
    pub(super) fn search(&mut self, nth: usize) -> bool {
        self.missing[nth].stirred = false;
        self.missing[nth].looked_at = Instant::now();
        let Some(place) = self.find(&self.missing[nth].generation) else { return false };
        let Missing { id, mut generation, .. } = self.missing.swap_remove(nth);
        let input = usize::from(generation.input);
        if let Some(other) = self.known.of_inode(input, &place.stat) {
            // It was taken for a generation of its own that might be a copy, and it is.
            self.drop_copy(other);
        }
        if !generation.is(&place.stat) || generation.kind != place.kind {
            self.inputs[input].telemetry.recovered.inc();
        }
        generation.path = Some(place.path.into());
        generation.kind = place.kind;
        if place.kind == SourceKind::File {
            generation.bytes = place.stat.bytes;
        }
        (generation.device, generation.inode) = (place.stat.device, place.stat.inode);
        generation.born_ns = place.stat.born_ns;
        generation.queued = false;
        generation.trouble = None;
        generation.reading = None;
        self.checkpoints.describe(generation.source, generation.described(&self.inputs[input].name));
        self.known.add_again(id, generation);
        self.activate(id);
        true
    }

    fn find(&self, generation: &Generation) -> Option<Place> {
        let stem = stem_of(&generation.label)?;
        for dir in self.directories(generation) {
            if generation.kind == SourceKind::File
                && let Some(path) = inode_in(&dir, generation)
                && let Ok(stat) = Stat::of(&path)
                && self.is_free(generation, &stat)
                && match self.open_file(&path) {
                    Ok(file) => goes_on(&file, &stat, generation),
                    // It is this inode; what is in it shows when it can be read.
                    Err(error) => may_not(&error) && stat.bytes >= generation.offset,
                }
            {
                return Some(Place { path, stat, kind: SourceKind::File });
            }
            if generation.print.bytes == 0 {
                // Nothing was seen of it by which it could be recognised in a copy.
                continue;
            }
            for path in beside(&dir, stem, &generation.label) {
                let Ok(stat) = Stat::of(&path) else { continue };
                if stat.kind != Kind::File || !self.is_free(generation, &stat) {
                    continue;
                }
                let Ok(file) = File::open(&path) else { continue };
                let kind = kind_of(&path).unwrap_or(SourceKind::File);
                let found = match kind {
                    SourceKind::File => goes_on(&file, &stat, generation),
                    packed => holds(file, packed, generation),
                };
                if found {
                    return Some(Place { path, stat, kind });
                }
            }
        }
        None
    }

    /// The bytes of a range of a generation that went out of sight, from a copy that has them though it has not all that
    /// was read: something was written and read between the copy and the truncation.
    pub(super) fn copied(&self, id: FileId, range: &Range) -> Option<Vec<u8>> {
        let generation = &self.missing.iter().find(|missing| missing.id == id)?.generation;
        let stem = stem_of(&generation.label).filter(|_| generation.print.bytes > 0)?;
        let paths = self.directories(generation).into_iter();
        let copies = paths.flat_map(|dir| beside(&dir, stem, &generation.label)).filter_map(|path| {
            let file = File::open(&path).ok().filter(|_| !is_packed(&path))?;
            let begins = beginning(&file).is_ok_and(|begins| begins_as(&begins, generation.print));
            plain_bytes(&file, range).filter(|_| begins)
        });
        let copies: HashSet<Vec<u8>> = copies.collect();
        // Of two that differ nobody knows which it is.
        if copies.len() == 1 { copies.into_iter().next() } else { None }
    }

    /// Whether an inode is no other generation's.
    fn is_free(&self, generation: &Generation, stat: &Stat) -> bool {
        let known = self.known.of_inode(usize::from(generation.input), stat);
        known.and_then(|id| self.known.generation(id)).is_none_or(|other| other.copy_of.is_some())
    }
}

/// What the names of all that becomes of a file begin with: its own up to the first full stop.
fn stem_of(label: &Path) -> Option<&[u8]> {
    let name = label.file_name()?.as_encoded_bytes();
    let end = name.iter().skip(1).position(|byte| *byte == b'.').map_or(name.len(), |at| at + 1);
    Some(&name[..end])
}

/// Files in a directory whose names begin so, but one.
fn beside(dir: &Path, stem: &[u8], but: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name());
    let mut paths: Vec<_> = names
        .filter(|name| name.as_encoded_bytes().starts_with(stem))
        .map(|name| dir.join(name))
        .filter(|path| *path != *but)
        .collect();
    paths.sort();
    paths
}

fn inode_in(dir: &Path, generation: &Generation) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    let same = entries.flatten().filter(|entry| entry.ino() == generation.inode);
    same.map(|entry| entry.path()).find(|path| Stat::of(path).is_ok_and(|stat| generation.is(&stat)))
}

/// Whether a plain file has what a generation had, as far as it was read.
pub(super) fn goes_on(file: &File, stat: &Stat, generation: &Generation) -> bool {
    if stat.bytes < generation.offset {
        return false;
    }
    let begins = beginning(file).is_ok_and(|begins| begins_as(&begins, generation.print));
    let Tail { bytes, .. } = generation.tail;
    let mut before = vec![0; usize::from(bytes)];
    let at = generation.offset.saturating_sub(u64::from(bytes));
    begins && file.read_exact_at(&mut before, at).is_ok() && generation.tail.is(&before)
}

/// Whether a compressed file has it.
fn holds(file: File, kind: SourceKind, generation: &Generation) -> bool {
    let Ok(mut packed) = Packed::new(file, kind) else { return false };
    let print = generation.print;
    let begins = packed.read(0, print.bytes as usize).is_ok_and(|(bytes, _)| begins_as(bytes, print));
    let tail = generation.tail;
    let at = generation.offset.saturating_sub(u64::from(tail.bytes));
    begins
        && packed.read(at, usize::from(tail.bytes)).is_ok_and(|(bytes, _)| tail.is(bytes))
        // Half a file is an error, and it is looked at again.
        && packed.read(generation.offset, 1).is_ok()
}
