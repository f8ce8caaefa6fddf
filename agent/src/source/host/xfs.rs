//! Counters of mounted XFS filesystems, `/sys/fs/xfs/DEVICE/stats/stats` (Documentation/admin-guide/xfs.rst,
//! fs/xfs/xfs_stats.c).

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Devices, Entry, Page, is_missing};
use super::text::{fields, lines, uint};
use super::{CollectError, Collector, Setup};

/// A line of the file: its name, how many numbers it has at least and at most, and the metrics of the first of
/// them. The kernel counts in 32 bits.
struct Line(&'static str, usize, usize, &'static [&'static str]);

const LINES: [Line; 9] = [
    Line(
        "extent_alloc",
        4,
        4,
        &[
            "extent_allocation_extents_allocated_total",
            "extent_allocation_blocks_allocated_total",
            "extent_allocation_extents_freed_total",
            "extent_allocation_blocks_freed_total",
        ],
    ),
    Line(
        "abt",
        4,
        4,
        &[
            "allocation_btree_lookups_total",
            "allocation_btree_compares_total",
            "allocation_btree_records_inserted_total",
            "allocation_btree_records_deleted_total",
        ],
    ),
    Line(
        "blk_map",
        7,
        7,
        &[
            "block_mapping_reads_total",
            "block_mapping_writes_total",
            "block_mapping_unmaps_total",
            "block_mapping_extent_list_insertions_total",
            "block_mapping_extent_list_deletions_total",
            "block_mapping_extent_list_lookups_total",
            "block_mapping_extent_list_compares_total",
        ],
    ),
    Line(
        "bmbt",
        4,
        4,
        &[
            "block_map_btree_lookups_total",
            "block_map_btree_compares_total",
            "block_map_btree_records_inserted_total",
            "block_map_btree_records_deleted_total",
        ],
    ),
    Line(
        "dir",
        4,
        4,
        &[
            "directory_operation_lookup_total",
            "directory_operation_create_total",
            "directory_operation_remove_total",
            "directory_operation_getdents_total",
        ],
    ),
    Line(
        "ig",
        7,
        7,
        &[
            "inode_operation_attempts_total",
            "inode_operation_found_total",
            "inode_operation_recycled_total",
            "inode_operation_missed_total",
            "inode_operation_duplicates_total",
            "inode_operation_reclaims_total",
            "inode_operation_attribute_changes_total",
        ],
    ),
    Line("rw", 2, 2, &["write_calls_total", "read_calls_total"]),
    Line(
        "vnodes",
        7,
        8,
        &[
            "vnode_active_total",
            "vnode_allocate_total",
            "vnode_get_total",
            "vnode_hold_total",
            "vnode_release_total",
            "vnode_reclaim_total",
            "vnode_remove_total",
        ],
    ),
    // Bytes; they have no metric, but 64 bits.
    Line("xpc", 3, 3, &[]),
];

struct Xfs {
    filesystems: Devices<Attribute>,
    /// By line, then by column.
    metrics: Vec<Vec<Metric>>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let metric = |line: &str, column: usize, name: &str| {
        let help = format!("Column {} of `{line}` in a filesystem's statistics.", column + 1);
        Metric::counter(&format!("node_xfs_{name}"), &help, &["device"])
    };
    let of_line = |Line(line, _, _, names): &Line| {
        names.iter().enumerate().map(|(column, name)| metric(line, column, name)).collect()
    };
    Box::new(Xfs {
        filesystems: Devices::new(setup.paths.sysfs.join("fs/xfs")),
        metrics: LINES.iter().map(of_line).collect(),
    })
}

impl Collector for Xfs {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let make = |entry: &Entry<'_>| {
            let path = entry.path().join("stats/stats");
            path.exists().then(|| Attribute::new(path))
        };
        let filesystems = match self.filesystems.list(make) {
            Err(error) if is_missing(&error) => return Ok(()),
            filesystems => filesystems?,
        };
        out.whole(|out| {
            for filesystem in filesystems {
                let mut page: Page = [0; 4096];
                let text = filesystem.is.required(&mut page)?;
                let values = values(text).map_err(|line| {
                    filesystem.is.bad("`name numbers` as XFS writes them is expected", line)
                })?;
                for (metrics, values) in self.metrics.iter().zip(values) {
                    for (metric, value) in metrics.iter().zip(values) {
                        out.emit(metric, &[&filesystem.name], value as f64);
                    }
                }
            }
            Ok(())
        })
    }
}

/// The numbers by line; zeros for a line that is not there. `Err` is a line that is not as the kernel writes it.
fn values(text: &[u8]) -> Result<[[u64; 8]; LINES.len()], &[u8]> {
    let mut values = [[0; 8]; LINES.len()];
    for line in lines(text) {
        let mut columns = fields(line);
        let Some(name) = columns.next() else { continue };
        let Some(at) = LINES.iter().position(|Line(known, ..)| known.as_bytes() == name) else { continue };
        let Line(_, least, most, metrics) = &LINES[at];
        let mut count = 0;
        for column in columns {
            let fits = |value: &u64| metrics.is_empty() || u32::try_from(*value).is_ok();
            let value = uint(column).filter(fits).ok_or(line)?;
            *values[at].get_mut(count).ok_or(line)? = value;
            count += 1;
        }
        if !(*least..=*most).contains(&count) {
            return Err(line);
        }
    }
    Ok(values)
}
