//! Maintenance windows.

use crate::source::probe::maintenance::{Cron, LONGEST, LocalTime, When, Window, Zone};
use pegel_runtime::config::form::Period;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A time of maintenance: once, by `from` and `until`, or again and again, by `cron` and `lasts`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"], "x-renamed" = {"timezone": "zone", "duration": "lasts"}))]
pub struct RawMaintenance {
    /// What it is called in logs.
    pub name: String,
    /// The checks that it is for; without any, all, containers' excepted.
    pub checks: Vec<String>,
    /// When it begins: minute, hour, day of the month, month, day of the week, as cron has them. `30 22 * * sat` is
    /// every Saturday at half past ten in the evening.
    pub cron: Option<String>,
    /// How long it lasts from there, in whole minutes.
    pub lasts: Option<Period>,
    /// When a single one begins, `2026-12-24 22:00`.
    pub from: Option<String>,
    /// When it ends.
    pub until: Option<String>,
    /// The time zone of all that, as in /usr/share/zoneinfo.
    pub zone: String,
}

impl Default for RawMaintenance {
    fn default() -> Self {
        Self {
            name: String::new(),
            checks: Vec::new(),
            cron: None,
            lasts: None,
            from: None,
            until: None,
            zone: "UTC".to_owned(),
        }
    }
}

impl RawMaintenance {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Option<Window> {
        if self.name.is_empty() {
            mistakes.at(&path.key("name"), "is empty", "give the window a name");
        }
        let zone = Zone::named(&self.zone)
            .map_err(|error| {
                let reason = format!("`{}` is no time zone: {error}", self.zone.escape_debug());
                mistakes.at(
                    &path.key("zone"),
                    reason,
                    "write one such as Europe/Berlin; the package tzdata has them",
                );
            })
            .ok();
        let once = self.from.is_some() || self.until.is_some();
        let recurring = self.cron.is_some() || self.lasts.is_some();
        if once == recurring {
            let reason =
                if once { "says both when it is once and when it recurs" } else { "does not say when it is" };
            mistakes.at(path, reason, "give from and until, or cron and lasts");
            return None;
        }
        let missing = |key: &str, with: &str, mistakes: &mut Mistakes| {
            mistakes.at(
                &path.key(key),
                format!("is missing beside {with}"),
                format!("give both {with} and {key}"),
            );
        };
        if once {
            for (key, with, value) in [("from", "until", &self.from), ("until", "from", &self.until)] {
                if value.is_none() {
                    missing(key, with, mistakes);
                }
            }
            let mut instant = |key: &str, text: &Option<String>| {
                let text = text.as_ref()?;
                let found = LocalTime::parse(text).map(|time| zone.as_ref()?.instant(time));
                // Of a zone that is not known it was said already.
                if found.is_none() || (zone.is_some() && found == Some(None)) {
                    let reason = format!("`{}` is no time in zone {}", text.escape_debug(), self.zone);
                    mistakes.at(&path.key(key), reason, "write it as 2026-12-24 22:00");
                }
                found?
            };
            let (from_ms, until_ms) = (instant("from", &self.from)?, instant("until", &self.until)?);
            if until_ms <= from_ms {
                mistakes.at(&path.key("until"), "is not after its begin", "swap them, or correct one");
            }
            return Some(Window::new(&self.name, When::Once { from_ms, until_ms }));
        }
        if self.cron.is_none() {
            missing("cron", "lasts", mistakes);
        }
        let Some(lasts) = &self.lasts else {
            missing("lasts", "cron", mistakes);
            return None;
        };
        if lasts.0 < Duration::from_mins(1) || lasts.0 > LONGEST || lasts.0.as_millis() % 60_000 != 0 {
            let reason = format!("`{lasts}` is no length that works");
            mistakes.at(&path.key("lasts"), reason, "use whole minutes, from 1m to 7d");
        }
        let cron = Cron::parse(self.cron.as_ref()?)
            .map_err(|error| {
                let remedy =
                    "write minute, hour, day of the month, month and day of the week, as in `30 22 * * sat`";
                mistakes.at(&path.key("cron"), error, remedy);
            })
            .ok()?;
        Some(Window::new(&self.name, When::Recurring { cron, zone: zone?, lasts: lasts.0.min(LONGEST) }))
    }
}
