//! `type: loki`.

use super::{authorization, resolve_headers};
use crate::output::loki;
use http::Uri;
use pegel_proto::identity::OutputName;
use pegel_runtime::config::form::{ByteSize, FilePath, HttpUrl, Period};
use pegel_runtime::config::section::{RawBasicAuth, RawClientTls, resolve_auth};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Loki's push API, 3.0 or newer for structured metadata. `docs/loki.md` says what its answers mean and which of its
/// limits matter.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "required" = ["name", "url"],
    "x-renamed" = {
        "remote_timeout": "timeout", "tls_config": "tls", "batchsize": "max_request_bytes", "batchwait": "linger",
        "per_stream_rate_limit": "stream_rate", "per_stream_rate_limit_burst": "stream_burst"
    },
    "x-refused" = {
        "bearer_token": "tokens are read from files: use bearer_token_file",
        "tenant_id": "the tenant is that of the agent's certificate; tenant_header says how it is told",
        "external_labels": "labels of all entries are the agent's",
        "backoff_config": "its settings stand here directly: backoff_min, backoff_max"
    }
))]
pub struct RawLoki {
    /// The output's name, by which agents, metrics and the page speak of it.
    pub name: String,
    /// The URL that is pushed to; without a path, `/loki/api/v1/push` is meant.
    pub url: Option<HttpUrl>,
    /// Where Loki answers queries, such as `http://loki:3100`. With it, what may have been stored by a request without
    /// an answer (a time-out, an aggregator that was killed) is asked about, and only the rest is sent again. Without
    /// it all is sent again and counted as possibly repeated: Loki drops a repeated entry only while its copy is in
    /// the block that it is filling.
    pub query_url: Option<HttpUrl>,
    /// Of older entries, a query does not find those that Loki has not flushed yet: not more than its
    /// `ingester.query_store_max_look_back_period` where Loki is one process, else its
    /// `querier.query_ingesters_within`. 0s where those are -1 or 0.
    pub query_ingesters_within: Period,
    /// The header that carries the tenant; null if Loki runs with `auth_enabled: false` behind a proxy that minds it.
    pub tenant_header: Option<String>,
    /// Headers of each request.
    pub headers: BTreeMap<String, String>,
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
    /// Writers for each tenant, each with one request under way. A stream always has the same one.
    #[schemars(range(min = 1, max = 256))]
    pub shards: u32,
    /// What a request is filled to, before compression. It must stay below Loki's `grpc_server_max_recv_msg_size`
    /// (4MiB by default) and a tenant's `ingestion_burst_size_mb` (6).
    pub max_request_bytes: ByteSize,
    /// How long the first batch of a request waits for others.
    pub linger: Period,
    /// Loki's `per_stream_rate_limit`, by the second. A stream that may go over it travels alone: Loki does not tell
    /// of a refusal otherwise.
    pub stream_rate: ByteSize,
    /// Loki's `per_stream_rate_limit_burst`.
    pub stream_burst: ByteSize,
    /// Loki's limits of streams and entries. What is over one is refused before it is sent, with its reason: set them
    /// to what Loki has where that is not its default.
    pub limits: RawLokiLimits,
    /// How long entries of a stream wait when the tenant has its most streams (`max_global_streams_per_user`); then
    /// they are refused as `tenant_limit`.
    pub stream_patience: Period,
    /// The wait after a first failure; it doubles up to `backoff_max`.
    pub backoff_min: Period,
    /// The longest wait after failures.
    pub backoff_max: Period,
    /// The longest wait that Loki may ask for with `Retry-After`.
    pub retry_after_max: Period,
    /// How often an output is tried that takes nothing at all, for a wrong URL or credentials.
    pub park_probe: Period,
}

/// Loki's limits. 0 is no limit, and leaves the say to Loki.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {
    "max_label_names_per_series": "labels", "max_label_name_length": "label_name",
    "max_label_value_length": "label_value", "max_line_size": "line", "max_structured_metadata_size": "metadata",
    "max_structured_metadata_entries_count": "metadata_pairs", "reject_old_samples_max_age": "max_age",
    "label_name_bytes": "label_name", "label_value_bytes": "label_value"
}))]
pub struct RawLokiLimits {
    /// `max_label_names_per_series`, with `node` and `tenant`.
    pub labels: u32,
    /// `max_label_name_length`.
    pub label_name: ByteSize,
    /// `max_label_value_length`.
    pub label_value: ByteSize,
    /// `max_line_size`; 0 where Loki cuts longer lines (`max_line_size_truncate`).
    pub line: ByteSize,
    /// `max_structured_metadata_size`.
    pub metadata: ByteSize,
    /// `max_structured_metadata_entries_count`.
    pub metadata_pairs: u32,
    /// `reject_old_samples_max_age`. Loki's default is 7d, but it is what operators raise for long outages: so it is
    /// Loki's say unless it is given here.
    pub max_age: Period,
}

impl Default for RawLokiLimits {
    fn default() -> Self {
        let limits = loki::Limits::default();
        let bytes = |n: usize| ByteSize(n as u64);
        Self {
            labels: limits.labels as u32,
            label_name: bytes(limits.label_name),
            label_value: bytes(limits.label_value),
            line: bytes(limits.line),
            metadata: bytes(limits.metadata),
            metadata_pairs: limits.metadata_pairs as u32,
            max_age: Period(limits.age),
        }
    }
}

impl RawLokiLimits {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> loki::Limits {
        // Each stream has the node and the tenant, and something of its own.
        if (1..3).contains(&self.labels) {
            let reason = format!("`{}` leaves none beside `node` and `tenant`", self.labels);
            mistakes.at(
                &path.key("labels"),
                reason,
                "use what Loki's max_label_names_per_series says, 15 by default",
            );
        }
        if !self.max_age.0.is_zero() && self.max_age.0 < Duration::from_mins(1) {
            let reason = format!("`{}` is too short", self.max_age);
            mistakes.at(
                &path.key("max_age"),
                reason,
                "use what Loki's reject_old_samples_max_age says, 7d by default",
            );
        }
        let bytes = |size: &ByteSize| size.0 as usize;
        loki::Limits {
            labels: self.labels as usize,
            label_name: bytes(&self.label_name),
            label_value: bytes(&self.label_value),
            line: bytes(&self.line),
            metadata: bytes(&self.metadata),
            metadata_pairs: self.metadata_pairs as usize,
            age: self.max_age.0,
        }
    }
}

impl Default for RawLoki {
    fn default() -> Self {
        let name = OutputName::parse("unnamed").expect("the name is valid");
        let settings = loki::Settings::new(name, Uri::from_static("http://localhost/"));
        Self {
            name: String::new(),
            url: None,
            query_url: None,
            query_ingesters_within: Period(settings.query_ingesters_within),
            tenant_header: Some("X-Scope-OrgID".to_owned()),
            headers: BTreeMap::new(),
            basic_auth: None,
            bearer_token_file: None,
            tls: RawClientTls::default(),
            connect_timeout: Period(settings.connect_timeout),
            timeout: Period(settings.request_timeout),
            shards: settings.shards as u32,
            max_request_bytes: ByteSize(settings.max_request_bytes as u64),
            linger: Period(settings.linger),
            stream_rate: ByteSize(settings.stream_rate),
            stream_burst: ByteSize(settings.stream_burst),
            limits: RawLokiLimits::default(),
            stream_patience: Period(settings.stream_patience),
            backoff_min: Period(settings.min_backoff),
            backoff_max: Period(settings.max_backoff),
            retry_after_max: Period(settings.max_retry_after),
            park_probe: Period(settings.park_probe),
        }
    }
}

impl RawLoki {
    /// The output's settings; none if it has no URL, which was said already.
    pub(super) fn resolve(
        &self,
        name: OutputName,
        path: &Path,
        mistakes: &mut Mistakes,
    ) -> Option<loki::Settings> {
        let (headers, tenant_header) =
            resolve_headers(&self.headers, self.tenant_header.as_ref(), path, mistakes);
        let mut too_short = |key: &str, period: &Period, least: Duration, remedy: &str| {
            if period.0 < least {
                mistakes.at(&path.key(key), format!("`{period}` is too short"), remedy);
            }
        };
        too_short("timeout", &self.timeout, Duration::from_millis(100), "use 30s");
        too_short("connect_timeout", &self.connect_timeout, Duration::from_millis(10), "use 5s");
        too_short("park_probe", &self.park_probe, Duration::from_millis(100), "use 15s");
        if self.backoff_min.0.is_zero() || self.backoff_min.0 > self.backoff_max.0 {
            let reason = format!("does not lie between 1ms and backoff_max, {}", self.backoff_max);
            mistakes.at(&path.key("backoff_min"), reason, "use 100ms");
        }
        if self.linger.0 > Duration::from_secs(5) {
            mistakes.at(&path.key("linger"), format!("`{}` is too long", self.linger), "use 5ms");
        }
        if self.max_request_bytes.0 < 64 << 10 || self.max_request_bytes.0 > 64 << 20 {
            let reason = format!("`{}` is no size for a request", self.max_request_bytes);
            mistakes.at(&path.key("max_request_bytes"), reason, "use something between 64KiB and 64MiB");
        }
        if self.stream_rate.0 == 0 || self.stream_burst.0 == 0 {
            let key = if self.stream_rate.0 == 0 { "stream_rate" } else { "stream_burst" };
            let reason = "is nothing, so that no stream could share a request";
            mistakes.at(&path.key(key), reason, "use what Loki's per_stream_rate_limit settings say");
        }
        if self.query_url.is_none() && !mistakes.is_spoken_of(&path.key("query_url")) {
            let reason = "without it, entries are sent again after a request without an answer, and Loki may keep both";
            mistakes.warn(&path.key("query_url"), reason, "give the address at which Loki answers queries");
        }
        let auth = resolve_auth(self.basic_auth.as_ref(), self.bearer_token_file.as_ref(), path, mistakes);
        let tls = self.tls.resolve(&path.key("tls"), mistakes);
        let query_url = self.query_url.as_ref().and_then(|url| url.0.parse().ok());
        let url = push_url(&self.url.as_ref()?.0)?;
        Some(loki::Settings {
            query_url,
            query_ingesters_within: self.query_ingesters_within.0,
            headers,
            tenant_header,
            authorization: authorization(auth),
            tls,
            connect_timeout: self.connect_timeout.0,
            request_timeout: self.timeout.0,
            shards: self.shards as usize,
            max_request_bytes: self.max_request_bytes.0 as usize,
            linger: self.linger.0,
            min_backoff: self.backoff_min.0,
            max_backoff: self.backoff_max.0,
            max_retry_after: self.retry_after_max.0,
            park_probe: self.park_probe.0,
            stream_rate: self.stream_rate.0,
            stream_burst: self.stream_burst.0,
            limits: self.limits.resolve(&path.key("limits"), mistakes),
            stream_patience: self.stream_patience.0,
            ..loki::Settings::new(name, url)
        })
    }
}

/// The URL that is pushed to.
fn push_url(given: &str) -> Option<Uri> {
    let url: Uri = given.parse().ok()?;
    if matches!(url.path(), "" | "/") && url.query().is_none() {
        return format!("{}{}", given.trim_end_matches('/'), loki::PUSH_PATH).parse().ok();
    }
    Some(url)
}
