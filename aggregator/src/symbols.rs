//! Interned strings: a label name or value is stored once, however many agents send it.
//! (Skeleton; the outputs' branch writes it.)

/// An interned string. Comparing two is comparing the strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(pub u32);
