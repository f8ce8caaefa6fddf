//! Tasks that the kernel found hanging, from `/proc/sys/kernel/hung_task_detect_count`
//! (Documentation/admin-guide/sysctl/kernel.rst; Linux 6.13).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::uint;
use super::{CollectError, Collector, Setup};

struct KernelHung {
    file: PolledFile,
    tasks: Metric,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(KernelHung {
        file: PolledFile::new(setup.paths.procfs.join("sys/kernel/hung_task_detect_count")),
        tasks: Metric::counter(
            "node_kernel_hung_tasks_total",
            "Tasks that the kernel found hanging since it booted.",
            &[],
        ),
    })
}

impl Collector for KernelHung {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.file.read_if_there()?;
        let text = text.ok_or(CollectError::NoData("count of hung tasks (Linux 6.13)"))?;
        let tasks = uint(text.bytes.trim_ascii());
        let tasks = tasks.ok_or_else(|| text.bad("a number is expected", text.bytes))?;
        out.emit(&self.tasks, &[], tasks as f64);
        Ok(())
    }
}
