//! Reading DER (X.690) as far as OCSP needs it: one value after the other, nothing beyond the input.

/// SEQUENCE.
pub const SEQUENCE: u8 = 0x30;
/// INTEGER.
pub const INTEGER: u8 = 0x02;
/// BIT STRING.
pub const BIT_STRING: u8 = 0x03;
/// OCTET STRING.
pub const OCTET_STRING: u8 = 0x04;
/// OBJECT IDENTIFIER.
pub const OID: u8 = 0x06;
/// ENUMERATED.
pub const ENUMERATED: u8 = 0x0a;
/// `GeneralizedTime`.
pub const TIME: u8 = 0x18;

/// A context-specific tag with contents that are values themselves.
pub const fn constructed(number: u8) -> u8 {
    0xa0 | number
}

/// A context-specific tag with plain contents.
pub const fn primitive(number: u8) -> u8 {
    0x80 | number
}

/// The input is not what it should be: it ends too early, or another value is there than the one expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no OCSP response (RFC 6960): {0} is not there")]
pub struct Malformed(pub &'static str);

/// A value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// Its tag.
    pub tag: u8,
    /// What it holds.
    pub contents: &'a [u8],
    /// All of it.
    pub whole: &'a [u8],
}

/// What is left to read.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads the values in these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next value, whatever it is; none at the end and where there is no value.
    pub fn any(&mut self) -> Option<Value<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        // Tags beyond one byte do not occur; lengths are at most four bytes.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(Value { tag, contents, whole })
    }

    /// The next value, if it has a tag.
    pub fn optional(&mut self, tag: u8) -> Option<Value<'a>> {
        let mut ahead = *self;
        let value = ahead.any().filter(|value| value.tag == tag)?;
        *self = ahead;
        Some(value)
    }

    /// The next value, which has to have a tag; `what` it is goes into the error.
    pub fn value(&mut self, tag: u8, what: &'static str) -> Result<Value<'a>, Malformed> {
        self.optional(tag).ok_or(Malformed(what))
    }

    /// The same, for what it holds.
    pub fn contents(&mut self, tag: u8, what: &'static str) -> Result<&'a [u8], Malformed> {
        self.value(tag, what).map(|value| value.contents)
    }

    /// The same, to read on in it.
    pub fn inside(&mut self, tag: u8, what: &'static str) -> Result<Reader<'a>, Malformed> {
        self.contents(tag, what).map(Reader)
    }
}

/// The whole bytes of a BIT STRING.
pub fn bits<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8], Malformed> {
    match reader.contents(BIT_STRING, what)? {
        [0, bytes @ ..] => Ok(bytes),
        _ => Err(Malformed(what)),
    }
}

/// A `GeneralizedTime` as RFC 5280, section 4.1.2.5.2, has it: `YYYYMMDDHHMMSSZ`; in seconds since the Unix epoch.
pub fn time(reader: &mut Reader<'_>, what: &'static str) -> Result<i64, Malformed> {
    let text = reader.contents(TIME, what)?;
    seconds(text).ok_or(Malformed(what))
}

fn seconds(text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z").filter(|digits| digits.len() == 14)?;
    let number = |range: std::ops::Range<usize>| {
        let digits = &digits[range];
        let all = digits.iter().all(u8::is_ascii_digit);
        all.then(|| digits.iter().fold(0_i16, |n, digit| n * 10 + i16::from(digit - b'0')))
    };
    let part = |at: usize| number(at..at + 2).map(|n| n as i8);
    let at = jiff::civil::DateTime::new(number(0..4)?, part(4)?, part(6)?, part(8)?, part(10)?, part(12)?, 0);
    Some(at.ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds() {
        assert_eq!(seconds(b"19700101000001Z"), Some(1));
        assert_eq!(seconds(b"20261121185900Z"), Some(1_795_287_540));
        for bad in ["20261121185900", "20261321185900Z", "2026112118590xZ", "20261121185900.5Z", ""] {
            assert_eq!(seconds(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let mut reader = Reader::new(&[0x30, 3, 2, 1, 7, 4, 0]);
        let mut inside = reader.inside(SEQUENCE, "x").unwrap();
        assert_eq!(inside.contents(INTEGER, "x"), Ok(&[7][..]));
        assert_eq!(inside.any(), None);
        assert_eq!(reader.optional(OID), None);
        assert_eq!(reader.any().unwrap().whole, [4, 0]);
        for bad in [&[0x30][..], &[0x30, 1], &[0x30, 0x80], &[0x30, 0x84, 255, 255, 255, 255], &[0x1f, 0]] {
            assert_eq!(Reader::new(bad).any(), None, "{bad:?}");
        }
        let long: Vec<u8> = [0x04, 0x82, 0x01, 0x00].into_iter().chain([9; 256]).collect();
        assert_eq!(Reader::new(&long).any().unwrap().contents, [9; 256]);
    }
}
