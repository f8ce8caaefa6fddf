//! From a cgroup's files to its samples, one file a group of metrics.
//!
//! What a file says is reported as cAdvisor reports it; what the kernel does not say is not reported, where cAdvisor
//! has a zero.

mod cpu;
mod filesystem;
mod hugetlb;
mod io;
mod memory;
mod metrics;
mod network;
mod pressure;
mod process;
mod spec;
mod times;

use super::cgroup::{Controller, Dirs, File, Layout, Reader, Seen, Version};
use super::settings::Groups;
use crate::source::reading::emit::{Emitter, Metric};
use crate::source::reading::text::uint;

pub(super) use filesystem::Filesystems;
pub(super) use hugetlb::{emit as emit_hugetlb, page_sizes};
pub(super) use io::{Devices, emit as emit_io};
pub(super) use metrics::Metrics;
pub(super) use network::{Namespaces, Share, emit as emit_network};
pub(super) use process::{Load, emit as emit_process, emit_load, first_pid};
pub(super) use spec::Spec;
pub(super) use times::created_seconds;
pub(super) use {
    cpu::emit as emit_cpu, memory::emit as emit_memory, pressure::emit as emit_pressure,
    spec::emit as emit_spec,
};

/// Microseconds a second.
const MICROS: f64 = 1e6;

/// Nanoseconds a second.
const NANOS: f64 = 1e9;

/// A cgroup that is being read, and what is needed for it.
pub(super) struct Subject<'a> {
    /// Where the trees are.
    pub(super) layout: &'a Layout,
    /// Its directories.
    pub(super) dirs: &'a Dirs,
    /// Which files it has.
    pub(super) seen: &'a mut Seen,
    /// Reads them.
    pub(super) reader: &'a mut Reader,
    /// The metrics.
    pub(super) metrics: &'a Metrics,
    /// Which are wanted.
    pub(super) groups: Groups,
}

impl Subject<'_> {
    /// The content of a file; none if there is none.
    fn file(&mut self, file: File) -> Option<&[u8]> {
        self.reader.file(self.layout, self.dirs, self.seen, file)
    }

    /// The number that a file holds; none for `max` and `-1`, and if there is none.
    fn number(&mut self, file: File) -> Option<u64> {
        uint(self.file(file)?.trim_ascii())
    }

    /// Of which version a controller's tree is; none if the cgroup is not in it.
    fn version(&self, controller: Controller) -> Option<Version> {
        self.dirs.of(self.layout, controller)?;
        self.layout.version_of(controller)
    }

    /// The cgroup's `cgroup.procs`, from whatever tree has it; none if it cannot be read, as that of a threaded
    /// cgroup.
    fn procs(&mut self) -> Option<&[u8]> {
        let dir = self.dirs.all().next()?;
        self.reader.read(dir, c"cgroup.procs").ok()
    }
}

/// Emits a value that there is.
fn emit_some(out: &mut Emitter<'_>, metric: &Metric, value: Option<u64>) {
    if let Some(value) = value {
        out.emit(metric, &[], value as f64);
    }
}

/// The key and the number of a line `key number`.
fn pair(line: &[u8]) -> Option<(&[u8], u64)> {
    let at = memchr::memchr(b' ', line)?;
    Some((&line[..at], uint(line[at + 1..].trim_ascii())?))
}
