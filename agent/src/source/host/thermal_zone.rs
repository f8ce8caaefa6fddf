//! Thermal zones and what cools them, `/sys/class/thermal` (Documentation/driver-api/thermal/sysfs-api.rst).

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Devices, Entry, Short, int_any_base, is_missing, is_without_answer};
use super::{CollectError, Collector, Setup};

/// The kernel says thousandths of a degree.
const MILLI: f64 = 1000.0;

struct ThermalZone {
    things: Devices<Thing>,
    temperature: Metric,
    state: Metric,
    max_state: Metric,
}

enum Thing {
    Zone { number: Box<str>, kind: Attribute, temperature: Attribute },
    Cooling { number: Box<str>, kind: Attribute, state: Attribute, max_state: Attribute },
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(ThermalZone {
        things: Devices::new(setup.paths.sysfs.join("class/thermal")),
        temperature: Metric::gauge(
            "node_thermal_zone_temp",
            "A zone's temperature, in degrees Celsius.",
            &["type", "zone"],
        ),
        state: Metric::gauge(
            "node_cooling_device_cur_state",
            "How far a cooling device is in action.",
            &["name", "type"],
        ),
        max_state: Metric::gauge(
            "node_cooling_device_max_state",
            "How far a cooling device can go.",
            &["name", "type"],
        ),
    })
}

impl Thing {
    fn new(entry: &Entry<'_>) -> Option<Self> {
        let attribute = |name: &str| Attribute::new(entry.path().join(name));
        if let Some(number) = entry.numbered("thermal_zone") {
            return Some(Self::Zone {
                number: number.into(),
                kind: attribute("type"),
                temperature: attribute("temp"),
            });
        }
        entry.numbered("cooling_device").map(|number| Self::Cooling {
            number: number.into(),
            kind: attribute("type"),
            state: attribute("cur_state"),
            max_state: attribute("max_state"),
        })
    }
}

impl Collector for ThermalZone {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let things = match self.things.list(Thing::new) {
            Ok(things) => things,
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let (mut words, mut digits): (Short, Short) = ([0; 128], [0; 128]);
        for thing in &mut *things {
            if let Thing::Zone { number, kind, temperature } = &mut thing.is {
                let kind = kind.read(&mut words).unwrap_or_default();
                let kind = String::from_utf8_lossy(kind);
                // As in node_exporter, a sensor that gives no answer stands at zero.
                let value = temperature.read(&mut digits).ok().and_then(int_any_base).unwrap_or(0);
                out.emit(&self.temperature, &[&kind, number], value as f64 / MILLI);
            }
        }
        for thing in things {
            let Thing::Cooling { number, kind, state, max_state } = &mut thing.is else { continue };
            let Some(kind) = kind.read_unless(&mut words, is_without_answer)? else { continue };
            let kind = String::from_utf8_lossy(kind);
            let (Some(now), Some(most)) = (level(state, &mut digits)?, level(max_state, &mut digits)?) else {
                continue;
            };
            out.emit(&self.state, &[number, &kind], now as f64);
            out.emit(&self.max_state, &[number, &kind], most as f64);
        }
        Ok(())
    }
}

/// A state; none if the driver does not say.
fn level(attribute: &mut Attribute, buffer: &mut Short) -> Result<Option<i64>, CollectError> {
    match attribute.read_unless(buffer, is_without_answer)? {
        None => Ok(None),
        Some(text) => int_any_base(text).map(Some).ok_or_else(|| attribute.bad("a number is expected", text)),
    }
}
