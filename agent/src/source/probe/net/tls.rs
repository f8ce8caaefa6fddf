//! TLS of checks: like any client's, but that what the server showed is kept whatever becomes of it.

use super::certificate::{Shown, report};
use super::roots::Roots;
use crate::source::probe::outcome::{Failure, Phase, Reason, reason_of_io};
use crate::source::probe::run::Run;
use parking_lot::Mutex;
use pegel_runtime::http_client::{read_certificates, read_private_key};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How a check proves the server and itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// PEM certificates to trust instead of the system's. A server's own certificate may be among them.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate chain (PEM), with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The client's private key (PEM), with `cert_file`.
    pub key_file: Option<PathBuf>,
    /// The name that the certificate must have, and that is sent; without it, the target's host.
    pub server_name: Option<String>,
    /// Takes any certificate; it is reported all the same.
    pub insecure_skip_verify: bool,
}

/// The suites in the order in which Go prefers them on machines with AES instructions: so that servers that leave
/// the choice to the client choose what they chose for blackbox_exporter.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        let suites = vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ];
        Arc::new(CryptoProvider { cipher_suites: suites, ..default_provider() })
    };
    PROVIDER.get_or_init(make).clone()
}

/// What a check's settings make: read once, shared by its targets.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    alpn: &'static [&'static [u8]],
    made: OnceLock<Result<Made, String>>,
}

#[derive(Debug, Clone)]
struct Made {
    config: ClientConfig,
    roots: Arc<Roots>,
    /// None where any certificate does.
    verifier: Option<Arc<WebPkiServerVerifier>>,
}

impl Client {
    /// A client that offers these protocols. Files are read at its first use.
    pub fn new(settings: Settings, alpn: &'static [&'static [u8]]) -> Self {
        Self { settings, alpn, made: OnceLock::new() }
    }

    fn make(&self, run: &Run) -> Result<Made, String> {
        let roots = match &self.settings.ca_file {
            Some(path) => Arc::new(Roots::of_file(path)?),
            None => run.network.roots.roots(),
        };
        let verifier = if self.settings.insecure_skip_verify {
            None
        } else {
            let builder = WebPkiServerVerifier::builder_with_provider(roots.store.clone(), provider());
            // No roots at all: nothing can be verified, and the error says so at the handshake.
            Some(builder.build().map_err(|e| format!("no certificate authority is trusted: {e}"))?)
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Recording::default()));
        let mut config = match (&self.settings.cert_file, &self.settings.key_file) {
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(
                    read_certificates(cert).map_err(|e| e.to_string())?,
                    read_private_key(key).map_err(|e| e.to_string())?,
                )
                .map_err(|e| format!("client certificate {} does not work: {e}", cert.display()))?,
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // Each run is to see the certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Made { config, roots, verifier })
    }

    /// A TLS connection over a stream. The certificate is reported also where it is refused.
    pub async fn connect<S>(&self, run: &mut Run, stream: S, host: &str) -> Result<TlsStream<S>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        run.enter(Phase::Tls);
        let made = self.made.get_or_init(|| self.make(run));
        let made = made.as_ref().map_err(|e| Failure::new(Phase::Setup, Reason::Configuration, e.clone()))?;
        let host = self.settings.server_name.as_deref().unwrap_or(host).trim_end_matches('.');
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Failure::new(
                Phase::Tls,
                Reason::CertificateName,
                format!("`{host}` is no name that a certificate may have"),
            )
        })?;
        let recording = Arc::new(Recording {
            roots: Some(made.roots.clone()),
            verifier: made.verifier.clone(),
            shown: Mutex::default(),
        });
        let mut config = made.config.clone();
        config.dangerous().set_certificate_verifier(recording.clone());
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let connection = connected.as_ref().ok().map(|stream| stream.get_ref().1);
        if let Some(shown) = recording.shown.lock().take() {
            report(&mut run.record, &shown, connection, &made.roots);
        }
        connected.map_err(|error| failure_of(&error, host))
    }
}

/// The failure that a handshake's error stands for.
fn failure_of(error: &std::io::Error, host: &str) -> Failure {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let (reason, words) = match tls {
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            (Reason::Closed, "the server ended the connection during the handshake".to_owned())
        }
        None => (reason_of_io(error), format!("handshake: {error}")),
        Some(Error::InvalidCertificate(bad)) => {
            let reason = match bad {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Reason::CertificateExpired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Reason::CertificateNotYetValid
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Reason::CertificateName
                }
                CertificateError::UnknownIssuer => Reason::CertificateUntrusted,
                CertificateError::Revoked => Reason::CertificateRevoked,
                _ => Reason::CertificateInvalid,
            };
            (reason, format!("the certificate shown for {host} is refused: {bad}"))
        }
        Some(error) => (Reason::Handshake, format!("handshake: {error}")),
    };
    Failure::new(Phase::Tls, reason, words)
}

/// Verifies a server and keeps what it showed.
#[derive(Debug, Default)]
struct Recording {
    roots: Option<Arc<Roots>>,
    verifier: Option<Arc<WebPkiServerVerifier>>,
    shown: Mutex<Option<Shown>>,
}

impl Recording {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let verified = verifier.verify_server_cert(leaf, intermediates, name, ocsp, now);
        match verified {
            // A certificate that is trusted itself needs no issuer, though it may say that it is one: that is how
            // most self-signed certificates are made, and how OpenSSL and Go take them.
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_)))
                if self.roots.as_ref().is_some_and(|roots| roots.lists(leaf)) =>
            {
                super::certificate::check_time(leaf, now)?;
                rustls::client::verify_server_name(&ParsedCertificate::try_from(leaf)?, name)
            }
            other => other.map(|_| ()),
        }
    }
}

impl ServerCertVerifier for Recording {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.verify(leaf, intermediates, name, ocsp, now);
        let chain = std::iter::once(leaf).chain(intermediates).map(|c| c.clone().into_owned()).collect();
        *self.shown.lock() = Some(Shown {
            chain,
            now: now.as_secs() as i64,
            verified: self.verifier.is_some() && verified.is_ok(),
            refused: verified.is_err(),
        });
        verified.map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
