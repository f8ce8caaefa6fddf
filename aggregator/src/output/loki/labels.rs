//! The labels of a stream as Loki's push API wants them: one text, `{name="value", …}`.
//!
//! Loki reads it with Prometheus' parser (`ParseLabels` in pkg/logql/syntax/parser.go), and one text that this can't
//! read makes it refuse the whole request without naming the stream. So names are checked here, and values quoted
//! with escapes that the parser knows.

use super::limits::Limits;
use crate::session::{NODE_LABEL, TENANT_LABEL};
use pegel_proto::identity::AgentIdentity;
use std::fmt::Write as _;

/// Why a stream can't be written at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LabelFault {
    /// A name is not one that Loki's parser takes.
    #[error("the label name `{0}` has characters outside a-z, A-Z, 0-9 and _")]
    Name(String),
    /// There are more labels than Loki takes.
    #[error("the stream has {count} labels, over limits.labels, {most}")]
    TooMany {
        /// How many, with those that the aggregator adds.
        count: usize,
        /// The limit.
        most: usize,
    },
    /// A name is longer than Loki takes.
    #[error("the label name `{name}…` is longer than limits.label_name, {most} bytes")]
    LongName {
        /// Its beginning.
        name: String,
        /// The limit.
        most: usize,
    },
    /// A value is longer than Loki takes.
    #[error("the value of the label `{name}` has {bytes} bytes, over limits.label_value, {most}")]
    LongValue {
        /// The label.
        name: String,
        /// The value's size.
        bytes: usize,
        /// The limit.
        most: usize,
    },
}

/// The text of an agent's stream: the source's labels with `node` and `tenant` of its certificate, sorted by name. A
/// source's own labels of these names are kept as `exported_node` and `exported_tenant`, as in metrics.
pub(super) fn stream_text<'a>(
    own: impl Iterator<Item = (&'a str, &'a str)>,
    identity: &'a AgentIdentity,
    limits: &Limits,
) -> Result<String, LabelFault> {
    let mut labels: Vec<(&str, &str)> = own.filter(|(_, value)| !value.is_empty()).collect();
    for (claimed, exported) in [(TENANT_LABEL, "exported_tenant"), (NODE_LABEL, "exported_node")] {
        let Some(at) = labels.iter().position(|(name, _)| *name == claimed) else { continue };
        let (_, value) = labels.remove(at);
        if labels.iter().all(|(name, _)| *name != exported) {
            labels.push((exported, value));
        }
    }
    labels.push((NODE_LABEL, identity.node.as_str()));
    labels.push((TENANT_LABEL, identity.tenant.as_str()));
    labels.sort_unstable();
    if let Some((name, _)) = labels.iter().find(|(name, _)| !is_name(name)) {
        return Err(LabelFault::Name((*name).to_owned()));
    }
    limits.check_labels(&labels)?;
    Ok(spell(labels.into_iter()))
}

fn is_name(name: &str) -> bool {
    name.bytes()
        .enumerate()
        .all(|(i, b)| b == b'_' || b.is_ascii_alphabetic() || (i > 0 && b.is_ascii_digit()))
}

/// Writes labels as Prometheus does (`stringImpl` in model/labels/labels_common.go).
pub(super) fn spell<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::with_capacity(128);
    for (name, value) in labels {
        text.push_str(if text.is_empty() { "{" } else { ", " });
        text.push_str(name);
        text.push('=');
        quote(&mut text, value);
    }
    text.push('}');
    text
}

/// A text in double quotes, with Go's escapes.
pub(super) fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => drop(write!(out, "\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Labels as somebody wrote them, unquoted.
pub(super) type Labels = Vec<(String, String)>;

/// Reads labels at the front of a text, as Loki's answers have them. Gives them sorted, and the rest of the text.
pub(super) fn parse(text: &str) -> Option<(Labels, &str)> {
    let mut rest = text.strip_prefix('{')?;
    let mut labels = Labels::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            labels.sort_unstable();
            return Some((labels, after));
        }
        if !labels.is_empty() {
            rest = rest.strip_prefix(", ").or_else(|| rest.strip_prefix(','))?;
        }
        let (name, after) = if rest.starts_with('"') {
            unquote(rest)?
        } else {
            let end = rest.find('=')?;
            (rest[..end].to_owned(), &rest[end..])
        };
        let (value, after) = unquote(after.strip_prefix('=')?)?;
        labels.push((name, value));
        rest = after;
    }
}

/// Reads a text in double quotes with Go's escapes (`strconv.Quote`).
fn unquote(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut out = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &inner[at + 1..])),
            '\\' => {
                let (_, escape) = chars.next()?;
                let digits = match escape {
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    _ => 0,
                };
                out.push(match escape {
                    'a' => '\x07',
                    'b' => '\x08',
                    'f' => '\x0c',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\x0b',
                    '\\' | '"' | '\'' => escape,
                    'x' | 'u' | 'U' => {
                        let mut code = 0;
                        for _ in 0..digits {
                            code = code << 4 | chars.next()?.1.to_digit(16)?;
                        }
                        char::from_u32(code)?
                    }
                    _ => return None,
                });
            }
            c => out.push(c),
        }
    }
    None
}

/// Takes out what Loki adds to a stream's labels: the name of the service that it thinks of (`discover_service_name`),
/// and the number of the shard where it splits a stream.
pub(super) fn without_additions(mut labels: Labels, keep_service: bool) -> Labels {
    labels.retain(|(name, _)| name != "__stream_shard__" && (keep_service || name != "service_name"));
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegel_proto::identity::{NodeId, TenantId};
    use proptest::prelude::*;

    fn identity() -> AgentIdentity {
        AgentIdentity { tenant: TenantId::parse("acme").unwrap(), node: NodeId::parse("n1").unwrap() }
    }

    #[test]
    fn node_and_tenant_are_the_certificates_and_those_of_the_source_are_kept() {
        let own = [("job", "x"), ("node", "claimed"), ("tenant", "other"), ("void", "")];
        let text = stream_text(own.into_iter(), &identity(), &Limits::NONE).unwrap();
        assert_eq!(
            text,
            r#"{exported_node="claimed", exported_tenant="other", job="x", node="n1", tenant="acme"}"#
        );
        assert_eq!(
            stream_text([].into_iter(), &identity(), &Limits::NONE).unwrap(),
            r#"{node="n1", tenant="acme"}"#
        );
    }

    #[test]
    fn names_that_would_spoil_the_request_are_found() {
        for name in ["a.b", "1a", "ü", "a b", "a=\"b\""] {
            let fault = stream_text([(name, "x")].into_iter(), &identity(), &Limits::NONE).unwrap_err();
            assert_eq!(fault, LabelFault::Name(name.into()));
        }
    }

    #[test]
    fn what_loki_adds_is_taken_out() {
        let (labels, rest) =
            parse(r#"{a="y'}\"\nü", service_name="s", __stream_shard__="3"}' rest"#).unwrap();
        assert_eq!(rest, "' rest");
        assert_eq!(without_additions(labels, false), [("a".to_owned(), "y'}\"\nü".to_owned())]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(labels in prop::collection::btree_map("[a-z_][a-z0-9_]{0,5}", ".{1,12}", 0..5)) {
            let text = spell(labels.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            let text = if labels.is_empty() { "{}".to_owned() } else { text };
            let (read, rest) = parse(&text).unwrap();
            prop_assert_eq!(rest, "");
            prop_assert_eq!(read, labels.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            let _ = parse(&text);
            let _ = parse(&format!("{{a=\"{text}"));
        }
    }
}
