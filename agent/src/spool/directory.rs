//! Segments as directories: `segments/NUMBER-FIRST/{ledger,sled/}`, `quarantine/`, `trash/` and a lock.

use super::sled_segment::{SledSegment, sync_directory};
use super::store::{OpenSegment, SegmentName, SegmentStore, StoreError};
use super::{Settings, SpoolError};
use rustix::fs::{FlockOperation, flock, statvfs};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where segments that hold records are.
pub(crate) const SEGMENTS: &str = "segments";
/// Where damaged segments are kept, for a person to look at.
pub(crate) const QUARANTINE: &str = "quarantine";
/// Where segments go on their way out: a removal cut short by a crash must not look like damage.
const TRASH: &str = "trash";
/// A segment's ledger.
pub(crate) const LEDGER: &str = "ledger";
/// The words beside a segment in quarantine.
pub(crate) const REASON: &str = "reason.txt";
const LOCK: &str = "lock";

/// Space that is held back for reading: sled writes to open a database, so without it a disk that others filled to
/// the last byte could not be drained.
const RESERVE: &str = "reserve";
/// Three databases' worth of what opening writes: sled's log segment of 256 KiB and a snapshot of some KiB.
const RESERVE_BYTES: u64 = 1 << 20;

/// A spool's directory.
pub(crate) struct Directory {
    dir: PathBuf,
    keep_free_bytes: u64,
    flush_deadline: Duration,
    /// Held as long as the spool is open.
    _lock: File,
    /// The ledger that was appended to last.
    ledger: Option<(SegmentName, File)>,
}

impl Directory {
    /// Makes or opens the directory and locks it.
    pub(crate) fn open(settings: &Settings) -> Result<Self, SpoolError> {
        let dir = settings.dir.clone();
        for sub in [SEGMENTS, QUARANTINE, TRASH] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(StoreError::io("making", path))?;
        }
        let path = dir.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(StoreError::io("opening", &path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => SpoolError::InUse { dir: dir.clone() },
            error => StoreError::io("locking", &path)(error.into()).into(),
        })?;
        sync_directory(&dir)?;
        let mut opened = Self {
            dir,
            keep_free_bytes: settings.keep_free_bytes,
            flush_deadline: settings.flush_deadline,
            _lock: lock,
            ledger: None,
        };
        opened.empty_trash();
        if let Err(error) = opened.hold_reserve() {
            tracing::debug!(%error, "no space could be held back for reading");
        }
        Ok(opened)
    }

    /// Makes sure that the reserve is there.
    fn hold_reserve(&self) -> Result<(), StoreError> {
        let path = self.dir.join(RESERVE);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() == RESERVE_BYTES) {
            return Ok(());
        }
        let file = File::create(&path).map_err(StoreError::io("making", &path))?;
        let held = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES);
        if held.is_err() {
            let _ = fs::remove_file(&path);
        }
        match held {
            // A file system that can't allocate ahead has no reserve.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(StoreError::io("holding back space in", path)(errno.into())),
        }
    }

    /// Gives the reserve up; whether there was one.
    fn release_reserve(&self) -> bool {
        fs::remove_file(self.dir.join(RESERVE)).is_ok()
    }

    fn segment(&self, name: SegmentName) -> PathBuf {
        self.dir.join(SEGMENTS).join(name.to_string())
    }

    fn empty_trash(&mut self) {
        for entry in fs::read_dir(self.dir.join(TRASH)).into_iter().flatten().flatten() {
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::debug!(path = %entry.path().display(), %error, "could not be removed");
            }
        }
    }
}

impl SegmentStore for Directory {
    fn list(&mut self) -> Result<Vec<SegmentName>, StoreError> {
        let mut names = segment_names(&self.dir.join(SEGMENTS))?;
        names.sort_unstable();
        Ok(names)
    }

    fn create(&mut self, name: SegmentName, ledger: &[u8]) -> Result<Box<dyn OpenSegment>, StoreError> {
        let path = self.segment(name);
        fs::create_dir(&path).map_err(StoreError::io("making", &path))?;
        self.append_ledger(name, ledger, false)?;
        let open = SledSegment::create(&path, self.flush_deadline)?;
        sync_directory(&path)?;
        sync_directory(&self.dir.join(SEGMENTS))?;
        Ok(Box::new(open))
    }

    fn open(&mut self, name: SegmentName) -> Result<Box<dyn OpenSegment>, StoreError> {
        let path = self.segment(name);
        match SledSegment::open(&path, self.flush_deadline) {
            Err(StoreError::Io { source, .. })
                if source.kind() == io::ErrorKind::StorageFull && self.release_reserve() =>
            {
                Ok(Box::new(SledSegment::open(&path, self.flush_deadline)?))
            }
            opened => Ok(Box::new(opened?)),
        }
    }

    fn read_ledger(&mut self, name: SegmentName) -> Result<Vec<u8>, StoreError> {
        let path = self.segment(name).join(LEDGER);
        fs::read(&path).map_err(StoreError::io("reading", path))
    }

    fn append_ledger(&mut self, name: SegmentName, bytes: &[u8], sync: bool) -> Result<(), StoreError> {
        let path = self.segment(name).join(LEDGER);
        if self.ledger.as_ref().is_none_or(|(open, _)| *open != name) {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(StoreError::io("opening", &path))?;
            self.ledger = Some((name, file));
        }
        let (_, file) = self.ledger.as_mut().expect("opened above");
        let appended = file.write_all(bytes).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
        if appended.is_err() {
            self.ledger = None;
        }
        appended.map_err(StoreError::io("appending to", path))
    }

    fn replace_ledger(&mut self, name: SegmentName, bytes: &[u8]) -> Result<(), StoreError> {
        self.ledger = None;
        let segment = self.segment(name);
        replace_file(&segment, LEDGER, bytes).map_err(StoreError::io("replacing the ledger in", &segment))
    }

    fn remove(&mut self, name: SegmentName) -> Result<(), StoreError> {
        self.ledger.take_if(|(open, _)| *open == name);
        let (path, trash) = (self.segment(name), self.dir.join(TRASH).join(name.to_string()));
        match fs::rename(&path, &trash) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::io("removing", path)(error)),
        }
        if let Err(error) = fs::remove_dir_all(&trash) {
            tracing::debug!(path = %trash.display(), %error, "could not be removed; the next start tries again");
        }
        Ok(())
    }

    fn quarantine(&mut self, name: SegmentName, reason: &str) -> Result<(), StoreError> {
        self.ledger.take_if(|(open, _)| *open == name);
        let (path, aside) = (self.segment(name), self.dir.join(QUARANTINE).join(name.to_string()));
        fs::rename(&path, &aside).map_err(StoreError::io("setting aside", path))?;
        // The words are for people; the segment is safe without them.
        let _ = fs::write(aside.join(REASON), format!("{reason}\n"));
        Ok(())
    }

    fn quarantined(&mut self) -> usize {
        segment_names(&self.dir.join(QUARANTINE)).map_or(0, |names| names.len())
    }

    fn highest_number(&mut self) -> u64 {
        [SEGMENTS, QUARANTINE, TRASH]
            .iter()
            .flat_map(|sub| segment_names(&self.dir.join(sub)).unwrap_or_default())
            .map(|name| name.number)
            .max()
            .unwrap_or(0)
    }

    fn check_space(&mut self, wanted_bytes: u64) -> Result<(), StoreError> {
        let stat = statvfs(&self.dir)
            .map_err(|errno| StoreError::io("asking the free space of", &self.dir)(errno.into()))?;
        let free_bytes = stat.f_bavail * stat.f_frsize;
        if free_bytes < wanted_bytes + self.keep_free_bytes {
            return Err(StoreError::NoSpace {
                path: self.dir.clone(),
                free_bytes,
                keep_bytes: self.keep_free_bytes,
            });
        }
        // What was given up for reading comes back before anything is written.
        self.hold_reserve()
    }
}

/// The segments in a directory.
pub(crate) fn segment_names(dir: &Path) -> Result<Vec<SegmentName>, StoreError> {
    let entries = fs::read_dir(dir).map_err(StoreError::io("listing", dir))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("listing", dir))?;
        names.extend(entry.file_name().to_str().and_then(SegmentName::parse));
    }
    Ok(names)
}

/// Replaces a file in one step, durably.
fn replace_file(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let fresh = dir.join(format!("{name}.new"));
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, dir.join(name))?;
    File::open(dir)?.sync_all()
}
