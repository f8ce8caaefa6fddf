//! A sensor: files `TYPEn_ELEMENT` of a chip, as `temp1_input`.

use super::super::emit::{Emitter, Metric};
use super::super::sysfs::{Attribute, Short};
use super::super::text::{float, label};
use super::{Metrics, cleaned};
use pegel_proto::metrics::MetricType;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::Path;

/// The types that are sensors.
const TYPES: [&str; 14] = [
    "vrm",
    "beep_enable",
    "update_interval",
    "in",
    "cpu",
    "fan",
    "pwm",
    "temp",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
    "freq",
];

const LABELS: &[&str] = &["chip", "sensor"];

/// Thousandths: the result of multiplying, which is not always that of dividing by a thousand.
const MILLI: f64 = 0.001;
const MICRO: f64 = 1_000_000.0;

/// A sensor of a chip.
pub(super) struct Sensor {
    kind: &'static str,
    name: Box<str>,
    /// What the sensor is called; read when the chip is listed.
    label: Option<Box<str>>,
    elements: Vec<Element>,
}

/// A value of a sensor.
struct Element {
    /// What follows the number, as `input`; empty for the file that has no more than type and number.
    name: Box<str>,
    /// The files; of those that can be read the first one counts.
    files: Vec<Attribute>,
    /// How the value is told, without and with a sensor's nameless element beside it.
    told: [Telling; 2],
}

/// How a value is told, as soon as that was asked.
#[derive(Default)]
enum Telling {
    #[default]
    NotAsked,
    /// It has no metric.
    Not,
    As(Told),
}

/// How a value is told.
struct Told {
    metric: Metric,
    scale: Scale,
    /// What stands in the place of the sensor's name.
    sensor: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    One,
    Milli,
    Micro,
    /// 1 if the file says `1`.
    Switch,
}

/// The sensors of a chip: the files of its directory and of its device's, where old drivers put them.
pub(super) fn find(dir: &Path) -> io::Result<Vec<Sensor>> {
    let mut found: BTreeMap<String, Sensor> = BTreeMap::new();
    let device = dir.join("device");
    let dirs = [Some(dir), device.exists().then_some(&device)];
    for dir in dirs.into_iter().flatten() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let file_name = entry.file_name();
            let Some((kind, number, element)) = file_name.to_str().and_then(parts) else { continue };
            let name = format!("{kind}{number}");
            let sensor = match found.entry(name) {
                Entry::Occupied(at) => at.into_mut(),
                Entry::Vacant(at) => {
                    let name = at.key().as_str().into();
                    at.insert(Sensor { kind, name, label: None, elements: Vec::new() })
                }
            };
            let mut file = Attribute::new(entry.path());
            if element == "label" {
                let mut buffer: Short = [0; 128];
                // The device's own directory has the last word.
                sensor.label =
                    file.read_raw(&mut buffer).ok().map(trimmed).map(label).or(sensor.label.take());
            } else {
                sensor.add(element, file);
            }
        }
    }
    let mut sensors: Vec<Sensor> = found.into_values().collect();
    for sensor in &mut sensors {
        sensor.elements.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(sensors)
}

impl Sensor {
    /// Type and number.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn add(&mut self, element: &str, file: Attribute) {
        if let Some(known) = self.elements.iter_mut().find(|known| *known.name == *element) {
            known.files.insert(0, file);
        } else {
            let element = Element { name: element.into(), files: vec![file], told: Default::default() };
            self.elements.push(element);
        }
    }

    /// Emits what the files say now; what cannot be read or is no number has no sample.
    pub(super) fn emit(&mut self, chip: &str, metrics: &mut Metrics, out: &mut Emitter<'_>) {
        if let Some(label) = &self.label {
            out.emit(&metrics.sensor_label, &[chip, label, &self.name], 1.0);
        }
        // The nameless element sorts first.
        let mut has_nameless = false;
        for element in &mut self.elements {
            let mut buffer: Short = [0; 128];
            let Some(text) = element.read(&mut buffer) else { continue };
            has_nameless |= element.name.is_empty();
            let telling = &mut element.told[usize::from(has_nameless)];
            if matches!(telling, Telling::NotAsked) {
                let told = told(self.kind, &element.name, has_nameless, self.label.as_deref(), metrics);
                *telling = told.map_or(Telling::Not, Telling::As);
            }
            let Telling::As(told) = telling else { continue };
            let value = match told.scale {
                Scale::Switch => f64::from(u8::from(text == b"1")),
                scale => match float(text) {
                    Some(value) => scale.apply(value),
                    None => continue,
                },
            };
            out.emit(&told.metric, &[chip, told.sensor.as_ref().unwrap_or(&self.name)], value);
        }
    }
}

impl Element {
    fn read<'a>(&mut self, buffer: &'a mut Short) -> Option<&'a [u8]> {
        let length = self.files.iter_mut().find_map(|file| Some(file.read_raw(buffer).ok()?.len()))?;
        Some(trimmed(&buffer[..length]))
    }
}

impl Scale {
    fn apply(self, value: f64) -> f64 {
        match self {
            Self::One | Self::Switch => value,
            Self::Milli => value * MILLI,
            Self::Micro => value / MICRO,
        }
    }
}

/// How an element is told; none for what has no metric. A sensor whose `kind` is a switch of the whole chip has
/// one value only, that of its nameless element.
fn told(
    kind: &'static str,
    element: &str,
    has_nameless: bool,
    label: Option<&str>,
    metrics: &mut Metrics,
) -> Option<Told> {
    let of_chip = |name: &str, scale| {
        element.is_empty().then(|| (format!("node_hwmon_{name}"), scale, MetricType::Gauge))
    };
    let mut sensor = None;
    let (name, scale, metric_type) = match kind {
        "beep_enable" => of_chip("beep_enabled", Scale::Switch)?,
        "vrm" => of_chip("voltage_regulator_version", Scale::One)?,
        "update_interval" => of_chip("update_interval_seconds", Scale::Milli)?,
        "freq" if element == "input" => {
            let nameless = if has_nameless { "_input" } else { "" };
            sensor = Some(cleaned(label?).into());
            (format!("node_hwmon_freq{nameless}_freq_mhz"), Scale::Micro, MetricType::Gauge)
        }
        _ => {
            let (unit, scale, metric_type) = unit(kind, element);
            let own = match element {
                "" => String::new(),
                "input" if !has_nameless => String::new(),
                _ => format!("_{}", cleaned(element)),
            };
            (format!("node_hwmon_{kind}{own}{unit}"), scale, metric_type)
        }
    };
    let metric = metrics.named.entry(name.as_str().into()).or_insert_with(|| {
        let help = match scale {
            Scale::Switch => "1 if it is on, 0 if not.".to_owned(),
            _ => format!("What a chip says of its sensors (`{kind}`)."),
        };
        Metric::new(&name, &help, metric_type, LABELS)
    });
    Some(Told { metric: metric.clone(), scale, sensor })
}

/// The unit that a metric's name ends in, how the value comes to it, and the metric's type.
fn unit(kind: &str, element: &str) -> (&'static str, Scale, MetricType) {
    let gauge = |unit, scale| (unit, scale, MetricType::Gauge);
    match (kind, element) {
        (_, "fault" | "alarm") | ("temp", "type") => gauge("", Scale::One),
        (_, "beep") => gauge("_enabled", Scale::One),
        ("in" | "cpu", _) => gauge("_volts", Scale::Milli),
        ("temp", _) => gauge("_celsius", Scale::Milli),
        ("curr", _) => gauge("_amps", Scale::Milli),
        ("energy", _) => ("_joule_total", Scale::Micro, MetricType::Counter),
        ("power", "accuracy") | ("humidity", _) => gauge("", Scale::Micro),
        ("power", "average_interval" | "average_interval_min" | "average_interval_max") => {
            gauge("_seconds", Scale::Milli)
        }
        ("power", _) => gauge("_watt", Scale::Micro),
        ("fan", "input" | "min" | "max" | "target") => gauge("_rpm", Scale::One),
        _ => gauge("", Scale::One),
    }
}

/// Type, number and element of a file's name; none if it is no sensor's.
fn parts(name: &str) -> Option<(&'static str, u32, &str)> {
    let end = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    let kind = TYPES.into_iter().find(|kind| *kind == &name[..end])?;
    let rest = &name[end..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, rest) = rest.split_at(end);
    let number = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let element = match rest {
        "" => "",
        rest => rest.strip_prefix('_').filter(|element| !element.is_empty())?,
    };
    Some((kind, number, element))
}

/// A value without the ends of lines around it.
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b'\n', rest @ ..] | [rest @ .., b'\n'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_have_their_parts() {
        assert_eq!(parts("temp1_input"), Some(("temp", 1, "input")));
        assert_eq!(parts("power1_average_interval_max"), Some(("power", 1, "average_interval_max")));
        assert_eq!(parts("pwm02"), Some(("pwm", 2, "")));
        assert_eq!(parts("beep_enable"), Some(("beep_enable", 0, "")));
        for name in ["name", "temp1_", "temp1x", "temp_max", "temp99999999999", "uevent", "", "1"] {
            assert_eq!(parts(name), None, "{name}");
        }
    }
}
