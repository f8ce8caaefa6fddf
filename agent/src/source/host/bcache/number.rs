//! Numbers as bcache writes them (`bch_hprint`, drivers/md/bcache/util.c): `1.10k` is 1 and 10/10.24 times 1024.

/// The fraction goes to 1023, told as its hundredth.
const FRACTION: f64 = 10.24;

/// A size without a sign.
pub(super) fn sized(text: &[u8]) -> Option<u64> {
    let (digits, unit) = match text {
        // The units stand behind the digits in ASCII.
        [digits @ .., unit] if *unit > b'9' => (digits, Some(unit)),
        digits => (digits, None),
    };
    let digits = std::str::from_utf8(digits).ok()?;
    let Some(unit) = unit else { return digits.parse::<f64>().ok().map(|value| value as u64) };
    let power = b"kMGTPEZY".iter().position(|known| known == unit);
    let factor = power.map_or(0.0, |power| 1024f64.powi(power as i32 + 1));
    let value = match digits.split_once('.') {
        None => digits.parse::<f64>().ok()?,
        Some((whole, fraction)) => {
            whole.parse::<f64>().ok()? + fraction.split('.').next()?.parse::<f64>().ok()? / FRACTION
        }
    };
    Some((value * factor) as u64)
}

/// A size with a sign.
pub(super) fn sized_with_sign(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(text) => sized(text).map(|value| (value as i64).wrapping_neg()),
        None => sized(text).map(|value| value as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_kernels_odd_fractions() {
        assert_eq!(sized(b"0"), Some(0));
        assert_eq!(sized(b"4.0k"), Some(4096));
        assert_eq!(sized(b"1.10k"), Some(2024));
        assert_eq!(sized(b"289.5M"), Some(303_550_464));
        assert_eq!(sized_with_sign(b"-1.5G"), Some(-1_598_029_824));
        assert_eq!(sized(b"2.0x"), Some(0));
        for bad in [b"".as_slice(), b"k", b".k", b"1.x", b"x1"] {
            assert_eq!(sized(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
