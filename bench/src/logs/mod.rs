//! `bench logs`: lines from files through the real agent, its spool and QUIC and the real aggregator to a Loki that
//! forgets them. `catch-up` is a corpus that is there at the start; `steady` is lines that are written while it runs;
//! `outage` is the same with a sink that is away for a while. `files` is very many files that nobody writes to. A bare loop runs over the same corpus.

mod bare;
mod corpus;
mod files;
mod sink;

use crate::process::{Process, Usage, beside, round};
use crate::site::Site;
use anyhow::{Context as _, Result, ensure};
pub use bare::{BareArguments, run as bare_loop};
use corpus::{Generator, Kind};
use serde_json::{Value, json};
use sink::{STAMP, Sink, now_ns};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether all has come.
const LOOK: Duration = Duration::from_millis(5);
/// How often the steady load is written: as a service does that logs a handful of lines at once.
const WRITE_EVERY: Duration = Duration::from_millis(5);
const GIB: f64 = (1_u64 << 30) as f64;

/// Which measurements are made.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A corpus of 64 MiB, and a few seconds of the rest.
    #[arg(long)]
    quick: bool,
    /// The corpus, in MiB.
    #[arg(long, default_value_t = 1_024)]
    corpus_mib: u64,
    /// The corpus' seed.
    #[arg(long, default_value_t = 5)]
    seed: u64,
    /// The steady load, in MB/s.
    #[arg(long, default_value_t = 5.0)]
    rate_mb: f64,
    /// How long the steady load is measured, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How long the sink is away in `outage`, in seconds.
    #[arg(long, default_value_t = 60)]
    away_seconds: u64,
    /// How many files `files` has.
    #[arg(long, default_value_t = 20_000)]
    files: usize,
    /// For how long idle files are watched, in seconds: more than one look at everything, which is due each minute.
    #[arg(long, default_value_t = 120)]
    idle_seconds: u64,
    /// Only one of `bare`, `catch-up`, `steady`, `outage`, `files`.
    #[arg(long)]
    only: Option<String>,
    /// Keys of the agent's `logs` section beside `inputs`, in YAML.
    #[arg(long, default_value = "")]
    logs_yaml: String,
}

/// Runs all lines.
pub fn run(arguments: &Arguments) -> Result<()> {
    let wanted = |mode: &str| arguments.only.as_deref().is_none_or(|only| only == mode);
    if wanted("bare") || wanted("catch-up") {
        let dir = tempfile::tempdir()?;
        let mib = if arguments.quick { arguments.corpus_mib.min(64) } else { arguments.corpus_mib };
        let corpus = corpus::write(dir.path(), mib << 20, arguments.seed)?;
        eprintln!("corpus: {} lines, {} bytes", corpus.lines, corpus.bytes);
        if wanted("bare") {
            bare_line(&corpus, dir.path())?;
        }
        if wanted("catch-up") {
            catch_up(arguments, &corpus, dir.path())?;
        }
    }
    if wanted("steady") {
        steady(arguments)?;
    }
    if wanted("outage") {
        outage(arguments)?;
    }
    if wanted("files") {
        files::run(arguments)?;
    }
    Ok(())
}

/// What a process has written to the disk, in bytes (proc(5), `io`).
fn written_bytes(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("write_bytes")?;
    Ok(line.trim().parse()?)
}

fn bare_line(corpus: &corpus::Corpus, dir: &Path) -> Result<()> {
    let sink = Sink::start()?;
    let done = dir.join("bare.done");
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bare-logs").args(["--port", &sink.port().to_string()]);
    command.arg("--spool").arg(dir.join("bare.spool")).arg("--done").arg(&done).args(&corpus.files);
    let begin = Instant::now();
    let process = Process::start("bare", dir, &mut command)?;
    while !done.exists() {
        ensure!(begin.elapsed() < 10 * PATIENCE, "the bare loop does not end: {}", process.log());
        std::thread::sleep(LOOK);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let usage = process.usage()?;
    let (_, bytes) = sink.requests();
    println!(
        "{}",
        json!({
            "bench": "logs", "mode": "bare", "corpus_bytes": corpus.bytes,
            "cpu_seconds_per_gib": round(usage.cpu_ms / 1e3 / (corpus.bytes as f64 / GIB)),
            "mb_per_s": round(corpus.bytes as f64 / 1e6 / seconds),
            "resident_mb": round(usage.peak_mb),
            "wire_ratio": round(bytes as f64 / corpus.bytes as f64),
            "disk_ratio": round(written_bytes(process.id())? as f64 / corpus.bytes as f64),
        })
    );
    Ok(())
}

/// Agent and aggregator with the sink as their Loki.
struct Shipping {
    site: Site,
    agent: Process,
    sink: Sink,
}

/// What both processes had used at one instant.
struct Reading {
    at: Instant,
    agent: Usage,
    aggregator: Usage,
    disk_bytes: u64,
    wire_bytes: u64,
}

impl Shipping {
    /// Starts both on files that are there.
    fn start(arguments: &Arguments, logs: &Path) -> Result<Self> {
        Self::start_under(Command::new(beside("pegel-agent")?), arguments, &format!("{}/*", logs.display()))
    }

    /// Starts both, the agent by a command, on the files of a pattern.
    fn start_under(agent: Command, arguments: &Arguments, pattern: &str) -> Result<Self> {
        let sink = Sink::start()?;
        let site = Site::with_outputs(&format!(
            "outputs:\n  - {{type: loki, name: bench, url: \"{}\"}}\n",
            sink.url()
        ))?;
        let more = arguments.logs_yaml.lines().fold(String::new(), |yaml, line| yaml + "  " + line + "\n");
        let sections = format!(
            "host: {{enabled: false}}\ncontainers: {{enabled: false}}\n\
             logs:\n  inputs:\n    - {{name: bench, files: [\"{pattern}\"]}}\n{more}"
        );
        let agent = site.agent_under(agent, &sections)?;
        Ok(Self { site, agent, sink })
    }

    fn read(&self) -> Result<Reading> {
        let status = self.agent_status()?;
        Ok(Reading {
            at: Instant::now(),
            agent: self.agent.usage()?,
            aggregator: self.site.aggregator.usage()?,
            disk_bytes: written_bytes(self.agent.id())?,
            wire_bytes: status["uplink"]["sent_bytes"].as_u64().unwrap_or_default(),
        })
    }

    fn agent_status(&self) -> Result<Value> {
        let address = std::fs::read_to_string(self.site.dir().join("agent.admin"))?;
        let mut stream = TcpStream::connect(address.trim())?;
        stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
        serde_json::from_str(body).context("the agent's status")
    }

    /// Waits until so many entries have come.
    fn until(&self, entries: u64) -> Result<()> {
        let (mut before, mut last) = (self.sink.entries(), Instant::now());
        while before < entries {
            std::thread::sleep(LOOK);
            let now = self.sink.entries();
            if now > before {
                (before, last) = (now, Instant::now());
            }
            ensure!(
                last.elapsed() < PATIENCE,
                "{now} of {entries} lines came, and nothing new for {PATIENCE:?}. The agent said: {}The aggregator: {}",
                self.agent.log(),
                self.site.aggregator.log()
            );
        }
        Ok(())
    }
}

fn catch_up(arguments: &Arguments, corpus: &corpus::Corpus, dir: &Path) -> Result<()> {
    let logs = dir.join("logs");
    std::fs::create_dir(&logs)?;
    for file in &corpus.files {
        std::fs::rename(file, logs.join(file.file_name().context("a name")?))?;
    }
    let begin = Instant::now();
    let shipping = Shipping::start(arguments, &logs)?;
    let aggregator = shipping.site.aggregator.usage()?;
    // The agent's start is a part of it; certificates and the aggregator's start are not.
    let started = Instant::now();
    shipping.until(corpus.lines)?;
    let after = shipping.read()?;
    let seconds = (after.at - started).as_secs_f64();
    let gib = corpus.bytes as f64 / GIB;
    let (requests, request_bytes) = shipping.sink.requests();
    println!(
        "{}",
        json!({
            "bench": "logs", "mode": "catch-up", "corpus_bytes": corpus.bytes, "lines": corpus.lines,
            "entries": shipping.sink.entries(), "line_bytes": shipping.sink.line_bytes(),
            "agent_cpu_seconds_per_gib": round(after.agent.cpu_ms / 1e3 / gib),
            "aggregator_cpu_seconds_per_gib": round((after.aggregator.cpu_ms - aggregator.cpu_ms) / 1e3 / gib),
            "mb_per_s": round(corpus.bytes as f64 / 1e6 / seconds),
            "seconds_with_start": round(begin.elapsed().as_secs_f64()),
            "resident_mb": round(after.agent.peak_mb),
            "aggregator_resident_mb": round(after.aggregator.peak_mb),
            "wire_ratio": round(after.wire_bytes as f64 / corpus.bytes as f64),
            "disk_ratio": round(after.disk_bytes as f64 / corpus.bytes as f64),
            "requests": requests, "request_ratio": round(request_bytes as f64 / corpus.bytes as f64),
        })
    );
    Ok(())
}

/// Writes lines of all kinds at a rate, each with the instant at which it was written.
struct Writer {
    files: Vec<(Generator, File, u64)>,
    bytes: u64,
    lines: u64,
    rate: f64,
    began: Instant,
}

impl Writer {
    fn new(arguments: &Arguments, dir: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for (kind, share) in Kind::SHARES {
            files.push((Generator::new(kind, arguments.seed), File::create(dir.join(kind.file()))?, share));
        }
        Ok(Self { files, bytes: 0, lines: 0, rate: arguments.rate_mb * 1e6, began: Instant::now() })
    }

    /// Writes what is due now, then waits for a moment.
    fn turn(&mut self) -> Result<()> {
        let due = (self.began.elapsed().as_secs_f64() * self.rate) as u64;
        let missing = due.saturating_sub(self.bytes);
        for (generator, file, share) in &mut self.files {
            let mut piece = Vec::new();
            let wanted = (missing * *share / 100) as usize;
            while piece.len() < wanted {
                piece.extend_from_slice(STAMP);
                write!(piece, "{} ", now_ns())?;
                generator.line(&mut piece)?;
                piece.push(b'\n');
                self.lines += 1;
            }
            file.write_all(&piece)?;
            self.bytes += piece.len() as u64;
        }
        std::thread::sleep(WRITE_EVERY);
        Ok(())
    }

    fn write_for(&mut self, span: Duration) -> Result<()> {
        let until = Instant::now() + span;
        while Instant::now() < until {
            self.turn()?;
        }
        Ok(())
    }
}

fn steady(arguments: &Arguments) -> Result<()> {
    let logs = tempfile::tempdir()?;
    let mut writer = Writer::new(arguments, logs.path())?;
    writer.turn()?;
    let shipping = Shipping::start(arguments, logs.path())?;
    writer.began = Instant::now();
    writer.bytes = 0;
    let (warm_up, span) = if arguments.quick { (2, 5) } else { (10, arguments.seconds) };
    writer.write_for(Duration::from_secs(warm_up))?;
    let (before, bytes) = (shipping.read()?, writer.bytes);
    shipping.sink.time();
    writer.write_for(Duration::from_secs(span))?;
    let after = shipping.read()?;
    let bytes = (writer.bytes - bytes) as f64;
    shipping.until(writer.lines)?;
    let seconds = (after.at - before.at).as_secs_f64();
    let delays = shipping.sink.delays_ms();
    ensure!(!delays.is_empty(), "no line came while it was measured");
    let quantile = |of: f64| round(delays[((delays.len() - 1) as f64 * of) as usize]);
    let percent = |before: &Usage, after: &Usage| round((after.cpu_ms - before.cpu_ms) / 10.0 / seconds);
    println!(
        "{}",
        json!({
            "bench": "logs", "mode": "steady", "mb_per_s": round(bytes / 1e6 / seconds),
            "agent_cpu_percent": percent(&before.agent, &after.agent),
            "aggregator_cpu_percent": percent(&before.aggregator, &after.aggregator),
            "agent_cpu_seconds_per_gib": round((after.agent.cpu_ms - before.agent.cpu_ms) / 1e3 / (bytes / GIB)),
            "aggregator_cpu_seconds_per_gib":
                round((after.aggregator.cpu_ms - before.aggregator.cpu_ms) / 1e3 / (bytes / GIB)),
            "resident_mb": round(after.agent.resident_mb),
            "aggregator_resident_mb": round(after.aggregator.resident_mb),
            "wire_ratio": round((after.wire_bytes - before.wire_bytes) as f64 / bytes),
            "disk_ratio": round((after.disk_bytes - before.disk_bytes) as f64 / bytes),
            "p50_ms": quantile(0.5), "p99_ms": quantile(0.99), "max_ms": quantile(1.0),
            "wakeups_per_s": round((after.agent.wakeups - before.agent.wakeups) as f64 / seconds),
        })
    );
    Ok(())
}

fn outage(arguments: &Arguments) -> Result<()> {
    let logs = tempfile::tempdir()?;
    let mut writer = Writer::new(arguments, logs.path())?;
    writer.turn()?;
    let shipping = Shipping::start(arguments, logs.path())?;
    writer.began = Instant::now();
    writer.bytes = 0;
    let (warm_up, away) = if arguments.quick { (2, 5) } else { (5, arguments.away_seconds) };
    writer.write_for(Duration::from_secs(warm_up))?;
    shipping.sink.be_away(true);
    let (before, bytes) = (shipping.read()?, writer.bytes);
    writer.write_for(Duration::from_secs(away))?;
    let during = shipping.read()?;
    let bytes = (writer.bytes - bytes) as f64;
    shipping.sink.be_away(false);
    let back = Instant::now();
    shipping.until(writer.lines)?;
    let after = shipping.read()?;
    println!(
        "{}",
        json!({
            "bench": "logs", "mode": "outage", "away_s": away, "mb_per_s": round(bytes / 1e6 / (during.at - before.at).as_secs_f64()),
            "disk_ratio": round((during.disk_bytes - before.disk_bytes) as f64 / bytes),
            "resident_mb": round(after.agent.peak_mb),
            "resident_now_mb": round(after.agent.resident_mb),
            "aggregator_resident_mb": round(after.aggregator.peak_mb),
            "drain_s": round(back.elapsed().as_secs_f64()),
            "repeated": shipping.sink.entries().saturating_sub(writer.lines),
        })
    );
    Ok(())
}
