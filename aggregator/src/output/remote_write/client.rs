//! The HTTP side of an output: where requests go, who signs them, and what came back.

use super::answer::{Exchange, Response};
use super::{Settings, SetupError, Version};
use crate::output::backend::{Backend, BackendSettings, Exchanged, check_url, retry_after};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::Full;
use pegel_proto::identity::TenantId;
use std::time::SystemTime;

/// The longest answer that is read, in bytes. Prometheus' 2.0 refusals name each record, some 300 bytes a line: a
/// request of 10,000 refused samples fits.
const MAX_ANSWER_BYTES: usize = 8 << 20;

const VERSION_HEADER: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");
const ATTEMPT_HEADER: HeaderName = HeaderName::from_static("retry-attempt");
const SAMPLES_WRITTEN: &str = "x-prometheus-remote-write-samples-written";
const OTHERS_WRITTEN: [&str; 2] =
    ["x-prometheus-remote-write-histograms-written", "x-prometheus-remote-write-exemplars-written"];

/// Where one output's requests go.
pub(super) struct Endpoint {
    backend: Backend,
    url: Uri,
    tenant_header: Option<HeaderName>,
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
        Ok(Self { backend, url: settings.url.clone(), tenant_header: settings.tenant_header.clone() })
    }

    /// Sends one request and waits for the answer.
    pub async fn send(&self, tenant: &TenantId, version: Version, failures: u32, body: Bytes) -> Exchange {
        let request = match self.request(tenant, version, failures, body) {
            Ok(request) => request,
            Err(reason) => return Exchange::Failed { reason, ambiguous: false },
        };
        match self.backend.exchange(request, MAX_ANSWER_BYTES).await {
            Exchanged::Failed { reason, ambiguous } => Exchange::Failed { reason, ambiguous },
            Exchanged::Answered { status, headers, body } => Exchange::Answered(Response {
                status,
                retry_after: retry_after(&headers, SystemTime::now()),
                written: written(&headers),
                message: String::from_utf8_lossy(&body.unwrap_or_default()).into_owned(),
            }),
        }
    }

    fn request(
        &self,
        tenant: &TenantId,
        version: Version,
        failures: u32,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::post(self.url.clone()).body(Full::new(body)).map_err(|e| e.to_string())?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        let (kind, number) = match version {
            Version::V1 => ("application/x-protobuf", "0.1.0"),
            Version::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(VERSION_HEADER, HeaderValue::from_static(number));
        if failures > 0 {
            headers.insert(ATTEMPT_HEADER, HeaderValue::from(failures));
        }
        if let Some(name) = &self.tenant_header {
            headers.insert(name, HeaderValue::from_str(tenant.as_str()).map_err(|e| e.to_string())?);
        }
        Ok(request)
    }
}

/// `X-Prometheus-Remote-Write-Samples-Written`. The specification lets a missing header stand for 0, so any of the
/// three shows that the backend knows of them.
fn written(headers: &HeaderMap) -> Option<u64> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse().ok();
    number(SAMPLES_WRITTEN)
        .or_else(|| OTHERS_WRITTEN.into_iter().any(|name| headers.contains_key(name)).then_some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn any_written_header_shows_that_the_backend_counts() {
        assert_eq!(written(&headers(&[])), None);
        assert_eq!(written(&headers(&[(SAMPLES_WRITTEN, "12")])), Some(12));
        assert_eq!(written(&headers(&[(OTHERS_WRITTEN[0], "0")])), Some(0));
    }
}
