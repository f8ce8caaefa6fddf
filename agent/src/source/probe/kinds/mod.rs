//! The kinds of checks: one file each, and the table of them.

pub mod amqp;
pub mod assertion;
pub mod grpc;
pub mod heartbeat;
pub mod http;
pub mod postgres;
pub mod redis;
pub mod service;

use super::run::Probe;
use std::sync::Arc;

/// What a check does, with the settings of its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A request over HTTP or HTTPS.
    Http(Box<http::Settings>),
    /// Redis.
    Redis(Box<redis::Settings>),
    /// PostgreSQL.
    Postgres(Box<postgres::Settings>),
    /// An AMQP broker.
    Amqp(Box<amqp::Settings>),
    /// A gRPC server's health.
    Grpc(Box<grpc::Settings>),
    /// A job that calls in.
    Heartbeat(heartbeat::Settings),
}

impl Kind {
    /// As the configuration and `pegel_probe_up` name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Redis(_) => "redis",
            Self::Postgres(_) => "postgres",
            Self::Amqp(_) => "amqp",
            Self::Grpc(_) => "grpc",
            Self::Heartbeat(_) => "heartbeat",
        }
    }

    /// The probe that does it, for all targets of a check. Files that settings name are read when it first runs.
    pub fn probe(&self) -> Arc<dyn Probe> {
        match self {
            Self::Http(settings) => Arc::new(http::HttpProbe::new((**settings).clone())),
            Self::Redis(settings) => Arc::new(redis::RedisProbe::new((**settings).clone())),
            Self::Postgres(settings) => Arc::new(postgres::PostgresProbe::new((**settings).clone())),
            Self::Amqp(settings) => Arc::new(amqp::AmqpProbe::new((**settings).clone())),
            Self::Grpc(settings) => Arc::new(grpc::GrpcProbe::new((**settings).clone())),
            Self::Heartbeat(settings) => Arc::new(heartbeat::HeartbeatProbe::new(*settings)),
        }
    }

    /// Says why an address is no target of this kind.
    pub fn check_address(&self, address: &str) -> Result<(), String> {
        match self {
            Self::Http(_) => http::check_address(address),
            Self::Redis(_) => redis::check_address(address),
            Self::Postgres(_) => postgres::check_address(address),
            Self::Amqp(_) => amqp::check_address(address),
            Self::Grpc(_) => grpc::check_address(address),
            Self::Heartbeat(_) => heartbeat::check_address(address),
        }
    }
}
