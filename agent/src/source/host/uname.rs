//! Kernel and host name, from `uname(2)`.

use super::emit::{Emitter, Metric};
use super::{CollectError, Collector, Setup, System};
use std::sync::Arc;

struct Uname {
    system: Arc<dyn System>,
    info: Metric,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Uname {
        system: setup.system.clone(),
        info: Metric::gauge(
            "node_uname_info",
            "1, with what uname(2) says of host and kernel.",
            &["domainname", "machine", "nodename", "release", "sysname", "version"],
        ),
    })
}

impl Collector for Uname {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let uname = self.system.uname();
        let labels = [
            uname.domainname.as_str(),
            &uname.machine,
            &uname.nodename,
            &uname.release,
            &uname.sysname,
            &uname.version,
        ];
        out.emit(&self.info, &labels, 1.0);
        Ok(())
    }
}
