//! The HTTP client of scrapes and outputs: hyper with rustls, one connection pool a client.

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A client whose requests have a body in memory.
pub type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// How a client proves the server and itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// PEM certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate chain (PEM), with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The client's private key (PEM), with `cert_file`.
    pub key_file: Option<PathBuf>,
    /// Accepts any server certificate. For exporters with self-signed ones on the same machine.
    pub insecure_skip_verify: bool,
}

/// Why a client can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// A PEM file can't be read or holds nothing of the kind wanted.
    #[error("cannot use `{}` as {what}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it was to hold.
        what: &'static str,
        /// What went wrong.
        reason: String,
    },
    /// Only one of certificate and key is given.
    #[error("a client certificate needs both cert_file and key_file")]
    HalfIdentity,
    /// rustls refuses the combination.
    #[error("TLS settings are refused: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Reads all certificates of a PEM file.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientTlsError> {
    let error =
        |reason: String| ClientTlsError::File { path: path.into(), what: "a PEM certificate", reason };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|e| error(e.to_string()))?
        .collect::<Result<_, _>>()
        .map_err(|e| error(e.to_string()))?;
    if found.is_empty() { Err(error("it holds no certificate".into())) } else { Ok(found) }
}

/// Reads the private key of a PEM file. The key itself never shows in an error.
pub fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ClientTlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| ClientTlsError::File {
        path: path.into(),
        what: "a PEM private key",
        reason: e.to_string(),
    })
}

/// The crypto provider of every TLS connection.
pub fn crypto_provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn tls_config(tls: &ClientTls) -> Result<rustls::ClientConfig, ClientTlsError> {
    let builder = rustls::ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()?;
    let builder = if tls.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(danger::AcceptAny))
    } else {
        let mut roots = rustls::RootCertStore::empty();
        match &tls.ca_file {
            Some(path) => {
                for certificate in read_certificates(path)? {
                    roots.add(certificate)?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        builder.with_root_certificates(roots)
    };
    match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => {
            Ok(builder.with_client_auth_cert(read_certificates(cert)?, read_private_key(key)?)?)
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(ClientTlsError::HalfIdentity),
    }
}

/// A client for http and https.
pub fn http_client(tls: &ClientTls, connect_timeout: Duration) -> Result<HttpClient, ClientTlsError> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(connect_timeout));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls_config(tls)?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector))
}

mod danger {
    //! A verifier that accepts any certificate, for `insecure_skip_verify`. Signatures are still checked.

    use super::crypto_provider;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct AcceptAny;

    impl ServerCertVerifier for AcceptAny {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let provider = crypto_provider();
            rustls::crypto::verify_tls12_signature(
                message,
                cert,
                signature,
                &provider.signature_verification_algorithms,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let provider = crypto_provider();
            rustls::crypto::verify_tls13_signature(
                message,
                cert,
                signature,
                &provider.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            crypto_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}
