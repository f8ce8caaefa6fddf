//! The agent's check of an aggregator: its chain and revocation as ever, and either the name that the agent
//! connected to or `spiffe://TRUST-DOMAIN/aggregator/NAME`. The second makes addresses free to change: behind a
//! headless service, or reached by an address that nobody put into the certificate.

use super::TlsError;
use super::material::Material;
use crate::http_client::crypto_provider;
use crate::pki::certificate_view;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct ServerCheck {
    chain: Arc<WebPkiServerVerifier>,
    prefix: String,
}

impl ServerCheck {
    pub(super) fn new(material: &Material, trust_domain: &str) -> Result<Self, TlsError> {
        let mut chain =
            WebPkiServerVerifier::builder_with_provider(material.roots.clone(), crypto_provider());
        if !material.crls.is_empty() {
            chain = chain
                .with_crls(material.crls.iter().cloned())
                .only_check_end_entity_revocation()
                .allow_unknown_revocation_status();
        }
        let chain = chain.build().map_err(|e| TlsError::Settings { reason: e.to_string() })?;
        Ok(Self { chain, prefix: format!("spiffe://{trust_domain}/aggregator/") })
    }

    fn names_an_aggregator(&self, leaf: &CertificateDer<'_>) -> bool {
        certificate_view(leaf).is_ok_and(|view| match view.uris.as_slice() {
            [uri] => uri.strip_prefix(&self.prefix).is_some_and(|n| !n.is_empty() && !n.contains('/')),
            _ => false,
        })
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.chain.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            // rustls looks at the name last: chain, time, usage and revocation were found good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.names_an_aggregator(leaf) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
