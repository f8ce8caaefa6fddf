//! TLS of checks: like any client's, but that what the server showed is kept whatever becomes of it.

use super::certificate::{Negotiated, Shown, report};
use super::roots::Roots;
use super::verifier::Recording;
use crate::source::probe::outcome::{Failure, Phase, Reason, reason_of_io};
use crate::source::probe::record::Record;
use crate::source::probe::run::Run;
use parking_lot::Mutex;
use pegel_runtime::http_client::{read_certificates, read_private_key};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, Error};
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
    /// Refuses a server that brings no OCSP response which says that its certificate is good.
    pub require_stapled: bool,
}

/// The suites in the order in which Go prefers them on machines with AES instructions: so that servers that leave
/// the choice to the client choose what they chose for blackbox_exporter.
pub(super) fn provider() -> Arc<CryptoProvider> {
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

    /// A handshake with a server that should have a name, unless the settings name another.
    pub(super) fn handshake(&self, run: &Run, host: &str) -> Result<Handshake, Failure> {
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
            require_stapled: self.settings.require_stapled,
            shown: Mutex::default(),
        });
        let mut config = made.config.clone();
        config.dangerous().set_certificate_verifier(recording.clone());
        Ok(Handshake { config, host: host.to_owned(), name, recording, roots: made.roots.clone() })
    }

    /// A TLS connection over a stream. The certificate is reported also where it is refused.
    pub async fn connect<S>(&self, run: &mut Run, stream: S, host: &str) -> Result<TlsStream<S>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        run.enter(Phase::Tls);
        let handshake = self.handshake(run, host)?;
        let connector = TlsConnector::from(Arc::new(handshake.config.clone()));
        let connected = connector.connect(handshake.name.clone(), stream).await;
        let negotiated = connected.as_ref().ok().and_then(|stream| {
            let connection = stream.get_ref().1;
            Some((connection.protocol_version()?, connection.negotiated_cipher_suite()))
        });
        handshake.report(&mut run.record, negotiated);
        connected.map_err(|error| match handshake.refusal() {
            Some(failure) => failure,
            None => failure_of(&error, &handshake.host),
        })
    }
}

/// A handshake of one connection, and what comes of it.
pub(super) struct Handshake {
    pub(super) config: ClientConfig,
    /// The name that the server should have.
    pub(super) host: String,
    name: ServerName<'static>,
    recording: Arc<Recording>,
    roots: Arc<Roots>,
}

impl Handshake {
    /// Reports what the server showed, if it came that far, and what was agreed on.
    pub(super) fn report(&self, record: &mut Record, negotiated: Option<Negotiated>) {
        if let Some(shown) = &*self.recording.shown.lock() {
            report(record, shown, negotiated, &self.roots, self.recording.require_stapled);
        }
    }

    /// Why the certificate was refused, if that is what ended the handshake.
    pub(super) fn refusal(&self) -> Option<Failure> {
        let shown = self.recording.shown.lock();
        let shown = shown.as_ref()?;
        match shown.refused.as_ref()? {
            Error::InvalidCertificate(bad) => Some(refused(bad, &self.host, shown)),
            other => Some(Failure::new(Phase::Tls, Reason::Handshake, format!("handshake: {other}"))),
        }
    }
}

/// The failure that a refused certificate is.
fn refused(bad: &CertificateError, host: &str, shown: &Shown) -> Failure {
    let words = match (bad, &shown.stapled) {
        (CertificateError::Revoked | CertificateError::InvalidOcspResponse, Some(stapled)) => {
            format!("by the stapled OCSP response, {}", stapled.words)
        }
        (CertificateError::InvalidOcspResponse, None) => {
            "no OCSP response is stapled, which require_stapled asks for".to_owned()
        }
        _ => bad.to_string(),
    };
    let words = format!("the certificate shown for {host} is refused: {words}");
    Failure::new(Phase::Tls, reason_of(bad), words)
}

fn reason_of(bad: &CertificateError) -> Reason {
    match bad {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Reason::CertificateExpired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Reason::CertificateNotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Reason::CertificateName
        }
        CertificateError::UnknownIssuer => Reason::CertificateUntrusted,
        CertificateError::Revoked => Reason::CertificateRevoked,
        CertificateError::InvalidOcspResponse => Reason::RevocationUnknown,
        _ => Reason::CertificateInvalid,
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
            (reason_of(bad), format!("the certificate shown for {host} is refused: {bad}"))
        }
        Some(error) => (Reason::Handshake, format!("handshake: {error}")),
    };
    Failure::new(Phase::Tls, reason, words)
}
