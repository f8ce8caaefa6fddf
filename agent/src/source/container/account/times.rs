//! When a cgroup was made.

use super::Subject;
use rustix::fs::{AtFlags, Stat, fstat, statat};

/// When the cgroup was made, in seconds since the Unix epoch, by the times of its directories; none if they say
/// nothing. A directory's time changes as cgroups come and go in it, that of a file which nobody writes does not.
/// Either is the time at which the kernel first needed to know, so that none is before `boot_seconds`.
pub(in super::super) fn created_seconds(subject: &Subject<'_>, boot_seconds: i64) -> Option<i64> {
    let modified = |stat: Stat| stat.st_mtime;
    let of = |name| {
        subject.dirs.all().filter_map(move |dir| statat(dir, name, AtFlags::empty()).ok()).map(modified)
    };
    let directories = subject.dirs.all().filter_map(|dir| fstat(dir).ok()).map(modified);
    let files = of(c"cgroup.events").chain(of(c"cgroup.clone_children"));
    directories.chain(files).min().map(|seconds| seconds.max(boot_seconds))
}
