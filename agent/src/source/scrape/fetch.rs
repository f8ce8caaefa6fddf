//! One GET of a target: authentication, redirects, limits.
//!
//! Bodies are asked for uncompressed: exporters are on the same machine or next to it, where compressing costs both
//! ends more than the bytes.

use super::exposition::Format;
use super::settings::{Auth, Secret};
use super::target::Target;
use super::url::resolve_redirect;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use pegel_runtime::http_client::{ClientTls, ClientTlsError, HttpClient, http_client};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// What is asked for, in the order in which it is liked: what Prometheus 3 sends, so that exporters answer alike.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    application/openmetrics-text;version=0.0.1;q=0.5,\
    text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
    text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

/// How many redirects are followed: as many as Go's client, and so Prometheus, does.
const MAX_REDIRECTS: usize = 10;

/// How long an idle connection is kept: longer than any usual interval, so that scrapes reuse theirs.
const KEEP_IDLE: Duration = Duration::from_secs(90);

/// Why a target gave no body.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A secret's file can't be read.
    #[error("cannot read the secret in `{}`: {reason}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The TLS settings can't be used.
    #[error("{0}")]
    Tls(#[from] ClientTlsError),
    /// The request was not answered: no connection, a broken one, a bad certificate.
    #[error("cannot fetch {url}: {reason}")]
    Request {
        /// What was fetched.
        url: String,
        /// The causes, outermost first.
        reason: String,
    },
    /// The answer is not 200.
    #[error("the target answered HTTP status {0}")]
    Status(StatusCode),
    /// Redirects go on for too long, or to nowhere.
    #[error("the target redirects {0}")]
    Redirect(String),
    /// The body reaches the limit.
    #[error("the body reaches body_size_limit ({limit} bytes)")]
    BodySize {
        /// The limit.
        limit: usize,
    },
    /// The body is of an unknown kind.
    #[error("the content type `{0}` is no text exposition (set fallback_format for targets that name none)")]
    ContentType(String),
    /// The body is compressed, though that was not asked for.
    #[error("the body is encoded as `{0}`, which was not asked for")]
    Encoding(String),
    /// It took longer than the timeout.
    #[error("no complete answer within the timeout ({0:?})")]
    Timeout(Duration),
}

type PlainClient = Client<HttpConnector, Full<Bytes>>;

/// The clients of a source. Those with TLS are made when a target needs one: trust roots take memory.
#[derive(Debug)]
pub struct Clients {
    plain: PlainClient,
    tls: Mutex<Vec<(ClientTls, HttpClient)>>,
}

impl Default for Clients {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let plain = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_IDLE)
            .build(connector);
        Self { plain, tls: Mutex::default() }
    }
}

impl Clients {
    /// Forgets the clients with TLS, so that certificate files are read anew.
    pub fn forget_tls(&self) {
        self.tls.lock().clear();
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        target: &Target,
    ) -> Result<Response<Incoming>, FetchError> {
        let url = request.uri().clone();
        let sent = if url.scheme_str() == Some("https") {
            self.tls_client(target)?.request(request).await
        } else {
            self.plain.request(request).await
        };
        sent.map_err(|e| FetchError::Request { url: url.to_string(), reason: causes(&e) })
    }

    fn tls_client(&self, target: &Target) -> Result<HttpClient, FetchError> {
        let settings = &target.job.tls;
        let mut clients = self.tls.lock();
        if let Some((_, client)) = clients.iter().find(|(known, _)| known == settings) {
            return Ok(client.clone());
        }
        let client = http_client(settings, target.timeout)?;
        clients.push((settings.clone(), client.clone()));
        Ok(client)
    }
}

/// An error with its causes, which say more than it does.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// Fetches a target's metrics into `body`, within its timeout; says what format they are in.
pub async fn fetch(
    target: &Target,
    clients: &Clients,
    body: &mut Vec<u8>,
) -> Result<Option<Format>, FetchError> {
    match tokio::time::timeout(target.timeout, fetch_untimed(target, clients, body)).await {
        Ok(fetched) => fetched,
        Err(_) => Err(FetchError::Timeout(target.timeout)),
    }
}

async fn fetch_untimed(
    target: &Target,
    clients: &Clients,
    body: &mut Vec<u8>,
) -> Result<Option<Format>, FetchError> {
    body.clear();
    let mut url = target.url.clone();
    let mut response = None;
    for _ in 0..=MAX_REDIRECTS {
        let answer = clients.send(request(target, &url)?, target).await?;
        if !target.job.follow_redirects || !is_redirect(answer.status()) {
            response = Some(answer);
            break;
        }
        url = redirect(&url, answer.headers())?;
    }
    let mut response =
        response.ok_or_else(|| FetchError::Redirect(format!("more than {MAX_REDIRECTS} times")))?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let encoding = text_of(response.headers(), header::CONTENT_ENCODING);
    if !matches!(encoding, "" | "identity") {
        return Err(FetchError::Encoding(cut(encoding)));
    }
    let limit = match target.job.body_size_limit {
        0 => u32::MAX as usize,
        limit => limit.min(u32::MAX as usize),
    };
    while let Some(frame) = response.body_mut().frame().await {
        let frame = frame.map_err(|e| FetchError::Request { url: url.to_string(), reason: causes(&e) })?;
        if let Some(piece) = frame.data_ref() {
            // Dropping the response closes the connection: the rest is not read.
            if body.len() + piece.len() >= limit {
                return Err(FetchError::BodySize { limit });
            }
            body.extend_from_slice(piece);
        }
    }
    if body.is_empty() {
        return Ok(None);
    }
    let content_type = text_of(response.headers(), header::CONTENT_TYPE);
    match format_of(content_type).or(target.job.fallback_format) {
        Some(format) => Ok(Some(format)),
        None => Err(FetchError::ContentType(cut(content_type))),
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn redirect(from: &Uri, headers: &HeaderMap) -> Result<Uri, FetchError> {
    let location = text_of(headers, header::LOCATION);
    resolve_redirect(from, location)
        .ok_or_else(|| FetchError::Redirect(format!("to `{}`, which is no http URL", cut(location))))
}

fn request(target: &Target, url: &Uri) -> Result<Request<Full<Bytes>>, FetchError> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = url.clone();
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("pegel-agent/", env!("CARGO_PKG_VERSION"))),
    );
    let seconds = HeaderValue::from_str(&target.timeout.as_secs_f64().to_string());
    headers.insert("x-prometheus-scrape-timeout-seconds", seconds.expect("a number is a header value"));
    // A target that sends its visitors elsewhere is not to hand them the agent's secrets.
    let same_server = (url.scheme(), url.authority()) == (target.url.scheme(), target.url.authority());
    if let Some(auth) = target.job.auth.as_ref().filter(|_| same_server) {
        headers.insert(header::AUTHORIZATION, authorization(auth)?);
    }
    Ok(request)
}

/// The header by which the agent proves itself; its file is read now.
pub(in crate::source) fn authorization(auth: &Auth) -> Result<HeaderValue, FetchError> {
    let (secret, text) = match auth {
        Auth::Basic { username, password } => {
            let pair = format!("{username}:{}", read_secret(password)?);
            (password, format!("Basic {}", base64(pair.as_bytes())))
        }
        Auth::Bearer(token) => (token, format!("Bearer {}", read_secret(token)?)),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| FetchError::Secret {
        path: match secret {
            Secret::File(path) => path.clone(),
            Secret::Text(_) => PathBuf::from("the configuration"),
        },
        reason: "it holds characters that no header may have".into(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A secret, read now.
pub(in crate::source) fn read_secret(secret: &Secret) -> Result<String, FetchError> {
    match secret {
        Secret::Text(text) => Ok(text.clone()),
        Secret::File(path) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => Err(FetchError::Secret { path: path.clone(), reason: error.to_string() }),
        },
    }
}

/// Base64 with padding (RFC 4648, section 4), for `Authorization: Basic`.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let sextet = (bits >> (18 - 6 * i)) & 63;
            out.push(if i <= group.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    out
}

/// The format that a content type names, if it is one of the text formats.
fn format_of(content_type: &str) -> Option<Format> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/openmetrics-text") {
        Some(Format::OpenMetrics)
    } else if media_type.eq_ignore_ascii_case("text/plain") {
        Some(Format::Text)
    } else {
        None
    }
}

fn text_of(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A header as a message shows it.
fn cut(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 4648, section 10.
    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn content_types_name_formats_whatever_their_parameters() {
        for (content_type, format) in [
            ("text/plain; version=0.0.4; charset=utf-8", Some(Format::Text)),
            ("Text/Plain", Some(Format::Text)),
            ("application/openmetrics-text;version=1.0.0", Some(Format::OpenMetrics)),
            ("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily", None),
            ("text/html", None),
            ("", None),
        ] {
            assert_eq!(format_of(content_type), format, "{content_type}");
        }
    }
}
