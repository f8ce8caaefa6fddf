//! DNS messages (RFC 1035, section 4): queries written, answers read. No I/O.

mod text;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The largest name, in bytes on the wire.
const MAX_NAME_BYTES: usize = 255;

/// Record types by name: those that a check may ask for (IANA, "Resource Record (RR) TYPEs").
pub const TYPES: &[(&str, u16)] = &[
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", 16),
    ("RP", 17),
    ("AFSDB", 18),
    ("AAAA", 28),
    ("LOC", 29),
    ("SRV", 33),
    ("NAPTR", 35),
    ("CERT", 37),
    ("DNAME", 39),
    ("OPT", 41),
    ("DS", 43),
    ("SSHFP", 44),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("NSEC3", 50),
    ("NSEC3PARAM", 51),
    ("TLSA", 52),
    ("SMIMEA", 53),
    ("CDS", 59),
    ("CDNSKEY", 60),
    ("OPENPGPKEY", 61),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("SPF", 99),
    ("ANY", 255),
    ("URI", 256),
    ("CAA", 257),
];

/// Classes by name.
pub const CLASSES: &[(&str, u16)] = &[("IN", 1), ("CH", 3), ("HS", 4), ("NONE", 254), ("ANY", 255)];

/// Answer codes by name (IANA, "DNS RCODEs"), those of the header.
pub const RCODES: &[(&str, u16)] = &[
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
    ("YXDOMAIN", 6),
    ("YXRRSET", 7),
    ("NXRRSET", 8),
    ("NOTAUTH", 9),
    ("NOTZONE", 10),
];

/// The type A.
pub const A: u16 = 1;
/// The type AAAA.
pub const AAAA: u16 = 28;
/// The type SOA.
pub const SOA: u16 = 6;
/// The class IN.
pub const IN: u16 = 1;

/// The name of a number in one of the tables.
pub fn name_of(table: &[(&'static str, u16)], number: u16) -> Option<&'static str> {
    table.iter().find(|(_, n)| *n == number).map(|(name, _)| *name)
}

/// The number of a name in one of the tables.
pub fn number_of(table: &[(&str, u16)], name: &str) -> Option<u16> {
    table.iter().find(|(known, _)| *known == name).map(|(_, n)| *n)
}

/// Why a message cannot be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// It ends within something.
    #[error("the message ends too early")]
    Short,
    /// A name is longer than names may be, points forward or in circles.
    #[error("a name in the message is malformed")]
    Name,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name, with or without a dot at its end.
    pub name: String,
    /// The type.
    pub qtype: u16,
    /// The class.
    pub class: u16,
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose it is, with a dot at its end; what cannot stand in text is escaped as `\DDD`.
    pub name: String,
    /// The type.
    pub rtype: u16,
    /// The class.
    pub class: u16,
    /// How long it may be kept, in seconds.
    pub ttl: u32,
    /// Where its contents are in the message.
    data: std::ops::Range<usize>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    bytes: Vec<u8>,
    /// The question that it repeats; none if it does not.
    pub question: Option<Question>,
    /// Answers.
    pub answers: Vec<Record>,
    /// Authorities.
    pub authorities: Vec<Record>,
    /// Additional records.
    pub additionals: Vec<Record>,
}

/// Writes a query.
pub fn query(id: u16, question: &Question, recursion_desired: bool) -> Result<Vec<u8>, BadMessage> {
    let mut out = Vec::with_capacity(12 + question.name.len() + 6);
    let flags = if recursion_desired { 0x0100_u16 } else { 0 };
    for word in [id, flags, 1, 0, 0, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    let name = question.name.strip_suffix('.').unwrap_or(&question.name);
    let begin = out.len();
    for label in name.split('.').filter(|_| !name.is_empty()) {
        if label.is_empty() || label.len() > 63 {
            return Err(BadMessage::Name);
        }
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    if out.len() - begin > MAX_NAME_BYTES {
        return Err(BadMessage::Name);
    }
    out.extend_from_slice(&question.qtype.to_be_bytes());
    out.extend_from_slice(&question.class.to_be_bytes());
    Ok(out)
}

impl Message {
    /// Reads an answer. Its length is at most that of a TCP message, so what it claims to hold it must hold.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BadMessage> {
        let mut reader = Reader { bytes: &bytes, at: 0 };
        let mut header = [0; 6];
        for word in &mut header {
            *word = reader.u16()?;
        }
        let [_, _, questions, answers, authorities, additionals] = header;
        let mut question = None;
        for _ in 0..questions {
            let name = reader.name()?;
            question = Some(Question { name, qtype: reader.u16()?, class: reader.u16()? });
        }
        let mut section = |count: u16| (0..count).map(|_| reader.record()).collect::<Result<Vec<_>, _>>();
        let (answers, authorities) = (section(answers)?, section(authorities)?);
        let additionals = section(additionals)?;
        Ok(Self { bytes, question, answers, authorities, additionals })
    }

    fn flags(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    /// The number that ties it to its query.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// Whether it is an answer at all.
    pub fn is_answer(&self) -> bool {
        self.flags() & 0x8000 != 0
    }

    /// Whether records were left out for want of space.
    pub fn truncated(&self) -> bool {
        self.flags() & 0x0200 != 0
    }

    /// The answer code.
    pub fn rcode(&self) -> u16 {
        self.flags() & 0xf
    }

    /// Whether it answers this query: names are compared without their letters' case.
    pub fn answers_to(&self, id: u16, asked: &Question) -> bool {
        let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let same = |q: &Question| {
            q.qtype == asked.qtype && q.class == asked.class && bare(&q.name) == bare(&asked.name)
        };
        self.is_answer() && self.id() == id && self.question.as_ref().is_none_or(same)
    }

    /// The address in a record of type A or AAAA.
    pub fn address(&self, record: &Record) -> Option<IpAddr> {
        let data = &self.bytes[record.data.clone()];
        match record.rtype {
            A => <[u8; 4]>::try_from(data).ok().map(|v4| Ipv4Addr::from(v4).into()),
            AAAA => <[u8; 16]>::try_from(data).ok().map(|v6| Ipv6Addr::from(v6).into()),
            _ => None,
        }
    }

    /// The serial number in a record of type SOA.
    pub fn serial(&self, record: &Record) -> Option<u32> {
        let mut reader = Reader { bytes: &self.bytes, at: record.data.start };
        if record.rtype != SOA {
            return None;
        }
        reader.name().ok()?;
        reader.name().ok()?;
        reader.u32().ok()
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadMessage> {
        let taken = self.bytes.get(self.at..self.at + N).and_then(|b| b.try_into().ok());
        self.at += N;
        taken.ok_or(BadMessage::Short)
    }

    fn u16(&mut self) -> Result<u16, BadMessage> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, BadMessage> {
        self.take().map(u32::from_be_bytes)
    }

    /// A name, its compression followed (RFC 1035, section 4.1.4). A pointer only goes back, so it ends.
    fn name(&mut self) -> Result<String, BadMessage> {
        let mut out = String::new();
        let mut at = self.at;
        let mut before = at;
        let mut after = None;
        // A name has at most 127 labels, so no more pointers than that make sense.
        for _ in 0..=MAX_NAME_BYTES {
            let length = *self.bytes.get(at).ok_or(BadMessage::Short)?;
            match length {
                0 => {
                    self.at = after.unwrap_or(at + 1);
                    if out.is_empty() {
                        out.push('.');
                    }
                    return Ok(out);
                }
                1..64 => {
                    let label =
                        self.bytes.get(at + 1..at + 1 + usize::from(length)).ok_or(BadMessage::Short)?;
                    for byte in label {
                        text::escape_name(*byte, &mut out);
                    }
                    out.push('.');
                    at += 1 + usize::from(length);
                    // Escapes take four characters a byte.
                    if out.len() > 4 * MAX_NAME_BYTES {
                        return Err(BadMessage::Name);
                    }
                }
                0xc0.. => {
                    let low = *self.bytes.get(at + 1).ok_or(BadMessage::Short)?;
                    after.get_or_insert(at + 2);
                    at = usize::from(length & 0x3f) << 8 | usize::from(low);
                    if at >= before {
                        return Err(BadMessage::Name);
                    }
                    before = at;
                }
                _ => return Err(BadMessage::Name),
            }
        }
        Err(BadMessage::Name)
    }

    fn record(&mut self) -> Result<Record, BadMessage> {
        let name = self.name()?;
        let (rtype, class, ttl) = (self.u16()?, self.u16()?, self.u32()?);
        let length = usize::from(self.u16()?);
        let data = self.at..self.at + length;
        if data.end > self.bytes.len() {
            return Err(BadMessage::Short);
        }
        self.at = data.end;
        Ok(Record { name, rtype, class, ttl, data })
    }
}

#[cfg(test)]
mod tests;
