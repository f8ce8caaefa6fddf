//! Memory from `/proc/meminfo` (Documentation/filesystems/proc.rst).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{KeyCache, fields, lines, uint};
use super::{CollectError, Collector, Setup};

/// The fields that node_exporter exports, and how they are called. Newer kernels write more; those have no name
/// that dashboards know.
const FIELDS: [(&str, &str); 51] = [
    ("Active", "Active_bytes"),
    ("Active(anon)", "Active_anon_bytes"),
    ("Active(file)", "Active_file_bytes"),
    ("AnonHugePages", "AnonHugePages_bytes"),
    ("AnonPages", "AnonPages_bytes"),
    ("Bounce", "Bounce_bytes"),
    ("Buffers", "Buffers_bytes"),
    ("Cached", "Cached_bytes"),
    ("CmaFree", "CmaFree_bytes"),
    ("CmaTotal", "CmaTotal_bytes"),
    ("CommitLimit", "CommitLimit_bytes"),
    ("Committed_AS", "Committed_AS_bytes"),
    ("DirectMap1G", "DirectMap1G_bytes"),
    ("DirectMap2M", "DirectMap2M_bytes"),
    ("DirectMap4k", "DirectMap4k_bytes"),
    ("Dirty", "Dirty_bytes"),
    ("HardwareCorrupted", "HardwareCorrupted_bytes"),
    ("HugePages_Free", "HugePages_Free"),
    ("HugePages_Rsvd", "HugePages_Rsvd"),
    ("HugePages_Surp", "HugePages_Surp"),
    ("HugePages_Total", "HugePages_Total"),
    ("Hugepagesize", "Hugepagesize_bytes"),
    ("Inactive", "Inactive_bytes"),
    ("Inactive(anon)", "Inactive_anon_bytes"),
    ("Inactive(file)", "Inactive_file_bytes"),
    ("KernelStack", "KernelStack_bytes"),
    ("Mapped", "Mapped_bytes"),
    ("MemAvailable", "MemAvailable_bytes"),
    ("MemFree", "MemFree_bytes"),
    ("MemTotal", "MemTotal_bytes"),
    ("Mlocked", "Mlocked_bytes"),
    ("NFS_Unstable", "NFS_Unstable_bytes"),
    ("PageTables", "PageTables_bytes"),
    ("Percpu", "Percpu_bytes"),
    ("SReclaimable", "SReclaimable_bytes"),
    ("SUnreclaim", "SUnreclaim_bytes"),
    ("Shmem", "Shmem_bytes"),
    ("ShmemHugePages", "ShmemHugePages_bytes"),
    ("ShmemPmdMapped", "ShmemPmdMapped_bytes"),
    ("Slab", "Slab_bytes"),
    ("SwapCached", "SwapCached_bytes"),
    ("SwapFree", "SwapFree_bytes"),
    ("SwapTotal", "SwapTotal_bytes"),
    ("Unevictable", "Unevictable_bytes"),
    ("VmallocChunk", "VmallocChunk_bytes"),
    ("VmallocTotal", "VmallocTotal_bytes"),
    ("VmallocUsed", "VmallocUsed_bytes"),
    ("Writeback", "Writeback_bytes"),
    ("WritebackTmp", "WritebackTmp_bytes"),
    ("Zswap", "Zswap_bytes"),
    ("Zswapped", "Zswapped_bytes"),
];

struct Meminfo {
    file: PolledFile,
    keys: KeyCache,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Meminfo { file: PolledFile::new(setup.paths.procfs.join("meminfo")), keys: KeyCache::default() })
}

fn metric(key: &[u8]) -> Option<Metric> {
    let (field, name) = FIELDS.iter().find(|(field, _)| field.as_bytes() == key)?;
    Some(Metric::gauge(&format!("node_memory_{name}"), &format!("`{field}` of /proc/meminfo."), &[]))
}

impl Collector for Meminfo {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        for (place, line) in lines(text.bytes).enumerate() {
            let mut parts = fields(line);
            let key = parts.next().and_then(|key| key.strip_suffix(b":"));
            let key = key.ok_or_else(|| text.bad("`Name: value` is expected", line))?;
            let value =
                parts.next().and_then(uint).ok_or_else(|| text.bad("the value is not a number", line))?;
            let bytes = match (parts.next(), parts.next()) {
                (None, _) => value,
                (Some(b"kB"), None) => value.saturating_mul(1024),
                _ => return Err(text.bad("the unit is not kB", line)),
            };
            if let Some(metric) = self.keys.metric(place, key, metric) {
                out.emit(metric, &[], bytes as f64);
            }
        }
        Ok(())
    }
}
