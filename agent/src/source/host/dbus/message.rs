//! D-Bus messages as bytes, as far as asking for properties and lists takes it: method calls out, replies and errors in
//! (D-Bus Specification 0.43, "Message Protocol" and "Type System").

use std::io;

/// The longest message that is read, in bytes. `ListUnits` takes some 250 bytes a unit: 60,000 units fit. The
/// specification's own limit is 128 MiB.
pub(super) const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The fixed part of a header, up to the length of the array of fields.
pub(super) const HEADER_BYTES: usize = 16;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// A monitoring agent does not start what it asks.
const NO_AUTO_START: u8 = 0x2;

const FIELD_PATH: u8 = 1;
const FIELD_INTERFACE: u8 = 2;
const FIELD_MEMBER: u8 = 3;
const FIELD_ERROR_NAME: u8 = 4;
const FIELD_REPLY_SERIAL: u8 = 5;
const FIELD_DESTINATION: u8 = 6;
const FIELD_SIGNATURE: u8 = 8;

/// A method call whose arguments are strings.
#[derive(Debug, Clone, Copy)]
pub(in crate::source::host) struct Call<'a> {
    /// The object.
    pub(in crate::source::host) path: &'a str,
    /// The interface of the method.
    pub(in crate::source::host) interface: &'a str,
    /// The method.
    pub(in crate::source::host) member: &'a str,
    /// Its arguments.
    pub(in crate::source::host) arguments: &'a [&'a str],
}

impl Call<'_> {
    /// Appends the message. Without a destination it is for the peer itself.
    pub(super) fn write(&self, serial: u32, destination: Option<&str>, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([b'l', METHOD_CALL, NO_AUTO_START, 1]);
        let body_length_at = out.len();
        out.extend([0; 4]);
        out.extend(serial.to_le_bytes());
        let fields_length_at = out.len();
        out.extend([0; 4]);
        let fields = out.len();
        let mut field = |code: u8, kind: u8, value: &str| {
            pad(out, start, 8);
            out.extend([code, 1, kind, 0]);
            if kind == b'g' {
                out.push(value.len() as u8);
                out.extend(value.as_bytes());
                out.push(0);
            } else {
                write_string(out, start, value);
            }
        };
        field(FIELD_PATH, b'o', self.path);
        field(FIELD_INTERFACE, b's', self.interface);
        field(FIELD_MEMBER, b's', self.member);
        if let Some(destination) = destination {
            field(FIELD_DESTINATION, b's', destination);
        }
        if !self.arguments.is_empty() {
            field(FIELD_SIGNATURE, b'g', &"s".repeat(self.arguments.len()));
        }
        let fields_length = (out.len() - fields) as u32;
        out[fields_length_at..fields_length_at + 4].copy_from_slice(&fields_length.to_le_bytes());
        pad(out, start, 8);
        let body = out.len();
        for argument in self.arguments {
            write_string(out, body, argument);
        }
        let body_length = (out.len() - body) as u32;
        out[body_length_at..body_length_at + 4].copy_from_slice(&body_length.to_le_bytes());
    }
}

fn write_string(out: &mut Vec<u8>, start: usize, value: &str) {
    pad(out, start, 4);
    out.extend((value.len() as u32).to_le_bytes());
    out.extend(value.as_bytes());
    out.push(0);
}

fn pad(out: &mut Vec<u8>, start: usize, to: usize) {
    let length = (out.len() - start).next_multiple_of(to);
    out.resize(start + length, 0);
}

/// The length of the whole message that begins with these bytes.
pub(super) fn message_length(header: &[u8; HEADER_BYTES]) -> io::Result<usize> {
    let mut reader = Reader::new(header, is_big_endian(header[0])?);
    reader.at = 4;
    let body = reader.u32()? as usize;
    reader.at = 12;
    let fields = reader.u32()? as usize;
    let length = body.saturating_add(fields).saturating_add(HEADER_BYTES + 7);
    if header[3] != 1 || length > MAX_MESSAGE_BYTES {
        return Err(broken());
    }
    Ok((HEADER_BYTES + fields).next_multiple_of(8) + body)
}

fn is_big_endian(mark: u8) -> io::Result<bool> {
    match mark {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(broken()),
    }
}

/// The answer to a call.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    /// The serial number of the call.
    pub(super) serial: u32,
    /// What it says.
    pub(super) outcome: Result<Body<'a>, Refusal>,
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {words}")]
pub(in crate::source::host) struct Refusal {
    /// The error's name, as `org.freedesktop.DBus.Error.AccessDenied`.
    name: String,
    /// Its explanation.
    words: String,
}

/// A reply's body.
#[derive(Debug, Clone)]
pub(in crate::source::host) struct Body<'a> {
    signature: &'a str,
    reader: Reader<'a>,
}

impl<'a> Body<'a> {
    /// A reader of the body, which must have this signature.
    pub(in crate::source::host) fn of(self, signature: &str) -> io::Result<Reader<'a>> {
        if self.signature == signature { Ok(self.reader) } else { Err(broken()) }
    }
}

/// Reads a whole message; none if it is no answer, but a signal or a call.
pub(super) fn answer(message: &[u8]) -> io::Result<Option<Answer<'_>>> {
    let mut reader = Reader::new(message, is_big_endian(*message.first().ok_or_else(broken)?)?);
    let kind = *message.get(1).ok_or_else(broken)?;
    if kind != METHOD_RETURN && kind != ERROR {
        return Ok(None);
    }
    let (mut serial, mut error, mut signature) = (None, None, "");
    reader.at = 12;
    let end = reader.u32()? as usize + HEADER_BYTES;
    while reader.at < end {
        reader.align(8)?;
        let code = reader.byte()?;
        let value = reader.variant()?;
        match (code, value) {
            (FIELD_REPLY_SERIAL, Value::Number(number)) => serial = u32::try_from(number).ok(),
            (FIELD_ERROR_NAME, Value::Text(name)) => error = Some(name),
            (FIELD_SIGNATURE, Value::Text(text)) => signature = text,
            _ => {}
        }
    }
    reader.align(8)?;
    let body = message.get(reader.at..).ok_or_else(broken)?;
    let reader = Reader::new(body, reader.big_endian);
    let outcome = if kind == METHOD_RETURN {
        Ok(Body { signature, reader })
    } else {
        let words = if signature.starts_with('s') { reader.clone().string()? } else { "" };
        Err(Refusal { name: error.unwrap_or_default().to_owned(), words: words.to_owned() })
    };
    Ok(Some(Answer { serial: serial.ok_or_else(broken)?, outcome }))
}

/// A value of a basic type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source::host) enum Value<'a> {
    /// A string, an object path or a signature.
    Text(&'a str),
    /// A number without a sign, or a boolean as 0 or 1.
    Number(u64),
}

/// Reads values one after another.
#[derive(Debug, Clone)]
pub(in crate::source::host) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], big_endian: bool) -> Self {
        Self { bytes, at: 0, big_endian }
    }

    /// Goes on to the next multiple; structures begin at multiples of 8.
    pub(in crate::source::host) fn align(&mut self, to: usize) -> io::Result<()> {
        self.at = self.at.next_multiple_of(to);
        if self.at <= self.bytes.len() { Ok(()) } else { Err(broken()) }
    }

    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or_else(broken)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(broken)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A number of 32 bits.
    pub(in crate::source::host) fn u32(&mut self) -> io::Result<u32> {
        self.align(4)?;
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_| broken())?;
        Ok(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.align(8)?;
        let bytes: [u8; 8] = self.take(8)?.try_into().map_err(|_| broken())?;
        Ok(if self.big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    /// A string or an object path.
    pub(in crate::source::host) fn string(&mut self) -> io::Result<&'a str> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    fn signature(&mut self) -> io::Result<&'a str> {
        let length = usize::from(self.byte()?);
        self.text(length)
    }

    fn text(&mut self, length: usize) -> io::Result<&'a str> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| broken())?;
        if self.byte()? == 0 { Ok(text) } else { Err(broken()) }
    }

    /// A variant of a basic type.
    pub(in crate::source::host) fn variant(&mut self) -> io::Result<Value<'a>> {
        Ok(match self.signature()? {
            "s" | "o" => Value::Text(self.string()?),
            "g" => Value::Text(self.signature()?),
            "y" => Value::Number(self.byte()?.into()),
            "b" | "u" => Value::Number(self.u32()?.into()),
            "t" => Value::Number(self.u64()?),
            _ => return Err(broken()),
        })
    }

    /// The elements of an array of structures, each read by `read`.
    pub(in crate::source::host) fn structures<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> io::Result<T>,
    ) -> io::Result<Vec<T>> {
        let length = self.u32()? as usize;
        self.align(8)?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or_else(broken)?;
        let mut all = Vec::new();
        while self.at < end {
            self.align(8)?;
            all.push(read(self)?);
        }
        Ok(all)
    }
}

/// What the peer says is not D-Bus, or not what was asked for.
pub(super) fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what it answers is not D-Bus as specified")
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::Asked;
    use super::*;

    /// A call's serial number and content.
    pub(in super::super) fn call(message: &[u8]) -> (u32, Asked) {
        let mut reader = Reader::new(message, false);
        reader.at = 8;
        let serial = reader.u32().unwrap();
        let end = reader.u32().unwrap() as usize + HEADER_BYTES;
        let (mut path, mut member, mut count) = (String::new(), String::new(), 0);
        while reader.at < end {
            reader.align(8).unwrap();
            match (reader.byte().unwrap(), reader.variant().unwrap()) {
                (FIELD_PATH, Value::Text(text)) => path = text.to_owned(),
                (FIELD_MEMBER, Value::Text(text)) => member = text.to_owned(),
                (FIELD_SIGNATURE, Value::Text(text)) => count = text.len(),
                _ => {}
            }
        }
        reader.align(8).unwrap();
        let mut body = Reader::new(&message[reader.at..], false);
        let arguments = (0..count).map(|_| body.string().unwrap().to_owned()).collect();
        (serial, Asked { path, member, arguments })
    }

    #[test]
    fn a_call_is_written_as_the_specification_says() {
        let call = Call { path: "/a", interface: "b.C", member: "Get", arguments: &["x", "yz"] };
        let mut message = b"before".to_vec();
        call.write(0x0102_0304, Some(":1.2"), &mut message);
        let expected: &[&[u8]] = &[
            b"before",
            b"l\x01\x02\x01\x0f\0\0\0\x04\x03\x02\x01\x48\0\0\0",
            b"\x01\x01o\0\x02\0\0\0/a\0\0\0\0\0\0",
            b"\x02\x01s\0\x03\0\0\0b.C\0\0\0\0\0",
            b"\x03\x01s\0\x03\0\0\0Get\0\0\0\0\0",
            b"\x06\x01s\0\x04\0\0\0:1.2\0\0\0\0",
            b"\x08\x01g\0\x02ss\0",
            b"",
            b"\x01\0\0\0x\0\0\0\x02\0\0\0yz\0",
        ];
        assert_eq!(message, expected.concat());
    }

    #[test]
    fn answers_of_either_byte_order_are_read() {
        let little = b"l\x02\x01\x01\x08\0\0\0\x01\0\0\0\x0f\0\0\0\x05\x01u\0\x09\0\0\0\x08\x01g\0\x01v\0\0\x01u\0\0\x2a\0\0\0";
        let big = b"B\x02\x01\x01\0\0\0\x08\0\0\0\x01\0\0\0\x0f\x05\x01u\0\0\0\0\x09\x08\x01g\0\x01v\0\0\x01u\0\0\0\0\0\x2a";
        for message in [little.as_slice(), big.as_slice()] {
            assert_eq!(message_length(message[..HEADER_BYTES].try_into().unwrap()).unwrap(), message.len());
            let answer = answer(message).unwrap().unwrap();
            assert_eq!(answer.serial, 9);
            let value = answer.outcome.unwrap().of("v").unwrap().variant().unwrap();
            assert_eq!(value, Value::Number(42));
        }
    }
}
