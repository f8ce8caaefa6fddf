//! Reading the kernel's text: lines, fields and numbers out of bytes, without allocating.

use super::emit::Metric;

/// The longest piece of a line that an error quotes, in bytes.
const QUOTED_BYTES: usize = 80;

/// The lines of a text, without their ends; an empty piece after the last line's end is none.
pub(in crate::source) fn lines(mut text: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let (line, rest) = match memchr::memchr(b'\n', text) {
            Some(end) => (&text[..end], &text[end + 1..]),
            None => (text, &text[text.len()..]),
        };
        text = rest;
        Some(line)
    })
}

/// The fields of a line, parted by any number of spaces and tabs.
pub(in crate::source) fn fields(mut line: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let start = line.iter().position(|b| !is_blank(*b))?;
        line = &line[start..];
        let end = line.iter().position(|b| is_blank(*b)).unwrap_or(line.len());
        let (field, rest) = line.split_at(end);
        line = rest;
        Some(field)
    })
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// A decimal number without a sign; none if it is anything else or does not fit.
pub(in crate::source) fn uint(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A decimal number that may have a sign; none if it is anything else or does not fit.
pub(in crate::source) fn int(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(digits) => 0i64.checked_sub_unsigned(uint(digits)?),
        None => uint(text)?.try_into().ok(),
    }
}

/// A hexadecimal number without prefix or sign; none if it is anything else or does not fit.
pub(in crate::source) fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        if value >> 60 != 0 {
            return None;
        }
        Some(value << 4 | u64::from(digit))
    })
}

/// A number as a float: digits quickly, everything else as Rust reads floats.
pub(in crate::source) fn float(text: &[u8]) -> Option<f64> {
    match uint(text) {
        Some(value) => Some(value as f64),
        None => std::str::from_utf8(text).ok()?.parse().ok(),
    }
}

/// Text from the kernel as a label value: what is not UTF-8 becomes the replacement character.
pub(in crate::source) fn label(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}

/// A line as errors quote it: printable and cut.
pub(in crate::source) fn quoted(line: &[u8]) -> String {
    let cut = &line[..line.len().min(QUOTED_BYTES)];
    let more = if cut.len() < line.len() { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(cut).escape_debug())
}

/// Whether `name` can be (the rest of) a metric name.
pub(in crate::source) fn is_metric_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// What a file's keys mean, remembered by their place: from scrape to scrape the same key stands at the same
/// place, so that finding its metric costs one comparison.
#[derive(Debug, Default)]
pub(in crate::source) struct KeyCache {
    entries: Vec<(Box<[u8]>, Option<Metric>)>,
}

impl KeyCache {
    /// The metric for the key at `place`; `make` says what a key that was not there means.
    pub(in crate::source) fn metric(
        &mut self,
        place: usize,
        key: &[u8],
        make: impl FnOnce(&[u8]) -> Option<Metric>,
    ) -> Option<&Metric> {
        if self.entries.get(place).is_none_or(|(known, _)| known.as_ref() != key) {
            let moved = self.entries.iter().position(|(known, _)| known.as_ref() == key);
            // A key that only moved keeps its family, and with it its series.
            let metric = match moved {
                Some(at) => self.entries[at].1.clone(),
                None => make(key),
            };
            let entry = (key.into(), metric);
            match self.entries.get_mut(place) {
                Some(at) => *at = entry,
                None => self.entries.push(entry),
            }
        }
        self.entries.get(place).and_then(|(_, metric)| metric.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_fields_survive_odd_ends_and_blanks() {
        let all: Vec<&[u8]> = lines(b"a\n\nb").collect();
        assert_eq!(all, [b"a".as_slice(), b"", b"b"]);
        assert_eq!(lines(b"").count(), 0);
        let all: Vec<&[u8]> = fields(b"  1\t22   x \r").collect();
        assert_eq!(all, [b"1".as_slice(), b"22", b"x"]);
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        assert_eq!(uint(b"18446744073709551615"), Some(u64::MAX));
        for bad in [b"".as_slice(), b"-1", b"18446744073709551616", b"1x", b" 1", b"\0"] {
            assert_eq!(uint(bad), None);
        }
        assert_eq!(int(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!((int(b"9223372036854775808"), int(b"--1"), int(b"+1")), (None, None, None));
        assert_eq!((hex(b"00fF"), hex(b"ffffffffffffffff")), (Some(255), Some(u64::MAX)));
        assert_eq!((hex(b""), hex(b"0x1"), hex(b"10000000000000000")), (None, None, None));
        assert_eq!(float(b"-1"), Some(-1.0));
        assert_eq!(float(b"0.25"), Some(0.25));
        assert_eq!(float(b"1\0"), None);
    }

    #[test]
    fn a_key_that_moved_keeps_its_family() {
        let mut cache = KeyCache::default();
        let make = |key: &[u8]| Some(Metric::gauge(std::str::from_utf8(key).unwrap(), "", &[]));
        let first = cache.metric(0, b"a", make).unwrap().clone();
        cache.metric(0, b"new", make);
        // `a` was pushed out of its place before it was asked for again: a new family is the worst that happens.
        let again = cache.metric(1, b"a", make).unwrap();
        assert_eq!(again.family(), first.family());
    }
}
