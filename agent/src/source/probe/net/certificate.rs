//! What a server's certificate says, as blackbox_exporter writes it: Go's `crypto/x509` is where the forms of names
//! and numbers come from.

use super::ocsp::Stapled;
use super::roots::{Roots, Validity};
use crate::source::probe::record::{Gauge, Record};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error, ProtocolVersion, SupportedCipherSuite};
use std::fmt::Write as _;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use x509_parser::x509::X509Name;

static EARLIEST: Gauge = Gauge::new(
    "probe_ssl_earliest_cert_expiry",
    "When the first of the certificates that the server showed expires, in seconds since the Unix epoch.",
    &[],
);
static LAST_CHAIN: Gauge = Gauge::new(
    "probe_ssl_last_chain_expiry_timestamp_seconds",
    "When the last of the certificate's chains to a trusted issuer expires, in seconds since the Unix epoch.",
    &[],
);
static INFO: Gauge = Gauge::new(
    "probe_ssl_last_chain_info",
    "The server's own certificate, always 1.",
    &["fingerprint_sha256", "issuer", "serialnumber", "subject", "subjectalternative"],
);
static VERSION: Gauge = Gauge::new("probe_tls_version_info", "The version of TLS, always 1.", &["version"]);
static CIPHER: Gauge = Gauge::new("probe_tls_cipher_info", "The cipher suite of TLS, always 1.", &["cipher"]);
static VERIFIED: Gauge = Gauge::new(
    "pegel_probe_certificate_accepted",
    "Whether the server's certificate is accepted: issuer, time and name, unless that is not to be verified.",
    &[],
);

static OCSP: Gauge = Gauge::new(
    "pegel_probe_ocsp_status",
    "What the OCSP response says that the server staples to its certificate, always 1: good, revoked, unknown, expired, \
     invalid; none where one is required and none came.",
    &["status"],
);
static OCSP_SINCE: Gauge = Gauge::new(
    "pegel_probe_ocsp_this_update_timestamp_seconds",
    "Since when the stapled OCSP response is known to be right, in seconds since the Unix epoch.",
    &[],
);
static OCSP_UNTIL: Gauge = Gauge::new(
    "pegel_probe_ocsp_next_update_timestamp_seconds",
    "Until when the stapled OCSP response is to be renewed, in seconds since the Unix epoch.",
    &[],
);
static REVOKED_AT: Gauge = Gauge::new(
    "pegel_probe_ocsp_revoked_timestamp_seconds",
    "When the certificate's issuer revoked it, in seconds since the Unix epoch.",
    &[],
);

/// What was agreed on in a handshake; the suite is not known of QUIC connections.
pub(super) type Negotiated = (ProtocolVersion, Option<SupportedCipherSuite>);

/// What Go writes for the chain of a certificate that was not verified: its zero time, 1 January of year 1.
const GO_ZERO_TIME: f64 = -62_135_596_800.0;

/// What a server showed in a handshake.
#[derive(Debug)]
pub(super) struct Shown {
    /// Its certificates, its own first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// When, in seconds since the Unix epoch.
    pub(super) now: i64,
    /// Whether its certificate was verified.
    pub(super) verified: bool,
    /// Why the handshake ended, if that is the certificate.
    pub(super) refused: Option<Error>,
    /// What its issuer says of it, if the server brings that.
    pub(super) stapled: Option<Stapled>,
}

/// Reports a certificate and, if there is one, the connection.
pub(super) fn report(
    record: &mut Record,
    shown: &Shown,
    negotiated: Option<Negotiated>,
    roots: &Roots,
    require_stapled: bool,
) {
    let parsed: Vec<X509Certificate<'_>> =
        shown.chain.iter().filter_map(|der| X509Certificate::from_der(der).ok().map(|(_, c)| c)).collect();
    record.set(&VERIFIED, f64::from(u8::from(shown.refused.is_none())));
    if let Some(earliest) = parsed.iter().map(|c| Validity::of(c).not_after).min() {
        record.set(&EARLIEST, earliest as f64);
    }
    if let (Some(leaf), Some(der)) = (parsed.first(), shown.chain.first()) {
        if shown.verified {
            let listed = roots.lists(der).then(|| Validity::of(leaf).not_after);
            let expiry = chain_expiry(leaf, &parsed[1..], roots, shown.now, 0).max(listed);
            // The verdict came from elsewhere: where no chain is found by names, the shortest-lived is shown.
            let expiry = expiry.or_else(|| parsed.iter().map(|c| Validity::of(c).not_after).min());
            record.set(&LAST_CHAIN, expiry.unwrap_or_default() as f64);
        } else if shown.refused.is_none() {
            record.set(&LAST_CHAIN, GO_ZERO_TIME);
        }
        let labels = [
            fingerprint(der).into(),
            name_text(leaf.issuer()).into(),
            serial_text(leaf).into(),
            name_text(leaf.subject()).into(),
            dns_names(leaf).into(),
        ];
        record.set_labels(&INFO, labels, 1.0);
    }
    report_stapled(record, shown.stapled.as_ref(), require_stapled);
    if let Some((version, suite)) = negotiated {
        let version = match version {
            ProtocolVersion::TLSv1_2 => "TLS 1.2",
            ProtocolVersion::TLSv1_3 => "TLS 1.3",
            _ => "unknown",
        };
        record.set_label(&VERSION, version, 1.0);
        if let Some(suite) = suite {
            // rustls names suites of TLS 1.3 with a 13 that IANA's names do not have.
            let name = format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1);
            record.set_labels(&CIPHER, [name.into()], 1.0);
        }
    }
}

fn report_stapled(record: &mut Record, stapled: Option<&Stapled>, required: bool) {
    let Some(stapled) = stapled else {
        if required {
            record.set_label(&OCSP, "none", 1.0);
        }
        return;
    };
    record.set_label(&OCSP, stapled.status.name(), 1.0);
    if let Some((since, until)) = stapled.updates {
        record.set(&OCSP_SINCE, since as f64);
        if let Some(until) = until {
            record.set(&OCSP_UNTIL, until as f64);
        }
    }
    if let Some(at) = stapled.revoked_at {
        record.set(&REVOKED_AT, at as f64);
    }
}

/// What a run reported as the first expiry of the certificates, in seconds since the Unix epoch.
pub fn earliest_expiry(record: &Record) -> Option<f64> {
    record.value(&EARLIEST)
}

/// The longest chain that is followed.
const MAX_CHAIN: usize = 8;

/// When the last of the valid chains from a certificate to a trusted issuer ends; a chain ends with the first of its
/// certificates. Issuers are found by their names, as the signatures were checked before.
fn chain_expiry(
    certificate: &X509Certificate<'_>,
    others: &[X509Certificate<'_>],
    roots: &Roots,
    now: i64,
    depth: usize,
) -> Option<i64> {
    let own = Validity::of(certificate);
    if !own.holds(now) || depth > MAX_CHAIN {
        return None;
    }
    let issuer = certificate.issuer().as_raw();
    let trusted = roots.validities(issuer).iter().filter(|root| root.holds(now)).map(|root| root.not_after);
    let between = others
        .iter()
        .filter(|other| other.subject().as_raw() == issuer && other.subject() != certificate.subject())
        .filter_map(|other| chain_expiry(other, others, roots, now, depth + 1));
    trusted.chain(between).max().map(|expiry| expiry.min(own.not_after))
}

/// Whether a certificate's time has come and is not over.
pub(super) fn check_time(der: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let bad = |error| Err(Error::InvalidCertificate(error));
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return bad(CertificateError::BadEncoding);
    };
    let validity = Validity::of(&certificate);
    match now.as_secs() as i64 {
        now if now < validity.not_before => bad(CertificateError::NotValidYet),
        now if now > validity.not_after => bad(CertificateError::Expired),
        _ => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn fingerprint(der: &[u8]) -> String {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let hash = suite.tls13().map(|suite| suite.common.hash_provider.hash(der));
    hash.map(|hash| hex(hash.as_ref())).unwrap_or_default()
}

/// The serial number without leading zero bytes, in hexadecimal.
fn serial_text(certificate: &X509Certificate<'_>) -> String {
    let bytes = certificate.raw_serial();
    let begin = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    hex(&bytes[begin..])
}

fn dns_names(certificate: &X509Certificate<'_>) -> String {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return String::new() };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    names.collect::<Vec<_>>().join(",")
}

/// The attribute types that Go names, in the order in which it writes them, with the last part of their object
/// identifier under 2.5.4 (X.520).
const NAMED: [(u8, &str); 9] = [
    (5, "SERIALNUMBER"),
    (3, "CN"),
    (17, "POSTALCODE"),
    (9, "STREET"),
    (8, "ST"),
    (7, "L"),
    (11, "OU"),
    (10, "O"),
    (6, "C"),
];

/// A distinguished name as Go's `pkix.Name.String` writes it: RFC 2253 in form, attributes in an order of its own,
/// others than the well-known ones last, as hexadecimal DER.
fn name_text(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (arc, key) in NAMED {
        let values: Vec<String> = name
            .iter_attributes()
            .filter(|a| *a.attr_type().as_bytes() == [0x55, 0x04, arc])
            .map(|a| format!("{key}={}", escaped(&String::from_utf8_lossy(a.attr_value().data))))
            .collect();
        // The common name and the serial number are single values in Go: the last one stays.
        let values = if matches!(arc, 3 | 5) { values.last().cloned() } else { Some(values.join("+")) };
        parts.extend(values.filter(|text| !text.is_empty()));
    }
    let others = name.iter_attributes().filter(|a| {
        let oid = a.attr_type().as_bytes();
        !NAMED.iter().any(|(arc, _)| *oid == [0x55, 0x04, *arc])
    });
    let others: Vec<String> = others
        .map(|a| {
            let value = a.attr_value();
            let mut der = vec![value.header.tag().0 as u8];
            der_length(value.data.len(), &mut der);
            der.extend_from_slice(value.data);
            format!("{}=#{}", a.attr_type(), hex(&der))
        })
        .collect();
    parts.extend(others.into_iter().rev());
    parts.join(",")
}

pub(super) fn der_length(length: usize, out: &mut Vec<u8>) {
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let begin = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
        out.push(0x80 | (bytes.len() - begin) as u8);
        out.extend_from_slice(&bytes[begin..]);
    }
}

/// A value as RFC 2253, section 2.4, escapes it.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (i, c) in value.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (c == ' ' && (i == 0 || i == last))
            || (c == '#' && i == 0);
        if special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
