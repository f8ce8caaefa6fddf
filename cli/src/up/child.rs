//! A child process: started with its log in a file, watched, ended.

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How many of its last log lines are shown when a child dies.
const LOG_TAIL: usize = 12;

/// A running child.
pub(super) struct Child {
    name: &'static str,
    log: PathBuf,
    process: tokio::process::Child,
}

/// A child ended that nobody told to.
#[derive(Debug, thiserror::Error)]
#[error("{name} has ended by itself ({status}). The end of its log, {}:\n{tail}", log.display())]
pub(super) struct Ended {
    name: &'static str,
    status: ExitStatus,
    log: PathBuf,
    tail: String,
    pub(super) code: Option<i32>,
}

impl Child {
    /// Starts `PROGRAM run --config CONFIG`.
    pub(super) fn start(name: &'static str, program: &Path, config: &Path, log: PathBuf) -> Result<Self> {
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let process = tokio::process::Command::new(program)
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name, log, process })
    }

    /// Waits until it has written the address that it listens on.
    pub(super) async fn address(&mut self, file: &Path, within: Duration) -> Result<SocketAddr> {
        let deadline = Instant::now() + within;
        loop {
            let written =
                std::fs::read_to_string(file).ok().and_then(|text| text.lines().next()?.trim().parse().ok());
            if let Some(address) = written {
                return Ok(address);
            }
            if let Some(status) = self.process.try_wait()? {
                return Err(self.report(status).into());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} does not listen after {} s; its log is {}",
                    self.name,
                    within.as_secs(),
                    self.log.display()
                );
            }
            tokio::time::sleep(super::LOOK).await;
        }
    }

    /// Waits until it ends by itself.
    pub(super) async fn ended(&mut self) -> Ended {
        match self.process.wait().await {
            Ok(status) => self.report(status),
            Err(_) => self.report(ExitStatus::default()),
        }
    }

    fn report(&self, status: ExitStatus) -> Ended {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
        Ended { name: self.name, status, log: self.log.clone(), tail, code: status.code() }
    }

    /// Asks it to end, and kills it if it does not within the time.
    pub(super) async fn end(mut self, within: Duration) -> Result<()> {
        let Some(pid) = self.process.id().and_then(|id| Pid::from_raw(id as i32)) else { return Ok(()) };
        kill_process(pid, Signal::TERM).with_context(|| format!("cannot stop {}", self.name))?;
        match tokio::time::timeout(within, self.process.wait()).await {
            Ok(ended) if ended.as_ref().is_ok_and(ExitStatus::success) => Ok(()),
            Ok(ended) => {
                bail!("{} did not end well: {}; its log is {}", self.name, ended?, self.log.display())
            }
            Err(_) => {
                self.process.kill().await?;
                bail!(
                    "{} did not end within {} s and was killed; its log is {}",
                    self.name,
                    within.as_secs(),
                    self.log.display()
                )
            }
        }
    }
}
