//! Files of procfs and sysfs that are read at every scrape.

use super::CollectError;
use super::text::quoted;
use parking_lot::{Mutex, MutexGuard};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The buffer that a file's first reading begins with, in bytes: most of the kernel's files fit a page.
const FIRST_BUFFER_BYTES: usize = 4096;

/// The longest file that is read, in bytes. `/proc/stat` of a machine with 4,096 processors has some 2 MB, a
/// mount table with 50,000 mounts some 10 MB.
const MAX_FILE_BYTES: usize = 32 << 20;

/// A file whose descriptor stays open from scrape to scrape. The kernel makes its files' content anew when they
/// are read from offset 0, so that one `pread` takes the place of open, read and close.
#[derive(Debug)]
pub(in crate::source) struct PolledFile {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl PolledFile {
    /// A file that is opened when it is first read.
    pub(in crate::source) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None, buffer: Vec::new() }
    }

    /// The file's content now.
    pub(in crate::source) fn read(&mut self) -> Result<Content<'_>, CollectError> {
        match self.read_io() {
            Ok(length) => Ok(self.content(length)),
            Err(source) => Err(CollectError::Read { path: self.path.clone(), source }),
        }
    }

    /// The file's content now; none if there is no such file.
    pub(in crate::source) fn read_if_there(&mut self) -> Result<Option<Content<'_>>, CollectError> {
        match self.read_io() {
            Ok(length) => Ok(Some(self.content(length))),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CollectError::Read { path: self.path.clone(), source }),
        }
    }

    fn content(&self, length: usize) -> Content<'_> {
        Content { path: &self.path, bytes: &self.buffer[..length] }
    }

    fn read_io(&mut self) -> io::Result<usize> {
        if self.file.is_some() {
            match self.read_open() {
                Ok(length) => return Ok(length),
                // What the descriptor spoke of is gone (a device, a process): the path may lead to a new one.
                Err(_) => self.file = None,
            }
        }
        self.file = Some(File::open(&self.path)?);
        self.read_open().inspect_err(|_| self.file = None)
    }

    fn read_open(&mut self) -> io::Result<usize> {
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let mut length = 0;
        loop {
            if length == self.buffer.len() {
                if length >= MAX_FILE_BYTES {
                    return Err(io::Error::other(format!("it is longer than {MAX_FILE_BYTES} bytes")));
                }
                self.buffer.resize((2 * length).max(FIRST_BUFFER_BYTES), 0);
            }
            match file.read_at(&mut self.buffer[length..], length as u64) {
                Ok(0) => return Ok(length),
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What was read of a file.
#[derive(Debug, Clone, Copy)]
pub(in crate::source) struct Content<'a> {
    path: &'a Path,
    /// The bytes.
    pub(in crate::source) bytes: &'a [u8],
}

impl Content<'_> {
    /// The error that says what is wrong with a line of the file.
    pub(in crate::source) fn bad(&self, what: &'static str, line: &[u8]) -> CollectError {
        CollectError::Parse { path: self.path.to_owned(), what, line: quoted(line) }
    }
}

/// A file that several collectors read: once a scrape, whoever comes first.
#[derive(Debug)]
pub(in crate::source) struct SharedFile(Mutex<SharedState>);

#[derive(Debug)]
struct SharedState {
    file: PolledFile,
    scrape: Option<u64>,
    length: usize,
}

/// A shared file, locked while its content is looked at.
#[derive(Debug)]
pub(in crate::source) struct SharedContent<'a>(MutexGuard<'a, SharedState>);

impl SharedContent<'_> {
    /// The content.
    pub(in crate::source) fn content(&self) -> Content<'_> {
        self.0.file.content(self.0.length)
    }
}

impl SharedFile {
    /// A file that is opened when it is first read.
    pub(in crate::source) fn new(path: impl Into<PathBuf>) -> Self {
        Self(Mutex::new(SharedState { file: PolledFile::new(path), scrape: None, length: 0 }))
    }

    /// The file's content at this scrape.
    pub(in crate::source) fn read(&self, scrape: u64) -> Result<SharedContent<'_>, CollectError> {
        let mut state = self.0.lock();
        if state.scrape != Some(scrape) {
            state.scrape = None;
            state.length = state.file.read()?.bytes.len();
            state.scrape = Some(scrape);
        }
        Ok(SharedContent(state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_descriptor_sees_new_content_and_long_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "short").unwrap();
        let mut file = PolledFile::new(&path);
        assert_eq!(file.read().unwrap().bytes, b"short");
        let long = "x".repeat(3 * FIRST_BUFFER_BYTES + 1);
        std::fs::write(&path, &long).unwrap();
        assert_eq!(file.read().unwrap().bytes, long.as_bytes());
        std::fs::write(&path, "s").unwrap();
        assert_eq!(file.read().unwrap().bytes, b"s");
    }

    #[test]
    fn a_shared_file_is_read_once_a_scrape() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "one").unwrap();
        let file = SharedFile::new(&path);
        assert_eq!(file.read(1).unwrap().content().bytes, b"one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(file.read(1).unwrap().content().bytes, b"one");
        assert_eq!(file.read(2).unwrap().content().bytes, b"two");
    }
}
