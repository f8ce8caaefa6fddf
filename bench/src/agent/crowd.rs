//! Containers that do nothing, in a Docker engine of the benchmark's own.

use anyhow::Result;
use pegel_tests::docker::{Docker, IMAGE};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// How many are started at once.
const AT_ONCE: usize = 4;

/// See the module. All of it ends when it is dropped.
pub struct Crowd {
    docker: Docker,
    count: usize,
    _dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Crowd {
    /// Starts an engine and this many containers; none, with the reason printed, if there can't be an engine.
    pub fn start(count: usize) -> Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let Some(docker) = runtime.block_on(Docker::start(dir.path())) else { return Ok(None) };
        eprintln!("starting {count} containers");
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Relaxed);
                        if n >= count {
                            return;
                        }
                        let name = format!("sleeper-{n}");
                        let command =
                            ["run", "--detach", "--name", &name, "--label", "team=bench", IMAGE, "idle"];
                        runtime.block_on(docker.cli(&command));
                    }
                });
            }
        });
        Ok(Some(Self { docker, count, _dir: dir, _runtime: runtime }))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The agent's configuration that finds them.
    pub fn sections(&self, interval: Duration) -> String {
        format!(
            "containers: {{interval: {}s, runtimes: {{sockets: [{{kind: docker, path: {}}}]}}}}\n",
            interval.as_secs(),
            self.docker.socket().display()
        )
    }
}
