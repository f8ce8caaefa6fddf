//! `outputs`: the backends.

use pegel_proto::identity::OutputName;
use pegel_runtime::config::form::{ByteSize, FilePath, HttpUrl, Period};
use pegel_runtime::config::section::{Auth, RawBasicAuth, RawClientTls, resolve_auth};
use pegel_runtime::config::{Mistakes, Path};
use pegel_runtime::http_client::ClientTls;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// How long a request may take: Prometheus' own remote write waits as long.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Samples of one request: Prometheus' default of 2,000 costs a receiver more requests than it needs; vmagent sends
/// 10,000. A request of 5,000 is some 100 KB and is answered in milliseconds.
pub const DEFAULT_MAX_SAMPLES: u32 = 5_000;
/// Workers of one output. Each has one request under way: at 20 ms an answer 8 of them send two million samples a
/// second.
pub const DEFAULT_SHARDS: u32 = 8;
/// How long a worker waits for more samples before it sends what it has. It is part of the way from collection to
/// query, whose goal is 50 ms.
pub const DEFAULT_GATHER: Duration = Duration::from_millis(5);

/// One output.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RawOutput {
    /// Prometheus remote write: Prometheus, Thanos, Mimir, VictoriaMetrics.
    RemoteWrite(RawRemoteWrite),
}

/// The version of remote write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
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

/// The raw form of a `remote_write` output.
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
    pub protocol: Protocol,
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
    /// How long a request may take.
    pub timeout: Period,
    /// How far behind its newest sample the backend takes one: Prometheus' `out_of_order_time_window`. An outage that
    /// is longer than that, or than an hour without it, loses samples, each counted.
    pub out_of_order_window: Option<Period>,
    /// Whether fresh samples may be sent before a backlog; without it, where `out_of_order_window` is given.
    pub accepts_out_of_order: Option<bool>,
    /// Workers, each with one request under way. A series always has the same one.
    #[schemars(range(min = 1, max = 256))]
    pub shards: u32,
    /// The most samples of one request.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_samples_per_request: u32,
    /// The most bytes of one request, before compression.
    pub max_bytes_per_request: ByteSize,
    /// How long a worker waits for more samples before it sends what it has.
    pub gather: Period,
    /// The wait after the first failure; it doubles up to `backoff_max`.
    pub backoff_min: Period,
    /// The longest wait between attempts, unless the backend asks for more with `Retry-After`.
    pub backoff_max: Period,
}

impl Default for RawRemoteWrite {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: None,
            protocol: Protocol::Auto,
            headers: BTreeMap::new(),
            tenant_header: None,
            basic_auth: None,
            bearer_token_file: None,
            tls: RawClientTls::default(),
            timeout: Period(DEFAULT_TIMEOUT),
            out_of_order_window: None,
            accepts_out_of_order: None,
            shards: DEFAULT_SHARDS,
            max_samples_per_request: DEFAULT_MAX_SAMPLES,
            max_bytes_per_request: ByteSize(4 << 20),
            gather: Period(DEFAULT_GATHER),
            backoff_min: Period::milliseconds(30),
            backoff_max: Period::seconds(5),
        }
    }
}

/// One output.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputSettings {
    /// Prometheus remote write.
    RemoteWrite(RemoteWriteSettings),
}

/// A remote-write output.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteWriteSettings {
    /// Its name.
    pub name: OutputName,
    /// Where it writes.
    pub url: String,
    /// The version.
    pub protocol: Protocol,
    /// Headers of each request.
    pub headers: Vec<(String, String)>,
    /// The header that carries the tenant.
    pub tenant_header: Option<String>,
    /// How requests prove who sends them.
    pub auth: Option<Auth>,
    /// TLS.
    pub tls: ClientTls,
    /// The bound of a request.
    pub timeout: Duration,
    /// How far behind the backend takes samples; zero is unknown or nothing.
    pub out_of_order_window: Duration,
    /// Whether fresh samples may overtake a backlog.
    pub accepts_out_of_order: bool,
    /// Workers.
    pub shards: usize,
    /// The most samples of a request.
    pub max_samples_per_request: usize,
    /// The most bytes of a request.
    pub max_bytes_per_request: usize,
    /// How long a worker waits for more.
    pub gather: Duration,
    /// The first wait after a failure.
    pub backoff_min: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
}

/// Headers that requests have anyway, or that hold secrets.
const OWN_HEADERS: [(&str, &str); 7] = [
    ("authorization", "use basic_auth or bearer_token_file"),
    ("content-encoding", "it is what it is"),
    ("content-type", "use protocol"),
    ("content-length", "it is what it is"),
    ("host", "use url"),
    ("user-agent", "it names pegel and its version"),
    ("x-prometheus-remote-write-version", "use protocol"),
];

pub(super) fn resolve(
    outputs: &[RawOutput],
    recent: &OutputName,
    path: &Path,
    mistakes: &mut Mistakes,
) -> Vec<OutputSettings> {
    let mut names: HashMap<OutputName, usize> = HashMap::new();
    let mut resolved = Vec::new();
    for (i, RawOutput::RemoteWrite(raw)) in outputs.iter().enumerate() {
        let path = path.index(i);
        let name = match OutputName::parse(&raw.name) {
            Ok(name) => name,
            Err(bad) => {
                mistakes.at(&path.key("name"), bad.to_string(), "choose another name");
                continue;
            }
        };
        if name == *recent {
            mistakes.at(&path.key("name"), "`recent` is the output in memory", "choose another name");
        }
        if let Some(first) = names.insert(name.clone(), i) {
            let reason = format!("outputs[{first}] is called `{name}` as well");
            mistakes.at(&path.key("name"), reason, "give each output a name of its own");
        }
        resolved.push(OutputSettings::RemoteWrite(raw.resolve(name, &path, mistakes)));
    }
    if outputs.is_empty() {
        let reason = "there is none, so data is kept in memory only and is gone when the aggregator ends";
        mistakes.warn(path, reason, "add one with type: remote_write and the URL of your Prometheus");
    }
    resolved
}

impl RawRemoteWrite {
    fn resolve(&self, name: OutputName, path: &Path, mistakes: &mut Mistakes) -> RemoteWriteSettings {
        self.check_headers(path, mistakes);
        if self.timeout.0 < Duration::from_millis(100) {
            mistakes.at(&path.key("timeout"), format!("`{}` is too short", self.timeout), "use 30s");
        }
        if self.backoff_min.0.is_zero() || self.backoff_min.0 > self.backoff_max.0 {
            let reason = format!("does not lie between 1ms and backoff_max, {}", self.backoff_max);
            mistakes.at(&path.key("backoff_min"), reason, "use 30ms");
        }
        if self.gather.0 > Duration::from_secs(5) {
            mistakes.at(&path.key("gather"), format!("`{}` is too long", self.gather), "use 5ms");
        }
        if self.max_bytes_per_request.0 < 64 << 10 || self.max_bytes_per_request.0 > 64 << 20 {
            let reason = format!("`{}` is no size for a request", self.max_bytes_per_request);
            mistakes.at(&path.key("max_bytes_per_request"), reason, "use something between 64KiB and 64MiB");
        }
        let window = self.out_of_order_window.as_ref().map_or(Duration::ZERO, |window| window.0);
        let accepts = self.accepts_out_of_order.unwrap_or(!window.is_zero());
        if accepts && window.is_zero() && self.accepts_out_of_order.is_some() {
            // VictoriaMetrics has no window: it takes samples of any age.
            let reason = "fresh samples will be sent before a backlog; Prometheus without out_of_order_time_window \
                          would refuse that backlog";
            mistakes.warn(&path.key("accepts_out_of_order"), reason, "keep it for VictoriaMetrics only");
        } else if window.is_zero() && !mistakes.is_spoken_of(&path.key("out_of_order_window")) {
            let reason = "without a window, Prometheus refuses what is an hour older than its newest sample: surviving \
                          an outage of T needs out_of_order_time_window ≥ T there";
            mistakes.warn(&path.key("out_of_order_window"), reason, "set it there, and the same value here");
        }
        RemoteWriteSettings {
            name,
            url: self.url.as_ref().map(|url| url.0.clone()).unwrap_or_default(),
            protocol: self.protocol,
            headers: self.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            tenant_header: self.tenant_header.clone(),
            auth: resolve_auth(self.basic_auth.as_ref(), self.bearer_token_file.as_ref(), path, mistakes),
            tls: self.tls.resolve(&path.key("tls"), mistakes),
            timeout: self.timeout.0,
            out_of_order_window: window,
            accepts_out_of_order: accepts,
            shards: self.shards as usize,
            max_samples_per_request: self.max_samples_per_request as usize,
            max_bytes_per_request: self.max_bytes_per_request.0 as usize,
            gather: self.gather.0,
            backoff_min: self.backoff_min.0,
            backoff_max: self.backoff_max.0,
        }
    }

    fn check_headers(&self, path: &Path, mistakes: &mut Mistakes) {
        let mut check = |name: &str, value: &str, path: &Path| {
            let lower = name.to_ascii_lowercase();
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                mistakes.at(path, "is not a header name", "use letters, digits and dashes");
            } else if let Some((_, remedy)) = OWN_HEADERS.iter().find(|(own, _)| *own == lower) {
                mistakes.at(path, "is a header that pegel sets itself", *remedy);
            } else if http::HeaderValue::from_str(value).is_err() {
                mistakes.at(path, "has a value that no header can have", "use printable ASCII");
            }
        };
        for (name, value) in &self.headers {
            check(name, value, &path.key("headers").key(name));
        }
        if let Some(name) = &self.tenant_header {
            check(name, "", &path.key("tenant_header"));
            let both = self.headers.keys().any(|other| other.eq_ignore_ascii_case(name));
            if both {
                let reason = "is in headers as well, with the same value for every tenant";
                mistakes.at(&path.key("tenant_header"), reason, "take one of them out");
            }
        }
    }
}
