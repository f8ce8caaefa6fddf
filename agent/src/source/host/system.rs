//! What the host says through calls rather than files; tests put their own in its place.

use super::adjtimex::{self, ClockState};
use super::netlink::{Netlink, NetlinkProtocol, NetlinkSocket};
use rustix::io::Errno;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A filesystem's size, as `statfs(2)` has it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FsUsage {
    /// All space, in bytes.
    pub size_bytes: f64,
    /// Free space, in bytes.
    pub free_bytes: f64,
    /// Free space for those who are not root, in bytes.
    pub avail_bytes: f64,
    /// All inodes.
    pub files: f64,
    /// Free inodes.
    pub files_free: f64,
}

/// What `uname(2)` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnameInfo {
    /// `Linux`.
    pub sysname: String,
    /// The host's name.
    pub nodename: String,
    /// The kernel's release.
    pub release: String,
    /// The kernel's version.
    pub version: String,
    /// The architecture.
    pub machine: String,
    /// The NIS domain.
    pub domainname: String,
}

/// The local time zone at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Its abbreviation, as `CET`.
    pub name: String,
    /// Seconds east of UTC.
    pub offset_seconds: i32,
}

/// The kernel's calls that collectors need. Any of them may block: they run on a lane.
pub trait System: Send + Sync + 'static {
    /// How full the filesystem at `path` is; `Err` is the error number.
    fn statfs(&self, path: &Path) -> Result<FsUsage, i32>;
    /// Kernel and host name.
    fn uname(&self) -> UnameInfo;
    /// The wall clock, since the Unix epoch.
    fn now(&self) -> Duration;
    /// The local time zone at an instant, in seconds since the Unix epoch.
    fn zone(&self, unix_seconds: i64) -> Zone;
    /// How the kernel disciplines its clock; `Err` is the error number.
    fn clock_state(&self) -> Result<ClockState, i32>;
    /// Opens a netlink socket.
    fn netlink(&self, protocol: NetlinkProtocol) -> io::Result<Box<dyn Netlink>>;
}

/// The real one.
#[derive(Debug)]
pub struct KernelSystem {
    zone: Option<tz::TimeZone>,
}

impl KernelSystem {
    /// Reads the local time zone (`TZ`, `/etc/localtime`) once.
    pub fn new() -> Self {
        // As tzset(3): without `TZ` the system's zone, with an empty or unknown one UTC.
        let zone = match std::env::var("TZ") {
            Err(_) => tz::TimeZone::local(),
            Ok(name) => tz::TimeZone::from_posix_tz(name.strip_prefix(':').unwrap_or(&name)),
        };
        Self { zone: zone.ok() }
    }
}

impl Default for KernelSystem {
    fn default() -> Self {
        Self::new()
    }
}

impl System for KernelSystem {
    fn statfs(&self, path: &Path) -> Result<FsUsage, i32> {
        let found = rustix::fs::statfs(path).map_err(Errno::raw_os_error)?;
        let block = found.f_bsize as f64;
        Ok(FsUsage {
            size_bytes: found.f_blocks as f64 * block,
            free_bytes: found.f_bfree as f64 * block,
            avail_bytes: found.f_bavail as f64 * block,
            files: found.f_files as f64,
            files_free: found.f_ffree as f64,
        })
    }

    fn uname(&self) -> UnameInfo {
        let found = rustix::system::uname();
        let text = |field: &std::ffi::CStr| field.to_string_lossy().into_owned();
        UnameInfo {
            sysname: text(found.sysname()),
            nodename: text(found.nodename()),
            release: text(found.release()),
            version: text(found.version()),
            machine: text(found.machine()),
            domainname: text(found.domainname()),
        }
    }

    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn zone(&self, unix_seconds: i64) -> Zone {
        let found = self.zone.as_ref().and_then(|zone| zone.find_local_time_type(unix_seconds).ok());
        let utc = Zone { name: "UTC".into(), offset_seconds: 0 };
        found.map_or(utc, |zone| Zone {
            name: match zone.time_zone_designation() {
                "" => "UTC".into(),
                name => name.into(),
            },
            offset_seconds: zone.ut_offset(),
        })
    }

    fn clock_state(&self) -> Result<ClockState, i32> {
        adjtimex::read()
    }

    fn netlink(&self, protocol: NetlinkProtocol) -> io::Result<Box<dyn Netlink>> {
        Ok(Box::new(NetlinkSocket::open(protocol)?))
    }
}
