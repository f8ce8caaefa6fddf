//! The HTTP side of an output: where requests go, who signs them, and what came back.

use super::answer::{Exchange, Response};
use super::{Authorization, Settings, SetupError, Version};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use parking_lot::Mutex;
use pegel_proto::identity::TenantId;
use pegel_runtime::http_client::{HttpClient, http_client};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// The longest answer that is read, in bytes. Prometheus' 2.0 refusals name each record, some 300 bytes a line: a
/// request of 10,000 refused samples fits.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// How long a credential that was read from its file serves: rotated ones work within half a minute.
const CREDENTIAL_AGE: Duration = Duration::from_secs(30);

const VERSION_HEADER: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");
const ATTEMPT_HEADER: HeaderName = HeaderName::from_static("retry-attempt");
const SAMPLES_WRITTEN: &str = "x-prometheus-remote-write-samples-written";
const OTHERS_WRITTEN: [&str; 2] =
    ["x-prometheus-remote-write-histograms-written", "x-prometheus-remote-write-exemplars-written"];

/// Where one output's requests go.
pub(super) struct Endpoint {
    client: HttpClient,
    url: Uri,
    headers: HeaderMap,
    tenant_header: Option<HeaderName>,
    authorization: Authorization,
    credential: Mutex<Option<(Instant, HeaderValue)>>,
    timeout: Duration,
}

impl Endpoint {
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        let url = settings.url.clone();
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
            return Err(SetupError::Url("it is not an http:// or https:// URL with a host"));
        }
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(SetupError::Url(
                "it holds credentials: give them as basic authorization with a password file",
            ));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let mut value = value.clone();
            value.set_sensitive(true);
            headers.append(name.clone(), value);
        }
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!("pegel-aggregator/", env!("CARGO_PKG_VERSION"))));
        Ok(Self {
            client: http_client(&settings.tls, settings.connect_timeout)?,
            url,
            headers,
            tenant_header: settings.tenant_header.clone(),
            authorization: settings.authorization.clone(),
            credential: Mutex::new(None),
            timeout: settings.request_timeout,
        })
    }

    /// Sends one request and waits for the answer.
    pub async fn send(&self, tenant: &TenantId, version: Version, failures: u32, body: Bytes) -> Exchange {
        let request = match self.request(tenant, version, failures, body) {
            Ok(request) => request,
            Err(reason) => return Exchange::Failed { reason, ambiguous: false },
        };
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(exchange) => exchange,
            Err(_) => Exchange::Failed {
                reason: format!("the backend did not answer within {:?}", self.timeout),
                ambiguous: true,
            },
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
        headers.clone_from(&self.headers);
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
        if let Some(credential) = self.credential()? {
            headers.insert(AUTHORIZATION, credential);
        }
        Ok(request)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Exchange {
        let response = match self.client.request(request).await {
            Ok(response) => response,
            // A connection that was not made carried nothing.
            Err(e) => return Exchange::Failed { reason: chain(&e), ambiguous: !e.is_connect() },
        };
        let (head, body) = response.into_parts();
        let written = written(&head.headers);
        let retry_after = retry_after(&head.headers, SystemTime::now());
        // The status and headers are what counts; a body that breaks off is an answer without words.
        let message = match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            Err(_) => String::new(),
        };
        Exchange::Answered(Response { status: head.status.as_u16(), retry_after, written, message })
    }

    /// The value of the Authorization header. Errors name the file, never what is in it.
    fn credential(&self) -> Result<Option<HeaderValue>, String> {
        let mut cached = self.credential.lock();
        if let Some((read, value)) = &*cached
            && read.elapsed() < CREDENTIAL_AGE
        {
            return Ok(Some(value.clone()));
        }
        let text = match &self.authorization {
            Authorization::None => return Ok(None),
            Authorization::Bearer { token_file } => format!("Bearer {}", read_secret(token_file)?),
            Authorization::Basic { user, password_file } => {
                format!("Basic {}", base64(format!("{user}:{}", read_secret(password_file)?).as_bytes()))
            }
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| "the credential has characters that an HTTP header can't carry".to_owned())?;
        value.set_sensitive(true);
        *cached = Some((Instant::now(), value.clone()));
        Ok(Some(value))
    }
}

fn read_secret(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
        Err(e) => Err(format!("cannot read the credential file `{}`: {e}", path.display())),
    }
}

/// `X-Prometheus-Remote-Write-Samples-Written`. The specification lets a missing header stand for 0, so any of the
/// three shows that the backend knows of them.
fn written(headers: &HeaderMap) -> Option<u64> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse().ok();
    number(SAMPLES_WRITTEN)
        .or_else(|| OTHERS_WRITTEN.into_iter().any(|name| headers.contains_key(name)).then_some(0))
}

/// Retry-After as seconds or as a date, which is taken against the answer's own date where it has one, so that
/// clocks that differ do no harm.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| OffsetDateTime::parse(text, &Rfc2822).ok();
    let until = date(text)?;
    let from = headers.get(DATE).and_then(|d| date(d.to_str().ok()?)).unwrap_or_else(|| now.into());
    Some((until - from).try_into().unwrap_or(Duration::ZERO))
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let sextet = group >> (18 - 6 * i) & 0x3f;
            out.push(if i <= chunk.len() { ALPHABET[sextet as usize] as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let after = |pairs: &[(&'static str, &str)]| retry_after(&headers(pairs), now);
        assert_eq!(after(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        let date = ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(after(&[date]), Some(Duration::from_secs(7)));
        assert_eq!(after(&[date, ("date", "Sun, 06 Nov 1994 08:49:34 GMT")]), Some(Duration::from_secs(3)));
        assert_eq!(after(&[date, ("date", "Sun, 06 Nov 1994 08:50:34 GMT")]), Some(Duration::ZERO));
        assert_eq!(after(&[("retry-after", "soon")]), None);
        assert_eq!(after(&[]), None);
    }

    #[test]
    fn any_written_header_shows_that_the_backend_counts() {
        assert_eq!(written(&headers(&[])), None);
        assert_eq!(written(&headers(&[(SAMPLES_WRITTEN, "12")])), Some(12));
        assert_eq!(written(&headers(&[(OTHERS_WRITTEN[0], "0")])), Some(0));
    }
}
