//! Sockets in use, from `/proc/net/sockstat` and `/proc/net/sockstat6`.

use super::emit::{Emitter, Metric};
use super::file::{Content, PolledFile};
use super::text::{fields, int, is_metric_name, label, lines};
use super::{CollectError, Collector, Setup};

/// What a line may say of its protocol, in the order of the metrics.
const STATES: [&str; 6] = ["inuse", "orphan", "tw", "alloc", "mem", "memory"];
const IN_USE: usize = 0;
const MEM: usize = 4;

struct Sockstat {
    files: [Family; 2],
    page_bytes: i64,
}

/// One of the two files.
struct Family {
    file: PolledFile,
    used: Option<Metric>,
    protocols: Vec<Protocol>,
}

/// A line, by its place.
struct Protocol {
    name: Box<[u8]>,
    /// None for a name that no metric could have.
    metrics: Option<(Vec<Metric>, Metric)>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let used = Metric::gauge("node_sockstat_sockets_used", "Sockets in use, of every family.", &[]);
    let family = |name: &str, used| Family {
        file: PolledFile::new(setup.paths.procfs.join("net").join(name)),
        used,
        protocols: Vec::new(),
    };
    Box::new(Sockstat {
        files: [family("sockstat", Some(used)), family("sockstat6", None)],
        page_bytes: rustix::param::page_size() as i64,
    })
}

impl Collector for Sockstat {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        for Family { file, used, protocols } in &mut self.files {
            // A kernel without this family has no such file.
            if let Some(text) = file.read_if_there()? {
                emit(text, used.as_ref(), protocols, self.page_bytes, out)?;
            }
        }
        Ok(())
    }
}

fn emit(
    text: Content<'_>,
    used: Option<&Metric>,
    protocols: &mut Vec<Protocol>,
    page_bytes: i64,
    out: &mut Emitter<'_>,
) -> Result<(), CollectError> {
    let mut place = 0;
    for line in lines(text.bytes) {
        let mut columns = fields(line);
        let name = columns.next().unwrap_or_default();
        let name = name.strip_suffix(b":").unwrap_or(name);
        let mut values = [None; STATES.len()];
        let mut sockets_used = 0;
        let mut pairs = 0;
        while let Some(state) = columns.next() {
            let value = columns.next().and_then(int);
            let value = value.ok_or_else(|| text.bad("pairs of a name and a number are expected", line))?;
            if let Some(at) = STATES.iter().position(|known| known.as_bytes() == state) {
                values[at] = Some(value);
            } else if state == b"used" {
                sockets_used = value;
            }
            pairs += 1;
        }
        if pairs == 0 {
            return Err(text.bad("pairs of a name and a number are expected", line));
        }
        if name == b"sockets" {
            if let Some(used) = used {
                out.emit(used, &[], sockets_used as f64);
            }
            continue;
        }
        if protocols.get(place).is_none_or(|known| *known.name != *name) {
            protocols.truncate(place);
            protocols.push(Protocol::new(name));
        }
        if let Some((metrics, mem_bytes)) = &protocols[place].metrics {
            values[IN_USE] = values[IN_USE].or(Some(0));
            for (metric, value) in metrics.iter().zip(values) {
                if let Some(value) = value {
                    out.emit(metric, &[], value as f64);
                }
            }
            if let Some(pages) = values[MEM] {
                out.emit(mem_bytes, &[], pages.wrapping_mul(page_bytes) as f64);
            }
        }
        place += 1;
    }
    protocols.truncate(place);
    Ok(())
}

impl Protocol {
    fn new(name: &[u8]) -> Self {
        let metrics = is_metric_name(name).then(|| {
            let protocol = label(name);
            let metric = |state: &str, help: &str| {
                Metric::gauge(&format!("node_sockstat_{protocol}_{state}"), help, &[])
            };
            let state = |state: &&str| {
                metric(state, &format!("`{state}` of the {protocol} sockets; memory in pages."))
            };
            let mem_bytes = metric("mem_bytes", &format!("Memory of the {protocol} sockets' buffers."));
            (STATES.iter().map(state).collect(), mem_bytes)
        });
        Self { name: name.into(), metrics }
    }
}
