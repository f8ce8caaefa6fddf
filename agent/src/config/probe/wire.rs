//! Checks below HTTP: tcp, tls, icmp and dns, with blackbox_exporter's keys.

use super::{RawIpProtocol, RawProbeTls, pattern, patterns};
use crate::source::probe::kinds::dns::{self, Transport, Validation};
use crate::source::probe::kinds::{icmp, tcp, tls};
use crate::source::probe::net::dns::{CLASSES, Question, RCODES, TYPES, number_of, query};
use pegel_runtime::config::form::Period;
use pegel_runtime::config::section::is_label_name;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A label of `probe_expect_info`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct RawExpectLabel {
    /// Its name.
    pub name: String,
    /// Its value; `$1` is the first group of `expect`, written `$${1}` where a letter or digit follows.
    pub value: String,
}

/// A step of a conversation: what must come, then what is sent.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawStep {
    /// A regular expression; lines are read until it matches one.
    pub expect: Option<String>,
    /// Exactly this must come.
    pub expect_bytes: Option<String>,
    /// Labels of `probe_expect_info`.
    pub labels: Vec<RawExpectLabel>,
    /// What is sent, with a line feed after it; `$1` is the first group of `expect`, written `$${1}` where a letter or
    /// digit follows.
    pub send: Option<String>,
    /// Whether TLS begins after that.
    pub starttls: bool,
}

/// A check over TCP.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawTcpProbe {
    /// The IP protocol that is used where there is a choice.
    pub preferred_ip_protocol: RawIpProtocol,
    /// Whether the other one is used where there is no address of the preferred.
    pub ip_protocol_fallback: bool,
    /// The address of this machine that is connected from.
    pub source_ip_address: Option<String>,
    /// What is said, step by step.
    pub query_response: Vec<RawStep>,
    /// Whether TLS begins with the connection.
    pub tls: bool,
    /// TLS.
    pub tls_config: RawProbeTls,
}

impl Default for RawTcpProbe {
    fn default() -> Self {
        Self {
            preferred_ip_protocol: RawIpProtocol::Ip6,
            ip_protocol_fallback: true,
            source_ip_address: None,
            query_response: Vec::new(),
            tls: false,
            tls_config: RawProbeTls::default(),
        }
    }
}

/// A check of a certificate.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawTlsProbe {
    /// The IP protocol that is used where there is a choice.
    pub preferred_ip_protocol: RawIpProtocol,
    /// Whether the other one is used where there is no address of the preferred.
    pub ip_protocol_fallback: bool,
    /// A certificate that expires within this time is a failure; 0 is when it has expired.
    pub fail_if_expires_within: Period,
    /// TLS.
    pub tls_config: RawProbeTls,
}

impl Default for RawTlsProbe {
    fn default() -> Self {
        Self {
            preferred_ip_protocol: RawIpProtocol::Ip6,
            ip_protocol_fallback: true,
            fail_if_expires_within: Period::seconds(0),
            tls_config: RawProbeTls::default(),
        }
    }
}

/// A check by ICMP echo.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawIcmpProbe {
    /// The IP protocol that is used where there is a choice.
    pub preferred_ip_protocol: RawIpProtocol,
    /// Whether the other one is used where there is no address of the preferred.
    pub ip_protocol_fallback: bool,
    /// The address of this machine that is sent from.
    pub source_ip_address: Option<String>,
    /// How many bytes of payload; 0 is a short text.
    #[schemars(range(max = icmp::MAX_PAYLOAD_BYTES))]
    pub payload_size: u16,
    /// Whether routers may not fragment it (IPv4); needs CAP_NET_RAW.
    pub dont_fragment: bool,
    /// The hop limit.
    #[schemars(range(min = 1))]
    pub ttl: u8,
}

impl Default for RawIcmpProbe {
    fn default() -> Self {
        Self {
            preferred_ip_protocol: RawIpProtocol::Ip6,
            ip_protocol_fallback: true,
            source_ip_address: None,
            payload_size: 0,
            dont_fragment: false,
            ttl: icmp::DEFAULT_TTL,
        }
    }
}

/// How a DNS question is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawTransport {
    /// UDP.
    #[default]
    Udp,
    /// TCP.
    Tcp,
}

/// What records must be. Each is held against regular expressions as one line with tabs between name, time to live,
/// class, type and contents.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "they are blackbox_exporter's keys")]
pub struct RawRecords {
    /// A record that one of these matches is a failure.
    pub fail_if_matches_regexp: Vec<String>,
    /// A record that does not match all of these is a failure (what blackbox_exporter does, whatever the name says).
    pub fail_if_all_match_regexp: Vec<String>,
    /// A record that one of these does not match is a failure, and so is none at all.
    pub fail_if_not_matches_regexp: Vec<String>,
    /// Records of which none matches any of these are a failure.
    pub fail_if_none_matches_regexp: Vec<String>,
}

/// A check of a name server.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["query_name"]))]
pub struct RawDnsProbe {
    /// The IP protocol that is used where there is a choice.
    pub preferred_ip_protocol: RawIpProtocol,
    /// Whether the other one is used where there is no address of the preferred.
    pub ip_protocol_fallback: bool,
    /// The address of this machine that is asked from.
    pub source_ip_address: Option<String>,
    /// The name that is asked for.
    pub query_name: String,
    /// The type of record.
    pub query_type: String,
    /// The class.
    pub query_class: String,
    /// How the question is carried.
    pub transport_protocol: RawTransport,
    /// Whether it is carried over TLS; needs `transport_protocol: tcp`.
    pub dns_over_tls: bool,
    /// Whether the server is asked to ask others.
    pub recursion_desired: bool,
    /// Codes of answers that are fine; without any, `NOERROR`.
    pub valid_rcodes: Vec<String>,
    /// What the answer section must be.
    pub validate_answer_rrs: RawRecords,
    /// What the authority section must be.
    pub validate_authority_rrs: RawRecords,
    /// What the additional section must be.
    pub validate_additional_rrs: RawRecords,
    /// TLS.
    pub tls_config: RawProbeTls,
}

impl Default for RawDnsProbe {
    fn default() -> Self {
        Self {
            preferred_ip_protocol: RawIpProtocol::Ip6,
            ip_protocol_fallback: true,
            source_ip_address: None,
            query_name: String::new(),
            query_type: "ANY".to_owned(),
            query_class: "IN".to_owned(),
            transport_protocol: RawTransport::Udp,
            dns_over_tls: false,
            recursion_desired: true,
            valid_rcodes: Vec::new(),
            validate_answer_rrs: RawRecords::default(),
            validate_authority_rrs: RawRecords::default(),
            validate_additional_rrs: RawRecords::default(),
            tls_config: RawProbeTls::default(),
        }
    }
}

fn source_address(text: Option<&String>, path: &Path, mistakes: &mut Mistakes) -> Option<IpAddr> {
    let text = text?;
    text.parse()
        .map_err(|_| {
            let reason = format!("`{}` is no IP address", text.escape_debug());
            mistakes.at(&path.key("source_ip_address"), reason, "write an address of this machine");
        })
        .ok()
}

impl RawTcpProbe {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> tcp::Settings {
        let steps = self.query_response.iter().enumerate();
        let steps =
            steps.map(|(i, step)| step.resolve(&path.key("query_response").index(i), mistakes)).collect();
        let uses_tls = self.tls || self.query_response.iter().any(|step| step.starttls);
        if !uses_tls && self.tls_config != RawProbeTls::default() {
            mistakes.at(&path.key("tls_config"), "is not used", "set tls: true, or starttls: true in a step");
        }
        tcp::Settings {
            families: self.preferred_ip_protocol.families(self.ip_protocol_fallback),
            source_address: source_address(self.source_ip_address.as_ref(), path, mistakes),
            steps,
            tls: self.tls,
            tls_settings: self.tls_config.resolve(&path.key("tls_config"), mistakes),
        }
    }
}

impl RawStep {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> tcp::Step {
        if self.expect.is_some() && self.expect_bytes.is_some() {
            mistakes.at(
                &path.key("expect_bytes"),
                "is there beside expect",
                "take one out, or make two steps",
            );
        }
        if self.expect.is_none() && !self.labels.is_empty() {
            mistakes.at(&path.key("labels"), "say what expect found, and there is none", "add expect");
        }
        let mut seen = Vec::new();
        for (i, label) in self.labels.iter().enumerate() {
            let path = path.key("labels").index(i).key("name");
            if !is_label_name(&label.name) || label.name.starts_with("__") {
                mistakes.at(&path, "is not a label name", "use letters, digits and underscores");
            } else if seen.contains(&&label.name) {
                mistakes.at(&path, "is there twice", "take one out");
            }
            seen.push(&label.name);
        }
        tcp::Step {
            expect: self.expect.as_ref().and_then(|text| pattern(text, &path.key("expect"), mistakes)),
            expect_bytes: self
                .expect_bytes
                .as_ref()
                .filter(|b| !b.is_empty())
                .map(|text| text.clone().into_bytes()),
            labels: self.labels.iter().map(|label| (label.name.clone(), label.value.clone())).collect(),
            send: self.send.clone(),
            starttls: self.starttls,
        }
    }
}

impl RawTlsProbe {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> tls::Settings {
        tls::Settings {
            families: self.preferred_ip_protocol.families(self.ip_protocol_fallback),
            fail_if_expires_within: self.fail_if_expires_within.0,
            tls: self.tls_config.resolve(&path.key("tls_config"), mistakes),
        }
    }
}

impl RawIcmpProbe {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> icmp::Settings {
        icmp::Settings {
            families: self.preferred_ip_protocol.families(self.ip_protocol_fallback),
            source_address: source_address(self.source_ip_address.as_ref(), path, mistakes),
            payload_size: self.payload_size,
            dont_fragment: self.dont_fragment,
            ttl: self.ttl,
        }
    }
}

impl RawRecords {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Validation {
        let mut list = |key: &str, texts: &[String]| patterns(texts, &path.key(key), mistakes);
        Validation {
            fail_if_matches: list("fail_if_matches_regexp", &self.fail_if_matches_regexp),
            fail_if_all_match: list("fail_if_all_match_regexp", &self.fail_if_all_match_regexp),
            fail_if_not_matches: list("fail_if_not_matches_regexp", &self.fail_if_not_matches_regexp),
            fail_if_none_matches: list("fail_if_none_matches_regexp", &self.fail_if_none_matches_regexp),
        }
    }
}

impl RawDnsProbe {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> dns::Settings {
        let mut number = |table: &[(&'static str, u16)], what: &str, text: &str, path: &Path| {
            number_of(table, text).unwrap_or_else(|| {
                let known = table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                let reason = format!("`{}` is no {what} that is known", text.escape_debug());
                mistakes.at(path, reason, format!("use one of {known}"));
                0
            })
        };
        let question = Question {
            name: self.query_name.clone(),
            qtype: number(TYPES, "type", &self.query_type, &path.key("query_type")),
            class: number(CLASSES, "class", &self.query_class, &path.key("query_class")),
        };
        let valid_rcodes = self.valid_rcodes.iter().enumerate();
        let valid_rcodes = valid_rcodes
            .map(|(i, code)| number(RCODES, "code", code, &path.key("valid_rcodes").index(i)))
            .collect();
        if self.query_name.is_empty() || query(0, &question, true).is_err() {
            let reason = format!("`{}` is no name that can be asked for", self.query_name.escape_debug());
            mistakes.at(
                &path.key("query_name"),
                reason,
                "write one such as www.example.org, or . for the root",
            );
        }
        let transport = match (self.transport_protocol, self.dns_over_tls) {
            (RawTransport::Udp, true) => {
                mistakes.at(&path.key("dns_over_tls"), "is not done over UDP", "set transport_protocol: tcp");
                Transport::Tls
            }
            (RawTransport::Udp, false) => Transport::Udp,
            (RawTransport::Tcp, false) => Transport::Tcp,
            (RawTransport::Tcp, true) => Transport::Tls,
        };
        dns::Settings {
            question,
            transport,
            recursion_desired: self.recursion_desired,
            families: self.preferred_ip_protocol.families(self.ip_protocol_fallback),
            source_address: source_address(self.source_ip_address.as_ref(), path, mistakes),
            valid_rcodes,
            answers: self.validate_answer_rrs.resolve(&path.key("validate_answer_rrs"), mistakes),
            authorities: self.validate_authority_rrs.resolve(&path.key("validate_authority_rrs"), mistakes),
            additionals: self.validate_additional_rrs.resolve(&path.key("validate_additional_rrs"), mistakes),
            tls: self.tls_config.resolve(&path.key("tls_config"), mistakes),
        }
    }
}
