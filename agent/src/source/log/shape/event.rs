//! One entry on its way through the steps: the fields that were parsed out of it and what it is to become.
//!
//! All text lies in one buffer that is kept from entry to entry, so that nothing is allocated for an entry once the
//! buffer is large enough.

use super::metrics::Observation;

/// The most fields of one entry; what a line has beyond them is not parsed.
pub(super) const MAX_FIELDS: usize = 512;

/// A place in the event's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    at: u32,
    len: u32,
}

/// A name and its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub name: Span,
    pub value: Span,
}

/// What happens elsewhere once the entry is taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Effects {
    /// Steps that could make nothing of it, a bit each.
    pub failed: u64,
    /// The time that it brought was not to be believed.
    pub clamped: bool,
    /// How many texts were masked.
    pub masked: u64,
    /// Observations of derived metrics.
    pub observations: Vec<Observation>,
    /// Buckets of rate limits that a token was taken from: the step and the bucket.
    pub tokens: Vec<(usize, u64)>,
}

/// The entry.
#[derive(Debug, Default)]
pub(super) struct Event {
    text: String,
    pub fields: Vec<Pair>,
    pub labels: Vec<Pair>,
    pub metadata: Vec<Pair>,
    /// What the line became, if it is not the one that was read any more.
    output: Option<Span>,
    /// Its own time.
    pub at_ns: Option<i64>,
    /// Its own time as it was written, where it was not believed.
    pub original: Option<Span>,
    pub effects: Effects,
}

impl Event {
    pub fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
        self.labels.clear();
        self.metadata.clear();
        self.output = None;
        self.at_ns = None;
        self.original = None;
        self.effects.failed = 0;
        self.effects.clamped = false;
        self.effects.masked = 0;
        self.effects.observations.clear();
        self.effects.tokens.clear();
    }

    pub fn text(&self, span: Span) -> &str {
        &self.text[span.at as usize..][..span.len as usize]
    }

    pub fn keep(&mut self, text: &str) -> Span {
        let at = self.text.len() as u32;
        self.text.push_str(text);
        Span { at, len: text.len() as u32 }
    }

    /// Keeps what is written to the buffer's end.
    pub fn keep_written(&mut self, write: impl FnOnce(&mut String)) -> Span {
        let at = self.text.len();
        write(&mut self.text);
        Span { at: at as u32, len: (self.text.len() - at) as u32 }
    }

    /// Adds a field. Whether there was room for it.
    pub fn field(&mut self, name: &str, value: &str) -> bool {
        self.has_room() && {
            let (name, value) = (self.keep(name), self.keep(value));
            self.fields.push(Pair { name, value });
            true
        }
    }

    pub fn has_room(&self) -> bool {
        self.fields.len() < MAX_FIELDS
    }

    /// The newest field of a name.
    pub fn find(&self, name: &str) -> Option<Span> {
        self.fields.iter().rev().find(|field| self.text(field.name) == name).map(|field| field.value)
    }

    /// The newest field of a name, as text.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.find(name).map(|span| self.text(span))
    }

    /// Sets a field that may be there already.
    pub fn set(&mut self, name: &str, value: &str) {
        let value = self.keep(value);
        let found = self.fields.iter().rposition(|field| self.text(field.name) == name);
        match found {
            Some(at) => self.fields[at].value = value,
            None => {
                let name = self.keep(name);
                self.fields.push(Pair { name, value });
            }
        }
    }

    /// The line as it is now.
    pub fn line<'a>(&'a self, read: &'a str) -> &'a str {
        self.output.map_or(read, |span| self.text(span))
    }

    /// Whether the line is not the one that was read any more.
    pub fn is_rewritten(&self) -> bool {
        self.output.is_some()
    }

    /// Whether a text is the line.
    pub fn is_line(&self, span: Span) -> bool {
        self.output == Some(span)
    }

    /// The time that it brought can't be its own.
    pub fn not_believed(&mut self, written: &str) {
        self.at_ns = None;
        self.original = Some(self.keep(written));
        self.effects.clamped = true;
    }

    pub fn set_line(&mut self, span: Span) {
        self.output = Some(span);
    }

    pub fn replace_line(&mut self, line: &str) {
        let span = self.keep(line);
        self.output = Some(span);
    }

    pub fn label(&mut self, name: &str, value: Span) {
        let name = self.keep(name);
        self.labels.push(Pair { name, value });
    }

    pub fn note(&mut self, name: &str, value: &str) {
        let (name, value) = (self.keep(name), self.keep(value));
        self.metadata.push(Pair { name, value });
    }

    /// Takes structured metadata of a name away.
    pub fn forget(&mut self, name: &str) {
        let text = &self.text;
        self.metadata.retain(|pair| text[pair.name.at as usize..][..pair.name.len as usize] != *name);
    }
}
