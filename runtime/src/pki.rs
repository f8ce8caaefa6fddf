//! A small certificate authority in a directory: enough for a fleet that has none.
//!
//! ```text
//! DIR/ca.pem  ca-key.pem  crl.pem
//! DIR/agents/TENANT/NODE/cert.pem  key.pem
//! DIR/aggregators/NAME/cert.pem  key.pem
//! ```
//!
//! The CA's certificate carries the trust domain (`spiffe://TRUST-DOMAIN`), agents' the identity of
//! [`AgentIdentity`], aggregators' `spiffe://TRUST-DOMAIN/aggregator/NAME` beside their DNS names and addresses.
//! Agents may only be TLS clients and aggregators only servers, so that a stolen agent key can't pose as an
//! aggregator. Keys are ECDSA P-256; every file is written beside its place and renamed into it, mode 0600.

use pegel_proto::identity::{AgentIdentity, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    RevokedCertParams, SanType, SerialNumber,
};
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use time::OffsetDateTime;

mod view;

pub use view::{CertificateView, certificate_view, show};

const DAY: Duration = Duration::from_hours(24);

/// How long a CA is valid by default: ten years, longer than most fleets keep their first one.
pub const DEFAULT_CA_LIFETIME: Duration = DAY.saturating_mul(3_650);
/// How long an agent's or aggregator's certificate is valid by default: a year and some weeks, so that a yearly
/// renewal has slack.
pub const DEFAULT_LEAF_LIFETIME: Duration = DAY.saturating_mul(400);
/// How far before now validity begins: clocks of machines that were just installed are off by minutes.
const BACKDATE: Duration = Duration::from_hours(1);
/// The trust domain where none is given.
pub const DEFAULT_TRUST_DOMAIN: &str = "pegel";

const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const CRL: &str = "crl.pem";

/// Why something about certificates failed. Each variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file can't be read or written.
    #[error("cannot {doing} `{}`: {reason}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// Why it failed.
        reason: std::io::Error,
    },
    /// A file exists and replacing it was not asked for.
    #[error("`{}` exists already; nothing was written. Say that it is to be replaced, or choose another place", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file is not what it should be.
    #[error("`{}` is not {what}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A name can't stand in a certificate.
    #[error("`{name}` cannot stand in a certificate: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The certificate to revoke was issued by somebody else.
    #[error("`{}` was not issued by this CA (issuer `{issuer}`)", path.display())]
    ForeignCertificate {
        /// The certificate's file.
        path: PathBuf,
        /// Its issuer.
        issuer: String,
    },
    /// The crypto library refuses.
    #[error("cannot make the {what}: {reason}")]
    Crypto {
        /// What was to be made.
        what: &'static str,
        /// Why not.
        reason: rcgen::Error,
    },
}

/// What to do with files that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// Write nothing and say so.
    #[default]
    Refuse,
    /// Replace them.
    Replace,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedFiles {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// The private key, PEM, mode 0600.
    pub key: PathBuf,
}

/// What an aggregator's certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregatorNames {
    /// Its name, in `spiffe://TRUST-DOMAIN/aggregator/NAME`.
    pub name: NodeId,
    /// DNS names that agents connect to.
    pub dns: Vec<String>,
    /// Addresses that agents connect to.
    pub addresses: Vec<IpAddr>,
}

/// A certificate authority.
#[derive(Debug)]
pub struct CertificateAuthority {
    dir: PathBuf,
    trust_domain: String,
    issuer: Issuer<'static, KeyPair>,
    subject: String,
}

impl CertificateAuthority {
    /// Makes a new CA in a directory, with an empty revocation list.
    pub fn init(
        dir: &Path,
        trust_domain: &str,
        lifetime: Duration,
        existing: Existing,
    ) -> Result<Self, PkiError> {
        check_trust_domain(trust_domain)?;
        let (cert_path, key_path) = (dir.join(CA_CERT), dir.join(CA_KEY));
        may_write(&[&cert_path, &key_path, &dir.join(CRL)], existing)?;
        let key = new_key()?;
        // A CA made anew for the same domain must not have the name of the one before.
        let mark = &view::fingerprint(key.public_key_raw())[..11];
        let domain: String = trust_domain.chars().take(36).collect();
        let mut params = leaf_params(&format!("pegel CA of {domain} {mark}"), lifetime);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = false;
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
        let cert =
            params.self_signed(&key).map_err(|reason| PkiError::Crypto { what: "CA certificate", reason })?;
        make_dir(dir)?;
        write_private(&key_path, &key.serialize_pem())?;
        write_private(&cert_path, &cert.pem())?;
        let ca = Self::open(dir)?;
        ca.write_crl(Vec::new(), 1)?;
        Ok(ca)
    }

    /// Opens a CA that [`CertificateAuthority::init`] made.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let (cert_path, key_path) = (dir.join(CA_CERT), dir.join(CA_KEY));
        let view = show(&cert_path)?.swap_remove(0);
        let trust_domain = view
            .uris
            .iter()
            .find_map(|u| u.strip_prefix("spiffe://"))
            .filter(|domain| !domain.contains('/'))
            .ok_or_else(|| PkiError::Malformed {
                path: cert_path.clone(),
                what: "a CA of pegel",
                reason: "it names no trust domain (spiffe://TRUST-DOMAIN)".into(),
            })?
            .to_owned();
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(|e| PkiError::Malformed {
            path: key_path.clone(),
            what: "a PEM private key",
            reason: e.to_string(),
        })?;
        let issuer = Issuer::from_ca_cert_pem(&read(&cert_path)?, key).map_err(|e| PkiError::Malformed {
            path: cert_path.clone(),
            what: "a CA certificate",
            reason: e.to_string(),
        })?;
        Ok(Self { dir: dir.into(), trust_domain, issuer, subject: view.subject })
    }

    /// The trust domain of all that this CA issues.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The CA's certificate, to give to agents and aggregators.
    pub fn certificate_path(&self) -> PathBuf {
        self.dir.join(CA_CERT)
    }

    /// The revocation list, to give to aggregators.
    pub fn crl_path(&self) -> PathBuf {
        self.dir.join(CRL)
    }

    /// Issues an agent's certificate into `DIR/agents/TENANT/NODE`.
    pub fn issue_agent(
        &self,
        identity: &AgentIdentity,
        lifetime: Duration,
        existing: Existing,
    ) -> Result<IssuedFiles, PkiError> {
        let mut params = leaf_params(&format!("{} of {}", identity.node, identity.tenant), lifetime);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri(&identity.to_uri(&self.trust_domain))?];
        let dir = self.dir.join("agents").join(identity.tenant.as_str()).join(identity.node.as_str());
        self.issue(&params, &dir, existing)
    }

    /// Issues an aggregator's certificate into `DIR/aggregators/NAME`.
    pub fn issue_aggregator(
        &self,
        names: &AggregatorNames,
        lifetime: Duration,
        existing: Existing,
    ) -> Result<IssuedFiles, PkiError> {
        let mut params = leaf_params(&format!("aggregator {}", names.name), lifetime);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names =
            vec![uri(&format!("spiffe://{}/aggregator/{}", self.trust_domain, names.name))?];
        for name in &names.dns {
            let dns = name
                .clone()
                .try_into()
                .map_err(|e: rcgen::Error| PkiError::BadName { name: name.clone(), reason: e.to_string() })?;
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        params.subject_alt_names.extend(names.addresses.iter().copied().map(SanType::IpAddress));
        let dir = self.dir.join("aggregators").join(names.name.as_str());
        self.issue(&params, &dir, existing)
    }

    /// Puts a certificate on the revocation list. Revoking one twice changes nothing; gives its serial number.
    pub fn revoke(&self, certificate: &Path) -> Result<String, PkiError> {
        let view = show(certificate)?.swap_remove(0);
        if view.issuer != self.subject {
            return Err(PkiError::ForeignCertificate { path: certificate.into(), issuer: view.issuer });
        }
        let (mut revoked, number) = self.read_crl()?;
        let serial = SerialNumber::from_slice(&view.serial_bytes);
        if !revoked.iter().any(|r| r.serial_number == serial) {
            revoked.push(RevokedCertParams {
                serial_number: serial,
                revocation_time: OffsetDateTime::now_utc(),
                reason_code: None,
                invalidity_date: None,
            });
            self.write_crl(revoked, number + 1)?;
        }
        Ok(view.serial)
    }

    fn issue(
        &self,
        params: &CertificateParams,
        dir: &Path,
        existing: Existing,
    ) -> Result<IssuedFiles, PkiError> {
        let files = IssuedFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
        may_write(&[&files.cert, &files.key], existing)?;
        let key = new_key()?;
        let cert = params
            .signed_by(&key, &self.issuer)
            .map_err(|reason| PkiError::Crypto { what: "certificate", reason })?;
        make_dir(dir)?;
        write_private(&files.key, &key.serialize_pem())?;
        write_private(&files.cert, &cert.pem())?;
        Ok(files)
    }

    fn read_crl(&self) -> Result<(Vec<RevokedCertParams>, u64), PkiError> {
        use x509_parser::prelude::FromDer as _;
        let path = self.crl_path();
        let malformed = |reason: String| PkiError::Malformed {
            path: path.clone(),
            what: "a PEM certificate revocation list",
            reason,
        };
        let text = read(&path)?;
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|e| malformed(e.to_string()))?;
        let (_, crl) = x509_parser::revocation_list::CertificateRevocationList::from_der(&pem.contents)
            .map_err(|e| malformed(e.to_string()))?;
        let number = crl.crl_number().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let revoked = crl
            .iter_revoked_certificates()
            .map(|r| RevokedCertParams {
                serial_number: SerialNumber::from_slice(r.raw_serial()),
                revocation_time: r.revocation_date.to_datetime(),
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        Ok((revoked, number))
    }

    fn write_crl(&self, revoked_certs: Vec<RevokedCertParams>, number: u64) -> Result<(), PkiError> {
        let now = OffsetDateTime::now_utc();
        let crl = CertificateRevocationListParams {
            this_update: now - BACKDATE,
            // Nobody fetches it on a schedule: a list that lapsed would only lock out the fleet.
            next_update: now + DEFAULT_CA_LIFETIME,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = crl
            .signed_by(&self.issuer)
            .and_then(|crl| crl.pem())
            .map_err(|reason| PkiError::Crypto { what: "revocation list", reason })?;
        write_private(&self.crl_path(), &pem)
    }
}

fn leaf_params(common_name: &str, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATE;
    params.not_after = now + lifetime;
    params.distinguished_name = DistinguishedName::new();
    // X.520 bounds common names at 64 characters; the identity that counts is in the URI.
    let common_name: String = common_name.chars().take(64).collect();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn new_key() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|reason| PkiError::Crypto { what: "private key", reason })
}

fn uri(text: &str) -> Result<SanType, PkiError> {
    let text = text.to_owned();
    let name = text.clone();
    text.try_into()
        .map(SanType::URI)
        .map_err(|e: rcgen::Error| PkiError::BadName { name, reason: e.to_string() })
}

/// The rule of SPIFFE ID section 2.1: lower-case letters, digits, `.`, `-`, `_`.
fn check_trust_domain(name: &str) -> Result<(), PkiError> {
    let ok = !name.is_empty()
        && name.len() <= 255
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    if ok {
        return Ok(());
    }
    Err(PkiError::BadName {
        name: name.chars().take(80).flat_map(char::escape_debug).collect(),
        reason: "a trust domain is 1 to 255 characters of a-z, 0-9, '.', '_' or '-'".into(),
    })
}

fn may_write(paths: &[&Path], existing: Existing) -> Result<(), PkiError> {
    match paths.iter().find(|p| existing == Existing::Refuse && p.exists()) {
        Some(path) => Err(PkiError::Exists { path: path.to_path_buf() }),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|reason| PkiError::Io { doing: "read", path: path.into(), reason })
}

fn make_dir(dir: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|reason| PkiError::Io {
        doing: "make the directory",
        path: dir.into(),
        reason,
    })
}

/// Writes a file beside its place and renames it, so that a reader never sees half of it.
fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    let beside = path.with_extension("new");
    let written = (|| {
        match fs::remove_file(&beside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.map_err(|reason| PkiError::Io { doing: "write", path: path.into(), reason })
}

#[cfg(test)]
mod tests;
