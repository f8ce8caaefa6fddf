//! `aggregator`: where batches go.

use super::Purpose;
use crate::uplink;
use pegel_runtime::config::form::{AggregatorAddress, FilePath};
use pegel_runtime::config::{Mistakes, Path};
use pegel_runtime::tls::TlsFiles;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The aggregators, and how the agent proves itself to them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "x-renamed" = {"address": "addresses", "ca": "ca_file", "cert": "cert_file", "key": "key_file"},
    "x-refused" = {"tls": "TLS cannot be turned off; ca_file, cert_file and key_file stand here directly"}
))]
pub struct RawUplink {
    /// The aggregators, `HOST` or `HOST:PORT`; the port is 4433 by default. A name may have several addresses. The
    /// agent spreads over them and moves on when one dies.
    pub addresses: Vec<AggregatorAddress>,
    /// The CA certificates that an aggregator's certificate must come from (PEM).
    pub ca_file: Option<FilePath>,
    /// The agent's certificate chain (PEM), issued for its tenant and node.
    pub cert_file: Option<FilePath>,
    /// The private key of the certificate (PEM).
    pub key_file: Option<FilePath>,
    /// Revocation lists of aggregators' certificates (PEM).
    pub crl_file: Option<FilePath>,
}

/// Settings of the uplink.
#[derive(Debug, Clone)]
pub struct UplinkSettings {
    /// The uplink's own.
    pub uplink: uplink::Settings,
    /// The certificates.
    pub tls: TlsFiles,
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
        UplinkSettings {
            uplink: uplink::Settings { aggregators: addresses },
            tls: TlsFiles {
                ca: file("ca_file", "--ca", "the CA certificate of the aggregators", &self.ca_file),
                cert: file("cert_file", "--cert", "the agent's certificate", &self.cert_file),
                key: file("key_file", "--key", "the key of the agent's certificate", &self.key_file),
                crl: self.crl_file.as_ref().map(|file| mistakes.readable_file(&path.key("crl_file"), file)),
            },
        }
    }
}
