//! Errors of memory modules, `/sys/devices/system/edac/mc` (Documentation/admin-guide/RAS).

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Devices, Entry, Short, is_missing, numbered_names};
use super::{CollectError, Collector, Setup};
use std::path::Path;

struct Edac {
    controllers: Devices<Controller>,
    metrics: Metrics,
}

struct Metrics {
    controller: [Metric; 2],
    csrow: [Metric; 2],
    channel: [Metric; 2],
}

/// A memory controller. Its rows and channels are there as long as it is.
struct Controller {
    number: Box<str>,
    /// Correctable, correctable without a place, uncorrectable, the same without a place.
    counts: [Attribute; 4],
    csrows: Vec<Csrow>,
}

struct Csrow {
    number: Box<str>,
    counts: [Attribute; 2],
    channels: Vec<Channel>,
}

struct Channel {
    number: Box<str>,
    label: Attribute,
    correctable: Attribute,
    uncorrectable: Attribute,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let pair = |of: &str, what: &str, labels: &'static [&'static str]| {
        ["correctable", "uncorrectable"].map(|kind| {
            let name = format!("node_edac_{of}{kind}_errors_total");
            Metric::counter(&name, &format!("Memory errors, {kind}, of {what}."), labels)
        })
    };
    Box::new(Edac {
        controllers: Devices::new(setup.paths.sysfs.join("devices/system/edac/mc")),
        metrics: Metrics {
            controller: pair("", "a controller", &["controller"]),
            csrow: pair("csrow_", "a row", &["controller", "csrow"]),
            channel: pair("channel_", "a channel", &["channel", "controller", "csrow", "dimm_label"]),
        },
    })
}

impl Collector for Edac {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let make =
            |entry: &Entry<'_>| entry.numbered("mc").map(|number| Controller::new(&entry.path(), number));
        match self.controllers.list(make) {
            Ok(controllers) => {
                controllers.iter_mut().try_for_each(|controller| controller.is.emit(&self.metrics, out))
            }
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Controller {
    fn new(dir: &Path, number: &str) -> Self {
        let csrow = |name: &String| Csrow::new(&dir.join(name), &name["csrow".len()..]);
        Self {
            number: digits(number),
            counts: ["ce_count", "ce_noinfo_count", "ue_count", "ue_noinfo_count"]
                .map(|name| Attribute::new(dir.join(name))),
            csrows: numbered_names(dir, "csrow").iter().map(csrow).collect(),
        }
    }

    fn emit(&mut self, metrics: &Metrics, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let number: &str = &self.number;
        let mut buffer: Short = [0; 128];
        for (place, count) in self.counts.iter_mut().enumerate() {
            let value = count.number(&mut buffer)? as f64;
            match place % 2 {
                0 => out.emit(&metrics.controller[place / 2], &[number], value),
                _ => out.emit(&metrics.csrow[place / 2], &[number, "unknown"], value),
            }
        }
        for Csrow { number: row, counts, channels } in &mut self.csrows {
            for (metric, count) in metrics.csrow.iter().zip(counts) {
                out.emit(metric, &[number, row], count.number(&mut buffer)? as f64);
            }
            for channel in channels {
                let name = channel.label.read(&mut buffer);
                let name = name.map_or_else(|_| "unknown".into(), dimm_label);
                let labels = [&*channel.number, number, row, &name];
                let value = channel.correctable.number(&mut buffer)?;
                out.emit(&metrics.channel[0], &labels, value as f64);
                if let Ok(value) = channel.uncorrectable.number(&mut buffer) {
                    out.emit(&metrics.channel[1], &labels, value as f64);
                }
            }
        }
        Ok(())
    }
}

impl Csrow {
    fn new(dir: &Path, number: &str) -> Self {
        let attribute = |name: &str| Attribute::new(dir.join(name));
        let channel = |name: String| {
            let number = name.strip_prefix("ch")?.strip_suffix("_ce_count")?;
            number.bytes().all(|b| b.is_ascii_digit()).then(|| Channel {
                number: number.into(),
                label: attribute(&format!("ch{number}_dimm_label")),
                correctable: attribute(&name),
                uncorrectable: attribute(&format!("ch{number}_ue_count")),
            })
        };
        Self {
            number: digits(number),
            counts: ["ce_count", "ue_count"].map(attribute),
            channels: numbered_names(dir, "ch").into_iter().filter_map(channel).collect(),
        }
    }
}

/// The digits that a text begins with.
fn digits(text: &str) -> Box<str> {
    text.chars().take_while(char::is_ascii_digit).collect::<String>().into()
}

/// A module's label as node_exporter has it.
fn dimm_label(label: &[u8]) -> String {
    let label = String::from_utf8_lossy(label).replace('#', "");
    label.replace("csrow", "_csrow").replace("channel", "_channel")
}
