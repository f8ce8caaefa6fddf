//! Processor time from `/proc/stat` (Documentation/filesystems/proc.rst), throttling, isolation and state from
//! `/sys/devices/system/cpu`.

use super::cpuinfo::CpuInfo;
use super::emit::{Emitter, Metric};
use super::file::{Content, SharedFile};
use super::text::{fields, label, lines, uint};
use super::topology::Topology;
use super::{CollectError, Collector, Setup};
use std::path::PathBuf;
use std::sync::Arc;

/// What the kernel counts a second in: `USER_HZ` is 100 on every architecture that Linux runs on today.
const USER_HZ: f64 = 100.0;

/// If a processor's idle time falls by this many seconds it was unplugged and plugged in again, and all its
/// counters begin anew. Less is jitter of the kernel's own accounting.
const REPLUGGED_IDLE_SECONDS: f64 = 3.0;

/// The modes in the order of the kernel's columns. The last two are the guests' part of `user` and `nice`.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
const GUEST_MODES: [&str; 2] = ["user", "nice"];
const IDLE: usize = 3;

struct Cpu {
    stat: Arc<SharedFile>,
    sysfs_cpus: PathBuf,
    guest: bool,
    seconds: Metric,
    guest_seconds: Metric,
    processors: Vec<Processor>,
    topology: Option<Topology>,
    info: Option<CpuInfo>,
}

struct Processor {
    number: Box<str>,
    /// The greatest values so far, in seconds: the kernel's counters fall now and then by a tick.
    seconds: [f64; 10],
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let settings = setup.settings;
    let info = || {
        // Frequencies belong to the collector that reads them elsewhere.
        let frequency = settings.collectors.iter().any(|kind| kind.name() == "cpufreq");
        let (flags, bugs) = (settings.cpu_flags.clone(), settings.cpu_bugs.clone());
        CpuInfo::new(&setup.paths.procfs, frequency, flags, bugs)
    };
    Box::new(Cpu {
        info: settings.cpu_info.then(info),
        stat: setup.stat.clone(),
        sysfs_cpus: setup.paths.sysfs.join("devices/system/cpu"),
        guest: setup.settings.cpu_guest,
        seconds: Metric::counter(
            "node_cpu_seconds_total",
            "Seconds that a processor spent in a mode.",
            &["cpu", "mode"],
        ),
        guest_seconds: Metric::counter(
            "node_cpu_guest_seconds_total",
            "Seconds that a processor spent running guests; `user` and `nice` count them too.",
            &["cpu", "mode"],
        ),
        processors: Vec::new(),
        topology: None,
    })
}

impl Collector for Cpu {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        if let Some(info) = &mut self.info {
            info.emit(out)?;
        }
        let stat = self.stat.clone();
        let shared = stat.read(out.scrape())?;
        if self.read_stat(shared.content())? {
            self.topology = None;
        }
        drop(shared);
        for processor in &self.processors {
            for (mode, seconds) in MODES.iter().zip(processor.seconds) {
                out.emit(&self.seconds, &[&processor.number, mode], seconds);
            }
            if self.guest {
                for (mode, seconds) in GUEST_MODES.iter().zip(&processor.seconds[MODES.len()..]) {
                    out.emit(&self.guest_seconds, &[&processor.number, mode], *seconds);
                }
            }
        }
        self.topology.get_or_insert_with(|| Topology::read(&self.sysfs_cpus)).emit(out);
        Ok(())
    }
}

impl Cpu {
    /// Takes the processors' lines over; says whether others are there than before.
    fn read_stat(&mut self, text: Content<'_>) -> Result<bool, CollectError> {
        let mut place = 0;
        let mut changed = false;
        for line in lines(text.bytes) {
            let Some(rest) = line.strip_prefix(b"cpu") else {
                // The kernel writes the processors first.
                break;
            };
            let mut columns = fields(rest);
            if rest.first().is_none_or(|b| !b.is_ascii_digit()) {
                continue;
            }
            let number = columns.next().unwrap_or_default();
            if uint(number).is_none() {
                return Err(text.bad("the processor has no number", line));
            }
            let mut now = [0.0; 10];
            for (value, column) in now.iter_mut().zip(columns) {
                let ticks = uint(column).ok_or_else(|| text.bad("a time is not a number", line))?;
                *value = ticks as f64 / USER_HZ;
            }
            changed |= self.place(place, number);
            self.processors[place].advance(now);
            place += 1;
        }
        changed |= place < self.processors.len();
        self.processors.truncate(place);
        Ok(changed)
    }

    /// Sees to it that the processor is at its place; says whether it was not.
    fn place(&mut self, place: usize, number: &[u8]) -> bool {
        let is_it = |processor: &Processor| processor.number.as_bytes() == number;
        if self.processors.get(place).is_some_and(is_it) {
            return false;
        }
        match self.processors.iter().position(is_it) {
            Some(at) if at > place => drop(self.processors.drain(place..at)),
            _ => self.processors.insert(place, Processor { number: label(number), seconds: [0.0; 10] }),
        }
        true
    }
}

impl Processor {
    fn advance(&mut self, now: [f64; 10]) {
        if self.seconds[IDLE] - now[IDLE] >= REPLUGGED_IDLE_SECONDS {
            self.seconds = [0.0; 10];
        }
        for (known, now) in self.seconds.iter_mut().zip(now) {
            *known = known.max(now);
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the same numbers are expected to the last bit")]
mod tests {
    use super::*;

    fn advanced(steps: &[[f64; 2]]) -> [f64; 2] {
        let mut processor = Processor { number: "0".into(), seconds: [0.0; 10] };
        for [user, idle] in steps {
            processor.advance([*user, 0.0, 0.0, *idle, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        }
        [processor.seconds[0], processor.seconds[IDLE]]
    }

    #[test]
    fn counters_do_not_fall_by_jitter_but_restart_after_a_replug() {
        assert_eq!(advanced(&[[5.0, 100.0], [4.99, 98.0]]), [5.0, 100.0]);
        assert_eq!(advanced(&[[5.0, 100.0], [1.0, 97.0]]), [1.0, 97.0]);
    }
}
