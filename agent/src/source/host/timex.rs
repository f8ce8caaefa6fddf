//! How the kernel disciplines its clock, by `adjtimex(2)`.

use super::adjtimex::ClockState;
use super::emit::{Emitter, Metric};
use super::{CollectError, Collector, Setup, System};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// `TIME_ERROR`: the clock is not synchronised.
const UNSYNCHRONISED: i32 = 5;
/// `STA_NANO`: offset and jitter are in nanoseconds.
const STA_NANO: i32 = 0x2000;
const NANOS_PER_SECOND: f64 = 1e9;
const MICROS_PER_SECOND: f64 = 1e6;
/// Parts per million with 16 bits after the point, in one.
const SCALED_PPM: f64 = 1_000_000.0 * 65536.0;

/// What a sandbox answers, `EPERM` and `EACCES`.
const FORBIDDEN: [i32; 2] = [1, 13];

/// A value out of the kernel's structure, in the metric's unit.
type Value = fn(&ClockState) -> f64;

const GAUGES: [(&str, Value, &str); 12] = [
    (
        "sync_status",
        |state| f64::from(u8::from(state.state != UNSYNCHRONISED)),
        "1 if the clock is synchronised, 0 if not.",
    ),
    ("offset_seconds", |state| state.offset as f64 / fine_unit(state), "Offset to the reference clock."),
    ("frequency_adjustment_ratio", |state| 1.0 + state.freq as f64 / SCALED_PPM, "Frequency adjustment."),
    ("maxerror_seconds", |state| state.maxerror as f64 / MICROS_PER_SECOND, "Greatest error."),
    ("estimated_error_seconds", |state| state.esterror as f64 / MICROS_PER_SECOND, "Estimated error."),
    ("status", |state| f64::from(state.status), "The status bits STA_… of adjtimex(2)."),
    ("loop_time_constant", |state| state.constant as f64, "Time constant of the phase-locked loop."),
    ("tick_seconds", |state| state.tick as f64 / MICROS_PER_SECOND, "Time between two ticks."),
    ("pps_frequency_hertz", |state| state.ppsfreq as f64 / SCALED_PPM, "Frequency of the pulse per second."),
    ("pps_jitter_seconds", |state| state.jitter as f64 / fine_unit(state), "Jitter of the pulse per second."),
    ("pps_shift_seconds", |state| f64::from(state.shift), "Interval of the pulse per second."),
    ("pps_stability_hertz", |state| state.stabil as f64 / SCALED_PPM, "Stability of the pulse per second."),
];

const COUNTERS: [(&str, Value, &str); 4] = [
    ("pps_jitter_total", |state| state.jitcnt as f64, "How often the pulse's jitter was over its limit."),
    ("pps_calibration_total", |state| state.calcnt as f64, "Calibration intervals."),
    ("pps_error_total", |state| state.errcnt as f64, "Calibration errors."),
    (
        "pps_stability_exceeded_total",
        |state| state.stbcnt as f64,
        "How often the pulse's stability was over its limit.",
    ),
];

/// The units of offset and jitter in a second.
fn fine_unit(state: &ClockState) -> f64 {
    if state.status & STA_NANO == 0 { MICROS_PER_SECOND } else { NANOS_PER_SECOND }
}

struct Timex {
    system: Arc<dyn System>,
    metrics: Vec<(Metric, Value)>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let name = |name: &str| format!("node_timex_{name}");
    let gauges = GAUGES.iter().map(|(n, value, help)| (Metric::gauge(&name(n), help, &[]), *value));
    let counters = COUNTERS.iter().map(|(n, value, help)| (Metric::counter(&name(n), help, &[]), *value));
    let tai: Value = |state| f64::from(state.tai);
    let tai = (Metric::gauge(&name("tai_offset_seconds"), "Seconds from UTC to atomic time.", &[]), tai);
    Box::new(Timex { system: setup.system.clone(), metrics: gauges.chain(counters).chain([tai]).collect() })
}

impl Collector for Timex {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let state = self.system.clock_state().map_err(|number| {
            if FORBIDDEN.contains(&number) {
                return CollectError::NoData("clock that this process may ask: adjtimex(2) is forbidden");
            }
            let source = io::Error::from_raw_os_error(number);
            CollectError::Read { path: PathBuf::from("adjtimex(2)"), source }
        })?;
        for (metric, value) in &self.metrics {
            out.emit(metric, &[], value(&state));
        }
        Ok(())
    }
}
