//! How many control groups there are of each controller, from `/proc/cgroups` (cgroups(7)).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, int, label, lines};
use super::{CollectError, Collector, Setup};

struct Cgroups {
    file: PolledFile,
    groups: Metric,
    enabled: Metric,
    /// The controllers, by their line.
    controllers: Vec<Box<str>>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let gauge =
        |name: &str, help: &str| Metric::gauge(&format!("node_cgroups_{name}"), help, &["subsys_name"]);
    Box::new(Cgroups {
        file: PolledFile::new(setup.paths.procfs.join("cgroups")),
        groups: gauge("cgroups", "Control groups of the controller."),
        enabled: gauge("enabled", "1 if the controller is enabled, 0 if not."),
        controllers: Vec::new(),
    })
}

impl Collector for Cgroups {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        let all = lines(text.bytes).filter(|line| !line.starts_with(b"#"));
        for (place, line) in all.enumerate() {
            let mut columns = fields(line);
            let name = columns.next().unwrap_or_default();
            let mut numbers = columns.map(int);
            let (Some(Some(_)), Some(Some(cgroups)), Some(Some(enabled))) =
                (numbers.next(), numbers.next(), numbers.next())
            else {
                return Err(text.bad("a name and three numbers are expected", line));
            };
            if self.controllers.get(place).is_none_or(|known| known.as_bytes() != name) {
                self.controllers.truncate(place);
                self.controllers.push(label(name));
            }
            let controller = &*self.controllers[place];
            out.emit(&self.groups, &[controller], cgroups as f64);
            out.emit(&self.enabled, &[controller], enabled as f64);
        }
        Ok(())
    }
}
