//! TLS of checks.

use crate::source::probe::net::tls::Settings;
use pegel_runtime::config::form::FilePath;
use pegel_runtime::config::section::RawClientTls;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS of a check. A certificate is reported whether it is accepted or not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"ca": "ca_file", "cert": "cert_file", "key": "key_file"}))]
pub struct RawProbeTls {
    /// PEM certificates to trust instead of the system's. A server's own certificate may be among them.
    pub ca_file: Option<FilePath>,
    /// The client's certificate chain (PEM), with `key_file`.
    pub cert_file: Option<FilePath>,
    /// The client's private key (PEM), with `cert_file`.
    pub key_file: Option<FilePath>,
    /// The name that the certificate must have; without it, the target's host.
    pub server_name: Option<String>,
    /// Accepts any certificate.
    pub insecure_skip_verify: bool,
    /// Fails unless the server staples an OCSP response which says that its certificate is good. Without it, only a
    /// certificate of which the response says that it is revoked fails.
    pub require_stapled: bool,
}

impl RawProbeTls {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Settings {
        let client = RawClientTls {
            ca_file: self.ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            insecure_skip_verify: self.insecure_skip_verify,
        };
        let client = client.resolve(path, mistakes);
        if let Some(name) = &self.server_name
            && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
        {
            let reason = format!("`{}` is no name that a certificate may have", name.escape_debug());
            mistakes.at(&path.key("server_name"), reason, "write a host name or an address, without a port");
        }
        if self.require_stapled && self.insecure_skip_verify {
            let reason = "asks for what insecure_skip_verify does not look at";
            mistakes.at(&path.key("require_stapled"), reason, "take one of them out");
        }
        Settings {
            ca_file: client.ca_file,
            cert_file: client.cert_file,
            key_file: client.key_file,
            server_name: self.server_name.clone(),
            insecure_skip_verify: self.insecure_skip_verify,
            require_stapled: self.require_stapled,
        }
    }
}
