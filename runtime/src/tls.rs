//! TLS between agents and aggregators: mutual, 1.3 only, reloaded when its files change.
//!
//! Nothing is resumed and no early data is taken: a client certificate must be shown and checked on every
//! connection, or revocation would not hold. Live sessions are checked again, by
//! [`ReceiverTls::verify_peer`], whenever the files were reloaded and when a certificate's time is over.

use crate::http_client::crypto_provider;
use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod material;
mod peer;
mod server_check;

pub use material::{TlsError, TlsFiles};
pub use peer::{PeerCertificate, PeerError, agent_identity};

use material::Material;
use server_check::ServerCheck;

/// How often the files are looked at. A certificate that was renewed or revoked is in force within this time; reading
/// four small files takes some 20 µs, a hundred-thousandth of it.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// What can be loaded again from its files.
pub trait Reload: Send + Sync + 'static {
    /// Reads the files again; whether they changed. On an error what was in force stays in force.
    fn reload(&self) -> Result<bool, TlsError>;
}

/// The receiver's side: proves the aggregator, checks agents.
#[derive(Debug)]
pub struct ReceiverTls {
    files: TlsFiles,
    alpn: Vec<u8>,
    trust_domain: Option<String>,
    current: ArcSwap<ReceiverState>,
    generation: watch::Sender<u64>,
}

#[derive(Debug)]
struct ReceiverState {
    material: Material,
    config: Arc<rustls::ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
}

impl ReceiverTls {
    /// Loads the files. Without a trust domain, that of the aggregator's own certificate is used.
    pub fn load(files: TlsFiles, alpn: &[u8], trust_domain: Option<String>) -> Result<Arc<Self>, TlsError> {
        let state = ReceiverState::load(&files, alpn, trust_domain.as_deref())?;
        Ok(Arc::new(Self {
            files,
            alpn: alpn.to_vec(),
            trust_domain,
            current: ArcSwap::from_pointee(state),
            generation: watch::Sender::new(0),
        }))
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<rustls::ServerConfig> {
        self.current.load().config.clone()
    }

    /// Counts reloads that changed something.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The trust domain that agents must belong to.
    pub fn trust_domain(&self) -> String {
        self.current.load().trust_domain.clone()
    }

    /// A key for `purpose` that only the holder of the private key in force can derive: the same after a restart,
    /// another one for every purpose. HMAC-SHA256 of the purpose under the private key's DER (RFC 5869 section 2.2
    /// with the roles that a uniformly random key allows).
    pub fn derived_key(&self, purpose: &str) -> [u8; 32] {
        let state = self.current.load();
        let key = hmac::Key::new(hmac::HMAC_SHA256, state.material.key.secret_der());
        let mut derived = [0; 32];
        derived.copy_from_slice(hmac::sign(&key, purpose.as_bytes()).as_ref());
        derived
    }

    /// When the aggregator's own certificate expires, in seconds since the Unix epoch.
    pub fn own_not_after_seconds(&self) -> i64 {
        self.current.load().material.own.not_after.unix_timestamp()
    }

    /// Checks a certificate chain, of a new connection or a live one, against what is in force now.
    pub fn verify_peer(
        &self,
        chain: &[CertificateDer<'static>],
        now: UnixTime,
    ) -> Result<PeerCertificate, PeerError> {
        let state = self.current.load();
        let (leaf, intermediates) = chain.split_first().ok_or(PeerError::Missing)?;
        state.verifier.verify_client_cert(leaf, intermediates, now).map_err(|e| PeerError::rejected(&e))?;
        PeerCertificate::of_agent(leaf, &state.trust_domain)
    }
}

impl Reload for ReceiverTls {
    fn reload(&self) -> Result<bool, TlsError> {
        if Material::read(&self.files)?.same_files(&self.current.load().material) {
            return Ok(false);
        }
        let state = ReceiverState::load(&self.files, &self.alpn, self.trust_domain.as_deref())?;
        self.current.store(Arc::new(state));
        self.generation.send_modify(|g| *g += 1);
        Ok(true)
    }
}

impl ReceiverState {
    fn load(files: &TlsFiles, alpn: &[u8], trust_domain: Option<&str>) -> Result<Self, TlsError> {
        let material = Material::read(files)?;
        let trust_domain = match trust_domain {
            Some(domain) => domain.to_owned(),
            None => material.own_trust_domain(&files.cert)?,
        };
        let mut verifier =
            WebPkiClientVerifier::builder_with_provider(material.roots.clone(), crypto_provider())
                // Names of CAs in the request cost bytes on every handshake; agents have one certificate.
                .clear_root_hint_subjects();
        if !material.crls.is_empty() {
            verifier = verifier
                .with_crls(material.crls.iter().cloned())
                .only_check_end_entity_revocation()
                // While CAs are exchanged one of them may have no list yet.
                .allow_unknown_revocation_status();
        }
        let verifier = verifier.build().map_err(|e| TlsError::Settings { reason: e.to_string() })?;
        let mut config = rustls::ServerConfig::builder_with_provider(crypto_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|b| {
                b.with_client_cert_verifier(verifier.clone())
                    .with_single_cert(material.chain.clone(), material.key.clone_key())
            })
            .map_err(|e| TlsError::Pair {
                cert: files.cert.clone(),
                key: files.key.clone(),
                reason: e.to_string(),
            })?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self { material, config: Arc::new(config), verifier, trust_domain })
    }
}

/// The uplink's side: proves the agent, checks aggregators.
#[derive(Debug)]
pub struct UplinkTls {
    files: TlsFiles,
    alpn: Vec<u8>,
    current: ArcSwap<UplinkState>,
    generation: watch::Sender<u64>,
}

#[derive(Debug)]
struct UplinkState {
    material: Material,
    config: Arc<rustls::ClientConfig>,
    identity: PeerCertificate,
    trust_domain: String,
}

impl UplinkTls {
    /// Loads the files. The trust domain is that of the agent's own certificate.
    pub fn load(files: TlsFiles, alpn: &[u8]) -> Result<Arc<Self>, TlsError> {
        let state = UplinkState::load(&files, alpn)?;
        Ok(Arc::new(Self {
            files,
            alpn: alpn.to_vec(),
            current: ArcSwap::from_pointee(state),
            generation: watch::Sender::new(0),
        }))
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<rustls::ClientConfig> {
        self.current.load().config.clone()
    }

    /// Counts reloads that changed something: the session should be made anew.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Who the agent's certificate says that it is.
    pub fn own(&self) -> PeerCertificate {
        self.current.load().identity.clone()
    }

    /// The trust domain that aggregators must belong to.
    pub fn trust_domain(&self) -> String {
        self.current.load().trust_domain.clone()
    }
}

impl Reload for UplinkTls {
    fn reload(&self) -> Result<bool, TlsError> {
        if Material::read(&self.files)?.same_files(&self.current.load().material) {
            return Ok(false);
        }
        let state = UplinkState::load(&self.files, &self.alpn)?;
        self.current.store(Arc::new(state));
        self.generation.send_modify(|g| *g += 1);
        Ok(true)
    }
}

impl UplinkState {
    fn load(files: &TlsFiles, alpn: &[u8]) -> Result<Self, TlsError> {
        let material = Material::read(files)?;
        let trust_domain = material.own_trust_domain(&files.cert)?;
        let identity = PeerCertificate::of_agent(&material.chain[0], &trust_domain)
            .map_err(|e| TlsError::Identity { path: files.cert.clone(), reason: e.to_string() })?;
        let check = ServerCheck::new(&material, &trust_domain)?;
        let mut config = rustls::ClientConfig::builder_with_provider(crypto_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|b| {
                b.dangerous()
                    .with_custom_certificate_verifier(Arc::new(check))
                    .with_client_auth_cert(material.chain.clone(), material.key.clone_key())
            })
            .map_err(|e| TlsError::Pair {
                cert: files.cert.clone(),
                key: files.key.clone(),
                reason: e.to_string(),
            })?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_early_data = false;
        Ok(Self { material, config: Arc::new(config), identity, trust_domain })
    }
}

/// Reloads at intervals until `shutdown`. What went wrong is logged once until it changes.
pub async fn watch_files(tls: Arc<dyn Reload>, every: Duration, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last_error = String::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match tls.reload() {
            Ok(changed) => {
                if changed {
                    tracing::info!("certificates were reloaded");
                }
                last_error.clear();
            }
            Err(e) if e.to_string() == last_error => {}
            Err(e) => {
                last_error = e.to_string();
                tracing::warn!(error = %e, "certificates can't be reloaded; those in force stay in force");
            }
        }
    }
}

#[cfg(test)]
mod tests;
