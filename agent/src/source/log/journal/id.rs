//! 128 bits as systemd writes them.

use std::fmt;
use std::str::FromStr;

/// An id of a file, a boot, a machine or a source of sequence numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Id(pub [u8; 16]);

/// A text is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not 32 hexadecimal digits")]
pub struct NoId;

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = NoId;

    fn from_str(text: &str) -> Result<Self, NoId> {
        // Cursors may have dashes, as UUIDs do.
        let mut digits = text.bytes().filter(|b| *b != b'-');
        let mut id = [0; 16];
        for byte in &mut id {
            let mut digit = || digits.next().and_then(|b| char::from(b).to_digit(16)).ok_or(NoId);
            *byte = (digit()? << 4 | digit()?) as u8;
        }
        if digits.next().is_some() { Err(NoId) } else { Ok(Self(id)) }
    }
}
