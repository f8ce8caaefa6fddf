//! Options of collectors that read the kernel's own tables.

use super::super::RawFilter;
use super::Options;
use crate::source::host::{BackendLabel, Settings};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Interrupts by processor and source.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawInterrupts {
    /// The interrupts, by `NAME;INFO;DEVICES` as in `25;PCI-MSI;1-edge eth0`.
    pub names: RawFilter,
    /// Whether interrupts that never came are told.
    pub zeros: bool,
}

impl Default for RawInterrupts {
    fn default() -> Self {
        Self { names: RawFilter::default(), zeros: Settings::default().interrupts_zeros }
    }
}

impl Options for RawInterrupts {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        self.names.resolve(&mut settings.interrupts, &path.key("names"), mistakes);
        settings.interrupts_zeros = self.zeros;
    }
}

/// The IP virtual server.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawIpvs {
    /// The labels of a backend; backends with equal labels are added up.
    pub backend_labels: Vec<BackendLabel>,
}

impl Default for RawIpvs {
    fn default() -> Self {
        Self { backend_labels: Settings::default().ipvs_backend_labels }
    }
}

impl Options for RawIpvs {
    fn resolve(&self, _: &Path, _: &mut Mistakes, settings: &mut Settings) {
        let mut labels = self.backend_labels.clone();
        labels.sort_unstable();
        labels.dedup();
        settings.ipvs_backend_labels = labels;
    }
}
