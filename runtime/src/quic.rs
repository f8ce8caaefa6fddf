//! What both sides of the QUIC connection share.

use aws_lc_rs::hmac;
use quinn::crypto::HmacKey;
use quinn::{ConnectionId, ConnectionIdGenerator};
use rand::RngCore as _;
use std::sync::Arc;
use std::time::Duration;

/// The key that an endpoint's stateless resets (RFC 9000 section 10.3) are made with.
pub fn reset_key(key: &[u8; 32]) -> Arc<dyn HmacKey> {
    Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key))
}

/// Random connection ids of `BYTES` bytes. Every packet carries the receiver's id; quinn's default of eight is made for
/// endpoints with millions of connections. Ids that are taken are drawn again.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShortIds<const BYTES: usize>;

impl<const BYTES: usize> ConnectionIdGenerator for ShortIds<BYTES> {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; BYTES];
        rand::rng().fill_bytes(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
