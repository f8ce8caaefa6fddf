//! `bench latency`: from the instant of a sample to the moment at which a query of Prometheus gives it.

use crate::process::{Process, backend, round};
use crate::site::{Backend, Site};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A series of the host, the same in every scrape: what it says is the instant of its newest sample.
const QUERY: &str = "/api/v1/query?query=timestamp(node_load1)";
/// How often is asked: a tenth of the goal at most, and no more than some percent of the machine.
const ASK_EVERY: Duration = Duration::from_millis(4);
/// Scrapes before it counts: the first requests negotiate, and a fresh Prometheus makes its head.
const WARM_UP: usize = 5;
/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much is measured.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many scrapes, a second each.
    #[arg(long, default_value_t = 100)]
    scrapes: usize,
}

/// Runs the benchmark.
pub fn run(arguments: &Arguments) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut prometheus, port) = start_prometheus(dir.path())?;
    let mut client = prometheus.until("answer", || Ok(Client::connect(port).ok()))?;
    prometheus.until("be ready", || Ok(client.newest().ok()))?;
    let url = format!("http://127.0.0.1:{port}/api/v1/write");
    let site = Site::start(Some(&Backend { url: &url, protocol: "auto" }))?;
    let agent = site.agent("1s", "")?;

    let mut seen_ms = 0;
    let mut delays_ms: Vec<f64> = Vec::new();
    let mut last = Instant::now();
    while delays_ms.len() < WARM_UP + arguments.scrapes {
        if let Some(at_ms) = client.newest()?.filter(|at_ms| *at_ms > seen_ms) {
            delays_ms.push(now_ms() - at_ms as f64);
            (seen_ms, last) = (at_ms, Instant::now());
        }
        ensure!(
            last.elapsed() < PATIENCE,
            "nothing new for {PATIENCE:?}. The agent said: {}The aggregator: {}",
            agent.log(),
            site.aggregator.log()
        );
        std::thread::sleep(ASK_EVERY);
    }
    delays_ms.drain(..WARM_UP);
    delays_ms.sort_by(f64::total_cmp);
    let quantile = |percent: usize| round(delays_ms[(delays_ms.len() - 1) * percent / 100]);
    println!(
        "{}",
        json!({
            "bench": "latency", "p50_ms": quantile(50), "p99_ms": quantile(99), "max_ms": quantile(100),
            "scrapes": delays_ms.len(),
        })
    );
    Ok(())
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1e3)
}

fn start_prometheus(dir: &Path) -> Result<(Process, u16)> {
    let program = backend("PEGEL_PROMETHEUS", "prometheus-3.13.5/prometheus")?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = dir.join("prometheus.yml");
    std::fs::write(&config, "global: {scrape_interval: 1h}\n")?;
    let mut command = Command::new(program);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--web.enable-remote-write-receiver");
    Ok((Process::start("prometheus", dir, &mut command)?, port))
}

/// One kept connection to Prometheus.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The newest instant of the series, in milliseconds; none before the first.
    fn newest(&mut self) -> Result<Option<i64>> {
        let request = format!("GET {QUERY} HTTP/1.1\r\nHost: bench\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "Prometheus closed the connection");
            let header = line.trim_end();
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let answer: Value = serde_json::from_slice(&body).context("an answer that is no JSON")?;
        let value = answer["data"]["result"][0]["value"][1].as_str();
        let seconds: Option<f64> = value.map(str::parse).transpose()?;
        Ok(seconds.map(|seconds| (seconds * 1e3).round() as i64))
    }
}
