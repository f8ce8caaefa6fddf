//! Aggregators and agents as real processes on one state directory each: started, killed, started again on the same
//! ports, asked for their books.

use crate::http::{get, get_json, request};
use crate::process::Process;
use crate::{binary, eventually, lasting_port, let_run};
use hyper::Method;
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use pegel_runtime::pki::{AggregatorNames, CertificateAuthority, DEFAULT_LEAF_LIFETIME, Existing};
use rustix::process::Signal;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long a program may take to say where it listens, on a machine that builds something else meanwhile.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How long a program may take to end by itself: its own limit is 10 s at most.
const END_WITHIN: Duration = Duration::from_secs(20);
/// How often the books are looked at until they are settled: longer than the agent takes to publish them.
const SETTLE_POLL: Duration = Duration::from_millis(1_200);
/// The name of every test's output.
pub const OUTPUT: &str = "prometheus";

/// A directory with a certificate authority: what aggregators and agents of one test share.
#[derive(Debug)]
pub struct Site {
    dir: tempfile::TempDir,
    authority: CertificateAuthority,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// Makes one.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let lifetime = DEFAULT_LEAF_LIFETIME;
        let authority =
            CertificateAuthority::init(&dir.path().join("pki"), "pegel", lifetime, Existing::Refuse)
                .expect("a certificate authority");
        Self { dir, authority }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its certificate authority.
    pub fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    /// Starts an aggregator. `output` is the YAML of its output after the name, as lines of `key: value`; none for
    /// an aggregator without a backend.
    pub async fn aggregator(&self, name: &str, output: Option<&str>) -> Aggregator {
        let outputs = output.map(|output| {
            let mut yaml = format!("outputs:\n  - type: remote_write\n    name: {OUTPUT}\n");
            for line in output.lines() {
                let _ = writeln!(yaml, "    {}", line.trim());
            }
            yaml
        });
        self.aggregator_with(name, &outputs.unwrap_or_default()).await
    }

    /// Starts an aggregator with further YAML at the end of its configuration: `outputs` and so on. Without
    /// `status` in it there is no page.
    pub async fn aggregator_with(&self, name: &str, rest: &str) -> Aggregator {
        let dir = self.subdirectory(name);
        let names = AggregatorNames {
            name: NodeId::parse(name).expect("a name"),
            dns: Vec::new(),
            addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        };
        let files = self.authority.issue_aggregator(&names, DEFAULT_LEAF_LIFETIME, Existing::Refuse);
        let files = files.expect("a certificate");
        let port = lasting_port();
        let mut yaml = format!(
            "listen: [\"127.0.0.1:{port}\"]\nname: {name}\ntls:\n  cert_file: {}\n  key_file: {}\n  client_ca_file: {}\n  crl_file: {}\n\
             admin: {{listen: \"127.0.0.1:0\", address_file: admin.address}}\nnode_up: {{interval: 1s}}\n",
            files.cert.display(),
            files.key.display(),
            self.authority.certificate_path().display(),
            self.authority.crl_path().display(),
        );
        if !rest.contains("status:") {
            yaml.push_str("status: {enabled: false}\n");
        }
        yaml.push_str(rest);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut aggregator = Aggregator { daemon: Daemon::new("pegel-aggregator", dir, Vec::new()), address };
        aggregator.daemon.write_config(&yaml);
        aggregator.start().await;
        aggregator
    }

    /// Sets an agent up without starting it.
    pub fn agent(&self, node: &str, aggregators: &[SocketAddr], setup: AgentSetup) -> Agent {
        let dir = self.subdirectory(node);
        let tenant = TenantId::parse("tests").expect("a name");
        let identity = AgentIdentity { tenant, node: NodeId::parse(node).expect("a name") };
        let files = self.authority.issue_agent(&identity, DEFAULT_LEAF_LIFETIME, Existing::Refuse);
        let files = files.expect("a certificate");
        let shift = dir.join("clock-shift-ms");
        std::fs::write(&shift, "0").expect("a file");
        let state_dir = setup.state_dir.clone().unwrap_or_else(|| dir.join("state"));
        let head = format!(
            "aggregator:\n  addresses: {aggregators:?}\n  ca_file: {}\n  cert_file: {}\n  key_file: {}\nstate_dir: {}\nshutdown_timeout: 3s\n\
             admin: {{listen: \"127.0.0.1:0\", address_file: admin.address}}\n",
            self.authority.certificate_path().display(),
            files.cert.display(),
            files.key.display(),
            state_dir.display(),
        );
        let environment = vec![("PEGEL_TEST_CLOCK_SHIFT_FILE", shift.clone())];
        let daemon = Daemon::new("pegel-agent", dir, environment);
        let agent = Agent { daemon, head, setup, shift, state_dir };
        agent.write_config(true);
        agent
    }

    fn subdirectory(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        dir
    }
}

/// A program with its directory and configuration, running or not.
#[derive(Debug)]
struct Daemon {
    program: &'static str,
    dir: PathBuf,
    environment: Vec<(&'static str, PathBuf)>,
    process: Option<Process>,
}

impl Daemon {
    fn new(program: &'static str, dir: PathBuf, environment: Vec<(&'static str, PathBuf)>) -> Self {
        Self { program, dir, environment, process: None }
    }

    fn config(&self) -> PathBuf {
        self.dir.join("config.yaml")
    }

    fn write_config(&self, yaml: &str) {
        std::fs::write(self.config(), yaml).expect("a configuration");
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary(self.program));
        command.arg("run").arg("--config").arg(self.config());
        for (variable, value) in &self.environment {
            command.env(variable, value);
        }
        command
    }

    /// Starts it and waits until its admin address is known, which both write last.
    async fn start(&mut self) {
        let address = self.dir.join("admin.address");
        let _ = std::fs::remove_file(&address);
        let process = self.process.insert(Process::start(self.program, &self.dir, self.command()));
        let process = std::cell::RefCell::new(process);
        eventually(&format!("{} listens", self.program), START_WITHIN, || async {
            assert!(process.borrow_mut().runs(), "{} ended at its start", self.program);
            std::fs::read_to_string(&address).ok().filter(|text| text.contains(':'))
        })
        .await;
    }

    fn admin(&self, path: &str) -> String {
        let address = std::fs::read_to_string(self.dir.join("admin.address")).unwrap_or_default();
        format!("http://{}{path}", address.trim())
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    async fn end(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        process.end(END_WITHIN).await
    }

    fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }
}

/// An aggregator.
#[derive(Debug)]
pub struct Aggregator {
    daemon: Daemon,
    address: SocketAddr,
}

impl Aggregator {
    /// Where agents connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts it (again), on the same port.
    pub async fn start(&mut self) {
        self.daemon.start().await;
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// SIGTERM, and waits for its end.
    pub async fn end(&mut self) -> ExitStatus {
        self.daemon.end().await
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        self.daemon.running()
    }

    /// A URL of its admin HTTP.
    pub fn admin(&self, path: &str) -> String {
        self.daemon.admin(path)
    }
}

/// What an agent collects and how it keeps it.
#[derive(Debug, Clone, Default)]
pub struct AgentSetup {
    /// Exporters, by the job's name, with the interval.
    pub jobs: Vec<(String, SocketAddr, Duration)>,
    /// The host source's interval; none for no host source.
    pub host: Option<Duration>,
    /// The YAML of `host` in braces, in place of an interval.
    pub host_yaml: Option<String>,
    /// The YAML of `containers`, in braces; none for no container source.
    pub containers: Option<String>,
    /// The YAML of `probes`, in braces.
    pub probes: Option<String>,
    /// The YAML of `logs`, in braces.
    pub logs: Option<String>,
    /// The YAML of `buffer`, in braces.
    pub buffer: Option<String>,
    /// The state directory, if not the agent's own.
    pub state_dir: Option<PathBuf>,
}

impl AgentSetup {
    /// One exporter under the job `oracle`.
    pub fn scraping(exporter: SocketAddr, interval: Duration) -> Self {
        Self { jobs: vec![("oracle".to_owned(), exporter, interval)], ..Self::default() }
    }

    /// With these keys of `buffer`, as YAML in braces.
    #[must_use]
    pub fn buffer(mut self, yaml: &str) -> Self {
        self.buffer = Some(yaml.to_owned());
        self
    }
}

/// An output's books, as the agent tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the agent's Books")]
pub struct Books {
    pub collected: u64,
    pub delivered: u64,
    pub held_already: u64,
    pub in_front: u64,
    pub spooled: u64,
    pub dropped: BTreeMap<String, u64>,
    pub rejected: BTreeMap<String, u64>,
    pub lost_in_crash: u64,
    pub balanced: bool,
}

impl Books {
    /// What a backend should hold of it.
    pub fn arrived(&self) -> u64 {
        self.delivered + self.held_already
    }

    /// Samples dropped for any reason.
    pub fn dropped(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Samples rejected for any reason.
    pub fn rejected(&self) -> u64 {
        self.rejected.values().sum()
    }
}

/// An agent.
#[derive(Debug)]
pub struct Agent {
    daemon: Daemon,
    head: String,
    setup: AgentSetup,
    shift: PathBuf,
    state_dir: PathBuf,
}

impl Agent {
    /// Starts it (again) on the same state directory.
    pub async fn start(&mut self) {
        self.daemon.start().await;
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// SIGTERM, and waits for its end.
    pub async fn end(&mut self) -> ExitStatus {
        self.daemon.end().await
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        self.daemon.running()
    }

    /// Its state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.daemon.config()
    }

    /// Shifts its wall clock by so many milliseconds from the true one.
    pub fn shift_clock(&self, by_ms: i64) {
        // Renamed into place: the agent must not read half a number.
        let new = self.shift.with_extension("new");
        std::fs::write(&new, by_ms.to_string())
            .and_then(|()| std::fs::rename(&new, &self.shift))
            .expect("a file");
    }

    /// A URL of its admin HTTP.
    pub fn admin(&self, path: &str) -> String {
        self.daemon.admin(path)
    }

    /// Its status as JSON.
    pub async fn status(&self) -> Option<serde_json::Value> {
        get_json(&self.admin("/api/v1/status")).await
    }

    /// Its metrics as text.
    pub async fn metrics(&self) -> Option<String> {
        get(&self.admin("/metrics")).await
    }

    /// The books of its first output. They balance whenever somebody looks.
    pub async fn books(&self) -> Option<Books> {
        self.books_of("metrics").await
    }

    /// The books of a signal's first output.
    pub async fn books_of(&self, signal: &str) -> Option<Books> {
        let status = self.status().await?;
        let all = status["books"].as_array()?;
        let books = all.iter().find(|books| books["signal"] == signal)?;
        let books: Books = serde_json::from_value(books.clone()).expect("books");
        assert!(books.balanced, "the books do not balance: {status:#}");
        Some(books)
    }

    /// Asks it to take its configuration again; the answer's status and words.
    pub async fn reload(&self) -> Option<(u16, String)> {
        request(Method::POST, &self.admin("/-/reload"), "").await
    }

    /// Has it scrape nothing more (a reload) and waits until all that it collected is settled: the final books.
    pub async fn settled(&self, within: Duration) -> Books {
        self.write_config(false);
        let (status, words) = self.reload().await.expect("the agent answers");
        assert_eq!(status, 200, "{words}");
        let deadline = Instant::now() + within;
        let mut before = 0;
        loop {
            let_run(SETTLE_POLL).await;
            let Some(books) = self.books().await else { continue };
            let status = self.status().await.unwrap_or_default();
            let gone = status["targets"].as_array().is_some_and(Vec::is_empty);
            // Two looks that agree: the markers of removed targets come a moment after the reload.
            if gone && books.in_front + books.spooled == 0 && before == books.collected {
                return books;
            }
            before = books.collected;
            assert!(
                Instant::now() < deadline,
                "within {within:?} not all that was collected is settled: {status:#}"
            );
        }
    }

    /// Waits until it has a session.
    pub async fn connected(&self, within: Duration) {
        eventually("the agent is connected", within, || async {
            (self.status().await?["uplink"]["state"] == "connected").then_some(())
        })
        .await;
    }

    /// SIGHUP.
    pub fn hangup(&mut self) {
        self.daemon.running().signal(Signal::HUP);
    }

    /// Writes its configuration, with its scrape jobs or without.
    pub fn write_config(&self, with_jobs: bool) {
        let mut yaml = self.head.clone();
        match self.setup.host {
            _ if self.setup.host_yaml.is_some() => {
                let _ = writeln!(yaml, "host: {}", self.setup.host_yaml.as_deref().unwrap_or_default());
            }
            Some(interval) => {
                let _ = writeln!(yaml, "host: {{interval: {}ms}}", interval.as_millis());
            }
            None => yaml.push_str("host: {enabled: false}\n"),
        }
        // Whatever containers the machine has, a test that does not ask for them is not to count them.
        let containers = self.setup.containers.as_deref().unwrap_or("{enabled: false}");
        let _ = writeln!(yaml, "containers: {containers}");
        if let Some(probes) = self.setup.probes.as_ref().filter(|_| with_jobs) {
            let _ = writeln!(yaml, "probes: {probes}");
        }
        if let Some(logs) = &self.setup.logs {
            let _ = writeln!(yaml, "logs: {logs}");
        }
        if let Some(buffer) = &self.setup.buffer {
            let _ = writeln!(yaml, "buffer: {buffer}");
        }
        if with_jobs && !self.setup.jobs.is_empty() {
            yaml.push_str("scrape:\n  jobs:\n");
            for (name, target, interval) in &self.setup.jobs {
                let interval = interval.as_millis();
                let _ =
                    writeln!(yaml, "    - {{name: {name}, targets: [\"{target}\"], interval: {interval}ms}}");
            }
        }
        self.daemon.write_config(&yaml);
    }
}
