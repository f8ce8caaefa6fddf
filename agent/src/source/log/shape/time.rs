//! Timestamps of lines: formats, zones, and years that are not written.
//!
//! A format is compiled to a list of items once. Formats are written as strftime's (`%Y-%m-%dT%H:%M:%S%z`), as Go's
//! layouts (`2006-01-02 15:04:05`) or by name.

mod layout;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use std::time::Duration;

pub use layout::BadLayout;
use layout::Item;

const NS: i64 = 1_000_000_000;

/// How a timestamp is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Format(Kind);

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// Numbers since the Unix epoch, with a fraction or without: nanoseconds to a unit.
    Unix(i64),
    /// Seconds, milli-, micro- or nanoseconds since the Unix epoch, by their size.
    UnixAny,
    Items(Vec<Item>),
}

/// Where a time without an offset is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl Zone {
    /// `UTC`, `local`, an offset such as `+02:00`, or a name of the time zone database such as `Europe/Berlin`, which
    /// is read from the system's.
    pub fn named(name: &str) -> Result<Self, String> {
        if matches!(name, "UTC" | "utc" | "Z" | "GMT") {
            return Ok(Self::default());
        }
        let mut rest = name;
        if let Some(seconds) = layout::offset(&mut rest).filter(|_| rest.is_empty()) {
            let offset = jiff::tz::Offset::from_seconds(seconds).map_err(|error| error.to_string())?;
            return Ok(Self(TimeZone::fixed(offset)));
        }
        let path = match name {
            "local" => "/etc/localtime".to_owned(),
            _ if name.split('/').all(|part| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-+".contains(&b))
            }) =>
            {
                format!("/usr/share/zoneinfo/{name}")
            }
            _ => return Err("is no name of a time zone".to_owned()),
        };
        match std::fs::read(&path) {
            Ok(bytes) => TimeZone::tzif(name, &bytes).map(Self).map_err(|error| format!("{path}: {error}")),
            // A machine without the file keeps UTC.
            Err(_) if name == "local" => Ok(Self::default()),
            Err(error) => Err(format!("{path}: {error}")),
        }
    }
}

/// What is believed of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How far ahead of the time of reading it may be.
    pub ahead: Duration,
    /// How old it may be.
    pub age: Duration,
}

impl Default for Bounds {
    /// Loki refuses what is ten minutes ahead, and by default what is older than a week.
    fn default() -> Self {
        Self { ahead: Duration::from_secs(10 * 60), age: Duration::from_secs(7 * 24 * 3600) }
    }
}

impl Bounds {
    /// Whether a time may be taken as an entry's.
    pub fn hold(&self, at_ns: i64, base_ns: i64) -> bool {
        let distance = i128::from(at_ns) - i128::from(base_ns);
        distance <= self.ahead.as_nanos() as i128 && -distance <= self.age.as_nanos() as i128
    }
}

/// The formats that have names.
const NAMED: [(&str, &str); 12] = [
    ("rfc3339", "%Y-%m-%dT%H:%M:%S%.f%z"),
    ("iso8601", "%Y-%m-%d %H:%M:%S%.f"),
    ("rfc3164", "%b %e %H:%M:%S"),
    ("rfc1123", "%a, %d %b %Y %H:%M:%S %Z"),
    ("rfc1123z", "%a, %d %b %Y %H:%M:%S %z"),
    ("rfc822", "%d %b %y %H:%M %Z"),
    ("rfc822z", "%d %b %y %H:%M %z"),
    ("rfc850", "%A, %d-%b-%y %H:%M:%S %Z"),
    ("ansic", "%a %b %e %H:%M:%S %Y"),
    ("common_log", "%d/%b/%Y:%H:%M:%S %z"),
    ("nginx_error", "%Y/%m/%d %H:%M:%S"),
    ("apache_error", "%a %b %e %H:%M:%S%.f %Y"),
];

impl Format {
    /// Reads how timestamps are written.
    pub fn parse(text: &str) -> Result<Self, BadLayout> {
        let kind = match text.to_ascii_lowercase().as_str() {
            "unix" | "unix_s" => Kind::Unix(NS),
            "unix_ms" => Kind::Unix(1_000_000),
            "unix_us" => Kind::Unix(1_000),
            "unix_ns" => Kind::Unix(1),
            "unix_any" => Kind::UnixAny,
            "rfc3339nano" => return Self::parse("rfc3339"),
            name => match NAMED.iter().find(|(named, _)| *named == name) {
                Some((_, layout)) => Kind::Items(layout::strftime(layout)?),
                None if text.contains('%') => Kind::Items(layout::strftime(text)?),
                None => Kind::Items(layout::go(text)?),
            },
        };
        Ok(Self(kind))
    }

    /// The names of formats that have one.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ["unix", "unix_ms", "unix_us", "unix_ns", "unix_any"]
            .into_iter()
            .chain(NAMED.iter().map(|(name, _)| *name))
    }

    /// The time that a text tells, nanoseconds since the Unix epoch. A year that is not written is the one that brings
    /// the time closest to `base_ns`.
    pub fn read(&self, text: &str, zone: &Zone, base_ns: i64) -> Option<i64> {
        let text = text.trim();
        match &self.0 {
            Kind::Unix(unit) => unix(text, *unit),
            Kind::UnixAny => {
                let digits = text.split('.').next()?.trim_start_matches('-').len();
                let unit = match digits {
                    ..=11 => NS,
                    12..=14 => 1_000_000,
                    15..=17 => 1_000,
                    _ => 1,
                };
                unix(text, unit)
            }
            Kind::Items(items) => {
                let mut parts = layout::Parts::default();
                let mut rest = text;
                layout::read(items, &mut rest, &mut parts)?;
                if !rest.is_empty() {
                    return None;
                }
                resolve(&parts, zone, base_ns)
            }
        }
    }
}

/// A decimal number in some unit. No float: nanoseconds of today have more digits than one holds.
fn unix(text: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let mut ns = whole.parse::<i64>().ok()?.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        ns = ns.checked_add(i64::from(digit - b'0') * place)?;
    }
    Some(if negative { -ns } else { ns })
}

fn resolve(parts: &layout::Parts, zone: &Zone, base_ns: i64) -> Option<i64> {
    let hour = match parts.afternoon {
        Some(afternoon) => {
            let hour = parts.hour.filter(|hour| (1..=12).contains(hour))?;
            hour % 12 + if afternoon { 12 } else { 0 }
        }
        None => parts.hour.unwrap_or(0),
    };
    // A leap second is its minute's last instant.
    let second = parts.second.unwrap_or(0).min(59);
    let time = Time::new(hour, parts.minute.unwrap_or(0), second, parts.nanosecond).ok()?;
    let at = |date: Date| -> Option<i64> {
        let civil = DateTime::from_parts(date, time);
        let stamp = match parts.offset {
            Some(seconds) => jiff::tz::Offset::from_seconds(seconds).ok()?.to_timestamp(civil).ok()?,
            None => zone.0.to_timestamp(civil).ok()?,
        };
        i64::try_from(stamp.as_nanosecond()).ok()
    };
    let dated = |year: i16| -> Option<i64> {
        match (parts.day_of_year, parts.month, parts.day) {
            (Some(day), _, _) => {
                let first = Date::new(year, 1, 1).ok()?;
                (day >= 1 && day <= first.days_in_year()).then_some(())?;
                at(first.checked_add(jiff::Span::new().days(day - 1)).ok()?)
            }
            (None, Some(month), Some(day)) => at(Date::new(year, month, day).ok()?),
            _ => None,
        }
    };
    let closest = |times: [Option<i64>; 3]| {
        times.into_iter().flatten().min_by_key(|ns| (i128::from(*ns) - i128::from(base_ns)).abs())
    };
    let base = jiff::Timestamp::from_nanosecond(i128::from(base_ns)).ok()?.to_zoned(zone.0.clone()).date();
    if parts.month.is_none() && parts.day.is_none() && parts.day_of_year.is_none() {
        // A time of day only: of the day that brings it closest.
        let (before, after) = (base.yesterday().ok()?, base.tomorrow().ok()?);
        return closest([at(before), at(base), at(after)]);
    }
    match parts.year {
        Some(year) => dated(year),
        None => closest([dated(base.year() - 1), dated(base.year()), dated(base.year() + 1)]),
    }
}

#[cfg(test)]
mod tests;
