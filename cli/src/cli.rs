//! The command line of `pegel`. The same definitions give help, completions and man pages.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The page of an aggregator that `pegel up` or a default configuration started.
const DEFAULT_STATUS_URL: &str = "http://127.0.0.1:4434";

/// pegel: a machine's metrics, delivered or accounted for.
///
/// Exit codes: 0, 1 for a failure at run time, 2 for wrong usage, 78 for a configuration that cannot be used.
#[derive(Debug, Parser)]
#[command(name = "pegel", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `pegel` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts an aggregator and an agent on this machine, until Ctrl-C.
    Up(UpArgs),
    /// Makes and shows certificates: who an agent is, and whom an aggregator accepts.
    Pki {
        /// What to do with them.
        #[command(subcommand)]
        command: PkiCommand,
    },
    /// Shows the fleet and its books, as an aggregator sees them.
    Status(StatusArgs),
    /// Tells in words why a node's data is not there.
    Why(WhyArgs),
    /// Shows log entries, the recent past and then as they arrive.
    Tail(Box<TailArgs>),
    /// Prints a completion script.
    Completions {
        /// For which shell.
        shell: Shell,
        /// Of which program.
        #[arg(long, value_enum, default_value = "pegel")]
        program: Program,
    },
    /// Writes man pages and completions of all three programs to a directory.
    Man {
        /// The directory.
        directory: PathBuf,
    },
}

/// The programs of pegel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Program {
    /// This one.
    Pegel,
    /// The agent.
    #[value(name = "pegel-agent")]
    Agent,
    /// The aggregator.
    #[value(name = "pegel-aggregator")]
    Aggregator,
}

/// `up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Writes to this Prometheus, Thanos, Mimir or VictoriaMetrics by remote write. If the URL has no path,
    /// /api/v1/write is added. Without it data is only kept in memory, behind the page.
    #[arg(long, value_name = "URL")]
    pub prometheus: Option<String>,
    /// The backend's out_of_order_time_window, such as 30h: how long an outage it can make up for.
    #[arg(long, value_name = "DURATION", requires = "prometheus")]
    pub out_of_order_window: Option<String>,
    /// Writes this machine's logs to this Loki, as --prometheus does its metrics. Without both they are kept in memory,
    /// behind the page; with --prometheus alone they are not collected.
    #[arg(long, value_name = "URL", requires = "prometheus")]
    pub loki: Option<String>,
    /// Does not collect this machine's logs: the journal, or the files of /var/log where there is none, and what
    /// containers say.
    #[arg(long, conflicts_with = "loki")]
    pub no_logs: bool,
    /// The address of the page; port 0 takes a free one. It has no authentication.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4434")]
    pub listen: SocketAddr,
    /// The address (UDP) for agents, those of other machines too if it can be reached from there.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4433")]
    pub listen_agents: SocketAddr,
    /// How often the machine's metrics are collected.
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub interval: String,
    /// The tenant of this machine's agent.
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub tenant: String,
    /// The node name of this machine's agent; without it the host name.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Where certificates, configuration, logs and the spool are kept.
    #[arg(long, value_name = "DIR", env = "PEGEL_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// A file to which the page's URL is written once data flows.
    #[arg(long, value_name = "FILE")]
    pub url_file: Option<PathBuf>,
}

/// Where the certificate authority is.
#[derive(Debug, Clone, Args)]
pub struct PkiDir {
    /// The directory of the authority; without it the one that `pegel up` uses.
    #[arg(long, value_name = "DIR", env = "PEGEL_PKI_DIR")]
    pub dir: Option<PathBuf>,
}

/// What is done with certificates.
#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Makes a new authority.
    Init {
        /// Where.
        #[command(flatten)]
        dir: PkiDir,
        /// The trust domain: the name of all that it will issue for.
        #[arg(long, value_name = "NAME", default_value = pegel_runtime::pki::DEFAULT_TRUST_DOMAIN)]
        trust_domain: String,
        /// How many days it is valid.
        #[arg(long, value_name = "DAYS")]
        days: Option<u32>,
        /// Replaces an authority that exists: nothing that it issued is accepted any more.
        #[arg(long)]
        replace: bool,
    },
    /// Issues a certificate for an agent (--tenant, --node) or an aggregator (--aggregator).
    Issue(IssueArgs),
    /// Shows what stands in a certificate, or in the authority's own.
    Show {
        /// Where the authority is.
        #[command(flatten)]
        dir: PkiDir,
        /// The certificate's file (PEM).
        file: Option<PathBuf>,
    },
    /// Revokes a certificate: aggregators that read the revocation list close its sessions.
    Revoke {
        /// Where the authority is.
        #[command(flatten)]
        dir: PkiDir,
        /// The certificate's file (PEM).
        file: PathBuf,
    },
}

/// `pki issue`.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("whom").required(true).args(["node", "aggregator"]))]
pub struct IssueArgs {
    /// Where the authority is.
    #[command(flatten)]
    pub dir: PkiDir,
    /// The agent's tenant.
    #[arg(long, value_name = "NAME", requires = "node", required_unless_present = "aggregator")]
    pub tenant: Option<String>,
    /// The agent's node.
    #[arg(long, value_name = "NAME", requires = "tenant")]
    pub node: Option<String>,
    /// An aggregator's name.
    #[arg(long, value_name = "NAME")]
    pub aggregator: Option<String>,
    /// A DNS name by which agents reach the aggregator; can be repeated.
    #[arg(long, value_name = "NAME", requires = "aggregator", conflicts_with = "node")]
    pub dns: Vec<String>,
    /// An address by which agents reach the aggregator; can be repeated.
    #[arg(long, value_name = "ADDRESS", requires = "aggregator", conflicts_with = "node")]
    pub address: Vec<IpAddr>,
    /// How many days it is valid.
    #[arg(long, value_name = "DAYS")]
    pub days: Option<u32>,
    /// Replaces files that exist.
    #[arg(long)]
    pub replace: bool,
}

/// Which aggregator is asked.
#[derive(Debug, Clone, Args)]
pub struct AggregatorUrl {
    /// The URL of the aggregator's page.
    #[arg(long, value_name = "URL", env = "PEGEL_AGGREGATOR_URL", default_value = DEFAULT_STATUS_URL)]
    pub aggregator_url: String,
}

/// `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Whom to ask.
    #[command(flatten)]
    pub url: AggregatorUrl,
    /// Prints the API's JSON.
    #[arg(long)]
    pub json: bool,
    /// Leaves the books out: one line a node.
    #[arg(long, conflicts_with = "json")]
    pub brief: bool,
}

/// `why`.
#[derive(Debug, Clone, Args)]
pub struct WhyArgs {
    /// The node.
    pub node: String,
    /// Its tenant, where nodes of several tenants have the name.
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Whom to ask.
    #[command(flatten)]
    pub url: AggregatorUrl,
}

/// `tail`.
#[derive(Debug, Clone, Args)]
pub struct TailArgs {
    /// The node; without it all nodes.
    #[arg(value_name = "NODE")]
    first: Option<String>,
    /// Which entries, as in LogQL: `{job="nginx", level=~"err.*"} |= "timeout" !~ "GET /health"`.
    #[arg(value_name = "SELECTOR")]
    second: Option<String>,
    /// Only entries of this tenant.
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Only lines that contain this text.
    #[arg(long, short = 'g', value_name = "TEXT")]
    pub contains: Option<String>,
    /// Begins this long ago, such as 5m, as far back as the aggregator remembers.
    #[arg(long, value_name = "DURATION")]
    pub since: Option<String>,
    /// The most entries of the past; 100 without --since.
    #[arg(long, short = 'n', value_name = "N")]
    pub lines: Option<u32>,
    /// Ends after the past.
    #[arg(long)]
    pub no_follow: bool,
    /// Prints the API's JSON, an entry a line.
    #[arg(long)]
    pub json: bool,
    /// Whom to ask. A tenant asks the aggregator's `status.tenants_listen`, https://HOST:PORT, with a certificate.
    #[command(flatten)]
    pub url: AggregatorUrl,
    /// The authority of the aggregator's certificate (PEM); without it the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The certificate that says which tenant asks (PEM).
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
}

impl TailArgs {
    /// The node that is asked for.
    pub fn node(&self) -> Option<&str> {
        self.first.as_deref().filter(|text| !is_selector(text))
    }

    /// The selector.
    pub fn selector(&self) -> Option<&str> {
        self.second.as_deref().or_else(|| self.first.as_deref().filter(|text| is_selector(text)))
    }
}

/// No name of a node begins like a selector.
fn is_selector(text: &str) -> bool {
    text.starts_with(['{', '|', '!', ' '])
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
    fn a_certificate_is_for_an_agent_or_an_aggregator() {
        let parses = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parses("pegel pki issue --tenant t --node n"));
        assert!(parses("pegel pki issue --aggregator a --dns a.example --address 10.0.0.1"));
        assert!(!parses("pegel pki issue"));
        assert!(!parses("pegel pki issue --node n"));
        assert!(!parses("pegel pki issue --tenant t"));
        assert!(!parses("pegel pki issue --tenant t --node n --aggregator a"));
        assert!(!parses("pegel pki issue --tenant t --node n --dns x"));
    }
}
