//! `bench agent`: memory and CPU time a scrape of the agent, delivery included, beside node_exporter with the same
//! collectors under an equal scrape, and beside a bare loop that reads the same files, all at the same time.

mod bare;

use crate::null_receiver::NullReceiver;
use crate::process::{Process, Usage, backend, round};
use crate::site::{Backend, Site};
use anyhow::{Context as _, Result, ensure};
pub use bare::{BareArguments, run as bare_loop};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// The agent's default collectors, which node_exporter is given too.
const COLLECTORS: [&str; 13] = [
    "meminfo",
    "cpu",
    "diskstats",
    "netdev",
    "filesystem",
    "netstat",
    "vmstat",
    "loadavg",
    "stat",
    "uname",
    "time",
    "filefd",
    "pressure",
];

/// Which measurements are made.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only at an interval of 1 s.
    #[arg(long)]
    quick: bool,
}

/// How long is waited before measuring, and how many scrapes are measured.
struct Plan {
    interval: Duration,
    warm_up: u32,
    scrapes: u32,
}

/// Runs all lines.
pub fn run(arguments: &Arguments) -> Result<()> {
    at_interval(&Plan { interval: Duration::from_secs(1), warm_up: 10, scrapes: 40 })?;
    if !arguments.quick {
        at_interval(&Plan { interval: Duration::from_secs(15), warm_up: 2, scrapes: 8 })?;
    }
    Ok(())
}

fn at_interval(plan: &Plan) -> Result<()> {
    let seconds = plan.interval.as_secs();
    let receiver = NullReceiver::start()?;
    let site = Site::start(Some(&Backend { url: &receiver.url(), protocol: "auto" }))?;
    let agent = site.agent(&format!("{seconds}s"))?;
    let (mut exporter, port) = start_exporter(&site)?;
    let mut bare = Command::new(std::env::current_exe()?);
    bare.args(["bare-loop", "--interval-seconds", &seconds.to_string()]);
    let bare = Process::start("bare", site.dir(), &mut bare)?;
    exporter.until("listen", || Ok(scrape(port).ok()))?;

    let begin = Instant::now();
    let scrapes_until = |last: u32, from: u32| -> Result<usize> {
        let mut series = 0;
        for scrape_number in from..last {
            // In the middle between the agent's, which are aligned to the interval with a jitter.
            let due = begin + plan.interval * scrape_number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            series = scrape(port)?;
        }
        // The others end their scrape too, and the agent has its answer.
        std::thread::sleep(plan.interval / 2);
        Ok(series)
    };
    scrapes_until(plan.warm_up, 0)?;
    let usage = || -> Result<[Usage; 3]> { Ok([agent.usage()?, exporter.usage()?, bare.usage()?]) };
    let (samples_before, before) = (receiver.samples(), usage()?);
    let exporter_series = scrapes_until(plan.warm_up + plan.scrapes, plan.warm_up)?;
    let (samples, after) = (receiver.samples() - samples_before, usage()?);
    ensure!(samples > 0, "nothing arrived. The agent said: {}", agent.log());
    let agent_series = samples as usize / plan.scrapes as usize;
    for (who, series, before, after) in [
        ("pegel-agent", agent_series, before[0], after[0]),
        ("node_exporter", exporter_series, before[1], after[1]),
        ("bare loop", 0, before[2], after[2]),
    ] {
        let each = |total: f64| round(total / f64::from(plan.scrapes));
        println!(
            "{}",
            json!({
                "bench": "agent",
                "who": who,
                "interval_s": seconds,
                "series": series,
                "resident_mb": round(after.resident_mb),
                "cpu_ms_per_scrape": each(after.thread_cpu_ms - before.thread_cpu_ms),
                "anonymous_mb": round(after.anonymous_mb),
                "wakeups_per_scrape": each((after.wakeups - before.wakeups) as f64),
                "scrapes": plan.scrapes,
            })
        );
    }
    Ok(())
}

/// Starts node_exporter with the agent's collectors and nothing of its own.
fn start_exporter(site: &Site) -> Result<(Process, u16)> {
    let program = backend("PEGEL_NODE_EXPORTER", "node_exporter-1.12.1/node_exporter")?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new(program);
    command
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--web.disable-exporter-metrics", "--collector.disable-defaults"])
        .args(COLLECTORS.map(|name| format!("--collector.{name}")));
    Ok((Process::start("node_exporter", site.dir(), &mut command)?, port))
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
