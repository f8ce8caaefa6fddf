//! Benchmarks of pegel. Each prints one JSON object a line, beside what it is compared with.

#![forbid(unsafe_code)]

mod agent;
mod forward;
mod latency;
mod logs;
mod null_receiver;
mod probes;
mod process;
mod site;
mod spool;
mod wire;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(about, version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Bytes and CPU time a sample on the wire, beside remote write.
    Wire {
        /// A recording of scrapes: JSON lines, zstd.
        file: PathBuf,
    },
    /// Durable append and FIFO drain of the spool, beside a bare loop of write and fdatasync.
    Spool(spool::Arguments),
    /// CPU time and memory of an aggregator that a thousand agents send to.
    Forward(forward::Arguments),
    /// Memory and CPU time a scrape of the agent, without containers and with them, beside node_exporter and a bare
    /// loop of reads.
    Agent(agent::Arguments),
    /// From collection to queryable in Prometheus.
    Latency(latency::Arguments),
    /// CPU time, memory and punctuality of thousands of http checks, beside blackbox_exporter.
    Probes(probes::Arguments),
    /// Lines from files to a Loki that forgets them: a corpus that is there, and lines that are being written, beside a
    /// bare loop that reads, compresses, syncs and posts.
    Logs(logs::Arguments),
    /// The loop beside which `logs` measures.
    #[command(hide = true)]
    BareLogs(logs::BareArguments),
    /// The loop of reads beside which `agent` measures.
    #[command(hide = true)]
    BareLoop(agent::BareArguments),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().bench {
        Bench::Wire { file } => wire::run(&file),
        Bench::Spool(arguments) => spool::run(&arguments),
        Bench::Forward(arguments) => forward::run(&arguments),
        Bench::Agent(arguments) => agent::run(&arguments),
        Bench::Latency(arguments) => latency::run(&arguments),
        Bench::Probes(arguments) => probes::run(&arguments),
        Bench::Logs(arguments) => logs::run(&arguments),
        Bench::BareLogs(arguments) => logs::bare_loop(&arguments),
        Bench::BareLoop(arguments) => agent::bare_loop(&arguments),
    }
}
