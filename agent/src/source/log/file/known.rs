//! The generations of files that are known: what is remembered of each, and how they are found by path.

use super::super::checkpoints::{Described, Print, SourceId, SourceKind};
use super::identity::{Stat, Tail};
use super::packed::Packed;
use super::trouble::Trouble;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Numbers generations, for as long as the thread lives.
pub(super) type FileId = u32;

/// One generation of a file. Some 200 bytes while nothing is read of it.
pub(super) struct Generation {
    pub(super) input: u16,
    /// 0 while it may be a copy of another one.
    pub(super) source: SourceId,
    pub(super) kind: SourceKind,
    /// Where it was first seen: the label of its entries, whatever it is called later.
    pub(super) label: Arc<Path>,
    /// Where it is; none if it was unlinked or went out of sight.
    pub(super) path: Option<Arc<Path>>,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) born_ns: i64,
    pub(super) print: Print,
    pub(super) offset: u64,
    pub(super) last_ns: i64,
    /// The bytes before the offset.
    pub(super) tail: Tail,
    /// How large it was when it was last looked at.
    pub(super) bytes: u64,
    /// For how long its unread bytes have waited; none while it never had any.
    pub(super) wait: Option<Box<Wait>>,
    /// The generation at the same path before: its lines come first.
    pub(super) after: Option<FileId>,
    /// The generation that this one may be a copy of, made before that is truncated.
    pub(super) copy_of: Option<FileId>,
    /// It waits for its turn.
    pub(super) queued: bool,
    /// It can't be opened or read.
    pub(super) trouble: Option<Trouble>,
    pub(super) reading: Option<Box<Reading>>,
}

/// What there is beside while a generation is open.
pub(super) struct Reading {
    pub(super) content: Content,
    /// The print and the tail were compared since something was last seen to have changed.
    pub(super) compared: bool,
    pub(super) quiet: Quiet,
    /// What is left at the end is no whole entry, since then.
    pub(super) partial_since: Option<Instant>,
    /// A compressed generation was read to its end.
    pub(super) ended: bool,
}

/// Between two looks a file counts as quiet for no longer than this: whoever keeps the thread from looking may keep the
/// writer from writing the rest of a line too.
const MOST_QUIET: Duration = Duration::from_millis(500);

/// For how long a file was seen not to grow.
pub(super) struct Quiet {
    pub(super) time: Duration,
    looked_at: Instant,
}

impl Quiet {
    /// Of a file that is looked at for the first time.
    pub(super) fn new() -> Self {
        Self { time: Duration::ZERO, looked_at: Instant::now() }
    }

    /// The file was looked at just now.
    pub(super) fn looked(&mut self, grown: bool) {
        let now = Instant::now();
        let since = now.saturating_duration_since(self.looked_at).min(MOST_QUIET);
        self.time = if grown { Duration::ZERO } else { self.time + since };
        self.looked_at = now;
    }
}

/// When unread bytes were first seen: those up to a place, and then what came behind it.
pub(super) struct Wait {
    until: u64,
    since: Instant,
    /// Since when there is more than that.
    more_since: Option<Instant>,
}

pub(super) enum Content {
    Plain(File),
    Packed(Packed),
}

impl Generation {
    pub(super) fn is(&self, stat: &Stat) -> bool {
        stat.is(self.device, self.inode, self.born_ns)
    }

    pub(super) fn unread(&self) -> u64 {
        if self.kind == SourceKind::File { self.bytes.saturating_sub(self.offset) } else { 0 }
    }

    /// How much is known to be unread, also where it is in a compressed file by now: there may be more in that.
    pub(super) fn known_unread(&self) -> u64 {
        self.bytes.saturating_sub(self.offset)
    }

    /// It is so large now.
    pub(super) fn saw(&mut self, bytes: u64, now: Instant) {
        self.bytes = bytes;
        if self.unread() == 0 {
            return;
        }
        match &mut self.wait {
            Some(wait) if wait.until > self.offset => {
                if bytes > wait.until {
                    wait.more_since.get_or_insert(now);
                }
            }
            Some(wait) => {
                let since = wait.more_since.take().unwrap_or(now);
                **wait = Wait { until: bytes, since, more_since: None };
            }
            None => self.wait = Some(Box::new(Wait { until: bytes, since: now, more_since: None })),
        }
    }

    /// For how long the oldest unread byte has waited since it was seen.
    pub(super) fn waits(&self, now: Instant) -> Duration {
        let Some(wait) = self.wait.as_ref().filter(|_| self.unread() > 0) else { return Duration::ZERO };
        let since = if wait.until > self.offset { Some(wait.since) } else { wait.more_since };
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    pub(super) fn described(&self, input: &Arc<str>) -> Described {
        Described {
            input: input.clone(),
            kind: self.kind,
            path: self.label.clone(),
            device: self.device,
            inode: self.inode,
            born_ns: self.born_ns,
            print: self.print,
        }
    }
}

/// The known generations.
#[derive(Default)]
pub(super) struct Known {
    all: HashMap<FileId, Generation>,
    last: FileId,
    /// How many there are of each input.
    counts: Vec<usize>,
    /// By input and path.
    paths: Vec<HashMap<Arc<Path>, FileId>>,
    /// By input, device and inode.
    inodes: HashMap<(u16, u64, u64), FileId>,
}

impl Known {
    pub(super) fn new(inputs: usize) -> Self {
        Self {
            counts: vec![0; inputs],
            paths: (0..inputs).map(|_| HashMap::new()).collect(),
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, generation: Generation) -> FileId {
        self.last += 1;
        let id = self.last;
        self.add_again(id, generation);
        id
    }

    /// Adds a generation under the number that it had before it went missing.
    pub(super) fn add_again(&mut self, id: FileId, generation: Generation) {
        if let Some(path) = &generation.path {
            self.paths[usize::from(generation.input)].insert(path.clone(), id);
        }
        self.inodes.insert((generation.input, generation.device, generation.inode), id);
        self.counts[usize::from(generation.input)] += 1;
        self.all.insert(id, generation);
    }

    pub(super) fn generation(&self, id: FileId) -> Option<&Generation> {
        self.all.get(&id)
    }

    pub(super) fn generation_mut(&mut self, id: FileId) -> Option<&mut Generation> {
        self.all.get_mut(&id)
    }

    pub(super) fn at(&self, input: usize, path: &Path) -> Option<FileId> {
        self.paths[input].get(path).copied()
    }

    pub(super) fn of_inode(&self, input: usize, stat: &Stat) -> Option<FileId> {
        self.inodes.get(&(input as u16, stat.device, stat.inode)).copied()
    }

    /// A generation is somewhere else, or nowhere.
    pub(super) fn put(&mut self, id: FileId, path: Option<Arc<Path>>) {
        let Some(generation) = self.all.get_mut(&id) else { return };
        let paths = &mut self.paths[usize::from(generation.input)];
        if let Some(before) = generation.path.take()
            && paths.get(&before) == Some(&id)
        {
            paths.remove(&before);
        }
        if let Some(path) = &path {
            paths.insert(path.clone(), id);
        }
        generation.path = path;
    }

    pub(super) fn remove(&mut self, id: FileId) -> Option<Generation> {
        self.put(id, None);
        let generation = self.all.remove(&id)?;
        self.counts[usize::from(generation.input)] -= 1;
        let inode = (generation.input, generation.device, generation.inode);
        if self.inodes.get(&inode) == Some(&id) {
            self.inodes.remove(&inode);
        }
        Some(generation)
    }

    pub(super) fn ids(&self) -> Vec<FileId> {
        let mut ids: Vec<_> = self.all.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Generation> {
        self.all.values()
    }

    /// How many there are of an input.
    pub(super) fn count(&self, input: usize) -> usize {
        self.counts[input]
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}
