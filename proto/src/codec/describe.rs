//! The description section: what the numbers of the following blocks stand for. docs/wire/codec.md has the bytes.

use super::{DecodeError, FamilyView};
use crate::caps;
use crate::metrics::{Labels, MetricType, NAME_LABEL, Series};

/// Opens a description of target labels.
pub(super) const OP_TARGET: u8 = 1;
/// Opens a description of series.
pub(super) const OP_SERIES: u8 = 2;
/// Opens a description of a set.
pub(super) const OP_SET: u8 = 3;
/// Forgets a set.
pub(super) const OP_FORGET_SET: u8 = 4;

/// A series entry begins with a new family.
const NEW_FAMILY: u8 = 1;
/// Where the series' name comes from: two bits.
const NAME_SHIFT: u8 = 1;
const NAME_IS_FAMILY: u8 = 0;
const NAME_HAS_SUFFIX: u8 = 1;
const NAME_IS_OWN: u8 = 2;
const NAME_IS_MISSING: u8 = 3;
/// The label names are those of the entry before.
const SAME_LABEL_NAMES: u8 = 8;
/// The value kind's two bits; only 0, floats, is defined.
const KIND_SHIFT: u8 = 4;

const TYPES: [MetricType; 8] = [
    MetricType::Unknown,
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::GaugeHistogram,
    MetricType::Summary,
    MetricType::Info,
    MetricType::StateSet,
];

pub(super) fn put_number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

pub(super) fn put_signed(out: &mut Vec<u8>, n: i64) {
    put_number(out, (n.wrapping_shl(1) ^ (n >> 63)) as u64);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// The longest start of a text that fits.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Writes a label set in full.
pub(super) fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    put_number(out, labels.len() as u64);
    for (name, value) in labels.iter() {
        put_text(out, name);
        put_text(out, value);
    }
}

/// Writes one series, given the one written before it in the same op.
pub(super) fn put_series(out: &mut Vec<u8>, series: &Series, before: Option<&Series>) {
    let family = series.family();
    let same_family = before.is_some_and(|b| b.family() == family);
    let name = series.labels().value(NAME_LABEL);
    let others = |s: &Series| -> Vec<String> {
        s.labels().iter().map(|(n, _)| n.to_owned()).filter(|n| n != NAME_LABEL).collect()
    };
    let same_names = before.is_some_and(|b| others(b) == others(series));
    let (from, suffix) = match name {
        None => (NAME_IS_MISSING, ""),
        Some(name) => match name.strip_prefix(&*family.name) {
            Some("") => (NAME_IS_FAMILY, ""),
            Some(suffix) => (NAME_HAS_SUFFIX, suffix),
            None => (NAME_IS_OWN, name),
        },
    };
    let mut head = from << NAME_SHIFT;
    if !same_family {
        head |= NEW_FAMILY;
    }
    if same_names {
        head |= SAME_LABEL_NAMES;
    }
    out.push(head);
    if !same_family {
        put_text(out, &family.name);
        let kind = TYPES.iter().position(|t| *t == family.kind).unwrap_or_default();
        out.push(kind as u8);
        put_text(out, cut(&family.help, caps::MAX_HELP_BYTES));
        put_text(out, &family.unit);
    }
    if !suffix.is_empty() {
        put_text(out, suffix);
    }
    let labels = series.labels().iter().filter(|(n, _)| *n != NAME_LABEL);
    if !same_names {
        put_number(out, labels.clone().count() as u64);
        for (name, _) in labels.clone() {
            put_text(out, name);
        }
    }
    for (_, value) in labels {
        put_text(out, value);
    }
}

/// Reads the bytes of a frame, checking every length.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn error(&self, reason: &'static str) -> DecodeError {
        DecodeError { at: self.at, reason }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// All that is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.error("it ends early"))?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                break;
            }
            n |= part << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(self.error("a number has more than 64 bits"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, DecodeError> {
        let n = self.number()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// A number no larger than a cap.
    pub(super) fn count(&mut self, most: usize, reason: &'static str) -> Result<usize, DecodeError> {
        match usize::try_from(self.number()?) {
            Ok(n) if n <= most => Ok(n),
            _ => Err(self.error(reason)),
        }
    }

    pub(super) fn slice(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        if len > self.bytes.len() - self.at {
            return Err(self.error("it ends early"));
        }
        let slice = &self.bytes[self.at..][..len];
        self.at += len;
        Ok(slice)
    }

    fn text(&mut self, most: usize) -> Result<&'a str, DecodeError> {
        let len = self.count(most, "a text is longer than its cap")?;
        std::str::from_utf8(self.slice(len)?).map_err(|_| self.error("a text is not UTF-8"))
    }

    /// A label set in full.
    pub(super) fn labels(&mut self) -> Result<Labels, DecodeError> {
        let count = self.count(caps::MAX_LABELS, "too many labels")?;
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            pairs.push((self.text(caps::MAX_LABEL_NAME_BYTES)?, self.text(caps::MAX_LABEL_VALUE_BYTES)?));
        }
        Labels::new(pairs).map_err(|_| self.error("a label occurs twice"))
    }
}

/// What a series entry takes from those before it in the same op.
#[derive(Debug, Default)]
pub(super) struct SeriesReader<'a> {
    family: Option<FamilyView<'a>>,
    label_names: Vec<&'a str>,
    name: String,
}

impl<'a> SeriesReader<'a> {
    pub(super) fn read(&mut self, from: &mut Reader<'a>) -> Result<(Labels, FamilyView<'a>), DecodeError> {
        let head = from.byte()?;
        if head >> KIND_SHIFT != 0 {
            return Err(from.error("a value kind that was not agreed on"));
        }
        if head & NEW_FAMILY != 0 {
            let name = from.text(caps::MAX_LABEL_VALUE_BYTES)?;
            let kind =
                *TYPES.get(usize::from(from.byte()?)).ok_or_else(|| from.error("an unknown metric type"))?;
            let help = from.text(caps::MAX_HELP_BYTES)?;
            let unit = from.text(caps::MAX_LABEL_VALUE_BYTES)?;
            self.family = Some(FamilyView { name, kind, help, unit });
        }
        let family = self.family.ok_or_else(|| from.error("a series without a family"))?;
        self.name.clear();
        let name = match head >> NAME_SHIFT & 3 {
            NAME_IS_FAMILY => Some(family.name),
            NAME_HAS_SUFFIX => {
                self.name.push_str(family.name);
                self.name.push_str(from.text(caps::MAX_LABEL_VALUE_BYTES)?);
                Some(self.name.as_str())
            }
            NAME_IS_OWN => Some(from.text(caps::MAX_LABEL_VALUE_BYTES)?),
            _ => None,
        };
        if head & SAME_LABEL_NAMES == 0 {
            self.label_names.clear();
            for _ in 0..from.count(caps::MAX_LABELS, "too many labels")? {
                self.label_names.push(from.text(caps::MAX_LABEL_NAME_BYTES)?);
            }
        }
        let mut pairs = Vec::with_capacity(self.label_names.len() + 1);
        pairs.extend(name.map(|name| (NAME_LABEL, name)));
        for name in &self.label_names {
            pairs.push((name, from.text(caps::MAX_LABEL_VALUE_BYTES)?));
        }
        let labels = Labels::new(pairs).map_err(|_| from.error("a label occurs twice"))?;
        Ok((labels, family))
    }
}

/// Writes the members of a set as runs: of the members of a base set, or of numbers that follow each other.
pub(super) fn put_members(out: &mut Vec<u8>, members: &[u32], base: &[u32], place: &mut Vec<u32>) {
    let top = base.iter().chain(members).max().map_or(0, |m| *m as usize + 1);
    place.clear();
    place.resize(top, u32::MAX);
    for (at, member) in base.iter().enumerate() {
        place[*member as usize] = at as u32;
    }
    let (mut i, mut cursor, mut next) = (0, 0usize, 0u32);
    let mut runs = 0u64;
    let start = out.len();
    while i < members.len() {
        let at = place[members[i] as usize];
        if at == u32::MAX {
            let first = members[i];
            let mut len = 1;
            while members
                .get(i + len)
                .is_some_and(|m| *m == first.wrapping_add(len as u32) && place[*m as usize] == u32::MAX)
            {
                len += 1;
            }
            put_number(out, (len as u64) << 1 | 1);
            put_signed(out, i64::from(first) - i64::from(next));
            next = first.wrapping_add(len as u32);
            i += len;
        } else {
            let at = at as usize;
            let len = members[i..].iter().zip(&base[at..]).take_while(|(a, b)| a == b).count();
            put_number(out, (len as u64) << 1);
            put_signed(out, at as i64 - cursor as i64);
            cursor = at + len;
            i += len;
        }
        runs += 1;
    }
    let mut count = Vec::with_capacity(4);
    put_number(&mut count, runs);
    out.splice(start..start, count);
}

/// Reads the members of a set. `known` says whether a series number may be used.
pub(super) fn read_members(
    from: &mut Reader<'_>,
    base: &[u32],
    most: usize,
    known: impl Fn(u32) -> bool,
) -> Result<Box<[u32]>, DecodeError> {
    let runs = from.count(most, "too many runs")?;
    let mut members = Vec::new();
    let (mut cursor, mut next) = (0i64, 0i64);
    for _ in 0..runs {
        let head = from.number()?;
        let len = head >> 1;
        if len == 0 || len > (most - members.len()) as u64 {
            return Err(from.error("a set is larger than its cap"));
        }
        let skip = from.signed()?;
        if head & 1 == 0 {
            let start = cursor.wrapping_add(skip);
            let end = start.wrapping_add(len as i64);
            if start < 0 || end > base.len() as i64 || end < start {
                return Err(from.error("a run beyond its base set"));
            }
            members.extend_from_slice(&base[start as usize..end as usize]);
            cursor = end;
        } else {
            let start = next.wrapping_add(skip);
            let end = start.wrapping_add(len as i64);
            if start < 0 || end > i64::from(u32::MAX) || end < start || !(start..end).all(|n| known(n as u32))
            {
                return Err(from.error("a set of series that were not described"));
            }
            members.extend(start as u32..end as u32);
            next = end;
        }
    }
    Ok(members.into_boxed_slice())
}
