//! The command line of `pegel-agent`. The same definitions give help, completions and man pages.

mod log_test;

use crate::config::{Purpose, Settings, load_settings};
use clap::{Args, Parser, Subcommand};
use pegel_runtime::config::{BadConfig, Flag, Input, Loaded};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The agent of pegel: collects a machine's metrics and hands them to an aggregator, losing none.
///
/// Exit codes: 0, 1 for a failure at run time, 2 for wrong usage, 78 for a configuration that cannot be used.
#[derive(Debug, Parser)]
#[command(name = "pegel-agent", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the agent does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the agent until SIGTERM or SIGINT. SIGHUP reloads the configuration, as a whole or not at all.
    Run(ConfigArgs),
    /// Checks the configuration and reports all mistakes at once.
    Validate(ConfigArgs),
    /// Collects once and prints it in the Prometheus text format.
    Once(ConfigArgs),
    /// Prints Prometheus rules for the objectives of the checks: error budgets and alerts on how fast they burn.
    Rules(ConfigArgs),
    /// Shows what the steps of a log input make of sample lines. Nothing is sent.
    Test(TestArgs),
    /// Looks into the buffer of an agent.
    Buffer {
        /// What to do with it.
        #[command(subcommand)]
        command: BufferCommand,
    },
    /// Shows records that a backend refused, or sends them again.
    Rejects(RejectsArgs),
    /// Writes completions and man pages to a directory.
    #[command(hide = true)]
    Generate {
        /// The directory.
        directory: PathBuf,
    },
}

/// `test`.
#[derive(Debug, Clone, Args)]
pub struct TestArgs {
    /// The file with the sample lines; `-` for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The input whose steps are shown; may be left out if there is one only.
    #[arg(long, value_name = "NAME")]
    pub input: Option<String>,
    /// Prints JSON, an object a line.
    #[arg(long)]
    pub json: bool,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// What is done with the buffer.
#[derive(Debug, Subcommand)]
pub enum BufferCommand {
    /// Lists segments, cursors, what waits and what was set aside. Changes nothing.
    Inspect(StateArgs),
}

/// Where an agent's state is.
#[derive(Debug, Clone, Args)]
pub struct StateArgs {
    /// The agent's configuration file, for its state_dir.
    #[arg(short, long, value_name = "FILE", env = "PEGEL_AGENT_CONFIG")]
    pub config: Option<String>,
    /// The state directory.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
}

/// `rejects`.
#[derive(Debug, Clone, Args)]
pub struct RejectsArgs {
    /// Where the state is.
    #[command(flatten)]
    pub state: StateArgs,
    /// Only what this output refused.
    #[arg(long, value_name = "NAME")]
    pub output: Option<String>,
    /// Puts the records back to be sent again, after the cause is out of the way.
    #[arg(long)]
    pub replay: bool,
}

/// The configuration: a file, flags that are stronger than it, or both.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// The configuration file (YAML). Without one, flags and defaults have to do.
    #[arg(short, long, value_name = "FILE", env = "PEGEL_AGENT_CONFIG")]
    pub config: Option<String>,
    /// An aggregator; several with commas or by repeating the flag.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub aggregator: Vec<String>,
    /// The agent's certificate chain (PEM).
    #[arg(long, value_name = "FILE")]
    pub cert: Option<String>,
    /// The key of the certificate (PEM).
    #[arg(long, value_name = "FILE")]
    pub key: Option<String>,
    /// The CA certificate that aggregators' certificates must come from (PEM).
    #[arg(long, value_name = "FILE")]
    pub ca: Option<String>,
    /// The directory for what must survive a restart.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
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
        let mut flags = Vec::new();
        if !self.aggregator.is_empty() {
            flags.push(Flag::list("--aggregator", "aggregator.addresses", self.aggregator.clone()));
        }
        let single = [
            ("--cert", "aggregator.cert_file", &self.cert),
            ("--key", "aggregator.key_file", &self.key),
            ("--ca", "aggregator.ca_file", &self.ca),
            ("--state-dir", "state_dir", &self.state_dir),
            ("--admin-listen", "admin.listen", &self.admin_listen),
            ("--admin-address-file", "admin.address_file", &self.admin_address_file),
            ("--log-level", "log.level", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ];
        for (name, path, value) in single {
            flags.extend(value.as_ref().map(|value| Flag::one(name, path, value.as_str())));
        }
        Input::new(self.config.as_ref().map(PathBuf::from), flags)
    }
}

impl StateArgs {
    /// The state directory, as the configuration or the flag has it.
    pub fn directory(&self) -> Result<PathBuf, BadConfig> {
        let args = ConfigArgs {
            config: self.config.clone(),
            state_dir: self.state_dir.clone(),
            ..ConfigArgs::default()
        };
        Ok(load_settings(&args.input(), Purpose::Collect)?.settings.state_dir)
    }
}

/// What a run begins with.
pub struct Launch {
    /// The settings, and what is questionable about them.
    pub loaded: Loaded<Settings>,
    /// Where they were read from, to read them again.
    pub input: Input,
}

/// What the commands do, wired in `app`.
pub struct Actions {
    /// Runs the agent to its end.
    pub run: fn(Launch) -> anyhow::Result<()>,
    /// Collects once; gives the text format.
    pub once: fn(Settings) -> anyhow::Result<String>,
    /// Describes the buffer in a state directory.
    pub inspect: fn(&Path, bool) -> anyhow::Result<String>,
    /// Lists or replays rejects in a state directory.
    pub rejects: fn(&Path, &RejectsArgs) -> anyhow::Result<String>,
}

/// Does what the command line says.
pub fn execute(cli: Cli, actions: &Actions) -> anyhow::Result<()> {
    match cli.command {
        Command::Run(args) => {
            let input = args.input();
            let loaded = load_settings(&input, Purpose::Run)?;
            (actions.run)(Launch { loaded, input })
        }
        Command::Validate(args) => {
            let loaded = load_settings(&args.input(), Purpose::Run)?;
            print(&pegel_runtime::config::validated(&loaded.warnings))
        }
        Command::Once(args) => {
            let loaded = load_settings(&args.input(), Purpose::Collect)?;
            print(&(actions.once)(loaded.settings)?)
        }
        Command::Rules(args) => {
            let loaded = load_settings(&args.input(), Purpose::Collect)?;
            print(&rules(&loaded.settings)?)
        }
        Command::Test(args) => {
            let loaded = load_settings(&args.config.input(), Purpose::Collect)?;
            print(&log_test::run(&loaded.settings, &args)?)
        }
        Command::Buffer { command: BufferCommand::Inspect(args) } => {
            print(&(actions.inspect)(&args.directory()?, args.json)?)
        }
        Command::Rejects(args) => print(&(actions.rejects)(&args.state.directory()?, &args)?),
        Command::Generate { directory } => {
            let written = pegel_runtime::generate::generate::<Cli>(&directory)?;
            let names: Vec<_> = written.iter().map(|path| path.display().to_string()).collect();
            print(&(names.join("\n") + "\n"))
        }
    }
}

fn rules(settings: &Settings) -> anyhow::Result<String> {
    let objectives = &settings.probes.objectives;
    anyhow::ensure!(
        !objectives.is_empty(),
        "no check has an objective: add one, such as `objective: {{availability: 99.9}}`, to a check of probes.checks"
    );
    Ok(crate::slo::rule_file(objectives))
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
            "pegel-agent",
            "run",
            "--aggregator",
            "a:1,b:2",
            "--aggregator",
            "c:3",
            "--cert",
            "/dev/null",
            "--key",
            "/dev/null",
            "--ca",
            "/dev/null",
            "--admin-listen",
            "127.0.0.1:0",
            "--log-format",
            "logfmt",
        ]);
        let Command::Run(args) = cli.command else { panic!("not run") };
        let settings = load_settings(&args.input(), Purpose::Run).unwrap().settings;
        assert_eq!(settings.uplink.uplink.aggregators, ["a:1", "b:2", "c:3"]);
        assert_eq!(settings.admin.listen.port(), 0);
        assert_eq!(settings.log.format, pegel_runtime::telemetry::LogFormat::Logfmt);
    }

    #[test]
    fn completions_and_man_pages_are_made() {
        let directory = tempfile::tempdir().unwrap();
        let written = pegel_runtime::generate::generate::<Cli>(directory.path()).unwrap();
        assert!(written.iter().any(|path| path.ends_with("man/pegel-agent-buffer-inspect.1")), "{written:?}");
        let bash = std::fs::read_to_string(directory.path().join("completions/pegel-agent.bash")).unwrap();
        assert!(bash.contains("--aggregator"));
    }
}
