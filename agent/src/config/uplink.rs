//! `aggregator`: where batches go.

use super::Purpose;
use pegel_runtime::config::form::{FilePath, HostPort};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The raw form of `aggregator`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "x-renamed" = {"address": "addresses", "ca": "ca_file", "cert": "cert_file", "key": "key_file"},
    "x-refused" = {"tls": "TLS cannot be turned off; ca_file, cert_file and key_file stand here directly"}
))]
pub struct RawUplink {
    /// The aggregators, `HOST:PORT`. A name may have several addresses. The agent spreads over them and moves on when
    /// one dies.
    pub addresses: Vec<HostPort>,
    /// The CA certificates that an aggregator's certificate must come from (PEM).
    pub ca_file: Option<FilePath>,
    /// The agent's certificate chain (PEM), issued for its tenant and node.
    pub cert_file: Option<FilePath>,
    /// The private key of the certificate (PEM).
    pub key_file: Option<FilePath>,
    /// The name that an aggregator's certificate must have, if it is not the host that is connected to.
    pub server_name: Option<String>,
    /// The trust domain that certificates must be of, if it is not the one in the agent's own.
    pub trust_domain: Option<String>,
}

/// Settings of the uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkSettings {
    /// The aggregators, `HOST:PORT`, each once.
    pub addresses: Vec<String>,
    /// The CA certificates.
    pub ca_file: PathBuf,
    /// The agent's certificate chain.
    pub cert_file: PathBuf,
    /// The agent's private key.
    pub key_file: PathBuf,
    /// The name of aggregators' certificates.
    pub server_name: Option<String>,
    /// The trust domain.
    pub trust_domain: Option<String>,
}

impl RawUplink {
    pub(super) fn resolve(&self, purpose: Purpose, path: &Path, mistakes: &mut Mistakes) -> UplinkSettings {
        let needed = purpose == Purpose::Run;
        let mut addresses: Vec<String> = Vec::new();
        for (i, address) in self.addresses.iter().enumerate() {
            if addresses.contains(&address.0) {
                let path = path.key("addresses").index(i);
                mistakes.at(&path, format!("`{address}` is listed twice"), "take one out");
            } else {
                addresses.push(address.0.clone());
            }
        }
        if needed && self.addresses.is_empty() {
            let reason = "no aggregator is named";
            mistakes.at(
                &path.key("addresses"),
                reason,
                "list one as HOST:PORT, or give --aggregator HOST:PORT",
            );
        }
        let mut file = |key: &str, flag: &str, what: &str, file: &Option<FilePath>| match file {
            Some(file) if needed => mistakes.readable_file(&path.key(key), file),
            Some(file) => file.0.clone(),
            None => {
                if needed {
                    let remedy = format!("name {what} there, or give {flag} FILE");
                    mistakes.at(&path.key(key), "is missing", remedy);
                }
                PathBuf::new()
            }
        };
        let settings = UplinkSettings {
            addresses,
            ca_file: file("ca_file", "--ca", "the CA certificate of the aggregators", &self.ca_file),
            cert_file: file("cert_file", "--cert", "the agent's certificate", &self.cert_file),
            key_file: file("key_file", "--key", "the key of the agent's certificate", &self.key_file),
            server_name: self.server_name.clone(),
            trust_domain: self.trust_domain.clone(),
        };
        check_name(self.server_name.as_deref(), &path.key("server_name"), mistakes);
        check_name(self.trust_domain.as_deref(), &path.key("trust_domain"), mistakes);
        settings
    }
}

fn check_name(name: Option<&str>, path: &Path, mistakes: &mut Mistakes) {
    let valid = |name: &str| {
        !name.is_empty()
            && name.len() <= 253
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'))
    };
    if name.is_some_and(|name| !valid(name)) {
        mistakes.at(path, "is not a host name", "write a name such as `aggregator.example`");
    }
}
