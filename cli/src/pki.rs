//! `pegel pki`: a small certificate authority for a fleet that has none.

use crate::cli::{IssueArgs, PkiCommand, PkiDir};
use crate::up::default_state_dir;
use anyhow::{Context as _, Result};
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use pegel_runtime::pki::{
    AggregatorNames, CertificateAuthority, CertificateView, DEFAULT_CA_LIFETIME, DEFAULT_LEAF_LIFETIME,
    Existing, show,
};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

impl PkiDir {
    fn path(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| default_state_dir().join("pki"))
    }

    fn open(&self) -> Result<CertificateAuthority> {
        let dir = self.path();
        CertificateAuthority::open(&dir).with_context(|| {
            format!("there is no usable authority in {}; `pegel pki init --dir DIR` makes one", dir.display())
        })
    }
}

/// Does what was asked; gives what to print.
pub fn run(command: &PkiCommand) -> Result<String> {
    match command {
        PkiCommand::Init { dir, trust_domain, days, replace } => {
            let lifetime = lifetime(*days, DEFAULT_CA_LIFETIME);
            let ca = CertificateAuthority::init(&dir.path(), trust_domain, lifetime, existing(*replace))?;
            Ok(format!(
                "The authority of {} is made.\n  certificate, for agents and aggregators:  {}\n  revocation list, for aggregators:         {}\nIts key, beside them, stays on this machine. Next:\n  pegel pki issue --aggregator NAME --dns HOST\n  pegel pki issue --tenant TENANT --node NODE\n",
                ca.trust_domain(),
                ca.certificate_path().display(),
                ca.crl_path().display()
            ))
        }
        PkiCommand::Issue(args) => issue(args),
        PkiCommand::Show { dir, file } => {
            let file = match file {
                Some(file) => file.clone(),
                None => dir.open()?.certificate_path(),
            };
            Ok(show(&file)?.iter().map(described).collect::<Vec<_>>().join("\n"))
        }
        PkiCommand::Revoke { dir, file } => {
            let ca = dir.open()?;
            let serial = ca.revoke(file)?;
            Ok(format!(
                "Certificate {serial} is revoked. Aggregators with `tls.crl_file: {}` close its sessions when they read the file again.\n",
                ca.crl_path().display()
            ))
        }
    }
}

fn issue(args: &IssueArgs) -> Result<String> {
    let ca = args.dir.open()?;
    let lifetime = lifetime(args.days, DEFAULT_LEAF_LIFETIME);
    let existing = existing(args.replace);
    let ca_file = ca.certificate_path();
    if let (Some(tenant), Some(node)) = (&args.tenant, &args.node) {
        let identity = AgentIdentity { tenant: TenantId::parse(tenant)?, node: NodeId::parse(node)? };
        let files = ca.issue_agent(&identity, lifetime, existing)?;
        return Ok(format!(
            "{}\n  certificate  {}\n  key          {}\n  authority    {}\nCopy the three to the node, and there:\n  pegel-agent run --aggregator HOST:4433 --cert cert.pem --key key.pem --ca ca.pem\n",
            identity.to_uri(ca.trust_domain()),
            files.cert.display(),
            files.key.display(),
            ca_file.display()
        ));
    }
    let name = args.aggregator.as_deref().unwrap_or_default();
    let names = AggregatorNames {
        name: NodeId::parse(name)?,
        dns: args.dns.clone(),
        addresses: args.address.clone(),
    };
    let files = ca.issue_aggregator(&names, lifetime, existing)?;
    let mut told = format!(
        "Aggregator {name}\n  certificate  {}\n  key          {}\n  authority    {}\n",
        files.cert.display(),
        files.key.display(),
        ca_file.display()
    );
    if names.dns.is_empty() && names.addresses.is_empty() {
        told.push_str("It names no host: agents need `aggregator.server_name`. Give --dns or --address.\n");
    }
    Ok(told)
}

fn lifetime(days: Option<u32>, default: Duration) -> Duration {
    days.map_or(default, |days| Duration::from_hours(24 * u64::from(days)))
}

fn existing(replace: bool) -> Existing {
    if replace { Existing::Replace } else { Existing::Refuse }
}

fn described(view: &CertificateView) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<12} {value}");
        }
    };
    line("subject", view.subject.clone());
    line("issuer", view.issuer.clone());
    line("identity", view.uris.join(", "));
    line("dns", view.dns.join(", "));
    line("addresses", view.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    line("valid from", view.not_before.to_string());
    line("valid until", view.not_after.to_string());
    line("serial", view.serial.clone());
    line("SHA-256", view.fingerprint_sha256.clone());
    line("may issue", if view.is_ca { "yes: an authority".into() } else { "no".into() });
    out
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn run(dir: &std::path::Path, line: &str) -> anyhow::Result<String> {
        let dir = dir.display().to_string();
        let words = ["pegel", "pki"].into_iter().chain(line.split(' ')).chain(["--dir", &dir]);
        let Command::Pki { command } = Cli::try_parse_from(words)?.command else { panic!("not pki") };
        super::run(&command)
    }

    #[test]
    fn from_an_authority_to_a_revoked_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("pki");
        let error = format!("{:#}", run(&dir, "issue --tenant t --node n").unwrap_err());
        assert!(error.contains("pegel pki init"), "{error}");
        assert!(run(&dir, "init --trust-domain example.org").unwrap().contains("example.org"));
        let error = run(&dir, "init").unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        let issued = run(&dir, "issue --tenant acme --node web-1").unwrap();
        assert!(issued.starts_with("spiffe://example.org/tenant/acme/node/web-1\n"), "{issued}");
        assert!(run(&dir, "issue --tenant acme --node ../x").unwrap_err().to_string().contains("not valid"));
        assert!(
            run(&dir, "issue --aggregator one --dns one.example")
                .unwrap()
                .contains("aggregators/one/cert.pem")
        );
        let cert = dir.join("agents/acme/web-1/cert.pem");
        let shown = run(&dir, &format!("show {}", cert.display())).unwrap();
        assert!(shown.contains("identity     spiffe://example.org/tenant/acme/node/web-1"), "{shown}");
        let revoked = run(&dir, &format!("revoke {}", cert.display())).unwrap();
        assert!(revoked.contains("is revoked"), "{revoked}");
    }
}
