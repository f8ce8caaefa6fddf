//! `bench probes`: CPU time, memory and punctuality of the agent with thousands of http checks, delivery included,
//! beside blackbox_exporter that is scraped for as many, at the same time on the same server. What the server and the
//! scraper need themselves is not counted.

mod scraper;
mod target;

use crate::null_receiver::NullReceiver;
use crate::process::{Process, Usage, backend, round};
use crate::site::{Backend, Site};
use anyhow::{Result, ensure};
use scraper::Scraper;
use serde_json::json;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use target::{Arrivals, Target};

/// How much is measured.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Targets of each of the two.
    #[arg(long, default_value_t = 2_000)]
    targets: usize,
    /// Seconds between two checks of a target.
    #[arg(long, default_value_t = 10)]
    interval: u64,
    /// Checks of a target that are measured.
    #[arg(long, default_value_t = 12)]
    rounds: u32,
}

/// Intervals before it counts: both have made their connections, buffers and series by then.
const WARM_UP: u32 = 2;

/// Runs the benchmark.
pub fn run(arguments: &Arguments) -> Result<()> {
    let interval = Duration::from_secs(arguments.interval.max(1));
    let rounds = arguments.rounds.max(2);
    let target = Target::start()?;
    let receiver = NullReceiver::start()?;
    let site = Site::start(Some(&Backend { url: &receiver.url(), protocol: "auto" }))?;
    let (mut exporter, exporter_at) = start_exporter(site.dir())?;
    exporter.until("listen", || Ok(TcpStream::connect(exporter_at).ok()))?;
    let agent = site.agent_with(&checks(&target, arguments.targets, interval))?;
    let urls = (0..arguments.targets).map(|n| target.url("blackbox", n)).collect();
    let scraper = Scraper::start(exporter_at, urls, interval)?;

    std::thread::sleep(interval * WARM_UP);
    let usage = || -> Result<[Usage; 2]> { Ok([agent.usage()?, exporter.usage()?]) };
    let (begin, before, samples) = (Instant::now(), usage()?, receiver.samples());
    std::thread::sleep(interval * rounds);
    let (end, after, samples) = (Instant::now(), usage()?, receiver.samples() - samples);
    let scraped = scraper.counts();
    ensure!(
        scraped.bad * 100 <= scraped.good,
        "of blackbox_exporter's answers {} are no successful check, {} are: {}",
        scraped.bad,
        scraped.good,
        exporter.log()
    );
    let both = [("pegel-agent", "pegel"), ("blackbox_exporter", "blackbox")];
    for ((who, path), (before, after)) in both.into_iter().zip(before.into_iter().zip(after)) {
        let arrivals = target.arrivals(path, begin, end);
        let expected = arguments.targets as u64 * u64::from(rounds);
        ensure!(
            arrivals.count() * 10 >= expected * 9,
            "{who} made {} of {expected} checks. The agent said: {}",
            arrivals.count(),
            agent.log()
        );
        print(who, arguments, &arrivals, interval, &before, &after);
    }
    eprintln!("{samples} samples of the agent arrived, {} scrapes of blackbox_exporter", scraped.good);
    let least = arguments.targets as u64 * u64::from(rounds - 1) * 10;
    ensure!(samples >= least, "only {samples} samples arrived. The agent said: {}", agent.log());
    Ok(())
}

fn print(
    who: &str,
    arguments: &Arguments,
    arrivals: &Arrivals,
    interval: Duration,
    before: &Usage,
    after: &Usage,
) {
    let mut errors_ms = arrivals.schedule_errors_ms(interval);
    errors_ms.sort_by(f64::total_cmp);
    let quantile = |percent: usize| round(errors_ms[(errors_ms.len() - 1) * percent / 100]);
    let cpu_seconds = (after.cpu_ms - before.cpu_ms) / 1e3;
    println!(
        "{}",
        json!({
            "bench": "probes",
            "who": who,
            "cpu_seconds": round(cpu_seconds),
            "resident_mb": round(after.peak_mb),
            "schedule_error_p99_ms": quantile(99),
            "schedule_error_p50_ms": quantile(50),
            "schedule_error_max_ms": quantile(100),
            "cpu_ms_per_probe": round(cpu_seconds * 1e3 / arrivals.count() as f64),
            "anonymous_mb": round(after.anonymous_mb),
            "probes": arrivals.count(),
            "targets": arguments.targets,
            "interval_s": interval.as_secs(),
        })
    );
}

/// The agent's sections: checks and nothing else.
fn checks(target: &Target, count: usize, interval: Duration) -> String {
    let seconds = interval.as_secs();
    let mut yaml = format!(
        "host: {{enabled: false}}\ncontainers: {{enabled: false}}\nprobes:\n  checks:\n  - name: bench\n    kind: http\n    \
         interval: {seconds}s\n    timeout: {seconds}s\n    targets:\n"
    );
    for n in 0..count {
        let _ = writeln!(yaml, "    - {}", target.url("pegel", n));
    }
    yaml
}

/// Starts blackbox_exporter with a module `http` that does what the agent's checks do.
fn start_exporter(dir: &Path) -> Result<(Process, SocketAddr)> {
    let program = backend("PEGEL_BLACKBOX_EXPORTER", "blackbox_exporter-0.28.0/blackbox_exporter")?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = dir.join("blackbox.yml");
    std::fs::write(&config, "modules:\n  http: {prober: http}\n")?;
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display())).arg(format!("--web.listen-address={address}"));
    Ok((Process::start("blackbox_exporter", dir, &mut command)?, address))
}
