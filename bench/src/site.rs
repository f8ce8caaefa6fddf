//! A site for one benchmark: certificates, a real aggregator, real agents, in a directory that goes away.

use crate::process::{Process, beside};
use anyhow::Result;
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use pegel_runtime::pki::{AggregatorNames, CertificateAuthority, Existing, IssuedFiles};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long the certificates are valid.
const LIFETIME: Duration = Duration::from_hours(24);

/// See the module.
pub struct Site {
    /// The aggregator.
    pub aggregator: Process,
    /// Where agents connect to it.
    pub address: SocketAddr,
    ca: CertificateAuthority,
    dir: tempfile::TempDir,
}

/// Where an aggregator writes to.
pub struct Backend<'a> {
    /// The URL of its remote-write receiver.
    pub url: &'a str,
    /// `auto`, `1.0` or `2.0`.
    pub protocol: &'a str,
}

impl Site {
    /// Starts an aggregator; without a backend it keeps the recent past only.
    pub fn start(backend: Option<&Backend<'_>>) -> Result<Self> {
        Self::with_outputs(&backend.map_or_else(String::new, |backend| {
            format!(
                "outputs:\n  - {{type: remote_write, name: bench, url: \"{}\", protocol: {}}}\n",
                backend.url, backend.protocol
            )
        }))
    }

    /// Starts an aggregator with this section of outputs, in YAML.
    pub fn with_outputs(outputs: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let ca = CertificateAuthority::init(&dir.path().join("pki"), "bench", LIFETIME, Existing::Refuse)?;
        let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
        let names = AggregatorNames {
            name: NodeId::parse("bench")?,
            dns: vec!["localhost".into()],
            addresses: vec![localhost],
        };
        let IssuedFiles { cert, key } = ca.issue_aggregator(&names, LIFETIME, Existing::Refuse)?;
        let address_file = dir.path().join("aggregator.address");
        let config = format!(
            "listen: [\"127.0.0.1:0\"]\nlisten_address_file: {}\n\
             tls: {{cert_file: {}, key_file: {}, client_ca_file: {}, crl_file: {}}}\n{outputs}\
             limits: {{handshakes_per_second: 2000, pending_handshakes: 4000}}\n\
             status: {{listen: \"127.0.0.1:0\"}}\nadmin: {{listen: \"127.0.0.1:0\"}}\n",
            address_file.display(),
            cert.display(),
            key.display(),
            ca.certificate_path().display(),
            ca.crl_path().display(),
        );
        let config_file = dir.path().join("aggregator.yaml");
        std::fs::write(&config_file, config)?;
        let mut command = Command::new(beside("pegel-aggregator")?);
        let mut aggregator =
            Process::start("aggregator", dir.path(), command.arg("run").arg("--config").arg(&config_file))?;
        let address = aggregator.wrote(&address_file)?.parse()?;
        Ok(Self { aggregator, address, ca, dir })
    }

    /// The directory of all its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The certificate authority's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.ca.certificate_path()
    }

    /// A certificate for an agent.
    pub fn issue(&self, tenant: &str, node: &str) -> Result<IssuedFiles> {
        let identity = AgentIdentity { tenant: TenantId::parse(tenant)?, node: NodeId::parse(node)? };
        Ok(self.ca.issue_agent(&identity, LIFETIME, Existing::Refuse)?)
    }

    /// Starts an agent with its default collectors. `sections` is more of its configuration, in YAML.
    pub fn agent(&self, interval: &str, sections: &str) -> Result<Process> {
        self.agent_with(&format!("host: {{interval: {interval}}}\n{sections}"))
    }

    /// Starts an agent with these sections of its configuration, in YAML.
    pub fn agent_with(&self, sections: &str) -> Result<Process> {
        self.agent_under(Command::new(beside("pegel-agent")?), sections)
    }

    /// Starts an agent by a command that ends in its program, or in one that takes it as its arguments.
    pub fn agent_under(&self, mut command: Command, sections: &str) -> Result<Process> {
        let IssuedFiles { cert, key } = self.issue("bench", "node")?;
        let config = format!(
            "aggregator: {{addresses: [\"{}\"], ca_file: {}, cert_file: {}, key_file: {}}}\n\
             state_dir: {}\nadmin: {{listen: \"127.0.0.1:0\", address_file: {}}}\n{sections}",
            self.address,
            self.ca_file().display(),
            cert.display(),
            key.display(),
            self.dir().join("agent").display(),
            self.dir().join("agent.admin").display(),
        );
        let config_file = self.dir().join("agent.yaml");
        std::fs::write(&config_file, config)?;
        Process::start("agent", self.dir(), command.arg("run").arg("--config").arg(&config_file))
    }
}
