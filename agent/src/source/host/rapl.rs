//! Energy that packages, cores and memory took, `/sys/class/powercap` (Documentation/power/powercap/powercap.rst).

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Devices, Entry, Short, is_out_of_reach, no_data_if};
use super::text::label;
use super::{CollectError, Collector, Setup};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The kernel says microjoule.
const MICRO: f64 = 1_000_000.0;

struct Rapl {
    zones: Devices<Zone>,
    /// One metric for all zones, with the zone as a label, if that is wanted.
    labelled: Option<Metric>,
    named: BTreeMap<Box<str>, Metric>,
}

struct Zone {
    path: PathBuf,
    name: Box<str>,
    range: Attribute,
    energy: Attribute,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let labelled = || {
        Metric::counter(
            "node_rapl_joules_total",
            "Energy that a part of the machine took; it wraps around.",
            &["index", "path", "rapl_zone"],
        )
    };
    Box::new(Rapl {
        zones: Devices::new(setup.paths.sysfs.join("class/powercap")),
        labelled: setup.settings.rapl_zone_label.then(labelled),
        named: BTreeMap::new(),
    })
}

impl Collector for Rapl {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        self.emit(out).map_err(no_data_if(is_out_of_reach, "energy counters, or only for root"))
    }
}

impl Rapl {
    fn emit(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let mut buffer: Short = [0; 128];
        let zones = self.zones.list(Zone::new)?;
        for zone in &mut *zones {
            zone.is.range.number(&mut buffer)?;
        }
        let mut used: BTreeMap<&str, i64> = BTreeMap::new();
        for Zone { path, name, energy, .. } in zones.iter_mut().map(|zone| &mut zone.is) {
            let (index, name) = index_and_name(name, &used);
            used.insert(name, index + 1);
            let joules = energy.number(&mut buffer)? as f64 / MICRO;
            let (index, path) = (index.to_string(), path.to_string_lossy());
            if let Some(metric) = &self.labelled {
                out.emit(metric, &[&index, &path, name], joules);
                continue;
            }
            let metric = self.named.entry(name.into()).or_insert_with(|| {
                let help = format!("Energy that `{name}` took; it wraps around.");
                let full = format!("node_rapl_{}_joules_total", in_metric_name(name));
                Metric::counter(&full, &help, &["index", "path"])
            });
            out.emit(metric, &[&index, &path], joules);
        }
        Ok(())
    }
}

impl Zone {
    /// A zone has a name; other entries are control types.
    fn new(entry: &Entry<'_>) -> Option<Self> {
        let mut buffer: Short = [0; 128];
        let path = entry.path();
        let mut name = Attribute::new(path.join("name"));
        Some(Self {
            name: label(name.read(&mut buffer).ok()?),
            range: Attribute::new(path.join("max_energy_range_uj")),
            energy: Attribute::new(path.join("energy_uj")),
            path,
        })
    }
}

/// A zone's number and name: `package-1` has its number behind, others are counted.
fn index_and_name<'a>(name: &'a str, used: &BTreeMap<&str, i64>) -> (i64, &'a str) {
    if let Some((stem, number)) = name.split_once('-')
        && let Ok(number) = number.parse()
    {
        return (number, stem);
    }
    (used.get(name).copied().unwrap_or(0), name)
}

/// A text as a part of a metric's name: what cannot be in one, with underscores around it, becomes an underscore.
fn in_metric_name(text: &str) -> String {
    let mut name = String::new();
    let mut odd = false;
    for c in text.chars() {
        match c {
            '_' if odd => {}
            '0'..='9' | 'a'..='z' | 'A'..='Z' | '_' => {
                odd = false;
                name.push(c);
            }
            _ => {
                odd = true;
                name.truncate(name.trim_end_matches('_').len());
                name.push('_');
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_numbered_by_their_name_or_in_their_order() {
        let used = BTreeMap::from([("dram", 2)]);
        assert_eq!(index_and_name("package-1", &used), (1, "package"));
        assert_eq!(index_and_name("dram", &used), (2, "dram"));
        assert_eq!(index_and_name("package-0-die-1", &used), (0, "package-0-die-1"));
        assert_eq!(in_metric_name("package-0-die-1"), "package_0_die_1");
        assert_eq!(in_metric_name("a_-_b__c"), "a_b__c");
    }
}
