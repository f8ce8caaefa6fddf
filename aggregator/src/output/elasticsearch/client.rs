//! The HTTP side of an output.

use super::answer::Meaning;
use super::document::TEMPLATE;
use super::{Settings, SetupError};
use crate::output::backend::{Backend, BackendSettings, Exchanged, check_url, retry_after};
use crate::output::loki::tally::Tally;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// The longest answer that is read, in bytes: some 300 for each of 100,000 entries.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Where one output's requests go.
pub(super) struct Endpoint {
    backend: Backend,
    url: Uri,
}

impl Endpoint {
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        check_url(&settings.url)?;
        let backend = Backend::new(&BackendSettings {
            headers: &settings.headers,
            authorization: &settings.authorization,
            tls: &settings.tls,
            connect_timeout: settings.connect_timeout,
            request_timeout: settings.request_timeout,
        })?;
        Ok(Self { backend, url: settings.url.clone() })
    }

    /// Sends entries.
    pub async fn bulk(&self, index: &str, body: Bytes, items: usize, tally: &Tally) -> Meaning {
        tally.sent(body.len(), body.len());
        // What is read of the answer is only what decides.
        let path =
            format!("/{index}/_bulk?filter_path=items.*.status,items.*.error.type,items.*.error.reason");
        match self.send(Method::POST, &path, "application/x-ndjson", body).await {
            Ok((status, after, body)) => {
                tally.request(&status.to_string());
                Meaning::of(status, after, &body, items)
            }
            Err(reason) => {
                tally.request("failed");
                Meaning::Retry { after: None, reason }
            }
        }
    }

    /// Puts the index template in place, unless it is.
    pub async fn template(&self, put: &AtomicBool) -> Result<(), Meaning> {
        if put.load(Ordering::Relaxed) {
            return Ok(());
        }
        let body = Bytes::from_static(TEMPLATE.as_bytes());
        match self.send(Method::PUT, "/_index_template/pegel-logs", "application/json", body).await {
            Ok((200..300, ..)) => {
                put.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok((status, after, body)) => Err(Meaning::of(status, after, &body, 0)),
            Err(reason) => Err(Meaning::Retry { after: None, reason }),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Bytes,
    ) -> Result<(u16, Option<std::time::Duration>, Bytes), String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url.to_string().trim_end_matches('/')))
            .header(CONTENT_TYPE, HeaderValue::from_static(kind))
            .body(Full::new(body))
            .map_err(|e| e.to_string())?;
        match self.backend.exchange(request, MAX_ANSWER_BYTES).await {
            Exchanged::Failed { reason, .. } => Err(reason),
            Exchanged::Answered { status, headers, body } => {
                Ok((status, retry_after(&headers, SystemTime::now()), body.unwrap_or_default()))
            }
        }
    }
}
