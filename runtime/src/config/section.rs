//! Sections that both programs have: authentication and TLS of HTTP clients, label sets.

use super::form::FilePath;
use super::{Mistakes, Path};
use crate::http_client::ClientTls;
use pegel_proto::caps;
use pegel_proto::metrics::{Labels, NAME_LABEL};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// TLS towards an HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "x-renamed" = {"ca": "ca_file", "cert": "cert_file", "key": "key_file"},
    "x-refused" = {"server_name": "connect to the name that the certificate has"}
))]
pub struct RawClientTls {
    /// PEM certificates to trust instead of the system's.
    pub ca_file: Option<FilePath>,
    /// The client's certificate chain (PEM), with `key_file`.
    pub cert_file: Option<FilePath>,
    /// The client's private key (PEM), with `cert_file`.
    pub key_file: Option<FilePath>,
    /// Accepts any server certificate. For exporters with self-signed ones on the same machine.
    pub insecure_skip_verify: bool,
}

impl RawClientTls {
    /// Resolves the section at a path.
    pub fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> ClientTls {
        for (have, other, missing) in
            [(&self.cert_file, &self.key_file, "key_file"), (&self.key_file, &self.cert_file, "cert_file")]
        {
            if have.is_some() && other.is_none() {
                let reason = "is missing: a client certificate needs its key, and a key its certificate";
                mistakes.at(&path.key(missing), reason, "give both files or neither");
            }
        }
        if self.insecure_skip_verify && self.ca_file.is_some() {
            let path = path.key("insecure_skip_verify");
            mistakes.at(&path, "would make ca_file useless", "take one of them out");
        }
        let mut file = |key: &str, file: &Option<FilePath>| {
            file.as_ref().map(|file| mistakes.readable_file(&path.key(key), file))
        };
        ClientTls {
            ca_file: file("ca_file", &self.ca_file),
            cert_file: file("cert_file", &self.cert_file),
            key_file: file("key_file", &self.key_file),
            insecure_skip_verify: self.insecure_skip_verify,
        }
    }
}

/// A user name and a password.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "required" = ["username", "password_file"],
    "x-refused" = {"password": "passwords are read from files: write it to one and name that in password_file"}
))]
pub struct RawBasicAuth {
    /// The user.
    pub username: String,
    /// A file that holds the password; blanks around it are cut.
    pub password_file: Option<FilePath>,
}

/// How a request proves who sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Basic`.
    Basic {
        /// The user.
        username: String,
        /// The file with the password.
        password_file: PathBuf,
    },
    /// `Authorization: Bearer` with the token in this file.
    Bearer(PathBuf),
}

/// Resolves `basic_auth` and `bearer_token_file` of the section at a path: one of them or none.
pub fn resolve_auth(
    basic: Option<&RawBasicAuth>,
    bearer: Option<&FilePath>,
    path: &Path,
    mistakes: &mut Mistakes,
) -> Option<Auth> {
    if basic.is_some() && bearer.is_some() {
        let path = path.key("bearer_token_file");
        mistakes.at(
            &path,
            "there is basic_auth as well, and a request has one Authorization",
            "take one of them out",
        );
    }
    if let Some(basic) = basic {
        let path = path.key("basic_auth");
        if basic.username.contains(':') {
            mistakes.at(&path.key("username"), "holds a colon, which ends a user name", "use one without");
        }
        let password_file = basic.password_file.as_ref()?;
        return Some(Auth::Basic {
            username: basic.username.clone(),
            password_file: mistakes.readable_file(&path.key("password_file"), password_file),
        });
    }
    bearer.map(|file| Auth::Bearer(mistakes.readable_file(&path.key("bearer_token_file"), file)))
}

/// Whether Prometheus takes a text for a label name in queries without quotes.
pub fn is_label_name(name: &str) -> bool {
    name.len() <= caps::MAX_LABEL_NAME_BYTES
        && name
            .bytes()
            .enumerate()
            .all(|(i, b)| b.is_ascii_alphabetic() || b == b'_' || (i > 0 && b.is_ascii_digit()))
        && !name.is_empty()
}

/// Checks the labels at a path. `allowed` says of a name that begins with two underscores whether it has a meaning
/// there.
pub fn check_labels(
    labels: &BTreeMap<String, String>,
    allowed: impl Fn(&str) -> bool,
    path: &Path,
    mistakes: &mut Mistakes,
) {
    for (name, value) in labels {
        let here = path.key(name);
        if !is_label_name(name) {
            let remedy = "use letters, digits and underscores, a digit not at the beginning";
            mistakes.at(&here, "is not a label name", remedy);
        } else if name == NAME_LABEL || (name.starts_with("__") && !allowed(name)) {
            mistakes.at(&here, "is a label that Prometheus uses itself", "use another name");
        } else if matches!(name.as_str(), "tenant" | "node") {
            let reason = format!("`{name}` comes from the agent's certificate, whatever is written here");
            mistakes.at(&here, reason, "take it out, or use another name");
        }
        if value.len() > caps::MAX_LABEL_VALUE_BYTES {
            let reason = format!("the value is longer than {} bytes", caps::MAX_LABEL_VALUE_BYTES);
            mistakes.at(&here, reason, "shorten it");
        }
    }
}

/// Labels as the rest of the program has them. Names of a YAML section are unique once it has been checked.
pub fn labels(of: &BTreeMap<String, String>) -> Labels {
    Labels::new(of.iter().map(|(name, value)| (name.as_str(), value.as_str()))).unwrap_or_default()
}
