//! Processes, threads, descriptors and limits, from `cgroup.procs` and `/proc/PID`.

use super::network::{PathBuffer, read};
use super::{Subject, emit_some};
use crate::source::container::cgroup::File;
use crate::source::reading::emit::Emitter;
use crate::source::reading::text::{fields, lines, uint};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, RawDir, openat, readlinkat};

use super::Spec;

/// Cgroups that runtimes put a container's processes into, below the container's own.
const INNER: [&str; 3] = ["container", "init.scope", "supervisor"];

/// The room for the entries of `/proc/PID/fd`, in bytes.
const ENTRIES_BYTES: usize = 8 << 10;

/// The time over which load averages are taken, in seconds.
const LOAD_SECONDS: f64 = 10.0;

/// A process of the cgroup; none if it has none or they are not of this PID namespace.
pub(in super::super) fn first_pid(subject: &mut Subject<'_>) -> Option<u32> {
    let own = subject.procs().and_then(first);
    own.or_else(|| {
        let dir = subject.dirs.all().next()?;
        INNER.iter().find_map(|name| {
            let path = format!("{name}/cgroup.procs");
            first(subject.reader.read(dir, path.as_str()).ok()?)
        })
    })
}

fn first(procs: &[u8]) -> Option<u32> {
    pids(procs).find(|pid| *pid != 0)
}

fn pids(procs: &[u8]) -> impl Iterator<Item = u32> {
    lines(procs).filter_map(|line| u32::try_from(uint(line)?).ok())
}

/// Emits the group. `scratch` is kept from cgroup to cgroup. `main` is the container's first process.
pub(in super::super) fn emit(
    subject: &mut Subject<'_>,
    spec: &Spec,
    procfs: &OwnedFd,
    main: Option<u32>,
    scratch: &mut Vec<u32>,
    out: &mut Emitter<'_>,
) {
    let metrics = subject.metrics;
    scratch.clear();
    scratch.extend(subject.procs().into_iter().flat_map(pids));
    let (mut descriptors, mut sockets) = (0, 0);
    for pid in scratch.iter() {
        let (of_process, of_process_sockets) = count_descriptors(procfs, *pid);
        descriptors += of_process;
        sockets += of_process_sockets;
    }
    out.emit(&metrics.processes, &[], scratch.len() as f64);
    out.emit(&metrics.descriptors, &[], descriptors as f64);
    out.emit(&metrics.sockets, &[], sockets as f64);
    if let Some(threads) = subject.number(File::PidsCurrent) {
        out.emit(&metrics.threads_max, &[], spec.pids_max.unwrap_or(0) as f64);
        emit_some(out, &metrics.threads, Some(threads));
    }
    let Some(limits) = main.and_then(|pid| read(subject.reader, procfs, pid, "limits").ok()) else { return };
    for line in lines(limits) {
        if let Some(rest) = line.strip_prefix(b"Max open files")
            && let Some(soft) = fields(rest).next()
        {
            let soft = uint(soft).map_or(-1.0, |soft| soft as f64);
            out.emit(&metrics.ulimits, &["max_open_files"], soft);
        }
    }
}

/// How many descriptors a process has, and how many of them are sockets; none of one that may not be looked at.
fn count_descriptors(procfs: &OwnedFd, pid: u32) -> (u64, u64) {
    let mut path = PathBuffer::new();
    path.number(pid);
    path.text("fd");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = openat(procfs, path.as_str(), flags, Mode::empty()) else { return (0, 0) };
    let mut buffer = Vec::with_capacity(ENTRIES_BYTES);
    let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
    let (mut all, mut sockets, mut target) = (0, 0, Vec::new());
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name();
        if name.to_bytes().first() == Some(&b'.') {
            continue;
        }
        all += 1;
        if let Ok(link) = readlinkat(&dir, name, target) {
            sockets += u64::from(link.as_bytes().starts_with(b"socket"));
            target = link.into_bytes();
        } else {
            target = Vec::new();
        }
    }
    (all, sockets)
}

/// The load of a cgroup: how many of its tasks run or wait, over the last ten seconds.
#[derive(Debug, Default, Clone, Copy)]
pub(in super::super) struct Load {
    averages: Option<(f64, f64)>,
    at_ms: i64,
}

/// What tasks do.
#[derive(Debug, Default, Clone, Copy)]
struct Tasks {
    sleeping: u64,
    running: u64,
    stopped: u64,
    uninterruptible: u64,
}

impl Load {
    /// Takes another sample in: the older the last one, the less it counts.
    fn note(&mut self, running: f64, waiting: f64, at_ms: i64) -> (f64, f64) {
        let decay = (-((at_ms - self.at_ms).max(0) as f64) / 1_000.0 / LOAD_SECONDS).exp();
        let mixed = |before: f64, now: f64| before * decay + now * (1.0 - decay);
        let averages = match self.averages {
            Some((before, waited)) => (mixed(before, running), mixed(waited, waiting)),
            None => (running, waiting),
        };
        self.averages = Some(averages);
        self.at_ms = at_ms;
        averages
    }
}

/// Emits the states of a cgroup's tasks and their load.
pub(in super::super) fn emit_load(
    subject: &mut Subject<'_>,
    load: &mut Load,
    at_ms: i64,
    procfs: &OwnedFd,
    scratch: &mut Vec<u32>,
    out: &mut Emitter<'_>,
) {
    let metrics = subject.metrics;
    scratch.clear();
    scratch.extend(subject.procs().into_iter().flat_map(pids));
    let mut tasks = Tasks::default();
    for pid in scratch.iter() {
        count_tasks(subject, procfs, *pid, &mut tasks);
    }
    let (running, waiting) = load.note(tasks.running as f64, tasks.uninterruptible as f64, at_ms);
    out.emit(&metrics.load_running, &[], (running * 1_000.0).floor());
    out.emit(&metrics.load_waiting, &[], (waiting * 1_000.0).floor());
    for (state, count) in [
        ("sleeping", tasks.sleeping),
        ("running", tasks.running),
        ("stopped", tasks.stopped),
        ("uninterruptible", tasks.uninterruptible),
    ] {
        out.emit(&metrics.tasks, &[state], count as f64);
    }
}

fn count_tasks(subject: &mut Subject<'_>, procfs: &OwnedFd, pid: u32, tasks: &mut Tasks) {
    let mut path = PathBuffer::new();
    path.number(pid);
    path.text("task");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = openat(procfs, path.as_str(), flags, Mode::empty()) else { return };
    let mut buffer = Vec::with_capacity(ENTRIES_BYTES);
    let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
    while let Some(Ok(entry)) = entries.next() {
        let thread = uint(entry.file_name().to_bytes()).and_then(|thread| u32::try_from(thread).ok());
        let Some(Ok(stat)) = thread.map(|thread| read(subject.reader, &dir, thread, "stat")) else {
            continue;
        };
        // The name in parentheses may hold anything, a closing one among it.
        let state = stat.iter().rposition(|b| *b == b')').and_then(|at| stat.get(at + 2));
        match state {
            Some(b'R') => tasks.running += 1,
            Some(b'S' | b'I') => tasks.sleeping += 1,
            Some(b'T' | b't') => tasks.stopped += 1,
            Some(b'D') => tasks.uninterruptible += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_stays_is_reached_and_one_that_ends_fades() {
        let mut load = Load::default();
        load.note(4.0, 1.0, 0);
        let (stays, waits) = load.note(4.0, 1.0, 1_000);
        assert!((stays - 4.0).abs() < 0.01 && (waits - 1.0).abs() < 0.01);
        let (half, _) = load.note(0.0, 0.0, 1_000 + 6_931);
        assert!((half - 2.0).abs() < 0.01, "{half}");
        let (after, _) = load.note(0.0, 0.0, -5_000);
        assert!((after - half).abs() < f64::EPSILON, "a clock that steps back");
    }
}
