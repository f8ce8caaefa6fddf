//! Real backends, started for one test each, and what tests send to them.
#![allow(dead_code, reason = "each test file uses its own part")]

use http_body_util::{BodyExt as _, Full};
use pegel_aggregator::fanout::{Delivery, Payload, Reply, Verdict};
use pegel_aggregator::session::{AgentInfo, ResolvedBlock, ResolvedSeries, ResolvedSet};
use pegel_aggregator::symbols::Symbols;
use pegel_proto::batch::{AgentEpoch, BatchSeq, Outcome};
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use pegel_proto::metrics::{Family, MetricType};
use pegel_runtime::http_client::{ClientTls, HttpClient, http_client};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// A server process and its directory; both go when it is dropped.
pub struct Backend {
    child: Child,
    _directory: tempfile::TempDir,
    log: PathBuf,
    pub base: String,
    client: HttpClient,
}

/// How long a server may take to start, and data to show up. Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_mins(1);

impl Backend {
    /// Prometheus 3.13, from the cache that `scripts/test` fills.
    pub async fn prometheus(out_of_order_window: Option<&str>) -> Self {
        let binary = std::env::var_os("PEGEL_PROMETHEUS").map_or_else(
            || {
                let home = std::env::var_os("HOME").expect("HOME is set");
                PathBuf::from(home).join(".cache/pegel-tests/prometheus-3.13.5/prometheus")
            },
            PathBuf::from,
        );
        let directory = tempfile::tempdir().unwrap();
        let window = out_of_order_window
            .map(|window| format!("storage:\n  tsdb:\n    out_of_order_time_window: {window}\n"))
            .unwrap_or_default();
        std::fs::write(directory.path().join("prometheus.yml"), window).unwrap();
        let mut command = Command::new(binary);
        command
            .arg("--web.enable-remote-write-receiver")
            .arg(format!("--config.file={}", directory.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("tsdb").display()));
        Self::start(command, directory, "--web.listen-address=", "/-/ready").await
    }

    /// VictoriaMetrics, from Debian's package.
    pub async fn victoria_metrics() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("/usr/bin/victoria-metrics");
        command.arg(format!("-storageDataPath={}", directory.path().display()));
        Self::start(command, directory, "-httpListenAddr=", "/health").await
    }

    async fn start(mut command: Command, directory: tempfile::TempDir, listen: &str, ready: &str) -> Self {
        // A server that can't report a port of the system's choice gets one that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = directory.path().join("log");
        let file = std::fs::File::create(&log).unwrap();
        command.arg(format!("{listen}127.0.0.1:{port}"));
        let child = command
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let client = http_client(&ClientTls::default(), Duration::from_secs(1)).unwrap();
        let base = format!("http://127.0.0.1:{port}");
        let backend = Self { child, _directory: directory, log, base, client };
        backend.until("the server is ready", async || backend.get(ready).await.0 == 200).await;
        backend
    }

    pub fn write_url(&self) -> http::Uri {
        format!("{}/api/v1/write", self.base).parse().unwrap()
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let request = http::Request::get(format!("{}{path}", self.base)).body(Full::default()).unwrap();
        match self.client.request(request).await {
            Ok(response) => {
                let status = response.status().as_u16();
                let body = response
                    .into_body()
                    .collect()
                    .await
                    .map(http_body_util::Collected::to_bytes)
                    .unwrap_or_default();
                (status, String::from_utf8_lossy(&body).into_owned())
            }
            Err(_) => (0, String::new()),
        }
    }

    /// All samples of the selector in the last days: labels (`k=v,…`) to times and values.
    pub async fn samples(&self, selector: &str) -> BTreeMap<String, Vec<(i64, f64)>> {
        let query: String = format!("{selector}[5d]")
            .bytes()
            .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02x}") })
            .collect();
        let at = now_ms() / 1000 + 900;
        let (status, body) = self.get(&format!("/api/v1/query?query={query}&time={at}")).await;
        assert_eq!(status, 200, "{body}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        let mut all = BTreeMap::new();
        for series in answer["data"]["result"].as_array().unwrap() {
            let labels: BTreeMap<_, _> =
                series["metric"].as_object().unwrap().iter().map(|(k, v)| (k, v.as_str().unwrap())).collect();
            let name: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let samples = series["values"].as_array().unwrap();
            let samples = samples.iter().map(|s| {
                let ms = (s[0].as_f64().unwrap() * 1000.0).round() as i64;
                (ms, s[1].as_str().unwrap().parse().unwrap())
            });
            all.insert(name.join(","), samples.collect());
        }
        all
    }

    /// Polls until it is so.
    pub async fn until(&self, what: &str, so: impl AsyncFn() -> bool) {
        let started = std::time::Instant::now();
        while !so().await {
            if started.elapsed() > DEADLINE {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                panic!("waited {DEADLINE:?} in vain until {what}; the server's log:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// An agent that submits batches and hears what became of them.
pub struct Agent {
    pub info: Arc<AgentInfo>,
    seq: u64,
    sender: mpsc::UnboundedSender<Verdict>,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
}

impl Agent {
    pub fn new(tenant: &str, node: &str, session: u64) -> Self {
        let (sender, verdicts) = mpsc::unbounded_channel();
        let identity =
            AgentIdentity { tenant: TenantId::parse(tenant).unwrap(), node: NodeId::parse(node).unwrap() };
        let info = AgentInfo {
            identity,
            epoch: AgentEpoch(1),
            session,
            version: String::new(),
            hostname: String::new(),
            peer: ([127, 0, 0, 1], 1).into(),
        };
        Self { info: Arc::new(info), seq: 0, sender, verdicts }
    }

    pub fn batch(&mut self, sent_before: bool, blocks: Vec<ResolvedBlock>) -> Delivery {
        self.seq += 1;
        Delivery {
            agent: self.info.clone(),
            seq: BatchSeq(self.seq),
            sent_before,
            payload: Payload::Metrics(blocks),
            reply: Reply(self.sender.clone()),
        }
    }

    /// The next verdict.
    pub async fn verdict(&mut self) -> Verdict {
        tokio::time::timeout(DEADLINE, self.verdicts.recv()).await.expect("a verdict").unwrap()
    }

    /// The next batch's outcome.
    pub async fn outcome(&mut self) -> Outcome {
        match self.verdict().await {
            Verdict::Settled(_, outcome) => outcome,
            other => panic!("{other:?} where a batch was to be settled"),
        }
    }
}

/// A set of series `NAME{i=…,node=NODE}`.
pub fn set(symbols: &Arc<Symbols>, name: &str, node: &str, series: usize) -> Arc<ResolvedSet> {
    let family = Arc::new(Family {
        name: name.into(),
        kind: MetricType::Gauge,
        help: "What a test sends.".into(),
        unit: "".into(),
    });
    let series: Vec<_> = (0..series)
        .map(|i| {
            let labels = [("__name__", name), ("i", &format!("{i:04}")), ("node", node)];
            Arc::new(ResolvedSeries::new(symbols, &labels, family.clone()))
        })
        .collect();
    // Sets of one name share series.
    Arc::new(ResolvedSet::new(series, name.len() as u32))
}

/// A block whose value is a function of series and instant.
pub fn block(set: &Arc<ResolvedSet>, at_ms: i64) -> ResolvedBlock {
    let values = (0..set.series.len()).map(|i| value(i, at_ms)).collect();
    ResolvedBlock { at_ms, set: set.clone(), values, stamps_ms: None }
}

pub fn value(series: usize, at_ms: i64) -> f64 {
    (at_ms % 1_000_000) as f64 + series as f64 / 16.0
}

/// Checks that these are exactly the samples of a set at these instants.
pub fn assert_holds(
    found: &BTreeMap<String, Vec<(i64, f64)>>,
    name: &str,
    node: &str,
    series: impl Iterator<Item = usize> + Clone,
    instants: &[i64],
) {
    for i in series {
        let expected: Vec<_> = instants.iter().map(|at| (*at, value(i, *at))).collect();
        let key = format!("__name__={name},i={i:04},node={node}");
        assert_eq!(found.get(&key), Some(&expected), "{key}");
    }
}
