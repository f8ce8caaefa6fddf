//! The files behind a TLS configuration.

use crate::http_client::{ClientTlsError, read_certificates, read_private_key};
use crate::pki::{CertificateView, certificate_view};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where certificates and keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA certificates that the other side's must come from, PEM. Several while CAs are exchanged.
    pub ca: PathBuf,
    /// The own certificate chain, PEM.
    pub cert: PathBuf,
    /// The own private key, PEM.
    pub key: PathBuf,
    /// Revocation lists, PEM. A missing file is an error: a list that silently vanished would revoke nothing.
    pub crl: Option<PathBuf>,
}

/// Why certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or holds nothing of the kind wanted.
    #[error(transparent)]
    File(#[from] ClientTlsError),
    /// A CA certificate or revocation list is refused.
    #[error("cannot use `{}` as {what}: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What it was to be.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not belong together (perhaps only one of them was renewed yet).
    #[error("`{}` and `{}` cannot be used together: {reason}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The own certificate does not say who it is for.
    #[error("`{}` names no identity: {reason}. Issue it with `pegel pki issue`", path.display())]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// rustls refuses the combination.
    #[error("TLS settings are refused: {reason}")]
    Settings {
        /// What is wrong.
        reason: String,
    },
}

/// All that was read from the files.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) crls: Vec<CertificateRevocationListDer<'static>>,
    pub(super) own: CertificateView,
    cas: Vec<CertificateDer<'static>>,
}

impl Material {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let cas = read_certificates(&files.ca)?;
        let mut roots = RootCertStore::empty();
        for ca in &cas {
            roots.add(ca.clone()).map_err(|e| unusable(&files.ca, "a CA certificate", &e))?;
        }
        let chain = read_certificates(&files.cert)?;
        let key = read_private_key(&files.key)?;
        let crls = match &files.crl {
            None => Vec::new(),
            Some(path) => CertificateRevocationListDer::pem_file_iter(path)
                .and_then(Iterator::collect)
                .map_err(|e| unusable(path, "a PEM revocation list", &e))?,
        };
        let own = certificate_view(&chain[0]).map_err(|e| unusable(&files.cert, "a certificate", &e))?;
        Ok(Self { roots: Arc::new(roots), chain, key, crls, own, cas })
    }

    pub(super) fn same_files(&self, other: &Self) -> bool {
        self.cas == other.cas
            && self.chain == other.chain
            && self.key.secret_der() == other.key.secret_der()
            && self.crls == other.crls
    }

    /// The trust domain in the own certificate's URI.
    pub(super) fn own_trust_domain(&self, path: &Path) -> Result<String, TlsError> {
        let error = |reason: &str| TlsError::Identity { path: path.into(), reason: reason.into() };
        let [uri] = self.own.uris.as_slice() else {
            return Err(error("it must have exactly one URI among its alternative names"));
        };
        let rest = uri.strip_prefix("spiffe://").ok_or_else(|| error("its URI is not a spiffe:// one"))?;
        Ok(rest.split('/').next().unwrap_or_default().to_owned())
    }
}

fn unusable(path: &Path, what: &'static str, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::Unusable { path: path.into(), what, reason: reason.to_string() }
}
