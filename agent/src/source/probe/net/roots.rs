//! Who is trusted to issue certificates, with what a check wants to know of them: until when.

use pegel_runtime::http_client::read_certificates;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// When a certificate is valid, in seconds since the Unix epoch, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From when.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
}

impl Validity {
    /// Of a certificate.
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() }
    }

    /// Whether an instant lies in it.
    pub fn holds(self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// Trusted certificates.
#[derive(Debug)]
pub struct Roots {
    /// As rustls has them.
    pub store: Arc<RootCertStore>,
    /// When they are valid, by subject (DER).
    validities: HashMap<Box<[u8]>, Vec<Validity>>,
    /// Certificates of a file, which may be a server's own.
    listed: Vec<CertificateDer<'static>>,
}

impl Roots {
    /// Those of a PEM file.
    pub fn of_file(path: &Path) -> Result<Self, String> {
        let listed = read_certificates(path).map_err(|e| e.to_string())?;
        Ok(Self { listed: listed.clone(), ..Self::of(listed) })
    }

    /// These.
    pub(super) fn of(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut store = RootCertStore::empty();
        let mut validities: HashMap<Box<[u8]>, Vec<Validity>> = HashMap::new();
        for der in &certificates {
            if let Ok((_, parsed)) = X509Certificate::from_der(der) {
                let subject = parsed.subject().as_raw().into();
                validities.entry(subject).or_default().push(Validity::of(&parsed));
            }
        }
        // Some of a system's certificates may be older than what rustls reads; the others do.
        store.add_parsable_certificates(certificates);
        Self { store: Arc::new(store), validities, listed: Vec::new() }
    }

    /// When certificates with this subject (DER) are valid.
    pub fn validities(&self, subject: &[u8]) -> &[Validity] {
        self.validities.get(subject).map_or(&[], Vec::as_slice)
    }

    /// Whether a file lists this very certificate.
    pub fn lists(&self, certificate: &CertificateDer<'_>) -> bool {
        self.listed.iter().any(|listed| listed.as_ref() == certificate.as_ref())
    }
}

/// The machine's trusted certificates, read when they are first needed and shared by all checks.
#[derive(Debug, Default)]
pub struct SystemRoots(OnceLock<Arc<Roots>>);

impl SystemRoots {
    /// Them.
    pub fn roots(&self) -> Arc<Roots> {
        self.0.get_or_init(|| Arc::new(Roots::of(rustls_native_certs::load_native_certs().certs))).clone()
    }
}
