//! Numbers as people read them, for the findings and the command line.

/// A count with thousands set apart: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count of a signal's records: `1 sample`, `1,200 samples`, `3 log entries`.
pub fn records(signal: &str, n: u64) -> String {
    let (one, many) = match signal {
        "logs" => ("log entry", "log entries"),
        "traces" => ("span", "spans"),
        _ => ("sample", "samples"),
    };
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// Bytes in binary units with three digits: `0 B`, `1.50 KiB`, `12.3 MiB`.
pub fn bytes(n: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n;
    let mut unit = 0;
    while value.abs() >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let places = match value.abs() {
        _ if unit == 0 => 0,
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.places$} {}", UNITS[unit])
}

/// A span of time in its two largest units: `45 ms`, `12 s`, `4 min 10 s`, `3 h 5 min`, `2 d 4 h`.
pub fn span(ms: i64) -> String {
    let ms = ms.max(0);
    let seconds = ms / 1000;
    let two = |n: i64, unit: &str, rest: i64, small: &str| {
        if rest == 0 { format!("{n} {unit}") } else { format!("{n} {unit} {rest} {small}") }
    };
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// A span that is still growing, in its largest unit, so that the words change once a minute at most: `21 min`.
pub fn long_span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0..60 => "less than a minute".to_owned(),
        60..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let counts = [0, 999, 1000, 1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        let sizes = [0.0, 999.0, 1536.0, 12.3 * 1_048_576.0, 5e11].map(bytes);
        assert_eq!(sizes, ["0 B", "999 B", "1.50 KiB", "12.3 MiB", "466 GiB"]);
        let spans = [45, 12_000, 250_000, 11_100_000, 187_200_000, 3_600_000].map(span);
        assert_eq!(spans, ["45 ms", "12 s", "4 min 10 s", "3 h 5 min", "2 d 4 h", "1 h"]);
        let records =
            [("metrics", 1), ("metrics", 0), ("logs", 1), ("logs", 2_000)].map(|(s, n)| records(s, n));
        assert_eq!(records, ["1 sample", "0 samples", "1 log entry", "2,000 log entries"]);
        let growing = [59_000, 61_000, 7_300_000, 180_000_000].map(long_span);
        assert_eq!(growing, ["less than a minute", "1 min", "2 h", "2 d"]);
    }
}
