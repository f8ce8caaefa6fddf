//! Who tells that directories change: inotify, or nobody, and then they are looked at again and again.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// File systems that other machines write to, or that don't tell: `statfs(2)`'s magic numbers of NFS, SMB and CIFS,
/// FUSE, 9p, Ceph, AFS, Lustre, GPFS and OCFS2.
const REMOTE: [u32; 11] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
    0x0bd0_0bd0,
    0x4750_4653,
    0x7461_636f,
];

/// Something happened in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) dir: Arc<Path>,
    pub(super) name: OsString,
    pub(super) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A file has other content or another size.
    Modified,
    /// A name is there that was not.
    Appeared,
    /// A name is gone.
    Vanished,
    /// A name went; the number tells where to.
    MovedFrom(u32),
    /// A name came from elsewhere.
    MovedTo(u32),
    /// The directory itself is gone or elsewhere.
    DirectoryGone,
    /// So much happened that some was not told.
    Overflow,
}

/// Watches directories.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Option<OwnedFd>,
    by_number: HashMap<i32, Arc<Path>>,
    by_path: HashMap<Arc<Path>, Option<i32>>,
    told: bool,
}

impl Watch {
    pub(super) fn new(poll_only: bool) -> Self {
        let inotify = if poll_only {
            None
        } else {
            match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
                Ok(inotify) => Some(inotify),
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "inotify can't be used: directories of logs are looked at every second; raise \
                         fs.inotify.max_user_instances"
                    );
                    None
                }
            }
        };
        Self { inotify, by_number: HashMap::new(), by_path: HashMap::new(), told: false }
    }

    /// Watches a directory, if it is not watched already.
    pub(super) fn add(&mut self, dir: &Path) {
        if self.by_path.contains_key(dir) {
            return;
        }
        let shared: Arc<Path> = dir.into();
        let number = self.try_add(dir);
        if let Some(number) = number {
            self.by_number.insert(number, shared.clone());
        }
        self.by_path.insert(shared, number);
    }

    fn try_add(&mut self, dir: &Path) -> Option<i32> {
        let inotify = self.inotify.as_ref()?;
        if rustix::fs::statfs(dir).is_ok_and(|fs| REMOTE.contains(&(fs.f_type as u32))) {
            tracing::info!(dir = %dir.display(), "a network file system: looked at every second");
            return None;
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(inotify, dir, flags) {
            Ok(number) => Some(number),
            Err(error) => {
                if error == Errno::NOSPC && !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(
                        dir = %dir.display(),
                        "no more inotify watches: this directory and further ones are looked at every second; raise \
                         fs.inotify.max_user_watches"
                    );
                }
                None
            }
        }
    }

    /// Whether some directories don't tell.
    pub(super) fn polls(&self) -> bool {
        self.by_path.values().any(Option::is_none)
    }

    /// What to wait for.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// All that happened since the last call. Doesn't wait.
    pub(super) fn events(&mut self, events: &mut Vec<Event>) {
        let Some(inotify) = &self.inotify else { return };
        let mut buffer = [const { MaybeUninit::uninit() }; 16 << 10];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        let mut gone = Vec::new();
        while let Ok(event) = reader.next() {
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                let dir = Path::new("/").into();
                events.push(Event { dir, name: OsString::new(), what: What::Overflow });
                continue;
            }
            let Some(dir) = self.by_number.get(&event.wd()) else { continue };
            let name = event.file_name().map_or(OsStr::new(""), |name| OsStr::from_bytes(name.to_bytes()));
            let what = if flags.intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF)
            {
                gone.push(event.wd());
                What::DirectoryGone
            } else if flags.contains(ReadFlags::MOVED_FROM) {
                What::MovedFrom(event.cookie())
            } else if flags.contains(ReadFlags::MOVED_TO) {
                What::MovedTo(event.cookie())
            } else if flags.contains(ReadFlags::DELETE) {
                What::Vanished
            } else if flags.contains(ReadFlags::CREATE) {
                What::Appeared
            } else {
                What::Modified
            };
            if what == What::Modified
                && events.last().is_some_and(|e| e.what == what && e.name == name && e.dir == *dir)
            {
                continue;
            }
            events.push(Event { dir: dir.clone(), name: name.to_owned(), what });
        }
        for number in gone {
            if let Some(dir) = self.by_number.remove(&number) {
                self.by_path.remove(&dir);
                if let Some(inotify) = &self.inotify {
                    // It may be gone with its directory already.
                    let _ = inotify::remove_watch(inotify, number);
                }
            }
        }
    }
}
