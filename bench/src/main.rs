//! Benchmarks, each printing one JSON object a line.

use clap::{Parser, Subcommand};

mod spool;

/// Benchmarks of pegel: one JSON object a line.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Durable append and FIFO drain of the spool, beside a bare loop of write and fdatasync.
    Spool(spool::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().bench {
        Bench::Spool(arguments) => spool::run(&arguments),
    }
}
