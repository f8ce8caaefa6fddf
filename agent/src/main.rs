//! `pegel-agent`.

use clap::Parser as _;
use pegel_agent::{app, cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    let actions =
        cli::Actions { run: app::run, once: app::once, inspect: app::inspect_buffer, rejects: app::rejects };
    pegel_runtime::exit::report("pegel-agent", &cli::execute(cli::Cli::parse(), &actions))
}
