//! The kinds of checks: one file each, and the table of them.

pub mod amqp;
pub mod assertion;
pub mod command;
pub mod dns;
pub mod grpc;
pub mod heartbeat;
pub mod http;
pub mod icmp;
pub mod postgres;
pub mod redis;
pub mod service;
pub mod tcp;
pub mod tls;

use super::run::Probe;
use std::sync::Arc;

/// What a check does, with the settings of its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A program of this machine.
    Command(Box<command::Settings>),
    /// A question to a name server.
    Dns(Box<dns::Settings>),
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
    /// An echo request.
    Icmp(icmp::Settings),
    /// A TCP connection and what is said over it.
    Tcp(Box<tcp::Settings>),
    /// A certificate.
    Tls(Box<tls::Settings>),
}

impl Kind {
    /// As the configuration and `pegel_probe_up` name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Dns(_) => "dns",
            Self::Http(_) => "http",
            Self::Redis(_) => "redis",
            Self::Postgres(_) => "postgres",
            Self::Amqp(_) => "amqp",
            Self::Grpc(_) => "grpc",
            Self::Heartbeat(_) => "heartbeat",
            Self::Icmp(_) => "icmp",
            Self::Tcp(_) => "tcp",
            Self::Tls(_) => "tls",
        }
    }

    /// The probe that does it, for all targets of a check. Files that settings name are read when it first runs.
    pub fn probe(&self) -> Arc<dyn Probe> {
        match self {
            Self::Command(settings) => Arc::new(command::CommandProbe::new((**settings).clone())),
            Self::Dns(settings) => Arc::new(dns::DnsProbe::new((**settings).clone())),
            Self::Icmp(settings) => Arc::new(icmp::IcmpProbe::new(settings.clone())),
            Self::Tcp(settings) => Arc::new(tcp::TcpProbe::new((**settings).clone())),
            Self::Tls(settings) => Arc::new(tls::TlsProbe::new((**settings).clone())),
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
            Self::Command(_) => command::check_address(address),
            Self::Dns(_) => dns::check_address(address),
            Self::Http(_) => http::check_address(address),
            Self::Redis(_) => redis::check_address(address),
            Self::Postgres(_) => postgres::check_address(address),
            Self::Amqp(_) => amqp::check_address(address),
            Self::Grpc(_) => grpc::check_address(address),
            Self::Heartbeat(_) => heartbeat::check_address(address),
            Self::Icmp(_) => icmp::check_address(address),
            Self::Tcp(_) => tcp::check_address(address),
            Self::Tls(_) => tls::check_address(address),
        }
    }
}
