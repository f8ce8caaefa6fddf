//! Conditions on entries: what `keep`, `drop`, `sample` and metrics ask.

use super::event::Event;
use super::level::{self, Level};
use regex::Regex;

/// What is asked of an entry. Everything that is said has to hold.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// The field, label or metadata that is asked; the line without one.
    pub field: Option<String>,
    /// It is one of these.
    pub one_of: Vec<String>,
    /// It holds this text.
    pub contains: Option<String>,
    /// It matches somewhere.
    pub matches: Option<Regex>,
    /// Its level is less serious than this one. An entry without a level is not.
    pub below: Option<Level>,
    /// It is there at all (or is not).
    pub exists: Option<bool>,
    /// The opposite of all this is asked.
    pub not: bool,
}

impl Condition {
    /// Whether it holds. `named` finds what is not a field: labels of the source, metadata.
    pub(super) fn holds<'a>(
        &self,
        event: &'a Event,
        read: &'a str,
        named: impl Fn(&str) -> Option<&'a str>,
    ) -> bool {
        let value = match &self.field {
            Some(field) => event.value(field).or_else(|| named(field)),
            None => Some(event.line(read)),
        };
        let there = self.exists.is_none_or(|exists| exists == value.is_some());
        let text = value.unwrap_or_default();
        let holds = there
            && (self.one_of.is_empty()
                || value.is_some_and(|value| self.one_of.iter().any(|one| one == value)))
            && self.contains.as_ref().is_none_or(|part| {
                value.is_some() && memchr::memmem::find(text.as_bytes(), part.as_bytes()).is_some()
            })
            && self.matches.as_ref().is_none_or(|regex| value.is_some() && regex.is_match(text))
            && self.below.is_none_or(|least| self.level(event, read).is_some_and(|level| level < least));
        holds != self.not
    }

    fn level(&self, event: &Event, read: &str) -> Option<Level> {
        match &self.field {
            Some(field) => event.value(field).and_then(Level::of_value),
            None => of_event(event).or_else(|| Level::of_line(event.line(read))),
        }
    }
}

/// The level that a field says.
pub(super) fn of_event(event: &Event) -> Option<Level> {
    let pairs = event.fields.iter().chain(&event.metadata);
    let mut best: Option<(usize, Level)> = None;
    for pair in pairs {
        let name = event.text(pair.name);
        if let Some(rank) = level::FIELDS.iter().position(|field| *field == name) {
            if best.is_none_or(|(other, _)| rank < other) {
                best = Level::of_value(event.text(pair.value)).map(|level| (rank, level)).or(best);
            }
        }
    }
    best.map(|(_, level)| level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(condition: &Condition) -> bool {
        let mut event = Event::default();
        event.field("status", "503");
        event.field("level", "warning");
        condition.holds(&event, "GET /health", |name| (name == "job").then_some("shop"))
    }

    #[test]
    fn each_question_and_its_opposite() {
        let on = |field: &str| Condition { field: Some(field.to_owned()), ..Condition::default() };
        let table = [
            (Condition { one_of: vec!["500".into(), "503".into()], ..on("status") }, true),
            (Condition { one_of: vec!["500".into()], ..on("status") }, false),
            (Condition { one_of: vec!["shop".into()], ..on("job") }, true),
            (Condition { contains: Some("health".into()), ..Condition::default() }, true),
            (Condition { contains: Some("health".into()), ..on("missing") }, false),
            (Condition { contains: Some(String::new()), ..on("missing") }, false),
            (Condition { matches: Some(Regex::new("^5").unwrap()), ..on("status") }, true),
            (
                Condition {
                    matches: Some(Regex::new("^5").unwrap()),
                    contains: Some("4".into()),
                    ..on("status")
                },
                false,
            ),
            (Condition { below: Some(Level::Error), ..Condition::default() }, true),
            (Condition { below: Some(Level::Warn), ..Condition::default() }, false),
            (Condition { below: Some(Level::Warn), ..on("missing") }, false),
            (Condition { exists: Some(true), ..on("status") }, true),
            (Condition { exists: Some(false), ..on("missing") }, true),
        ];
        for (condition, expected) in table {
            assert_eq!(holds(&condition), expected, "{condition:?}");
            assert_eq!(holds(&Condition { not: true, ..condition.clone() }), !expected, "not {condition:?}");
        }
    }
}
