//! Huge pages (Documentation/admin-guide/cgroup-v1/hugetlb.rst, cgroup-v2.rst).

use super::{Subject, pair};
use crate::source::container::cgroup::{Controller, Version};
use crate::source::reading::emit::Emitter;
use crate::source::reading::text::{lines, uint};
use std::path::Path;

/// The sizes that this machine has, as cgroups' files name them: `2MB`, `1GB`.
pub(in super::super) fn page_sizes(sysfs: &Path) -> Vec<Box<str>> {
    let entries = std::fs::read_dir(sysfs.join("kernel/mm/hugepages")).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let kib = uint(name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.as_bytes())?;
        let text = match kib {
            kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
            kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
            kib => format!("{kib}KB"),
        };
        Some((kib, text.into_boxed_str()))
    };
    let mut sizes: Vec<_> = entries.filter_map(size).collect();
    sizes.sort_unstable();
    sizes.into_iter().map(|(_, text)| text).collect()
}

/// Emits the group.
pub(in super::super) fn emit(subject: &mut Subject<'_>, sizes: &[Box<str>], out: &mut Emitter<'_>) {
    let metrics = subject.metrics;
    let Some(version) = subject.version(Controller::Hugetlb) else { return };
    for size in sizes {
        // Reservations count where the kernel counts them (Linux 5.7).
        for kind in [".rsvd", ""] {
            let mut number = |name: &str| {
                let dir = subject.dirs.of(subject.layout, Controller::Hugetlb)?;
                // Reservations that fail are counted with the others.
                let kind = if name == "events" { "" } else { kind };
                let text = subject.reader.read(dir, format!("hugetlb.{size}{kind}.{name}").as_str()).ok()?;
                match name {
                    "events" => {
                        lines(text).filter_map(pair).find_map(|(key, n)| (key == b"max").then_some(n))
                    }
                    _ => uint(text.trim_ascii()),
                }
            };
            let (usage, most, failures) = match version {
                Version::V1 => (number("usage_in_bytes"), number("max_usage_in_bytes"), number("failcnt")),
                Version::V2 => (number("current"), None, number("events")),
            };
            let Some(usage) = usage else { continue };
            if let Some(failures) = failures {
                out.emit(&metrics.hugetlb_failcnt, &[size], failures as f64);
            }
            out.emit(&metrics.hugetlb_usage, &[size], usage as f64);
            if let Some(most) = most {
                out.emit(&metrics.hugetlb_max_usage, &[size], most as f64);
            }
            break;
        }
    }
}
