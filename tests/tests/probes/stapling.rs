//! What a server staples to its certificate: OCSP responses that are good, revoked, old, forged.

use crate::once::once;
use crate::servers::{Pki, Says, answer, private_key, serve_tls};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use pegel_runtime::http_client::crypto_provider;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, PublicKeyData as _, SerialNumber, SigningKey as _};
use rustls::pki_types::CertificateDer;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio_rustls::TlsAcceptor;

const SERIAL: u8 = 0x51;

/// What a response is to be.
#[derive(Clone, Copy)]
struct Response<'a> {
    serial: u8,
    /// DER of `certStatus`.
    status: &'a [u8],
    /// Days from now until there are news.
    next_update_days: i64,
    signer: &'a KeyPair,
    /// The signer's certificate, if it is not the issuer.
    certificate: Option<&'a CertificateDer<'static>>,
}

const GOOD: &[u8] = &[0x80, 0];

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let mut out = vec![tag];
    match contents.len() {
        short @ 0..=0x7f => out.push(short as u8),
        middle @ 0x80..=0xff => out.extend([0x81, middle as u8]),
        long => out.extend([0x82, (long >> 8) as u8, long as u8]),
    }
    out.extend(contents);
    out
}

fn time_in(days: i64) -> Vec<u8> {
    let at = OffsetDateTime::now_utc() + time::Duration::days(days);
    let format = format_description!("[year][month][day][hour][minute][second]Z");
    der(0x18, &[at.format(&format).expect("a time").as_bytes()])
}

/// RFC 6960, section 4.2.1, by hand.
fn response(pki: &Pki, wanted: Response<'_>) -> Vec<u8> {
    let name = der(0x30, &[&der(0x31, &[&der(0x30, &[b"\x06\x03\x55\x04\x03", &der(0x0c, &[b"Test CA"])])])]);
    assert!(pki.ca_der().windows(name.len()).any(|window| window == name), "the CA is called so");
    let sha1 = |bytes: &[u8]| der(0x04, &[digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref()]);
    let id = der(
        0x30,
        &[
            &der(0x30, &[b"\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00"]),
            &sha1(&name),
            &sha1(pki.ca_key().der_bytes()),
            &[0x02, 1, wanted.serial],
        ],
    );
    let next = der(0xa0, &[&time_in(wanted.next_update_days)]);
    let single = der(0x30, &[&id, wanted.status, &time_in(-3), &next]);
    let by = der(0xa1, &[&name]);
    let data = der(0x30, &[&by, &time_in(-3), &der(0x30, &[&single])]);
    let ecdsa_with_sha256 = der(0x30, &[b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"]);
    let signature = wanted.signer.sign(&data).expect("a signature");
    let certificates =
        wanted.certificate.map(|c| der(0xa0, &[&der(0x30, &[c.as_ref()])])).unwrap_or_default();
    let basic = der(0x30, &[&data, &ecdsa_with_sha256, &der(0x03, &[&[0], &signature]), &certificates]);
    let bytes = der(0x30, &[b"\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x01", &der(0x04, &[&basic])]);
    der(0x30, &[&[0x0a, 1, 0], &der(0xa0, &[&bytes])])
}

/// A server that staples this.
async fn server(
    pki: &Pki,
    versions: &[&'static rustls::SupportedProtocolVersion],
    ocsp: Vec<u8>,
) -> SocketAddr {
    let (leaf, key) = pki.issue("server", &["127.0.0.1"], -1, 90, |params| {
        params.serial_number = Some(SerialNumber::from(vec![SERIAL]));
    });
    let chain = vec![leaf.der().clone(), pki.ca_der().clone()];
    let config = rustls::ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(versions)
        .and_then(|b| b.with_no_client_auth().with_single_cert_with_ocsp(chain, private_key(&key), ocsp))
        .expect("a configuration");
    let says = Says::Bytes(answer("200 OK", &[], b"hi"));
    serve_tls(says, TlsAcceptor::from(Arc::new(config))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stapled_is_looked_at() {
    let pki = Pki::new();
    let stranger = KeyPair::generate().expect("a key");
    let (responder, responder_key) = pki.issue("responder", &[], -1, 90, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    });
    let (other, other_key) = pki.issue("other", &[], -1, 90, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let (late, late_key) = pki.issue("late", &[], -30, -1, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    });
    let good = Response {
        serial: SERIAL,
        status: GOOD,
        next_update_days: 4,
        signer: pki.ca_key(),
        certificate: None,
    };
    let by = |key, certificate| Response { signer: key, certificate: Some(certificate), ..good };
    let revoked = der(0xa1, &[&time_in(-10), &[0xa0, 3, 0x0a, 1, 1]]);
    let revoked = Response { status: &revoked, ..good };
    let both = rustls::ALL_VERSIONS;
    let make = |wanted: Response<'_>| response(&pki, wanted);
    let responses = [
        ("none", both, vec![], "none"),
        ("good", both, make(good), "good"),
        ("good_tls12", &[&rustls::version::TLS12], make(good), "good"),
        ("delegated", both, make(by(&responder_key, responder.der())), "good"),
        ("expired", both, make(Response { next_update_days: -1, ..good }), "expired"),
        ("unknown", both, make(Response { status: &[0x82, 0], ..good }), "unknown"),
        ("about_another", both, make(Response { serial: 0x52, ..good }), "invalid"),
        ("forged", both, make(Response { signer: &stranger, ..good }), "invalid"),
        ("not_delegated", both, make(by(&other_key, other.der())), "invalid"),
        ("delegated_once", both, make(by(&late_key, late.der())), "invalid"),
        ("garbage", both, b"no DER".to_vec(), "invalid"),
        ("revoked", both, make(revoked), "revoked"),
        ("revoked_tls12", &[&rustls::version::TLS12], make(revoked), "revoked"),
        ("revoked_forged", both, make(Response { signer: &stranger, ..revoked }), "invalid"),
        ("revoked_expired", both, make(Response { next_update_days: -1, ..revoked }), "revoked"),
    ];
    let ca = pki.ca_file();
    let mut checks = String::new();
    for (name, versions, ocsp, _) in &responses {
        let at = server(&pki, versions, ocsp.clone()).await;
        let ca = format!("ca_file: {}", ca.display());
        for (how, options) in [
            ("", ca.clone()),
            ("_required", format!("{ca}, require_stapled: true")),
            ("_any", "insecure_skip_verify: true".to_owned()),
        ] {
            let _ = write!(
                checks,
                "{{name: {name}{how}, kind: http, targets: ['https://{at}/'], http: {{tls_config: {{{options}}}}}}}, "
            );
        }
    }
    let (seen, _) = once(pki.dir(), &format!("{{checks: [{checks}]}}"));
    let metric = |status: &str| format!("pegel_probe_ocsp_status{{status=\"{status}\"}}");
    for (name, _, _, status) in &responses {
        let plain = &seen[*name];
        let refused = if *status == "revoked" { ("tls", "certificate_revoked") } else { ("", "") };
        assert_eq!(plain.failure(), refused, "{name}: {plain:?}");
        let shown = (*status != "none").then_some(1.0);
        assert_eq!(plain.value(&metric(status)), shown, "{name}: {plain:?}");
        // Where it is required, all but the good ones fail.
        let required = &seen[&format!("{name}_required")];
        let refused = match *status {
            "good" => ("", ""),
            "revoked" => ("tls", "certificate_revoked"),
            _ => ("tls", "revocation_unknown"),
        };
        assert_eq!(required.failure(), refused, "{name}: {required:?}");
        assert_eq!(required.value(&metric(status)), Some(1.0), "{name}: {required:?}");
        // Where any certificate does, it is shown and nothing more.
        let any = &seen[&format!("{name}_any")];
        assert!(any.success() && any.value(&metric(status)) == shown, "{name}: {any:?}");
        for one in [plain, required] {
            assert!(one.value("probe_ssl_earliest_cert_expiry").is_some(), "{name}: {one:?}");
        }
    }
    let now = OffsetDateTime::now_utc().unix_timestamp() as f64;
    let until = seen["good"].value("pegel_probe_ocsp_next_update_timestamp_seconds").expect("a time");
    assert!((until - now - 4.0 * 86_400.0).abs() < 600.0, "{until}");
    let at = seen["revoked"].value("pegel_probe_ocsp_revoked_timestamp_seconds").expect("a time");
    assert!((at - now + 10.0 * 86_400.0).abs() < 600.0, "{at}");
}
