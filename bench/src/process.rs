//! Child processes and what /proc says of them.

use anyhow::{Context as _, Result, bail};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take until it listens: a cold disk, a busy machine.
const START: Duration = Duration::from_secs(20);
/// How often is looked for what a program writes when it listens.
const LOOK: Duration = Duration::from_millis(20);
/// The kernel's unit of times in /proc/PID/stat (proc(5)); 100 on every Linux that pegel runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running program, killed when dropped. What it says goes to a file.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program whose output goes to `DIR/NAME.log`.
    pub fn start(name: &'static str, dir: &Path, command: &mut Command) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        Ok(Self { name, child, log })
    }

    /// Waits until the program has written a file and gives its text.
    pub fn wrote(&mut self, file: &Path) -> Result<String> {
        self.until(&format!("write {}", file.display()), || match fs::read_to_string(file) {
            Ok(text) if !text.trim().is_empty() => Ok(Some(text.trim().to_owned())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        })
    }

    /// Waits until `look` gives something.
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} has ended ({status}): {}", self.name, self.log());
            }
            if Instant::now() > deadline {
                bail!("{} did not {what} within {START:?}: {}", self.name, self.log());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has used so far.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// CPU time of the threads that live, in milliseconds: exact to the scheduler's nanoseconds.
    pub thread_cpu_ms: f64,
    /// CPU time of all threads there ever were, in milliseconds: in steps of 10.
    pub cpu_ms: f64,
    /// Resident memory, in MB of 1,000,000 bytes as everywhere here.
    pub resident_mb: f64,
    /// That part of it which is the process' own and no file's.
    pub anonymous_mb: f64,
    /// The most that was ever resident.
    pub peak_mb: f64,
    /// Times that a thread was put on a CPU.
    pub wakeups: u64,
}

impl Usage {
    /// Reads a process' figures (proc(5); Documentation/scheduler/sched-stats.rst for schedstat).
    pub fn of(pid: u32) -> Result<Self> {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let (mut nanoseconds, mut wakeups) = (0_u64, 0_u64);
        for task in fs::read_dir(dir.join("task"))? {
            // A thread that ends meanwhile is none.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
            nanoseconds += fields.next().context("schedstat is empty")??;
            wakeups += fields.nth(1).context("schedstat has no third field")??;
        }
        let stat = fs::read_to_string(dir.join("stat"))?;
        // The name may hold blanks; behind its parenthesis utime and stime are fields 12 and 13.
        let behind = stat.rsplit_once(')').context("stat has no name")?.1;
        let ticks: Vec<&str> = behind.split_ascii_whitespace().skip(11).take(2).collect();
        let ticks = ticks.iter().map(|t| t.parse::<f64>()).sum::<Result<f64, _>>()?;
        let status = fs::read_to_string(dir.join("status"))?;
        let mb = |key: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).context("a line of status")?;
            let kib: f64 = line.split_ascii_whitespace().next().context("a number")?.parse()?;
            Ok(kib * 1024.0 / 1e6)
        };
        Ok(Self {
            thread_cpu_ms: nanoseconds as f64 / 1e6,
            cpu_ms: ticks * 1e3 / TICKS_PER_SECOND,
            resident_mb: mb("VmRSS:")?,
            anonymous_mb: mb("RssAnon:")?,
            peak_mb: mb("VmHWM:")?,
            wakeups,
        })
    }
}

/// A program of this workspace, beside this one.
pub fn beside(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let path = here.parent().unwrap_or(Path::new(".")).join(name);
    if !path.exists() {
        bail!("{} is missing: `scripts/bench` builds it", path.display());
    }
    Ok(path)
}

/// A backend's program: by environment, as `scripts/bench` gives it, or where `tests/backends/backend` keeps it.
pub fn backend(variable: &str, cached: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let home = std::env::var_os("HOME").unwrap_or_default();
    let path = Path::new(&home).join(".cache/pegel-tests").join(cached);
    if path.exists() {
        return Ok(path);
    }
    bail!("{variable} is not set and {} is not there: run `scripts/bench`, which gets it", path.display())
}

/// Rounds for people: figures have no more than three digits that mean something.
pub fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
