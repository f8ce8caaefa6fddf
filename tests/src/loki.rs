//! A real Loki, started for one test.

use crate::http::escape;
use crate::process::Process;
use crate::{backend, eventually, lasting_port};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a Loki is set up.
#[derive(Debug, Clone)]
pub struct LokiSetup {
    /// Whether requests have to name a tenant.
    pub auth: bool,
    /// Lines of `limits_config`, in YAML, each `key: value`.
    pub limits: Vec<String>,
    /// Lines of `ingester`.
    pub ingester: Vec<String>,
    /// Lines of `querier`.
    pub querier: Vec<String>,
}

impl Default for LokiSetup {
    /// Without a tenant, and with rates that no test reaches by chance.
    fn default() -> Self {
        let limits = [
            "ingestion_rate_mb: 1000",
            "ingestion_burst_size_mb: 1000",
            "per_stream_rate_limit: 1GB",
            "per_stream_rate_limit_burst: 1GB",
        ];
        Self {
            auth: false,
            limits: limits.map(str::to_owned).into(),
            ingester: Vec::new(),
            querier: Vec::new(),
        }
    }
}

impl LokiSetup {
    /// Sets a limit, whatever it was.
    #[must_use]
    pub fn limit(mut self, key: &str, value: &str) -> Self {
        self.limits.retain(|line| !line.starts_with(&format!("{key}:")));
        self.limits.push(format!("{key}: {value}"));
        self
    }

    /// Demands a tenant.
    #[must_use]
    pub fn with_tenants(self) -> Self {
        Self { auth: true, ..self }
    }
}

/// A running Loki in one process: files, a ring in memory, structured metadata on.
#[derive(Debug)]
pub struct Loki {
    /// The process.
    pub process: Process,
    port: u16,
    dir: PathBuf,
    program: PathBuf,
}

const HOUR_NS: i64 = 3_600_000_000_000;

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

/// An entry: nanoseconds, line, structured metadata.
pub type Entry = (i64, String, BTreeMap<String, String>);

/// Entries by the labels of their stream.
pub type Streams = BTreeMap<BTreeMap<String, String>, Vec<Entry>>;

impl Loki {
    /// Starts one in a directory of its own that demands a tenant, with lines for `limits_config` (YAML); none if the
    /// program can't be had.
    pub async fn start(dir: &Path, limits: &str) -> Option<Self> {
        let limits = limits.lines().filter_map(|line| line.split_once(':'));
        let setup = LokiSetup::default().with_tenants();
        let setup = limits.fold(setup, |setup, (key, value)| setup.limit(key.trim(), value.trim()));
        Self::start_with(dir, &setup).await
    }

    /// Starts one in a directory of its own; none if the program can't be had.
    pub async fn start_with(dir: &Path, setup: &LokiSetup) -> Option<Self> {
        let program = backend("loki")?;
        let port = lasting_port();
        std::fs::create_dir_all(dir).expect("a directory");
        std::fs::write(dir.join("loki.yml"), config(dir, port, setup)).expect("a configuration");
        let process = Self::spawn(&program, dir);
        let loki = Self { process, port, dir: dir.to_owned(), program };
        loki.ready().await;
        Some(loki)
    }

    fn spawn(program: &Path, dir: &Path) -> Process {
        let mut command = Command::new(program);
        command.arg(format!("-config.file={}", dir.join("loki.yml").display()));
        Process::start("loki", dir, command)
    }

    async fn ready(&self) {
        let url = format!("{}/ready", self.url());
        eventually("Loki is ready", Duration::from_secs(120), || crate::http::get(&url)).await;
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same data and port.
    pub async fn restart(&mut self) {
        self.process = Self::spawn(&self.program, &self.dir);
        self.ready().await;
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A query's answer for a tenant, as JSON.
    pub async fn get(&self, tenant: &str, path: &str) -> serde_json::Value {
        let request = Request::get(format!("{}{path}", self.url()))
            .header("x-scope-orgid", tenant)
            .header("x-loki-response-encoding-flags", "categorize-labels")
            .body(Full::new(Bytes::new()))
            .expect("a valid request");
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.expect("Loki answers");
        let status = response.status();
        let body = response.into_body().collect().await.expect("Loki answers").to_bytes();
        assert!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    /// All entries of a selector between two instants (nanoseconds), page by page, in the order of their times.
    pub async fn streams(&self, tenant: &str, selector: &str, from_ns: i64, to_ns: i64) -> Streams {
        const PAGE: usize = 5_000;
        let mut streams = Streams::new();
        let mut start = from_ns;
        loop {
            let path = format!(
                "/loki/api/v1/query_range?query={}&start={start}&end={to_ns}&limit={PAGE}&direction=forward",
                escape(selector)
            );
            let answer = self.get(tenant, &path).await;
            let (mut count, mut last) = (0, start);
            for result in answer["data"]["result"].as_array().expect("a list") {
                let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
                let map = |value: &serde_json::Value| {
                    let map = value.as_object().into_iter().flatten();
                    map.map(|(name, value)| (name.clone(), text(value))).collect::<BTreeMap<_, _>>()
                };
                let entries = streams.entry(map(&result["stream"])).or_default();
                for value in result["values"].as_array().expect("a list") {
                    let at: i64 = value[0].as_str().and_then(|at| at.parse().ok()).expect("a time");
                    let entry = (at, text(&value[1]), map(&value[2]["structuredMetadata"]));
                    count += 1;
                    last = last.max(at);
                    // The page before ended at this instant; what it had of it is not to count twice.
                    if at == start && start != from_ns && entries.contains(&entry) {
                        continue;
                    }
                    entries.push(entry);
                }
            }
            if count < PAGE {
                return streams;
            }
            assert!(last > start, "more entries at one instant than a page holds");
            start = last;
        }
    }

    /// The entries of a selector in the last two days and the next hour, by the labels of their stream as JSON.
    pub async fn entries(&self, selector: &str, tenant: &str) -> BTreeMap<String, Vec<(i64, String)>> {
        let now = now_ns();
        let streams = self.streams(tenant, selector, now - 48 * HOUR_NS, now + HOUR_NS).await;
        let plain = |entries: Vec<Entry>| entries.into_iter().map(|(at, line, _)| (at, line)).collect();
        streams
            .into_iter()
            .map(|(labels, entries)| (serde_json::json!(labels).to_string(), plain(entries)))
            .collect()
    }

    /// How many entries Loki counts for a selector in the last two days and the next hour.
    pub async fn count(&self, selector: &str, tenant: &str) -> u64 {
        self.count_before(tenant, selector, 49, now_ns() + HOUR_NS).await
    }

    /// How many entries Loki counts for a selector in the hours before an instant (nanoseconds): `count_over_time`.
    pub async fn count_before(&self, tenant: &str, selector: &str, hours: u32, at_ns: i64) -> u64 {
        let query = format!("sum(count_over_time({selector}[{hours}h]))");
        let answer =
            self.get(tenant, &format!("/loki/api/v1/query?query={}&time={at_ns}", escape(&query))).await;
        let value = answer["data"]["result"][0]["value"][1].as_str();
        value.map_or(0, |text| text.parse().expect("a number"))
    }
}

fn config(dir: &Path, port: u16, setup: &LokiSetup) -> String {
    let grpc = lasting_port();
    let dir = dir.display();
    let section = |name: &str, lines: &[String]| {
        if lines.is_empty() { String::new() } else { format!("{name}:\n  {}\n", lines.join("\n  ")) }
    };
    format!(
        "auth_enabled: {auth}
target: all
server:
  http_listen_address: 127.0.0.1
  http_listen_port: {port}
  grpc_listen_address: 127.0.0.1
  grpc_listen_port: {grpc}
  log_level: warn
common:
  instance_addr: 127.0.0.1
  path_prefix: {dir}/data
  storage:
    filesystem:
      chunks_directory: {dir}/data/chunks
      rules_directory: {dir}/data/rules
  replication_factor: 1
  ring:
    instance_addr: 127.0.0.1
    kvstore:
      store: inmemory
schema_config:
  configs:
    - from: 2020-10-24
      store: tsdb
      object_store: filesystem
      schema: v13
      index:
        prefix: index_
        period: 24h
analytics:
  reporting_enabled: false
{limits}{ingester}{querier}",
        auth = setup.auth,
        limits = section("limits_config", &setup.limits),
        ingester = section("ingester", &setup.ingester),
        querier = section("querier", &setup.querier),
    )
}
