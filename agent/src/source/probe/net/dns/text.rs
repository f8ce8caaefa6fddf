//! Records as zone files write them (RFC 1035, section 5), each on one line: what assertions match.

use super::{CLASSES, Message, Reader, Record, SOA, TYPES, name_of};
use std::fmt::Write as _;

/// Adds a byte of a label to a name's text.
pub(super) fn escape_name(byte: u8, out: &mut String) {
    match byte {
        b'.' | b'\\' | b' ' | b'\'' | b'@' | b';' | b'(' | b')' | b'"' => {
            out.push('\\');
            out.push(char::from(byte));
        }
        0x21..=0x7e => out.push(char::from(byte)),
        _ => {
            let _ = write!(out, "\\{byte:03}");
        }
    }
}

fn quote(bytes: &[u8], out: &mut String) {
    out.push('"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            0x20..=0x7e => out.push(char::from(*byte)),
            _ => {
                let _ = write!(out, "\\{byte:03}");
            }
        }
    }
    out.push('"');
}

impl Message {
    /// A record on one line: name, time to live, class, type and contents with tabs between. Contents of types that
    /// are not known here are written as RFC 3597 says.
    pub fn text(&self, record: &Record) -> String {
        let named = |table, number: u16, prefix: &str| {
            name_of(table, number).map_or_else(|| format!("{prefix}{number}"), str::to_owned)
        };
        let class = named(CLASSES, record.class, "CLASS");
        let rtype = named(TYPES, record.rtype, "TYPE");
        let mut out = format!("{}\t{}\t{class}\t{rtype}\t", record.name, record.ttl);
        if self.contents(record, &mut out).is_none() {
            let data = &self.bytes[record.data.clone()];
            let _ = write!(out, "\\# {} ", data.len());
            for byte in data {
                let _ = write!(out, "{byte:02x}");
            }
        }
        out
    }

    /// Writes the contents of a known type; nothing if they are not of that form.
    fn contents(&self, record: &Record, out: &mut String) -> Option<()> {
        let mut text = String::new();
        // What is read never lies behind the record: lengths within it are checked against its end.
        let mut reader = Reader { bytes: &self.bytes[..record.data.end], at: record.data.start };
        match record.rtype {
            super::A | super::AAAA => write!(text, "{}", self.address(record)?).ok()?,
            2 | 5 | 12 | 39 => text = reader.name().ok()?,
            SOA => {
                let (server, mailbox) = (reader.name().ok()?, reader.name().ok()?);
                text = format!("{server} {mailbox}");
                for _ in 0..5 {
                    write!(text, " {}", reader.u32().ok()?).ok()?;
                }
            }
            15 => text = format!("{} {}", reader.u16().ok()?, reader.name().ok()?),
            16 | 99 => {
                while reader.at < record.data.end {
                    let length = usize::from(*reader.bytes.get(reader.at)?);
                    let piece = reader.bytes.get(reader.at + 1..reader.at + 1 + length)?;
                    if !text.is_empty() {
                        text.push(' ');
                    }
                    quote(piece, &mut text);
                    reader.at += 1 + length;
                }
            }
            33 => {
                let (priority, weight, port) = (reader.u16().ok()?, reader.u16().ok()?, reader.u16().ok()?);
                text = format!("{priority} {weight} {port} {}", reader.name().ok()?);
            }
            257 => {
                let [flags, length] = reader.take::<2>().ok()?;
                let tag = reader.bytes.get(reader.at..reader.at + usize::from(length))?;
                text = format!("{flags} {} ", String::from_utf8_lossy(tag));
                quote(reader.bytes.get(reader.at + usize::from(length)..)?, &mut text);
            }
            _ => return None,
        }
        out.push_str(&text);
        Some(())
    }
}
