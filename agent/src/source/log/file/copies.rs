//! Copies that a truncation follows (`copytruncate`), where the pattern takes their names too.
//!
//! A new file that begins as its neighbour does is set aside until the neighbour is truncated. Then the old generation
//! goes on in it, if it has all that was read; where more was read than was copied, because something was written
//! between the copy and the truncation and read before the latter, the copy was read before it was made: it becomes a
//! source of its own, placed at its end.

use super::identity::{PRINT_BYTES, Stat, TAIL_BYTES, Tail, beginning, begins_as, print_of};
use super::known::{Content, FileId, Generation};
use super::thread::{Thread, Visit};
use super::trouble::is_gone;
use super::unseen::Rotated;
use crate::source::log::checkpoints::{Place, Print};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A file that is shorter than what it may be a copy of is given so long to grow.
const COPY_GROWS: Duration = Duration::from_secs(2);

/// A file that may be a copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copied {
    since: Instant,
    /// It was seen to be one of this generation.
    of: Option<FileId>,
}

impl Copied {
    pub(super) fn perhaps() -> Self {
        Self { since: Instant::now(), of: None }
    }
}

/// What was known of a generation when it went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Was {
    id: FileId,
    print: Print,
    offset: u64,
    last_ns: i64,
}

impl Was {
    pub(super) fn of(id: FileId, generation: &Generation) -> Self {
        Self { id, print: generation.print, offset: generation.offset, last_ns: generation.last_ns }
    }
}

impl Thread {
    /// The generation that a new file may be a copy of, by its name: one that is there, or is looked for.
    pub(super) fn original_of(&self, input: usize, path: &Path) -> Option<FileId> {
        original_paths(path).into_iter().find_map(|path| {
            let known = self.known.at(input, &path);
            let known = known.filter(|id| self.known.generation(*id).is_some_and(|g| g.copy_of.is_none()));
            known.or_else(|| self.missing_at(input, &path).map(|was| was.id))
        })
    }

    /// The generation that was at a path and is looked for, the last one if there were several.
    fn missing_at(&self, input: usize, path: &Path) -> Option<Was> {
        let at =
            |generation: &Generation| usize::from(generation.input) == input && *generation.label == *path;
        let missing = self.missing.iter().filter(|missing| at(&missing.generation));
        missing.max_by_key(|missing| missing.id).map(|missing| Was::of(missing.id, &missing.generation))
    }

    /// A file that may be a copy: while it begins as the original does it is not read.
    pub(super) fn visit_copy(&mut self, id: FileId, original: FileId) -> Visit {
        let path = self.known.generation(id).and_then(|generation| generation.path.clone());
        let opened = path.as_ref().map(|path| self.open_file(path).and_then(|f| Ok((beginning(&f)?, f))));
        let (begins, file) = match opened {
            Some(Ok(opened)) => opened,
            Some(Err(error)) if !is_gone(&error) => {
                self.in_trouble(id, &error);
                return Visit::Later;
            }
            // Gone again; there is nothing to remember of it.
            _ => {
                self.drop_copy(id);
                return Visit::Idle;
            }
        };
        self.out_of_trouble(id);
        let since = self.copies.entry(id).or_insert_with(Copied::perhaps).since;
        if let Some(of) = self.known.generation(original) {
            let has_all = of.print.bytes > 0 && begins.len() >= of.print.bytes as usize;
            let is_alike = if has_all {
                begins_as(&begins, of.print) && ends_alike(&file, of)
            } else {
                // It is being written, or its original has grown since.
                !begins.is_empty() && beginning_of(of).is_some_and(|original| original.starts_with(&begins))
            };
            if is_alike {
                self.copies.insert(id, Copied { since, of: Some(original) });
            }
            if is_alike && (has_all || since.elapsed() >= COPY_GROWS) {
                self.set_aside(id);
                return Visit::Idle;
            }
            if !has_all && since.elapsed() < COPY_GROWS {
                return Visit::Later;
            }
        }
        if self.settle_copy_of_missing(id, path.as_deref()) {
            return Visit::Idle;
        }
        self.copies.remove(&id);
        if let Some(generation) = self.known.generation_mut(id) {
            generation.copy_of = None;
            if let Some(reading) = &mut generation.reading {
                reading.quiet.looked(true);
            }
            generation.bytes = Stat::of(generation.path.as_deref().unwrap_or(&generation.label))
                .map_or(generation.bytes, |stat| stat.bytes);
            let described = generation.described(&self.inputs[usize::from(generation.input)].name);
            generation.source = self.checkpoints.source(described);
        }
        Visit::More
    }

    /// A copy waits for the truncation of its original, closed.
    fn set_aside(&mut self, id: FileId) {
        self.open.remove(&id);
        if let Some(generation) = self.known.generation_mut(id) {
            generation.bytes = generation.offset;
            generation.reading = None;
        }
    }

    /// A copy is gone, or is known better as something else.
    pub(super) fn drop_copy(&mut self, id: FileId) {
        self.open.remove(&id);
        self.copies.remove(&id);
        if let Some(generation) = self.known.remove(id) {
            self.departs(usize::from(generation.input), &generation.label);
        }
    }

    /// A generation is not where it can be copied from any more, and does not go on in a copy: copies of what was read
    /// of it were read.
    pub(super) fn settle_copies(&mut self, was: Was) {
        let is_copy = |id: &FileId| self.known.generation(*id).is_some_and(|g| g.copy_of == Some(was.id));
        let copies: Vec<FileId> = self.copies.keys().copied().filter(is_copy).collect();
        for copy in copies {
            self.settle_copy(copy, was);
        }
    }

    /// Whether a file is a copy of what was read of a generation that is looked for, by its name and its content.
    fn settle_copy_of_missing(&mut self, id: FileId, path: Option<&Path>) -> bool {
        let (Some(path), Some(generation)) = (path, self.known.generation(id)) else { return false };
        let (input, copy_of) = (usize::from(generation.input), generation.copy_of);
        let by_id = self.missing.iter().find(|missing| Some(missing.id) == copy_of);
        let mut of: Vec<Was> =
            by_id.map(|missing| Was::of(missing.id, &missing.generation)).into_iter().collect();
        of.extend(original_paths(path).iter().filter_map(|path| self.missing_at(input, path)));
        of.into_iter().any(|was| self.settle_copy(id, was))
    }

    /// A copy that has nothing but what was read of its original is a source at its end. Whether it is one.
    fn settle_copy(&mut self, id: FileId, was: Was) -> bool {
        let Some(generation) = self.known.generation(id) else { return false };
        let opened = generation.path.as_ref().and_then(|path| {
            let file = self.open_file(path).ok()?;
            Some((Stat::of_open(&file).ok()?, file))
        });
        let Some((stat, file)) = opened.filter(|(stat, _)| generation.is(stat)) else { return false };
        let Ok(begins) = beginning(&file) else { return false };
        let is_alike = if begins.len() >= was.print.bytes as usize {
            was.print.bytes > 0 && begins_as(&begins, was.print)
        } else {
            // More was seen of the original than the copy has; it was compared before.
            self.copies.get(&id).is_some_and(|copied| copied.of == Some(was.id))
        };
        if !is_alike || stat.bytes > was.offset {
            return false;
        }
        let mut end = vec![0; TAIL_BYTES.min(stat.bytes as usize)];
        let from = stat.bytes - end.len() as u64;
        if file.read_exact_at(&mut end, from).is_err() {
            return false;
        }
        let Some(generation) = self.known.generation_mut(id) else { return false };
        (generation.copy_of, generation.after) = (None, None);
        (generation.offset, generation.bytes) = (stat.bytes, stat.bytes);
        generation.last_ns = was.last_ns;
        (generation.print, generation.tail) = (print_of(&begins), Tail::of(&end));
        generation.source =
            self.checkpoints.source(generation.described(&self.inputs[usize::from(generation.input)].name));
        let place = Place { offset: stat.bytes, last_ns: was.last_ns, ..Place::default() };
        self.checkpoints.put(generation.source, place);
        self.copies.remove(&id);
        self.close(id);
        true
    }
}

/// The paths that a copy may have been made from, by its name, the likeliest first: `app.log` for `app-20260101.log`,
/// `app.log` and `app` for `app.log.1`.
fn original_paths(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ends = name.char_indices().filter(|(at, c)| *at > 0 && matches!(c, '.' | '-' | '_')).rev();
    let ending = name.rfind('.').map_or("", |at| &name[at..]);
    let without = ends.clone().map(|(at, _)| format!("{}{ending}", &name[..at]));
    let without = without.filter(|other| Rotated::of(other.as_bytes(), name.as_bytes()).is_some());
    without.chain(ends.map(|(at, _)| name[..at].to_owned())).map(|name| path.with_file_name(name)).collect()
}

/// How a generation's content begins, if it can be read.
fn beginning_of(generation: &Generation) -> Option<Vec<u8>> {
    match generation.reading.as_ref().map(|reading| &reading.content) {
        Some(Content::Plain(file)) => beginning(file).ok(),
        Some(Content::Packed(_)) => None,
        None => beginning(&File::open(generation.path.as_ref()?).ok()?).ok(),
    }
}

/// Whether the last that a file has is what another has there: files that only begin alike are no copies. What can't be
/// compared, because the original is being truncated or the copy is not filled yet, counts as alike.
fn ends_alike(copy: &File, original: &Generation) -> bool {
    let Ok(bytes) = copy.metadata().map(|meta| meta.len()) else { return true };
    let from = bytes.saturating_sub(PRINT_BYTES as u64);
    let mut end = vec![0; (bytes - from) as usize];
    let mut there = end.clone();
    let read = match original.reading.as_ref().map(|reading| &reading.content) {
        Some(Content::Plain(file)) => file.read_exact_at(&mut there, from),
        Some(Content::Packed(_)) => return true,
        None => match original.path.as_ref().map(File::open::<&Arc<Path>>) {
            Some(Ok(file)) => file.read_exact_at(&mut there, from),
            _ => return true,
        },
    };
    read.is_err()
        || copy.read_exact_at(&mut end, from).is_err()
        || end.iter().all(|b| *b == 0)
        || end == there
}
