//! `bench agent`: memory and CPU time a scrape of the agent, delivery included, beside node_exporter with the same
//! collectors under an equal scrape, and beside a bare loop that reads the same files, all at the same time. With
//! containers a second agent runs beside them that has them too: what they cost is what lies between the two.

mod bare;
mod crowd;
mod fed;

use crate::process::{Process, Usage, backend, round};
use anyhow::{Context as _, Result, ensure};
pub use bare::{BareArguments, run as bare_loop};
use crowd::Crowd;
use fed::Fed;
use pegel_agent::source::host::CollectorKind;
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The interval with which pegel's host source and most scrapers run.
const USUAL_INTERVAL_SECONDS: u64 = 15;

/// Which measurements are made.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only at an interval of 1 s, with few scrapes.
    #[arg(long)]
    quick: bool,
    /// Seconds between two scrapes; may be given more than once.
    #[arg(long = "interval", default_values_t = [1, USUAL_INTERVAL_SECONDS])]
    intervals: Vec<u64>,
    /// Scrapes that are measured; without it 120 at 1 s, and less the longer the interval is.
    #[arg(long)]
    scrapes: Option<u32>,
    /// Containers that run in a Docker engine of the benchmark's own, in a second measurement; 0 for none.
    #[arg(long, default_value_t = 200)]
    containers: usize,
}

/// How long is waited before measuring, and how many scrapes are measured.
struct Plan {
    interval: Duration,
    warm_up: u32,
    scrapes: u32,
}

impl Arguments {
    fn plans(&self) -> Vec<Plan> {
        let intervals = if self.quick { &[1][..] } else { &self.intervals };
        let plan = |seconds: &u64| {
            let seconds = (*seconds).max(1);
            // Some minutes a measurement, and never so few that one odd scrape decides.
            let scrapes = if self.quick { 40 } else { (180 / seconds as u32).clamp(10, 120) };
            Plan {
                interval: Duration::from_secs(seconds),
                warm_up: (10 / seconds as u32).max(2),
                scrapes: self.scrapes.unwrap_or(scrapes).max(1),
            }
        };
        intervals.iter().map(plan).collect()
    }
}

/// Runs all lines.
pub fn run(arguments: &Arguments) -> Result<()> {
    let plans = arguments.plans();
    for plan in &plans {
        measure(plan, None)?;
    }
    if arguments.containers > 0 {
        match Crowd::start(arguments.containers)? {
            Some(crowd) => plans.iter().try_for_each(|plan| measure(plan, Some(&crowd)))?,
            None => eprintln!("SKIPPED: the measurement with containers needs a Docker engine"),
        }
    }
    Ok(())
}

/// Somebody who is measured.
struct Measured<'a> {
    who: &'static str,
    process: &'a Process,
    /// Samples that it has delivered so far.
    samples: Box<dyn Fn() -> u64 + 'a>,
}

fn measure(plan: &Plan, crowd: Option<&Crowd>) -> Result<()> {
    let seconds = plan.interval.as_secs();
    let plain =
        Fed::start(plan.interval, if crowd.is_some() { "containers: {enabled: false}\n" } else { "" })?;
    let with_containers =
        crowd.map(|crowd| Fed::start(plan.interval, &crowd.sections(plan.interval))).transpose()?;
    let (mut exporter, port) = start_exporter(plain.site.dir())?;
    let mut bare = Command::new(std::env::current_exe()?);
    bare.args(["bare-loop", "--interval-seconds", &seconds.to_string()]);
    let bare = Process::start("bare", plain.site.dir(), &mut bare)?;
    exporter.until("listen", || Ok(scrape(port).ok()))?;

    let begin = Instant::now();
    let exported = std::cell::Cell::new(0_u64);
    let scrapes_until = |last: u32, from: u32| -> Result<()> {
        for scrape_number in from..last {
            // In the middle between the agent's, which are aligned to the interval with a jitter.
            let due = begin + plan.interval * scrape_number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            exported.set(exported.get() + scrape(port)? as u64);
        }
        // The others end their scrape too, and the agent has its answer.
        std::thread::sleep(plan.interval / 2);
        Ok(())
    };
    let mut all = vec![
        Measured { who: "pegel-agent", process: &plain.agent, samples: Box::new(|| plain.samples()) },
        Measured { who: "node_exporter", process: &exporter, samples: Box::new(|| exported.get()) },
        Measured { who: "bare loop", process: &bare, samples: Box::new(|| 0) },
    ];
    if let Some(fed) = &with_containers {
        let samples = Box::new(|| fed.samples());
        all.insert(1, Measured { who: "pegel-agent with containers", process: &fed.agent, samples });
    }
    let usage = || -> Result<Vec<(u64, Usage)>> {
        all.iter().map(|one| Ok(((one.samples)(), one.process.usage()?))).collect()
    };
    scrapes_until(plan.warm_up, 0)?;
    let before = usage()?;
    scrapes_until(plan.warm_up + plan.scrapes, plan.warm_up)?;
    let after = usage()?;
    ensure!(after[0].0 > before[0].0, "nothing arrived. The agent said: {}", plain.agent.log());
    for ((one, before), after) in all.iter().zip(before).zip(after) {
        let each = |total: f64| round(total / f64::from(plan.scrapes));
        let (before_samples, before) = before;
        let (after_samples, after) = after;
        println!(
            "{}",
            json!({
                "bench": "agent",
                "who": one.who,
                "interval_s": seconds,
                "containers": crowd.map_or(0, Crowd::len),
                "series": (after_samples - before_samples) / u64::from(plan.scrapes),
                "resident_mb": round(after.resident_mb),
                "cpu_ms_per_scrape": each(after.thread_cpu_ms - before.thread_cpu_ms),
                "cpu_ms_per_scrape_ended_threads_too": each(after.cpu_ms - before.cpu_ms),
                "core_percent": round((after.thread_cpu_ms - before.thread_cpu_ms)
                    / (plan.interval * plan.scrapes).as_secs_f64() / 10.0),
                "anonymous_mb": round(after.anonymous_mb),
                "wakeups_per_scrape": each((after.wakeups - before.wakeups) as f64),
                "scrapes": plan.scrapes,
            })
        );
    }
    Ok(())
}

/// Starts node_exporter with the agent's default collectors and nothing of its own.
fn start_exporter(dir: &Path) -> Result<(Process, u16)> {
    let program = backend("PEGEL_NODE_EXPORTER", "node_exporter-1.12.1/node_exporter")?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let collectors = CollectorKind::ALL.iter().filter(|kind| kind.on_by_default());
    let mut command = Command::new(program);
    command
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--web.disable-exporter-metrics", "--collector.disable-defaults"])
        .args(collectors.map(|kind| format!("--collector.{}", kind.name())));
    Ok((Process::start("node_exporter", dir, &mut command)?, port))
}

/// Scrapes an exporter on the loopback as Prometheus would, but for compression, which would only cost it more. Gives
/// the number of samples.
fn scrape(port: u16) -> Result<usize> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "the exporter answered {head}");
    Ok(body.lines().filter(|line| line.starts_with("node_")).count())
}
