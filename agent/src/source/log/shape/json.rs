//! JSON objects of a line, flattened: no tree is built, values are copied once.
//!
//! `{"a":{"b":1},"c":[2,3]}` gives `a_b` = `1` and `c` = `[2,3]`: names of nested objects are joined with `_` as Loki's
//! own parser does, lists stay as they are written, `null` gives nothing.

use super::event::{Event, Pair};

/// How deep objects are looked into; what is nested deeper stays as it is written.
const MAX_DEPTH: usize = 16;

/// The line is no JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoObject;

/// Adds the fields of the object that the text is, each name with the prefix. If it is none, nothing is added.
pub(super) fn parse(text: &str, prefix: &str, event: &mut Event) -> Result<(), NoObject> {
    let fields = event.fields.len();
    let mut scan = Scan { bytes: text.as_bytes(), text, at: 0 };
    let mut path = String::with_capacity(64);
    path.push_str(prefix);
    let read = scan.blanks().object(&mut path, 0, event).and_then(|()| {
        scan.blanks();
        if scan.at == scan.bytes.len() { Ok(()) } else { Err(NoObject) }
    });
    if read.is_err() {
        event.fields.truncate(fields);
    }
    read
}

struct Scan<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) -> &mut Self {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self
    }

    fn expect(&mut self, byte: u8) -> Result<(), NoObject> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(NoObject)
    }

    fn object(&mut self, path: &mut String, depth: usize, event: &mut Event) -> Result<(), NoObject> {
        self.expect(b'{')?;
        if self.blanks().peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.blanks();
            let above = path.len();
            if depth > 0 {
                path.push('_');
            }
            self.string(path)?;
            self.blanks().expect(b':')?;
            self.blanks();
            self.member(path, depth, event)?;
            path.truncate(above);
            match self.blanks().peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(NoObject),
            }
        }
    }

    fn member(&mut self, path: &mut String, depth: usize, event: &mut Event) -> Result<(), NoObject> {
        let room = event.has_room();
        match self.peek().ok_or(NoObject)? {
            b'{' if depth + 1 < MAX_DEPTH => self.object(path, depth + 1, event),
            b'"' if room => {
                let name = event.keep(path);
                let mut read = Ok(());
                let value = event.keep_written(|buffer| read = self.string(buffer));
                event.fields.push(Pair { name, value });
                read
            }
            _ => {
                let from = self.at;
                self.skip()?;
                let raw = &self.text[from..self.at];
                if raw != "null" {
                    event.field(path, raw);
                }
                Ok(())
            }
        }
    }

    /// A string, unescaped, to the end of the buffer.
    fn string(&mut self, out: &mut String) -> Result<(), NoObject> {
        self.expect(b'"')?;
        loop {
            let rest = &self.bytes[self.at..];
            let plain = memchr::memchr2(b'"', b'\\', rest).ok_or(NoObject)?;
            out.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain + 1;
            if rest[plain] == b'"' {
                return Ok(());
            }
            let escaped = self.peek().ok_or(NoObject)?;
            self.at += 1;
            out.push(match escaped {
                b'"' | b'\\' | b'/' => char::from(escaped),
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.unicode()?,
                _ => return Err(NoObject),
            });
        }
    }

    /// The character of `\uXXXX`, of two where they are a pair; a half alone is replaced.
    fn unicode(&mut self) -> Result<char, NoObject> {
        let first = self.hex4()?;
        if (0xd800..0xdc00).contains(&first) && self.bytes[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Result<u32, NoObject> {
        let digits = self.bytes.get(self.at..self.at + 4).ok_or(NoObject)?;
        self.at += 4;
        digits.iter().try_fold(0, |code, digit| {
            char::from(*digit).to_digit(16).map(|digit| code << 4 | digit).ok_or(NoObject)
        })
    }

    /// A value that is kept as it is written: its brackets and strings are followed, its words are not judged.
    fn skip(&mut self) -> Result<(), NoObject> {
        let mut depth = 0_usize;
        loop {
            match self.peek().ok_or(NoObject)? {
                b'"' => self.skip_string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                byte if depth > 0 && matches!(byte, b',' | b':' | b' ' | b'\t' | b'\r' | b'\n') => {
                    self.at += 1;
                }
                _ => self.word()?,
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn skip_string(&mut self) -> Result<(), NoObject> {
        self.at += 1;
        loop {
            let found = memchr::memchr2(b'"', b'\\', &self.bytes[self.at..]).ok_or(NoObject)?;
            self.at += found + 1;
            if self.bytes[self.at - 1] == b'"' {
                return Ok(());
            }
            // What is escaped is one byte at least; the rest of its character holds no quote.
            self.at += 1;
            if self.at > self.bytes.len() {
                return Err(NoObject);
            }
        }
    }

    /// A number or one of the three words.
    fn word(&mut self) -> Result<(), NoObject> {
        let from = self.at;
        while matches!(self.peek(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.')) {
            self.at += 1;
        }
        let word = &self.bytes[from..self.at];
        let number = matches!(word.first(), Some(b'-' | b'0'..=b'9'))
            && word.iter().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
        if number || matches!(word, b"true" | b"false" | b"null") { Ok(()) } else { Err(NoObject) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Option<Vec<(String, String)>> {
        let mut event = Event::default();
        parse(text, "", &mut event).ok()?;
        let own = |pair: &Pair| (event.text(pair.name).to_owned(), event.text(pair.value).to_owned());
        Some(event.fields.iter().map(own).collect())
    }

    #[test]
    fn objects_become_flat_fields() {
        let table: &[(&str, &[(&str, &str)])] = &[
            ("{}", &[]),
            (r#" { "a" : "b" , "n" : -1.5e3 } "#, &[("a", "b"), ("n", "-1.5e3")]),
            (
                r#"{"a":{"b":{"c":true}},"l":[1,{"x":"]"}],"z":null}"#,
                &[("a_b_c", "true"), ("l", r#"[1,{"x":"]"}]"#)],
            ),
            (
                r#"{"a":"q\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud800x"}"#,
                &[("a", "q\"\\/\u{8}\u{c}\n\r\t\u{e9}\u{1f600}\u{fffd}x")],
            ),
            (r#"{"":"empty","ü":"é"}"#, &[("", "empty"), ("ü", "é")]),
        ];
        for (text, expected) in table {
            let expected: Vec<_> = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            assert_eq!(fields(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused_whole() {
        for text in [
            "",
            "x",
            "[]",
            "1",
            "{",
            "{}x",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":"x}"#,
            r#"{"a":"\q"}"#,
            r#"{"a":"\u12"}"#,
            r#"{"a":[1}"#,
            r#"{"a":[1,"\"#,
            r#"{"a":tru}"#,
            r#"{a:1}"#,
            r#"{"a":[x]}"#,
        ] {
            assert_eq!(fields(text), None, "{text}");
        }
    }

    #[test]
    fn deep_and_many_fields_end() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(4000), "}".repeat(4000));
        let found = fields(&deep).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, ["a"; MAX_DEPTH].join("_"));
        let many: Vec<_> =
            (0..2 * super::super::event::MAX_FIELDS).map(|n| format!(r#""k{n}":"v""#)).collect();
        assert_eq!(
            fields(&format!("{{{}}}", many.join(","))).unwrap().len(),
            super::super::event::MAX_FIELDS
        );
    }

    #[test]
    fn it_agrees_with_serde_json_on_what_is_an_object() {
        // Bytes of a seeded generator over JSON's alphabet, and documents with one byte replaced.
        let mut seed = 7_u64;
        let mut next = move |most: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % most
        };
        let document = r#"{"a":"b\n","c":[1,2,{"d":null}],"e":{"f":true,"g":-2.5e7},"h":"\u00e9"}"#;
        let alphabet = br#"{}[]",:\ truefalsn0123.-+eE"#;
        for _ in 0..20_000 {
            let mut bytes = document.as_bytes().to_vec();
            for _ in 0..=next(2) {
                let at = next(bytes.len());
                bytes[at] = alphabet[next(alphabet.len())];
            }
            let text = std::str::from_utf8(&bytes).unwrap();
            let strict = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok();
            // What serde_json takes is taken. The reverse does not hold: words and lists are not judged.
            assert!(!strict || fields(text).is_some(), "{text}");
        }
    }
}
