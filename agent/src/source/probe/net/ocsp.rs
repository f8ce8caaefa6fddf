//! What a stapled OCSP response (RFC 6960) says of a certificate: the issuer's own word, brought by the server, on
//! whether the certificate is still good.
//!
//! A response counts only if it is about this very certificate, and the issuer signed it, or somebody did whom the
//! issuer certified to sign such responses. Nobody is asked: a server that staples nothing is not looked up.

mod der;
#[cfg(test)]
mod tests;

use super::roots::{Roots, Validity};
use aws_lc_rs::digest;
use der::{Malformed, Reader, SEQUENCE};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::CertificateDer;
use std::borrow::Cow;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// By how much the issuer's clock may be ahead of ours, in seconds.
const CLOCK_SKEW_SECONDS: i64 = 300;

/// How many certificates of a response are looked at: a delegated responder sends its own and perhaps its issuer's.
const MAX_RESPONDERS: usize = 4;

/// id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

/// What a stapled response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The certificate is good.
    Good,
    /// The issuer took it back.
    Revoked,
    /// The responder does not know the certificate.
    Unknown,
    /// The response was true once, and its time is over.
    Expired,
    /// The response says nothing: it is damaged, about another certificate, or not signed by the issuer.
    Invalid,
}

impl Status {
    /// The label value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
        }
    }
}

/// A stapled response that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stapled {
    /// What it says.
    pub status: Status,
    /// Since when that is known to be so, and when there will be news, in seconds since the Unix epoch.
    pub updates: Option<(i64, Option<i64>)>,
    /// Since when the certificate is revoked.
    pub revoked_at: Option<i64>,
    /// The same for people.
    pub words: String,
}

impl Stapled {
    fn invalid(words: impl Into<String>) -> Self {
        Self { status: Status::Invalid, updates: None, revoked_at: None, words: words.into() }
    }
}

/// Who issued a certificate: DER of its name and of its public key's `SubjectPublicKeyInfo`.
struct Issuer<'a> {
    name: Cow<'a, [u8]>,
    key: Cow<'a, [u8]>,
}

/// Looks at a response for a server's certificate, at an instant in seconds since the Unix epoch. The issuer is
/// looked for among the other certificates that were shown and the trusted ones.
pub fn examine(
    response: &[u8],
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    roots: &Roots,
    algorithms: &WebPkiSupportedAlgorithms,
    now: i64,
) -> Stapled {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
        return Stapled::invalid("the certificate cannot be read");
    };
    let parsed: Vec<X509Certificate<'_>> =
        others.iter().filter_map(|der| X509Certificate::from_der(der).ok().map(|(_, c)| c)).collect();
    let issuers = issuers(&leaf, &parsed, roots);
    let basic = match basic(response) {
        Ok(basic) => basic,
        Err(words) => return Stapled::invalid(words),
    };
    let about = basic.responses(&leaf);
    let Some((issuer, about)) =
        issuers.iter().find_map(|issuer| Some((issuer, about.iter().find(|a| a.issued_by(issuer))?)))
    else {
        return Stapled::invalid("the response is not about this certificate");
    };
    if !basic.signed_by(issuer, algorithms, now) {
        return Stapled::invalid("the response is not signed by the certificate's issuer");
    }
    about.stapled(now)
}

/// Those who may have issued a certificate: their names are the one that it says.
fn issuers<'a>(
    leaf: &'a X509Certificate<'_>,
    others: &'a [X509Certificate<'_>],
    roots: &Roots,
) -> Vec<Issuer<'a>> {
    let name = leaf.issuer().as_raw();
    let shown = others.iter().chain([leaf]).filter(|other| other.subject().as_raw() == name);
    let shown = shown.map(|c| Issuer { name: c.subject().as_raw().into(), key: c.public_key().raw.into() });
    // webpki keeps the contents of both sequences.
    let trusted = roots.store.roots.iter().filter_map(|anchor| {
        let subject = wrapped(anchor.subject.as_ref());
        let key = wrapped(anchor.subject_public_key_info.as_ref());
        (subject == name).then(|| Issuer { name: subject.into(), key: key.into() })
    });
    shown.chain(trusted).collect()
}

/// A SEQUENCE of these contents.
fn wrapped(contents: &[u8]) -> Vec<u8> {
    let mut out = vec![SEQUENCE];
    super::certificate::der_length(contents.len(), &mut out);
    out.extend_from_slice(contents);
    out
}

/// The signed part of a response, with its signature.
struct Basic<'a> {
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    /// Certificates of responders.
    certificates: Reader<'a>,
    answers: Reader<'a>,
}

/// Takes a response apart as far as every successful one goes (RFC 6960, section 4.2.1).
fn basic(response: &[u8]) -> Result<Basic<'_>, String> {
    let told = |e: Malformed| e.to_string();
    let mut outer = Reader::new(response).inside(SEQUENCE, "OCSPResponse").map_err(told)?;
    match outer.contents(der::ENUMERATED, "responseStatus").map_err(told)? {
        [0] => {}
        other => {
            let status = match other {
                [1] => "malformedRequest",
                [2] => "internalError",
                [3] => "tryLater",
                [5] => "sigRequired",
                [6] => "unauthorized",
                _ => "a status that is not known",
            };
            return Err(format!("the responder had no answer for the server: {status}"));
        }
    }
    let mut basic = || -> Result<Basic<'_>, Malformed> {
        let mut bytes =
            outer.inside(der::constructed(0), "responseBytes")?.inside(SEQUENCE, "ResponseBytes")?;
        if bytes.contents(der::OID, "responseType")? != BASIC {
            return Err(Malformed("a basic response"));
        }
        let basic = bytes.contents(der::OCTET_STRING, "response")?;
        let mut basic = Reader::new(basic).inside(SEQUENCE, "BasicOCSPResponse")?;
        let data = basic.value(SEQUENCE, "tbsResponseData")?;
        let algorithm = basic.contents(SEQUENCE, "signatureAlgorithm")?;
        let signature = der::bits(&mut basic, "signature")?;
        let certificates = match basic.optional(der::constructed(0)) {
            Some(list) => Reader::new(list.contents).inside(SEQUENCE, "certs")?,
            None => Reader::new(&[]),
        };
        let mut inside = Reader::new(data.contents);
        inside.optional(der::constructed(0));
        // The responder's name or key: who signed is found out by the signature.
        let by = inside.any().filter(|by| by.tag == der::constructed(1) || by.tag == der::constructed(2));
        by.ok_or(Malformed("responderID"))?;
        der::time(&mut inside, "producedAt")?;
        let answers = inside.inside(SEQUENCE, "responses")?;
        Ok(Basic { signed: data.whole, algorithm, signature, certificates, answers })
    };
    basic().map_err(told)
}

impl<'a> Basic<'a> {
    /// The answers about certificates with the number of this one.
    fn responses(&self, leaf: &X509Certificate<'_>) -> Vec<Answer<'a>> {
        let mut answers = self.answers;
        let mut found = Vec::new();
        while let Some(Ok(answer)) = answers.optional(SEQUENCE).map(|a| Answer::read(a.contents)) {
            if answer.serial == leaf.raw_serial() {
                found.push(answer);
            }
        }
        found
    }

    /// Whether the issuer signed it, or somebody whom the issuer certified to sign such responses.
    fn signed_by(&self, issuer: &Issuer<'_>, algorithms: &WebPkiSupportedAlgorithms, now: i64) -> bool {
        let good = |key: &[u8]| verify(key, self.algorithm, self.signed, self.signature, algorithms);
        if good(&issuer.key) {
            return true;
        }
        let mut certificates = self.certificates;
        let each = std::iter::from_fn(|| certificates.optional(SEQUENCE)).take(MAX_RESPONDERS);
        for der in each {
            let Ok((_, certificate)) = X509Certificate::from_der(der.whole) else { continue };
            let signs = certificate.extended_key_usage().ok().flatten().is_some_and(|u| u.value.ocsp_signing);
            if signs
                && Validity::of(&certificate).holds(now)
                && certificate.issuer().as_raw() == &*issuer.name
                && certified(der.contents, &issuer.key, algorithms)
                && good(certificate.public_key().raw)
            {
                return true;
            }
        }
        false
    }
}

/// Whether a certificate (the contents of its SEQUENCE) is signed with a key.
fn certified(certificate: &[u8], key: &[u8], algorithms: &WebPkiSupportedAlgorithms) -> bool {
    let mut inside = Reader::new(certificate);
    let mut read = || {
        let signed = inside.value(SEQUENCE, "tbsCertificate")?.whole;
        let algorithm = inside.contents(SEQUENCE, "signatureAlgorithm")?;
        Ok::<_, Malformed>((signed, algorithm, der::bits(&mut inside, "signature")?))
    };
    read().is_ok_and(|(signed, algorithm, signature)| verify(key, algorithm, signed, signature, algorithms))
}

/// Verifies a signature with a key (`SubjectPublicKeyInfo`) by the one of the algorithms that both name. Signatures by
/// SHA-1 are none.
fn verify(
    key: &[u8],
    algorithm: &[u8],
    signed: &[u8],
    signature: &[u8],
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let Ok(mut inside) = Reader::new(key).inside(SEQUENCE, "SubjectPublicKeyInfo") else { return false };
    let (Ok(of_key), Ok(bits)) =
        (inside.contents(SEQUENCE, "algorithm"), der::bits(&mut inside, "subjectPublicKey"))
    else {
        return false;
    };
    algorithms
        .all
        .iter()
        .filter(|a| a.public_key_alg_id().as_ref() == of_key && a.signature_alg_id().as_ref() == algorithm)
        .any(|a| a.verify_signature(bits, signed, signature).is_ok())
}

/// One answer of a response.
struct Answer<'a> {
    hash: &'a [u8],
    name_hash: &'a [u8],
    key_hash: &'a [u8],
    serial: &'a [u8],
    status: Status,
    revoked_at: Option<i64>,
    reason: Option<u8>,
    this_update: i64,
    next_update: Option<i64>,
}

impl<'a> Answer<'a> {
    fn read(contents: &'a [u8]) -> Result<Self, Malformed> {
        let mut inside = Reader::new(contents);
        let mut id = inside.inside(SEQUENCE, "certID")?;
        let hash = id.inside(SEQUENCE, "hashAlgorithm")?.contents(der::OID, "hashAlgorithm")?;
        let name_hash = id.contents(der::OCTET_STRING, "issuerNameHash")?;
        let key_hash = id.contents(der::OCTET_STRING, "issuerKeyHash")?;
        let serial = id.contents(der::INTEGER, "serialNumber")?;
        let status = inside.any().ok_or(Malformed("certStatus"))?;
        let (mut revoked_at, mut reason) = (None, None);
        let status = match status.tag {
            tag if tag == der::primitive(0) => Status::Good,
            tag if tag == der::primitive(2) => Status::Unknown,
            tag if tag == der::constructed(1) => {
                let mut info = Reader::new(status.contents);
                revoked_at = Some(der::time(&mut info, "revocationTime")?);
                if let Some(explicit) = info.optional(der::constructed(0)) {
                    let code =
                        Reader::new(explicit.contents).contents(der::ENUMERATED, "revocationReason")?;
                    reason = code.first().copied();
                }
                Status::Revoked
            }
            _ => return Err(Malformed("certStatus")),
        };
        let this_update = der::time(&mut inside, "thisUpdate")?;
        let next_update = match inside.optional(der::constructed(0)) {
            Some(explicit) => Some(der::time(&mut Reader::new(explicit.contents), "nextUpdate")?),
            None => None,
        };
        Ok(Self { hash, name_hash, key_hash, serial, status, revoked_at, reason, this_update, next_update })
    }

    /// Whether it is about a certificate of this issuer's.
    fn issued_by(&self, issuer: &Issuer<'_>) -> bool {
        let algorithm = match self.hash {
            // 1.3.14.3.2.26, which nearly all responders use: here it is a name for something, and no proof of it.
            [0x2b, 0x0e, 3, 2, 0x1a] => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            // 2.16.840.1.101.3.4.2.1 to 3.
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1] => &digest::SHA256,
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2] => &digest::SHA384,
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3] => &digest::SHA512,
            _ => return false,
        };
        let Ok(mut inside) = Reader::new(&issuer.key).inside(SEQUENCE, "SubjectPublicKeyInfo") else {
            return false;
        };
        inside.optional(SEQUENCE);
        let Ok(bits) = der::bits(&mut inside, "subjectPublicKey") else { return false };
        digest::digest(algorithm, &issuer.name).as_ref() == self.name_hash
            && digest::digest(algorithm, bits).as_ref() == self.key_hash
    }

    /// What it says at an instant. What was revoked stays so, however old the news.
    fn stapled(&self, now: i64) -> Stapled {
        let when =
            |at: i64| jiff::Timestamp::from_second(at).map_or_else(|_| at.to_string(), |t| t.to_string());
        let (status, words) = match (self.status, self.next_update) {
            _ if self.this_update > now + CLOCK_SKEW_SECONDS => {
                (Status::Invalid, format!("the response is from the future, {}", when(self.this_update)))
            }
            (Status::Revoked, _) => {
                let at = self.revoked_at.map(when).unwrap_or_default();
                (Status::Revoked, format!("its issuer revoked it at {at} ({})", reason_name(self.reason)))
            }
            (_, Some(next)) if next < now => {
                (Status::Expired, format!("the response was to be renewed by {}", when(next)))
            }
            (Status::Unknown, _) => {
                (Status::Unknown, "the responder does not know the certificate".to_owned())
            }
            (status, _) => (status, "the certificate is good".to_owned()),
        };
        let updates = Some((self.this_update, self.next_update));
        Stapled { status, updates, revoked_at: self.revoked_at, words }
    }
}

/// RFC 5280, section 5.3.1.
fn reason_name(code: Option<u8>) -> &'static str {
    match code {
        Some(1) => "keyCompromise",
        Some(2) => "cACompromise",
        Some(3) => "affiliationChanged",
        Some(4) => "superseded",
        Some(5) => "cessationOfOperation",
        Some(6) => "certificateHold",
        Some(8) => "removeFromCRL",
        Some(9) => "privilegeWithdrawn",
        Some(10) => "aACompromise",
        _ => "no reason given",
    }
}
