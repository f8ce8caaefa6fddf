//! Who a peer's certificate says that it is.

use crate::pki::{CertificateView, certificate_view};
use pegel_proto::identity::AgentIdentity;
use rustls_pki_types::CertificateDer;

/// What is kept of an agent's certificate while its session lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whom it names.
    pub identity: AgentIdentity,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Until when it is valid, in seconds since the Unix epoch.
    pub not_after_seconds: i64,
}

/// Why a peer's certificate is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// None was shown.
    #[error("no certificate was shown")]
    Missing,
    /// It does not come from the CA, has expired, or was revoked.
    #[error("the certificate is not accepted: {0}")]
    Rejected(String),
    /// It does not name an agent of the trust domain.
    #[error("the certificate names no agent: {0}")]
    Identity(String),
}

impl PeerError {
    pub(super) fn rejected(error: &rustls::Error) -> Self {
        use rustls::CertificateError as C;
        Self::Rejected(match error {
            rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
                "it has expired".into()
            }
            rustls::Error::InvalidCertificate(C::Revoked) => "it was revoked".into(),
            rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
                "it comes from another CA".into()
            }
            other => other.to_string(),
        })
    }
}

impl PeerCertificate {
    pub(super) fn of_agent(leaf: &CertificateDer<'_>, trust_domain: &str) -> Result<Self, PeerError> {
        let view = certificate_view(leaf).map_err(PeerError::Identity)?;
        let identity = identity_of(&view, trust_domain)?;
        Ok(Self { identity, serial: view.serial, not_after_seconds: view.not_after.unix_timestamp() })
    }
}

/// Reads tenant and node from a certificate: exactly one URI, of this trust domain.
pub fn agent_identity(leaf: &CertificateDer<'_>, trust_domain: &str) -> Result<AgentIdentity, PeerError> {
    identity_of(&certificate_view(leaf).map_err(PeerError::Identity)?, trust_domain)
}

fn identity_of(view: &CertificateView, trust_domain: &str) -> Result<AgentIdentity, PeerError> {
    match view.uris.as_slice() {
        [uri] => AgentIdentity::from_uri(uri, trust_domain).map_err(|e| PeerError::Identity(e.to_string())),
        [] => Err(PeerError::Identity("it has no URI among its alternative names".into())),
        _ => Err(PeerError::Identity("it has several URIs; exactly one is allowed".into())),
    }
}
