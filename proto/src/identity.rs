//! Who sent something: newtypes for what must not be mixed up.

use std::fmt;

/// Why a name cannot be a tenant, node or output name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} `{value}` is not valid: use 1 to {max} characters of a-z, A-Z, 0-9, '.', '_' or '-', beginning with a letter or digit"
)]
pub struct BadName {
    /// Which kind of name was parsed.
    pub what: &'static str,
    /// The text as given, cut to a printable length.
    pub value: String,
    /// The longest name that is accepted, in bytes.
    pub max: usize,
}

fn parse_name(what: &'static str, text: &str, max: usize) -> Result<Box<str>, BadName> {
    let ok = !text.is_empty()
        && text.len() <= max
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if ok {
        Ok(text.into())
    } else {
        Err(BadName { what, value: text.chars().take(80).flat_map(char::escape_debug).collect(), max })
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Parses a name; see [`BadName`] for the rule.
            pub fn parse(text: &str) -> Result<Self, BadName> {
                parse_name($what, text, $max).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// A tenant, as the client certificate names it.
    TenantId, "tenant", 64
}
name_type! {
    /// A node, as the client certificate names it. Host names fit (253 bytes).
    NodeId, "node", 253
}
name_type! {
    /// The name of an output of the aggregator, as configured.
    OutputName, "output", 64
}

impl OutputName {
    /// The name of the output in memory that an aggregator has while it has no backend. What it does not hold yet is
    /// owed to the first real one.
    pub const RECENT: &str = "recent";
}

/// Tenant and node together: what a client certificate proves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentIdentity {
    /// The tenant.
    pub tenant: TenantId,
    /// The node.
    pub node: NodeId,
}

impl AgentIdentity {
    /// Writes the identity as a SPIFFE-style URI, `spiffe://TRUST-DOMAIN/tenant/TENANT/node/NODE`.
    pub fn to_uri(&self, trust_domain: &str) -> String {
        format!("spiffe://{trust_domain}/tenant/{}/node/{}", self.tenant, self.node)
    }

    /// Reads an identity from a SPIFFE-style URI of the given trust domain.
    pub fn from_uri(uri: &str, trust_domain: &str) -> Result<Self, BadIdentityUri> {
        let bad = |reason: &str| BadIdentityUri {
            uri: uri.chars().take(300).flat_map(char::escape_debug).collect(),
            reason: reason.to_owned(),
        };
        let rest = uri.strip_prefix("spiffe://").ok_or_else(|| bad("it does not begin with spiffe://"))?;
        let mut parts = rest.split('/');
        if parts.next() != Some(trust_domain) {
            return Err(bad(&format!("its trust domain is not `{trust_domain}`")));
        }
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("tenant"), Some(tenant), Some("node"), Some(node), None) => Ok(Self {
                tenant: TenantId::parse(tenant).map_err(|e| bad(&e.to_string()))?,
                node: NodeId::parse(node).map_err(|e| bad(&e.to_string()))?,
            }),
            _ => Err(bad("its path is not /tenant/TENANT/node/NODE")),
        }
    }
}

/// Why a certificate's URI is not an agent identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{uri}` is not an agent identity: {reason}")]
pub struct BadIdentityUri {
    /// The URI, printable.
    pub uri: String,
    /// What is wrong with it.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_uri() {
        let id = AgentIdentity {
            tenant: TenantId::parse("acme").unwrap(),
            node: NodeId::parse("web-1.example").unwrap(),
        };
        assert_eq!(AgentIdentity::from_uri(&id.to_uri("pegel"), "pegel"), Ok(id));
    }

    #[test]
    fn foreign_and_malformed_uris_are_refused_with_the_reason() {
        for (uri, reason) in [
            ("https://pegel/tenant/a/node/b", "does not begin with spiffe://"),
            ("spiffe://other/tenant/a/node/b", "trust domain"),
            ("spiffe://pegel/tenant/a/node/b/c", "path"),
            ("spiffe://pegel/tenant/../node/b", "tenant"),
            ("spiffe://pegel/tenant/a/node/", "node"),
        ] {
            let error = AgentIdentity::from_uri(uri, "pegel").unwrap_err().to_string();
            assert!(error.contains(reason), "{uri}: {error}");
        }
    }
}
