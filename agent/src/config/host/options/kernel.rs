//! Options of collectors that read the kernel's own tables.

use super::super::RawFilter;
use super::Options;
use crate::source::host::{BackendLabel, Settings, Sysctl};
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

/// Root queueing disciplines.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawQdisc {
    /// The interfaces.
    pub devices: RawFilter,
}

impl Options for RawQdisc {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        self.devices.resolve(&mut settings.qdisc_devices, &path.key("devices"), mistakes);
    }
}

/// Kernel parameters.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawSysctl {
    /// Parameters whose values are numbers, as `vm.swappiness`. Names of several values follow a colon, as in
    /// `net.ipv4.tcp_rmem:min,default,max`; without them the values have a label `index`.
    pub include: Vec<String>,
    /// Parameters whose values are shown as text, in labels of `node_sysctl_info`.
    pub include_info: Vec<String>,
}

impl Options for RawSysctl {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        settings.sysctls.clear();
        for (key, list, info) in
            [("include", &self.include, false), ("include_info", &self.include_info, true)]
        {
            for (i, text) in list.iter().enumerate() {
                let path = path.key(key).index(i);
                let (name, fields) =
                    text.split_once(':').map_or((text.as_str(), None), |(n, f)| (n, Some(f)));
                let fields: Vec<String> =
                    fields.into_iter().flat_map(|f| f.split(',')).map(str::to_owned).collect();
                let parts = name.split(['.', '/']).all(|part| !part.is_empty() && part != "..");
                let named = |field: &String| {
                    !field.is_empty() && field.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                };
                if !parts {
                    mistakes.at(
                        &path,
                        format!("`{name}` is no kernel parameter"),
                        "write it as `vm.swappiness`",
                    );
                } else if info && !fields.is_empty() {
                    mistakes.at(&path, "values that are shown as text have no names", "leave the colon out");
                } else if !fields.iter().all(named) {
                    mistakes.at(
                        &path,
                        "a value's name is not of letters, digits and `_`",
                        "write `net.ipv4.tcp_rmem:min,default,max`",
                    );
                } else {
                    settings.sysctls.push(Sysctl { name: name.into(), fields, info });
                }
            }
        }
    }
}
