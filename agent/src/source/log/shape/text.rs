//! From bytes to lines of text: line ends, encodings, lines that are too long.
//!
//! Where a line ends depends on the bytes from its first one on and on nothing else, so that reading in other portions
//! gives the same lines. A line beyond the limit therefore becomes several entries, each but the last marked as cut:
//! nothing of it is lost, and nobody has to remember that it is inside a long line.

use super::End;
use super::mask::Mask;
use std::borrow::Cow;
use std::sync::Arc;

/// How bytes become characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// UTF-8; what is not is replaced by U+FFFD and counted.
    #[default]
    Utf8,
    /// UTF-16, the lower byte first.
    Utf16Le,
    /// UTF-16, the higher byte first.
    Utf16Be,
    /// ISO 8859-1.
    Latin1,
}

/// How far back from the limit a gap is looked for, so that no word is cut through.
const GAP_BYTES: usize = 1_024;

/// How much beyond a cut is looked at, so that no secret is cut through: a private key.
pub(super) const LOOK_AHEAD: usize = 8 << 10;

/// How lines are cut.
#[derive(Debug, Clone)]
pub(super) struct Framing {
    pub encoding: Encoding,
    /// The most bytes of a line, as they are in the source.
    pub max_bytes: usize,
    /// What is not to be cut through.
    pub mask: Option<Arc<Mask>>,
}

/// A line without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawLine<'a> {
    pub bytes: &'a [u8],
    /// How many bytes it took with its end.
    pub taken: usize,
    /// It goes on in the next one.
    pub cut: bool,
}

impl Encoding {
    /// How many bytes of the source certainly fit into so many bytes of UTF-8.
    pub(super) fn bytes_for(self, utf8: usize) -> usize {
        match self {
            Self::Utf8 => utf8,
            Self::Latin1 => utf8 / 2,
            Self::Utf16Le | Self::Utf16Be => (utf8 * 2 / 3) & !1,
        }
    }

    /// The length of the byte order mark at the beginning of a source.
    pub(super) fn mark(self, bytes: &[u8]) -> usize {
        let mark: &[u8] = match self {
            Self::Utf8 => b"\xef\xbb\xbf",
            Self::Utf16Le => b"\xff\xfe",
            Self::Utf16Be => b"\xfe\xff",
            Self::Latin1 => b"",
        };
        if bytes.starts_with(mark) { mark.len() } else { 0 }
    }

    /// The text of a line, and whether something of it had to be replaced. Nothing is copied if it is UTF-8 already.
    pub(super) fn decode(self, bytes: &[u8]) -> (Cow<'_, str>, bool) {
        match self {
            Self::Utf8 => match std::str::from_utf8(bytes) {
                Ok(text) => (Cow::Borrowed(text), false),
                Err(_) => (String::from_utf8_lossy(bytes), true),
            },
            Self::Latin1 => match std::str::from_utf8(bytes) {
                Ok(text) if text.is_ascii() => (Cow::Borrowed(text), false),
                _ => (bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into(), false),
            },
            Self::Utf16Le => decode_utf16(bytes, u16::from_le_bytes),
            Self::Utf16Be => decode_utf16(bytes, u16::from_be_bytes),
        }
    }

    /// The bytes of the shortest character.
    pub(super) fn unit_bytes(self) -> usize {
        self.unit(0).1
    }

    /// The bytes of one of ASCII's characters.
    fn unit(self, ascii: u8) -> ([u8; 2], usize) {
        match self {
            Self::Utf8 | Self::Latin1 => ([ascii, 0], 1),
            Self::Utf16Le => ([ascii, 0], 2),
            Self::Utf16Be => ([0, ascii], 2),
        }
    }
}

fn decode_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> (Cow<'static, str>, bool) {
    let pairs = bytes.chunks_exact(2);
    let mut bad = !pairs.remainder().is_empty();
    let units = pairs.map(|pair| unit([pair[0], pair[1]]));
    let mut text: String = char::decode_utf16(units)
        .map(|one| {
            one.unwrap_or_else(|_| {
                bad = true;
                char::REPLACEMENT_CHARACTER
            })
        })
        .collect();
    if bytes.len() % 2 == 1 {
        text.push(char::REPLACEMENT_CHARACTER);
    }
    (text.into(), bad)
}

impl Framing {
    /// The line that begins here; none if its end is not to be seen yet.
    pub(super) fn next_line<'a>(&self, bytes: &'a [u8], end: End) -> Option<RawLine<'a>> {
        let (newline, width) = self.encoding.unit(b'\n');
        let newline = &newline[..width];
        let ahead = if self.mask.is_some() { LOOK_AHEAD } else { 0 };
        let window = &bytes[..bytes.len().min(self.max_bytes + ahead + width)];
        let found = if width == 1 {
            memchr::memchr(b'\n', window)
        } else {
            memchr::memchr_iter(b'\n', window)
                .map(|at| at & !1)
                .find(|at| window.get(*at..at + 2).is_some_and(|pair| pair == newline))
        };
        let too_long = found.is_some_and(|at| at > self.max_bytes)
            || (found.is_none() && window.len() == self.max_bytes + ahead + width)
            || (found.is_none() && end == End::Flush && window.len() > self.max_bytes);
        if too_long {
            let at = self.cut(&bytes[..self.max_bytes], &window[..found.unwrap_or(window.len())]);
            return Some(RawLine { bytes: &bytes[..at], taken: at, cut: true });
        }
        if let Some(at) = found {
            return Some(RawLine { bytes: self.without_return(&bytes[..at]), taken: at + width, cut: false });
        }
        if end == End::Flush && !bytes.is_empty() {
            return Some(RawLine { bytes: self.without_return(bytes), taken: bytes.len(), cut: false });
        }
        None
    }

    fn without_return<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        let (unit, width) = self.encoding.unit(b'\r');
        line.strip_suffix(&unit[..width]).unwrap_or(line)
    }

    /// Where to cut what is too long: before what is to be masked, after a blank near the end, else between characters.
    fn cut(&self, bytes: &[u8], more: &[u8]) -> usize {
        let hard = self.between_characters(bytes);
        let at = if self.encoding == Encoding::Utf8 { after_blank(bytes).unwrap_or(hard) } else { hard };
        let (Some(mask), Encoding::Utf8) = (&self.mask, self.encoding) else { return at };
        // What is no UTF-8 is masked as far as it is.
        let text = match std::str::from_utf8(more) {
            Ok(text) => text,
            Err(error) if error.valid_up_to() > at => {
                std::str::from_utf8(&more[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => return at,
        };
        // Where the line begins with what is masked, the cut is behind it, if it ends before the limit.
        [at, hard].into_iter().map(|at| mask.before_cut(text, at)).find(|at| *at > 0).unwrap_or(hard)
    }

    fn between_characters(&self, bytes: &[u8]) -> usize {
        match self.encoding {
            Encoding::Latin1 => return bytes.len(),
            Encoding::Utf16Le | Encoding::Utf16Be => {
                let high = if self.encoding == Encoding::Utf16Le { 1 } else { 2 };
                let half = bytes.len() > 2 && (0xd8..0xdc).contains(&bytes[bytes.len() - high]);
                return if half { bytes.len() - 2 } else { bytes.len() };
            }
            Encoding::Utf8 => {}
        }
        // A character has four bytes at most; what is no UTF-8 may be cut anywhere.
        let continues = |byte: u8| byte & 0xc0 == 0x80;
        let mut at = bytes.len();
        while at > 1 && bytes.len() - at < 4 {
            let before = bytes[at - 1];
            if before < 0x80 {
                return at;
            }
            at -= 1;
            if !continues(before) {
                let whole = at + before.leading_ones() as usize == bytes.len();
                return if whole { bytes.len() } else { at };
            }
        }
        bytes.len()
    }
}

/// The place after the last blank near the end.
fn after_blank(bytes: &[u8]) -> Option<usize> {
    let near = bytes.len().saturating_sub(GAP_BYTES).max(1);
    memchr::memrchr2(b' ', b'\t', bytes.get(near..)?).map(|at| near + at + 1)
}

/// A text's first so many bytes, cut between characters.
pub(super) fn prefix(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(framing: &Framing, bytes: &[u8]) -> Vec<(String, bool)> {
        let (mut at, mut lines) = (0, Vec::new());
        while let Some(line) = framing.next_line(&bytes[at..], End::Flush) {
            assert!(line.taken > 0);
            lines.push((framing.encoding.decode(line.bytes).0.into_owned(), line.cut));
            at += line.taken;
        }
        assert_eq!(at, bytes.len());
        lines
    }

    #[test]
    fn ends_of_lines_in_each_encoding() {
        let text = "one\r\ntwo\n\nf\u{fc}nf\r\nsix";
        let expected = ["one", "two", "", "f\u{fc}nf", "six"].map(|l| (l.to_owned(), false));
        let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let latin: Vec<u8> = text.chars().map(|c| c as u8).collect();
        for (encoding, bytes) in [
            (Encoding::Utf8, text.as_bytes()),
            (Encoding::Utf16Le, &le),
            (Encoding::Utf16Be, &be),
            (Encoding::Latin1, &latin),
        ] {
            assert_eq!(
                lines(&Framing { encoding, max_bytes: 64, mask: None }, bytes),
                expected,
                "{encoding:?}"
            );
        }
    }

    #[test]
    fn a_newlines_bytes_within_other_characters_end_no_line() {
        // U+0A0A, and U+010A beside U+0A00: the byte of a newline in either half.
        let text = "a\u{a0a}\u{10a}\u{a00}b";
        for (encoding, bytes) in [
            (Encoding::Utf16Le, text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()),
            (Encoding::Utf16Be, text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ] {
            assert_eq!(
                lines(&Framing { encoding, max_bytes: 64, mask: None }, &bytes),
                [(text.to_owned(), false)]
            );
        }
    }

    #[test]
    fn what_is_no_character_is_replaced_and_told() {
        assert_eq!(Encoding::Utf8.decode(b"a\xffb"), ("a\u{fffd}b".into(), true));
        assert_eq!(Encoding::Utf16Le.decode(b"\x00\xd8a\x00"), ("\u{fffd}a".into(), true));
        assert_eq!(Encoding::Utf16Le.decode(b"a\x00b"), ("a\u{fffd}".into(), true));
    }

    #[test]
    fn a_long_line_is_cut_between_characters_or_words_and_goes_on() {
        let framing = Framing { encoding: Encoding::Utf8, max_bytes: 8, mask: None };
        let cut = |text: &str| lines(&framing, text.as_bytes());
        let own = |l: &[(&str, bool)]| l.iter().map(|(t, c)| ((*t).to_owned(), *c)).collect::<Vec<_>>();
        assert_eq!(cut("12345678\nx"), own(&[("12345678", false), ("x", false)]));
        assert_eq!(cut("123456789\n"), own(&[("12345678", true), ("9", false)]));
        assert_eq!(cut("1234567\u{e9}\n"), own(&[("1234567", true), ("\u{e9}", false)]));
        assert_eq!(cut("123456\u{e9}a"), own(&[("123456\u{e9}", true), ("a", false)]));
        assert_eq!(cut("12345\u{1f600}a"), own(&[("12345", true), ("\u{1f600}a", false)]));
        assert_eq!(cut("12 4567890"), own(&[("12 ", true), ("4567890", false)]));
        // Nothing but continuation bytes is no character at all.
        assert_eq!(framing.next_line(&[0x80; 20], End::More).unwrap().taken, 8);
        // Without its end a line is told only when it is certain to be too long.
        assert!(framing.next_line(b"12345678", End::More).is_none());
    }
}
