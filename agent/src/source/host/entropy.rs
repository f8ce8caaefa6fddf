//! The kernel's entropy pool, from `/proc/sys/kernel/random` (Documentation/admin-guide/sysctl/kernel.rst).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::uint;
use super::{CollectError, Collector, Setup};

struct Entropy {
    files: [(PolledFile, Metric); 2],
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let gauge = |file: &str, name: &str, help: &str| {
        let path = setup.paths.procfs.join("sys/kernel/random").join(file);
        (PolledFile::new(path), Metric::gauge(&format!("node_entropy_{name}_bits"), help, &[]))
    };
    Box::new(Entropy {
        files: [
            gauge("entropy_avail", "available", "Entropy that is available, in bits."),
            gauge("poolsize", "pool_size", "Size of the entropy pool, in bits."),
        ],
    })
}

impl Collector for Entropy {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        for (file, metric) in &mut self.files {
            let text = file.read_if_there()?;
            let text = text.ok_or(CollectError::NoData("entropy pool under /proc/sys/kernel/random"))?;
            let bits = uint(text.bytes.trim_ascii());
            let bits = bits.ok_or_else(|| text.bad("a number is expected", text.bytes))?;
            out.emit(metric, &[], bits as f64);
        }
        Ok(())
    }
}
