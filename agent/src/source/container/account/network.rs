//! Network interfaces of a container's own namespace, from `/proc/PID/net/dev` of one of its processes.

use super::Subject;
use crate::source::container::cgroup::Reader;
use crate::source::reading::emit::Emitter;
use crate::source::reading::text::{fields, lines, uint};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, readlinkat};
use std::collections::HashMap;
use std::path::Path;

/// Interfaces that are not reported, by how their names begin: loops, and the host's ends of containers' pairs.
const IGNORED: [&[u8]; 4] = [b"lo", b"veth", b"docker", b"nerdctl"];

/// What a container has to do with its network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Share {
    /// The first container in it reports it; in the host's, each does, as in cAdvisor.
    First,
    /// The first container of a pod whose sandbox is not known; nobody for a pod in the host's.
    FirstOfPod,
    /// The pod's sandbox reports it, in the place of whoever does so far.
    Sandbox,
    /// Its pod's sandbox reports it.
    Others,
}

/// Which cgroup reports a network namespace. Where containers share one (those of a pod, or with
/// `--network container:…`) its counters are reported once.
#[derive(Debug, Default)]
pub(in super::super) struct Namespaces {
    host: Option<Box<[u8]>>,
    reporters: HashMap<Box<[u8]>, Box<str>>,
}

impl Namespaces {
    /// Finds out which is the host's.
    pub(in super::super) fn note_host(&mut self, procfs: &Path) {
        if self.host.is_none() {
            self.host = link(procfs, 1);
        }
    }

    /// Whether the cgroup at `path`, which the process `pid` is in, reports its namespace. Where the kernel does not
    /// tell namespaces apart for want of permission, each reports its own.
    pub(in super::super) fn is_reporter(
        &mut self,
        procfs: &Path,
        path: &str,
        pid: u32,
        share: Share,
    ) -> bool {
        let Some(namespace) = link(procfs, pid) else { return true };
        if self.host.as_ref() == Some(&namespace) {
            return share != Share::FirstOfPod;
        }
        match self.reporters.get(&namespace) {
            Some(reporter) if share != Share::Sandbox => **reporter == *path,
            _ => {
                self.reporters.insert(namespace, path.into());
                true
            }
        }
    }

    /// Forgets a cgroup that is gone.
    pub(in super::super) fn forget(&mut self, path: &str) {
        self.reporters.retain(|_, reporter| **reporter != *path);
    }
}

fn link(procfs: &Path, pid: u32) -> Option<Box<[u8]>> {
    let path = procfs.join(format!("{pid}/ns/net"));
    Some(readlinkat(CWD, path, Vec::new()).ok()?.into_bytes().into())
}

/// Emits the group for the namespace of a process. Whether the process is there.
pub(in super::super) fn emit(
    subject: &mut Subject<'_>,
    procfs: &OwnedFd,
    pid: u32,
    out: &mut Emitter<'_>,
) -> bool {
    let metrics = subject.metrics;
    let Ok(table) = read(subject.reader, procfs, pid, "net/dev") else { return false };
    // Two lines of headings come first.
    for line in lines(table).skip(2) {
        let Some(colon) = line.iter().rposition(|b| *b == b':') else { continue };
        let name = line[..colon].trim_ascii();
        if IGNORED
            .iter()
            .any(|prefix| name.get(..prefix.len()).is_some_and(|it| it.eq_ignore_ascii_case(prefix)))
        {
            continue;
        }
        let mut columns = [0; 16];
        let mut count = 0;
        for (column, value) in columns.iter_mut().zip(fields(&line[colon + 1..]).map_while(uint)) {
            *column = value;
            count += 1;
        }
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if count < columns.len() {
            continue;
        }
        for (metric, column) in [
            (&metrics.received_bytes, 0),
            (&metrics.received_packets, 1),
            (&metrics.received_dropped, 3),
            (&metrics.received_errors, 2),
            (&metrics.sent_bytes, 8),
            (&metrics.sent_packets, 9),
            (&metrics.sent_dropped, 11),
            (&metrics.sent_errors, 10),
        ] {
            out.emit(metric, &[name], columns[column] as f64);
        }
    }
    true
}

/// The content of `PID/name` in procfs.
pub(super) fn read<'a>(
    reader: &'a mut Reader,
    procfs: &OwnedFd,
    pid: u32,
    name: &str,
) -> Result<&'a [u8], rustix::io::Errno> {
    let mut path = PathBuffer::new();
    path.number(pid);
    path.text(name);
    reader.read(procfs, path.as_str())
}

/// A short path, put together without allocating.
pub(super) struct PathBuffer {
    bytes: [u8; 48],
    length: usize,
}

impl PathBuffer {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { bytes: [0; 48], length: 0 }
    }

    /// Appends a number and a slash.
    pub(super) fn number(&mut self, number: u32) {
        let digits = number.checked_ilog10().map_or(1, |log| log as usize + 1);
        let mut rest = number;
        for at in (self.length..self.length + digits).rev() {
            self.bytes[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.length += digits;
        self.text("/");
    }

    /// Appends a text.
    pub(super) fn text(&mut self, text: &str) {
        self.bytes[self.length..self.length + text.len()].copy_from_slice(text.as_bytes());
        self.length += text.len();
    }

    /// The path.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_put_together() {
        let mut path = PathBuffer::new();
        path.number(0);
        path.number(u32::MAX);
        path.text("net/dev");
        assert_eq!(path.as_str(), "0/4294967295/net/dev");
    }
}
