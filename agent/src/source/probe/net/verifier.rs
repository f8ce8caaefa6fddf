//! The verdict on a server's certificate, with what was shown: kept whatever becomes of the handshake.

use super::certificate::{Shown, check_time};
use super::ocsp::{self, Stapled, Status};
use super::roots::Roots;
use super::tls::provider;
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use std::sync::Arc;

/// Verifies a server and keeps what it showed.
#[derive(Debug, Default)]
pub(super) struct Recording {
    pub(super) roots: Option<Arc<Roots>>,
    /// None where any certificate does.
    pub(super) verifier: Option<Arc<WebPkiServerVerifier>>,
    /// Whether a response must be stapled, and say that the certificate is good.
    pub(super) require_stapled: bool,
    pub(super) shown: Mutex<Option<Shown>>,
}

impl Recording {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let verified = verifier.verify_server_cert(leaf, intermediates, name, &[], now);
        match verified {
            // A certificate that is trusted itself needs no issuer, though it may say that it is one: that is how
            // most self-signed certificates are made, and how OpenSSL and Go take them.
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_)))
                if self.roots.as_ref().is_some_and(|roots| roots.lists(leaf)) =>
            {
                check_time(leaf, now)?;
                rustls::client::verify_server_name(&ParsedCertificate::try_from(leaf)?, name)
            }
            other => other.map(|_| ()),
        }
    }

    /// What the issuer says of the certificate, as the server brings it.
    fn verify_stapled(&self, stapled: Option<&Stapled>) -> Result<(), Error> {
        let refused = match stapled.map(|stapled| stapled.status) {
            _ if self.verifier.is_none() => None,
            Some(Status::Revoked) => Some(CertificateError::Revoked),
            Some(Status::Good) => None,
            // What says nothing is as if nothing were there, which most servers do.
            _ => self.require_stapled.then_some(CertificateError::InvalidOcspResponse),
        };
        refused.map_or(Ok(()), |error| Err(Error::InvalidCertificate(error)))
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
        let seconds = now.as_secs() as i64;
        let stapled = self.roots.as_ref().filter(|_| !ocsp.is_empty()).map(|roots| {
            let algorithms = &provider().signature_verification_algorithms;
            ocsp::examine(ocsp, leaf, intermediates, roots, algorithms, seconds)
        });
        let verified = self.verify(leaf, intermediates, name, now);
        let verified = verified.and_then(|()| self.verify_stapled(stapled.as_ref()));
        let chain = std::iter::once(leaf).chain(intermediates).map(|c| c.clone().into_owned()).collect();
        *self.shown.lock() = Some(Shown {
            chain,
            now: seconds,
            verified: self.verifier.is_some() && verified.is_ok(),
            refused: verified.as_ref().err().cloned(),
            stapled,
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
