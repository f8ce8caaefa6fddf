//! `outputs`: the backends, one file a type.

mod loki;
mod remote_write;

pub use loki::RawLoki;
pub use remote_write::{RawNames, RawProtocol, RawRemoteWrite};

use crate::output::backend::Authorization;
use http::{HeaderName, HeaderValue};
use pegel_proto::identity::OutputName;
use pegel_runtime::config::section::Auth;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// One output.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RawOutput {
    /// Prometheus remote write.
    RemoteWrite(RawRemoteWrite),
    /// Loki's push API.
    Loki(RawLoki),
}

/// One output.
#[derive(Debug, Clone)]
pub enum OutputSettings {
    /// Prometheus remote write.
    RemoteWrite(Box<crate::output::remote_write::Settings>),
    /// Loki's push API.
    Loki(Box<crate::output::loki::Settings>),
}

/// Headers that requests have anyway, or that hold secrets.
const OWN_HEADERS: [(&str, &str); 7] = [
    ("authorization", "use basic_auth or bearer_token_file"),
    ("content-encoding", "it is what it is"),
    ("content-type", "it is what the output's type says"),
    ("content-length", "it is what it is"),
    ("host", "use url"),
    ("user-agent", "it names pegel and its version"),
    ("x-prometheus-remote-write-version", "use protocol"),
];

pub(super) fn resolve(
    outputs: &[RawOutput],
    recent: &OutputName,
    path: &Path,
    mistakes: &mut Mistakes,
) -> Vec<OutputSettings> {
    let mut names: HashMap<OutputName, usize> = HashMap::new();
    let mut resolved = Vec::new();
    for (i, raw) in outputs.iter().enumerate() {
        let path = path.index(i);
        let name = match OutputName::parse(raw.name()) {
            Ok(name) => name,
            Err(bad) => {
                mistakes.at(&path.key("name"), bad.to_string(), "choose another name");
                continue;
            }
        };
        if name == *recent {
            mistakes.at(&path.key("name"), "`recent` is the output in memory", "choose another name");
        }
        if let Some(first) = names.insert(name.clone(), i) {
            let reason = format!("outputs[{first}] is called `{name}` as well");
            mistakes.at(&path.key("name"), reason, "give each output a name of its own");
        }
        resolved.extend(match raw {
            RawOutput::RemoteWrite(raw) => raw
                .resolve(name, &path, mistakes)
                .map(|settings| OutputSettings::RemoteWrite(Box::new(settings))),
            RawOutput::Loki(raw) => {
                raw.resolve(name, &path, mistakes).map(|settings| OutputSettings::Loki(Box::new(settings)))
            }
        });
    }
    if outputs.is_empty() {
        let reason = "there is none, so data is kept in memory only and is gone when the aggregator ends";
        mistakes.warn(path, reason, "add one with type: remote_write and the URL of your Prometheus");
    }
    resolved
}

impl RawOutput {
    fn name(&self) -> &str {
        match self {
            Self::RemoteWrite(raw) => &raw.name,
            Self::Loki(raw) => &raw.name,
        }
    }
}

fn authorization(auth: Option<Auth>) -> Authorization {
    match auth {
        Some(Auth::Basic { username, password_file }) => {
            Authorization::Basic { user: username, password_file }
        }
        Some(Auth::Bearer(token_file)) => Authorization::Bearer { token_file },
        None => Authorization::None,
    }
}

/// Headers of each request, and the one that carries the tenant.
fn resolve_headers(
    given: &BTreeMap<String, String>,
    tenant_header: Option<&String>,
    path: &Path,
    mistakes: &mut Mistakes,
) -> (Vec<(HeaderName, HeaderValue)>, Option<HeaderName>) {
    let mut header = |name: &str, path: &Path| {
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            mistakes.at(path, "is not a header name", "use letters, digits and dashes");
            return None;
        };
        if let Some((_, remedy)) = OWN_HEADERS.iter().find(|(own, _)| header == *own) {
            mistakes.at(path, "is a header that pegel sets itself", *remedy);
            return None;
        }
        Some(header)
    };
    let mut headers = Vec::new();
    let tenant_header = tenant_header.and_then(|name| header(name, &path.key("tenant_header")));
    let named: Vec<_> = given
        .iter()
        .filter_map(|(name, value)| {
            let path = path.key("headers").key(name);
            Some((header(name, &path)?, value, path))
        })
        .collect();
    for (name, value, path) in named {
        match HeaderValue::from_str(value) {
            Ok(value) => headers.push((name, value)),
            Err(_) => mistakes.at(&path, "has a value that no header can have", "use printable ASCII"),
        }
    }
    if headers.iter().any(|(name, _)| Some(name) == tenant_header.as_ref()) {
        let reason = "is in headers as well, with the same value for every tenant";
        mistakes.at(&path.key("tenant_header"), reason, "take one of them out");
    }
    (headers, tenant_header)
}
