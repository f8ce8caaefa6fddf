//! The start: sources of the checkpoints are found again, and blocks that may have been sent before are built again.

use super::discover::discover;
use super::identity::{Kind, Stat, beginning, begins_as};
use super::known::{Content, FileId, Generation};
use super::missing::goes_on;
use super::packed::Packed;
use super::read::Opened;
use super::thread::Thread;
use super::trouble::may_not;
use crate::source::log::checkpoints::{Described, SourceId, SourceKind};
use crate::source::log::cutter::BLOCK_COVER_BYTES;
use crate::source::log::origin::{Origin, Range};
use crate::source::log::shape::{Chunk, End};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirEntryExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Blocks of containers' files wait so long for the containers' names.
const WAIT_FOR_FEED: Duration = Duration::from_secs(15);

/// A block that is built again is not cut: it is what it was.
const NO_LIMIT: usize = usize::MAX;

/// Directories with the inodes in them, read once.
type Listings = HashMap<PathBuf, HashMap<u64, OsString>>;

impl Thread {
    /// Finds the sources that the checkpoints know, then new files.
    pub(super) fn begin(&mut self) {
        let mut sources_of: HashMap<SourceId, usize> = HashMap::new();
        let outstanding = self.checkpoints.outstanding();
        let intended: Vec<SourceId> = outstanding.iter().flat_map(|o| &o.ranges).map(|r| r.source).collect();
        for input in 0..self.inputs.len() {
            let name = self.inputs[input].name.clone();
            let mut sources = self.checkpoints.sources(&name);
            let first_start = sources.is_empty();
            // What was gone and read is looked for again if a block of it was not safe: it may be in a copy.
            let gone =
                intended.iter().filter_map(|source| Some((*source, self.checkpoints.described(*source)?)));
            sources.extend(gone.filter(|(_, described)| described.input == name));
            sources.sort_by_key(|(source, _)| *source);
            sources.dedup_by_key(|(source, _)| *source);
            let found = if self.inputs[input].fed {
                self.take_up(input, &sources)
            } else {
                discover(&self.inputs[input].settings, Path::new("/"))
            };
            let mut listings = Listings::new();
            let mut last: HashMap<Arc<Path>, FileId> = HashMap::new();
            for (source, described) in sources {
                sources_of.insert(source, input);
                let label = described.path.clone();
                let id = self.resume(input, source, described, &mut listings);
                let missing = self.missing.iter_mut().find(|missing| missing.id == id);
                let missing = missing.map(|missing| &mut missing.generation);
                // Nothing is known of it where nothing was ever in it: the next one comes after the one before.
                if let Some(generation) = self.known.generation_mut(id).or(missing) {
                    generation.after = last.insert(label, id);
                }
            }
            if let Some(since) = self.checkpoints.written_before() {
                let mut labels: Vec<Arc<Path>> = last.keys().cloned().collect();
                labels.sort();
                for label in labels {
                    self.count_removed(input, &label, last[&label]);
                    self.unseen(input, &label, &mut last, since, true);
                }
            }
            // Names that have been taken by somebody new meanwhile.
            for (label, id) in last {
                if self.known.at(input, &label).is_none() {
                    self.inputs[input].left.insert(label, id);
                }
            }
            self.absorb(input, found, first_start);
        }
        let known =
            self.known.ids().into_iter().filter_map(|id| Some((self.known.generation(id)?.source, id)));
        let missing = self.missing.iter().map(|missing| (missing.generation.source, missing.id));
        let by_source: HashMap<_, _> = known.chain(missing).collect();
        for origin in outstanding {
            if origin.ranges.iter().any(|range| sources_of.contains_key(&range.source)) {
                for source in origin.ranges.iter().map(|range| range.source) {
                    self.held.insert(source);
                    self.by_source.extend(by_source.get(&source).map(|id| (source, *id)));
                }
                self.outstanding.push_back(origin);
            }
        }
        // What they need is kept open: it may be removed or compressed before delivery has room.
        let needed: Vec<FileId> = self.by_source.values().copied().collect();
        for id in needed {
            self.try_open(id);
        }
    }

    /// Finds a source's file, or begins to look for it.
    fn resume(
        &mut self,
        input: usize,
        source: SourceId,
        described: Described,
        listings: &mut Listings,
    ) -> FileId {
        let place = self.checkpoints.resume(source);
        let floor = self.inputs[input].floors.entry(described.path.clone()).or_default();
        *floor = place.last_ns.max(*floor);
        let mut generation = Generation {
            input: input as u16,
            source,
            kind: described.kind,
            label: described.path.clone(),
            path: None,
            device: described.device,
            inode: described.inode,
            born_ns: described.born_ns,
            print: described.print,
            offset: place.offset,
            last_ns: place.last_ns,
            tail: super::identity::Tail::default(),
            bytes: place.offset,
            wait: None,
            after: None,
            copy_of: None,
            queued: false,
            trouble: None,
            reading: None,
        };
        if let Some((path, stat)) = whereabouts(&generation, listings)
            && self
                .known
                .of_inode(input, &stat)
                .is_none_or(|id| !self.known.generation(id).is_some_and(|g| g.is(&stat)))
            && is_still(self.open_file(&path), &stat, &generation)
        {
            let path: Arc<Path> =
                if *path == *generation.label { generation.label.clone() } else { path.into() };
            if let Some(dir) = path.parent() {
                self.watch.add(dir);
            }
            self.watch_link(&path);
            generation.path = Some(path);
            generation.bytes =
                if generation.kind == SourceKind::File { stat.bytes } else { generation.offset };
            let unread = generation.unread() > 0 || generation.kind != SourceKind::File;
            let id = self.known.add(generation);
            if unread {
                self.activate(id);
            }
            return id;
        }
        // Under a number of its own, so that others can come after it.
        let id = self.known.add(generation);
        if let Some(generation) = self.known.remove(id) {
            self.look_for(id, generation);
        }
        id
    }

    /// Builds blocks again, as far as delivery has room for them.
    pub(super) fn rebuild(&mut self) {
        while self.pending.is_none() {
            let Some(origin) = self.outstanding.front() else { break };
            let late = self.started_at.elapsed() >= WAIT_FOR_FEED;
            if !late && !origin.ranges.iter().all(|range| self.can_shape(range.source)) {
                return;
            }
            let Some(origin) = self.outstanding.pop_front() else { break };
            if !self.cutter.is_empty() {
                // What others read meanwhile.
                self.cut();
                if self.pending.is_some() {
                    self.outstanding.push_front(origin);
                    return;
                }
            }
            self.build_again(&origin);
            self.held.clear();
            let sources = self.outstanding.iter().flat_map(|origin| &origin.ranges).map(|range| range.source);
            self.held.extend(sources);
        }
    }

    fn can_shape(&self, source: SourceId) -> bool {
        let generation = self.by_source(source);
        generation.is_none_or(|(_, g)| {
            let input = &self.inputs[usize::from(g.input)];
            input.is_ready(&g.label) || input.complete
        })
    }

    /// A source's generation, known or missing.
    fn by_source(&self, source: SourceId) -> Option<(FileId, &Generation)> {
        let id = *self.by_source.get(&source)?;
        let missing = || self.missing.iter().find(|missing| missing.id == id).map(|m| &m.generation);
        Some((id, self.known.generation(id).or_else(missing)?))
    }

    fn build_again(&mut self, intended: &Origin) {
        self.cutter.begin_again(intended.base_ns);
        let mut lost = 0;
        let mut left = intended.ranges.as_slice();
        while !left.is_empty() {
            let joined = left.iter().take_while(|range| range.joined).count() + 1;
            let (ranges, behind) = left.split_at(joined.min(left.len()));
            left = behind;
            let Some(over) = self.shape_again(ranges, intended.base_ns) else {
                lost += ranges.iter().map(|range| u64::from(range.entries)).sum::<u64>();
                // Whatever becomes of the sources, their places are behind what is counted as lost.
                self.checkpoints.pass(ranges.to_vec());
                continue;
            };
            if !over.is_empty() {
                // A block of its own for what did not fit, with the same base time.
                let ranges = over.into_iter().chain(left.iter().cloned()).collect();
                let mut rest = Origin { intent: 0, ranges, ..intended.clone() };
                self.checkpoints.intend(&mut rest);
                self.outstanding.push_front(rest);
                break;
            }
        }
        if lost > 0 {
            tracing::warn!(
                entries = lost,
                "entries that were in memory at the kill can't be read again: lost"
            );
            self.cutter.intake().lost_in_crash(lost);
        }
        let again = self.cutter.finish_again(intended);
        let same = again.as_ref().and_then(|logs| Origin::from_bytes(&logs.origin));
        if same.is_none_or(|origin| origin.intent != intended.intent) {
            self.checkpoints.withdraw(intended.intent);
        }
        if let Some(logs) = again {
            self.offer(logs);
        }
    }

    /// Shapes ranges again that are joined, or a single one. None if their bytes are not there; else what of them did
    /// not fit the block: more is made of the bytes than before, by another configuration or because what a rate limit
    /// had left out is let through.
    fn shape_again(&mut self, ranges: &[Range], base_ns: i64) -> Option<Vec<Range>> {
        let first = ranges.first()?;
        let (_, generation) = self.by_source(first.source)?;
        let (input, label) = (usize::from(generation.input), generation.label.clone());
        if !self.inputs[input].is_ready(&label) {
            return None;
        }
        let mut bytes = Vec::new();
        for range in ranges {
            let (id, _) = self.by_source(range.source)?;
            let more = self.bytes_again(id, range)?;
            if bytes.is_empty() {
                bytes = more;
            } else {
                bytes.extend_from_slice(&more);
            }
        }
        let (labels, shaper) = self.inputs[input].shaping(&label);
        let mut at = 0;
        let mut last_ns = first.floor_ns;
        let mut entries = 0;
        while at < bytes.len() {
            let chunk = Chunk {
                bytes: &bytes[at..],
                offset: first.from + at as u64,
                base_ns,
                floor_ns: last_ns,
                end: End::Flush,
                again: true,
            };
            let shaped = shaper.shape(&labels, chunk, NO_LIMIT, self.cutter.builder());
            at += shaped.consumed.min(bytes.len() - at);
            last_ns = shaped.last_ns;
            entries += shaped.entries;
            if shaped.consumed == 0 {
                break;
            }
        }
        self.cover_again(ranges, at as u64, last_ns, entries);
        if at == bytes.len() {
            return Some(Vec::new());
        }
        if at == 0 && self.cutter.is_empty() {
            tracing::error!(path = %label.display(), offset = first.from, "an entry does not fit a block of its own: lost");
            return None;
        }
        tracing::warn!(path = %label.display(), "a block can't be built again as it was; some lines may be repeated");
        Some(behind(ranges, at as u64, last_ns, entries))
    }

    /// Says what was shaped again: so many bytes of the ranges, from the first one's beginning on.
    fn cover_again(&mut self, ranges: &[Range], bytes: u64, last_ns: i64, entries: u32) {
        let intended: u64 = ranges.iter().map(|range| range.to - range.from).sum();
        let made = ranges.iter().map(|range| range.entries).sum::<u32>();
        let as_it_was = intended == bytes
            && made == entries
            && ranges.last().is_some_and(|range| range.last_ns == last_ns);
        if as_it_was {
            ranges.iter().for_each(|range| self.cutter.cover(range.clone()));
            return;
        }
        let (mut left, mut entries) = (bytes, Some(entries));
        for (nth, range) in ranges.iter().enumerate() {
            let of_it = left.min(range.to - range.from);
            left -= of_it;
            let joined = range.joined && left > 0;
            let is_last = !joined || nth + 1 == ranges.len();
            self.cutter.cover(Range {
                to: range.from + of_it,
                last_ns: if is_last { last_ns } else { range.floor_ns },
                entries: if is_last { entries.take().unwrap_or(0) } else { 0 },
                joined,
                ..range.clone()
            });
        }
    }

    /// The bytes of a range, wherever its generation is by now: under another name, removed and open, in a copy.
    fn bytes_again(&mut self, id: FileId, range: &Range) -> Option<Vec<u8>> {
        // Once more where it is found after it was lost sight of.
        for _ in 0..2 {
            if let Some(nth) = self.missing.iter().position(|missing| missing.id == id)
                && !self.search(nth)
            {
                return self.copied(id, range);
            }
            match self.try_open(id) {
                Opened::Yes => {}
                Opened::Gone => {
                    self.lose_sight(id);
                    continue;
                }
                Opened::Later => {
                    let generation = self.known.generation(id)?;
                    return bytes_of(generation.path.as_ref()?, generation.kind, range);
                }
            }
            let generation = self.known.generation(id)?;
            match &generation.reading.as_ref()?.content {
                Content::Packed(_) => return bytes_of(generation.path.as_ref()?, generation.kind, range),
                Content::Plain(file) => {
                    let begins = beginning(file).is_ok_and(|begins| begins_as(&begins, generation.print));
                    if let Some(bytes) = plain_bytes(file, range).filter(|_| begins) {
                        return Some(bytes);
                    }
                }
            }
            self.truncated(id);
        }
        None
    }
}

/// What lies behind so many bytes of ranges, of which so many entries were made up to `last_ns`.
fn behind(ranges: &[Range], mut bytes: u64, last_ns: i64, entries: u32) -> Vec<Range> {
    let mut entries = ranges.iter().map(|range| range.entries).sum::<u32>().saturating_sub(entries);
    let mut left = Vec::new();
    for range in ranges {
        let of_it = bytes.min(range.to - range.from);
        bytes -= of_it;
        if range.from + of_it < range.to {
            let entries = std::mem::take(&mut entries);
            left.push(Range { from: range.from + of_it, floor_ns: last_ns, entries, ..range.clone() });
        }
    }
    left
}

/// The bytes of a range of a plain file, all of them or none.
pub(super) fn plain_bytes(file: &File, range: &Range) -> Option<Vec<u8>> {
    if file.metadata().ok()?.len() < range.to {
        return None;
    }
    let mut bytes = vec![0; length_of(range)?];
    file.read_exact_at(&mut bytes, range.from).ok()?;
    Some(bytes)
}

/// How long a range is. What a block covers is bounded; a range that is longer than that was not written by an agent.
fn length_of(range: &Range) -> Option<usize> {
    let bytes = range.to.checked_sub(range.from)?;
    (bytes <= 2 * BLOCK_COVER_BYTES).then_some(bytes as usize)
}

/// The bytes of a range, all of them or none.
fn bytes_of(path: &Path, kind: SourceKind, range: &Range) -> Option<Vec<u8>> {
    let want = length_of(range)?;
    let file = File::open(path).ok()?;
    if kind == SourceKind::File {
        return plain_bytes(&file, range);
    }
    let mut packed = Packed::new(file, kind).ok()?;
    let (bytes, _) = packed.read(range.from, want).ok()?;
    (bytes.len() == want).then(|| bytes.to_vec())
}

/// Where a generation's inode is: at its path, or beside it.
fn whereabouts(generation: &Generation, listings: &mut Listings) -> Option<(PathBuf, Stat)> {
    let of = |path: PathBuf| {
        let stat = Stat::of(&path).ok()?;
        (stat.kind == Kind::File && generation.is(&stat)).then_some((path, stat))
    };
    if let Some(found) = of(generation.label.to_path_buf()) {
        return Some(found);
    }
    let mut dirs = vec![generation.label.parent()?.to_owned()];
    // A link's target may have been rotated beside where it was.
    dirs.extend(generation.label.canonicalize().ok().and_then(|real| Some(real.parent()?.to_owned())));
    dirs.dedup();
    dirs.into_iter().find_map(|dir| {
        let listing = listings.entry(dir.clone()).or_insert_with(|| {
            let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            entries.map(|entry| (entry.ino(), entry.file_name())).collect()
        });
        of(dir.join(listing.get(&generation.inode)?))
    })
}

/// Whether an inode still holds what a generation had.
fn is_still(opened: io::Result<File>, stat: &Stat, generation: &Generation) -> bool {
    let file = match opened {
        Ok(file) => file,
        // It is compared when it can be read.
        Err(error) => return may_not(&error) && stat.bytes >= generation.offset,
    };
    if generation.kind == SourceKind::File {
        return goes_on(&file, stat, generation);
    }
    let Ok(mut packed) = Packed::new(file, generation.kind) else { return false };
    packed.read(0, generation.print.bytes as usize).is_ok_and(|(bytes, _)| begins_as(bytes, generation.print))
}
