//! `objective` of a check: what its users may expect.

use crate::slo::{Latency, Objective};
use pegel_runtime::config::form::Period;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a check's users may expect. `pegel-agent rules` makes Prometheus rules of it: error ratios, what is left of the
/// error budget, and alerts on how fast it burns.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"success": "availability", "slo": "availability"}))]
pub struct RawObjective {
    /// The percentage of runs that succeed, such as 99.9.
    pub availability: Option<f64>,
    /// How fast it answers.
    pub latency: Option<RawLatency>,
    /// The time over which it is looked at.
    pub window: Period,
}

/// How fast a check has to be answered.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["within"]))]
pub struct RawLatency {
    /// How long a good run may take.
    pub within: Period,
    /// The percentage of good runs that are as fast.
    pub percent: f64,
}

impl Default for RawObjective {
    fn default() -> Self {
        Self { availability: None, latency: None, window: Period(Duration::from_hours(30 * 24)) }
    }
}

impl Default for RawLatency {
    fn default() -> Self {
        Self { within: Period(Duration::from_secs(1)), percent: 99.0 }
    }
}

impl RawObjective {
    pub(super) fn resolve(&self, check: &str, path: &Path, mistakes: &mut Mistakes) -> Objective {
        let mut share = |percent: f64, path: &Path| {
            if percent <= 0.0 || percent >= 100.0 || percent.is_nan() {
                let reason = format!("`{percent}` leaves no budget, or nothing but one");
                mistakes.at(path, reason, "use a percentage below 100, such as 99.9");
            }
            percent / 100.0
        };
        let availability = self.availability.map(|percent| share(percent, &path.key("availability")));
        let latency = self.latency.as_ref().map(|latency| Latency {
            share: share(latency.percent, &path.key("latency").key("percent")),
            within: latency.within.0,
        });
        if availability.is_none() && latency.is_none() {
            mistakes.at(path, "says nothing", "add availability, latency or both");
        }
        if self.window.0 < Duration::from_hours(24) {
            let reason = format!("`{}` is shorter than a day", self.window);
            mistakes.at(&path.key("window"), reason, "use 7d, 28d or 30d");
        }
        Objective { check: check.to_owned(), availability, latency, window: self.window.0 }
    }
}
