//! `pegel-agent`.

#![forbid(unsafe_code)]

use clap::Parser as _;
use pegel_agent::{app, cli, kept};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

/// What glibc's allocator is told. By default it keeps what a backlog made it take, in an arena a thread: 46 MB were
/// resident after a drain instead of 20 (`scripts/bench spool`). It reads these at a program's start only.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_TRIM_THRESHOLD_", "131072"), ("MALLOC_ARENA_MAX", "2")];

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    if matches!(cli.command, cli::Command::Run(_)) {
        restart_with_allocator_settings();
    }
    let actions = cli::Actions {
        run: app::run,
        once: app::once,
        inspect: kept::inspect_buffer,
        rejects: kept::rejects,
    };
    pegel_runtime::exit::report("pegel-agent", &cli::execute(cli, &actions))
}

/// Becomes the same program again, as the same process, with the allocator's settings in its environment, unless
/// somebody has set them. Where that fails the agent runs as it is.
fn restart_with_allocator_settings() {
    if ALLOCATOR.iter().any(|(name, _)| std::env::var_os(name).is_some()) {
        return;
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if let Ok(program) = std::env::current_exe() {
        // Returns only if it could not be done.
        let _ = Command::new(program).arg0(name).args(arguments).envs(ALLOCATOR).exec();
    }
}
