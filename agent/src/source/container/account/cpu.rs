//! Processor time (Documentation/admin-guide/cgroup-v1/cpuacct.rst, Documentation/scheduler/sched-bwc.rst,
//! cgroup-v2.rst).

use super::{NANOS, Spec, Subject, pair};
use crate::source::container::cgroup::{Controller, File, Version};
use crate::source::container::settings::Group;
use crate::source::reading::emit::Emitter;
use crate::source::reading::text::{fields, lines, uint};

/// Ticks a second of the times that the kernel shows in ticks (`USER_HZ`, the same on all architectures here).
const TICKS: f64 = 100.0;

/// Nanoseconds a microsecond.
const NANOS_PER_MICRO: u64 = 1_000;

/// What `cpu.stat` says of a quota, times in nanoseconds.
#[derive(Debug, Default, Clone, Copy)]
struct Bandwidth {
    periods: u64,
    throttled: u64,
    throttled_nanos: u64,
    bursts: u64,
    burst_nanos: u64,
}

/// Emits the group.
pub(in super::super) fn emit(subject: &mut Subject<'_>, spec: &Spec, out: &mut Emitter<'_>) {
    match subject.version(Controller::CpuAcct) {
        Some(Version::V1) => usage_v1(subject, out),
        Some(Version::V2) => usage_v2(subject, out),
        None => {}
    }
    // Without a quota there are no periods.
    if spec.cpu_quota.is_some() && subject.version(Controller::Cpu).is_some() {
        bandwidth(subject, out);
    }
}

fn usage_v1(subject: &mut Subject<'_>, out: &mut Emitter<'_>) {
    let metrics = subject.metrics;
    if let Some(stat) = subject.file(File::AcctStat) {
        for (key, ticks) in lines(stat).filter_map(pair) {
            match key {
                b"user" => out.emit(&metrics.cpu_user, &[], ticks as f64 / TICKS),
                b"system" => out.emit(&metrics.cpu_system, &[], ticks as f64 / TICKS),
                _ => {}
            }
        }
    }
    if subject.groups.has(Group::PerCpu)
        && let Some(usage) = subject.file(File::AcctPerCpu)
    {
        for (number, nanos) in fields(usage.trim_ascii()).map_while(uint).enumerate() {
            if nanos > 0 {
                out.emit(&metrics.cpu_usage, &[cpu_label(number).as_str()], nanos as f64 / NANOS);
            }
        }
        return;
    }
    if let Some(nanos) = subject.number(File::AcctUsage).filter(|nanos| *nanos > 0) {
        out.emit(&metrics.cpu_usage, &["total"], nanos as f64 / NANOS);
    }
}

fn usage_v2(subject: &mut Subject<'_>, out: &mut Emitter<'_>) {
    let metrics = subject.metrics;
    let Some(stat) = subject.file(File::CpuStat) else { return };
    for (key, micros) in lines(stat).filter_map(pair) {
        let seconds = micros.saturating_mul(NANOS_PER_MICRO) as f64 / NANOS;
        match key {
            b"usage_usec" if micros > 0 => out.emit(&metrics.cpu_usage, &["total"], seconds),
            b"user_usec" => out.emit(&metrics.cpu_user, &[], seconds),
            b"system_usec" => out.emit(&metrics.cpu_system, &[], seconds),
            _ => {}
        }
    }
}

fn bandwidth(subject: &mut Subject<'_>, out: &mut Emitter<'_>) {
    let metrics = subject.metrics;
    let Some(stat) = subject.file(File::CpuStat) else { return };
    let mut found = Bandwidth::default();
    for (key, value) in lines(stat).filter_map(pair) {
        let micros = value.saturating_mul(NANOS_PER_MICRO);
        match key {
            b"nr_periods" => found.periods = value,
            b"nr_throttled" => found.throttled = value,
            b"throttled_time" => found.throttled_nanos = value,
            b"throttled_usec" => found.throttled_nanos = micros,
            b"nr_bursts" => found.bursts = value,
            b"burst_time" => found.burst_nanos = value,
            b"burst_usec" => found.burst_nanos = micros,
            _ => {}
        }
    }
    out.emit(&metrics.cfs_periods, &[], found.periods as f64);
    out.emit(&metrics.cfs_throttled, &[], found.throttled as f64);
    out.emit(&metrics.cfs_throttled_seconds, &[], found.throttled_nanos as f64 / NANOS);
    out.emit(&metrics.cfs_bursts, &[], found.bursts as f64);
    out.emit(&metrics.cfs_burst_seconds, &[], found.burst_nanos as f64 / NANOS);
}

/// `cpu00`, `cpu01`, … `cpu100`, without allocating.
fn cpu_label(number: usize) -> CpuLabel {
    let mut label = CpuLabel { text: *b"cpu00\0\0\0\0\0\0\0", length: 5 };
    let digits = number.checked_ilog10().map_or(1, |log| log as usize + 1).max(2).min(label.text.len() - 3);
    let mut rest = number;
    for at in (3..3 + digits).rev() {
        label.text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    label.length = 3 + digits;
    label
}

struct CpuLabel {
    text: [u8; 12],
    length: usize,
}

impl CpuLabel {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).unwrap_or("cpu")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_named_with_two_digits_or_more() {
        for (number, name) in
            [(0, "cpu00"), (7, "cpu07"), (10, "cpu10"), (99, "cpu99"), (100, "cpu100"), (8191, "cpu8191")]
        {
            assert_eq!(cpu_label(number).as_str(), name);
        }
    }
}
