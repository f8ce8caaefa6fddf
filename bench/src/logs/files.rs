//! Very many files that are read once and then idle: what the agent keeps of each, and what watching them costs, told by
//! inotify and by looking again and again.

use super::{Arguments, LOOK, PATIENCE, Shipping};
use crate::process::{beside, round};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// In so many directories.
const DIRECTORIES: usize = 50;
/// Each file has so many lines.
const LINES: usize = 20;
/// How long the agent may take to close what it has read: ten seconds after the last line, and some.
const CLOSES_WITHIN: Duration = Duration::from_secs(60);

/// How the agent hears of changes.
#[derive(Clone, Copy)]
enum Told {
    Inotify,
    /// In a namespace in which there is no inotify to be had.
    Nobody,
}

/// Runs both lines.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let count = if arguments.quick { arguments.files.min(2_000) } else { arguments.files };
    write(dir.path(), count)?;
    for told in [Told::Inotify, Told::Nobody] {
        idle(arguments, dir.path(), count, told)?;
    }
    Ok(())
}

fn write(dir: &Path, count: usize) -> Result<()> {
    for nth in 0..DIRECTORIES {
        std::fs::create_dir(dir.join(format!("service-{nth:02}")))?;
    }
    for nth in 0..count {
        let mut text = String::new();
        for line in 0..LINES {
            writeln!(
                text,
                "2026-01-01T00:00:00Z info worker {nth} has done step {line} of its work, all is well"
            )?;
        }
        let name = format!("service-{:02}/worker-{nth:05}.log", nth % DIRECTORIES);
        std::fs::write(dir.join(name), text)?;
    }
    Ok(())
}

fn idle(arguments: &Arguments, dir: &Path, count: usize, told: Told) -> Result<()> {
    let program = beside("pegel-agent")?;
    let agent = match told {
        Told::Inotify => Command::new(program),
        Told::Nobody => {
            let mut command = Command::new("unshare");
            let none = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
            command.args(["--user", "--map-root-user", "sh", "-c", none]).arg(program);
            command
        }
    };
    let pattern = format!("{}/**/*.log", dir.display());
    let begin = Instant::now();
    let shipping = Shipping::start_under(agent, arguments, &pattern)?;
    shipping.until((count * LINES) as u64)?;
    let read_s = begin.elapsed().as_secs_f64();
    let closed_by = Instant::now() + PATIENCE + CLOSES_WITHIN;
    loop {
        let status = shipping.agent_status()?;
        let open = status["logs"]["files"]["open"].as_u64().context("the status has no files")?;
        if open == 0 {
            break;
        }
        ensure!(Instant::now() < closed_by, "{open} files are still open: {}", shipping.agent.log());
        std::thread::sleep(20 * LOOK);
    }
    let span = Duration::from_secs(if arguments.quick { 5 } else { arguments.idle_seconds });
    let before = shipping.agent.usage()?;
    let began = Instant::now();
    std::thread::sleep(span);
    let after = shipping.agent.usage()?;
    let seconds = began.elapsed().as_secs_f64();
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", shipping.agent.id()))?.count();
    println!(
        "{}",
        json!({
            "bench": "logs", "mode": "files", "files": count, "directories": DIRECTORIES,
            "told_by": match told { Told::Inotify => "inotify", Told::Nobody => "polling" },
            "first_read_s": round(read_s), "seconds": round(seconds),
            "cpu_percent": round((after.thread_cpu_ms - before.thread_cpu_ms) / 10.0 / seconds),
            "resident_mb": round(after.resident_mb), "anonymous_mb": round(after.anonymous_mb),
            "peak_mb": round(after.peak_mb), "descriptors": descriptors,
            "wakeups_per_s": round((after.wakeups - before.wakeups) as f64 / seconds),
        })
    );
    Ok(())
}
