//! Free blocks of memory by their size, from `/proc/buddyinfo` (Documentation/filesystems/proc.rst).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, float, label, lines};
use super::{CollectError, Collector, Setup};

struct Buddyinfo {
    file: PolledFile,
    blocks: Metric,
    /// Node and zone, by their line.
    zones: Vec<(Box<str>, Box<str>)>,
    /// The orders, by their column.
    sizes: Vec<Box<str>>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Buddyinfo {
        file: PolledFile::new(setup.paths.procfs.join("buddyinfo")),
        blocks: Metric::gauge(
            "node_buddyinfo_blocks",
            "Free blocks; `size` is the power of two of their pages.",
            &["node", "size", "zone"],
        ),
        zones: Vec::new(),
        sizes: Vec::new(),
    })
}

impl Collector for Buddyinfo {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let Self { file, blocks, zones, sizes } = self;
        let text = file.read()?;
        for (place, line) in lines(text.bytes).enumerate() {
            let mut columns = fields(line);
            let (Some(b"Node"), Some(node), Some(b"zone"), Some(zone)) =
                (columns.next(), columns.next(), columns.next(), columns.next())
            else {
                return Err(text.bad("`Node N, zone NAME` and numbers are expected", line));
            };
            let node = node.strip_suffix(b",").unwrap_or(node);
            let is_it =
                |(known, of): &(Box<str>, Box<str>)| known.as_bytes() == node && of.as_bytes() == zone;
            if !zones.get(place).is_some_and(is_it) {
                zones.truncate(place);
                zones.push((label(node), label(zone)));
            }
            let (node, zone) = &zones[place];
            for (order, count) in columns.enumerate() {
                let count = float(count).ok_or_else(|| text.bad("a count is not a number", line))?;
                if order == sizes.len() {
                    sizes.push(order.to_string().into());
                }
                out.emit(blocks, &[node, &sizes[order], zone], count);
            }
        }
        Ok(())
    }
}
