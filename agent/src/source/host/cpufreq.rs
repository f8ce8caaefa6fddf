//! Clock rates of processors, `/sys/devices/system/cpu/cpuN/cpufreq` (Documentation/admin-guide/pm/cpufreq.rst).
//!
//! Processors whose rates change together share a directory, which is read once for all of them.

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Devices, Entry, Page, Short, is_out_of_reach};
use super::text::{label, uint};
use super::{CollectError, Collector, Setup};
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

/// The kernel says kilohertz.
const HERTZ: f64 = 1000.0;

/// The attribute, the metric's name, its help.
const RATES: [(&str, &str, &str); 7] = [
    ("cpuinfo_cur_freq", "frequency_hertz", "The rate, as the hardware says."),
    ("cpuinfo_avg_freq", "frequency_avg_hertz", "The average rate, as the hardware says."),
    ("cpuinfo_min_freq", "frequency_min_hertz", "The lowest rate that the hardware can."),
    ("cpuinfo_max_freq", "frequency_max_hertz", "The highest rate that the hardware can."),
    ("scaling_cur_freq", "scaling_frequency_hertz", "The rate, as the scaling driver knows it."),
    ("scaling_min_freq", "scaling_frequency_min_hertz", "The lowest rate that is allowed."),
    ("scaling_max_freq", "scaling_frequency_max_hertz", "The highest rate that is allowed."),
];

/// Attributes that every policy has; a directory without them is none.
const EVERY_POLICY_HAS: [&str; 5] =
    ["scaling_available_governors", "scaling_driver", "scaling_governor", "related_cpus", "scaling_setspeed"];

struct Cpufreq {
    offline: Attribute,
    processors: Devices<Option<PathBuf>>,
    policies: Vec<Policy>,
    rates: Vec<Metric>,
    governor: Metric,
}

/// A directory, and what it said in this scrape.
struct Policy {
    dir: PathBuf,
    read_at: Option<u64>,
    rates: [(Attribute, Option<f64>); RATES.len()],
    governors: Attribute,
    governor: Attribute,
    /// The governors that there are, and which one is chosen.
    known: Vec<Box<str>>,
    chosen: Box<str>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let root = setup.paths.sysfs.join("devices/system/cpu");
    let rate =
        |(_, name, help): &(&str, &str, &str)| Metric::gauge(&format!("node_cpu_{name}"), help, &["cpu"]);
    Box::new(Cpufreq {
        offline: Attribute::new(root.join("offline")),
        processors: Devices::new(root),
        policies: Vec::new(),
        rates: RATES.iter().map(rate).collect(),
        governor: Metric::gauge(
            "node_cpu_scaling_governor",
            "1 for the governor that chooses the rate, 0 for the others that there are.",
            &["cpu", "governor"],
        ),
    })
}

impl Collector for Cpufreq {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let dir = self.processors.dir().to_path_buf();
        let policies = &mut self.policies;
        let make = |entry: &Entry<'_>| {
            let number = entry.numbered("cpu")?;
            debug_assert!(!number.is_empty());
            Some(fs::canonicalize(entry.path().join("cpufreq")).ok())
        };
        // Whatever names the processors: a policy that nobody leads to is forgotten.
        let listed = self.processors.list(make);
        let mut page: Page = [0; 4096];
        let offline = self.offline.required(&mut page)?;
        let processors = match listed {
            Ok(processors) if !processors.is_empty() => processors,
            Ok(_) => {
                let source = Error::new(ErrorKind::NotFound, "it has no processors");
                return Err(CollectError::Read { path: dir, source });
            }
            Err(error) => return Err(error),
        };
        policies.retain(|policy| processors.iter().any(|cpu| cpu.is.as_deref() == Some(&*policy.dir)));
        out.whole(|out| {
            for processor in processors {
                let Some(dir) = &mut processor.is else { continue };
                let number = processor.name.trim_start_matches("cpu");
                if uint(number.as_bytes()).is_some_and(|number| lists(offline, number)) {
                    continue;
                }
                let at = policies.iter().position(|policy| policy.dir == *dir).unwrap_or_else(|| {
                    policies.push(Policy::new(dir));
                    policies.len() - 1
                });
                let policy = &mut policies[at];
                policy.read(out.scrape())?;
                for (metric, (_, rate)) in self.rates.iter().zip(&policy.rates) {
                    if let Some(rate) = rate {
                        out.emit(metric, &[number], rate * HERTZ);
                    }
                }
                for governor in policy.known.iter().filter(|_| !policy.chosen.is_empty()) {
                    let chosen = f64::from(u8::from(*governor == policy.chosen));
                    out.emit(&self.governor, &[number, governor], chosen);
                }
            }
            Ok(())
        })
    }
}

impl Policy {
    fn new(dir: &Path) -> Self {
        let attribute = |name: &str| Attribute::new(dir.join(name));
        Self {
            dir: dir.to_path_buf(),
            read_at: None,
            rates: RATES.map(|(name, ..)| (attribute(name), None)),
            governors: attribute("scaling_available_governors"),
            governor: attribute("scaling_governor"),
            known: Vec::new(),
            chosen: Box::default(),
        }
    }

    fn read(&mut self, scrape: u64) -> Result<(), CollectError> {
        if self.read_at == Some(scrape) {
            return Ok(());
        }
        if self.read_at.is_none() {
            for name in EVERY_POLICY_HAS {
                let path = self.dir.join(name);
                fs::metadata(&path).map_err(|source| CollectError::Read { path, source })?;
            }
        }
        let mut buffer: Short = [0; 128];
        for (attribute, rate) in &mut self.rates {
            *rate = match attribute.number(&mut buffer) {
                Ok(kilohertz) => Some(kilohertz as f64),
                Err(error) if is_out_of_reach(&error) => None,
                Err(error) => return Err(error),
            };
        }
        let governors = self.governors.required(&mut buffer)?;
        let names = || governors.split(|b| *b == b' ');
        if !names().eq(self.known.iter().map(|name| name.as_bytes())) {
            self.known = names().map(label).collect();
        }
        let governor = self.governor.required(&mut buffer)?;
        if governor != self.chosen.as_bytes() {
            self.chosen = label(governor);
        }
        self.read_at = Some(scrape);
        Ok(())
    }
}

/// Whether a list such as `1,3-5` (Documentation/core-api/cpu-lists) has the number.
fn lists(list: &[u8], number: u64) -> bool {
    list.split(|b| *b == b',').any(|part| {
        let mut ends = part.splitn(2, |b| *b == b'-').map(uint);
        let first = ends.next().flatten();
        let last = ends.next().unwrap_or(first);
        first.zip(last).is_some_and(|(first, last)| (first..=last).contains(&number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_searched() {
        for number in [1, 3, 4, 5, 9] {
            assert!(lists(b"1,3-5,9", number), "{number}");
        }
        for number in [0, 2, 6, 8, 10] {
            assert!(!lists(b"1,3-5,9", number), "{number}");
        }
        assert!(!lists(b"", 0) && !lists(b"x-y", 0));
    }
}
