//! Pressure stall information of version 2 (Documentation/accounting/psi.rst).

use super::{MICROS, Subject};
use crate::source::container::cgroup::File;
use crate::source::reading::emit::Emitter;
use crate::source::reading::text::{fields, lines, uint};

/// Emits the group.
pub(in super::super) fn emit(subject: &mut Subject<'_>, out: &mut Emitter<'_>) {
    let metrics = subject.metrics;
    for (file, waiting, stalled) in [
        (File::CpuPressure, &metrics.pressure_cpu_waiting, &metrics.pressure_cpu_stalled),
        (File::MemoryPressure, &metrics.pressure_memory_waiting, &metrics.pressure_memory_stalled),
        (File::IoPressure, &metrics.pressure_io_waiting, &metrics.pressure_io_stalled),
    ] {
        for line in subject.file(file).into_iter().flat_map(lines) {
            let mut parts = fields(line);
            let metric = match parts.next() {
                Some(b"some") => waiting,
                Some(b"full") => stalled,
                _ => continue,
            };
            let total = parts.find_map(|part| uint(part.strip_prefix(b"total=")?));
            if let Some(micros) = total {
                out.emit(metric, &[], micros as f64 / MICROS);
            }
        }
    }
}
