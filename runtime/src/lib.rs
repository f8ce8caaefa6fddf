//! What both processes share: configuration loading, telemetry, admin HTTP, TLS and PKI.

pub mod http_client;
pub mod metrics;
pub mod pki;
pub mod quic;
pub mod tls;
