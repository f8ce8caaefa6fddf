//! Checks of databases, queues, RPC servers and jobs.

use super::{RawIpProtocol, RawProbeTls};
use crate::source::probe::kinds::service::{Login, Service};
use crate::source::probe::kinds::{amqp, grpc, heartbeat, postgres, redis};
use crate::source::scrape::settings::Secret;
use http::header::{HeaderName, HeaderValue};
use pegel_runtime::config::form::{FilePath, Period};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A check of Redis: `AUTH` where there are credentials, then `PING`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"tls_config": "tls"}, "x-refused" = {"password": "passwords are read from files: use password_file"}))]
pub struct RawRedisProbe {
    /// TLS from the first byte; without it the connection is in the clear.
    pub tls: Option<RawProbeTls>,
    /// The user, where the server has users (since Redis 6).
    pub username: Option<String>,
    /// A file that holds the password; it is read for each run.
    pub password_file: Option<FilePath>,
    /// The IP protocol that is used where there is a choice.
    pub preferred_ip_protocol: RawIpProtocol,
    /// Whether the other one is used where there is no address of the preferred.
    pub ip_protocol_fallback: bool,
}

/// A check of PostgreSQL: log in and run a query.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"tls_config": "tls", "user": "username", "dbname": "database"}, "x-refused" = {"password": "passwords are read from files: use password_file"}))]
pub struct RawPostgresProbe {
    /// TLS, asked for as PostgreSQL has it (`sslmode=verify-full`); without it the connection is in the clear.
    pub tls: Option<RawProbeTls>,
    /// The user.
    pub username: String,
    /// A file that holds the password; it is read for each run. A password is only sent in the clear over TLS.
    pub password_file: Option<FilePath>,
    /// The database; without it, the one that is called like the user.
    pub database: Option<String>,
    /// What is run. Its answer has to come within the check's time limit.
    pub query: String,
    /// Whether a query that gives no row is a failure.
    pub fail_if_no_rows: bool,
    /// The IP protocol that is used where there is a choice.
    pub preferred_ip_protocol: RawIpProtocol,
    /// Whether the other one is used where there is no address of the preferred.
    pub ip_protocol_fallback: bool,
}

/// A check of an AMQP 0-9-1 broker such as RabbitMQ: a connection to a virtual host.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"tls_config": "tls", "virtual_host": "vhost"}, "x-refused" = {"password": "passwords are read from files: use password_file"}))]
pub struct RawAmqpProbe {
    /// TLS from the first byte (amqps); without it the connection is in the clear.
    pub tls: Option<RawProbeTls>,
    /// The user.
    pub username: String,
    /// A file that holds the password; it is read for each run.
    pub password_file: Option<FilePath>,
    /// The virtual host.
    pub vhost: String,
    /// The IP protocol that is used where there is a choice.
    pub preferred_ip_protocol: RawIpProtocol,
    /// Whether the other one is used where there is no address of the preferred.
    pub ip_protocol_fallback: bool,
}

/// A check of a gRPC server by `grpc.health.v1.Health/Check`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"tls": "tls_config"}))]
pub struct RawGrpcProbe {
    /// The service that is asked for; empty for the server as a whole.
    pub service: String,
    /// TLS; without it the call is in the clear.
    pub tls_config: Option<RawProbeTls>,
    /// Headers of the call.
    pub metadata: BTreeMap<String, String>,
    /// The IP protocol that is used where there is a choice.
    pub preferred_ip_protocol: RawIpProtocol,
    /// Whether the other one is used where there is no address of the preferred.
    pub ip_protocol_fallback: bool,
}

/// A check of a job that has to call in: `POST /api/v1/heartbeats/NAME` on the agent's admin address when it ended,
/// with `?exit_code=N` if that was not 0, and `POST /api/v1/heartbeats/NAME/start` before, to have its duration. The
/// targets are the names.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"period": "every", "interval": "every", "timeout": "grace"}))]
pub struct RawHeartbeatProbe {
    /// How often the job runs.
    pub every: Period,
    /// How late it may be.
    pub grace: Period,
}

impl Default for RawRedisProbe {
    fn default() -> Self {
        Self {
            tls: None,
            username: None,
            password_file: None,
            preferred_ip_protocol: RawIpProtocol::Ip6,
            ip_protocol_fallback: true,
        }
    }
}

impl Default for RawPostgresProbe {
    fn default() -> Self {
        Self {
            tls: None,
            username: "postgres".to_owned(),
            password_file: None,
            database: None,
            query: postgres::DEFAULT_QUERY.to_owned(),
            fail_if_no_rows: false,
            preferred_ip_protocol: RawIpProtocol::Ip6,
            ip_protocol_fallback: true,
        }
    }
}

impl Default for RawAmqpProbe {
    fn default() -> Self {
        Self {
            tls: None,
            username: "guest".to_owned(),
            password_file: None,
            vhost: "/".to_owned(),
            preferred_ip_protocol: RawIpProtocol::Ip6,
            ip_protocol_fallback: true,
        }
    }
}

impl Default for RawGrpcProbe {
    fn default() -> Self {
        Self {
            service: String::new(),
            tls_config: None,
            metadata: BTreeMap::new(),
            preferred_ip_protocol: RawIpProtocol::Ip6,
            ip_protocol_fallback: true,
        }
    }
}

impl Default for RawHeartbeatProbe {
    fn default() -> Self {
        Self { every: Period(Duration::from_hours(24)), grace: Period(Duration::from_hours(1)) }
    }
}

fn service(
    tls: Option<&RawProbeTls>,
    key: &str,
    preferred: RawIpProtocol,
    fallback: bool,
    path: &Path,
    mistakes: &mut Mistakes,
) -> Service {
    Service {
        families: preferred.families(fallback),
        tls: tls.map(|tls| tls.resolve(&path.key(key), mistakes)),
    }
}

fn login(username: &str, password_file: Option<&FilePath>, path: &Path, mistakes: &mut Mistakes) -> Login {
    let password = password_file.map(|file| mistakes.readable_file(&path.key("password_file"), file));
    Login { username: username.to_owned(), password: password.map(Secret::File) }
}

impl RawRedisProbe {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> redis::Settings {
        if self.username.is_some() && self.password_file.is_none() {
            mistakes.at(&path.key("username"), "has no password", "add password_file");
        }
        let username = self.username.as_deref().unwrap_or_default();
        let login = login(username, self.password_file.as_ref(), path, mistakes);
        redis::Settings {
            service: service(
                self.tls.as_ref(),
                "tls",
                self.preferred_ip_protocol,
                self.ip_protocol_fallback,
                path,
                mistakes,
            ),
            login: login.password.is_some().then_some(login),
        }
    }
}

impl RawPostgresProbe {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> postgres::Settings {
        for (key, text) in [("username", &self.username), ("query", &self.query)] {
            if text.trim().is_empty() {
                mistakes.at(&path.key(key), "is empty", "leave it out for the default");
            } else if text.contains('\0') {
                mistakes.at(&path.key(key), "holds a NUL", "take it out");
            }
        }
        postgres::Settings {
            service: service(
                self.tls.as_ref(),
                "tls",
                self.preferred_ip_protocol,
                self.ip_protocol_fallback,
                path,
                mistakes,
            ),
            login: login(&self.username, self.password_file.as_ref(), path, mistakes),
            database: self.database.clone(),
            query: self.query.clone(),
            fail_if_no_rows: self.fail_if_no_rows,
        }
    }
}

impl RawAmqpProbe {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> amqp::Settings {
        if self.vhost.len() > 255 {
            mistakes.at(&path.key("vhost"), "is longer than AMQP's 255 bytes", "shorten it");
        }
        amqp::Settings {
            service: service(
                self.tls.as_ref(),
                "tls",
                self.preferred_ip_protocol,
                self.ip_protocol_fallback,
                path,
                mistakes,
            ),
            login: login(&self.username, self.password_file.as_ref(), path, mistakes),
            vhost: self.vhost.clone(),
        }
    }
}

impl RawGrpcProbe {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> grpc::Settings {
        let mut metadata = Vec::new();
        for (name, value) in &self.metadata {
            let here = path.key("metadata").key(name);
            match (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                (Ok(http::header::AUTHORIZATION), _) => {
                    mistakes.at(&here, "would be a credential", "health services are asked without one");
                }
                (Ok(name), Ok(value)) => metadata.push((name, value)),
                (Err(_), _) => mistakes.at(&here, "is no header name", "use letters, digits and hyphens"),
                (_, Err(_)) => {
                    mistakes.at(&here, "has a value that no header may have", "take control characters out");
                }
            }
        }
        grpc::Settings {
            service: service(
                self.tls_config.as_ref(),
                "tls_config",
                self.preferred_ip_protocol,
                self.ip_protocol_fallback,
                path,
                mistakes,
            ),
            name: self.service.clone(),
            metadata,
        }
    }
}

impl RawHeartbeatProbe {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> heartbeat::Settings {
        if self.every.0.is_zero() {
            mistakes.at(&path.key("every"), "leaves a job no time at all", "use its period, such as 24h");
        }
        heartbeat::Settings { every: self.every.0, grace: self.grace.0 }
    }
}
