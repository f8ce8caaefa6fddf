//! Benchmarks of pegel. Each prints one JSON object a line, beside what it is compared with.

mod spool;
mod wire;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(about, version)]
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
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().bench {
        Bench::Wire { file } => wire::run(&file),
        Bench::Spool(arguments) => spool::run(&arguments),
    }
}
