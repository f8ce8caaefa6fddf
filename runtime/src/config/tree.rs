//! YAML as a small tree in which every node knows its place.

use super::path::{Path, Step};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};
use std::fmt;

/// The deepest nesting. The deepest key of the reference lies at seven.
pub const MAX_DEPTH: usize = 32;
/// The most nodes, those that aliases repeat included: ten thousand targets with five nodes each, twice over.
pub const MAX_NODES: usize = 100_000;
/// The most aliases. A person writes a handful; a "billion laughs" file needs few, but those expand into nodes, which
/// are bounded as well.
pub const MAX_ALIASES: usize = 1_000;

/// Where something was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Place {
    /// Nowhere that could be pointed at.
    #[default]
    Unknown,
    /// In the file, both counted from 1; columns in characters.
    At {
        /// The line.
        line: u32,
        /// The column.
        column: u32,
    },
    /// On the command line, by this flag.
    Flag(&'static str),
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        match (u32::try_from(location.line()), u32::try_from(location.column())) {
            (Ok(line), Ok(column)) if line > 0 => Self::At { line, column },
            _ => Self::Unknown,
        }
    }
}

/// A node.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// Where it stands; for an alias, where the alias stands.
    pub place: Place,
    /// What it holds.
    pub content: Content,
    /// Where its text stands in the source, in bytes.
    source: Option<(usize, usize)>,
}

/// What a node holds.
#[derive(Debug, Clone, Default)]
pub enum Content {
    /// Nothing: `key:`, `null` or `~`.
    #[default]
    Nothing,
    /// A scalar, whatever its type: the schema says what is wanted.
    Text(Text),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the file's order; keys may repeat.
    Section(Vec<Entry>),
}

/// A scalar.
#[derive(Debug, Clone, Default)]
pub struct Text {
    /// The value, after interpolation.
    pub value: String,
    /// As it stands in the file, where interpolation changed it: the value may then be a secret.
    pub written: Option<String>,
    /// Whether the parser took it for a number or a boolean, so that the text is to be taken from the source.
    typed: bool,
}

impl Text {
    /// What may be shown of it: not what came out of the environment, nor what stands before the `@` of a URL.
    pub fn shown(&self) -> String {
        let text = self.written.as_ref().unwrap_or(&self.value);
        let secret =
            text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)));
        let text = &secret.map_or_else(|| text.clone(), |(scheme, host)| format!("{scheme}://…@{host}"));
        let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
        if text.chars().nth(60).is_some() {
            shown.push('…');
        }
        shown
    }
}

/// One key of a section.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_place: Place,
    /// Its value.
    pub node: Node,
}

/// Why a text is no YAML that can be used.
#[derive(Debug, Clone)]
pub struct BadYaml {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: &'static str,
}

/// Parses one document. An empty one is an empty section.
pub fn parse(source: &str) -> Result<Node, BadYaml> {
    // A file of comments only holds no node at all.
    let empty = source.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    });
    if empty {
        return Ok(Node { content: Content::Section(Vec::new()), ..Node::default() });
    }
    let mut options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    };
    options.budget = serde_saphyr::budget! {
        max_depth: MAX_DEPTH,
        max_nodes: MAX_NODES,
        max_events: 3 * MAX_NODES,
        max_aliases: MAX_ALIASES,
        max_anchors: MAX_ALIASES,
        max_recorded_anchor_events: 3 * MAX_NODES,
    };
    options.alias_limits = serde_saphyr::alias_limits! {
        max_total_replayed_events: 3 * MAX_NODES,
        max_replay_stack_depth: MAX_DEPTH,
    };
    let mut tree: Node = serde_saphyr::from_str_with_options(source, options).map_err(|error| {
        let place = error.location().map_or(Place::Unknown, Place::from);
        let text = error.to_string();
        // The place is said once, by whoever prints the mistake.
        let reason = text.split(" at line ").next().unwrap_or(&text).trim().to_owned();
        let reason = reason.lines().next().unwrap_or_default().to_owned();
        BadYaml { place, reason: format!("the YAML cannot be parsed: {reason}"), remedy: remedy(&text) }
    })?;
    tree.take_text_from(source);
    if matches!(tree.content, Content::Nothing) {
        tree.content = Content::Section(Vec::new());
    }
    Ok(tree)
}

fn remedy(error: &str) -> &'static str {
    if error.contains('\t') || error.contains("tab") {
        "indent with spaces"
    } else if error.contains("budget") || error.contains("limit") {
        "make the file smaller, flatter or with fewer aliases"
    } else {
        "check indentation, colons and quotes there and in the line before"
    }
}

impl Node {
    /// A scalar from elsewhere than a file.
    pub fn text(place: Place, value: impl Into<String>) -> Self {
        let text = Text { value: value.into(), ..Text::default() };
        Self { place, content: Content::Text(text), source: None }
    }

    /// A list from elsewhere than a file.
    pub fn list(place: Place, nodes: Vec<Self>) -> Self {
        Self { place, content: Content::List(nodes), source: None }
    }

    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self.content {
            Content::Nothing => "empty",
            Content::Text(_) => "a single value",
            Content::List(_) => "a list",
            Content::Section(_) => "a section",
        }
    }

    /// The node at a path.
    pub fn find(&self, path: &Path) -> Option<&Self> {
        path.steps().iter().try_fold(self, |node, step| node.child(step).map(|(node, _)| node))
    }

    /// The place of the node at a path, or of the deepest section on the way to it.
    pub fn place(&self, path: &Path) -> Place {
        let mut node = self;
        let mut place = self.place;
        for step in path.steps() {
            let Some((child, key_place)) = node.child(step) else { break };
            node = child;
            // A section is pointed at by its key: its own place is its first key's, a line below.
            place = match (&node.content, key_place) {
                (Content::Section(_) | Content::Nothing, Some(key)) => key,
                _ => node.place,
            };
        }
        place
    }

    fn child(&self, step: &Step) -> Option<(&Self, Option<Place>)> {
        match (&self.content, step) {
            (Content::Section(entries), Step::Key(key)) => {
                entries.iter().find(|e| e.key == *key).map(|e| (&e.node, Some(e.key_place)))
            }
            (Content::List(nodes), Step::Index(i)) => nodes.get(*i).map(|n| (n, None)),
            _ => None,
        }
    }

    /// Puts a node at a path of keys, in place of what is there; sections on the way are made.
    pub fn put(&mut self, path: &Path, node: Self) {
        let Some((Step::Key(key), rest)) = path.steps().split_first() else {
            *self = node;
            return;
        };
        if !matches!(self.content, Content::Section(_)) {
            self.content = Content::Section(Vec::new());
        }
        let Content::Section(entries) = &mut self.content else { unreachable!("made a section above") };
        if !entries.iter().any(|e| e.key == *key) {
            let node = Self { place: node.place, ..Self::default() };
            entries.push(Entry { key: key.clone(), key_place: node.place, node });
        }
        let entry = entries.iter_mut().find(|e| e.key == *key).expect("pushed above if it was missing");
        entry.node.put(&Path::of(rest), node);
    }

    /// Calls `visit` for every scalar below and at this node.
    pub fn each_text(&mut self, path: &Path, visit: &mut impl FnMut(&Path, &mut Text)) {
        match &mut self.content {
            Content::Nothing => {}
            Content::Text(text) => visit(path, text),
            Content::List(nodes) => {
                for (i, node) in nodes.iter_mut().enumerate() {
                    node.each_text(&path.index(i), visit);
                }
            }
            Content::Section(entries) => {
                for entry in entries {
                    entry.node.each_text(&path.key(&entry.key), visit);
                }
            }
        }
    }

    /// Gives numbers and booleans back the text that they were written with: `protocol: 1.0` is not `1`.
    fn take_text_from(&mut self, source: &str) {
        let span = self.source.take();
        match &mut self.content {
            Content::Nothing => {}
            Content::Text(text) => {
                let written = span.and_then(|(start, len)| source.get(start..start + len));
                if let (true, Some(written)) = (text.typed, written) {
                    written.trim().clone_into(&mut text.value);
                }
            }
            Content::List(nodes) => {
                for node in nodes {
                    node.take_text_from(source);
                }
            }
            Content::Section(entries) => {
                for entry in entries {
                    entry.node.take_text_from(source);
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        let span = spanned.defined.span();
        let source = span
            .byte_offset()
            .zip(span.byte_len())
            .and_then(|(start, len)| Some((usize::try_from(start).ok()?, usize::try_from(len).ok()?)));
        Ok(Self { place: spanned.referenced.into(), content: spanned.value, source })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyContent)
    }
}

struct AnyContent;

impl AnyContent {
    fn typed(value: &impl ToString) -> Content {
        Content::Text(Text { value: value.to_string(), written: None, typed: true })
    }
}

impl<'de> Visitor<'de> for AnyContent {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a section")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Nothing)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Self::typed(&value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Self::typed(&value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Self::typed(&value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Ok(Self::typed(&value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(Text { value: value.to_owned(), written: None, typed: false }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = access.next_element()? {
            nodes.push(node);
        }
        Ok(Content::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let node = access.next_value()?;
            entries.push(Entry { key: key.value, key_place: key.referenced.into(), node });
        }
        Ok(Content::Section(entries))
    }
}
