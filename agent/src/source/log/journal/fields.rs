//! What is made of an entry's fields: which entry is taken, its labels, its metadata and its time.

use super::entry::Entry;
use super::file::Wanted;
use super::settings::Settings;
use crate::source::log::syslog::message::level;
use globset::GlobSet;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// What is read of an entry beside its metadata.
const READ: [&str; 7] = [
    "MESSAGE",
    "PRIORITY",
    "_SYSTEMD_UNIT",
    "SYSLOG_IDENTIFIER",
    "_COMM",
    "_TRANSPORT",
    "_SOURCE_REALTIME_TIMESTAMP",
];
/// Sets of labels that are kept; a machine has some hundreds.
const MAX_STREAMS: usize = 4_096;
/// A source's own time that is further from journald's is not believed.
const MAX_SOURCE_DISTANCE_US: u64 = 3_600 * 1_000_000;

/// Reads entries' fields.
pub struct Fields {
    settings: Settings,
    labels: BTreeMap<String, String>,
    /// journald's names of the fields that become metadata, and ours.
    metadata: Vec<(String, String)>,
    streams: HashMap<Vec<u8>, Vec<(String, String)>>,
    key: Vec<u8>,
}

impl Fields {
    /// With an input's settings and labels.
    pub fn new(settings: &Settings, labels: &BTreeMap<String, String>) -> Self {
        let metadata = settings.metadata.iter().map(|name| (name.clone(), metadata_name(name))).collect();
        Self {
            settings: settings.clone(),
            labels: labels.clone(),
            metadata,
            streams: HashMap::new(),
            key: Vec::new(),
        }
    }

    /// The fields that have to be read.
    pub fn wanted(&self) -> Wanted {
        Wanted::only(READ.into_iter().chain(self.metadata.iter().map(|(name, _)| name.as_str())))
    }

    /// Whether an entry is one of the input's.
    pub fn takes(&self, entry: &Entry) -> bool {
        let matches = |set: &GlobSet, value: Option<&[u8]>| {
            value.is_some_and(|value| set.is_match(String::from_utf8_lossy(value).as_ref()))
        };
        let unit = entry.field("_SYSTEMD_UNIT");
        severity(entry).is_none_or(|severity| severity <= self.settings.priority)
            && self.settings.units.as_ref().is_none_or(|units| matches(units, unit))
            && !self.settings.exclude_units.as_ref().is_some_and(|units| matches(units, unit))
            && self.settings.identifiers.as_ref().is_none_or(|set| matches(set, identifier(entry)))
    }

    /// The labels of an entry's stream.
    pub fn labels(&mut self, entry: &Entry) -> &[(String, String)] {
        let unit = entry.field("_SYSTEMD_UNIT").unwrap_or_default();
        let identifier = identifier(entry).unwrap_or_default();
        let severity = severity(entry);
        self.key.clear();
        self.key.push(severity.unwrap_or(u8::MAX));
        self.key.extend_from_slice(unit);
        self.key.push(0);
        self.key.extend_from_slice(identifier);
        if !self.streams.contains_key(&self.key) {
            if self.streams.len() >= MAX_STREAMS {
                self.streams.clear();
            }
            let mut labels = BTreeMap::new();
            labels.insert("unit".to_owned(), String::from_utf8_lossy(unit).into_owned());
            labels.insert("identifier".to_owned(), String::from_utf8_lossy(identifier).into_owned());
            if let Some(severity) = severity {
                labels.insert("level".to_owned(), level(severity).to_owned());
            }
            labels.extend(self.labels.clone());
            let labels = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
            self.streams.insert(self.key.clone(), labels);
        }
        &self.streams[&self.key]
    }

    /// An entry's metadata: names and values.
    pub fn metadata<'a>(&'a self, entry: &'a Entry) -> Vec<(&'a str, Cow<'a, str>)> {
        let mut metadata = Vec::with_capacity(self.metadata.len());
        for (field, name) in &self.metadata {
            if let Some(value) = entry.field(field).filter(|value| !value.is_empty()) {
                metadata.push((name.as_str(), String::from_utf8_lossy(value)));
            }
        }
        metadata
    }

    /// An entry's time: when its sender wrote it, or when journald got it; nanoseconds since the Unix epoch.
    pub fn at_ns(entry: &Entry) -> i64 {
        let received = entry.cursor.realtime_us;
        let said = entry.field("_SOURCE_REALTIME_TIMESTAMP").and_then(|text| std::str::from_utf8(text).ok());
        let at = said
            .and_then(|text| text.parse::<u64>().ok())
            .filter(|at| at.abs_diff(received) <= MAX_SOURCE_DISTANCE_US)
            .unwrap_or(received);
        i64::try_from(at).unwrap_or(i64::MAX).saturating_mul(1_000)
    }
}

/// `_SYSTEMD_USER_UNIT` becomes `systemd_user_unit`.
fn metadata_name(field: &str) -> String {
    field.trim_start_matches('_').to_ascii_lowercase()
}

fn severity(entry: &Entry) -> Option<u8> {
    match entry.field("PRIORITY") {
        Some([digit @ b'0'..=b'7']) => Some(digit - b'0'),
        _ => None,
    }
}

/// What syslog calls the tag; what comes without one has the name of its program, and the kernel's its own.
fn identifier(entry: &Entry) -> Option<&[u8]> {
    let said = entry.field("SYSLOG_IDENTIFIER").or_else(|| entry.field("_COMM"));
    said.or_else(|| (entry.field("_TRANSPORT") == Some(b"kernel")).then_some(b"kernel"))
}
