//! The clock, its zone, and the clock sources from `/sys/devices/system/clocksource`
//! (Documentation/ABI/testing/sysfs-devices-system-clocksource).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, label};
use super::topology::numbered;
use super::{CollectError, Collector, Setup, System};
use std::sync::Arc;

struct Time {
    system: Arc<dyn System>,
    now: Metric,
    zone: Metric,
    available: Metric,
    current: Metric,
    sources: Vec<Source>,
}

struct Source {
    device: String,
    available: PolledFile,
    current: PolledFile,
    /// What the files said last, and what that means.
    known: Vec<Box<str>>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let root = setup.paths.sysfs.join("devices/system/clocksource");
    let source = |(place, (_, path)): (usize, (u64, std::path::PathBuf))| Source {
        device: place.to_string(),
        available: PolledFile::new(path.join("available_clocksource")),
        current: PolledFile::new(path.join("current_clocksource")),
        known: Vec::new(),
    };
    Box::new(Time {
        system: setup.system.clone(),
        now: Metric::gauge("node_time_seconds", "The system's time, in seconds since 1970.", &[]),
        zone: Metric::gauge(
            "node_time_zone_offset_seconds",
            "The local time zone's offset from UTC.",
            &["time_zone"],
        ),
        available: Metric::gauge(
            "node_time_clocksource_available_info",
            "1 for each clock source that there is.",
            &["clocksource", "device"],
        ),
        current: Metric::gauge(
            "node_time_clocksource_current_info",
            "1 for the clock source in use.",
            &["clocksource", "device"],
        ),
        sources: numbered(&root, "clocksource").into_iter().enumerate().map(source).collect(),
    })
}

impl Collector for Time {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let now = self.system.now();
        let zone = self.system.zone(now.as_secs() as i64);
        out.emit(&self.now, &[], now.as_nanos() as f64 / 1e9);
        out.emit(&self.zone, &[&zone.name], f64::from(zone.offset_seconds));
        for Source { device, available, current, known } in &mut self.sources {
            let text = available.read()?;
            let names = || fields(text.bytes.trim_ascii_end());
            if !names().eq(known.iter().map(|name| name.as_bytes())) {
                *known = names().map(label).collect();
            }
            for name in known.iter() {
                out.emit(&self.available, &[name, device], 1.0);
            }
            let text = current.read()?;
            let name = String::from_utf8_lossy(text.bytes.trim_ascii());
            out.emit(&self.current, &[&name, device], 1.0);
        }
        Ok(())
    }
}
