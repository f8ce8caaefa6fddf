//! Numbers as Go reads and writes them.

/// Reads what Prometheus accepts as a value: Go's `strconv.ParseFloat`, but nothing with `p`, `P` or `_`. That
/// leaves decimal numbers, `Inf` and `Infinity` with or without sign, and `NaN` without one, in any case. A number
/// too large for a float is refused, one too small is zero.
pub fn parse(text: &[u8]) -> Option<f64> {
    if let Some(small) = parse_short_integer(text) {
        return Some(small);
    }
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = text.parse().ok()?;
    // Rust reads all that Go reads in decimal and, beyond it, signed NaNs and overflow as infinity.
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let word = unsigned.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    match value {
        v if v.is_nan() => (unsigned.len() == text.len()).then_some(v),
        v if v.is_infinite() => word.then_some(v),
        v => Some(v),
    }
}

/// Integers below 10^15, which are exact and most of what exporters send.
fn parse_short_integer(text: &[u8]) -> Option<f64> {
    if text.is_empty() || text.len() > 15 {
        return None;
    }
    let mut value = 0_u64;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = 10 * value + u64::from(digit);
    }
    Some(value as f64)
}

/// Writes a number as OpenMetrics wants `le` and `quantile`: Go's shortest `%g` (an exponent below 10^-4 and from
/// 10^6 on), with `.0` where neither a point nor an exponent would show.
pub fn openmetrics(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    if value == 0.0 {
        return "0.0".into();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..LARGE_EXPONENT).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// From this decimal exponent on, `strconv.AppendFloat(…, 'g', -1, 64)` writes an exponent.
const LARGE_EXPONENT: i32 = 6;
