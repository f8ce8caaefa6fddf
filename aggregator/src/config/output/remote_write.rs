//! `type: remote_write`.

use super::{authorization, resolve_headers};
use crate::output::remote_write::{self, NameRule, Protocol};
use http::Uri;
use pegel_proto::identity::OutputName;
use pegel_runtime::config::form::{ByteSize, FilePath, HttpUrl, Period};
use pegel_runtime::config::section::{RawBasicAuth, RawClientTls, resolve_auth};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The version of remote write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum RawProtocol {
    /// 2.0 where the backend understands it, else 1.0.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// 1.0 only.
    #[serde(rename = "1.0")]
    V1,
    /// 2.0 only.
    #[serde(rename = "2.0")]
    V2,
}

/// The names of metrics and labels that a backend takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawNames {
    /// Any UTF-8, as Prometheus 3 and VictoriaMetrics.
    #[default]
    Utf8,
    /// Letters, digits and underscores, as Prometheus 2 and what is built on it.
    Legacy,
}

/// Prometheus remote write: Prometheus, Thanos, Mimir, VictoriaMetrics.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "required" = ["name", "url"],
    "x-renamed" = {
        "remote_timeout": "timeout", "tls_config": "tls", "max_samples_per_send": "max_samples_per_request",
        "out_of_order_time_window": "out_of_order_window"
    },
    "x-refused" = {
        "bearer_token": "tokens are read from files: use bearer_token_file",
        "write_relabel_configs": "pegel does not relabel; drop series at the exporter or in the backend",
        "queue_config": "its settings stand here directly: shards, max_samples_per_request, backoff_min, backoff_max"
    }
))]
pub struct RawRemoteWrite {
    /// The output's name, by which agents, metrics and the page speak of it.
    pub name: String,
    /// The URL that is written to.
    pub url: Option<HttpUrl>,
    /// The version of the protocol.
    pub protocol: RawProtocol,
    /// Headers of each request.
    pub headers: BTreeMap<String, String>,
    /// A header that carries the tenant: `X-Scope-OrgID` for Mimir, `THANOS-TENANT` for Thanos.
    pub tenant_header: Option<String>,
    /// User and password.
    pub basic_auth: Option<RawBasicAuth>,
    /// A file that holds a bearer token; it is read again when it changes.
    pub bearer_token_file: Option<FilePath>,
    /// TLS, for https.
    pub tls: RawClientTls,
    /// How long a connection may take to be made.
    pub connect_timeout: Period,
    /// How long an answer may take.
    pub timeout: Period,
    /// How far behind its newest sample the backend takes one: Prometheus' `out_of_order_time_window`. An outage that
    /// is longer than that, or than an hour without it, loses samples, each counted. With a window, fresh samples are
    /// sent before a backlog.
    pub out_of_order_window: Option<Period>,
    /// The names that the backend takes; series with others are rejected before they are sent.
    pub names: RawNames,
    /// Writers for each tenant, each with one request under way. A series always has the same one.
    #[schemars(range(min = 1, max = 256))]
    pub shards: u32,
    /// The most samples of one request.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_samples_per_request: u32,
    /// The most bytes of one request, before compression.
    pub max_bytes_per_request: ByteSize,
    /// How long the first batch of a request waits for others.
    pub linger: Period,
    /// The wait after a first failure; it doubles up to `backoff_max`.
    pub backoff_min: Period,
    /// The longest wait after failures.
    pub backoff_max: Period,
    /// The longest wait that the backend may ask for with `Retry-After`.
    pub retry_after_max: Period,
    /// How often an output is tried that takes nothing at all, for a wrong URL or credentials.
    pub park_probe: Period,
}

impl Default for RawRemoteWrite {
    fn default() -> Self {
        let name = OutputName::parse("unnamed").expect("the name is valid");
        let settings = remote_write::Settings::new(name, Uri::from_static("http://localhost/"));
        Self {
            name: String::new(),
            url: None,
            protocol: RawProtocol::Auto,
            headers: BTreeMap::new(),
            tenant_header: None,
            basic_auth: None,
            bearer_token_file: None,
            tls: RawClientTls::default(),
            connect_timeout: Period(settings.connect_timeout),
            timeout: Period(settings.request_timeout),
            out_of_order_window: None,
            names: RawNames::Utf8,
            shards: settings.shards as u32,
            max_samples_per_request: settings.max_request_samples as u32,
            max_bytes_per_request: ByteSize(settings.max_request_bytes as u64),
            linger: Period(settings.linger),
            backoff_min: Period(settings.min_backoff),
            backoff_max: Period(settings.max_backoff),
            retry_after_max: Period(settings.max_retry_after),
            park_probe: Period(settings.park_probe),
        }
    }
}

impl RawRemoteWrite {
    /// The output's settings; none if it has no URL, which was said already.
    pub(super) fn resolve(
        &self,
        name: OutputName,
        path: &Path,
        mistakes: &mut Mistakes,
    ) -> Option<remote_write::Settings> {
        let (headers, tenant_header) =
            resolve_headers(&self.headers, self.tenant_header.as_ref(), path, mistakes);
        if self.timeout.0 < Duration::from_millis(100) {
            mistakes.at(&path.key("timeout"), format!("`{}` is too short", self.timeout), "use 30s");
        }
        if self.backoff_min.0.is_zero() || self.backoff_min.0 > self.backoff_max.0 {
            let reason = format!("does not lie between 1ms and backoff_max, {}", self.backoff_max);
            mistakes.at(&path.key("backoff_min"), reason, "use 30ms");
        }
        if self.linger.0 > Duration::from_secs(5) {
            mistakes.at(&path.key("linger"), format!("`{}` is too long", self.linger), "use 5ms");
        }
        if self.connect_timeout.0 < Duration::from_millis(10) {
            mistakes.at(
                &path.key("connect_timeout"),
                format!("`{}` is too short", self.connect_timeout),
                "use 5s",
            );
        }
        if self.park_probe.0 < Duration::from_millis(100) {
            mistakes.at(&path.key("park_probe"), format!("`{}` is too short", self.park_probe), "use 15s");
        }
        if self.max_bytes_per_request.0 < 64 << 10 || self.max_bytes_per_request.0 > 64 << 20 {
            let reason = format!("`{}` is no size for a request", self.max_bytes_per_request);
            mistakes.at(&path.key("max_bytes_per_request"), reason, "use something between 64KiB and 64MiB");
        }
        let window = self.out_of_order_window.as_ref().map_or(Duration::ZERO, |window| window.0);
        if window.is_zero() && !mistakes.is_spoken_of(&path.key("out_of_order_window")) {
            let reason = "without a window, Prometheus refuses what is an hour older than its newest sample: surviving \
                          an outage of T needs out_of_order_time_window ≥ T there";
            mistakes.warn(&path.key("out_of_order_window"), reason, "set it there, and the same value here");
        }
        let auth = resolve_auth(self.basic_auth.as_ref(), self.bearer_token_file.as_ref(), path, mistakes);
        let tls = self.tls.resolve(&path.key("tls"), mistakes);
        let url: Uri = self.url.as_ref()?.0.parse().ok()?;
        Some(remote_write::Settings {
            protocol: match self.protocol {
                RawProtocol::Auto => Protocol::Auto,
                RawProtocol::V1 => Protocol::V1,
                RawProtocol::V2 => Protocol::V2,
            },
            headers,
            tenant_header,
            authorization: authorization(auth),
            tls,
            connect_timeout: self.connect_timeout.0,
            request_timeout: self.timeout.0,
            shards: self.shards as usize,
            max_request_samples: self.max_samples_per_request as usize,
            max_request_bytes: self.max_bytes_per_request.0 as usize,
            linger: self.linger.0,
            min_backoff: self.backoff_min.0,
            max_backoff: self.backoff_max.0,
            max_retry_after: self.retry_after_max.0,
            park_probe: self.park_probe.0,
            names: match self.names {
                RawNames::Utf8 => NameRule::Utf8,
                RawNames::Legacy => NameRule::Legacy,
            },
            out_of_order_window: window,
            ..remote_write::Settings::new(name, url)
        })
    }
}
