//! Reading a file in pages, each checked against what the file really has.
//!
//! A journal file is written through a mapping and may be truncated while it is read; a mapping of ours would end the
//! process then. Reads give an error instead. A page that was read stays what it is until [`Pages::forget`]: whoever
//! looks at a newer header forgets first, for the objects that the header speaks of are in newer pages.

use std::fs::File;
use std::io;

/// The size of a page, in bytes: an entry's fields lie in few of them.
const PAGE_BYTES: usize = 16 << 10;
/// How many pages are kept: 512 KiB for a file that is being read, nothing for one that waits.
const PAGES: usize = 32;

/// Where bytes come from.
pub trait ReadAt: Send {
    /// Reads at an offset; less than asked for at the end only.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < into.len() {
            match std::os::unix::fs::FileExt::read_at(self, &mut into[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let read = rest.len().min(into.len());
        into[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }
}

/// A file with its pages.
pub struct Pages<R> {
    source: R,
    pages: Vec<Page>,
}

#[derive(Default)]
struct Page {
    /// One more than the page's number; 0 for none.
    number: u64,
    bytes: Vec<u8>,
}

/// The file has less bytes than it says.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// It ends before that.
    #[error("the file ends before byte {0}")]
    Short(u64),
    /// The kernel can't read it.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl<R: ReadAt> Pages<R> {
    /// Over a source.
    pub fn new(source: R) -> Self {
        Self { source, pages: Vec::new() }
    }

    /// The source.
    pub fn source(&self) -> &R {
        &self.source
    }

    /// Forgets what was read: the file may have changed.
    pub fn forget(&mut self) {
        for page in &mut self.pages {
            page.number = 0;
        }
    }

    /// Gives the memory back.
    pub fn release(&mut self) {
        self.pages = Vec::new();
    }

    /// Fills `into` from an offset on.
    pub fn read(&mut self, mut offset: u64, mut into: &mut [u8]) -> Result<(), PageError> {
        while !into.is_empty() {
            let within = (offset % PAGE_BYTES as u64) as usize;
            let page = self.page(offset / PAGE_BYTES as u64)?;
            let there = page.get(within..).filter(|rest| !rest.is_empty());
            let there = there.ok_or(PageError::Short(offset))?;
            let taken = there.len().min(into.len());
            into[..taken].copy_from_slice(&there[..taken]);
            into = &mut into[taken..];
            offset += taken as u64;
        }
        Ok(())
    }

    /// Appends `length` bytes from an offset on. The length was checked against a limit by the caller; what is
    /// reserved follows what is there.
    pub fn append(&mut self, mut offset: u64, length: usize, into: &mut Vec<u8>) -> Result<(), PageError> {
        let mut rest = length;
        while rest > 0 {
            let within = (offset % PAGE_BYTES as u64) as usize;
            let page = self.page(offset / PAGE_BYTES as u64)?;
            let there = page.get(within..).filter(|rest| !rest.is_empty());
            let there = there.ok_or(PageError::Short(offset))?;
            let taken = there.len().min(rest);
            into.extend_from_slice(&there[..taken]);
            rest -= taken;
            offset += taken as u64;
        }
        Ok(())
    }

    fn page(&mut self, number: u64) -> Result<&[u8], PageError> {
        if self.pages.is_empty() {
            self.pages.resize_with(PAGES, Page::default);
        }
        let page = &mut self.pages[(number % PAGES as u64) as usize];
        if page.number != number + 1 {
            page.number = 0;
            page.bytes.resize(PAGE_BYTES, 0);
            let read = self.source.read_at(&mut page.bytes, number * PAGE_BYTES as u64)?;
            page.bytes.truncate(read);
            page.number = number + 1;
        }
        Ok(&page.bytes)
    }
}
