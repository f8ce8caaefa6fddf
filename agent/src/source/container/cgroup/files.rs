//! The files of a cgroup, read relative to its open directories.
//!
//! A file costs three calls (open, read, close). Keeping them open would save two of them, but a thousand cgroups
//! have twenty thousand files, and most systems allow a process 1,024. The kernel gives a cgroup's file in one read
//! if the buffer has room for it, so that a read that leaves room is the last.

use super::layout::{Controller, Layout, MAX_TREES};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use std::ffi::CStr;

/// The room for a file at first, in bytes: `memory.stat` of Linux 6 has some 2 KB, `cpuacct.usage_percpu` 20 bytes a
/// processor.
const FIRST_BUFFER_BYTES: usize = 16 << 10;

/// The longest file that is read, in bytes: `cgroup.procs` of a cgroup with 100,000 processes has 700 KB.
const MAX_FILE_BYTES: usize = 4 << 20;

macro_rules! files {
    ($($kind:ident $controller:ident $name:literal;)*) => {
        /// A file that many cgroups have.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(in super::super) enum File {
            $($kind,)*
        }

        impl File {
            /// The controller in whose tree it is, and its name.
            fn place(self) -> (Controller, &'static CStr) {
                match self {
                    $(Self::$kind => (Controller::$controller, $name),)*
                }
            }
        }
    };
}

files! {
    CpuStat Cpu c"cpu.stat";
    CpuShares Cpu c"cpu.shares";
    CpuPeriod Cpu c"cpu.cfs_period_us";
    CpuQuota Cpu c"cpu.cfs_quota_us";
    CpuWeight Cpu c"cpu.weight";
    CpuMax Cpu c"cpu.max";
    AcctUsage CpuAcct c"cpuacct.usage";
    AcctPerCpu CpuAcct c"cpuacct.usage_percpu";
    AcctStat CpuAcct c"cpuacct.stat";
    MemoryStat Memory c"memory.stat";
    MemoryUsage Memory c"memory.usage_in_bytes";
    MemoryMaxUsage Memory c"memory.max_usage_in_bytes";
    MemoryFailcnt Memory c"memory.failcnt";
    MemoryKernel Memory c"memory.kmem.usage_in_bytes";
    MemoryOomControl Memory c"memory.oom_control";
    MemoryLimit Memory c"memory.limit_in_bytes";
    MemorySwapLimit Memory c"memory.memsw.limit_in_bytes";
    MemorySoftLimit Memory c"memory.soft_limit_in_bytes";
    MemoryUseHierarchy Memory c"memory.use_hierarchy";
    MemoryCurrent Memory c"memory.current";
    MemoryPeak Memory c"memory.peak";
    MemorySwapCurrent Memory c"memory.swap.current";
    MemoryEvents Memory c"memory.events";
    MemoryEventsLocal Memory c"memory.events.local";
    MemoryMax Memory c"memory.max";
    MemoryMin Memory c"memory.min";
    MemorySwapMax Memory c"memory.swap.max";
    IoStat Io c"io.stat";
    BfqBytes Io c"blkio.bfq.io_service_bytes_recursive";
    BfqServiced Io c"blkio.bfq.io_serviced_recursive";
    CfqBytes Io c"blkio.io_service_bytes_recursive";
    CfqServiced Io c"blkio.io_serviced_recursive";
    CfqServiceTime Io c"blkio.io_service_time_recursive";
    CfqMerged Io c"blkio.io_merged_recursive";
    CfqQueued Io c"blkio.io_queued_recursive";
    ThrottleBytes Io c"blkio.throttle.io_service_bytes_recursive";
    ThrottleServiced Io c"blkio.throttle.io_serviced_recursive";
    ThrottleOwnBytes Io c"blkio.throttle.io_service_bytes";
    ThrottleOwnServiced Io c"blkio.throttle.io_serviced";
    PidsCurrent Pids c"pids.current";
    PidsMax Pids c"pids.max";
    CpuPressure Core c"cpu.pressure";
    MemoryPressure Core c"memory.pressure";
    IoPressure Core c"io.pressure";
}

/// Which files a cgroup was seen to have, so that what this kernel lacks is not asked for at every pass.
#[derive(Debug, Clone, Copy, Default)]
pub(in super::super) struct Seen {
    present: u64,
    absent: u64,
}

impl Seen {
    /// Has files that were not there be looked for again.
    pub(in super::super) fn look_again(&mut self) {
        self.absent = 0;
    }
}

/// A cgroup's open directories, one a tree that it is in.
#[derive(Debug, Default)]
pub(in super::super) struct Dirs(pub(super) [Option<OwnedFd>; MAX_TREES]);

impl Dirs {
    /// Whether the cgroup is in no tree.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// The directory in a controller's tree.
    pub(in super::super) fn of(&self, layout: &Layout, controller: Controller) -> Option<&OwnedFd> {
        self.0[layout.tree_of(controller)?].as_ref()
    }

    /// The directories.
    pub(in super::super) fn all(&self) -> impl Iterator<Item = &OwnedFd> {
        self.0.iter().flatten()
    }
}

/// Reads files into one buffer.
#[derive(Debug)]
pub(in super::super) struct Reader {
    buffer: Vec<u8>,
    vanished: bool,
    failure: Option<(&'static CStr, Errno)>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { buffer: vec![0; FIRST_BUFFER_BYTES], vanished: false, failure: None }
    }
}

impl Reader {
    /// Begins with another cgroup.
    pub(in super::super) fn begin(&mut self) {
        self.vanished = false;
        self.failure = None;
    }

    /// Whether a file that was there went away: the cgroup was removed.
    pub(in super::super) fn vanished(&self) -> bool {
        self.vanished
    }

    /// The first file since [`Reader::begin`] that is there and could not be read.
    pub(in super::super) fn failure(&self) -> Option<(&'static CStr, Errno)> {
        self.failure
    }

    /// The content of a cgroup's file; none if it has none.
    pub(in super::super) fn file(
        &mut self,
        layout: &Layout,
        dirs: &Dirs,
        seen: &mut Seen,
        file: File,
    ) -> Option<&[u8]> {
        let bit = 1 << file as u64;
        if seen.absent & bit != 0 {
            return None;
        }
        let (controller, name) = file.place();
        match self.fill(dirs.of(layout, controller)?, name) {
            Ok(length) => {
                seen.present |= bit;
                Some(&self.buffer[..length])
            }
            Err(Errno::NOENT) if seen.present & bit == 0 => {
                seen.absent |= bit;
                None
            }
            Err(Errno::NOENT | Errno::NODEV) => {
                self.vanished = true;
                None
            }
            // Pressure of a kernel that was booted with psi=0; controllers of a threaded cgroup.
            Err(Errno::OPNOTSUPP) => {
                seen.absent |= bit;
                None
            }
            Err(error) => {
                self.failure.get_or_insert((name, error));
                None
            }
        }
    }

    /// The content of any file below a directory.
    pub(in super::super) fn read(
        &mut self,
        dir: impl AsFd,
        name: impl rustix::path::Arg,
    ) -> Result<&[u8], Errno> {
        let length = self.fill(dir, name)?;
        Ok(&self.buffer[..length])
    }

    fn fill(&mut self, dir: impl AsFd, name: impl rustix::path::Arg) -> Result<usize, Errno> {
        let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut length = 0;
        loop {
            let read = match rustix::io::read(&file, &mut self.buffer[length..]) {
                Err(Errno::INTR) => continue,
                read => read?,
            };
            length += read;
            if length < self.buffer.len() {
                return Ok(length);
            }
            if self.buffer.len() >= MAX_FILE_BYTES {
                return Err(Errno::FBIG);
            }
            self.buffer.resize(2 * length, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_read_whole_and_endless_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let long = vec![b'x'; 3 * FIRST_BUFFER_BYTES + 1];
        std::fs::write(dir.path().join("long"), &long).unwrap();
        let mut reader = Reader::default();
        let open = std::fs::File::open(dir.path()).unwrap();
        assert_eq!(reader.read(&open, "long").unwrap(), long);
        assert_eq!(reader.read(&open, "none"), Err(Errno::NOENT));
        let dev = std::fs::File::open("/dev").unwrap();
        assert_eq!(reader.read(&dev, "zero"), Err(Errno::FBIG));
    }

    #[test]
    fn the_table_of_files_fits_the_bits() {
        assert!((File::IoPressure as u64) < 64);
    }
}
