//! The HTTP side of an output: pushes, and the question what Loki holds.

use super::answer::{Exchange, Response};
use super::blame::is_stream;
use super::labels::Labels;
use super::piece::{Group, Piece};
use super::shard::Holdings;
use super::{Settings, SetupError};
use crate::output::backend::{Backend, BackendSettings, Exchanged, check_url, retry_after};
use crate::output::settlement::cut;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::Full;
use pegel_proto::identity::TenantId;
use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use xxhash_rust::xxh3::xxh3_64;

/// The longest answer to a push that is read, in bytes. Each second of each stream with refused entries has its text,
/// some 300 bytes.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// The longest page of entries that is read, in bytes.
const MAX_PAGE_BYTES: usize = 64 << 20;
/// Entries of a page. Loki's default limit of a query is 5,000.
const PAGE: usize = 1_000;
/// More pages than the entries need are never asked for, but others may have written between them.
const SPARE_PAGES: usize = 20;
/// Makes Loki tell a stream's labels apart from structured metadata (since 3.0).
const FLAGS: HeaderName = HeaderName::from_static("x-loki-response-encoding-flags");

/// Where one output's requests go.
pub(super) struct Endpoint {
    backend: Backend,
    url: Uri,
    query_url: Option<Uri>,
    tenant_header: Option<HeaderName>,
    query_ingesters_within: Duration,
}

impl Endpoint {
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        check_url(&settings.url)?;
        if let Some(url) = &settings.query_url {
            check_url(url)?;
        }
        let backend = Backend::new(&BackendSettings {
            headers: &settings.headers,
            authorization: &settings.authorization,
            tls: &settings.tls,
            connect_timeout: settings.connect_timeout,
            request_timeout: settings.request_timeout,
        })?;
        Ok(Self {
            backend,
            url: settings.url.clone(),
            query_url: settings.query_url.clone(),
            tenant_header: settings.tenant_header.clone(),
            query_ingesters_within: settings.query_ingesters_within,
        })
    }

    /// Sends one request and waits for the answer.
    pub async fn push(&self, tenant: &TenantId, body: Bytes) -> Exchange {
        let request = Request::post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))
            .header(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        let request = match self.finish(request, tenant, body) {
            Ok(request) => request,
            Err(reason) => return Exchange::Failed { reason, ambiguous: false },
        };
        match self.backend.exchange(request, MAX_ANSWER_BYTES).await {
            Exchanged::Failed { reason, ambiguous } => Exchange::Failed { reason, ambiguous },
            Exchanged::Answered { status, headers, body } => Exchange::Answered(Response {
                status,
                retry_after: retry_after(&headers, SystemTime::now()),
                message: String::from_utf8_lossy(&body.unwrap_or_default()).into_owned(),
            }),
        }
    }

    fn finish(
        &self,
        mut request: http::request::Builder,
        tenant: &TenantId,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, String> {
        if let Some(name) = &self.tenant_header {
            request = request.header(name, tenant.as_str());
        }
        request.body(Full::new(body)).map_err(|e| e.to_string())
    }

    /// Asks which entries of a piece Loki holds.
    pub async fn ask(&self, tenant: &TenantId, piece: &Piece) -> Result<Holdings, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        let mut held = Vec::with_capacity(piece.groups.len());
        for group in &piece.groups {
            let stored = self.stored(tenant, piece, group).await?;
            let holds = |record: &super::piece::Record| {
                let entry = piece.entry(*record);
                stored.contains(&(entry.at_ns(), xxh3_64(entry.line_bytes())))
            };
            held.push(group.records().iter().map(holds).collect());
        }
        let within = self.query_ingesters_within;
        // Older entries that are not flushed yet are not found: a query of so long ago does not go to ingesters.
        let blind_before_ns =
            if within.is_zero() { i64::MIN } else { now.saturating_sub(within.as_nanos() as i64) };
        Ok(Holdings { held, blind_before_ns })
    }

    /// The entries that Loki holds of a stream within the span of a group, page by page.
    async fn stored(
        &self,
        tenant: &TenantId,
        piece: &Piece,
        group: &Group,
    ) -> Result<HashSet<(i64, u64)>, String> {
        let mut stored = HashSet::new();
        if group.is_empty() {
            return Ok(stored);
        }
        let measure = piece.measure(group);
        let (mut start, end) = (measure.oldest_ns, measure.newest_ns);
        for _ in 0..group.records().len() / PAGE + SPARE_PAGES {
            let page = self.page(tenant, &group.stream, start, end.saturating_add(1)).await?;
            let mut last = start;
            let mut count = 0;
            for result in &page.data.result {
                let labels: Labels = result.stream.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
                let ours = is_stream(&group.stream, &labels);
                for Value(at, line) in &result.values {
                    let at: i64 =
                        at.parse().map_err(|_| "Loki's answer has a time that is no number".to_owned())?;
                    last = last.max(at);
                    count += 1;
                    if ours {
                        stored.insert((at, xxh3_64(line.as_bytes())));
                    }
                }
            }
            if count < PAGE {
                return Ok(stored);
            }
            // The page may end between entries of one instant: it is asked for again, unless it fills a page.
            start = if last > start { last } else { last + 1 };
        }
        Err(format!(
            "Loki holds too many entries in the time of those that it is asked about: {}",
            group.stream
        ))
    }

    async fn page(&self, tenant: &TenantId, stream: &str, start: i64, end: i64) -> Result<Answer, String> {
        let Some(url) = &self.query_url else { return Err("no query_url is configured".to_owned()) };
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", stream)
            .append_pair("start", &start.to_string())
            .append_pair("end", &end.to_string())
            .append_pair("limit", &PAGE.to_string())
            .append_pair("direction", "forward")
            .finish();
        let url = format!("{}/loki/api/v1/query_range?{query}", url.to_string().trim_end_matches('/'));
        let request = Request::get(url).header(FLAGS, HeaderValue::from_static("categorize-labels"));
        match self.backend.exchange(self.finish(request, tenant, Bytes::new())?, MAX_PAGE_BYTES).await {
            Exchanged::Failed { reason, .. } => {
                Err(format!("Loki could not be asked what it holds: {reason}"))
            }
            Exchanged::Answered { status: 200, body: Some(body), .. } => serde_json::from_slice(&body)
                .map_err(|e| format!("Loki's answer to what it holds can't be read: {e}")),
            Exchanged::Answered { status, body, .. } => {
                let words = String::from_utf8_lossy(&body.unwrap_or_default()).trim().to_owned();
                Err(format!("Loki was asked what it holds and answered {status}: {}", cut(&words, 300)))
            }
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    #[serde(default)]
    stream: BTreeMap<String, String>,
    values: Vec<Value>,
}

/// Time and line; what follows is structured metadata.
struct Value(String, String);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Value;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a time and a line")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let short = || serde::de::Error::custom("an entry without time or line");
                let value =
                    Value(seq.next_element()?.ok_or_else(short)?, seq.next_element()?.ok_or_else(short)?);
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(value)
            }
        }
        deserializer.deserialize_seq(Pair)
    }
}
