//! A Docker engine, an agent that reads its containers each half second, and a Prometheus where it arrives.

use pegel_tests::docker::Docker;
use pegel_tests::pegel::{Agent, AgentSetup, Aggregator, Site};
use pegel_tests::prometheus::Prometheus;
use pegel_tests::{eventually, let_run};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How soon a number has to arrive on a machine that does much else.
pub const SOON: Duration = Duration::from_secs(30);
/// How often is looked for it.
const POLL_EVERY: Duration = Duration::from_millis(200);

/// See the module.
pub struct World {
    /// The engine.
    pub docker: Docker,
    /// What the agent feeds.
    pub prometheus: Prometheus,
    /// The agent.
    pub agent: Agent,
    _aggregator: Aggregator,
    _site: Site,
}

impl World {
    /// Starts all of it, with more keys of the section `containers`; none if a server can't be had.
    pub async fn start(containers: Value) -> Option<Self> {
        let site = Site::new();
        let docker = Docker::start(site.dir()).await?;
        let prometheus = Prometheus::start(&site.dir().join("prometheus"), "0s").await?;
        let output = format!("url: {}", prometheus.write_url());
        let aggregator = site.aggregator("one", Some(&output)).await;
        let mut section = json!({
            "interval": "500ms",
            "runtimes": {"sockets": [{"kind": "docker", "path": docker.socket()}]},
        });
        for (key, value) in containers.as_object().into_iter().flatten() {
            section[key] = value.clone();
        }
        let setup = AgentSetup { containers: Some(section.to_string()), ..AgentSetup::default() };
        let mut agent = site.agent("web-1", &[aggregator.address()], setup);
        agent.start().await;
        Some(Self { docker, prometheus, agent, _aggregator: aggregator, _site: site })
    }

    /// The only value of an expression, once it passes.
    pub async fn value(&self, expression: &str, passes: impl Fn(f64) -> bool) -> f64 {
        let deadline = Instant::now() + SOON;
        loop {
            let value = self.prometheus.value(expression).await;
            if let Some(value) = value.filter(|value| passes(*value)) {
                return value;
            }
            assert!(Instant::now() < deadline, "{expression} is {value:?} after {SOON:?}");
            let_run(POLL_EVERY).await;
        }
    }

    /// Waits until an expression has no result.
    pub async fn empty(&self, expression: &str) {
        eventually(&format!("{expression} has no result"), SOON, || async {
            self.prometheus.query(expression).await?.is_empty().then_some(())
        })
        .await;
    }

    /// Waits until the container has said this.
    pub async fn said(&self, container: &str, words: &str) {
        eventually(&format!("{container} says {words}"), SOON * 2, || async {
            self.docker.try_cli(&["logs", container]).await.ok()?.contains(words).then_some(())
        })
        .await;
    }

    /// What `docker inspect` says by a template.
    pub async fn inspect(&self, container: &str, template: &str) -> String {
        self.docker.cli(&["inspect", "--format", template, container]).await
    }
}
