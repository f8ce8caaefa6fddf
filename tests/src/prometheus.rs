//! A real Prometheus, started for one test.

use crate::http::{escape, get_json, request};
use crate::process::Process;
use crate::{backend, eventually, lasting_port};
use hyper::Method;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A running Prometheus with its remote-write receiver on.
#[derive(Debug)]
pub struct Prometheus {
    /// The process.
    pub process: Process,
    port: u16,
    dir: PathBuf,
    program: PathBuf,
    config: String,
}

/// Raw samples of one series: (milliseconds, value as text).
pub type RawSamples = Vec<(i64, f64)>;

impl Prometheus {
    /// Starts one in a directory of its own; none if the program can't be had. `out_of_order_window` as in
    /// Prometheus' configuration, `0s` for none.
    pub async fn start(dir: &Path, out_of_order_window: &str) -> Option<Self> {
        Self::start_with(dir, format!(
            "global:\n  scrape_interval: 1h\nstorage:\n  tsdb:\n    out_of_order_time_window: {out_of_order_window}\n"
        )).await
    }

    /// Starts one with a configuration, in YAML; paths in it are relative to the directory.
    pub async fn start_with(dir: &Path, config: String) -> Option<Self> {
        let program = backend("prometheus")?;
        let port = lasting_port();
        std::fs::create_dir_all(dir).expect("a directory");
        let process = Self::spawn(&program, dir, port, &config);
        let mut prometheus = Self { process, port, dir: dir.to_owned(), program, config };
        prometheus.ready().await;
        Some(prometheus)
    }

    fn spawn(program: &Path, dir: &Path, port: u16, config: &str) -> Process {
        std::fs::write(dir.join("prometheus.yml"), config).expect("a configuration");
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.enable-remote-write-receiver")
            .arg("--storage.tsdb.retention.time=10y");
        Process::start("prometheus", dir, command)
    }

    async fn ready(&mut self) {
        let url = format!("http://127.0.0.1:{}/-/ready", self.port);
        eventually("Prometheus is ready", Duration::from_secs(60), || crate::http::get(&url)).await;
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same data and port.
    pub async fn start_again(&mut self) {
        self.process = Self::spawn(&self.program, &self.dir, self.port, &self.config);
        self.ready().await;
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where remote write goes.
    pub fn write_url(&self) -> String {
        format!("{}/api/v1/write", self.url())
    }

    /// An instant query's result list; none while it does not answer.
    pub async fn query(&self, expression: &str) -> Option<Vec<serde_json::Value>> {
        let url = format!("{}/api/v1/query?query={}", self.url(), escape(expression));
        get_json(&url).await?["data"]["result"].as_array().cloned()
    }

    /// An instant query's answer at an instant (seconds since the Unix epoch): its result, or what is wrong with it.
    pub async fn query_at(&self, expression: &str, at: f64) -> Result<serde_json::Value, String> {
        let body = format!("query={}&time={at}", escape(expression));
        let (_, answer) = request(Method::POST, &format!("{}/api/v1/query", self.url()), &body)
            .await
            .ok_or("Prometheus does not answer")?;
        let answer: serde_json::Value = serde_json::from_str(&answer).map_err(|e| e.to_string())?;
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["data"].clone()),
        }
    }

    /// How an expression is understood: the tree of Prometheus' own parser (`/api/v1/parse_query`, since 3.0).
    pub async fn parse(&self, expression: &str) -> Result<serde_json::Value, String> {
        let url = format!("{}/api/v1/parse_query?query={}", self.url(), escape(expression));
        let (_, answer) = request(Method::GET, &url, "").await.ok_or("Prometheus does not answer")?;
        let answer: serde_json::Value = serde_json::from_str(&answer).map_err(|e| e.to_string())?;
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["data"].clone()),
        }
    }

    /// An instant query's only value.
    pub async fn value(&self, expression: &str) -> Option<f64> {
        let result = self.query(expression).await?;
        result.first()?["value"][1].as_str()?.parse().ok()
    }

    /// All raw samples that match a selector up to `at_ms`, over `hours` before it, by label set (as JSON text).
    pub async fn raw(&self, selector: &str, hours: u32, at_ms: i64) -> Option<BTreeMap<String, RawSamples>> {
        let time = at_ms as f64 / 1000.0;
        let url = format!(
            "{}/api/v1/query?query={}&time={time}",
            self.url(),
            escape(&format!("{selector}[{hours}h]"))
        );
        let answer = get_json(&url).await?;
        let mut all = BTreeMap::new();
        for series in answer["data"]["result"].as_array()? {
            let samples = series["values"].as_array()?.iter().filter_map(|pair| {
                let at_ms = (pair[0].as_f64()? * 1000.0).round() as i64;
                Some((at_ms, pair[1].as_str()?.parse().ok()?))
            });
            all.insert(series["metric"].to_string(), samples.collect());
        }
        Some(all)
    }
}
