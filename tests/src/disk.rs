//! Disks that are small, full or read-only, and files that are damaged.

use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A tmpfs of a few MiB, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Mounts one; none, with the reason printed, where that is not allowed.
    pub fn mount(size: &str) -> Option<Self> {
        let disk = Self { dir: tempfile::tempdir().expect("a directory") };
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(disk.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(disk),
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr).into_owned();
                eprintln!("SKIPPED: cannot mount a tmpfs, which takes root: {}", words.trim());
                None
            }
            Err(error) => {
                eprintln!("SKIPPED: cannot mount a tmpfs: {error}");
                None
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Mounts it anew with other options.
    pub fn remount(&self, options: &str) {
        let done =
            Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.path()).status();
        assert!(done.expect("mount runs").success(), "remount {options}");
    }

    /// Somebody else fills it to the last byte; the file that takes all of it.
    pub fn fill(&self) -> PathBuf {
        let filler = self.path().join("filler");
        let fill =
            Command::new("dd").args(["if=/dev/zero", "bs=64k", &format!("of={}", filler.display())]).output();
        assert!(!fill.expect("dd runs").status.success(), "the disk is full");
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// The largest file below a directory: of a spool's segments, the log of a sled database.
pub fn largest_file(dir: &Path) -> Option<PathBuf> {
    let mut largest = None;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).ok()?.flatten() {
            let meta = entry.metadata().ok()?;
            if meta.is_dir() {
                dirs.push(entry.path());
            } else if largest.as_ref().is_none_or(|(size, _)| meta.len() > *size) {
                largest = Some((meta.len(), entry.path()));
            }
        }
    }
    largest.map(|(_, path)| path)
}

/// Leaves a third of a file.
pub fn truncate(file: &Path) {
    let length = std::fs::metadata(file).expect("a file").len();
    std::fs::File::options().write(true).open(file).and_then(|f| f.set_len(length / 3)).expect("a file");
}

/// Flips a bit in five places of a file.
pub fn flip(file: &Path) {
    let mut bytes = std::fs::read(file).expect("a file");
    // Everything that is not empty: what sled fills up with zeros carries nothing.
    let used = bytes.iter().rposition(|b| *b != 0).unwrap_or(0);
    for at in (0..used).step_by(used / 5 + 1) {
        bytes[at] ^= 0x10;
    }
    std::fs::write(file, bytes).expect("a file");
}

/// Removes a file.
pub fn remove(file: &Path) {
    std::fs::remove_file(file).expect("a file");
}
