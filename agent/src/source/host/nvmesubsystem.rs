//! NVMe subsystems and the paths to them, `/sys/class/nvme-subsystem` (Documentation/admin-guide/nvme-multipath.rst).

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Devices, Entry, Short, is_out_of_reach, no_data_if};
use super::{CollectError, Collector, Setup};
use std::borrow::Cow;

/// What every subsystem has, in the order of the labels.
const WORDS: [&str; 4] = ["iopolicy", "model", "subsysnqn", "serial"];

/// The states that have a series each; what the kernel says else is the last one.
const STATES: [&str; 7] = ["connecting", "dead", "deleting", "live", "new", "resetting", UNKNOWN];
const UNKNOWN: &str = "unknown";

struct NvmeSubsystems {
    subsystems: Devices<Subsystem>,
    metrics: Metrics,
}

struct Metrics {
    info: Metric,
    namespace: Metric,
    state: Metric,
    paths: Metric,
    live: Metric,
}

struct Subsystem {
    words: [Attribute; WORDS.len()],
    members: Devices<Member>,
}

/// What a subsystem's directory leads to.
enum Member {
    Controller { state: Attribute, transport: Attribute, address: Attribute },
    Namespace,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let gauge =
        |name: &str, help: &str, labels| Metric::gauge(&format!("node_nvmesubsystem_{name}"), help, labels);
    Box::new(NvmeSubsystems {
        subsystems: Devices::new(setup.paths.sysfs.join("class/nvme-subsystem")),
        metrics: Metrics {
            info: gauge(
                "info",
                "1, with what a subsystem says in words.",
                &["iopolicy", "model", "nqn", "serial", "subsystem"],
            ),
            namespace: gauge("namespace_info", "1 for each namespace.", &["device", "subsystem"]),
            state: gauge(
                "path_state",
                "1 for the state that a controller is in.",
                &["controller", "state", "subsystem", "transport"],
            ),
            paths: gauge("paths", "How many controllers lead to a subsystem.", &["subsystem"]),
            live: gauge("paths_live", "How many of them work.", &["subsystem"]),
        },
    })
}

impl Collector for NvmeSubsystems {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let make = |entry: &Entry<'_>| {
            let dir = entry.path();
            entry.name.starts_with("nvme-subsys").then(|| Subsystem {
                words: WORDS.map(|name| Attribute::new(dir.join(name))),
                members: Devices::new(dir),
            })
        };
        out.whole(|out| {
            for subsystem in self.subsystems.list(make)? {
                subsystem.is.emit(&subsystem.name, &self.metrics, out)?;
            }
            Ok(())
        })
        .map_err(no_data_if(is_out_of_reach, "NVMe subsystems, or not all that is asked of them"))
    }
}

impl Subsystem {
    fn emit(&mut self, name: &str, metrics: &Metrics, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let mut buffers: [Short; WORDS.len()] = [[0; 128]; WORDS.len()];
        let mut words = [const { Cow::Borrowed("") }; WORDS.len()];
        for ((attribute, buffer), word) in self.words.iter_mut().zip(&mut buffers).zip(&mut words) {
            *word = String::from_utf8_lossy(attribute.required(buffer)?);
        }
        let [policy, model, nqn, serial] = &words;
        out.emit(&metrics.info, &[policy, model, nqn, serial, name], 1.0);
        let (mut paths, mut live) = (0u32, 0u32);
        for member in self.members.list(Member::new)? {
            let Member::Controller { state, transport, address } = &mut member.is else {
                out.emit(&metrics.namespace, &[&member.name, name], 1.0);
                continue;
            };
            let mut buffers: [Short; 3] = [[0; 128]; 3];
            let [of_state, of_transport, of_address] = &mut buffers;
            let state = known_state(state.required(of_state)?);
            let transport = String::from_utf8_lossy(transport.required(of_transport)?);
            address.required(of_address)?;
            for known in STATES {
                let is_it = f64::from(u8::from(known == state));
                out.emit(&metrics.state, &[&member.name, known, name, &transport], is_it);
            }
            paths += 1;
            live += u32::from(state == "live");
        }
        out.emit(&metrics.paths, &[name], f64::from(paths));
        out.emit(&metrics.live, &[name], f64::from(live));
        Ok(())
    }
}

impl Member {
    fn new(entry: &Entry<'_>) -> Option<Self> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let rest = entry.name.strip_prefix("nvme")?;
        if let Some((controller, namespace)) = rest.split_once('n') {
            return (is_number(controller) && is_number(namespace)).then_some(Self::Namespace);
        }
        let attribute = |name: &str| Attribute::new(entry.path().join(name));
        is_number(rest).then(|| Self::Controller {
            state: attribute("state"),
            transport: attribute("transport"),
            address: attribute("address"),
        })
    }
}

fn known_state(said: &[u8]) -> &'static str {
    if said == b"deleting (no IO)" {
        return "deleting";
    }
    STATES.into_iter().find(|state| state.as_bytes() == said).unwrap_or(UNKNOWN)
}
