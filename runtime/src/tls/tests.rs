use super::*;
use crate::pki::{AggregatorNames, CertificateAuthority, DEFAULT_CA_LIFETIME, Existing, IssuedFiles};
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use std::path::Path;

const DAY: Duration = Duration::from_hours(24);

fn authority(dir: &Path, domain: &str) -> CertificateAuthority {
    CertificateAuthority::init(dir, domain, DEFAULT_CA_LIFETIME, Existing::Refuse).unwrap()
}

fn issue_agent(ca: &CertificateAuthority, node: &str, lifetime: Duration) -> IssuedFiles {
    let identity =
        AgentIdentity { tenant: TenantId::parse("t").unwrap(), node: NodeId::parse(node).unwrap() };
    ca.issue_agent(&identity, lifetime, Existing::Replace).unwrap()
}

fn issue_aggregator(ca: &CertificateAuthority) -> IssuedFiles {
    let names = AggregatorNames { name: NodeId::parse("agg").unwrap(), dns: vec![], addresses: vec![] };
    ca.issue_aggregator(&names, DAY, Existing::Replace).unwrap()
}

fn files(ca: &CertificateAuthority, own: &IssuedFiles, crl: bool) -> TlsFiles {
    TlsFiles {
        ca: ca.certificate_path(),
        cert: own.cert.clone(),
        key: own.key.clone(),
        crl: crl.then(|| ca.crl_path()),
    }
}

fn chain(own: &IssuedFiles) -> Vec<CertificateDer<'static>> {
    crate::http_client::read_certificates(&own.cert).unwrap()
}

#[test]
fn an_agent_is_who_its_certificate_says() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path(), "site");
    let receiver = ReceiverTls::load(files(&ca, &issue_aggregator(&ca), true), b"x", None).unwrap();
    assert_eq!(receiver.trust_domain(), "site");
    let agent = issue_agent(&ca, "n1", DAY);
    let peer = receiver.verify_peer(&chain(&agent), UnixTime::now()).unwrap();
    assert_eq!(peer.identity.node.as_str(), "n1");
    let uplink = UplinkTls::load(files(&ca, &agent, false), b"x").unwrap();
    assert_eq!(uplink.own(), peer);
}

#[test]
fn expired_foreign_revoked_and_misused_certificates_are_refused_in_words() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ca, other) = (authority(dir.path(), "site"), authority(other_dir.path(), "site"));
    let aggregator = issue_aggregator(&ca);
    let receiver = ReceiverTls::load(files(&ca, &aggregator, true), b"x", None).unwrap();
    let now = UnixTime::now();
    let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + 2 * DAY);
    let agent = issue_agent(&ca, "n1", DAY);
    let reason = |result: Result<PeerCertificate, PeerError>| result.unwrap_err().to_string();

    assert!(reason(receiver.verify_peer(&chain(&agent), later)).contains("expired"));
    assert!(
        reason(receiver.verify_peer(&chain(&issue_agent(&other, "n1", DAY)), now)).contains("another CA")
    );
    assert!(receiver.verify_peer(&chain(&aggregator), now).is_err());
    assert_eq!(receiver.verify_peer(&[], now), Err(PeerError::Missing));

    assert!(receiver.verify_peer(&chain(&agent), now).is_ok());
    ca.revoke(&agent.cert).unwrap();
    assert!(receiver.verify_peer(&chain(&agent), now).is_ok(), "not before the reload");
    assert!(receiver.reload().unwrap());
    assert_eq!(*receiver.changes().borrow(), 1);
    assert!(reason(receiver.verify_peer(&chain(&agent), now)).contains("revoked"));
    assert!(!receiver.reload().unwrap());
}

#[test]
fn another_trust_domain_of_the_same_ca_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path(), "site");
    let agent = issue_agent(&ca, "n1", DAY);
    let receiver =
        ReceiverTls::load(files(&ca, &issue_aggregator(&ca), false), b"x", Some("else".into())).unwrap();
    let error = receiver.verify_peer(&chain(&agent), UnixTime::now()).unwrap_err();
    assert!(error.to_string().contains("trust domain is not `else`"), "{error}");
}

#[test]
fn half_a_renewal_changes_nothing_and_says_which_files() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path(), "site");
    let agent = issue_agent(&ca, "n1", DAY);
    let uplink = UplinkTls::load(files(&ca, &agent, false), b"x").unwrap();
    let serial = uplink.own().serial;
    let key = std::fs::read(&agent.key).unwrap();
    issue_agent(&ca, "n1", DAY);
    let new_key = std::fs::read(&agent.key).unwrap();
    std::fs::write(&agent.key, key).unwrap();
    let error = uplink.reload().unwrap_err().to_string();
    assert!(error.contains("cert.pem") && error.contains("key.pem"), "{error}");
    assert_eq!(uplink.own().serial, serial);
    std::fs::write(&agent.key, new_key).unwrap();
    assert!(uplink.reload().unwrap());
    assert_ne!(uplink.own().serial, serial);
}

#[test]
fn a_server_is_accepted_by_name_or_as_aggregator_of_the_trust_domain_only() {
    use rustls::client::danger::ServerCertVerifier as _;
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path(), "site");
    let agent = issue_agent(&ca, "n1", DAY);
    let aggregator = issue_aggregator(&ca);
    let material = Material::read(&files(&ca, &agent, false)).unwrap();
    let name = rustls_pki_types::ServerName::try_from("10.0.0.9").unwrap();
    let check = |domain: &str, leaf: &IssuedFiles| {
        let check = ServerCheck::new(&material, domain).unwrap();
        check.verify_server_cert(&chain(leaf)[0], &[], &name, &[], UnixTime::now()).is_ok()
    };
    assert!(check("site", &aggregator));
    assert!(!check("else", &aggregator));
    assert!(!check("site", &agent), "an agent's certificate can't pose as an aggregator");
}
