//! Interned strings: a label name or value is stored once, however many agents send it.
//!
//! Symbols are dense numbers, so that a remote-write 2.0 request can find a symbol's place in its own table by
//! indexing an array. The text is kept in the form in which protobuf wants it, its length first, so that building a
//! request is copying.
//!
//! *When a symbol is freed.* A [`ResolvedSeries`](crate::session::ResolvedSeries) counts as one reference to each
//! symbol that it names, from its making to its drop; queued batches hold their series, so that what is still to be
//! sent can still be spelled. A dropped series leaves its symbols on a list of the released, which the next
//! interning (or every [`SWEEP_AT`]th release) takes off their counts; a symbol without references is freed then,
//! and its number used again.
//!
//! *Locks.* Readers take one shared lock a request, not one a symbol ([`Symbols::view`]). Only the description of
//! new series, which is rare, takes the exclusive lock. Releasing takes neither, so that a series may be dropped
//! while a view is held.

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use pegel_proto::codec::FamilyView;
use pegel_proto::metrics::Family;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// How many released series wait at most before they are swept without anyone interning: one scrape's worth.
const SWEEP_AT: usize = 1_024;

/// The fewest families between two sweeps of unused ones.
const FAMILY_SWEEP_AT: usize = 1_024;

/// An interned string. Comparing two is comparing the strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(pub u32);

/// The end of a chain of symbols with one hash.
const NONE: u32 = u32::MAX;

/// The interned strings of one process, shared by all sessions.
#[derive(Debug, Default)]
pub struct Symbols {
    table: RwLock<Table>,
    released: Mutex<Vec<Released>>,
    families: Mutex<Families>,
}

/// What a series that is gone named.
#[derive(Debug)]
struct Released {
    labels: Box<[(Symbol, Symbol)]>,
    others: [Symbol; 2],
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    by_hash: HashMap<u64, u32, BuildHasherDefault<AlreadyHashed>>,
    free: Vec<u32>,
    text_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    /// The text's length as a protobuf varint, then the text.
    encoded: Box<[u8]>,
    references: u32,
    /// The next symbol with the same hash.
    next: u32,
}

#[derive(Debug, Default)]
struct Families {
    known: HashSet<Arc<Family>>,
    sweep_at: usize,
}

/// Takes a hash as it is.
#[derive(Debug, Default)]
pub struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Symbols {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// A view for spelling many symbols. Interning waits while it is held.
    pub fn view(&self) -> SymbolView<'_> {
        SymbolView(self.table.read())
    }

    /// Opens the table for interning. Each symbol that is interned counts one reference more.
    pub fn interner(&self) -> Interner<'_> {
        let released = std::mem::take(&mut *self.released.lock());
        let mut table = self.table.write();
        table.sweep(released);
        Interner(table)
    }

    /// The family with these fields, one copy for all series that have it.
    pub fn family(&self, view: FamilyView<'_>) -> Arc<Family> {
        let wanted = Family {
            name: view.name.into(),
            kind: view.kind,
            help: view.help.into(),
            unit: view.unit.into(),
        };
        let mut families = self.families.lock();
        if let Some(known) = families.known.get(&wanted) {
            return known.clone();
        }
        if families.known.len() >= families.sweep_at.max(FAMILY_SWEEP_AT) {
            families.known.retain(|family| Arc::strong_count(family) > 1);
            families.sweep_at = 2 * families.known.len();
        }
        let family = Arc::new(wanted);
        families.known.insert(family.clone());
        family
    }

    /// Gives back one reference to each of these symbols.
    pub(crate) fn release(&self, labels: Box<[(Symbol, Symbol)]>, others: [Symbol; 2]) {
        let mut released = self.released.lock();
        released.push(Released { labels, others });
        if released.len() >= SWEEP_AT
            && let Some(mut table) = self.table.try_write()
        {
            let released = std::mem::take(&mut *released);
            table.sweep(released);
        }
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        let table = self.table.read();
        table.slots.len() - table.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Roughly what the table takes in memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let table = self.table.read();
        // 16 bytes an allocation is what malloc adds on average.
        table.text_bytes
            + table.slots.len() * (size_of::<Slot>() + 16)
            + table.by_hash.capacity() * (size_of::<(u64, u32)>() + 1)
    }
}

impl Table {
    fn intern(&mut self, text: &str) -> Symbol {
        let hash = xxh3_64(text.as_bytes());
        let first = self.by_hash.get(&hash).copied().unwrap_or(NONE);
        let mut at = first;
        while at != NONE {
            let slot = &mut self.slots[at as usize];
            if text_of(&slot.encoded) == text.as_bytes() {
                slot.references += 1;
                return Symbol(at);
            }
            at = slot.next;
        }
        let mut encoded = Vec::with_capacity(text.len() + 3);
        put_varint(&mut encoded, text.len() as u64);
        encoded.extend_from_slice(text.as_bytes());
        self.text_bytes += encoded.len();
        let slot = Slot { encoded: encoded.into(), references: 1, next: first };
        let id = if let Some(id) = self.free.pop() {
            self.slots[id as usize] = slot;
            id
        } else {
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        };
        self.by_hash.insert(hash, id);
        Symbol(id)
    }

    fn sweep(&mut self, released: Vec<Released>) {
        for series in released {
            for (name, value) in &series.labels {
                self.unreference(*name);
                self.unreference(*value);
            }
            series.others.into_iter().for_each(|symbol| self.unreference(symbol));
        }
    }

    fn unreference(&mut self, symbol: Symbol) {
        let slot = &mut self.slots[symbol.0 as usize];
        slot.references -= 1;
        if slot.references > 0 {
            return;
        }
        let next = slot.next;
        let encoded = std::mem::take(&mut slot.encoded);
        self.text_bytes -= encoded.len();
        let hash = xxh3_64(text_of(&encoded));
        let first = self.by_hash[&hash];
        if first == symbol.0 {
            if next == NONE {
                self.by_hash.remove(&hash);
            } else {
                self.by_hash.insert(hash, next);
            }
        } else {
            let mut at = first;
            while self.slots[at as usize].next != symbol.0 {
                at = self.slots[at as usize].next;
            }
            self.slots[at as usize].next = next;
        }
        self.free.push(symbol.0);
    }
}

/// The table open for interning.
#[derive(Debug)]
pub struct Interner<'a>(RwLockWriteGuard<'a, Table>);

impl Interner<'_> {
    /// The symbol of a text, with one reference more.
    pub fn intern(&mut self, text: &str) -> Symbol {
        self.0.intern(text)
    }
}

/// The table open for reading.
#[derive(Debug)]
pub struct SymbolView<'a>(RwLockReadGuard<'a, Table>);

impl SymbolView<'_> {
    /// A symbol's text.
    pub fn text(&self, symbol: Symbol) -> &str {
        std::str::from_utf8(text_of(self.encoded(symbol))).unwrap_or_default()
    }

    /// A symbol's text as a protobuf string without its tag: its length as a varint, then the text.
    #[inline]
    pub fn encoded(&self, symbol: Symbol) -> &[u8] {
        &self.0.slots[symbol.0 as usize].encoded
    }

    /// All symbols are below this number.
    pub fn bound(&self) -> usize {
        self.0.slots.len()
    }
}

/// The text behind its length.
fn text_of(encoded: &[u8]) -> &[u8] {
    let length_bytes = encoded.iter().take_while(|b| **b >= 0x80).count() + 1;
    encoded.get(length_bytes..).unwrap_or_default()
}

/// Appends a protobuf varint.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegel_proto::metrics::MetricType;

    fn intern(symbols: &Symbols, text: &str) -> Symbol {
        symbols.interner().intern(text)
    }

    #[test]
    fn a_text_has_one_symbol_and_a_symbol_its_text() {
        let symbols = Symbols::new();
        let long = "x".repeat(20_000);
        let a = intern(&symbols, "a");
        let b = intern(&symbols, &long);
        let empty = intern(&symbols, "");
        assert_eq!(a, intern(&symbols, "a"));
        assert_ne!(a, b);
        let view = symbols.view();
        assert_eq!((view.text(a), view.text(b), view.text(empty)), ("a", long.as_str(), ""));
        assert_eq!(view.encoded(a), b"\x01a");
    }

    #[test]
    fn a_symbol_lives_until_its_last_reference_is_released_and_its_number_is_used_again() {
        let symbols = Symbols::new();
        let name = intern(&symbols, "name");
        let value = intern(&symbols, "value");
        intern(&symbols, "name");
        let other = intern(&symbols, "");
        intern(&symbols, "");
        symbols.release(Box::new([(name, value)]), [other, other]);
        let again = intern(&symbols, "something else");
        assert!([value, other].contains(&again), "the freed number serves again");
        assert_eq!(symbols.view().text(name), "name");
        assert_eq!(symbols.len(), 2);
    }

    #[test]
    fn releasing_does_not_wait_for_a_view_on_the_same_thread() {
        let symbols = Symbols::new();
        let mut all = Vec::new();
        for _ in 0..2 * SWEEP_AT {
            let mut interner = symbols.interner();
            all.push((
                interner.intern("k"),
                interner.intern("v"),
                interner.intern("h"),
                interner.intern("u"),
            ));
        }
        let view = symbols.view();
        for (k, v, h, u) in all {
            symbols.release(Box::new([(k, v)]), [h, u]);
        }
        assert_eq!(view.text(Symbol(0)), "k");
        drop(view);
        drop(symbols.interner());
        assert!(symbols.is_empty());
        assert_eq!(symbols.table.read().text_bytes, 0);
    }

    #[test]
    fn families_are_shared_and_forgotten_when_unused() {
        let symbols = Symbols::new();
        let view = |name| FamilyView { name, kind: MetricType::default(), help: "h", unit: "" };
        let kept = symbols.family(view("kept"));
        assert!(Arc::ptr_eq(&kept, &symbols.family(view("kept"))));
        for i in 0..3 * FAMILY_SWEEP_AT {
            symbols.family(FamilyView { name: &i.to_string(), ..view("") });
        }
        assert!(symbols.families.lock().known.len() <= FAMILY_SWEEP_AT + 1);
        assert!(Arc::ptr_eq(&kept, &symbols.family(view("kept"))));
    }
}
