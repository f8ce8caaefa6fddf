//! Attributes of sysfs (Documentation/filesystems/sysfs.rst): small files with one value each, in a directory a
//! device.
//!
//! What is relied on: the kernel makes an attribute's content anew when it is read from offset 0, and never more
//! than a page of it; a descriptor of a device that is gone answers `ENODEV`, whatever has taken its path since;
//! the inode of a directory's entry is another for another device of the same name (kernfs numbers are not used
//! twice). Not relied on: times of modification, which sysfs does not keep.

use super::CollectError;
use super::text::{label, quoted, uint};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirEntryExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// An attribute is at most a page.
pub(super) type Page = [u8; 4096];

/// How much node_exporter reads of most attributes: what is longer is cut, and label values must not differ.
pub(super) type Short = [u8; 128];

/// Attributes whose descriptors stay open, over all collectors. A process has 1,024 descriptors where nobody raised
/// the limit; the other half is for spool, uplink and scrapes. A machine with hundreds of interfaces pays with
/// opening and closing for those beyond.
const MAX_KEPT: usize = 512;

/// How many are open: the limit is the process', so is the count.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// A descriptor that is counted as kept.
#[derive(Debug)]
struct Kept(File);

impl Kept {
    /// Keeps the file if there is room.
    fn new(file: File) -> Option<Self> {
        let room = |kept: usize| (kept < MAX_KEPT).then_some(kept + 1);
        KEPT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok().map(|_| Self(file))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An attribute that is read at every scrape.
#[derive(Debug)]
pub(super) struct Attribute {
    path: Box<Path>,
    file: Option<Kept>,
}

impl Attribute {
    /// An attribute that is opened when it is first read.
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into().into(), file: None }
    }

    /// The value, without blanks around it, as far as it fits the buffer.
    pub(super) fn read<'a>(&mut self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = self.length(buffer)?;
        Ok(buffer[..length].trim_ascii())
    }

    /// The value as it is, as far as it fits the buffer.
    pub(super) fn read_raw<'a>(&mut self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = self.length(buffer)?;
        Ok(&buffer[..length])
    }

    /// The value, none if reading fails in a way that `harmless` knows.
    pub(super) fn read_unless<'a>(
        &mut self,
        buffer: &'a mut [u8],
        harmless: impl FnOnce(&io::Error) -> bool,
    ) -> Result<Option<&'a [u8]>, CollectError> {
        match self.read(buffer) {
            Ok(value) => Ok(Some(value)),
            Err(error) if harmless(&error) => Ok(None),
            Err(error) => Err(self.unreadable(error)),
        }
    }

    /// The value of an attribute that has to be there.
    pub(super) fn required<'a>(&mut self, buffer: &'a mut [u8]) -> Result<&'a [u8], CollectError> {
        self.read(buffer).map_err(|error| self.unreadable(error))
    }

    /// A decimal number without a sign that has to be there.
    pub(super) fn number(&mut self, buffer: &mut [u8]) -> Result<u64, CollectError> {
        let value = self.required(buffer)?;
        uint(value).ok_or_else(|| self.bad("a number is expected", value))
    }

    /// The error that says that the attribute cannot be read.
    pub(super) fn unreadable(&self, source: io::Error) -> CollectError {
        CollectError::Read { path: self.path.to_path_buf(), source }
    }

    /// The error that says what is wrong with the value.
    pub(super) fn bad(&self, what: &'static str, value: &[u8]) -> CollectError {
        CollectError::Parse { path: self.path.to_path_buf(), what, line: quoted(value) }
    }

    /// The error that says that the value is not what was expected, and that what else was emitted stands.
    pub(super) fn odd(&self, expected: &'static str, value: &[u8]) -> CollectError {
        let words = format!("{expected} is expected, not `{}`", quoted(value));
        self.unreadable(io::Error::new(ErrorKind::InvalidData, words))
    }

    fn length(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(Kept(file)) = &self.file {
            match read_at_start(file, buffer) {
                // What the descriptor spoke of is gone: the path may lead to a new one.
                Err(error) if is_gone(&error) => self.file = None,
                answer => return answer,
            }
        }
        let file = File::open(&self.path)?;
        let length = read_at_start(&file, buffer);
        self.file = Kept::new(file);
        length
    }
}

fn read_at_start(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, 0) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

/// Whether the device went away (`ENODEV`, or `ENXIO` from drivers).
pub(super) fn is_gone(error: &io::Error) -> bool {
    const ENXIO: i32 = 6;
    const ENODEV: i32 = 19;
    matches!(error.raw_os_error(), Some(ENXIO | ENODEV))
}

/// Whether the device has no such attribute or the driver no answer: not there, not allowed, `EINVAL`,
/// `EOPNOTSUPP`.
pub(super) fn is_without_answer(error: &io::Error) -> bool {
    const EOPNOTSUPP: i32 = 95;
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::InvalidInput)
        || error.raw_os_error() == Some(EOPNOTSUPP)
}

/// Whether an attribute is not there or not for us.
pub(super) fn is_out_of_reach(error: &CollectError) -> bool {
    matches!(error, CollectError::Read { source, .. }
        if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied))
}

/// Whether a file or directory is not there.
pub(super) fn is_missing(error: &CollectError) -> bool {
    matches!(error, CollectError::Read { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// Makes an error that `test` knows the harmless one that there is nothing to collect.
pub(super) fn no_data_if(
    test: fn(&CollectError) -> bool,
    what: &'static str,
) -> impl FnOnce(CollectError) -> CollectError {
    move |error| if test(&error) { CollectError::NoData(what) } else { error }
}

/// A number without a sign, in the base that its prefix says: `0x`, `0o` or `0` (octal), `0b`, else decimal.
pub(super) fn uint_any_base(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let lower = text.to_ascii_lowercase();
    let prefixed = [("0x", 16), ("0b", 2), ("0o", 8), ("0", 8)];
    let (digits, base) = prefixed
        .iter()
        .find_map(|(prefix, base)| Some((lower.strip_prefix(prefix).filter(|r| !r.is_empty())?, *base)))
        .unwrap_or((&lower, 10));
    // Rust's parser would take a sign.
    if digits.starts_with(['+', '-']) { None } else { u64::from_str_radix(digits, base).ok() }
}

/// As [`uint_any_base`], with a sign.
pub(super) fn int_any_base(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let value = i128::from(uint_any_base(digits)?);
    i64::try_from(if negative { -value } else { value }).ok()
}

/// The devices of a directory, and what a collector knows of each.
#[derive(Debug)]
pub(super) struct Devices<D> {
    dir: PathBuf,
    known: Vec<Device<D>>,
}

/// A device.
#[derive(Debug)]
pub(super) struct Device<D> {
    /// The name of its directory.
    pub(super) name: Box<str>,
    /// What the collector knows.
    pub(super) is: D,
    inode: u64,
}

impl<D> Devices<D> {
    /// The devices of a directory; nothing is read yet.
    pub(super) fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), known: Vec::new() }
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Lists the directory and gives its devices, by name. `make` says what is known of a device that was not there
    /// at the last listing: none for what is not wanted, which is asked again each time.
    pub(super) fn list(
        &mut self,
        mut make: impl FnMut(&Entry<'_>) -> Option<D>,
    ) -> Result<&mut [Device<D>], CollectError> {
        let unreadable = |source| CollectError::Read { path: self.dir.clone(), source };
        let mut before = std::mem::take(&mut self.known);
        for entry in fs::read_dir(&self.dir).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let (file_name, inode) = (entry.file_name(), entry.ino());
            let same = |device: &Device<D>| {
                device.inode == inode && device.name.as_bytes() == file_name.as_encoded_bytes()
            };
            if let Some(at) = before.iter().position(same) {
                self.known.push(before.swap_remove(at));
                continue;
            }
            let name = label(file_name.as_encoded_bytes());
            if let Some(is) = make(&Entry { name: &name, entry: &entry }) {
                self.known.push(Device { name, is, inode });
            }
        }
        self.known.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(&mut self.known)
    }
}

/// A directory's entry that is looked at for the first time.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The name.
    pub(super) name: &'a str,
    entry: &'a fs::DirEntry,
}

impl Entry<'_> {
    /// The path.
    pub(super) fn path(&self) -> PathBuf {
        self.entry.path()
    }

    /// Whether it is a file itself, not a directory or a link.
    pub(super) fn is_file(&self) -> bool {
        self.entry.file_type().is_ok_and(|kind| kind.is_file())
    }

    /// Whether it is a directory itself, not a link to one.
    pub(super) fn is_dir(&self) -> bool {
        self.entry.file_type().is_ok_and(|kind| kind.is_dir())
    }

    /// The number after a prefix, as the digits that it has; none if the name does not begin so.
    pub(super) fn numbered(&self, prefix: &str) -> Option<&str> {
        self.name.strip_prefix(prefix).filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    }
}

/// The names in a directory that begin with a prefix and go on with a digit, sorted; none if it cannot be listed.
pub(super) fn numbered_names(dir: &Path, prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let wanted = |entry: io::Result<fs::DirEntry>| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let goes_on = name.strip_prefix(prefix)?.starts_with(|c: char| c.is_ascii_digit());
        goes_on.then_some(name)
    };
    let mut names: Vec<String> = entries.filter_map(wanted).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_base_of_their_prefix() {
        for (text, value) in [
            ("0x1003", 0x1003),
            ("-1", -1),
            ("010", 8),
            ("0", 0),
            ("0b11", 3),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(int_any_base(text.as_bytes()), Some(value), "{text}");
        }
        for text in ["", "-", "x", "0x", "1 2", "--1", "0x-1", "9223372036854775808"] {
            assert_eq!(int_any_base(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_attribute_sees_new_content_and_devices_that_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("size"), format!(" {name}\n")).unwrap();
        }
        let mut devices = Devices::new(dir.path());
        let mut made = 0;
        let mut names = |devices: &mut Devices<Attribute>| -> Vec<String> {
            let make = |entry: &Entry<'_>| {
                made += 1;
                Some(Attribute::new(entry.path().join("size")))
            };
            let value = |device: &mut Device<Attribute>| {
                let mut buffer = [0; 128];
                String::from_utf8(device.is.read(&mut buffer).unwrap().to_vec()).unwrap()
            };
            devices.list(make).unwrap().iter_mut().map(value).collect()
        };
        assert_eq!(names(&mut devices), ["a", "b"]);
        fs::write(dir.path().join("a/size"), "c").unwrap();
        assert_eq!(names(&mut devices), ["c", "b"]);
        fs::remove_dir_all(dir.path().join("b")).unwrap();
        assert_eq!(names(&mut devices), ["c"]);
        assert_eq!(made, 2);
        assert!(is_missing(&Devices::<()>::new(dir.path().join("none")).list(|_| None).unwrap_err()));
    }
}
