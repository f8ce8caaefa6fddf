use super::*;
use pegel_proto::identity::TenantId;
use std::os::unix::fs::PermissionsExt as _;

fn identity() -> AgentIdentity {
    AgentIdentity { tenant: TenantId::parse("acme").unwrap(), node: NodeId::parse("web-1").unwrap() }
}

#[test]
fn a_ca_issues_agents_and_aggregators_that_say_who_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::init(dir.path(), "site", DEFAULT_CA_LIFETIME, Existing::Refuse).unwrap();
    let agent = ca.issue_agent(&identity(), DEFAULT_LEAF_LIFETIME, Existing::Refuse).unwrap();
    let names = AggregatorNames {
        name: NodeId::parse("agg-1").unwrap(),
        dns: vec!["agg.example".into()],
        addresses: vec!["::1".parse().unwrap()],
    };
    let aggregator = ca.issue_aggregator(&names, DEFAULT_LEAF_LIFETIME, Existing::Refuse).unwrap();

    let shown = show(&agent.cert).unwrap();
    assert_eq!(shown[0].uris, ["spiffe://site/tenant/acme/node/web-1"]);
    assert!(!shown[0].is_ca);
    assert_eq!(shown[0].fingerprint_sha256.len(), 32 * 3 - 1);
    let shown = show(&aggregator.cert).unwrap();
    assert_eq!(shown[0].uris, ["spiffe://site/aggregator/agg-1"]);
    assert_eq!(shown[0].dns, ["agg.example"]);
    assert_eq!(shown[0].addresses, [IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
    assert!(shown[0].to_string().contains("identity     spiffe://site/aggregator/agg-1"));
}

#[test]
fn every_file_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::init(dir.path(), "site", DEFAULT_CA_LIFETIME, Existing::Refuse).unwrap();
    let agent = ca.issue_agent(&identity(), DEFAULT_LEAF_LIFETIME, Existing::Refuse).unwrap();
    for path in [agent.cert, agent.key, dir.path().join(CA_KEY), ca.certificate_path(), ca.crl_path()] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn nothing_is_replaced_unless_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::init(dir.path(), "site", DEFAULT_CA_LIFETIME, Existing::Refuse).unwrap();
    let before = fs::read(ca.certificate_path()).unwrap();
    let error =
        CertificateAuthority::init(dir.path(), "site", DEFAULT_CA_LIFETIME, Existing::Refuse).unwrap_err();
    assert!(error.to_string().contains("ca.pem` exists already"), "{error}");
    assert_eq!(fs::read(ca.certificate_path()).unwrap(), before);
    let first = ca.issue_agent(&identity(), DEFAULT_LEAF_LIFETIME, Existing::Refuse).unwrap();
    let first_cert = fs::read(&first.cert).unwrap();
    assert!(ca.issue_agent(&identity(), DEFAULT_LEAF_LIFETIME, Existing::Refuse).is_err());
    ca.issue_agent(&identity(), DEFAULT_LEAF_LIFETIME, Existing::Replace).unwrap();
    assert_ne!(fs::read(&first.cert).unwrap(), first_cert);
}

#[test]
fn the_revocation_list_grows_and_knows_whose_certificates_are_whose() {
    let dir = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::init(dir.path(), "site", DEFAULT_CA_LIFETIME, Existing::Refuse).unwrap();
    let agent = ca.issue_agent(&identity(), DEFAULT_LEAF_LIFETIME, Existing::Refuse).unwrap();
    let serial = ca.revoke(&agent.cert).unwrap();
    assert_eq!(ca.revoke(&agent.cert).unwrap(), serial);
    let renewed = ca.issue_agent(&identity(), DEFAULT_LEAF_LIFETIME, Existing::Replace).unwrap();
    assert_ne!(ca.revoke(&renewed.cert).unwrap(), serial);
    let (revoked, number) = ca.read_crl().unwrap();
    assert_eq!((revoked.len(), number), (2, 3));

    let other_dir = tempfile::tempdir().unwrap();
    let other =
        CertificateAuthority::init(other_dir.path(), "else", DEFAULT_CA_LIFETIME, Existing::Refuse).unwrap();
    assert!(matches!(other.revoke(&renewed.cert), Err(PkiError::ForeignCertificate { .. })));
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let missing = CertificateAuthority::open(dir.path()).unwrap_err().to_string();
    assert!(missing.contains("ca.pem"), "{missing}");
    fs::write(dir.path().join(CA_CERT), "not a certificate").unwrap();
    let malformed = CertificateAuthority::open(dir.path()).unwrap_err().to_string();
    assert!(malformed.contains("ca.pem") && malformed.contains("certificate"), "{malformed}");
    assert!(CertificateAuthority::init(dir.path(), "Not/Valid", DAY, Existing::Replace).is_err());
}
