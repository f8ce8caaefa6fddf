//! `bench forward`: a thousand agents through real QUIC into the aggregator and out by remote write to a receiver that
//! forgets; CPU time and memory of the aggregator alone.

mod fleet;

use crate::null_receiver::NullReceiver;
use crate::process::round;
use crate::site::{Backend, Site};
use anyhow::{Result, ensure};
use fleet::Fleet;
use serde_json::json;
use std::time::{Duration, Instant};

/// How long until all agents' first batches are acknowledged: a thousand handshakes and a million descriptions.
const WARM_UP_LIMIT: Duration = Duration::from_mins(3);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(20);

/// How much is measured.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Agents, each with a session and a certificate of its own.
    #[arg(long, default_value_t = 1_000)]
    agents: usize,
    /// Series of each agent.
    #[arg(long, default_value_t = 1_000)]
    series: usize,
    /// Samples to measure over, in millions.
    #[arg(long, default_value_t = 6)]
    millions: u64,
    /// Only one protocol of remote write: 1.0 or 2.0.
    #[arg(long)]
    protocol: Option<String>,
}

/// Runs all lines.
pub fn run(arguments: &Arguments) -> Result<()> {
    for protocol in ["2.0", "1.0"] {
        if arguments.protocol.as_ref().is_none_or(|only| only == protocol) {
            through(protocol, arguments)?;
        }
    }
    Ok(())
}

fn through(protocol: &str, arguments: &Arguments) -> Result<()> {
    let receiver = NullReceiver::start()?;
    let site = Site::start(Some(&Backend { url: &receiver.url(), protocol }))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let fleet = runtime.block_on(async { Fleet::start(&site, arguments.agents, arguments.series) })?;
    let deadline = Instant::now() + WARM_UP_LIMIT;
    let wait_for = |reached: &dyn Fn() -> bool, what: &str| -> Result<()> {
        while !reached() {
            ensure!(Instant::now() < deadline, "{what} takes too long: {}", site.aggregator.log());
            std::thread::sleep(LOOK);
        }
        Ok(())
    };
    wait_for(&|| fleet.warm() == arguments.agents, "the first batch of each agent")?;
    let warm = site.aggregator.usage()?;
    // One more round, so that what the first one left to do is not counted.
    let round_of_all = (arguments.agents * arguments.series) as u64;
    fleet.go();
    let count_from = receiver.samples() + round_of_all;
    wait_for(&|| receiver.samples() >= count_from, "the second round")?;

    let (begin, before) = (Instant::now(), site.aggregator.usage()?);
    let (samples, requests, bytes) = (receiver.samples(), receiver.requests(), receiver.bytes());
    let until = samples + arguments.millions * 1_000_000;
    wait_for(&|| receiver.samples() >= until, "sending")?;
    let after = site.aggregator.usage()?;
    let seconds = begin.elapsed().as_secs_f64();
    let (samples, requests) = (receiver.samples() - samples, receiver.requests() - requests);
    println!(
        "{}",
        json!({
            "bench": "forward",
            "protocol": protocol,
            "samples": samples,
            "cpu_seconds_per_million": round((after.cpu_ms - before.cpu_ms) / 1e3 / (samples as f64 / 1e6)),
            "resident_mb": round(after.peak_mb),
            "resident_now_mb": round(after.resident_mb),
            "agents": arguments.agents,
            "samples_per_second": (samples as f64 / seconds).round(),
            "samples_per_request": samples / requests.max(1),
            "bytes_per_sample": round((receiver.bytes() - bytes) as f64 / samples as f64),
            "warm_up_cpu_seconds": round(warm.cpu_ms / 1e3),
        })
    );
    runtime.shutdown_background();
    Ok(())
}
