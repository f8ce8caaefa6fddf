//! All journal files of a machine, as one journal in journald's order.
//!
//! journald writes one entry after the other, each into the file of its user. So whoever sees an entry sees, in a later
//! look, all entries with smaller numbers of the same source. A look at the files is therefore taken in three steps:
//! the newest numbers of all known files, which files there are, and all headers again; what has a higher number than
//! the first step saw waits for the next look. Without that, an entry of one file could overtake an earlier one of
//! another, and a cursor would pass it over for good.

use super::cursor::Cursor;
use super::entry::Entry;
use super::file::{FileError, JournalFile, Wanted};
use super::header::HeaderError;
use super::id::Id;
use super::watch::Watch;
use super::{Journal, JournalError, Start, Trouble};
use std::cmp::Ordering;
use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The most files that are read at a time; journald keeps a hundred of a machine unless it is told otherwise.
const MAX_OPEN: usize = 1_024;

/// How long a new file may take until it has its header.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// A file that is being read.
struct Open {
    path: PathBuf,
    key: Key,
    file: JournalFile<File>,
    /// The entry at its place.
    head: Option<(u64, Cursor)>,
}

impl Open {
    fn is_deleted(&self) -> bool {
        self.file.source().metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Notes why a file can't be read on.
    fn give_up(&mut self, error: &FileError, finished: &mut HashSet<Key>, trouble: &mut Trouble) {
        if self.is_deleted() {
            let entries = self.file.remaining();
            if entries > 0 {
                tracing::warn!(
                    path = %self.path.display(),
                    entries,
                    "journald deleted entries that were not read yet; give the journal more room (SystemMaxUse=) or \
                     see why delivery is behind"
                );
            }
            trouble.vacuumed_entries += entries;
        } else {
            trouble.damaged_entries += self.file.take_damaged();
            trouble.set_aside(&self.path, self.file.remaining(), error);
        }
        finished.insert(self.key);
    }
}

/// A file, whatever it is called. The id alone would be enough if no file were ever copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    device: u64,
    inode: u64,
    file_id: Id,
}

/// Reads the files themselves.
pub struct Directory {
    directories: Vec<PathBuf>,
    wanted: Wanted,
    watch: Watch,
    open: Vec<Open>,
    /// Files that were read to their end and get no more entries, and files that can't be read.
    finished: HashSet<Key>,
    /// Files without a header, since when; none once that was told.
    unready: HashMap<PathBuf, Option<Instant>>,
    /// The last entry that was given, or where the journal was begun.
    last: Option<Cursor>,
    start: Start,
    /// Up to which number entries of a source are given, see the module.
    horizon: HashMap<Id, u64>,
    trouble: Trouble,
}

impl Directory {
    /// Over the directories that journald writes to, of which some or all may not be there yet.
    pub fn open(directories: Vec<PathBuf>, wanted: Wanted, start: Start) -> Result<Self, JournalError> {
        let watch = Watch::new(&directories);
        let last = match &start {
            Start::After(cursor) => Some(*cursor),
            _ => None,
        };
        let mut this = Self {
            directories,
            wanted,
            watch,
            open: Vec::new(),
            finished: HashSet::new(),
            unready: HashMap::new(),
            last,
            start,
            horizon: HashMap::new(),
            trouble: Trouble::default(),
        };
        this.scan(true)?;
        match this.start {
            // What is written from now on comes after the start, whatever file it is in.
            Start::End => this.last = this.newest(),
            Start::Boot(boot) => {
                // The boot that runs is the newest entry's. Within a container the kernel may name another one, which
                // journald knows nothing of.
                let boot = this.newest().map_or(boot, |newest| newest.boot_id);
                this.start = Start::Boot(boot);
                this.each(|file| file.seek(|entry| entry.boot_id != boot));
            }
            Start::Beginning | Start::After(_) => {}
        }
        Ok(this)
    }

    /// The newest entry of all files.
    fn newest(&mut self) -> Option<Cursor> {
        let mut newest: Option<Cursor> = None;
        for open in &mut self.open {
            let _ = open.file.seek_newest();
            if let Ok(Some((_, cursor))) = open.file.peek() {
                if newest.is_none_or(|newest| cursor.order(&newest) == Ordering::Greater) {
                    newest = Some(cursor);
                }
                open.file.pass();
            }
            open.head = None;
        }
        newest
    }

    /// Takes a look at the files, see the module.
    fn look(&mut self) -> Result<(), JournalError> {
        self.horizon.clear();
        self.each(|file| file.refresh().map(|_| ()));
        for open in &self.open {
            let header = open.file.header();
            let newest = self.horizon.entry(header.seqnum_id).or_default();
            *newest = (*newest).max(header.tail_seqnum);
        }
        if self.watch.take_changed() {
            self.scan(false)?;
        }
        self.each(|file| file.refresh().map(|_| ()));
        self.load();
        self.finish();
        Ok(())
    }

    /// Opens files that are new.
    fn scan(&mut self, first: bool) -> Result<(), JournalError> {
        let mut there = HashSet::new();
        let mut found: Vec<PathBuf> = Vec::new();
        for directory in &self.directories {
            let Ok(entries) = std::fs::read_dir(directory) else { continue };
            found.extend(entries.flatten().map(|entry| entry.path()).filter(|path| is_journal(path)));
        }
        found.sort();
        for path in found {
            match self.consider(&path, first) {
                Ok(key) => {
                    there.insert(key);
                }
                Err(FileError::Header(error @ HeaderError::Unknown(_))) => {
                    return Err(JournalError::Format { path, reason: error.to_string() });
                }
                Err(FileError::Read(super::pages::PageError::Io(error)))
                    if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(FileError::Read(super::pages::PageError::Io(error)))
                    if error.kind() == std::io::ErrorKind::PermissionDenied =>
                {
                    return Err(JournalError::Denied { path });
                }
                Err(error) => self.unready(path, &error),
            }
        }
        self.finished.retain(|key| there.contains(key));
        self.unready.retain(|path, _| path.exists());
        Ok(())
    }

    /// Notes a file without a header: it was made just now, or it is damaged.
    fn unready(&mut self, path: PathBuf, error: &FileError) {
        match self.unready.entry(path) {
            Slot::Vacant(slot) => {
                slot.insert(Some(Instant::now()));
                self.watch.look_again();
            }
            Slot::Occupied(mut slot) => match slot.get() {
                Some(since) if since.elapsed() >= READY_WITHIN => {
                    self.trouble.set_aside(slot.key(), 0, error);
                    slot.insert(None);
                }
                Some(_) => self.watch.look_again(),
                None => {}
            },
        }
    }

    /// Opens a file unless it is known.
    fn consider(&mut self, path: &Path, first: bool) -> Result<Key, FileError> {
        let source = File::open(path)?;
        let metadata = source.metadata()?;
        let mut file = JournalFile::open(source)?;
        if file.header().has_xz() {
            let flags = file.header().flags();
            return Err(HeaderError::Unknown(flags).into());
        }
        self.unready.remove(path);
        let key = Key { device: metadata.dev(), inode: metadata.ino(), file_id: file.header().file_id };
        if let Some(open) = self.open.iter_mut().find(|open| open.key == key) {
            if open.path != path {
                open.path = path.to_owned();
            }
            return Ok(key);
        }
        if self.finished.contains(&key) || self.open.len() >= MAX_OPEN {
            return Ok(key);
        }
        let sought = match (&self.last, &self.start) {
            (Some(last), _) => file.seek_after(last),
            (None, Start::Boot(boot)) => file.seek(|entry| entry.boot_id != *boot),
            // The end is sought when all files are open.
            (None, _) => Ok(()),
        };
        if let Err(error) = sought {
            self.finished.insert(key);
            self.trouble.set_aside(path, file.remaining(), &error);
            return Ok(key);
        }
        if !first {
            tracing::debug!(path = %path.display(), "a new file of the journal");
        }
        self.open.push(Open { path: path.to_owned(), key, file, head: None });
        Ok(key)
    }

    /// Does something with each file; those that can't be read are set aside.
    fn each(&mut self, mut what: impl FnMut(&mut JournalFile<File>) -> Result<(), FileError>) {
        let (finished, trouble) = (&mut self.finished, &mut self.trouble);
        self.open.retain_mut(|open| match what(&mut open.file) {
            Ok(()) => true,
            Err(error) => {
                open.give_up(&error, finished, trouble);
                false
            }
        });
    }

    /// Reads each file's next entry.
    fn load(&mut self) {
        let last = self.last;
        let (finished, trouble) = (&mut self.finished, &mut self.trouble);
        self.open.retain_mut(|open| match load(open, last.as_ref()) {
            Ok(()) => {
                trouble.damaged_entries += open.file.take_damaged();
                true
            }
            Err(error) => {
                open.give_up(&error, finished, trouble);
                false
            }
        });
    }

    /// Closes files that were read to their end and get no more.
    fn finish(&mut self) {
        let finished = &mut self.finished;
        self.open.retain_mut(|open| {
            if open.head.is_some() {
                return true;
            }
            if !open.file.header().online {
                open.file.rest();
            }
            // What journald archived, or renamed after it was killed, gets no more entries.
            let ended = open.file.header().archived || open.path.extension().is_some_and(|e| e == "journal~");
            if (ended && open.file.remaining() == 0) || open.is_deleted() {
                finished.insert(open.key);
                return false;
            }
            true
        });
    }

    /// Which file has the next entry that may be given.
    fn first(&self) -> Option<usize> {
        let mut first: Option<(usize, Cursor)> = None;
        for (nth, open) in self.open.iter().enumerate() {
            let Some((_, cursor)) = open.head else { continue };
            let sooner = first.is_none_or(|(_, first)| cursor.order(&first) == Ordering::Less);
            if sooner {
                first = Some((nth, cursor));
            }
        }
        let (nth, cursor) = first?;
        let horizon = self.horizon.get(&cursor.seqnum_id)?;
        (cursor.seqnum <= *horizon).then_some(nth)
    }
}

impl Journal for Directory {
    fn next(&mut self, entry: &mut Entry) -> Result<bool, JournalError> {
        let mut looked = false;
        loop {
            let Some(nth) = self.first() else {
                if std::mem::replace(&mut looked, true) {
                    return Ok(false);
                }
                self.look()?;
                continue;
            };
            let open = &mut self.open[nth];
            let Some((at, cursor)) = open.head.take() else { continue };
            // The same entry may be in two files, where the volatile journal was copied into the lasting one.
            let again = self.last.is_some_and(|last| last.order(&cursor) == Ordering::Equal);
            let read = if again { Ok(()) } else { open.file.read(at, &self.wanted, entry) };
            open.file.pass();
            let loaded = load(open, Some(&cursor));
            self.trouble.damaged_entries += open.file.take_damaged();
            if let Err(error) = loaded {
                self.open.swap_remove(nth).give_up(&error, &mut self.finished, &mut self.trouble);
            }
            self.last = Some(cursor);
            match read {
                Ok(()) if again => {}
                Ok(()) => {
                    self.trouble.damaged_fields += u64::from(entry.damaged);
                    self.trouble.oversized_fields += u64::from(entry.oversized);
                    return Ok(true);
                }
                Err(_) => self.trouble.damaged_entries += 1,
            }
        }
    }

    fn place(&self) -> Option<Cursor> {
        self.last
    }

    fn wait(&mut self, at_most: Duration) {
        self.watch.wait(Instant::now() + at_most);
    }

    fn trouble(&mut self) -> Trouble {
        std::mem::take(&mut self.trouble)
    }
}

/// Reads a file's next entry, unless it is known. Copies of what was given already are passed over.
fn load(open: &mut Open, last: Option<&Cursor>) -> Result<(), FileError> {
    while open.head.is_none() {
        let Some((at, cursor)) = open.file.peek()? else { return Ok(()) };
        if last.is_some_and(|last| last.order(&cursor) == Ordering::Equal) {
            open.file.pass();
        } else {
            open.head = Some((at, cursor));
        }
    }
    Ok(())
}

/// journald's files, those that it renamed for being damaged (`.journal~`) among them.
fn is_journal(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    matches!(ending, Some("journal" | "journal~"))
}
