//! A Debian machine with systemd as its PID 1, booted by systemd-nspawn for one test.
//!
//! The tree comes from `tests/backends/backend machine` and is never written to: what the machine writes goes to a
//! tmpfs. `tests/backends/boot` runs it and ends it when the test's end of a pipe closes, so that nothing outlives a
//! test that panics or is killed: no process, no mount, no cgroup.

use crate::{backend, binary, eventually, workspace};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a machine may take until its units are up: two seconds on an idle machine.
const UP_WITHIN: Duration = Duration::from_mins(2);

/// How long the machine may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// How long a command inside may take before it is killed.
const COMMAND_WITHIN: Duration = Duration::from_mins(1);

/// How often the end of a machine is looked for where nothing can wait.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// The last lines of the console that a failing test prints.
const CONSOLE_LINES: usize = 40;

/// Which control groups the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// Only the unified hierarchy. It has the controllers that the host has not bound to a version 1 hierarchy.
    V2,
    /// A version 1 hierarchy for each of the host's, and systemd's own. All but systemd's are read-only inside.
    V1,
}

/// What a machine gets beside the tree.
#[derive(Debug, Clone)]
pub struct MachineSetup {
    cgroups: Cgroups,
    host_network: bool,
    binds: Vec<(PathBuf, String)>,
    options: Vec<String>,
}

impl MachineSetup {
    /// A machine with a network of its own (the loopback only) and the host's directory [`Machine::shared`] at
    /// [`SHARED`].
    pub fn new(cgroups: Cgroups) -> Self {
        Self { cgroups, host_network: false, binds: Vec::new(), options: Vec::new() }
    }

    /// Has it share the host's network.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// Shows a file or directory of the host at a path inside, read-only.
    #[must_use]
    pub fn bind(mut self, host: impl Into<PathBuf>, inside: impl Into<String>) -> Self {
        self.binds.push((host.into(), inside.into()));
        self
    }

    /// Shows a binary of this workspace as `/usr/bin/NAME`.
    #[must_use]
    pub fn program(self, name: &str) -> Self {
        let path = binary(name);
        self.bind(path, format!("/usr/bin/{name}"))
    }

    /// Gives systemd-nspawn one more option.
    #[must_use]
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }
}

/// Where [`Machine::shared`] is inside.
pub const SHARED: &str = "/shared";

/// A running machine. Dropping it ends it at once; [`Machine::power_off`] shuts it down.
#[derive(Debug)]
pub struct Machine {
    boot: Child,
    /// As long as this is open, the machine lives.
    lifeline: Option<ChildStdin>,
    /// Its PID 1, as the host numbers it.
    leader: u32,
    name: String,
    dir: TempDir,
}

impl Machine {
    /// Boots one and waits until its units are up; none, with the reason printed, where no machine can be had.
    pub async fn boot(setup: MachineSetup) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: backend machine: only root can boot a machine; run the tests as root");
            return None;
        }
        let tree = backend("machine")?;
        let dir = TempDir::new().expect("a directory");
        std::fs::create_dir(dir.path().join("shared")).expect("a directory");
        let name = format!("pegel-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut boot = command(&tree, &name, &setup, dir.path()).spawn().expect("tests/backends/boot starts");
        let lifeline = boot.stdin.take();
        let mut machine = Self { boot, lifeline, leader: 0, name, dir };
        machine.up().await;
        Some(machine)
    }

    /// Its name, which its control groups on the host have, too.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory of the host that the machine has at [`SHARED`]; sockets in it work from both sides.
    pub fn shared(&self) -> PathBuf {
        self.dir.path().join("shared")
    }

    /// Its PID 1, as the host numbers it: `/proc/LEADER/root` is its file system.
    pub fn leader(&self) -> u32 {
        self.leader
    }

    /// Enters the machine's namespaces and runs a program there, as root. The process stays in the test's control
    /// group, and its own children may outlive it: for systemd's own tools, and where systemd itself is not to be
    /// asked.
    pub fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.leader.to_string(), "--all", "--", "/usr/bin/env", "-i"]);
        command.args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"]);
        command.arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a shell script inside, as root, in a unit of its own, and gives its output and status, whatever that is.
    /// What the script starts in the background stays.
    pub async fn attempt(&self, script: &str) -> Output {
        let mut command = self.enter("systemd-run");
        command.args(["--pipe", "--wait", "--collect", "--quiet", "--setenv=LC_ALL=C.UTF-8"]);
        command.arg(format!("--property=RuntimeMaxSec={}", COMMAND_WITHIN.as_secs()));
        command.arg("--property=KillMode=process");
        command.args(["--", "/bin/bash", "-c", script]);
        let run = tokio::task::spawn_blocking(move || command.output());
        run.await.expect("the command runs").expect("nsenter starts")
    }

    /// Runs a shell script inside and gives what it printed; panics with all of it if the script fails.
    pub async fn run(&self, script: &str) -> String {
        let output = self.attempt(script).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "in the machine, {}: `{script}` said\n{out}\n{error}",
            output.status
        );
        out
    }

    /// Writes a file inside, with its directories.
    pub fn write(&self, path: &str, content: &[u8]) {
        let path = PathBuf::from(format!("/proc/{}/root{path}", self.leader));
        let parent = path.parent().expect("a file is in a directory");
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, content))
            .unwrap_or_else(|error| panic!("cannot write {} inside: {error}", path.display()));
    }

    /// Writes a unit file and has systemd know it.
    pub async fn unit(&self, name: &str, content: &str) {
        self.write(&format!("/etc/systemd/system/{name}"), content.as_bytes());
        self.run("systemctl daemon-reload").await;
    }

    /// Shuts it down and waits until it is gone.
    pub async fn power_off(mut self) {
        // The answer may be lost with the system that gives it.
        let _ = self.enter("systemctl").args(["--no-block", "poweroff"]).output();
        let boot = std::cell::RefCell::new(&mut self.boot);
        let ended = || async { boot.borrow_mut().try_wait().expect("a child") };
        let status = eventually("the machine has powered off", GONE_WITHIN, ended).await;
        assert!(status.success(), "the machine ended with {status}");
    }

    /// What systemd said on the console.
    pub fn console(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("console.log")).unwrap_or_default()
    }

    async fn up(&mut self) {
        let this = std::cell::RefCell::new(self);
        eventually("the machine is up", UP_WITHIN, || async {
            let mut this = this.borrow_mut();
            let ended = this.boot.try_wait().expect("a child");
            assert!(ended.is_none(), "the machine ended at its boot: {ended:?}");
            if this.leader == 0 {
                this.leader = leader(this.boot.id())?;
            }
            // `degraded` is up, too: some unit has failed, which is the test's business.
            let state = this.enter("systemctl").arg("is-system-running").output().ok()?;
            matches!(state.stdout.trim_ascii(), b"running" | b"degraded").then_some(())
        })
        .await;
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let deadline = Instant::now() + GONE_WITHIN;
        while matches!(self.boot.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.boot.kill();
                eprintln!("the machine is not gone within {GONE_WITHIN:?}");
            }
            std::thread::sleep(POLL_EVERY);
        }
        if std::thread::panicking() {
            let console = self.console();
            let lines: Vec<&str> = console.lines().collect();
            eprintln!("---- the machine's console (last {CONSOLE_LINES} lines):");
            for line in &lines[lines.len().saturating_sub(CONSOLE_LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

fn command(tree: &Path, name: &str, setup: &MachineSetup, dir: &Path) -> Command {
    let console = File::create(dir.join("console.log")).expect("a log file");
    let mut command = Command::new(workspace().join("tests/backends/boot"));
    command.arg(tree).arg(name).arg(match setup.cgroups {
        Cgroups::V1 => "v1",
        Cgroups::V2 => "v2",
    });
    if !setup.host_network {
        command.arg("--private-network");
    }
    // A container engine's layers cannot lie on the overlay that is the machine's root.
    command.args(["--tmpfs=/var/lib/containers", "--tmpfs=/var/lib/containerd"]);
    command.arg(format!("--bind={}:{SHARED}", dir.join("shared").display()));
    for (host, inside) in &setup.binds {
        command.arg(format!("--bind-ro={}:{inside}", host.display()));
    }
    command.args(&setup.options);
    let second = console.try_clone().expect("a second handle of the log");
    command.stdin(Stdio::piped()).stdout(second).stderr(console);
    command
}

/// The machine's PID 1, below the script that boots it: a child of systemd-nspawn that is number 1 in its namespace.
fn leader(boot: u32) -> Option<u32> {
    let nspawn = children(boot).into_iter().find(|pid| named(*pid, "systemd-nspawn"))?;
    children(nspawn).into_iter().find(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        numbers.is_some_and(|numbers| numbers.split_whitespace().nth(1) == Some("1"))
    })
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn named(pid: u32, name: &str) -> bool {
    // The kernel keeps 15 bytes of a name.
    let kept = &name[..name.len().min(15)];
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == kept)
}
