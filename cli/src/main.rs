//! `pegel`: starts an agent and an aggregator on one machine, issues certificates, and tells why data is not there.

#![forbid(unsafe_code)]

mod cli;
mod client;
mod fleet;
mod paint;
mod pki;
mod tail;
mod up;

use clap::{CommandFactory as _, Parser as _};
use cli::{Cli, Command};
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Up(args) => return up::run(&args),
        Command::Pki { command } => pki::run(&command).and_then(|text| print(&text)),
        Command::Status(args) => fleet::status(&args).and_then(|text| print(&text)),
        Command::Why(args) => fleet::why(&args).and_then(|text| print(&text)),
        Command::Tail(args) => tail::tail(&args).and_then(|text| print(&text)),
        Command::Completions { shell, program } => print(&completions(shell, program)),
        Command::Man { directory } => man(&directory).and_then(|text| print(&text)),
    };
    pegel_runtime::exit::report("pegel", &result)
}

fn completions(shell: clap_complete::Shell, program: cli::Program) -> String {
    let mut command = match program {
        cli::Program::Pegel => Cli::command(),
        cli::Program::Agent => pegel_agent::cli::Cli::command(),
        cli::Program::Aggregator => pegel_aggregator::cli::Cli::command(),
    };
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn man(directory: &std::path::Path) -> anyhow::Result<String> {
    let mut written = pegel_runtime::generate::generate::<Cli>(directory)?;
    written.extend(pegel_runtime::generate::generate::<pegel_agent::cli::Cli>(directory)?);
    written.extend(pegel_runtime::generate::generate::<pegel_aggregator::cli::Cli>(directory)?);
    Ok(written.iter().fold(String::new(), |text, path| text + &path.display().to_string() + "\n"))
}

/// Prints; a reader that went away (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
