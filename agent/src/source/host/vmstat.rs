//! Paging and out-of-memory kills, from `/proc/vmstat`.

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::filter::Pattern;
use super::text::{KeyCache, fields, float, is_metric_name, label, lines};
use super::{CollectError, Collector, Setup};

struct Vmstat {
    file: PolledFile,
    wanted: Pattern,
    keys: KeyCache,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Vmstat {
        file: PolledFile::new(setup.paths.procfs.join("vmstat")),
        wanted: setup.settings.vmstat_fields.clone(),
        keys: KeyCache::default(),
    })
}

impl Collector for Vmstat {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        for (place, line) in lines(text.bytes).enumerate() {
            let (key, value) = match line.iter().position(|b| *b == b' ') {
                Some(end) => (&line[..end], &line[end..]),
                None => return Err(text.bad("`name value` is expected", line)),
            };
            let make = |key: &[u8]| {
                let name = label(key);
                (is_metric_name(key) && self.wanted.matches(&name)).then(|| {
                    Metric::untyped(&format!("node_vmstat_{name}"), &format!("`{name}` of /proc/vmstat."))
                })
            };
            if let Some(metric) = self.keys.metric(place, key, make) {
                let value = fields(value).next().and_then(float);
                let value = value.ok_or_else(|| text.bad("the value is not a number", line))?;
                out.emit(metric, &[], value);
            }
        }
        Ok(())
    }
}
