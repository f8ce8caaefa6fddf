//! One log line.

use super::LogFormat;
use std::fmt::{self, Write};
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::Level;
use tracing::field::{Field, Visit};

const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// The fields of an event or a span, as text.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Vec<(&'static str, String, bool)>);

impl Fields {
    /// Adds a field; `quoted` if its value is text and no number.
    pub(super) fn add(&mut self, name: &'static str, value: String, quoted: bool) {
        match self.0.iter_mut().find(|(known, _, _)| *known == name) {
            Some(field) => *field = (name, value, quoted),
            None => self.0.push((name, value, quoted)),
        }
    }

    /// Takes the message out.
    pub(super) fn take_message(&mut self) -> String {
        match self.0.iter().position(|(name, _, _)| *name == "message") {
            Some(i) => self.0.remove(i).1,
            None => String::new(),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), format!("{value:?}"), true);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value.to_owned(), true);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value.to_string(), false);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value.to_string(), false);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value.to_string(), false);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        self.add(field.name(), value.to_string(), !value.is_finite());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.add(field.name(), text, true);
    }
}

/// What goes into one line.
pub(super) struct Line<'a> {
    pub(super) at: SystemTime,
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) message: &'a str,
    pub(super) fields: &'a Fields,
    /// The spans around it, the outermost first.
    pub(super) spans: &'a [(&'static str, Fields)],
}

impl Line<'_> {
    /// Writes the line, without its end.
    pub(super) fn write(&self, format: LogFormat, out: &mut String) {
        let at = OffsetDateTime::from(self.at).format(STAMP).unwrap_or_default();
        match format {
            LogFormat::Text => {
                let _ = write!(out, "{at} {:>5} {}: ", self.level, self.target);
                one_line(out, self.message);
                for (name, value, quoted) in self.all_fields() {
                    let _ = write!(out, " {name}=");
                    logfmt_value(out, value, quoted);
                }
            }
            LogFormat::Json => {
                let level = self.level.as_str().to_ascii_lowercase();
                let _ = write!(
                    out,
                    "{{\"ts\":\"{at}\",\"level\":\"{level}\",\"target\":\"{}\",\"msg\":",
                    self.target
                );
                json_text(out, self.message);
                for (name, value, quoted) in self.all_fields() {
                    out.push(',');
                    // Names of our own must not occur twice.
                    let taken = matches!(name, "ts" | "level" | "target" | "msg");
                    json_text(out, if taken { "field" } else { name });
                    out.push(':');
                    if quoted { json_text(out, value) } else { out.push_str(value) }
                }
                out.push('}');
            }
            LogFormat::Logfmt => {
                let level = self.level.as_str().to_ascii_lowercase();
                let _ = write!(out, "ts={at} level={level} target={} msg=", self.target);
                logfmt_value(out, self.message, true);
                for (name, value, quoted) in self.all_fields() {
                    let _ = write!(out, " {name}=");
                    logfmt_value(out, value, quoted);
                }
            }
        }
    }

    /// The fields of the event, then those of the spans around it that it does not have itself, the innermost first.
    fn all_fields(&self) -> Vec<(&'static str, &str, bool)> {
        let mut all: Vec<(&'static str, &str, bool)> = Vec::new();
        let spans = self.spans.iter().rev().map(|(_, fields)| fields);
        for (name, value, quoted) in std::iter::once(self.fields).chain(spans).flat_map(|fields| &fields.0) {
            if !all.iter().any(|(known, _, _)| known == name) {
                all.push((name, value, *quoted));
            }
        }
        all
    }
}

/// A line break in a message must not begin what looks like another line.
fn one_line(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
}

fn logfmt_value(out: &mut String, value: &str, quoted: bool) {
    let plain = !quoted
        || (!value.is_empty()
            && value
                .chars()
                .all(|c| !c.is_control() && !c.is_whitespace() && !matches!(c, '"' | '=' | '\\')));
    if plain { out.push_str(value) } else { json_text(out, value) }
}

fn json_text(out: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => out.push_str("\"\""),
    }
}
