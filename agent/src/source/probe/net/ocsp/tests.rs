//! Responses that OpenSSL made (`testdata/make`), as they are and damaged.

use super::*;
use crate::source::probe::net::tls::provider;

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("testdata/", $name)).as_slice()
    };
}

fn der(bytes: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from(bytes.to_vec())
}

fn made_at() -> i64 {
    include_str!("testdata/made-at").trim().parse().unwrap()
}

/// With the issuer among those that are trusted, as most servers leave it out.
fn look(response: &[u8], leaf: &[u8], after: i64) -> Stapled {
    let roots = Roots::of(vec![der(file!("ca.crt"))]);
    let algorithms = &provider().signature_verification_algorithms;
    examine(response, &der(leaf), &[], &roots, algorithms, made_at() + after)
}

#[test]
fn a_response_says_what_the_issuer_says() {
    let (leaf, day) = (file!("leaf.crt"), 86_400);
    for (response, leaf, after, status) in [
        (file!("good.der"), leaf, 0, Status::Good),
        (file!("good.der"), leaf, 6 * day, Status::Good),
        (file!("sha256.der"), leaf, 0, Status::Good),
        (file!("delegated.der"), leaf, 0, Status::Good),
        (file!("good.der"), leaf, 8 * day, Status::Expired),
        (file!("good.der"), leaf, -day, Status::Invalid),
        (file!("good.der"), file!("gone.crt"), 0, Status::Invalid),
        (file!("revoked.der"), file!("gone.crt"), 0, Status::Revoked),
        // What was revoked stays so.
        (file!("revoked.der"), file!("gone.crt"), 8 * day, Status::Revoked),
        (file!("unknown.der"), file!("stranger.crt"), 0, Status::Unknown),
        (file!("undelegated.der"), leaf, 0, Status::Invalid),
        // By another authority of the same name.
        (file!("forged.der"), leaf, 0, Status::Invalid),
        (&[0x30, 3, 0x0a, 1, 3], leaf, 0, Status::Invalid),
        (b"garbage", leaf, 0, Status::Invalid),
    ] {
        let stapled = look(response, leaf, after);
        assert_eq!(stapled.status, status, "{stapled:?}");
    }
    let revoked = look(file!("revoked.der"), file!("gone.crt"), 0);
    // 2026-11-01 12:00.
    assert_eq!(revoked.revoked_at, Some(1_793_534_400));
    assert!(revoked.words.contains("2026-11-01T12:00:00Z (keyCompromise)"), "{}", revoked.words);
    let (since, until) = look(file!("good.der"), leaf, 0).updates.unwrap();
    assert_eq!(until, Some(since + 7 * day));
    assert!(look(&[0x30, 3, 0x0a, 1, 3], leaf, 0).words.ends_with("tryLater"));
}

#[test]
fn the_issuer_may_be_among_the_certificates_shown() {
    let algorithms = &provider().signature_verification_algorithms;
    let none = Roots::of(Vec::new());
    let mut shown = vec![der(b"no certificate")];
    let look = |shown: &[CertificateDer<'_>]| {
        examine(file!("good.der"), &der(file!("leaf.crt")), shown, &none, algorithms, made_at()).status
    };
    assert_eq!(look(&shown), Status::Invalid);
    shown.push(der(file!("ca.crt")));
    assert_eq!(look(&shown), Status::Good);
}

#[test]
fn damage_never_makes_it_good() {
    let response = file!("revoked.der");
    let leaf = file!("gone.crt");
    for end in 0..response.len() {
        assert_ne!(look(&response[..end], leaf, 0).status, Status::Good, "{end}");
    }
    let mut damaged = response.to_vec();
    let mut still = 0;
    for at in 0..response.len() {
        for bit in [0, 5, 7] {
            damaged[at] ^= 1 << bit;
            let status = look(&damaged, leaf, 0).status;
            assert!(matches!(status, Status::Revoked | Status::Invalid), "byte {at}, bit {bit}: {status:?}");
            still += usize::from(status == Status::Revoked);
            damaged[at] = response[at];
        }
    }
    // Behind the signature are certificates that are not needed: nobody signed those.
    assert!(still > 0 && still < response.len() * 3 * 3 / 4, "{still} of {}", response.len() * 3);
}
