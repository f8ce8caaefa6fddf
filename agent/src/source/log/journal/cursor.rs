//! Where an entry stands among all of a machine's: journald's own cursors, as `journalctl --after-cursor` takes them.

use super::id::Id;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The place of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Who numbered it.
    pub seqnum_id: Id,
    /// Its number there.
    pub seqnum: u64,
    /// The boot in which it was written.
    pub boot_id: Id,
    /// Microseconds since that boot.
    pub monotonic_us: u64,
    /// Microseconds since the Unix epoch.
    pub realtime_us: u64,
    /// The hashes of its fields, combined.
    pub xor_hash: u64,
}

/// A text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no cursor of the journal: it needs s=, i=, b=, m=, t= and x=, with semicolons between them")]
pub struct NoCursor;

impl Cursor {
    /// A place right before the entry, whether there is an entry or not.
    #[must_use]
    pub fn before(&self) -> Self {
        Self {
            seqnum: self.seqnum.saturating_sub(1),
            monotonic_us: self.monotonic_us.saturating_sub(1),
            realtime_us: self.realtime_us.saturating_sub(1),
            xor_hash: 0,
            ..*self
        }
    }

    /// Which of two entries comes first, by sd-journal's rule: by number where one source numbered both, else by the
    /// boot's clock where both are of one boot, else by the wall clock. Equal entries are one entry in two files.
    pub fn order(&self, other: &Self) -> Ordering {
        if self == other {
            return Ordering::Equal;
        }
        let mut order = Ordering::Equal;
        if self.seqnum_id == other.seqnum_id {
            order = self.seqnum.cmp(&other.seqnum);
        }
        if order.is_eq() && self.boot_id == other.boot_id {
            order = self.monotonic_us.cmp(&other.monotonic_us);
        }
        order.then(self.realtime_us.cmp(&other.realtime_us)).then(self.xor_hash.cmp(&other.xor_hash))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seqnum_id, seqnum, boot_id, monotonic_us, realtime_us, xor_hash } = self;
        write!(
            f,
            "s={seqnum_id};i={seqnum:x};b={boot_id};m={monotonic_us:x};t={realtime_us:x};x={xor_hash:x}"
        )
    }
}

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let mut cursor = Self::default();
        let mut seen = 0_u8;
        for part in text.trim().split(';') {
            let (key, value) = part.split_once('=').ok_or(NoCursor)?;
            let number = || u64::from_str_radix(value, 16).map_err(|_| NoCursor);
            let bit = match key {
                "s" => {
                    cursor.seqnum_id = value.parse().map_err(|_| NoCursor)?;
                    1
                }
                "i" => {
                    cursor.seqnum = number()?;
                    2
                }
                "b" => {
                    cursor.boot_id = value.parse().map_err(|_| NoCursor)?;
                    4
                }
                "m" => {
                    cursor.monotonic_us = number()?;
                    8
                }
                "t" => {
                    cursor.realtime_us = number()?;
                    16
                }
                "x" => {
                    cursor.xor_hash = number()?;
                    32
                }
                // Later versions may say more.
                _ => 0,
            };
            seen |= bit;
        }
        if seen == 63 { Ok(cursor) } else { Err(NoCursor) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "s=6ef1a3bd32e84ae4a2cb5e3d5bcf2c8d;i=4ece7;b=6c7c6013a26343b29e964691ff25d04c;m=4fc72436e;\
                        t=4c508a72423d9;x=d3e5610681098c10";

    #[test]
    fn a_cursor_of_journalctl_is_read_and_written_the_same() {
        let cursor: Cursor = TEXT.parse().unwrap();
        assert_eq!(cursor.seqnum, 0x4ece7);
        assert_eq!(cursor.to_string(), TEXT);
        for bad in ["", "s=", "s=1;i=2", &TEXT[..TEXT.len() - 20], &TEXT.replace("i=", "i=z")] {
            assert_eq!(bad.parse::<Cursor>(), Err(NoCursor), "{bad}");
        }
    }

    #[test]
    fn entries_are_in_the_order_of_their_numbers_then_of_the_boot_then_of_the_wall_clock() {
        let a: Cursor = TEXT.parse().unwrap();
        let later = Cursor { seqnum: a.seqnum + 1, monotonic_us: 0, realtime_us: 0, ..a };
        assert_eq!(a.order(&later), Ordering::Less);
        let elsewhere = Cursor { seqnum_id: Id([1; 16]), seqnum: 1, monotonic_us: 1, ..later };
        assert_eq!(a.order(&elsewhere), Ordering::Greater);
        let other_boot = Cursor { boot_id: Id([1; 16]), realtime_us: a.realtime_us + 1, ..elsewhere };
        assert_eq!(a.order(&other_boot), Ordering::Less);
        assert_eq!(a.order(&a.clone()), Ordering::Equal);
    }
}
