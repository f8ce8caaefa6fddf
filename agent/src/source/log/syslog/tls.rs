//! TLS of a listener: its files, read again when they change.

use super::settings::Tls;
use pegel_runtime::http_client::{crypto_provider, read_certificates, read_private_key};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{0}")]
    File(String),
    /// Certificate and key are not of each other, or a certificate is none.
    #[error("{} and {} make no server: {reason}", cert.display(), key.display())]
    Unusable {
        /// The certificate chain.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What rustls says.
        reason: String,
    },
}

/// The configuration in force.
pub struct Server {
    files: Tls,
    config: Arc<rustls::ServerConfig>,
    stamps: Vec<Option<SystemTime>>,
    looked: Instant,
}

impl Server {
    /// Reads the files.
    pub fn load(files: &Tls) -> Result<Self, TlsError> {
        Ok(Self { config: load(files)?, stamps: stamps(files), files: files.clone(), looked: Instant::now() })
    }

    /// The configuration for a new connection; files that changed are read again, and what was in force stays so if
    /// they can't be.
    pub fn config(&mut self) -> Arc<rustls::ServerConfig> {
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            let stamps = stamps(&self.files);
            if stamps != self.stamps {
                self.stamps = stamps;
                match load(&self.files) {
                    Ok(config) => self.config = config,
                    Err(error) => {
                        tracing::warn!(%error, "certificates of syslog can't be reloaded; those in force stay in force");
                    }
                }
            }
        }
        self.config.clone()
    }
}

fn paths(files: &Tls) -> impl Iterator<Item = &Path> {
    [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
}

fn stamps(files: &Tls) -> Vec<Option<SystemTime>> {
    paths(files).map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()).collect()
}

fn load(files: &Tls) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let file = |error: pegel_runtime::http_client::ClientTlsError| TlsError::File(error.to_string());
    let unusable =
        |reason: String| TlsError::Unusable { cert: files.cert.clone(), key: files.key.clone(), reason };
    let chain = read_certificates(&files.cert).map_err(file)?;
    let key = read_private_key(&files.key).map_err(file)?;
    let builder = rustls::ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| unusable(error.to_string()))?;
    let builder = match &files.client_ca {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in read_certificates(ca).map_err(file)? {
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto_provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(error.to_string()))?)
        }
        None => builder.with_no_client_auth(),
    };
    let config = builder.with_single_cert(chain, key).map_err(|error| unusable(error.to_string()))?;
    Ok(Arc::new(config))
}
