//! Memory by NUMA node, `/sys/devices/system/node/nodeN/{meminfo,numastat}`
//! (Documentation/ABI/stable/sysfs-devices-node, Documentation/admin-guide/numastat.rst).

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Devices, Entry, Page, is_missing};
use super::text::{KeyCache, fields, float, is_metric_name, label, lines};
use super::{CollectError, Collector, Setup};

/// The kernel's `kB` has 1024 bytes.
const KIB: f64 = 1024.0;

struct MeminfoNuma {
    nodes: Devices<Node>,
    of_meminfo: KeyCache,
    of_numastat: KeyCache,
}

struct Node {
    meminfo: Attribute,
    numastat: Attribute,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(MeminfoNuma {
        nodes: Devices::new(setup.paths.sysfs.join("devices/system/node")),
        of_meminfo: KeyCache::default(),
        of_numastat: KeyCache::default(),
    })
}

impl Collector for MeminfoNuma {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let make = |entry: &Entry<'_>| {
            let dir = entry.path();
            entry.numbered("node").map(|_| Node {
                meminfo: Attribute::new(dir.join("meminfo")),
                numastat: Attribute::new(dir.join("numastat")),
            })
        };
        let nodes = match self.nodes.list(make) {
            Err(error) if is_missing(&error) => return Ok(()),
            nodes => nodes?,
        };
        out.whole(|out| {
            for node in nodes {
                node.is.emit(&node.name["node".len()..], &mut self.of_meminfo, &mut self.of_numastat, out)?;
            }
            Ok(())
        })
    }
}

impl Node {
    fn emit(
        &mut self,
        number: &str,
        of_meminfo: &mut KeyCache,
        of_numastat: &mut KeyCache,
        out: &mut Emitter<'_>,
    ) -> Result<(), CollectError> {
        let mut page: Page = [0; 4096];
        let text = self.meminfo.required(&mut page)?;
        let wanted = lines(text).filter(|line| fields(line).next().is_some());
        for (place, line) in wanted.enumerate() {
            let (key, value) =
                amount(line).ok_or_else(|| self.meminfo.bad("`Node n Name: number kB` is expected", line))?;
            if let Some(metric) = of_meminfo.metric(place, key, of_field) {
                out.emit(metric, &[number], value);
            }
        }
        let text = self.numastat.required(&mut page)?;
        for (place, line) in lines(text).filter(|line| fields(line).next().is_some()).enumerate() {
            let mut columns = fields(line);
            let (key, value) = (columns.next().unwrap_or_default(), columns.next().and_then(float));
            let value = value.filter(|_| columns.next().is_none());
            let value = value.ok_or_else(|| self.numastat.bad("`name number` is expected", line))?;
            if let Some(metric) = of_numastat.metric(place, key, of_counter) {
                out.emit(metric, &[number], value);
            }
        }
        Ok(())
    }
}

/// Name and bytes (or number) of a line such as `Node 0 Active(anon): 12 kB`.
fn amount(line: &[u8]) -> Option<(&[u8], f64)> {
    let mut columns = fields(line).skip(2);
    let key = columns.next()?;
    let value = columns.next().and_then(float)?;
    let value = match (columns.next(), columns.next()) {
        (None, _) => value,
        (Some(b"kB"), None) => value * KIB,
        _ => return None,
    };
    Some((key.strip_suffix(b":").unwrap_or(key), value))
}

fn of_field(key: &[u8]) -> Option<Metric> {
    let name = label(key).replace('(', "_").replace(')', "");
    let help = format!("`{}` of a NUMA node.", label(key));
    is_metric_name(name.as_bytes())
        .then(|| Metric::gauge(&format!("node_memory_numa_{name}"), &help, &["node"]))
}

fn of_counter(key: &[u8]) -> Option<Metric> {
    let name = label(key);
    let help = format!("`{name}` of a NUMA node, in pages.");
    is_metric_name(key).then(|| Metric::counter(&format!("node_memory_numa_{name}_total"), &help, &["node"]))
}
