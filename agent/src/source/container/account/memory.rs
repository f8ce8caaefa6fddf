//! Memory (Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst).

use super::{Subject, emit_some, pair};
use crate::source::container::cgroup::{Controller, File, Version};
use crate::source::container::machine::MemInfo;
use crate::source::reading::emit::Emitter;
use crate::source::reading::text::lines;

/// What `memory.stat` and its like say; what the kernel does not say is none.
#[derive(Debug, Default, Clone, Copy)]
struct Stat {
    cache: Option<u64>,
    rss: Option<u64>,
    kernel: Option<u64>,
    mapped: Option<u64>,
    swap: Option<u64>,
    active_file: Option<u64>,
    inactive_file: Option<u64>,
    dirty: Option<u64>,
    writeback: Option<u64>,
    faults: Option<u64>,
    major_faults: Option<u64>,
    all_faults: Option<u64>,
    all_major_faults: Option<u64>,
    pgscan: Option<u64>,
    pgsteal: Option<u64>,
    refault_file: Option<u64>,
    refault_anon: Option<u64>,
    usage: Option<u64>,
    max_usage: Option<u64>,
    failcnt: Option<u64>,
    high: Option<u64>,
    max: Option<u64>,
}

/// Emits the group. `use_hierarchy` is whether a cgroup of version 1 answers for those below it.
pub(in super::super) fn emit(
    subject: &mut Subject<'_>,
    use_hierarchy: bool,
    machine: &MemInfo,
    out: &mut Emitter<'_>,
) {
    let stat = match subject.version(Controller::Memory) {
        Some(Version::V1) => read_v1(subject, use_hierarchy),
        Some(Version::V2) => read_v2(subject, machine),
        None => return,
    };
    let metrics = subject.metrics;
    emit_some(out, &metrics.memory_cache, stat.cache);
    emit_some(out, &metrics.memory_rss, stat.rss);
    emit_some(out, &metrics.memory_kernel, stat.kernel);
    emit_some(out, &metrics.memory_mapped, stat.mapped);
    emit_some(out, &metrics.memory_swap, stat.swap);
    emit_some(out, &metrics.memory_failcnt, stat.failcnt);
    emit_some(out, &metrics.memory_usage, stat.usage);
    emit_some(out, &metrics.memory_max_usage, stat.max_usage);
    // Inactive page cache is what reclaim takes first, so that the rest is what the workload needs.
    let working_set = stat.usage.map(|usage| usage.saturating_sub(stat.inactive_file.unwrap_or(0)));
    emit_some(out, &metrics.memory_working_set, working_set);
    emit_some(out, &metrics.memory_active_file, stat.active_file);
    emit_some(out, &metrics.memory_inactive_file, stat.inactive_file);
    for (kind, scope, count) in [
        ("pgfault", "container", stat.faults),
        ("pgmajfault", "container", stat.major_faults),
        ("pgfault", "hierarchy", stat.all_faults.or(stat.faults)),
        ("pgmajfault", "hierarchy", stat.all_major_faults.or(stat.major_faults)),
    ] {
        if let Some(count) = count {
            out.emit(&metrics.memory_failures, &[kind, scope], count as f64);
        }
    }
    emit_some(out, &metrics.memory_high, stat.high);
    emit_some(out, &metrics.memory_max, stat.max);
    emit_some(out, &metrics.memory_dirty, stat.dirty);
    emit_some(out, &metrics.memory_writeback, stat.writeback);
    emit_some(out, &metrics.memory_pgscan, stat.pgscan);
    emit_some(out, &metrics.memory_pgsteal, stat.pgsteal);
    emit_some(out, &metrics.memory_refault_file, stat.refault_file);
    emit_some(out, &metrics.memory_refault_anon, stat.refault_anon);
}

fn read_v1(subject: &mut Subject<'_>, use_hierarchy: bool) -> Stat {
    let mut stat = Stat::default();
    for (key, value) in subject.file(File::MemoryStat).into_iter().flat_map(lines).filter_map(pair) {
        let of_all = key.strip_prefix(b"total_");
        let place = match of_all.unwrap_or(key) {
            b"pgfault" if of_all.is_some() => &mut stat.all_faults,
            b"pgmajfault" if of_all.is_some() => &mut stat.all_major_faults,
            b"pgfault" => &mut stat.faults,
            b"pgmajfault" => &mut stat.major_faults,
            // The working set is that of all cgroups below in any case, as its usage is.
            b"inactive_file" if of_all.is_some() => &mut stat.inactive_file,
            b"active_file" if of_all.is_some() => &mut stat.active_file,
            _ if of_all.is_some() != use_hierarchy => continue,
            b"cache" => &mut stat.cache,
            b"rss" => &mut stat.rss,
            b"swap" => &mut stat.swap,
            b"mapped_file" => &mut stat.mapped,
            b"dirty" => &mut stat.dirty,
            b"writeback" => &mut stat.writeback,
            b"workingset_refault_file" => &mut stat.refault_file,
            b"workingset_refault_anon" => &mut stat.refault_anon,
            _ => continue,
        };
        *place = Some(value);
    }
    stat.usage = subject.number(File::MemoryUsage);
    stat.max_usage = subject.number(File::MemoryMaxUsage);
    stat.failcnt = subject.number(File::MemoryFailcnt);
    stat.kernel = subject.number(File::MemoryKernel);
    stat
}

fn read_v2(subject: &mut Subject<'_>, machine: &MemInfo) -> Stat {
    let mut stat = Stat::default();
    for (key, value) in subject.file(File::MemoryStat).into_iter().flat_map(lines).filter_map(pair) {
        let place = match key {
            b"file" => &mut stat.cache,
            b"anon" => &mut stat.rss,
            b"kernel" => &mut stat.kernel,
            b"file_mapped" => &mut stat.mapped,
            b"active_file" => &mut stat.active_file,
            b"inactive_file" => &mut stat.inactive_file,
            b"file_dirty" => &mut stat.dirty,
            b"file_writeback" => &mut stat.writeback,
            b"pgfault" => &mut stat.faults,
            b"pgmajfault" => &mut stat.major_faults,
            b"pgscan" => &mut stat.pgscan,
            b"pgsteal" => &mut stat.pgsteal,
            b"workingset_refault_file" => &mut stat.refault_file,
            b"workingset_refault_anon" => &mut stat.refault_anon,
            _ => continue,
        };
        *place = Some(value);
    }
    stat.usage = subject.number(File::MemoryCurrent);
    if stat.usage.is_some() {
        stat.max_usage = subject.number(File::MemoryPeak);
        // Without swap in the kernel there is none in use.
        stat.swap = Some(subject.number(File::MemorySwapCurrent).unwrap_or(0));
    } else if let (Some(anon), Some(file)) = (stat.rss, stat.cache) {
        // The root has no files of its own for what the machine's are for.
        stat.usage = Some(anon.saturating_add(file));
        stat.swap = Some(machine.swap_total.saturating_sub(machine.swap_free));
    }
    for (key, value) in subject.file(File::MemoryEvents).into_iter().flat_map(lines).filter_map(pair) {
        match key {
            b"high" => stat.high = Some(value),
            b"max" => {
                stat.max = Some(value);
                stat.failcnt = Some(value);
            }
            _ => {}
        }
    }
    stat
}

impl Subject<'_> {
    /// How many processes the kernel killed in the cgroup for want of memory, those of cgroups in it among them if
    /// it is of version 2 and `with_inner`.
    pub(in super::super) fn oom_kills(&mut self, with_inner: bool) -> Option<u64> {
        let file = match self.version(Controller::Memory)? {
            Version::V1 => File::MemoryOomControl,
            Version::V2 if with_inner => File::MemoryEvents,
            Version::V2 => File::MemoryEventsLocal,
        };
        let kills = |(key, value): (&[u8], u64)| (key == b"oom_kill").then_some(value);
        lines(self.file(file)?).filter_map(pair).find_map(kills)
    }
}
