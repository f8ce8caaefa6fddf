use super::*;

/// 2026-11-21T19:00:00Z.
const BASE: i64 = 1_795_287_600 * NS;

fn read(format: &str, text: &str) -> Option<i64> {
    Format::parse(format).unwrap().read(text, &Zone::default(), BASE)
}

fn utc(text: &str) -> i64 {
    i64::try_from(text.parse::<jiff::Timestamp>().unwrap().as_nanosecond()).unwrap()
}

#[test]
fn formats_and_what_they_read() {
    for (format, text, expected) in [
        ("rfc3339", "2024-02-29T12:34:56.789012345+02:00", "2024-02-29T10:34:56.789012345Z"),
        ("rfc3339", "2024-02-29 12:34:56Z", "2024-02-29T12:34:56Z"),
        ("RFC3339Nano", "2024-02-29T12:34:56,5-0730", "2024-02-29T20:04:56.5Z"),
        ("unix", "1700000000.25", "2023-11-14T22:13:20.25Z"),
        ("unix_ms", "1700000000250", "2023-11-14T22:13:20.25Z"),
        ("unix_us", "1700000000250001", "2023-11-14T22:13:20.250001Z"),
        ("unix_ns", "1700000000250000001", "2023-11-14T22:13:20.250000001Z"),
        ("unix_any", "1700000000", "2023-11-14T22:13:20Z"),
        ("unix_any", "1700000000250", "2023-11-14T22:13:20.25Z"),
        ("%d/%b/%Y:%H:%M:%S %z", "10/Oct/2000:13:55:36 -0700", "2000-10-10T20:55:36Z"),
        ("%Y-%m-%d %H:%M:%S,%f", "2024-01-02 03:04:05,678", "2024-01-02T03:04:05.678Z"),
        ("%Y-%m-%d %H:%M:%S", "2024-01-02 03:04:05.678", "2024-01-02T03:04:05.678Z"),
        ("%F %T%.3f", "2024-01-02 03:04:05.678", "2024-01-02T03:04:05.678Z"),
        ("%y%m%d %I:%M:%S %p", "240102 12:04:05 AM", "2024-01-02T00:04:05Z"),
        ("%Y %j %H", "2024 366 05", "2024-12-31T05:00:00Z"),
        ("02/Jan/2006:15:04:05 -0700", "10/Oct/2000:13:55:36 -0700", "2000-10-10T20:55:36Z"),
        ("2006-01-02T15:04:05.999999999Z07:00", "2024-01-02T03:04:05.5Z", "2024-01-02T03:04:05.5Z"),
        ("Mon Jan _2 15:04:05 MST 2006", "Tue Jan  2 03:04:05 GMT 2024", "2024-01-02T03:04:05Z"),
        ("Monday, 02-Jan-06 3:04:05PM", "Tuesday, 02-Jan-24 3:04:05PM", "2024-01-02T15:04:05Z"),
        ("2006/01/02 15:04:05.000", "2024/01/02 03:04:05.678", "2024-01-02T03:04:05.678Z"),
        ("rfc1123", "Tue, 02 Jan 2024 03:04:05 GMT", "2024-01-02T03:04:05Z"),
        ("apache_error", "Tue Jan 02 03:04:05.123456 2024", "2024-01-02T03:04:05.123456Z"),
        ("%H:%M:%S %d.%m.%Y", "23:59:60 31.12.2016", "2016-12-31T23:59:59Z"),
    ] {
        assert_eq!(read(format, text), Some(utc(expected)), "{format}: {text}");
    }
}

#[test]
fn what_is_no_time_is_none() {
    for (format, text) in [
        ("rfc3339", "2024-02-30T00:00:00Z"),
        ("rfc3339", "2024-02-28T25:00:00Z"),
        ("rfc3339", "2024-02-28T00:00:00"),
        ("rfc3339", "2024-02-28T00:00:00Z and more"),
        ("rfc3339", ""),
        ("unix", "12a"),
        ("unix", "99999999999999999999"),
        ("unix_ns", "-"),
        ("%b %d %H:%M", "Foo 12 12:00"),
        ("%Y-%m-%d %Z", "2024-01-01 CEST"),
        ("%I %p", "13 PM"),
        ("%Y %j", "2023 366"),
        ("%b", "é"),
    ] {
        let Ok(format) = Format::parse(format) else { continue };
        assert_eq!(format.read(text, &Zone::default(), BASE), None, "{text}");
    }
}

#[test]
fn years_that_are_not_written_are_the_closest() {
    let at = |text: &str, base: &str| {
        Format::parse("rfc3164").unwrap().read(text, &Zone::default(), utc(base)).unwrap()
    };
    assert_eq!(at("Dec 31 23:59:58", "2026-01-01T00:00:02Z"), utc("2025-12-31T23:59:58Z"));
    assert_eq!(at("Jan  1 00:00:01", "2025-12-31T23:59:59Z"), utc("2026-01-01T00:00:01Z"));
    assert_eq!(at("Feb 29 12:00:00", "2025-01-01T00:00:00Z"), utc("2024-02-29T12:00:00Z"));
    let time = Format::parse("%H:%M:%S").unwrap();
    let base = utc("2026-03-01T00:00:05Z");
    assert_eq!(time.read("23:59:59", &Zone::default(), base), Some(utc("2026-02-28T23:59:59Z")));
}

#[test]
fn zones_by_offset_and_name() {
    let plus = Zone::named("+05:30").unwrap();
    let format = Format::parse("iso8601").unwrap();
    assert_eq!(format.read("2024-01-01 00:00:00", &plus, BASE), Some(utc("2023-12-31T18:30:00Z")));
    if std::path::Path::new("/usr/share/zoneinfo/Europe/Berlin").exists() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        assert_eq!(format.read("2024-07-01 00:00:00", &berlin, BASE), Some(utc("2024-06-30T22:00:00Z")));
        // The hour that does not exist, and the one that is there twice.
        assert!(format.read("2024-03-31 02:30:00", &berlin, BASE).is_some());
        assert!(format.read("2024-10-27 02:30:00", &berlin, BASE).is_some());
    }
    for bad in ["Nowhere/Town", "../../etc/passwd", "", "/etc/localtime", "+99:00"] {
        assert!(Zone::named(bad).is_err(), "{bad}");
    }
    assert!(Zone::named("local").is_ok());
}

#[test]
fn layouts_that_tell_no_time_are_refused() {
    for bad in ["%Q", "%", "%s", "hello", "%Y", "%B", "Jan", "%"] {
        assert!(Format::parse(bad).is_err(), "{bad}");
    }
    assert!(Format::names().all(|name| Format::parse(name).is_ok()));
}

#[test]
fn the_far_past_and_future_are_not_believed() {
    let bounds = Bounds::default();
    let minute = 60 * NS;
    assert!(bounds.hold(BASE + 10 * minute, BASE) && !bounds.hold(BASE + 10 * minute + 1, BASE));
    assert!(bounds.hold(BASE - 7 * 24 * 60 * minute, BASE) && !bounds.hold(i64::MIN, i64::MAX));
}
