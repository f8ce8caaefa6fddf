//! The JSON Schema of a raw form, and the reference in Markdown that is made of it.

use super::Raw;
use super::check::{Schemas, kinds_of, type_of, words_of};
use super::form;
use serde_json::Value;
use std::fmt::Write as _;

/// The JSON Schema of a raw form.
pub fn schema<R: Raw>() -> Value {
    schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<R>().to_value()
}

/// The JSON Schema as it is published: a file that editors understand.
pub fn schema_file<R: Raw>(title: &str) -> String {
    let mut schema = schema::<R>();
    schema["title"] = Value::String(title.to_owned());
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema has only text keys");
    text.push('\n');
    text
}

/// The reference, one heading a section.
pub fn markdown<R: Raw>(program: &str) -> String {
    let schema = schema::<R>();
    let mut page = Page { schemas: Schemas { root: &schema }, out: String::new() };
    let _ = writeln!(
        page.out,
        "# Configuration of {program}\n\n\
         <!-- Made from the doc comments of the raw form by `PEGEL_BLESS=1 cargo test -p {program} reference`. -->\n\n\
         YAML. Every key has a default unless it is marked *required*. In every value `${{VAR}}` stands for a \
         variable of the environment, `${{VAR:-default}}` gives one that is used when it is unset or empty, `${{hostname}}` \
         and `${{machine_id}}` are the machine's, and `$$` is a dollar sign. Secrets are read from files, by the keys that end in `_file`. \
         Relative paths are relative to the configuration file. `{program} validate` \
         reports all mistakes at once.\n"
    );
    page.section(&schema, "", 1);
    let mut out = page.out;
    while out.ends_with("\n\n") {
        out.pop();
    }
    out
}

struct Page<'a> {
    schemas: Schemas<'a>,
    out: String,
}

impl<'a> Page<'a> {
    fn section(&mut self, schema: &'a Value, path: &str, depth: usize) {
        let Some(properties) = schema["properties"].as_object() else { return };
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        self.out.push_str("| key | value | default | |\n| --- | --- | --- | --- |\n");
        for (key, property) in properties {
            let wanted = self.schemas.wanted(property);
            let default = match &property["default"] {
                _ if required.contains(&key.as_str()) => "*required*".to_owned(),
                Value::Object(_) | Value::Null => String::new(),
                Value::String(text) if text.is_empty() => String::new(),
                Value::Array(items) if items.is_empty() => String::new(),
                Value::String(text) => format!("`{}`", text.replace('|', "\\|")),
                other => format!("`{}`", other.to_string().replace('|', "\\|")),
            };
            let words = description(property).or_else(|| description(wanted)).unwrap_or_default();
            let _ = writeln!(
                self.out,
                "| `{key}` | {} | {default} | {} |",
                self.kind(wanted),
                words.replace("\n\n", "<br>").replace('\n', " ").replace('|', "\\|")
            );
        }
        self.out.push('\n');
        // Sections of one form are described once, under all their names.
        let mut described = Vec::new();
        for (key, property) in properties {
            let form = property["$ref"].as_str();
            if form.is_some_and(|form| described.contains(&form)) {
                continue;
            }
            described.extend(form);
            let alike = properties
                .iter()
                .filter(|(other, schema)| *other != key && form.is_some() && schema["$ref"].as_str() == form);
            let mut path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            for (other, _) in alike {
                let _ = write!(path, "`, `{other}");
            }
            self.below(property, &path, depth + 1);
        }
    }

    /// Writes the sections that a property leads to.
    fn below(&mut self, property: &'a Value, path: &str, depth: usize) {
        let wanted = self.schemas.wanted(property);
        match type_of(wanted) {
            "array" => return self.below(&wanted["items"], &format!("{path}[]"), depth),
            "object" if wanted["additionalProperties"].is_object() => {
                return self.below(&wanted["additionalProperties"], &format!("{path}.NAME"), depth);
            }
            _ => {}
        }
        if let Some((key, kinds)) = kinds_of(wanted) {
            for (word, kind) in kinds {
                self.heading(&format!("`{path}` with `{key}: {word}`"), depth, kind);
                self.section(kind, path, depth);
            }
        } else if wanted["properties"].is_object() {
            self.heading(&format!("`{path}`"), depth, wanted);
            self.section(wanted, path, depth);
        }
    }

    fn heading(&mut self, title: &str, depth: usize, schema: &Value) {
        let _ = writeln!(self.out, "{} {title}\n", "#".repeat(depth.min(4)));
        if let Some(words) = description(schema) {
            let _ = writeln!(self.out, "{words}\n");
        }
    }

    fn kind(&self, schema: &'a Value) -> String {
        if kinds_of(schema).is_some() {
            return "section".to_owned();
        }
        if let Some(words) = words_of(schema) {
            return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        }
        match type_of(schema) {
            "object" if schema["additionalProperties"].is_object() => {
                format!("names with {}", self.kind(self.schemas.wanted(&schema["additionalProperties"])))
            }
            "object" => match schema["x-list-as"].as_str() {
                Some(key) => {
                    let list = self.kind(self.schemas.wanted(&schema["properties"][key]));
                    format!("section or {list}")
                }
                None => "section".to_owned(),
            },
            "array" => format!("list of {}", self.kind(self.schemas.wanted(&schema["items"]))),
            "string" => {
                schema["format"].as_str().and_then(form::by_name).map_or("text", |form| form.name).to_owned()
            }
            "boolean" => "`true`, `false`".to_owned(),
            "integer" => "whole number".to_owned(),
            other => other.to_owned(),
        }
    }
}

fn description(schema: &Value) -> Option<String> {
    schema["description"].as_str().map(str::to_owned)
}
