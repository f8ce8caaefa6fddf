//! Open files of the whole system, from `/proc/sys/fs/file-nr` (Documentation/admin-guide/sysctl/fs.rst).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, uint};
use super::{CollectError, Collector, Setup};

struct Filefd {
    file: PolledFile,
    allocated: Metric,
    maximum: Metric,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Filefd {
        file: PolledFile::new(setup.paths.procfs.join("sys/fs/file-nr")),
        allocated: Metric::gauge("node_filefd_allocated", "File handles in use.", &[]),
        maximum: Metric::gauge("node_filefd_maximum", "File handles that there can be.", &[]),
    })
}

impl Collector for Filefd {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        let mut numbers = fields(text.bytes.trim_ascii_end()).map(uint);
        // The second number has been zero ever since Linux 2.6.
        let (Some(Some(allocated)), Some(_), Some(Some(maximum))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(text.bad("three numbers are expected", text.bytes));
        };
        out.emit(&self.allocated, &[], allocated as f64);
        out.emit(&self.maximum, &[], maximum as f64);
        Ok(())
    }
}
