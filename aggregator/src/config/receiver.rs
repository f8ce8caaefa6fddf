//! `tls`: the aggregator's certificate and the agents that it accepts.

use pegel_runtime::config::form::FilePath;
use pegel_runtime::config::{Mistakes, Path};
use pegel_runtime::tls::TlsFiles;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The aggregator's certificate, and whose certificates it accepts.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "x-renamed" = {"cert": "cert_file", "key": "key_file", "client_ca": "client_ca_file", "ca_file": "client_ca_file", "crl": "crl_file"},
    "x-refused" = {"enabled": "TLS cannot be turned off: certificates say who an agent is"}
))]
pub struct RawReceiverTls {
    /// The aggregator's certificate chain (PEM).
    pub cert_file: Option<FilePath>,
    /// The private key of the certificate (PEM).
    pub key_file: Option<FilePath>,
    /// The CA certificates that agents' certificates must come from (PEM).
    pub client_ca_file: Option<FilePath>,
    /// Revocation lists (PEM). They are read again when they change, and close live sessions.
    pub crl_file: Option<FilePath>,
    /// The trust domain that agents' certificates must be of; without it the one of the aggregator's own.
    pub trust_domain: Option<String>,
}

/// TLS towards agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverTlsSettings {
    /// The files.
    pub files: TlsFiles,
    /// The trust domain of agents; none for that of the aggregator's certificate.
    pub trust_domain: Option<String>,
}

impl RawReceiverTls {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> ReceiverTlsSettings {
        let mut file = |key: &str, flag: &str, what: &str, file: &Option<FilePath>| {
            if let Some(file) = file {
                return mistakes.readable_file(&path.key(key), file);
            }
            mistakes.at(&path.key(key), "is missing", format!("name {what} there, or give {flag} FILE"));
            PathBuf::new()
        };
        let files = TlsFiles {
            cert: file("cert_file", "--cert", "the aggregator's certificate", &self.cert_file),
            key: file("key_file", "--key", "the key of the certificate", &self.key_file),
            ca: file("client_ca_file", "--ca", "the CA certificate of agents", &self.client_ca_file),
            crl: self.crl_file.as_ref().map(|file| mistakes.readable_file(&path.key("crl_file"), file)),
        };
        let valid = |name: &str| {
            !name.is_empty()
                && name.len() <= 255
                && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
        };
        if self.trust_domain.as_deref().is_some_and(|name| !valid(name)) {
            let remedy = "use a-z, 0-9, '.', '-' and '_', as SPIFFE wants it";
            mistakes.at(&path.key("trust_domain"), "is not a trust domain", remedy);
        }
        ReceiverTlsSettings { files, trust_domain: self.trust_domain.clone() }
    }
}
