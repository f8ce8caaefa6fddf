//! What `pegel up` keeps: certificates, made once, and configuration, written anew each time.

use super::child::Child;
use super::reachable;
use crate::cli::UpArgs;
use anyhow::{Context as _, Result, bail};
use hyper::Uri;
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use pegel_runtime::pki::{
    AggregatorNames, CertificateAuthority, DEFAULT_CA_LIFETIME, DEFAULT_LEAF_LIFETIME, DEFAULT_TRUST_DOMAIN,
    Existing, IssuedFiles,
};
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The name of `up`'s aggregator.
const AGGREGATOR: &str = "up";

/// The directory and what is in it.
pub(super) struct Layout {
    pub(super) dir: PathBuf,
    pub(super) identity: AgentIdentity,
    pub(super) agents_address_file: PathBuf,
    pub(super) page_address_file: PathBuf,
    /// Where remote write goes, if anywhere.
    pub(super) write_url: Option<String>,
    /// The Loki that logs go to, if any.
    pub(super) loki_url: Option<String>,
    ca_file: PathBuf,
    crl_file: PathBuf,
    agent_files: IssuedFiles,
    aggregator_files: IssuedFiles,
}

impl Layout {
    /// Makes the directory and the certificates that are missing.
    pub(super) fn prepare(dir: &Path, args: &UpArgs) -> Result<Self> {
        let write_url = args.prometheus.as_deref().map(write_url).transpose()?;
        let loki_url = args.loki.as_deref().map(loki_url).transpose()?;
        let node = match &args.node {
            Some(node) => node.clone(),
            None => host_name(),
        };
        let identity = AgentIdentity { tenant: TenantId::parse(&args.tenant)?, node: NodeId::parse(&node)? };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| {
            format!("cannot make the state directory {}; choose another with --state-dir", dir.display())
        })?;
        let dir = dir.canonicalize()?;
        let pki = dir.join("pki");
        let ca = if pki.join("ca.pem").exists() {
            CertificateAuthority::open(&pki)?
        } else {
            CertificateAuthority::init(&pki, DEFAULT_TRUST_DOMAIN, DEFAULT_CA_LIFETIME, Existing::Refuse)?
        };
        // Addresses and names of this run; the certificate costs a millisecond.
        let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        if !args.listen_agents.ip().is_unspecified() && !args.listen_agents.ip().is_loopback() {
            addresses.push(args.listen_agents.ip());
        }
        let names = AggregatorNames {
            name: NodeId::parse(AGGREGATOR)?,
            dns: vec!["localhost".into(), host_name()],
            addresses,
        };
        let aggregator_files = ca.issue_aggregator(&names, DEFAULT_LEAF_LIFETIME, Existing::Replace)?;
        let agent_files = ca.issue_agent(&identity, DEFAULT_LEAF_LIFETIME, Existing::Replace)?;
        Ok(Self {
            agents_address_file: dir.join("agents.address"),
            page_address_file: dir.join("page.address"),
            write_url,
            loki_url,
            ca_file: ca.certificate_path(),
            crl_file: ca.crl_path(),
            identity,
            agent_files,
            aggregator_files,
            dir,
        })
    }

    /// Writes the aggregator's configuration and starts it.
    pub(super) fn start_aggregator(&self, program: &Path, args: &UpArgs) -> Result<Child> {
        for file in [&self.agents_address_file, &self.page_address_file] {
            // Those of the run before would be taken for this one's.
            let _ = std::fs::remove_file(file);
        }
        let config = self.dir.join("aggregator.yaml");
        write(&config, &self.aggregator_config(args))?;
        Child::start("pegel-aggregator", program, &config, self.dir.join("aggregator.log"))
    }

    /// Writes the agent's configuration and starts it.
    pub(super) fn start_agent(&self, program: &Path, aggregator: SocketAddr, args: &UpArgs) -> Result<Child> {
        let config = self.dir.join("agent.yaml");
        write(&config, &self.agent_config(reachable(aggregator), args))?;
        Child::start("pegel-agent", program, &config, self.dir.join("agent.log"))
    }

    fn aggregator_config(&self, args: &UpArgs) -> String {
        let mut outputs = String::new();
        if let Some(url) = &self.write_url {
            let window = args.out_of_order_window.as_ref();
            let window =
                window.map(|w| format!("    out_of_order_window: {}\n", quoted(w))).unwrap_or_default();
            outputs =
                format!("  - type: remote_write\n    name: prometheus\n    url: {}\n{window}", quoted(url));
        }
        if let Some(url) = &self.loki_url {
            let url = quoted(url);
            outputs
                .push_str(&format!("  - type: loki\n    name: loki\n    url: {url}\n    query_url: {url}\n"));
        }
        let outputs =
            if outputs.is_empty() { "outputs: []\n".to_owned() } else { format!("outputs:\n{outputs}") };
        let IssuedFiles { cert, key } = &self.aggregator_files;
        format!(
            "# Written by `pegel up`, anew at each start.\n\
             listen: [{}]\n\
             listen_address_file: {}\n\
             tls:\n  cert_file: {}\n  key_file: {}\n  client_ca_file: {}\n  crl_file: {}\n\
             {outputs}\
             status:\n  listen: {}\n  allow_remote: {}\n  address_file: {}\n\
             admin:\n  listen: \"127.0.0.1:0\"\n  address_file: {}\n",
            quoted(args.listen_agents),
            quoted(self.agents_address_file.display()),
            quoted(cert.display()),
            quoted(key.display()),
            quoted(self.ca_file.display()),
            quoted(self.crl_file.display()),
            quoted(args.listen),
            !args.listen.ip().is_loopback(),
            quoted(self.page_address_file.display()),
            quoted(self.dir.join("aggregator-admin.address").display()),
        )
    }

    fn agent_config(&self, aggregator: SocketAddr, args: &UpArgs) -> String {
        let IssuedFiles { cert, key } = &self.agent_files;
        format!(
            "# Written by `pegel up`, anew at each start.\n\
             aggregator:\n  addresses: [{}]\n  ca_file: {}\n  cert_file: {}\n  key_file: {}\n\
             state_dir: {}\n\
             host:\n  interval: {}\n\
             {}\
             admin:\n  listen: \"127.0.0.1:0\"\n  address_file: {}\n",
            quoted(aggregator),
            quoted(self.ca_file.display()),
            quoted(cert.display()),
            quoted(key.display()),
            quoted(self.dir.join("agent").display()),
            quoted(&args.interval),
            self.logs(args),
            quoted(self.dir.join("agent-admin.address").display()),
        )
    }

    /// Whether this machine's logs are collected: where metrics go to a Prometheus and logs nowhere, they would only
    /// fill the agent's disk.
    pub(super) fn collects_logs(&self, args: &UpArgs) -> bool {
        !args.no_logs && (self.write_url.is_none() || self.loki_url.is_some())
    }

    fn logs(&self, args: &UpArgs) -> String {
        if !self.collects_logs(args) {
            return String::new();
        }
        let own = if has_journal(Path::new("/")) {
            "    - {name: journal, journal: {}}\n".to_owned()
        } else {
            // What was written before belongs to another day.
            format!("    - {{name: system, files: {{include: {VAR_LOG}, start: end}}}}\n")
        };
        format!("logs:\n  inputs:\n{own}    - {{name: containers, containers: {{}}}}\n")
    }
}

/// Log files of a machine without a journal, under the names that Debian's and Red Hat's syslog daemons give them.
const VAR_LOG: &str = r#"["/var/log/*.log", "/var/log/syslog", "/var/log/messages", "/var/log/secure"]"#;

/// Whether journald writes files below a root.
fn has_journal(root: &Path) -> bool {
    let machine = std::fs::read_to_string(root.join("etc/machine-id")).unwrap_or_default();
    let machine = machine.trim();
    let dirs = ["var/log/journal", "run/log/journal"].map(|dir| root.join(dir).join(machine));
    !machine.is_empty() && dirs.iter().any(|dir| dir.is_dir())
}

/// A string as YAML has it: JSON's strings are YAML's double-quoted ones. A `$` is not to be taken for a variable.
fn quoted(text: impl Display) -> String {
    serde_json::Value::String(text.to_string().replace('$', "$$")).to_string()
}

/// The URL to write to: a base URL gets the path of Prometheus' receiver.
fn write_url(given: &str) -> Result<String> {
    let uri: Uri = given.parse().with_context(|| format!("--prometheus `{given}` is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        bail!("--prometheus `{given}` is not a URL: write something like http://localhost:9090");
    }
    let base = uri.path().trim_matches('/').is_empty() && uri.query().is_none();
    Ok(if base { format!("{}/api/v1/write", given.trim_end_matches('/')) } else { given.to_owned() })
}

/// The base URL of a Loki: its paths are added by the output.
fn loki_url(given: &str) -> Result<String> {
    let uri: Uri = given.parse().with_context(|| format!("--loki `{given}` is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        bail!("--loki `{given}` is not a URL: write something like http://localhost:3100");
    }
    Ok(given.trim_end_matches('/').trim_end_matches("/loki/api/v1/push").to_owned())
}

/// The machine's name, as far as it can be a node's.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let fit: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        .take(253)
        .collect();
    let fit = fit.trim_start_matches(['.', '_', '-']).to_owned();
    if fit.is_empty() { "localhost".to_owned() } else { fit }
}

/// Writes a file beside its place and renames it, so that nobody reads half of it.
pub(super) fn write(file: &Path, text: &str) -> Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let context = || format!("cannot write {}", file.display());
    std::fs::write(&beside, text).with_context(context)?;
    std::fs::rename(&beside, file).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;
    use pegel_runtime::config::Input;

    fn args(line: &str) -> UpArgs {
        match Cli::try_parse_from(["pegel", "up"].into_iter().chain(line.split_whitespace())).unwrap().command
        {
            Command::Up(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_base_url_gets_the_receiver_s_path() {
        let url = |given| write_url(given).unwrap();
        assert_eq!(url("http://localhost:9090"), "http://localhost:9090/api/v1/write");
        assert_eq!(url("http://localhost:9090/"), "http://localhost:9090/api/v1/write");
        assert_eq!(url("https://mimir/api/v1/push"), "https://mimir/api/v1/push");
        assert!(write_url("localhost:9090").is_err());
    }

    #[test]
    fn the_programs_accept_what_is_written_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let args = args(
            "--prometheus http://localhost:9090 --loki http://localhost:3100/ --out-of-order-window 30h --listen 0.0.0.0:0 --node n",
        );
        let layout = Layout::prepare(&dir.path().join("a $dir: \"x\""), &args).unwrap();
        let (aggregator, agent) = (dir.path().join("aggregator.yaml"), dir.path().join("agent.yaml"));
        write(&aggregator, &layout.aggregator_config(&args)).unwrap();
        write(&agent, &layout.agent_config("127.0.0.1:4433".parse().unwrap(), &args)).unwrap();
        let loaded = pegel_aggregator::config::load_settings(&Input::new(Some(aggregator), Vec::new()));
        let settings = loaded.unwrap_or_else(|e| panic!("{e}")).settings;
        assert_eq!(settings.outputs.len(), 2);
        assert_eq!(settings.status.status.hosts, pegel_aggregator::status::Hosts::Any);
        let purpose = pegel_agent::config::Purpose::Run;
        let loaded = pegel_agent::config::load_settings(&Input::new(Some(agent), Vec::new()), purpose);
        let settings = loaded.unwrap_or_else(|e| panic!("{e}")).settings;
        assert_eq!(settings.uplink.uplink.aggregators, ["127.0.0.1:4433"]);
        let inputs = settings.logs.source.inputs.iter().map(|input| input.name.as_str());
        assert!(matches!(inputs.collect::<Vec<_>>()[..], ["journal" | "system", "containers"]));
        assert!(settings.state_dir.ends_with("a $dir: \"x\"/agent"), "{:?}", settings.state_dir);
    }

    #[test]
    fn logs_are_collected_where_they_go_somewhere() {
        let dir = tempfile::tempdir().unwrap();
        for (line, collects) in [
            ("", true),
            ("--no-logs", false),
            ("--prometheus http://localhost:9090", false),
            ("--prometheus http://localhost:9090 --loki http://localhost:3100", true),
        ] {
            let args = args(line);
            let layout = Layout::prepare(dir.path(), &args).unwrap();
            let config = layout.agent_config("127.0.0.1:4433".parse().unwrap(), &args);
            assert_eq!(config.contains("name: containers"), collects, "{line}: {config}");
        }
        assert_eq!(loki_url("http://loki:3100/loki/api/v1/push").unwrap(), "http://loki:3100");
        assert!(loki_url("loki:3100").is_err());
    }

    #[test]
    fn a_journal_is_one_of_this_machine() {
        let root = tempfile::tempdir().unwrap();
        assert!(!has_journal(root.path()));
        std::fs::create_dir_all(root.path().join("run/log/journal/0af")).unwrap();
        assert!(!has_journal(root.path()));
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/machine-id"), "0af\n").unwrap();
        assert!(has_journal(root.path()));
    }

    #[test]
    fn certificates_of_the_run_before_are_of_the_same_authority() {
        let dir = tempfile::tempdir().unwrap();
        let first = Layout::prepare(dir.path(), &args("")).unwrap();
        let authority = std::fs::read(&first.ca_file).unwrap();
        let second = Layout::prepare(dir.path(), &args("--tenant other")).unwrap();
        assert_eq!(std::fs::read(&second.ca_file).unwrap(), authority);
    }
}
