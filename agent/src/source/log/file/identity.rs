//! What tells one generation of a file from another: device, inode, when the inode was made, how the content begins,
//! and the bytes just before the place of reading.

use super::super::checkpoints::Print;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// How much of a file's beginning is compared.
pub(super) const PRINT_BYTES: usize = 1 << 10;
/// How much of what was read last is compared: enough for a line's timestamp.
pub(super) const TAIL_BYTES: usize = 64;

/// What the file system says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// 0 where the file system does not say.
    pub(super) born_ns: i64,
    pub(super) bytes: u64,
    pub(super) links: u32,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Other,
}

impl Stat {
    /// Of what a path leads to, links followed.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Self::at(CWD, path, AtFlags::empty())
    }

    pub(super) fn of_open(file: &File) -> io::Result<Self> {
        Self::at(file, Path::new(""), AtFlags::EMPTY_PATH)
    }

    fn at(dir: impl std::os::fd::AsFd, path: &Path, flags: AtFlags) -> io::Result<Self> {
        let found = statx(dir, path, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
        let born = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
        let born_ns = found
            .stx_btime
            .tv_sec
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(found.stx_btime.tv_nsec));
        Ok(Self {
            device: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            born_ns: if born { born_ns } else { 0 },
            bytes: found.stx_size,
            links: found.stx_nlink,
            kind: match rustix::fs::FileType::from_raw_mode(found.stx_mode.into()) {
                rustix::fs::FileType::RegularFile => Kind::File,
                rustix::fs::FileType::Directory => Kind::Directory,
                _ => Kind::Other,
            },
        })
    }

    /// Whether it is this inode, and not another one that got its number.
    pub(super) fn is(&self, device: u64, inode: u64, born_ns: i64) -> bool {
        let born = self.born_ns == born_ns || self.born_ns == 0 || born_ns == 0;
        (self.device, self.inode) == (device, inode) && born
    }
}

/// The print of some bytes.
pub(super) fn print_of(bytes: &[u8]) -> Print {
    let bytes = &bytes[..bytes.len().min(PRINT_BYTES)];
    Print { bytes: bytes.len() as u32, hash: xxh3_64(bytes) }
}

/// The beginning of a file, as much of it as a print has.
pub(super) fn beginning(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PRINT_BYTES];
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// Whether content that begins so can be what a print was taken of.
pub(super) fn begins_as(beginning: &[u8], print: Print) -> bool {
    let begins = beginning.get(..print.bytes as usize);
    print.bytes == 0 || begins.is_some_and(|bytes| xxh3_64(bytes) == print.hash)
}

/// The bytes just before a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tail {
    pub(super) bytes: u8,
    hash: u64,
}

impl Tail {
    /// Of the last of these.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let last = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        Self { bytes: last.len() as u8, hash: xxh3_64(last) }
    }

    /// Whether these bytes, of which there are as many as the tail has, are the tail.
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() == usize::from(self.bytes) && (self.bytes == 0 || xxh3_64(bytes) == self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_descriptor_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "x").unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(Stat::of(&path).unwrap(), Stat::of_open(&file).unwrap());
    }

    #[test]
    fn a_beginning_that_grows_is_the_same_and_another_one_is_not() {
        let print = print_of(b"abc");
        assert!(begins_as(b"abcd", print) && begins_as(b"abc", print) && begins_as(b"x", Print::default()));
        assert!(!begins_as(b"ab", print) && !begins_as(b"abd", print));
    }
}
