//! Hardware watchdogs, `/sys/class/watchdog` (Documentation/ABI/testing/sysfs-class-watchdog).

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Devices, Entry, Short, int_any_base, is_out_of_reach, no_data_if};
use super::{CollectError, Collector, Setup};
use std::borrow::Cow;
use std::io::ErrorKind;

/// The attribute, the metric's name, its help.
const NUMBERS: [(&str, &str, &str); 7] = [
    ("bootstatus", "bootstatus", "Why the machine was booted, as flags (WDIOF_*)."),
    ("fw_version", "fw_version", "The version of the watchdog's firmware."),
    ("nowayout", "nowayout", "1 if the watchdog cannot be stopped."),
    ("timeleft", "timeleft_seconds", "Time until the machine is reset."),
    ("timeout", "timeout_seconds", "Time from a sign of life to the reset."),
    ("pretimeout", "pretimeout_seconds", "How long before the reset there is a warning."),
    ("access_cs0", "access_cs0", "1 if the machine was booted from the other flash chip."),
];

/// Words, in the order of the labels; `name` stands between.
const WORDS: [&str; 5] = ["identity", "options", "pretimeout_governor", "state", "status"];

struct Watchdogs {
    devices: Devices<Watchdog>,
    numbers: Vec<Metric>,
    info: Metric,
}

struct Watchdog {
    numbers: [Attribute; NUMBERS.len()],
    words: [Attribute; WORDS.len()],
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let number = |(_, name, help): &(&str, &str, &str)| {
        Metric::gauge(&format!("node_watchdog_{name}"), help, &["name"])
    };
    Box::new(Watchdogs {
        devices: Devices::new(setup.paths.sysfs.join("class/watchdog")),
        numbers: NUMBERS.iter().map(number).collect(),
        info: Metric::gauge(
            "node_watchdog_info",
            "1, with what a watchdog says in words.",
            &["identity", "name", "options", "pretimeout_governor", "state", "status"],
        ),
    })
}

impl Collector for Watchdogs {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        out.whole(|out| {
            let make = |entry: &Entry<'_>| {
                let dir = entry.path();
                Some(Watchdog {
                    numbers: NUMBERS.map(|(name, ..)| Attribute::new(dir.join(name))),
                    words: WORDS.map(|name| Attribute::new(dir.join(name))),
                })
            };
            for watchdog in self.devices.list(make)? {
                watchdog.is.emit(&watchdog.name, &self.numbers, &self.info, out)?;
            }
            Ok(())
        })
        .map_err(no_data_if(is_out_of_reach, "watchdogs, or not for us"))
    }
}

impl Watchdog {
    fn emit(
        &mut self,
        name: &str,
        numbers: &[Metric],
        info: &Metric,
        out: &mut Emitter<'_>,
    ) -> Result<(), CollectError> {
        let missing = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
        let mut buffer: Short = [0; 128];
        for (attribute, metric) in self.numbers.iter_mut().zip(numbers) {
            let Some(text) = attribute.read_unless(&mut buffer, missing)? else { continue };
            let value = int_any_base(text).ok_or_else(|| attribute.bad("a number is expected", text))?;
            out.emit(metric, &[name], value as f64);
        }
        let mut buffers: [Short; WORDS.len()] = [[0; 128]; WORDS.len()];
        let mut words = [const { Cow::Borrowed("") }; WORDS.len()];
        for ((attribute, buffer), word) in self.words.iter_mut().zip(&mut buffers).zip(&mut words) {
            *word = String::from_utf8_lossy(attribute.read_unless(buffer, missing)?.unwrap_or_default());
        }
        let [identity, options, governor, state, status] = &words;
        out.emit(info, &[identity, name, options, governor, state, status], 1.0);
        Ok(())
    }
}
