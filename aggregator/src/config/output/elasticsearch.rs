//! `type: elasticsearch`.

use super::{authorization, resolve_headers};
use crate::output::elasticsearch;
use http::Uri;
use pegel_proto::identity::OutputName;
use pegel_runtime::config::form::{ByteSize, FilePath, HttpUrl, Period};
use pegel_runtime::config::section::{RawBasicAuth, RawClientTls, resolve_auth};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Logs to Elasticsearch 8 or OpenSearch, by the bulk API. Each entry has an `_id` that its tenant, node, stream, time
/// and line give, so that what is sent twice is there once.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "required" = ["name", "url"],
    "x-renamed" = {"hosts": "url", "data_stream": "index"},
    "x-refused" = {"api_key": "keys are read from files: put it into headers of a proxy, or use basic_auth"}
))]
pub struct RawElasticsearch {
    /// The output's name, by which agents, metrics and the page speak of it.
    pub name: String,
    /// The cluster's address, such as `https://elastic:9200`.
    pub url: Option<HttpUrl>,
    /// The data stream or index that entries go to; `{tenant}` stands for the tenant. Names that begin with
    /// `logs-pegel-` have the index template.
    pub index: String,
    /// Whether the index template `pegel-logs` is put in place before the first request.
    pub template: bool,
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
    /// Writers for each tenant, each with one request under way.
    #[schemars(range(min = 1, max = 256))]
    pub shards: u32,
    /// What a request is filled to; Elasticsearch's `http.max_content_length` is 100 MB.
    pub max_request_bytes: ByteSize,
    /// How long the first batch of a request waits for others.
    pub linger: Period,
    /// The wait after a first failure; it doubles up to `backoff_max`.
    pub backoff_min: Period,
    /// The longest wait after failures.
    pub backoff_max: Period,
    /// The longest wait that the cluster, or a proxy before it, may ask for with `Retry-After`.
    pub retry_after_max: Period,
    /// How often an output is tried that takes nothing at all, for a wrong URL or credentials.
    pub park_probe: Period,
}

impl Default for RawElasticsearch {
    fn default() -> Self {
        let name = OutputName::parse("unnamed").expect("the name is valid");
        let settings = elasticsearch::Settings::new(name, Uri::from_static("http://localhost/"));
        Self {
            name: String::new(),
            url: None,
            index: settings.index,
            template: settings.template,
            headers: BTreeMap::new(),
            basic_auth: None,
            bearer_token_file: None,
            tls: RawClientTls::default(),
            connect_timeout: Period(settings.connect_timeout),
            timeout: Period(settings.request_timeout),
            shards: settings.shards as u32,
            max_request_bytes: ByteSize(settings.max_request_bytes as u64),
            linger: Period(settings.linger),
            backoff_min: Period(settings.min_backoff),
            backoff_max: Period(settings.max_backoff),
            retry_after_max: Period(settings.max_retry_after),
            park_probe: Period(settings.park_probe),
        }
    }
}

impl RawElasticsearch {
    /// The output's settings; none if it has no URL, which was said already.
    pub(super) fn resolve(
        &self,
        name: OutputName,
        path: &Path,
        mistakes: &mut Mistakes,
    ) -> Option<elasticsearch::Settings> {
        let (headers, _) = resolve_headers(&self.headers, None, path, mistakes);
        let named = self.index.replace("{tenant}", "t");
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if named.is_empty() || named.starts_with(['-', '_', '.']) || !named.bytes().all(allowed) {
            let reason = format!("`{}` is no name of an index", self.index);
            mistakes.at(&path.key("index"), reason, "use small letters, digits, `-`, `_` and `.`");
        }
        if self.timeout.0 < Duration::from_millis(100) {
            mistakes.at(&path.key("timeout"), format!("`{}` is too short", self.timeout), "use 60s");
        }
        if self.backoff_min.0.is_zero() || self.backoff_min.0 > self.backoff_max.0 {
            let reason = format!("does not lie between 1ms and backoff_max, {}", self.backoff_max);
            mistakes.at(&path.key("backoff_min"), reason, "use 100ms");
        }
        if self.retry_after_max.0 < self.backoff_max.0 {
            let reason = format!("is shorter than backoff_max, {}", self.backoff_max);
            mistakes.at(&path.key("retry_after_max"), reason, "use 5m");
        }
        if self.linger.0 > Duration::from_secs(5) {
            mistakes.at(&path.key("linger"), format!("`{}` is too long", self.linger), "use 50ms");
        }
        if self.max_request_bytes.0 < 64 << 10 || self.max_request_bytes.0 > 64 << 20 {
            let reason = format!("`{}` is no size for a request", self.max_request_bytes);
            mistakes.at(&path.key("max_request_bytes"), reason, "use something between 64KiB and 64MiB");
        }
        if self.park_probe.0 < Duration::from_millis(100) {
            mistakes.at(&path.key("park_probe"), format!("`{}` is too short", self.park_probe), "use 15s");
        }
        let auth = resolve_auth(self.basic_auth.as_ref(), self.bearer_token_file.as_ref(), path, mistakes);
        let tls = self.tls.resolve(&path.key("tls"), mistakes);
        let url: Uri = self.url.as_ref()?.0.parse().ok()?;
        Some(elasticsearch::Settings {
            index: self.index.clone(),
            template: self.template,
            headers,
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
            ..elasticsearch::Settings::new(name, url)
        })
    }
}
