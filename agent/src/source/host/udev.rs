//! What udev knows of a block device, from its database (`/run/udev/data/bMAJOR:MINOR`, systemd's
//! `src/libsystemd/sd-device`): lines `E:NAME=value`.

use super::text::{label, lines};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A device's entry, read again whenever udev has written it anew.
pub(super) struct UdevEntry {
    path: PathBuf,
    /// Inode, seconds and nanoseconds of the last change: udev writes by renaming.
    version: Option<(u64, i64, i64)>,
    properties: BTreeMap<Box<str>, Box<str>>,
}

impl UdevEntry {
    /// The entry of a block device; nothing is read yet.
    pub(super) fn new(data: &Path, major: &str, minor: &str) -> Self {
        Self { path: data.join(format!("b{major}:{minor}")), version: None, properties: BTreeMap::new() }
    }

    /// Reads the entry if it changed; says whether it did.
    pub(super) fn refresh(&mut self) -> bool {
        let found = fs::metadata(&self.path).ok();
        let version = found.map(|found| (found.ino(), found.mtime(), found.mtime_nsec()));
        if version == self.version {
            return false;
        }
        self.version = version;
        let text = version.and_then(|_| fs::read(&self.path).ok()).unwrap_or_default();
        let property = |line: &[u8]| {
            let line = label(line.strip_prefix(b"E:")?);
            line.split_once('=').map(|(name, value)| (name.into(), value.into()))
        };
        self.properties = lines(&text).filter_map(property).collect();
        true
    }

    /// A property; empty if udev does not know it.
    pub(super) fn property(&self, name: &str) -> &str {
        self.properties.get(name).map_or("", |value| value)
    }

    /// The first of these properties that is not empty.
    pub(super) fn first_of(&self, names: &[&str]) -> &str {
        names.iter().map(|name| self.property(name)).find(|value| !value.is_empty()).unwrap_or_default()
    }
}
