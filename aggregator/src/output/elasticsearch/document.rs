//! Entries as documents.

use super::shard::Request;
use bytes::Bytes;
use pegel_proto::identity::TenantId;
use pegel_proto::logs::EntryView;
use std::fmt::Write as _;
use std::io::Write as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use xxhash_rust::xxh3::Xxh3;

/// The names under which a source may tell a field that has one of its own, best first.
const FIELDS: [(&str, &[&str]); 4] = [
    ("level", &["level", "severity", "detected_level"]),
    ("service", &["service", "service_name", "app", "job"]),
    ("trace_id", &["trace_id", "traceid", "traceID"]),
    ("span_id", &["span_id", "spanid", "spanID"]),
];

/// The index template: what a search needs has a type, the rest is kept as keywords.
pub(super) const TEMPLATE: &str = r#"{"index_patterns":["logs-pegel-*"],"priority":200,"data_stream":{},"template":{"mappings":{"properties":{"@timestamp":{"type":"date_nanos"},"message":{"type":"match_only_text"},"level":{"type":"keyword"},"service":{"type":"keyword"},"trace_id":{"type":"keyword"},"span_id":{"type":"keyword"},"node":{"type":"keyword"},"tenant":{"type":"keyword"},"labels":{"type":"flattened"},"metadata":{"type":"flattened"}}}},"_meta":{"description":"Logs of pegel agents"}}"#;

/// The body of a bulk request: for each entry an action and a document, each a line.
pub(super) fn bulk(request: &Request, tenant: &TenantId) -> Bytes {
    let mut out = Vec::with_capacity(request.bytes() * 2);
    for (source, index) in request.items() {
        let Some(entry) = source.block.entry(index as usize) else { continue };
        let id = identity(tenant, &source.node, &source.streams[entry.stream()], entry);
        let _ = writeln!(out, "{{\"create\":{{\"_id\":\"{id}\"}}}}");
        document(&mut out, tenant, &source.node, &source.block, entry);
    }
    out.into()
}

/// An entry's identity: of whom, of which stream, when and what.
fn identity(tenant: &TenantId, node: &str, stream: &str, entry: EntryView<'_>) -> String {
    let mut hash = Xxh3::new();
    for text in [tenant.as_str().as_bytes(), node.as_bytes(), stream.as_bytes()] {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.update(&entry.at_ns().to_le_bytes());
    hash.update(entry.line_bytes());
    format!("{:032x}", hash.digest128())
}

fn document(
    out: &mut Vec<u8>,
    tenant: &TenantId,
    node: &str,
    block: &pegel_proto::logs::DecodedBlock,
    entry: EntryView<'_>,
) {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(entry.at_ns()));
    let at = at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
    out.extend_from_slice(b"{\"@timestamp\":");
    text(out, &at);
    let labels = || block.labels(entry.stream());
    for (name, value) in [("message", entry.line()), ("node", node), ("tenant", tenant.as_str())] {
        member(out, name, value);
    }
    for (field, names) in FIELDS {
        let find = |name: &&str| entry.metadata().chain(labels()).find(|(n, _)| n == name);
        if let Some((_, value)) = names.iter().find_map(find) {
            member(out, field, value);
        }
    }
    object(out, "labels", labels());
    object(out, "metadata", entry.metadata());
    out.extend_from_slice(b"}\n");
}

fn object<'a>(out: &mut Vec<u8>, name: &str, pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>) {
    if pairs.len() == 0 {
        return;
    }
    let _ = write!(out, ",\"{name}\":{{");
    for (i, (name, value)) in pairs.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        text(out, name);
        out.push(b':');
        text(out, value);
    }
    out.push(b'}');
}

fn member(out: &mut Vec<u8>, name: &str, value: &str) {
    let _ = write!(out, ",\"{name}\":");
    text(out, value);
}

/// A JSON string.
fn text(out: &mut Vec<u8>, value: &str) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, value);
}

/// A stream's labels as one text, for identities.
pub(super) fn stream<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        let _ = write!(out, "{}:{name}{}:{value}", name.len(), value.len());
    }
    out
}
