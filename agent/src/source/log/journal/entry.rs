//! An entry with its fields.

use super::cursor::Cursor;

/// One entry. It is filled again and again and keeps its buffer.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// Its place; of entries that `journalctl` exported as it told it.
    pub cursor: Cursor,
    /// Fields that were cut or left out because they are longer than is read.
    pub oversized: u32,
    /// Fields that could not be read.
    pub damaged: u32,
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    from: usize,
    name: usize,
    to: usize,
}

impl Entry {
    /// Empties it.
    pub fn clear(&mut self) {
        self.cursor = Cursor::default();
        self.oversized = 0;
        self.damaged = 0;
        self.bytes.clear();
        self.fields.clear();
    }

    /// The fields in the order in which the journal has them: names and values, whatever bytes these are. A name may
    /// come more than once.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| {
            let whole = &self.bytes[field.from..field.to];
            (&whole[..field.name], &whole[field.name + 1..])
        })
    }

    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value)
    }

    /// Adds a field from its name and value.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.push(b'=');
        self.bytes.extend_from_slice(value);
        self.fields.push(Field { from, name: name.len(), to: self.bytes.len() });
    }

    /// The buffer, to append one `NAME=value` to; then [`Entry::take`] or [`Entry::undo`].
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes what was appended since the last field a field; false if it has no name.
    pub(super) fn take(&mut self, from: usize) -> bool {
        match memchr::memchr(b'=', &self.bytes[from..]) {
            Some(name) if name > 0 => {
                self.fields.push(Field { from, name, to: self.bytes.len() });
                true
            }
            _ => {
                self.undo(from);
                false
            }
        }
    }

    /// Takes back what was appended since the last field.
    pub(super) fn undo(&mut self, from: usize) {
        self.bytes.truncate(from);
    }
}
