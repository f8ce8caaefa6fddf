//! `pegel-aggregator`.

#![forbid(unsafe_code)]

use clap::Parser as _;
use pegel_aggregator::{app, cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    pegel_runtime::exit::report("pegel-aggregator", &cli::execute(cli::Cli::parse(), app::run))
}
