//! The two sides of a comparison: a Prometheus that pegel feeds, and one that scrapes the exporters.

use pegel_tests::docker::Docker;
use pegel_tests::expressions::Expression;
use pegel_tests::pegel::{Agent, AgentSetup, Aggregator, Site};
use pegel_tests::process::Process;
use pegel_tests::prometheus::Prometheus;
use pegel_tests::{backend, eventually, http, lasting_port};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The label `instance` of both sides, and the agent's node.
pub const INSTANCE: &str = "machine";
/// Readings that both sides have before anything is evaluated: enough for any rate over [`RATE_INTERVAL`].
const READINGS: f64 = 25.0;
/// What dashboards are given for `$__rate_interval`.
const RATE_INTERVAL: &str = "30s";
/// How long the readings may take on a machine that does much else.
const FILLED_WITHIN: Duration = Duration::from_secs(180);

/// Whose labels the series have, and so whose expressions are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    /// node_exporter as `node`, cAdvisor of its own: node mixin, Node Exporter Full, dockprom.
    StandAlone,
    /// kube-prometheus' `node-exporter`, and the kubelet's cAdvisor: the Kubernetes mixin.
    Kubernetes,
}

impl World {
    /// Whether a source's expressions belong here.
    pub fn has(self, source: &str) -> bool {
        source.starts_with("kubernetes") == (self == Self::Kubernetes)
    }

    /// The label `job` of host series.
    fn node_job(self) -> &'static str {
        match self {
            Self::StandAlone => "node",
            Self::Kubernetes => "node-exporter",
        }
    }

    /// The agent's section `host`.
    fn host(self) -> String {
        let preset = match self {
            Self::StandAlone => "node-mixin",
            Self::Kubernetes => "kube-prometheus",
        };
        let collectors = pegel_agent::source::host::CollectorKind::ALL;
        let collectors: Vec<&str> = collectors
            .iter()
            .filter(|kind| kind.on_by_default() || EXTRA_COLLECTORS.contains(&kind.name()))
            .map(|kind| kind.name())
            .collect();
        json!({"interval": "1s", "preset": preset, "labels": {"instance": INSTANCE}, "collectors": collectors})
            .to_string()
    }
}

impl World {
    /// The agent's section `containers`.
    fn containers(self, docker: &Docker) -> String {
        let preset = match self {
            Self::StandAlone => "cadvisor",
            Self::Kubernetes => "kubelet",
        };
        json!({
            "interval": "1s",
            "preset": preset,
            "labels": {"instance": INSTANCE},
            // cAdvisor has all of them unless it is told otherwise.
            "container_labels": ["*"],
            "runtimes": {"sockets": [{"kind": "docker", "path": docker.socket()}]},
        })
        .to_string()
    }
}

/// Containers as in a cluster: a pod with limits that works, writes, reads and is talked to, and one without a pod.
async fn shop(docker: &Docker) {
    let pod = |container: &str| -> Vec<String> {
        let labels = [
            "io.kubernetes.pod.namespace=shop",
            "io.kubernetes.pod.name=web-0",
            "io.kubernetes.pod.uid=2f5a",
            &format!("io.kubernetes.container.name={container}"),
            "org.label-schema.group=monitoring",
        ];
        labels.iter().flat_map(|label| ["--label".to_owned(), (*label).to_owned()]).collect()
    };
    let labels = pod("nginx");
    let mut options = vec!["--name", "k8s_nginx_web-0_shop", "--cpus", "0.05", "--memory", "64m"];
    options.extend(labels.iter().map(String::as_str));
    let steps = "write /file 4194304 then read /file then serve 80 then allocate 8388608 then burn 0";
    docker.run(&options, steps).await;
    let address = ["inspect", "--format", "{{.NetworkSettings.IPAddress}}", "k8s_nginx_web-0_shop"];
    let address = docker.cli(&address).await;
    docker.run(&["--name", "web"], &format!("send {address}:80 1048576 then idle")).await;
}

/// The agent's section `probes`: the same check as blackbox_exporter's module makes.
fn checks(url: &str) -> String {
    let check =
        json!({"name": "http_2xx", "kind": "http", "targets": [url], "interval": "1s", "timeout": "900ms"});
    json!({"checks": [check]}).to_string()
}

/// Collectors that are off by default and that public expressions ask for.
const EXTRA_COLLECTORS: [&str; 4] = ["interrupts", "processes", "systemd", "tcpstat"];

/// Both sides, running.
pub struct Servers {
    /// Which labels the series have.
    pub world: World,
    /// What pegel feeds.
    pub pegel: Prometheus,
    /// What scrapes the exporters.
    pub other: Prometheus,
    agent: Agent,
    cgroup: Option<String>,
    _others: (Aggregator, Option<Docker>, Vec<Process>, Site),
}

impl Servers {
    /// Starts all of it; none if a server can't be had.
    pub async fn start(world: World, rules: &[&Expression]) -> Option<Self> {
        let site = Site::new();
        let node = Exporter::node(site.dir()).await?;
        let docker = Docker::start(site.dir()).await;
        let containers = match &docker {
            Some(docker) => {
                shop(docker).await;
                Exporter::containers(site.dir(), world, docker).await
            }
            None => None,
        };
        let probes = Exporter::probes(site.dir()).await;
        let pegel_dir = site.dir().join("prometheus-pegel");
        let other_dir = site.dir().join("prometheus-other");
        let rules = rules_file(world, rules);
        for dir in [&pegel_dir, &other_dir] {
            std::fs::create_dir_all(dir).expect("a directory");
            std::fs::write(dir.join("rules.yml"), &rules).expect("a file");
        }
        let pegel = Prometheus::start_with(&pegel_dir, config(&[])).await?;
        let mut jobs = vec![node.job(world.node_job(), json!({}))];
        if let Some(containers) = &containers {
            jobs.push(match world {
                World::StandAlone => containers.job("cadvisor", json!({})),
                World::Kubernetes => {
                    containers.job("kubelet", json!({"metrics_path": "/metrics/cadvisor", "node": INSTANCE}))
                }
            });
        }
        let probed = format!("{}/-/ready", pegel.url());
        jobs.extend(probes.as_ref().map(|probes| probes.probing(&probed)));
        let other = Prometheus::start_with(&other_dir, config(&jobs)).await?;
        let output = format!("url: {}", pegel.write_url());
        let aggregator = site.aggregator("one", Some(&output)).await;
        let containers_yaml = docker.as_ref().map(|docker| world.containers(docker));
        let setup = AgentSetup {
            host_yaml: Some(world.host()),
            containers: containers_yaml,
            probes: Some(checks(&probed)),
            ..AgentSetup::default()
        };
        let mut agent = site.agent(INSTANCE, &[aggregator.address()], setup);
        agent.start().await;
        let exporters = [Some(node), containers, probes].into_iter().flatten();
        let exporters: Vec<Process> = exporters.map(|exporter| exporter.process).collect();
        let cgroup = docker.as_ref().map(Docker::cgroup);
        let others = (aggregator, docker, exporters, site);
        Some(Self { world, pegel, other, agent, cgroup, _others: others })
    }

    /// Waits until both sides have enough readings.
    pub async fn filled(&self) {
        for (side, series) in [(&self.pegel, "node_time_seconds"), (&self.other, "node_time_seconds")] {
            let expression = format!("min(count_over_time({series}[5m]))");
            eventually("both sides have enough readings", FILLED_WITHIN, || async {
                side.value(&expression).await.filter(|count| *count >= READINGS)
            })
            .await;
        }
    }

    /// Whether a cgroup is the machine's root or of this test's own engine: whoever else works on the machine starts
    /// and ends containers, of engines that the agent is not told of.
    pub fn has_cgroup(&self, id: &str) -> bool {
        id == "/" || self.cgroup.as_ref().is_some_and(|cgroup| id.starts_with(cgroup.as_str()))
    }

    /// The variables of dashboards for this world's expressions of a source.
    pub fn variables(&self, source: &str) -> Vec<(&'static str, &'static str)> {
        let probes = source.starts_with("blackbox");
        vec![
            ("__rate_interval", RATE_INTERVAL),
            ("cluster", ""),
            ("instance", if probes { ".+" } else { INSTANCE }),
            ("job", if probes { "blackbox-exporter" } else { self.world.node_job() }),
            ("namespace", "shop"),
            ("node", INSTANCE),
            ("nodename", node_name()),
            ("pod", "web-0"),
        ]
    }

    /// Ends the agent as an operator would.
    pub async fn end(mut self) {
        let status = self.agent.end().await;
        assert!(status.success(), "{status}");
    }
}

/// The kernel's name of this machine, for as long as the test runs.
fn node_name() -> &'static str {
    static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NAME.get_or_init(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// A Prometheus' configuration: it scrapes each second and evaluates its rules each second.
fn config(jobs: &[serde_json::Value]) -> String {
    json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": jobs,
    })
    .to_string()
}

/// The recording rules, so that what asks for their results finds them.
fn rules_file(world: World, rules: &[&Expression]) -> String {
    let rules: Vec<_> =
        rules.iter().map(|rule| json!({"record": rule.name, "expr": world.relabelled(&rule.text)})).collect();
    json!({"groups": [{"name": "recorded", "rules": rules}]}).to_string()
}

impl World {
    /// An expression as this world's installers compile it: the kubelet serves cAdvisor's metrics under a job and
    /// path of its own.
    pub fn relabelled(self, text: &str) -> String {
        match self {
            Self::StandAlone => text.to_owned(),
            Self::Kubernetes => {
                text.replace("job=\"cadvisor\"", "job=\"kubelet\", metrics_path=\"/metrics/cadvisor\"")
            }
        }
    }
}

/// An exporter that the other side scrapes.
struct Exporter {
    process: Process,
    port: u16,
}

impl Exporter {
    async fn node(dir: &Path) -> Option<Self> {
        let textfiles = dir.join("textfiles");
        std::fs::create_dir_all(&textfiles).expect("a directory");
        let mut command = Command::new(backend("node_exporter")?);
        command.arg(format!("--collector.textfile.directory={}", textfiles.display()));
        command.args(EXTRA_COLLECTORS.map(|name| format!("--collector.{name}")));
        let port = lasting_port();
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        Some(Self::start("node_exporter", dir, command, port, "/metrics").await)
    }

    async fn containers(dir: &Path, world: World, docker: &Docker) -> Option<Self> {
        let mut command = Command::new(backend("cadvisor")?);
        let port = lasting_port();
        command.arg(format!("-listen=127.0.0.1:{port}"));
        command.arg(format!("-kubelet={}", world == World::Kubernetes));
        command.arg(format!("-docker=unix://{}", docker.socket().display()));
        Some(Self::start("cadvisor", dir, command, port, "/metrics").await)
    }

    async fn probes(dir: &Path) -> Option<Self> {
        let mut command = Command::new(backend("blackbox_exporter")?);
        let port = lasting_port();
        let config = dir.join("blackbox.yml");
        std::fs::write(&config, "modules: {http_2xx: {prober: http}}\n").expect("a file");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        Some(Self::start("blackbox_exporter", dir, command, port, "/metrics").await)
    }

    async fn start(name: &str, dir: &Path, command: Command, port: u16, path: &str) -> Self {
        let process = Process::start(name, dir, command);
        let url = format!("http://127.0.0.1:{port}{path}");
        eventually(&format!("{name} answers"), FILLED_WITHIN, || http::get(&url)).await;
        Self { process, port }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A scrape job for it, with more labels.
    fn job(&self, job: &str, labels: serde_json::Value) -> serde_json::Value {
        let mut labels = labels;
        labels["instance"] = INSTANCE.into();
        json!({"job_name": job, "static_configs": [{"targets": [self.address()], "labels": labels}]})
    }

    /// A scrape job that has it probe a URL.
    fn probing(&self, url: &str) -> serde_json::Value {
        json!({
            "job_name": "blackbox-exporter",
            "metrics_path": "/probe",
            "params": {"module": ["http_2xx"], "target": [url]},
            "static_configs": [{"targets": [self.address()], "labels": {"instance": url}}],
        })
    }
}
