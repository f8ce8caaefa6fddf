//! What a cgroup may use: `container_spec_…`.

use super::Subject;
use crate::source::container::cgroup::{Controller, File, Version};
use crate::source::container::machine::MemInfo;
use crate::source::reading::emit::Emitter;
use crate::source::reading::text::{fields, uint};

/// From here on a limit is none: the kernel rounds the largest number to pages.
const UNLIMITED_BYTES: u64 = 1 << 62;

/// The limits of a cgroup. They change rarely and are not read at every pass.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Spec {
    cpu: Option<Cpu>,
    memory: Option<Memory>,
    /// The quota in a period, in microseconds; none without one.
    pub(super) cpu_quota: Option<u64>,
    /// Whether a cgroup of version 1 answers for those below it.
    pub(in super::super) use_hierarchy: bool,
    /// The most tasks; none without a limit.
    pub(super) pids_max: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Cpu {
    period: u64,
    shares: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Memory {
    limit: u64,
    swap: u64,
    reservation: u64,
}

impl Spec {
    /// Reads the limits. The machine's own are what it has.
    pub(in super::super) fn read(subject: &mut Subject<'_>, is_root: bool, machine: &MemInfo) -> Self {
        let mut spec = Self { use_hierarchy: true, ..Self::default() };
        match subject.version(Controller::Cpu) {
            Some(Version::V1) => {
                spec.cpu = Some(Cpu {
                    period: subject.number(File::CpuPeriod).unwrap_or(0),
                    shares: subject.number(File::CpuShares).unwrap_or(0),
                });
                spec.cpu_quota = subject.number(File::CpuQuota).filter(|quota| *quota > 0);
            }
            Some(Version::V2) => {
                let shares = subject.number(File::CpuWeight).map_or(0, shares_of_weight);
                let mut max = subject
                    .file(File::CpuMax)
                    .map(|max| fields(max.trim_ascii()))
                    .into_iter()
                    .flatten()
                    .map(uint);
                spec.cpu_quota = max.next().flatten().filter(|quota| *quota > 0);
                spec.cpu = Some(Cpu { period: max.next().flatten().unwrap_or(0), shares });
            }
            None => {}
        }
        let mut limit = |file| subject.number(file).filter(|limit| *limit <= UNLIMITED_BYTES).unwrap_or(0);
        let memory = match subject_memory(limit(File::MemoryLimit), &mut limit) {
            memory if is_root => Memory { limit: machine.total, swap: machine.swap_total, ..memory },
            memory => memory,
        };
        let has_limits = match subject.version(Controller::Memory) {
            Some(Version::V1) => true,
            Some(Version::V2) => is_root || subject.file(File::MemoryMax).is_some(),
            None => is_root,
        };
        spec.memory = has_limits.then_some(memory);
        if subject.version(Controller::Memory) == Some(Version::V1) {
            spec.use_hierarchy = subject.number(File::MemoryUseHierarchy) != Some(0);
        }
        spec.pids_max = subject.number(File::PidsMax);
        spec
    }
}

/// The limits of whichever version has them: a file that is not there limits nothing.
fn subject_memory(limit_v1: u64, limit: &mut impl FnMut(File) -> u64) -> Memory {
    Memory {
        limit: limit_v1.max(limit(File::MemoryMax)),
        swap: limit(File::MemorySwapLimit).max(limit(File::MemorySwapMax)),
        reservation: limit(File::MemorySoftLimit).max(limit(File::MemoryMin)),
    }
}

/// Weights of version 2 (1 to 10,000) as shares of version 1 (2 to 262,144).
fn shares_of_weight(weight: u64) -> u64 {
    match weight {
        1..=10_000 => 2 + (weight - 1) * 262_142 / 9_999,
        _ => 0,
    }
}

/// Emits the limits.
pub(in super::super) fn emit(subject: &Subject<'_>, spec: &Spec, out: &mut Emitter<'_>) {
    let metrics = subject.metrics;
    if let Some(cpu) = spec.cpu {
        out.emit(&metrics.spec_cpu_period, &[], cpu.period as f64);
        if let Some(quota) = spec.cpu_quota {
            out.emit(&metrics.spec_cpu_quota, &[], quota as f64);
        }
        out.emit(&metrics.spec_cpu_shares, &[], cpu.shares as f64);
    }
    if let Some(memory) = spec.memory {
        out.emit(&metrics.spec_memory_limit, &[], memory.limit as f64);
        out.emit(&metrics.spec_memory_swap, &[], memory.swap as f64);
        out.emit(&metrics.spec_memory_reservation, &[], memory.reservation as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_become_shares() {
        assert_eq!([0, 1, 100, 10_000, 10_001].map(shares_of_weight), [0, 2, 2_597, 262_144, 0]);
    }
}
