//! The command line of `pegel-aggregator`. The same definitions give help, completions and man pages.

use crate::config::{Settings, load_settings};
use clap::{Args, Parser, Subcommand};
use pegel_runtime::config::{Flag, Input, Loaded};
use std::io::Write as _;
use std::path::PathBuf;

/// The aggregator of pegel: takes what agents send, and delivers it to the backends.
///
/// Exit codes: 0, 1 for a failure at run time, 2 for wrong usage, 78 for a configuration that cannot be used.
#[derive(Debug, Parser)]
#[command(name = "pegel-aggregator", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the aggregator does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the aggregator until SIGTERM or SIGINT. SIGHUP reloads the configuration, as a whole or not at all.
    Run(ConfigArgs),
    /// Checks the configuration and reports all mistakes at once.
    Validate(ConfigArgs),
    /// Writes completions and man pages to a directory.
    #[command(hide = true)]
    Generate {
        /// The directory.
        directory: PathBuf,
    },
}

/// The configuration: a file, flags that are stronger than it, or both.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// The configuration file (YAML). Without one, flags and defaults have to do.
    #[arg(short, long, value_name = "FILE", env = "PEGEL_AGGREGATOR_CONFIG")]
    pub config: Option<String>,
    /// An address that agents connect to; port 0 takes a free one. Several with commas or by repeating the flag.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// A file to which the bound address is written.
    #[arg(long, value_name = "FILE")]
    pub listen_address_file: Option<String>,
    /// The aggregator's certificate chain (PEM).
    #[arg(long, value_name = "FILE")]
    pub cert: Option<String>,
    /// The key of the certificate (PEM).
    #[arg(long, value_name = "FILE")]
    pub key: Option<String>,
    /// The CA certificate that agents' certificates must come from (PEM).
    #[arg(long, value_name = "FILE")]
    pub ca: Option<String>,
    /// The address of the page; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    pub status_listen: Option<String>,
    /// A file to which the bound address of the page is written.
    #[arg(long, value_name = "FILE")]
    pub status_address_file: Option<String>,
    /// The address of admin HTTP; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// A file to which the bound address of admin HTTP is written.
    #[arg(long, value_name = "FILE")]
    pub admin_address_file: Option<String>,
    /// What is logged: a level, or levels by module.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How log lines look: text, json or logfmt.
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl ConfigArgs {
    /// What the configuration is read from.
    pub fn input(&self) -> Input {
        let single = [
            ("--listen-address-file", "listen_address_file", &self.listen_address_file),
            ("--cert", "tls.cert_file", &self.cert),
            ("--key", "tls.key_file", &self.key),
            ("--ca", "tls.client_ca_file", &self.ca),
            ("--status-listen", "status.listen", &self.status_listen),
            ("--status-address-file", "status.address_file", &self.status_address_file),
            ("--admin-listen", "admin.listen", &self.admin_listen),
            ("--admin-address-file", "admin.address_file", &self.admin_address_file),
            ("--log-level", "log.level", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ];
        let mut flags: Vec<Flag> = single
            .into_iter()
            .filter_map(|(name, path, value)| Some(Flag::one(name, path, value.as_deref()?)))
            .collect();
        if !self.listen.is_empty() {
            flags.push(Flag::list("--listen", "listen", self.listen.clone()));
        }
        Input::new(self.config.as_ref().map(PathBuf::from), flags)
    }
}

/// What a run begins with.
pub struct Launch {
    /// The settings, and what is questionable about them.
    pub loaded: Loaded<Settings>,
    /// Where they were read from, to read them again.
    pub input: Input,
}

/// Does what the command line says; `run` is wired in `app`.
pub fn execute(cli: Cli, run: fn(Launch) -> anyhow::Result<()>) -> anyhow::Result<()> {
    match cli.command {
        Command::Run(args) => {
            let input = args.input();
            let loaded = load_settings(&input)?;
            run(Launch { loaded, input })
        }
        Command::Validate(args) => {
            let loaded = load_settings(&args.input())?;
            print(&pegel_runtime::config::validated(&loaded.warnings))
        }
        Command::Generate { directory } => {
            let written = pegel_runtime::generate::generate::<Cli>(&directory)?;
            let names: Vec<_> = written.iter().map(|path| path.display().to_string()).collect();
            print(&(names.join("\n") + "\n"))
        }
    }
}

/// Prints; a reader that went away (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let cli = Cli::parse_from([
            "pegel-aggregator",
            "validate",
            "--cert",
            "/dev/null",
            "--key",
            "/dev/null",
            "--ca",
            "/dev/null",
            "--listen",
            "127.0.0.1:0",
            "--status-listen",
            "127.0.0.1:0",
        ]);
        let Command::Validate(args) = cli.command else { panic!("not validate") };
        let settings = load_settings(&args.input()).unwrap().settings;
        assert_eq!((settings.receiver.listen[0].port(), settings.status.listen.port()), (0, 0));
    }
}
