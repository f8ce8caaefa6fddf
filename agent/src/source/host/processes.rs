//! Processes and threads by their state, and how many there may be, from `/proc/PID/stat` (proc_pid_stat(5)).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, quoted, uint};
use super::{CollectError, Collector, Setup};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Far more than the kernel writes about a process.
const STAT_BYTES: usize = 4096;

struct Processes {
    procfs: PathBuf,
    threads_max: PolledFile,
    pid_max: PolledFile,
    metrics: Metrics,
}

struct Metrics {
    threads: Metric,
    max_threads: Metric,
    state: Metric,
    threads_state: Metric,
    pids: Metric,
    max_processes: Metric,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let procfs = setup.paths.procfs.clone();
    Box::new(Processes {
        threads_max: PolledFile::new(procfs.join("sys/kernel/threads-max")),
        pid_max: PolledFile::new(procfs.join("sys/kernel/pid_max")),
        procfs,
        metrics: Metrics {
            threads: Metric::gauge("node_processes_threads", "Threads of all processes.", &[]),
            max_threads: Metric::gauge("node_processes_max_threads", "The limit of threads.", &[]),
            state: Metric::gauge("node_processes_state", "Processes, by their state.", &["state"]),
            threads_state: Metric::gauge(
                "node_processes_threads_state",
                "Threads, by their state.",
                &["thread_state"],
            ),
            pids: Metric::gauge("node_processes_pids", "Processes.", &[]),
            max_processes: Metric::gauge(
                "node_processes_max_processes",
                "The limit of process numbers.",
                &[],
            ),
        },
    })
}

/// What was counted.
#[derive(Default)]
struct Counts {
    processes: u64,
    threads: u64,
    states: BTreeMap<char, u64>,
    thread_states: BTreeMap<char, u64>,
}

impl Collector for Processes {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let counts = count(&self.procfs)?;
        let metrics = &self.metrics;
        out.emit(&metrics.threads, &[], counts.threads as f64);
        out.emit(&metrics.max_threads, &[], number(&mut self.threads_max)?);
        for (metric, states) in
            [(&metrics.state, &counts.states), (&metrics.threads_state, &counts.thread_states)]
        {
            for (state, count) in states {
                out.emit(metric, &[state.encode_utf8(&mut [0; 4])], *count as f64);
            }
        }
        let max_processes = number(&mut self.pid_max)?;
        out.emit(&metrics.pids, &[], counts.processes as f64);
        out.emit(&metrics.max_processes, &[], max_processes);
        Ok(())
    }
}

fn number(file: &mut PolledFile) -> Result<f64, CollectError> {
    let text = file.read()?;
    let number = uint(text.bytes.trim_ascii());
    Ok(number.ok_or_else(|| text.bad("a number is expected", text.bytes))? as f64)
}

fn count(procfs: &Path) -> Result<Counts, CollectError> {
    let mut counts = Counts::default();
    let mut buffer = vec![0; STAT_BYTES];
    let mut path = procfs.to_owned();
    let gone = || CollectError::Read { path: procfs.to_owned(), source: io::ErrorKind::NotFound.into() };
    for process in numbered(procfs)?.ok_or_else(gone)? {
        path.push(&process);
        // Whoever ended since the directory was read counts no more.
        if let Some((state, threads)) = stat(&path, &mut buffer)? {
            counts.processes += 1;
            counts.threads += threads;
            *counts.states.entry(state).or_default() += 1;
            if threads == 1 {
                // Most processes: their thread is themselves, which saves reading a directory.
                *counts.thread_states.entry(state).or_default() += 1;
                path.pop();
                continue;
            }
            path.push("task");
            for thread in numbered(&path)?.unwrap_or_default() {
                path.push(&thread);
                let state =
                    if thread == process { Some(state) } else { stat(&path, &mut buffer)?.map(|s| s.0) };
                if let Some(state) = state {
                    *counts.thread_states.entry(state).or_default() += 1;
                }
                path.pop();
            }
            path.pop();
        }
        path.pop();
    }
    Ok(counts)
}

/// The entries of a directory that are numbers; none if it has gone.
fn numbered(directory: &Path) -> Result<Option<Vec<String>>, CollectError> {
    let read = |source| CollectError::Read { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if has_gone(&error) => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let mut all = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => all.extend(
                entry.file_name().into_string().ok().filter(|name| name.bytes().all(|b| b.is_ascii_digit())),
            ),
            Err(error) if has_gone(&error) => return Ok(None),
            Err(error) => return Err(read(error)),
        }
    }
    Ok(Some(all))
}

/// The state and the number of threads in a `stat` file; none if the process has gone.
fn stat(directory: &Path, buffer: &mut [u8]) -> Result<Option<(char, u64)>, CollectError> {
    let path = directory.join("stat");
    let length = match File::open(&path).and_then(|mut file| file.read(buffer)) {
        Ok(length) => length,
        Err(error) if has_gone(&error) => return Ok(None),
        Err(source) => return Err(CollectError::Read { path, source }),
    };
    let line = &buffer[..length];
    // The name stands in parentheses and may have some of its own.
    let parsed = line.iter().rposition(|b| *b == b')').and_then(|end| {
        let mut rest = fields(&line[end + 1..]);
        let state = rest.next().filter(|state| state.len() == 1 && state[0].is_ascii_graphic())?[0];
        // The first field behind the name is the third, the number of threads the twentieth.
        Some((char::from(state), rest.nth(16).and_then(uint)?))
    });
    let bad = || CollectError::Parse {
        path,
        what: "a state and a number of threads are expected",
        line: quoted(line),
    };
    parsed.map(Some).ok_or_else(bad)
}

fn has_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}
