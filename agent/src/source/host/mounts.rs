//! The mount table, from `/proc/PID/mountinfo` (Documentation/filesystems/proc.rst, 3.5).

use super::CollectError;
use super::file::Content;
use super::text::{label, lines, uint};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// What is mounted, as a label.
    pub(super) device: Box<str>,
    /// Where, as the host sees it, as a label: blanks and tabs are themselves, other escapes stay.
    pub(super) shown_at: Box<str>,
    /// The filesystem's type.
    pub(super) fs_type: Box<str>,
    /// The device's major number.
    pub(super) major: Box<str>,
    /// Its minor number.
    pub(super) minor: Box<str>,
    /// Whether the mount or the filesystem is read-only.
    pub(super) read_only: bool,
    /// Where to ask for it.
    pub(super) path: PathBuf,
}

impl Mount {
    /// Major and minor number of the device.
    pub(super) fn device_numbers(&self) -> (Box<str>, Box<str>) {
        (self.major.clone(), self.minor.clone())
    }
}

/// Reads a mount table. Mount points lose the prefix `rootfs`.
pub(super) fn parse(text: Content<'_>, rootfs: &Path) -> Result<Vec<Mount>, CollectError> {
    lines(text.bytes).map(|line| mount(line, rootfs).map_err(|what| text.bad(what, line))).collect()
}

fn mount(line: &[u8], rootfs: &Path) -> Result<Mount, &'static str> {
    // Six fields, optional ones, a hyphen, three more. The optional ones hold no lone hyphen.
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let [_, _, device_number, _, mount_point, options, .., separator, fs_type, source, super_options] =
        fields[..]
    else {
        return Err("at least ten fields are expected");
    };
    if separator != b"-" {
        return Err("the separator `-` is not where it is expected");
    }
    let colon = device_number.iter().position(|b| *b == b':');
    let numbers = colon.map(|at| (&device_number[..at], &device_number[at + 1..]));
    let (major, minor) = numbers
        .filter(|(major, minor)| uint(major).is_some() && uint(minor).is_some())
        .ok_or("the device's number is not MAJOR:MINOR")?;
    let shown = label(&unescaped(mount_point, b"\x20\x09"));
    let prefix = rootfs.to_string_lossy();
    let stripped = match shown.strip_prefix(prefix.as_ref()) {
        _ if prefix == "/" => &shown,
        Some("") => "/",
        Some(rest) => rest,
        None => &shown,
    };
    let inside = unescaped(mount_point, b"\x20\x09\x0a\x5c");
    let path = PathBuf::from(OsString::from_vec(inside));
    let path =
        if path.starts_with(rootfs) { path } else { rootfs.join(path.strip_prefix("/").unwrap_or(&path)) };
    let has = |options: &[u8], wanted: &[u8]| options.split(|b| *b == b',').any(|option| option == wanted);
    Ok(Mount {
        device: label(source),
        shown_at: stripped.into(),
        fs_type: label(fs_type),
        major: label(major),
        minor: label(minor),
        read_only: has(options, b"ro") || has(super_options, b"ro") || has(super_options, b"emergency_ro"),
        path,
    })
}

/// Replaces the octal escapes of these bytes by the bytes.
fn unescaped(text: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten().and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok().filter(|byte| bytes.contains(byte))
        });
        out.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str, rootfs: &str) -> Result<Mount, &'static str> {
        mount(line.as_bytes(), Path::new(rootfs))
    }

    #[test]
    fn names_are_shown_as_node_exporter_shows_them_and_asked_for_as_they_are() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402\011x\134y rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let found = one(line, "/").unwrap();
        assert_eq!(&*found.shown_at, "/mnt 2\tx\\134y");
        assert_eq!(found.path, Path::new("/mnt 2\tx\\y"));
        assert!(!found.read_only);
        assert_eq!((&*found.major, &*found.minor, &*found.device), ("98", "0", "/dev/root"));
    }

    #[test]
    fn the_prefix_of_a_mounted_host_goes() {
        let line = |at: &str| format!("1 1 8:1 / {at} rw - ext4 /dev/sda1 rw,emergency_ro");
        let seen_outside = one(&line("/home"), "/host").unwrap();
        assert_eq!((&*seen_outside.shown_at, &*seen_outside.path), ("/home", Path::new("/host/home")));
        let seen_inside = one(&line("/host/home"), "/host").unwrap();
        assert_eq!((&*seen_inside.shown_at, &*seen_inside.path), ("/home", Path::new("/host/home")));
        assert_eq!(&*one(&line("/host"), "/host").unwrap().shown_at, "/");
        assert!(seen_inside.read_only);
    }

    #[test]
    fn lines_that_are_none_are_refused() {
        assert!(one("", "/").is_err());
        assert!(one("1 1 8:1 / /x rw ext4 /dev/sda1 rw - -", "/").is_err());
        assert!(one("1 1 8 / /x rw - ext4 /dev/sda1 rw", "/").is_err());
    }
}
