//! How much was taken from those who push and is in no block yet: what a kill loses beside the intents, for the next
//! start to count.
//!
//! A file of sixteen bytes an input, written in place: how much was taken, and how much of it became blocks or was left
//! out. It is with the kernel before anything else happens, so that a kill forgets nothing; a power cut may.

use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// The tally of one input.
#[derive(Debug)]
pub(super) struct Tally {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// None where it can't be written: then a kill's loss is not known.
    file: Option<File>,
    taken: u64,
    made: u64,
}

impl Tally {
    /// Opens an input's tally, and says how much of it was lost by the end of the last life.
    pub(super) fn open(dir: &Path, input: &str) -> (Self, u64) {
        let path = dir.join(format!("pushed-{:016x}", xxh3_64(input.as_bytes())));
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let found = opened.and_then(|file| {
            let mut bytes = [0; 16];
            let read = file.read_at(&mut bytes, 0)?;
            let [taken, made] = [0, 8].map(|at| {
                let number = bytes[at..at + 8].first_chunk().copied().unwrap_or_default();
                u64::from_le_bytes(number)
            });
            file.write_all_at(&[0; 16], 0)?;
            Ok((file, if read == bytes.len() { taken.saturating_sub(made) } else { 0 }))
        });
        let (file, lost) = match found {
            Ok((file, lost)) => (Some(file), lost),
            Err(error) => {
                untold(&path, &error);
                (None, 0)
            }
        };
        (Self { kept: Mutex::new(Kept { file, taken: 0, made: 0 }) }, lost)
    }

    /// So many were taken from their sender.
    pub(super) fn take(&self, count: u64) {
        let mut kept = self.kept.lock();
        kept.taken += count;
        let taken = kept.taken;
        kept.write(taken, 0);
    }

    /// So many of them are in a block whose intent is written, or were left out.
    pub(super) fn made(&self, count: u64) {
        let mut kept = self.kept.lock();
        kept.made += count;
        let made = kept.made;
        kept.write(made, 8);
    }
}

impl Kept {
    fn write(&mut self, number: u64, at: u64) {
        if let Some(file) = &self.file
            && let Err(error) = file.write_all_at(&number.to_le_bytes(), at)
        {
            untold(Path::new("the tally of an input"), &error);
            self.file = None;
        }
    }
}

fn untold(path: &Path, error: &io::Error) {
    tracing::warn!(
        path = %path.display(),
        %error,
        "what is taken from senders can't be noted: if the agent is killed, what it had not stored is lost uncounted"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_and_not_made_is_lost_once() {
        let dir = tempfile::tempdir().unwrap();
        let (tally, lost) = Tally::open(dir.path(), "a");
        assert_eq!(lost, 0);
        tally.take(7);
        tally.made(3);
        tally.take(1);
        drop(tally);
        assert_eq!(Tally::open(dir.path(), "b").1, 0, "each input has its own");
        assert_eq!(Tally::open(dir.path(), "a").1, 5);
        assert_eq!(Tally::open(dir.path(), "a").1, 0);
        assert_eq!(Tally::open(&dir.path().join("none"), "a").1, 0);
    }

    #[test]
    fn a_tally_that_is_damaged_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(Tally::open(dir.path(), "a"));
        let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        for bytes in [&[9; 5][..], &[0; 16], &[255; 16]] {
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(Tally::open(dir.path(), "a").1, 0, "{bytes:?}");
        }
    }
}
