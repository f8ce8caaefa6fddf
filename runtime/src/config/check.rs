//! Holds a tree against a JSON Schema, collecting every mistake.
//!
//! Only what schemars makes of raw forms is understood: `$ref`, objects, lists, scalars with a format or an
//! enumeration, optional values, and `oneOf` for enumerations and for sections whose kind a `type` key names. Three
//! extensions say what a schema cannot: `x-renamed` maps keys that were renamed to their new names, `x-refused` maps
//! keys that people try to the words they need. Of a section with `x-list-as` a list alone is the value of that key.

use super::form;
use super::mistakes::Mistakes;
use super::nearest::nearest;
use super::path::Path;
use super::tree::{Content, Entry, Node, Text};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Turns the tree of `mistakes` into a JSON value, without what is empty or wrong.
pub(super) fn check(schema: &Value, mistakes: &mut Mistakes) -> Value {
    mistakes.change_tree(|tree| Schemas { root: schema }.spell_out(schema, tree));
    let tree = mistakes.tree().clone();
    let mut check = Check { schemas: Schemas { root: schema }, mistakes };
    check.node(schema, &tree, &Path::root()).unwrap_or_else(|| Value::Object(Map::new()))
}

/// Looks references of a schema up.
#[derive(Clone, Copy)]
pub(super) struct Schemas<'a> {
    /// The whole schema.
    pub(super) root: &'a Value,
}

impl<'a> Schemas<'a> {
    /// The schema that says what is wanted: behind references, without the alternative of saying nothing.
    pub(super) fn wanted(self, mut schema: &'a Value) -> &'a Value {
        // References of raw forms are not recursive; the bound only keeps a slip there from hanging us.
        for _ in 0..16 {
            if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
                schema = &self.root["$defs"][name];
            } else if let Some(some) =
                schema["anyOf"].as_array().and_then(|any| any.iter().find(|s| s["type"] != "null"))
            {
                schema = some;
            } else {
                break;
            }
        }
        schema
    }

    /// Writes lists that stand for a section as that section, so that all that is said of them later has its place.
    fn spell_out(self, schema: &'a Value, node: &mut Node) {
        let schema = self.wanted(schema);
        if let (Some(key), Content::List(_)) = (schema["x-list-as"].as_str(), &node.content) {
            let (place, list) = (node.place, node.clone());
            node.content =
                Content::Section(vec![Entry { key: key.to_owned(), key_place: place, node: list }]);
        }
        match &mut node.content {
            Content::List(nodes) => nodes.iter_mut().for_each(|node| self.spell_out(&schema["items"], node)),
            Content::Section(entries) => {
                for entry in entries {
                    let named = &schema["properties"][&entry.key];
                    let property = if named.is_null() { &schema["additionalProperties"] } else { named };
                    self.spell_out(property, &mut entry.node);
                }
            }
            _ => {}
        }
    }
}

/// Of a section for which a list may stand (`x-list-as`), says so in the schema that editors read.
pub fn or_a_list(schema: &mut schemars::Schema) {
    let section = schema.as_value().clone();
    let key = section["x-list-as"].as_str().unwrap_or_default();
    let (words, list) = (section["description"].clone(), section["properties"][key].clone());
    *schema = schemars::json_schema!({ "description": words, "anyOf": [section, list] });
}

/// The type of a schema, `null` aside.
pub(super) fn type_of(schema: &Value) -> &str {
    match &schema["type"] {
        Value::String(one) => one,
        Value::Array(any) => any.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or(""),
        _ => "",
    }
}

/// The words of an enumeration, if a schema is one.
pub(super) fn words_of(schema: &Value) -> Option<Vec<&str>> {
    if let Some(words) = schema["enum"].as_array() {
        return Some(words.iter().filter_map(Value::as_str).collect());
    }
    let alternatives = schema["oneOf"].as_array()?;
    let mut words = Vec::new();
    for alternative in alternatives {
        match (&alternative["const"], &alternative["enum"]) {
            (Value::String(word), _) => words.push(word.as_str()),
            (_, Value::Array(some)) => words.extend(some.iter().filter_map(Value::as_str)),
            _ => return None,
        }
    }
    Some(words)
}

/// The alternatives of a section whose kind a key names: the key, and each kind's word and schema.
pub(super) fn kinds_of(schema: &Value) -> Option<(&str, Vec<(&str, &Value)>)> {
    let mut key = None;
    let mut kinds = Vec::new();
    for alternative in schema["oneOf"].as_array()? {
        let (name, word) = alternative["properties"]
            .as_object()?
            .iter()
            .find_map(|(name, property)| Some((name.as_str(), property["const"].as_str()?)))?;
        key = Some(name);
        kinds.push((word, alternative));
    }
    Some((key?, kinds))
}

fn list_words<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

struct Check<'a> {
    schemas: Schemas<'a>,
    mistakes: &'a mut Mistakes,
}

impl<'a> Check<'a> {
    fn node(&mut self, schema: &'a Value, node: &Node, path: &Path) -> Option<Value> {
        let schema = self.schemas.wanted(schema);
        if matches!(node.content, Content::Nothing) || self.mistakes.is_spoken_of(path) {
            return None;
        }
        if let Some((key, kinds)) = kinds_of(schema) {
            return self.section_of_kind(key, &kinds, node, path);
        }
        if let Some(words) = words_of(schema) {
            return self.word(&words, node, path);
        }
        match (type_of(schema), &node.content) {
            ("object", Content::Section(entries)) => Some(self.section(schema, entries, path)),
            ("array", Content::List(nodes)) => Some(self.list(&schema["items"], nodes, path)),
            ("object" | "array", _) | (_, Content::List(_) | Content::Section(_)) => {
                self.wrong_shape(schema, node, path);
                None
            }
            (wanted, Content::Text(text)) => self.scalar(schema, wanted, text, path),
            (_, Content::Nothing) => None,
        }
    }

    /// The elements that are right. Which those are is noted, so that what is said of them later is said at their
    /// numbers in the file.
    fn list(&mut self, items: &'a Value, nodes: &[Node], path: &Path) -> Value {
        let mut kept = Vec::new();
        let mut values = Vec::new();
        for (i, node) in nodes.iter().enumerate() {
            let path = path.index(i);
            if matches!(node.content, Content::Nothing) {
                let reason = "this element of the list is empty";
                self.mistakes.at(&path, reason, "give it a value or take it out");
            }
            if let Some(value) = self.node(items, node, &path) {
                kept.push(i);
                values.push(value);
            }
        }
        if kept.len() < nodes.len() {
            self.mistakes.elements_left_out(path.clone(), kept);
        }
        Value::Array(values)
    }

    fn section(&mut self, schema: &'a Value, entries: &[Entry], path: &Path) -> Value {
        let properties = schema["properties"].as_object();
        let mut seen: HashSet<&str> = HashSet::new();
        let mut out = Map::new();
        for entry in entries {
            let here = path.key(&entry.key);
            if !seen.insert(&entry.key) {
                let reason = format!("`{}` is given twice in this section", entry.key.escape_debug());
                self.mistakes.add(entry.key_place, &here, reason, "keep one of them");
                continue;
            }
            let wanted = match properties.and_then(|p| p.get(&entry.key)) {
                Some(property) => property,
                None if schema["additionalProperties"].is_object() => &schema["additionalProperties"],
                None => {
                    self.unknown_key(schema, entry, path);
                    continue;
                }
            };
            if let Some(value) = self.node(wanted, &entry.node, &here) {
                out.insert(entry.key.clone(), value);
            }
        }
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let here = path.key(required);
            if !self.mistakes.is_said(&here) && !self.mistakes.is_spoken_of(&here) {
                let place = self.mistakes.tree().place(path);
                let wanted = self.in_words(&schema["properties"][required]);
                self.mistakes.add(place, &here, "is missing", format!("give it {wanted}"));
            }
        }
        Value::Object(out)
    }

    fn unknown_key(&mut self, schema: &'a Value, entry: &Entry, path: &Path) {
        let key = entry.key.as_str();
        let shown = key.escape_debug().take(60).collect::<String>();
        let (reason, remedy) = if let Some(new) = schema["x-renamed"][key].as_str() {
            self.mistakes.pass_over(path.key(new));
            (format!("`{shown}` is called `{new}` here"), format!("write `{new}`"))
        } else if let Some(words) = schema["x-refused"][key].as_str() {
            (format!("`{shown}` is not a key of this section"), words.to_owned())
        } else {
            let known = || schema["properties"].as_object().into_iter().flatten().map(|(k, _)| k.as_str());
            let remedy = match nearest(key, known()) {
                Some(near) => {
                    self.mistakes.pass_over(path.key(near));
                    format!("did you mean `{near}`?")
                }
                None => format!("it has {}", list_words(known())),
            };
            (format!("`{shown}` is not a key of this section"), remedy)
        };
        self.mistakes.add(entry.key_place, &path.key(key), reason, remedy);
    }

    fn section_of_kind(
        &mut self,
        key: &str,
        kinds: &[(&'a str, &'a Value)],
        node: &Node,
        path: &Path,
    ) -> Option<Value> {
        let Content::Section(entries) = &node.content else {
            let reason = format!("is {}, but a section is wanted", node.kind());
            self.mistakes.at(path, reason, format!("give it a key `{key}`"));
            return None;
        };
        let words = || kinds.iter().map(|(word, _)| *word);
        let said = entries.iter().find(|e| e.key == key).map(|e| &e.node.content);
        let Some(Content::Text(said)) = said else {
            let remedy = format!("give it one of {}", list_words(words()));
            self.mistakes.at(&path.key(key), "is missing", remedy);
            return None;
        };
        let Some((_, schema)) = kinds.iter().find(|(word, _)| *word == said.value) else {
            self.not_a_word(said, &words().collect::<Vec<_>>(), &path.key(key));
            return None;
        };
        Some(self.section(schema, entries, path))
    }

    fn word(&mut self, words: &[&str], node: &Node, path: &Path) -> Option<Value> {
        let Content::Text(text) = &node.content else {
            let reason = format!("is {}, but one word is wanted", node.kind());
            self.mistakes.at(path, reason, format!("write one of {}", list_words(words.iter().copied())));
            return None;
        };
        if words.contains(&text.value.as_str()) {
            return Some(Value::String(text.value.clone()));
        }
        self.not_a_word(text, words, path);
        None
    }

    fn not_a_word(&mut self, text: &Text, words: &[&str], path: &Path) {
        let remedy = match nearest(&text.value, words.iter().copied()) {
            Some(near) if text.written.is_none() => format!("did you mean `{near}`?"),
            _ => format!("write one of {}", list_words(words.iter().copied())),
        };
        self.mistakes.at(path, format!("`{}` is not known here", text.shown()), remedy);
    }

    fn scalar(&mut self, schema: &Value, wanted: &str, text: &Text, path: &Path) -> Option<Value> {
        let value = text.value.as_str();
        let result: Result<Value, String> = match wanted {
            "string" => match schema["format"].as_str().and_then(form::by_name) {
                Some(form) => (form.check)(value).map(|()| Value::String(value.to_owned())),
                None => Ok(Value::String(value.to_owned())),
            },
            "boolean" => match value {
                "true" | "True" | "TRUE" => Ok(Value::Bool(true)),
                "false" | "False" | "FALSE" => Ok(Value::Bool(false)),
                _ => Err("is neither `true` nor `false`".to_owned()),
            },
            "integer" => value
                .replace('_', "")
                .parse::<i64>()
                .map(Value::from)
                .map_err(|_| "is not a whole number".to_owned()),
            "number" => value
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .and_then(|number| serde_json::Number::from_f64(number).map(Value::Number))
                .ok_or_else(|| "is not a number".to_owned()),
            _ => Ok(Value::String(value.to_owned())),
        };
        match result.and_then(|value| in_range(schema, value)) {
            Ok(value) => Some(value),
            Err(reason) => {
                let remedy = format!("write {}", self.in_words(schema));
                self.mistakes.at(path, format!("`{}` {reason}", text.shown()), remedy);
                None
            }
        }
    }

    fn wrong_shape(&mut self, schema: &'a Value, node: &Node, path: &Path) {
        let wanted = self.in_words(schema);
        let remedy = match (type_of(schema), &node.content) {
            ("array", Content::Text(text)) => format!("write [{}]", text.shown()),
            ("object", Content::Text(text)) if schema["x-list-as"].is_string() => {
                format!("write [{}]", text.shown())
            }
            ("array", _) => "begin each element with a dash".to_owned(),
            ("object", Content::List(_)) => "take the dashes away".to_owned(),
            ("object", _) => match schema["properties"].as_object() {
                Some(keys) => format!("it has the keys {}", list_words(keys.keys().map(String::as_str))),
                None => "write `name: value` lines below it".to_owned(),
            },
            _ => format!("write {wanted}"),
        };
        let shape = match type_of(schema) {
            "object" if schema["x-list-as"].is_string() => "a section or a list",
            "object" => "a section",
            _ => wanted.as_str(),
        };
        self.mistakes.at(path, format!("is {}, but {shape} is wanted", node.kind()), remedy);
    }

    /// What a schema wants, in words that go after "write".
    fn in_words(&self, schema: &'a Value) -> String {
        let schema = self.schemas.wanted(schema);
        if let Some(words) = words_of(schema) {
            return format!("one of {}", list_words(words));
        }
        match type_of(schema) {
            "string" => schema["format"]
                .as_str()
                .and_then(form::by_name)
                .map_or_else(|| "a text".to_owned(), |form| form.words.to_owned()),
            "boolean" => "`true` or `false`".to_owned(),
            kind @ ("integer" | "number") => {
                let what = if kind == "integer" { "a whole number" } else { "a number" };
                match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
                    (Some(min), Some(max)) => format!("{what} between {min} and {max}"),
                    (Some(min), None) => format!("{what} of at least {min}"),
                    (None, Some(max)) => format!("{what} of at most {max}"),
                    (None, None) => what.to_owned(),
                }
            }
            "array" => "a list".to_owned(),
            _ => "a section".to_owned(),
        }
    }
}

fn in_range(schema: &Value, value: Value) -> Result<Value, String> {
    let Some(number) = value.as_f64() else { return Ok(value) };
    let too_small = schema["minimum"].as_f64().is_some_and(|min| number < min);
    let too_large = schema["maximum"].as_f64().is_some_and(|max| number > max);
    match (too_small, too_large) {
        (true, _) => Err("is too small".to_owned()),
        (_, true) => Err("is too large".to_owned()),
        _ => Ok(value),
    }
}
