//! Batteries and mains, `/sys/class/power_supply` (Documentation/ABI/testing/sysfs-class-power).

use super::emit::{Emitter, Metric};
use super::filter::Filter;
use super::sysfs::{
    Attribute, Devices, Entry, Short, int_any_base, is_gone, is_missing, is_without_answer, no_data_if,
};
use super::text::label;
use super::{CollectError, Collector, Setup};
use pegel_proto::metrics::Series;
use std::path::Path;
use std::sync::Arc;

/// Numbers as they are.
const ONE: f64 = 1.0;
/// The kernel says microvolts, microampere, microwatts and so on.
const MICRO: f64 = 1e6;
/// The kernel says tenths of a degree.
const TENTH: f64 = 10.0;

/// The attribute, the metric's name, what the value is divided by.
const NUMBERS: [(&str, &str, f64); 49] = [
    ("authentic", "authentic", ONE),
    ("calibrate", "calibrate", ONE),
    ("capacity", "capacity", ONE),
    ("capacity_alert_max", "capacity_alert_max", ONE),
    ("capacity_alert_min", "capacity_alert_min", ONE),
    ("cycle_count", "cyclecount", ONE),
    ("online", "online", ONE),
    ("present", "present", ONE),
    ("time_to_empty_now", "time_to_empty_seconds", ONE),
    ("time_to_full_now", "time_to_full_seconds", ONE),
    ("current_boot", "current_boot", MICRO),
    ("current_max", "current_max", MICRO),
    ("current_now", "current_ampere", MICRO),
    ("energy_empty", "energy_empty", MICRO),
    ("energy_empty_design", "energy_empty_design", MICRO),
    ("energy_full", "energy_full", MICRO),
    ("energy_full_design", "energy_full_design", MICRO),
    ("energy_now", "energy_watthour", MICRO),
    ("voltage_boot", "voltage_boot", MICRO),
    ("voltage_max", "voltage_max", MICRO),
    ("voltage_max_design", "voltage_max_design", MICRO),
    ("voltage_min", "voltage_min", MICRO),
    ("voltage_min_design", "voltage_min_design", MICRO),
    ("voltage_now", "voltage_volt", MICRO),
    ("voltage_ocv", "voltage_ocv", MICRO),
    ("charge_control_limit", "charge_control_limit", MICRO),
    ("charge_control_limit_max", "charge_control_limit_max", MICRO),
    ("charge_counter", "charge_counter", MICRO),
    ("charge_empty", "charge_empty", MICRO),
    ("charge_empty_design", "charge_empty_design", MICRO),
    ("charge_full", "charge_full", MICRO),
    ("charge_full_design", "charge_full_design", MICRO),
    ("charge_now", "charge_ampere", MICRO),
    ("charge_term_current", "charge_term_current", MICRO),
    ("constant_charge_current", "constant_charge_current", MICRO),
    ("constant_charge_current_max", "constant_charge_current_max", MICRO),
    ("constant_charge_voltage", "constant_charge_voltage", MICRO),
    ("constant_charge_voltage_max", "constant_charge_voltage_max", MICRO),
    ("precharge_current", "precharge_current", MICRO),
    ("input_current_limit", "input_current_limit", MICRO),
    ("power_now", "power_watt", MICRO),
    ("temp", "temp_celsius", TENTH),
    ("temp_alert_max", "temp_alert_max_celsius", TENTH),
    ("temp_alert_min", "temp_alert_min_celsius", TENTH),
    ("temp_ambient", "temp_ambient_celsius", TENTH),
    ("temp_ambient_max", "temp_ambient_max_celsius", TENTH),
    ("temp_ambient_min", "temp_ambient_min_celsius", TENTH),
    ("temp_max", "temp_max_celsius", TENTH),
    ("temp_min", "temp_min_celsius", TENTH),
];

/// Words: the attributes, which are labels of `node_power_supply_info` too, sorted.
const WORDS: [&str; 12] = [
    "capacity_level",
    "charge_type",
    "health",
    "manufacturer",
    "model_name",
    NAME,
    "scope",
    "serial_number",
    "status",
    "technology",
    "type",
    "usb_type",
];

/// The label that has the supply's name; it is no attribute.
const NAME: &str = "power_supply";

struct PowerSupplies {
    supplies: Devices<Supply>,
    filter: Filter,
    numbers: Vec<Metric>,
    info: Metric,
}

/// A supply: those of the attributes that its driver has.
struct Supply {
    /// With the place in the table.
    numbers: Vec<(usize, Attribute)>,
    words: Vec<(&'static str, Attribute)>,
    /// What the words were.
    known: Vec<(&'static str, Box<str>)>,
    /// The series that says so, without words that are empty; none once they changed.
    info: Option<Arc<Series>>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let number = |(attribute, name, _): &(&str, &str, f64)| {
        let help = format!("`{attribute}` of a power supply, in units without prefix.");
        Metric::gauge(&format!("node_power_supply_{name}"), &help, &[NAME])
    };
    Box::new(PowerSupplies {
        supplies: Devices::new(setup.paths.sysfs.join("class/power_supply")),
        filter: setup.settings.power_supplies.clone(),
        numbers: NUMBERS.iter().map(number).collect(),
        info: Metric::gauge("node_power_supply_info", "1, with what a power supply says in words.", &[]),
    })
}

impl Collector for PowerSupplies {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let filter = &self.filter;
        let make =
            |entry: &Entry<'_>| filter.passes(entry.name).then(|| Supply::new(&entry.path(), entry.name));
        let supplies = self.supplies.list(make).map_err(no_data_if(is_missing, "power supplies"))?;
        out.whole(|out| {
            for supply in supplies {
                supply.is.emit(&supply.name, &self.numbers, &self.info, out)?;
            }
            Ok(())
        })
    }
}

impl Supply {
    fn new(dir: &Path, name: &str) -> Self {
        // A driver's attributes are there from the beginning.
        let there = |name: &str| Some(dir.join(name)).filter(|path| path.exists()).map(Attribute::new);
        let numbers = NUMBERS.iter().enumerate();
        Self {
            numbers: numbers.filter_map(|(at, (name, ..))| Some((at, there(name)?))).collect(),
            words: WORDS.iter().filter_map(|name| Some((*name, there(name)?))).collect(),
            info: None,
            known: vec![(NAME, name.into())],
        }
    }

    fn emit(
        &mut self,
        name: &str,
        metrics: &[Metric],
        info: &Metric,
        out: &mut Emitter<'_>,
    ) -> Result<(), CollectError> {
        let mut buffer: Short = [0; 128];
        let silent = |error: &std::io::Error| is_without_answer(error) || is_gone(error);
        for (at, attribute) in &mut self.numbers {
            let Some(text) = attribute.read_unless(&mut buffer, silent)? else { continue };
            let value =
                int_any_base(text).ok_or_else(|| attribute.bad("a whole number is expected", text))?;
            out.emit(&metrics[*at], &[name], value as f64 / NUMBERS[*at].2);
        }
        for (word, attribute) in &mut self.words {
            let text = attribute.read_unless(&mut buffer, silent)?.unwrap_or_default();
            let known = self.known.iter_mut().find(|(known, _)| known == word);
            match known {
                Some((_, known)) if known.as_bytes() == text => continue,
                Some((_, known)) => *known = label(text),
                None if text.is_empty() => continue,
                None => self.known.push((word, label(text))),
            }
            self.info = None;
        }
        let series = self.info.get_or_insert_with(|| {
            let said = self.known.iter().filter(|(_, value)| !value.is_empty());
            info.series_with(said.cloned()).expect("words have different names")
        });
        out.emit_series(series, 1.0);
        Ok(())
    }
}
