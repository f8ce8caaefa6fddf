//! What a certificate says, for people.

use super::PkiError;
use crate::http_client::{crypto_provider, read_certificates};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateView {
    /// Whom it was issued to.
    pub subject: String,
    /// By whom.
    pub issuer: String,
    /// The URIs among its alternative names: the identity.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// The serial number, in hexadecimal.
    pub serial: String,
    /// The serial number as in the certificate.
    pub serial_bytes: Vec<u8>,
    /// From when it is valid.
    pub not_before: OffsetDateTime,
    /// Until when it is valid.
    pub not_after: OffsetDateTime,
    /// SHA-256 of the certificate, in hexadecimal with colons.
    pub fingerprint_sha256: String,
    /// Whether it may issue others.
    pub is_ca: bool,
}

/// Reads all certificates of a PEM file.
pub fn show(path: &Path) -> Result<Vec<CertificateView>, PkiError> {
    let malformed =
        |reason: String| PkiError::Malformed { path: path.into(), what: "a PEM certificate", reason };
    std::fs::metadata(path).map_err(|reason| PkiError::Io { doing: "read", path: path.into(), reason })?;
    let chain = read_certificates(path).map_err(|e| malformed(e.to_string()))?;
    chain.iter().map(|der| certificate_view(der).map_err(malformed)).collect()
}

/// Reads one certificate (DER); the error says what is wrong with it.
pub fn certificate_view(der: &[u8]) -> Result<CertificateView, String> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
    let mut view = CertificateView {
        subject: cert.subject().to_string(),
        issuer: cert.issuer().to_string(),
        uris: Vec::new(),
        dns: Vec::new(),
        addresses: Vec::new(),
        serial: hex(cert.raw_serial(), ""),
        serial_bytes: cert.raw_serial().to_vec(),
        not_before: cert.validity().not_before.to_datetime(),
        not_after: cert.validity().not_after.to_datetime(),
        fingerprint_sha256: fingerprint(der),
        is_ca: cert.is_ca(),
    };
    let names = cert.subject_alternative_name().map_err(|e| e.to_string())?;
    for name in names.iter().flat_map(|n| &n.value.general_names) {
        match name {
            GeneralName::URI(uri) => view.uris.push((*uri).to_owned()),
            GeneralName::DNSName(dns) => view.dns.push((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => view.addresses.extend(address(bytes)),
            _ => {}
        }
    }
    Ok(view)
}

impl fmt::Display for CertificateView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |t: OffsetDateTime| t.format(&Rfc3339).unwrap_or_else(|_| t.to_string());
        writeln!(f, "subject      {}", self.subject)?;
        writeln!(f, "issuer       {}", self.issuer)?;
        for uri in &self.uris {
            writeln!(f, "identity     {uri}")?;
        }
        for name in &self.dns {
            writeln!(f, "dns name     {name}")?;
        }
        for address in &self.addresses {
            writeln!(f, "address      {address}")?;
        }
        writeln!(f, "valid        {} to {}", time(self.not_before), time(self.not_after))?;
        writeln!(f, "serial       {}", self.serial)?;
        write!(f, "sha-256      {}", self.fingerprint_sha256)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn hex(bytes: &[u8], separator: &str) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(separator)
}

/// SHA-256 in hexadecimal with colons.
pub(super) fn fingerprint(bytes: &[u8]) -> String {
    let provider = crypto_provider();
    let suite = provider
        .cipher_suites
        .iter()
        .find(|s| s.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256)
        .and_then(rustls::SupportedCipherSuite::tls13)
        .expect("QUIC needs this suite, so every provider has it");
    hex(suite.common.hash_provider.hash(bytes).as_ref(), ":")
}
