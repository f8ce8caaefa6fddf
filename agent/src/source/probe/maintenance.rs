//! Maintenance windows: times during which what a check says is nobody's alarm.
//!
//! A window is either one stretch of time, or begins again and again by a line of five fields as cron has them
//! (minute, hour, day of the month, month, day of the week) in a time zone, and lasts a while each time. Minutes of
//! the real time line are looked at and translated to the zone, never the other way round: a begin that the change
//! to summer time leaves out does not happen, one that the change back repeats happens twice, and no length of a
//! window ever changes.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The longest that a recurring window may last: looking back over it, minute by minute, takes about a millisecond.
pub const LONGEST: Duration = Duration::from_hours(7 * 24);

const MINUTE_MS: i64 = 60_000;

/// A time zone by its name, as in `/usr/share/zoneinfo`.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    name: String,
    zone: tz::TimeZone,
}

impl Zone {
    /// Looks a zone up. `UTC` needs no file.
    pub fn named(name: &str) -> Result<Self, String> {
        let zone = if name == "UTC" {
            tz::TimeZone::utc()
        } else {
            tz::TimeZone::from_posix_tz(name).map_err(|e| e.to_string())?
        };
        Ok(Self { name: name.to_owned(), zone })
    }

    fn local(&self, unix_seconds: i64) -> Option<tz::DateTime> {
        tz::DateTime::from_timespec(unix_seconds, 0, self.zone.as_ref()).ok()
    }

    /// The first instant at which clocks of the zone show a time, in milliseconds since the Unix epoch; none where
    /// they never do.
    pub fn instant(&self, time: LocalTime) -> Option<i64> {
        let LocalTime { year, month, day, hour, minute } = time;
        let found = tz::DateTime::find(year, month, day, hour, minute, 0, 0, self.zone.as_ref()).ok()?;
        Some(found.earliest()?.unix_time() * 1_000)
    }
}

/// A time as a clock and a calendar show it: `2026-12-24 22:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    year: i32,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
}

impl LocalTime {
    /// Reads `YYYY-MM-DD HH:MM`, with a blank or a `T` between.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, clock) = text.split_once([' ', 'T'])?;
        let mut date = date.splitn(3, '-');
        let mut number = |digits: usize| {
            date.next().filter(|t| t.len() == digits && t.bytes().all(|b| b.is_ascii_digit()))
        };
        let (year, month, day) = (number(4)?, number(2)?, number(2)?);
        let (hour, minute) = clock.split_once(':')?;
        let two = |t: &str| (t.len() == 2).then(|| t.parse::<u8>().ok()).flatten();
        let time = Self {
            year: year.parse().ok()?,
            month: two(month)?,
            day: two(day)?,
            hour: two(hour)?,
            minute: two(minute)?,
        };
        tz::UtcDateTime::new(time.year, time.month, time.day, time.hour, time.minute, 0, 0).ok().map(|_| time)
    }
}

/// The begins of a recurring window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    week_days: u64,
    /// Either day field begins with `*`: then both have to fit, else one of them.
    both_days: bool,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEK_DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Cron {
    /// Reads five fields, each a list of numbers, names, ranges (`1-5`, `mon-fri`) and steps (`*/15`).
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, week_day] = fields[..] else {
            return Err(format!("has {} fields", fields.len()));
        };
        let mut week_days = field(week_day, 0, 7, &WEEK_DAYS, "day of the week")?;
        // Sunday is 0 and 7.
        week_days |= week_days >> 7 & 1;
        Ok(Self {
            minutes: field(minute, 0, 59, &[], "minute")?,
            hours: field(hour, 0, 23, &[], "hour")?,
            days: field(day, 1, 31, &[], "day of the month")?,
            months: field(month, 1, 12, &MONTHS, "month")?,
            week_days,
            both_days: day.starts_with('*') || week_day.starts_with('*'),
        })
    }

    fn fits(&self, time: &tz::DateTime) -> bool {
        let has = |set: u64, n: u8| set >> n & 1 == 1;
        let (day, week_day) = (has(self.days, time.month_day()), has(self.week_days, time.week_day()));
        has(self.minutes, time.minute())
            && has(self.hours, time.hour())
            && has(self.months, time.month())
            && if self.both_days { day && week_day } else { day || week_day }
    }
}

/// The numbers of a field as bits.
fn field(text: &str, first: u8, last: u8, names: &[&str], what: &str) -> Result<u64, String> {
    let bad = |part: &str| format!("has `{part}` for a {what}, which goes from {first} to {last}");
    let number = |part: &str| -> Option<u8> {
        let lower = part.to_ascii_lowercase();
        let named = names.iter().position(|name| *name == lower).map(|i| i as u8 + first);
        named.or_else(|| part.parse().ok()).filter(|n| (first..=last).contains(n))
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                (range, step.parse::<u8>().ok().filter(|s| *s > 0).ok_or_else(|| bad(part))?)
            }
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (first, last),
            Some((from, to)) => {
                (number(from).ok_or_else(|| bad(part))?, number(to).ok_or_else(|| bad(part))?)
            }
            None => {
                let from = number(range).ok_or_else(|| bad(part))?;
                (from, if part.contains('/') { last } else { from })
            }
        };
        if from > to {
            return Err(format!("has `{part}` for a {what}, which ends before it begins"));
        }
        (from..=to).step_by(usize::from(step)).for_each(|n: u8| bits |= 1_u64 << n);
    }
    Ok(bits)
}

/// When a window is open.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// Once: from the first instant to before the second, in milliseconds since the Unix epoch.
    Once {
        /// Its begin.
        from_ms: i64,
        /// Its end.
        until_ms: i64,
    },
    /// Again and again.
    Recurring {
        /// Its begins.
        cron: Cron,
        /// Where clocks show them.
        zone: Zone,
        /// How long it lasts each time, at most [`LONGEST`].
        lasts: Duration,
    },
}

/// A maintenance window.
pub struct Window {
    name: String,
    when: When,
    /// The minute that was last looked at and whether the window was open in it, as one number.
    seen: AtomicI64,
}

impl Window {
    /// A window with its name.
    pub fn new(name: impl Into<String>, when: When) -> Self {
        Self { name: name.into(), when, seen: AtomicI64::new(i64::MIN) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is open at an instant, in milliseconds since the Unix epoch.
    pub fn is_open(&self, at_ms: i64) -> bool {
        match &self.when {
            When::Once { from_ms, until_ms } => (*from_ms..*until_ms).contains(&at_ms),
            When::Recurring { cron, zone, lasts } => {
                // Begins are whole minutes and so are lengths: within a minute nothing changes.
                let minute = at_ms.div_euclid(MINUTE_MS);
                let seen = self.seen.load(Ordering::Relaxed);
                if seen != i64::MIN && seen >> 1 == minute {
                    return seen & 1 == 1;
                }
                let minutes = (lasts.as_secs() / 60) as i64;
                let began = |back: i64| zone.local((minute - back) * 60).is_some_and(|t| cron.fits(&t));
                let open = (0..minutes).any(began);
                self.seen.store(minute << 1 | i64::from(open), Ordering::Relaxed);
                open
            }
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Window");
        out.field("name", &self.name);
        match &self.when {
            When::Once { from_ms, until_ms } => out.field("from_ms", from_ms).field("until_ms", until_ms),
            When::Recurring { cron, zone, lasts } => {
                out.field("cron", cron).field("zone", &zone.name).field("lasts", lasts)
            }
        };
        out.finish_non_exhaustive()
    }
}

impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.when == other.when
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> Zone {
        // The rule of the zone, so that the test needs no zone files.
        Zone::named("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn at(zone: &Zone, text: &str) -> i64 {
        zone.instant(LocalTime::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn a_weekly_window_opens_where_the_zones_clocks_say_so() {
        let (zone, hour) = (berlin(), Duration::from_hours(1));
        let cron = Cron::parse("30 22 * * sat").unwrap();
        let window = Window::new("w", When::Recurring { cron, zone: zone.clone(), lasts: 3 * hour });
        // Saturdays in winter and in summer, into Sunday.
        for (time, open) in [
            ("2026-11-21 22:29", false),
            ("2026-11-21 22:30", true),
            ("2026-11-22 01:29", true),
            ("2026-11-22 01:30", false),
            ("2026-11-22 22:30", false),
            ("2026-07-18 22:30", true),
        ] {
            assert_eq!(window.is_open(at(&zone, time)), open, "{time}");
            assert_eq!(window.is_open(at(&zone, time) + 59_999), open, "{time}, its last millisecond");
        }
    }

    #[test]
    fn changes_of_summer_time_neither_stretch_nor_invent_windows() {
        let zone = berlin();
        let window = |cron: &str, minutes| {
            let lasts = Duration::from_mins(minutes);
            Window::new("w", When::Recurring { cron: Cron::parse(cron).unwrap(), zone: zone.clone(), lasts })
        };
        // On 29 March 2026 there is no 02:30.
        let spring = window("30 2 * * *", 10);
        let midnight = at(&zone, "2026-03-29 00:00");
        assert!((0..240).all(|minute| !spring.is_open(midnight + minute * MINUTE_MS)));
        // On 25 October 2026 there are two.
        let autumn = window("30 2 * * *", 10);
        let midnight = at(&zone, "2026-10-25 00:00");
        let open = (0..300).filter(|minute| autumn.is_open(midnight + minute * MINUTE_MS)).count();
        assert_eq!(open, 20);
    }

    #[test]
    fn one_window_is_open_from_its_begin_to_before_its_end() {
        let window = Window::new("w", When::Once { from_ms: 10, until_ms: 20 });
        let open: Vec<_> = (0..30).filter(|at| window.is_open(*at)).collect();
        assert_eq!(open, (10..20).collect::<Vec<_>>());
    }

    #[test]
    fn cron_fields_are_those_of_cron() {
        let zone = Zone::named("UTC").unwrap();
        let fits = |cron: &str, time: &str| {
            let local = zone.local(at(&zone, time) / 1_000).unwrap();
            Cron::parse(cron).unwrap().fits(&local)
        };
        // 21 November 2026 is a Saturday.
        for (cron, yes) in [
            ("* * * * *", true),
            ("*/15 10-12 * nov sat", true),
            ("0,30 10 21 11 *", true),
            ("30 10 * * 6", true),
            ("30 10 1 * sat", true),
            ("30 10 1 * sun", false),
            ("30 10 */2 * sat", true),
            ("30 10 */2 * sun", false),
            ("10/20 10 * * *", true),
            ("30 10 * * mon-fri", false),
        ] {
            assert_eq!(fits(cron, "2026-11-21 10:30"), yes, "{cron}");
        }
        assert!(fits("0 0 * * 7", "2026-11-22 00:00") && fits("0 0 * * 0", "2026-11-22 00:00"));
        for (cron, reason) in [
            ("* * * *", "4 fields"),
            ("60 * * * *", "0 to 59"),
            ("* * * * fun", "`fun` for a day of the week"),
            ("5-1 * * * *", "ends before it begins"),
            ("*/0 * * * *", "`*/0`"),
        ] {
            let error = Cron::parse(cron).unwrap_err();
            assert!(error.contains(reason), "{cron}: {error}");
        }
    }

    #[test]
    fn times_are_read_exactly() {
        assert!(LocalTime::parse("2026-12-24T22:00").is_some());
        for bad in ["2026-12-24", "2026-13-24 22:00", "2026-02-30 22:00", "26-12-24 22:00", "2026-12-24 2:00"]
        {
            assert_eq!(LocalTime::parse(bad), None, "{bad}");
        }
    }
}
