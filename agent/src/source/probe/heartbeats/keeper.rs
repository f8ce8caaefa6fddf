//! Keeps what was heard of jobs in a file, away from the agent's thread.
//!
//! A change bumps a version; a thread that lives as long as something is to be written writes the newest content to
//! another file, syncs it and puts it in place. Whatever changed meanwhile goes into the next write together: a
//! thousand calls at once cost two syncs. A disk that hangs costs that one thread, and those who wait for their version
//! give up by themselves.

use parking_lot::Mutex;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// A content, numbered by its changes.
pub(super) type Version = u64;

/// What was written last, and what became of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    pub(super) version: Version,
    /// Why that version could not be written.
    pub(super) error: Option<String>,
}

/// How bytes get to a disk: a file in production, something that hangs in tests.
pub(super) type Write = Arc<dyn Fn(&[u8]) -> std::io::Result<()> + Send + Sync>;

/// Writes `content` whenever it changed.
pub(super) struct Keeper {
    write: Write,
    content: Box<dyn Fn() -> (Version, Vec<u8>) + Send + Sync>,
    shown: String,
    writing: Mutex<bool>,
    kept: watch::Sender<Kept>,
}

impl Keeper {
    /// A keeper; `content` gives what is to be kept with its version, `shown` says where.
    pub(super) fn new(
        write: Write,
        shown: String,
        content: impl Fn() -> (Version, Vec<u8>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            write,
            content: Box::new(content),
            shown,
            writing: Mutex::new(false),
            kept: watch::Sender::new(Kept::default()),
        })
    }

    /// What was written last, now and later.
    pub(super) fn kept(&self) -> watch::Receiver<Kept> {
        self.kept.subscribe()
    }

    /// The content changed: it will be written, and nobody waits here.
    pub(super) fn changed(self: &Arc<Self>) {
        let mut writing = self.writing.lock();
        if *writing {
            // The thread looks at the version after each write, before it says that it ends.
            return;
        }
        let keeper = self.clone();
        let thread = std::thread::Builder::new().name("heartbeats".to_owned());
        match thread.spawn(move || keeper.write_all()) {
            Ok(_) => *writing = true,
            Err(error) => {
                drop(writing);
                let (version, _) = (self.content)();
                self.tell(version, Some(format!("no thread can be started: {error}")));
            }
        }
    }

    fn write_all(&self) {
        let mut last = None;
        loop {
            let (version, bytes) = (self.content)();
            if last == Some(version) {
                let mut writing = self.writing.lock();
                // A change after the look above found `writing` set, and counts on this thread.
                if (self.content)().0 == version {
                    *writing = false;
                    return;
                }
                continue;
            }
            last = Some(version);
            let error = (self.write)(&bytes).err().map(|error| error.to_string());
            self.tell(version, error);
        }
    }

    fn tell(&self, version: Version, error: Option<String>) {
        if let Some(error) = &error {
            tracing::warn!(
                file = %self.shown, %error, "cannot keep what was heard of jobs; a restart forgets it"
            );
        }
        self.kept.send_replace(Kept { version, error });
    }
}

/// Writes a file anew: to another one first, so that none is ever half written; then both the file and its name are on
/// the disk.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside: PathBuf = path.with_extension("json.new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&beside, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
