//! Sensors, `/sys/class/hwmon` (Documentation/hwmon/sysfs-interface.rst).
//!
//! A chip's files and its labels are looked for once, and again every [`RELIST_SCRAPES`] scrapes: a driver puts
//! them there when it finds the chip, and hardly any adds one later.

mod sensor;

use super::emit::{Emitter, Metric};
use super::filter::Filter;
use super::sysfs::{Device, Devices, Entry, is_missing, no_data_if};
use super::text::label;
use super::{CollectError, Collector, Setup};
use sensor::Sensor;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// After how many scrapes a chip's directory is listed again: 5 minutes at 15 seconds each.
const RELIST_SCRAPES: u64 = 20;

struct Hwmon {
    entries: Devices<Chip>,
    wanted_chips: Filter,
    wanted_sensors: Filter,
    metrics: Metrics,
}

/// The metrics by name; most are made of what the drivers call their files.
struct Metrics {
    chip_names: Metric,
    sensor_label: Metric,
    named: BTreeMap<Box<str>, Metric>,
}

/// A directory of the class.
struct Chip {
    dir: PathBuf,
    /// The label `chip`, but for the suffix that tells chips of one device apart; none if it is no directory.
    stable_name: Option<Box<str>>,
    /// What the file `name` says, without blanks around it.
    name_said: Box<str>,
    /// The label `chip_name`.
    driver_name: Option<Box<str>>,
    listed: Option<Listed>,
}

/// What was found in a chip's directory.
struct Listed {
    /// The label `chip` at that time.
    chip: Box<str>,
    until_scrape: u64,
    sensors: Vec<Sensor>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Hwmon {
        entries: Devices::new(setup.paths.sysfs.join("class/hwmon")),
        wanted_chips: setup.settings.hwmon_chips.clone(),
        wanted_sensors: setup.settings.hwmon_sensors.clone(),
        metrics: Metrics {
            chip_names: Metric::gauge(
                "node_hwmon_chip_names",
                "1, with what the driver calls the chip.",
                &["chip", "chip_name"],
            ),
            sensor_label: Metric::gauge(
                "node_hwmon_sensor_label",
                "1, with what the board's maker calls the sensor.",
                &["chip", "label", "sensor"],
            ),
            named: BTreeMap::new(),
        },
    })
}

impl Collector for Hwmon {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let make = |entry: &Entry<'_>| Some(Chip::new(entry.path()));
        let entries = self.entries.list(make).map_err(no_data_if(is_missing, "hardware monitoring"))?;
        let names = labels(entries);
        let mut failed = None;
        for (entry, chip) in entries.iter_mut().zip(names) {
            let Some(chip) = chip.filter(|chip| self.wanted_chips.passes(chip)) else { continue };
            if let Err(error) = entry.is.emit(chip, &self.wanted_sensors, &mut self.metrics, out) {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// The label `chip` of each entry: its base name, and where several have that one, what tells them apart.
fn labels(entries: &[Device<Chip>]) -> Vec<Option<Box<str>>> {
    let label = |entry: &Device<Chip>| {
        let chip = &entry.is;
        let base = chip.stable_name.as_ref()?;
        let namesakes = || entries.iter().filter(|other| other.is.stable_name.as_ref() == Some(base));
        if namesakes().count() == 1 {
            return Some(base.clone());
        }
        let alike = namesakes().filter(|other| other.is.name_said == chip.name_said).count();
        let mut suffix = cleaned(&chip.name_said);
        if suffix.is_empty() || alike > 1 {
            suffix = cleaned(&entry.name);
        }
        Some(format!("{base}_{suffix}").into())
    };
    entries.iter().map(label).collect()
}

impl Chip {
    fn new(dir: PathBuf) -> Self {
        let is_dir = fs::metadata(&dir).is_ok_and(|found| found.is_dir());
        let name_file = fs::read(dir.join("name")).ok().map(|name| label(&name));
        let chip_name = name_file.as_deref().map(cleaned).filter(|name| !name.is_empty());
        Self {
            stable_name: if is_dir { stable_name(&dir, chip_name.as_deref()) } else { None },
            name_said: name_file.unwrap_or_default().trim().into(),
            driver_name: chip_name.map(Into::into),
            listed: None,
            dir,
        }
    }

    fn emit(
        &mut self,
        chip: Box<str>,
        filter: &Filter,
        metrics: &mut Metrics,
        out: &mut Emitter<'_>,
    ) -> Result<(), CollectError> {
        let fresh = |listed: &Listed| out.scrape() < listed.until_scrape && listed.chip == chip;
        let listed = if let Some(listed) = self.listed.take().filter(fresh) {
            self.listed.insert(listed)
        } else {
            let unreadable = |source| CollectError::Read { path: self.dir.clone(), source };
            let mut sensors = sensor::find(&self.dir).map_err(unreadable)?;
            sensors.retain(|sensor| filter.passes(&format!("{chip};{}", sensor.name())));
            let until_scrape = out.scrape() + RELIST_SCRAPES;
            self.listed.insert(Listed { chip, until_scrape, sensors })
        };
        if let Some(name) = &self.driver_name {
            out.emit(&metrics.chip_names, &[&listed.chip, name], 1.0);
        }
        for sensor in &mut listed.sensors {
            sensor.emit(&listed.chip, metrics, out);
        }
        Ok(())
    }
}

/// What stays the same however modules are loaded: the device's bus and name; else what the driver calls itself;
/// else the directory.
fn stable_name(dir: &Path, driver_name: Option<&str>) -> Option<Box<str>> {
    let part = |path: &Path| path.file_name().map(|name| cleaned(&name.to_string_lossy()));
    if let Ok(device) = fs::canonicalize(dir.join("device")) {
        let name = part(&device).unwrap_or_default();
        let bus = device.parent().and_then(part).unwrap_or_default();
        match (bus.is_empty(), name.is_empty()) {
            (false, false) => return Some(format!("{bus}_{name}").into()),
            (true, false) => return Some(name.into()),
            _ => {}
        }
    }
    if let Some(name) = driver_name {
        return Some(name.into());
    }
    let name = part(&fs::canonicalize(dir).ok()?)?;
    (!name.is_empty()).then(|| name.into())
}

/// A name as (a part of) a label or metric name: small letters, digits, colons and underscores.
fn cleaned(name: &str) -> String {
    let clean = |c: char| match c {
        'a'..='z' | '0'..='9' | ':' | '_' => c,
        _ => '_',
    };
    name.to_lowercase().chars().map(clean).collect::<String>().trim_matches('_').to_owned()
}
