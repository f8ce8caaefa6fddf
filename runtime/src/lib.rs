//! What both processes share: configuration loading, telemetry, admin HTTP, TLS and PKI.

#![forbid(unsafe_code)]

pub mod admin;
pub mod config;
pub mod exit;
pub mod generate;
pub mod http_client;
pub mod metrics;
pub mod pki;
pub mod quic;
pub mod telemetry;
pub mod tls;
