//! A Docker engine of the test's own: its own containerd, data, socket, cgroup, and namespaces for network and
//! mounts, so that engines of several tests run beside each other and beside the machine's.
//!
//! ```ignore
//! let Some(docker) = Docker::start(dir.path()).await else { return };          // SKIPPED is printed
//! let id = docker.run(&["--name", "web", "--memory", "64m"], "serve 80 then idle").await;
//! docker.cli(&["exec", "web", "/workload", "touch", "/state"]).await;          // any other command of `docker`
//! docker.engine.signal(Signal::STOP);                                          // it hangs
//! ```
//!
//! Nothing can be pulled here. The one image, [`IMAGE`], is made from scratch with the program of
//! `tests/workload/workload.rs`, whose steps are the container's command.

use crate::process::Process;
use crate::{backend, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The image with the workload.
pub const IMAGE: &str = "pegel/workload:1";
/// An engine starts within a second or two on an idle machine.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// How long killed processes may take to leave their cgroup.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// A running engine. Dropping it ends every container, process and mount of it.
#[derive(Debug)]
pub struct Docker {
    /// The engine, dockerd. Killed or stopped, it leaves containers running, as their shims are containerd's.
    pub engine: Process,
    containerd: Process,
    dir: PathBuf,
    cgroup: String,
}

impl Docker {
    /// Starts an engine in a directory and puts the image in; none, with the reason printed, if there can't be one.
    pub async fn start(dir: &Path) -> Option<Self> {
        backend("docker")?;
        let workload = backend("workload")?;
        let dir = dir.join("docker");
        fs::create_dir_all(dir.join("image")).expect("a directory");
        // Without the right to lower scores of the OOM killer, which machines for tests rarely have, the CRI starts no
        // sandbox otherwise.
        let config = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nrestrict_oom_score_adj = true\n";
        fs::write(dir.join("containerd.toml"), config).expect("a configuration");
        let mut containerd = Command::new("unshare");
        containerd
            .args(["--net", "--mount", "--propagation", "private", "containerd", "--log-level", "warn"])
            .args(["--config".as_ref(), dir.join("containerd.toml").as_os_str()])
            .args(["--root".as_ref(), dir.join("containerd").as_os_str()])
            .args(["--state".as_ref(), dir.join("containerd-run").as_os_str()])
            .args(["--address".as_ref(), dir.join("containerd.sock").as_os_str()]);
        let containerd = Process::start("containerd", &dir, containerd);
        let socket = dir.join("containerd.sock");
        eventually("containerd has a socket", STARTS_WITHIN, || async { socket.exists().then_some(()) })
            .await;
        enter(&containerd, "ip").args(["link", "set", "lo", "up"]).status().expect("ip");
        let cgroup = format!("pegel-test-{}", containerd.pid());
        let engine = Self::spawn(&containerd, &dir, &cgroup);
        let docker = Self { engine, containerd, dir, cgroup };
        docker.ready().await;
        docker.build(&workload).await;
        Some(docker)
    }

    fn spawn(containerd: &Process, dir: &Path, cgroup: &str) -> Process {
        let mut engine = enter(containerd, "dockerd");
        engine
            .args(["--data-root".as_ref(), dir.join("data").as_os_str()])
            .args(["--exec-root".as_ref(), dir.join("run").as_os_str()])
            .args(["--pidfile".as_ref(), dir.join("docker.pid").as_os_str()])
            .args(["--containerd".as_ref(), dir.join("containerd.sock").as_os_str()])
            .arg(format!("--host=unix://{}", dir.join("docker.sock").display()))
            .args(["--log-level=warn", "--live-restore", "--cgroup-parent"])
            .arg(format!("/{cgroup}"));
        Process::start("dockerd", dir, engine)
    }

    async fn ready(&self) {
        eventually("the engine answers", STARTS_WITHIN, || async { self.try_cli(&["version"]).await.ok() })
            .await;
    }

    async fn build(&self, workload: &Path) {
        let context = self.dir.join("image");
        fs::copy(workload, context.join("workload")).expect("the workload is copied");
        // The workload is process 1 of its container, where signals without a handler do nothing.
        let recipe =
            "FROM scratch\nCOPY workload /workload\nENTRYPOINT [\"/workload\"]\nSTOPSIGNAL SIGKILL\n";
        fs::write(context.join("Dockerfile"), recipe).expect("a Dockerfile");
        self.cli(&["build", "--quiet", "--tag", IMAGE, &context.to_string_lossy()]).await;
    }

    /// The engine's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// The socket of its containerd, which serves the CRI too.
    pub fn containerd_socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// The cgroup below which all containers are, as its path in every hierarchy: `/CGROUP/ID`.
    pub fn cgroup(&self) -> String {
        format!("/{}", self.cgroup)
    }

    /// Runs a container in the background, with these options and the workload's steps; gives its id.
    pub async fn run(&self, options: &[&str], steps: &str) -> String {
        let mut arguments = vec!["run", "--detach"];
        arguments.extend(options);
        arguments.push(IMAGE);
        arguments.extend(steps.split_whitespace());
        self.cli(&arguments).await
    }

    /// A command of `docker` with its output, trimmed. It must succeed.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        self.try_cli(arguments).await.unwrap_or_else(|e| panic!("docker {}: {e}", arguments.join(" ")))
    }

    /// A command of `docker` with its output, or what it said as it failed.
    pub async fn try_cli(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CONFIG", self.dir.join("config"))
            .args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let output = output.expect("a command that does not panic").map_err(|e| e.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// A command in the engine's namespaces, where its containers' addresses can be reached.
    pub fn inside(&self, program: &str) -> Command {
        enter(&self.containerd, program)
    }

    /// Kills the engine; containers go on.
    pub fn kill_engine(&mut self) {
        self.engine.kill();
    }

    /// Starts the engine again after it was killed or ended.
    pub async fn start_engine_again(&mut self) {
        let _ = fs::remove_file(self.dir.join("docker.pid"));
        self.engine = Self::spawn(&self.containerd, &self.dir, &self.cgroup);
        self.ready().await;
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Shims and containers are nobody's children: whoever is in the mount namespace belongs to this engine.
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let network = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let (ours, our_network) = (namespace(self.containerd.pid()), network(self.containerd.pid()));
        let in_cgroup = format!("/{}/", self.cgroup);
        self.engine.kill();
        self.containerd.kill();
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            let shim = ours.is_some() && namespace(pid) == ours && network(pid) == our_network;
            let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            if (shim || cgroups.contains(&in_cgroup))
                && let Some(pid) = Pid::from_raw(pid as i32)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        remove_cgroups(&self.cgroup);
    }
}

/// Removes what containers left of the engine's cgroup. The killed are gone a moment later than their signal.
fn remove_cgroups(cgroup: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for parent in hierarchies.chain([root.to_owned()]).map(|hierarchy| hierarchy.join(cgroup)) {
        let deadline = Instant::now() + GONE_WITHIN;
        while parent.exists() && Instant::now() < deadline {
            let below = fs::read_dir(&parent).into_iter().flatten().flatten().map(|entry| entry.path());
            below.filter(|path| path.is_dir()).for_each(|path| drop(fs::remove_dir(path)));
            if fs::remove_dir(&parent).is_err() {
                std::thread::yield_now();
            }
        }
    }
}

/// A command in the namespaces that containerd was given; the process that it becomes is the one that was started.
fn enter(containerd: &Process, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &containerd.pid().to_string(), "--net", "--mount", program]);
    command
}
